"""The short description of a network of message servers, from which `nodes.nats.topology` writes everything else.

TOML, one table a server (docs/nats.md has a whole example)::

    [[national]]                     # one data centre, one cluster
    name = "n1"
    address = "n1.ledger.example"

    [[hub]]                          # one region; a leaf of the cluster
    name = "hub-north"
    address = "hub-north.example"
    districts = ["SE-AC-2480"]

    [[site]]                         # one building; a leaf of its hub
    name = "site-0001"
    address = "192.0.2.17"
    hubs = ["hub-north"]
    nodes = ["6f0e…"]                # ids of the nodes that it carries

What is read here stands in configuration files later, so every text is checked against what it may consist of.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.certificates import SERVER_ADDRESSES_MAX, check_address, check_server_name
from ledger.errors import InvalidInput
from ledger.ids import NodeId

__all__ = ["Description", "Hub", "National", "Server", "Site", "read_description"]

DESCRIPTION_BYTES_MAX = 1024 * 1024
"""`SITES_MAX` sites of some 250 bytes."""
NATIONAL_MAX = 7
"""Every server of a cluster has a route to every other; three are enough to lose one while another is serviced."""
HUBS_MAX = 128
"""Sweden has 21 regions; two hubs each and some for others."""
SITES_MAX = 4096
"""Twice the pharmacies of the country. A site without its own server needs no entry."""
DISTRICTS_MAX = 512
"""Sweden has 290 municipalities."""
NODES_MAX = 256
"""That one site's server carries."""
_DISTRICT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NODE = re.compile(r"[0-9a-f]{32}")

Port = Annotated[int, Meta(ge=1, le=65535)]
Addresses = Annotated[tuple[str, ...], Meta(max_length=SERVER_ADDRESSES_MAX - 1)]
Districts = Annotated[tuple[str, ...], Meta(max_length=DISTRICTS_MAX)]


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all servers state."""

    name: str
    """Also of its folder, and in its certificate."""
    address: str
    """Host name or IP address under which others reach it."""
    also: Addresses = ()
    """Further ones, for its certificate."""
    bind: str = "0.0.0.0"  # noqa: S104 (a server is there to be reached; every way in asks for a key)
    """IP address on which it listens."""
    port: Port = 4222
    """For nodes."""
    monitor_port: Port = 8222
    """On loopback, always."""

    @property
    def ports(self) -> list[int]:
        """All that it listens on."""
        return [self.port, self.monitor_port]


class National(Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the national cluster."""

    leaf_port: Port = 7422
    """For the servers below."""
    route_port: Port = 6222
    """For the others of the cluster."""

    @property
    def ports(self) -> list[int]:
        """All that it listens on."""
        return [self.port, self.monitor_port, self.leaf_port, self.route_port]


class Hub(Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A region's server."""

    leaf_port: Port = 7422
    """For the servers below."""
    districts: Districts = ()
    """Whose nodes it serves; none named: all."""

    @property
    def ports(self) -> list[int]:
        """All that it listens on."""
        return [self.port, self.monitor_port, self.leaf_port]


class Site(Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server in one building, for several nodes there and for neighbours."""

    hubs: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    """Names of the hubs that it may be a leaf of, the preferred first; one at a time."""
    nodes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=NODES_MAX)]
    """Ids (hexadecimal) of the nodes that it carries to its hub. When none of them may log in, neither may it."""
    guests: bool = True
    """Whether other nodes of their districts may log in here, to reach these nodes when the hub is gone."""

    @property
    def carried(self) -> frozenset[NodeId]:
        """The nodes that it carries."""
        return frozenset(NodeId(bytes.fromhex(node)) for node in self.nodes)


class Description(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole network."""

    national: Annotated[tuple[National, ...], Meta(max_length=NATIONAL_MAX)] = ()
    hub: Annotated[tuple[Hub, ...], Meta(max_length=HUBS_MAX)] = ()
    site: Annotated[tuple[Site, ...], Meta(max_length=SITES_MAX)] = ()

    @property
    def servers(self) -> tuple[National | Hub | Site, ...]:
        """All, from the top."""
        return (*self.national, *self.hub, *self.site)

    def server(self, name: str) -> National | Hub | Site:
        """One by name.

        Raises:
            InvalidInput: there is none.
        """
        for server in self.servers:
            if server.name == name:
                return server
        raise InvalidInput(f"the description has no server {name[:64]!r}")


def read_description(path: Path) -> Description:
    """Read and check a description.

    Raises:
        InvalidInput: what is wrong, and where.
    """
    with path.open("rb") as file:
        data = file.read(DESCRIPTION_BYTES_MAX + 1)
    if len(data) > DESCRIPTION_BYTES_MAX:
        raise InvalidInput(f"{path}: larger than {DESCRIPTION_BYTES_MAX} bytes")
    try:
        description = msgspec.toml.decode(data, type=Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: {error}", advice="docs/nats.md shows what a description may state"
        ) from error
    _check(description)
    return description


def _check(description: Description) -> None:
    if not description.servers:
        raise InvalidInput("the description names no server", advice="begin with one [[hub]]")
    for server in description.servers:
        _check_server(server)
    _check_different((s.name for s in description.servers), "two servers are called")
    # Not those of sites: each building's network begins at 192.168.0.1.
    upper = (*description.national, *description.hub)
    _check_different((f"{s.address} port {p}" for s in upper for p in s.ports), "two servers listen on")
    for hub in description.hub:
        for district in hub.districts:
            if not _DISTRICT.fullmatch(district):
                raise InvalidInput(f"{hub.name}: districts: {district[:64]!r} cannot be the name of one")
    for site in description.site:
        _check_site(site, {hub.name for hub in description.hub})


def _check_server(server: National | Hub | Site) -> None:
    check_server_name(server.name)
    for address in (server.address, *server.also):
        check_address(address)
    try:
        ipaddress.ip_address(server.bind)
    except ValueError:
        raise InvalidInput(f"{server.name}: bind: {server.bind[:64]!r} is not an IP address") from None
    _check_different(map(str, server.ports), f"{server.name}: two things listen on port")


def _check_site(site: Site, hubs: set[str]) -> None:
    for name in site.hubs:
        if name not in hubs:
            raise InvalidInput(f"{site.name}: hubs: there is no [[hub]] called {name[:64]!r}")
    for node in site.nodes:
        if not _NODE.fullmatch(node):
            raise InvalidInput(f"{site.name}: nodes: {node[:64]!r} is not 32 hexadecimal digits")


def _check_different(values: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise InvalidInput(f"{what} {value}")
        seen.add(value)
