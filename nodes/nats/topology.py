"""Writes what nats-server reads: who listens where, who is a leaf of whom, and who may use which subject.

A pure function of the description and the roster; files, keys and processes are others'. The shape is that which holds
when links are cut (docs/nats.md): a national cluster in one data centre; regional hubs as leaf nodes of it, each with
*one* remote that lists all its servers; sites as leaf nodes of their hub. Never a mesh of leaf nodes (they find a loop and
isolate each other), never gateways or a stretched cluster (no way around a cut).

- ``nats.conf`` changes with the description only. ``users.conf``, which it includes, changes with the roster.
- Each node may use what `nodes.nats.subjects` says. What a server below may use stands at the server *above*, which sends
  down only the interest that this permits: a leaf node hears of what its own nodes may write to, not of the country.
- Servers are known by their certificate, nodes and the operator by their key (docs/adr/0009).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from ledger.certificates import server_uri
from ledger.ids import GOVERNANCE, RealmId
from nodes.nats.description import Description, Hub, National, Server, Site
from nodes.nats.roster import EVERYWHERE, Member, Roster
from nodes.nats.subjects import Permissions, here, live, mailbox, permissions, prefix
from nodes.wire import FRAME_BYTES_MAX

__all__ = ["ACCOUNT", "Files", "User", "host_port", "listed_users", "render", "users_in"]

ACCOUNT = "LEDGER"
"""The one in which all nodes meet. Nobody but the operator of a server is in its system account."""

# --- what nats-server's defaults get wrong on thin links; measured at 9600 bit/s and 300 ms one way ------------------------
PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX
"""A message of ours in its envelope."""
HANDSHAKE_SECONDS = 45
"""TLS and login of a leaf node take up to 10 s there; the default of 2 s never lets it in."""
FIRST_INFO_SECONDS = 30
"""The same for the first line of the server above; the default is 1 s."""
WRITE_SECONDS = 20
"""What has been written must be taken within: 24 kB there. Whoever stopped reading is let go."""
PING_SECONDS, PING_MAX = 10, 2
"""A silent cut is noticed within 30 s. Twice the interval must cover the largest burst that may stand before a ping:
24 kB there, more than a node's window."""
RECONNECT_SECONDS = 1
"""A leaf node dials again; TLS and the hub's own pace bound what that costs."""
PENDING_BYTES_MAX = 8 * 1024 * 1024
"""Kept for one that reads slowly, then it is let go. The default of 64 MB times 1,400 nodes is no bound at all."""
CONNECTIONS_MAX = 8192
"""Of one server: every pharmacy and care unit of the largest region, with room for all of a failed neighbour."""
SUBSCRIPTIONS_MAX = 32_768
"""Of one connection: a leaf node's is the interest of all below it, some four subjects a node."""
CONTROL_LINE_BYTES_MAX = 4096
"""Subjects and headers of ours have some 100 bytes; the login, below 1 kB."""

_USER_LINE = re.compile(
    r'    \{ (?:nkey: (U[A-Z2-7]{55})|user: "([^"]+)"), .*'
    r"publish: \{ allow: \[(.*)\] \}, subscribe: \{ allow: \[(.*)\] \} \} \}"
)


class Files(Struct, frozen=True):
    """What one server's folder holds besides keys and certificates."""

    config: str
    """``nats.conf``."""
    users: str
    """``users.conf``."""


class User(Struct, frozen=True):
    """Who may log in to a server, and do what there."""

    name: str
    """NKey of a node, or the name in the certificate of a server below."""
    allowed: Permissions


def render(
    description: Description,
    server: National | Hub | Site,
    roster: Roster,
    realm: RealmId,
    operator: str,
    cluster_keys: Sequence[str],
) -> Files:
    """The configuration of one server.

    Args:
        description: the network.
        server: one of its servers.
        roster: who may log in.
        realm: whose subjects.
        operator: NKey of who may reload this server and end connections there.
        cluster_keys: SHA-256 (hexadecimal) of the public keys (SubjectPublicKeyInfo) of the national cluster's servers.
    """
    return Files(
        config="\n".join(_config(description, server, cluster_keys)) + "\n",
        users="\n".join(_users_file(listed_users(description, server, roster, realm), operator)) + "\n",
    )


# --- who --------------------------------------------------------------------------------------------------------------


def listed_users(
    description: Description, server: National | Hub | Site, roster: Roster, realm: RealmId
) -> list[User]:
    """All users of a server's account for nodes: nodes first, then servers below."""
    users = [User(m.user, permissions(realm, m.node, m.role, m.districts)) for m in _nodes_of(server, roster)]
    if isinstance(server, National):
        below = [(hub.name, _of_hub(hub, roster, realm)) for hub in description.hub]
    elif isinstance(server, Hub):
        sites = [site for site in description.site if server.name in site.hubs]
        below = [
            (site.name, allowed)
            for site in sites
            if (allowed := _of_site(site, server, roster, realm)) is not None
        ]
    else:
        below = []
    return users + [User(server_uri(name), allowed) for name, allowed in below]


def _nodes_of(server: National | Hub | Site, roster: Roster) -> list[Member]:
    """The nodes that may log in at a server itself."""
    if isinstance(server, Site):
        own = [m for m in roster.members if m.node in server.carried]
        if not server.guests:
            return own
        districts = {d for m in own for d in m.districts}
        return [m for m in roster.members if m.node in server.carried or m.serves(districts)]
    if isinstance(server, Hub) and server.districts:
        return [m for m in roster.members if m.serves(server.districts)]
    return list(roster.members)


def _of_hub(hub: Hub, roster: Roster, realm: RealmId) -> Permissions:
    """What the national cluster lets a hub carry: to any node of the country, from its own districts' only."""
    if not hub.districts:
        everything = (f"{prefix(realm)}.>",)
        return Permissions(everything, everything)
    common = _common(realm, hub.districts)
    return Permissions(
        publish=tuple(sorted([*common, f"{prefix(realm)}.to.*"])),
        subscribe=tuple(sorted([*common, *(mailbox(realm, m.node) for m in _nodes_of(hub, roster))])),
    )


def _of_site(site: Site, hub: Hub, roster: Roster, realm: RealmId) -> Permissions | None:
    """What a hub lets a site carry; None if none of the site's nodes may log in.

    Mailboxes are named one by one: with a pattern, the hub would send down the whole country's.
    """
    own = [m for m in roster.members if m.node in site.carried]
    if not own:
        return None
    districts = {d for m in own for d in m.districts}
    if any(m.role in EVERYWHERE for m in own):
        districts |= set(hub.districts) or {d for m in roster.members for d in m.districts}
    reached = [m for m in roster.members if m.serves(districts) or m in own]
    return Permissions(
        publish=tuple(sorted({*_common(realm, districts), *(mailbox(realm, m.node) for m in reached)})),
        # What each may hear anyway: a subscription passes up as it is, a pattern only where that pattern is allowed.
        subscribe=tuple(
            sorted({s for m in own for s in permissions(realm, m.node, m.role, m.districts).subscribe})
        ),
    )


def _common(realm: RealmId, districts: Iterable[str]) -> list[str]:
    return [kind(realm, district) for kind in (live, here) for district in sorted({GOVERNANCE, *districts})]


# --- users.conf ---------------------------------------------------------------------------------------------------------


def _users_file(users: Sequence[User], operator: str) -> Iterator[str]:
    yield "# Written by rxledger from the ledger of the realm; the next run replaces it."
    yield "system_account: SYS"
    yield "accounts {"
    yield f"  SYS {{ users: [ {{ nkey: {operator} }} ] }}"
    yield f"  {ACCOUNT} {{ users: ["
    for user in users:
        yield f"    {_user(user)}"
    yield "  ] }"
    yield "}"


def _user(user: User) -> str:
    # Subjects, NKeys and names of servers hold no character that ends a quoted string (checked where they are made).
    # A user that is known by certificate has no password: without the kind of connection, anybody could give its name.
    name = (
        f"nkey: {user.name}, allowed_connection_types: [STANDARD]"
        if user.name.startswith("U")
        else f'user: "{user.name}", allowed_connection_types: [LEAFNODE]'
    )
    publish, subscribe = (
        ", ".join(f'"{subject}"' for subject in subjects)
        for subjects in (user.allowed.publish, user.allowed.subscribe)
    )
    return f"{{ {name}, permissions: {{ publish: {{ allow: [{publish}] }}, subscribe: {{ allow: [{subscribe}] }} }} }}"


def users_in(users_file: str) -> dict[str, Permissions]:
    """The users of a file written here, without the operator: name → what it may use."""
    found: dict[str, Permissions] = {}
    for line in users_file.splitlines():
        if named := _USER_LINE.fullmatch(line):
            publish, subscribe = (
                tuple(one.strip('"') for one in subjects.split(", ") if one)
                for subjects in (named[3], named[4])
            )
            found[named[1] or named[2]] = Permissions(publish, subscribe)
    return found


# --- nats.conf ------------------------------------------------------------------------------------------------------------


def _config(
    description: Description, server: National | Hub | Site, cluster_keys: Sequence[str]
) -> Iterator[str]:
    yield "# Written by rxledger from the description of the network; the next run replaces it."
    yield f"server_name: {server.name}"
    yield f'listen: "{host_port(server.bind, server.port)}"'
    yield f'http: "127.0.0.1:{server.monitor_port}"'
    yield f"max_payload: {PAYLOAD_BYTES_MAX}"
    yield f"max_pending: {PENDING_BYTES_MAX}"
    yield f"max_connections: {CONNECTIONS_MAX}"
    yield f"max_subscriptions: {SUBSCRIPTIONS_MAX}"
    yield f"max_control_line: {CONTROL_LINE_BYTES_MAX}"
    yield f'write_deadline: "{WRITE_SECONDS}s"'
    yield f'ping_interval: "{PING_SECONDS}s"'
    yield f"ping_max: {PING_MAX}"
    yield f"authorization {{ timeout: {HANDSHAKE_SECONDS} }}"
    # Nodes log in with their key inside TLS; no certificate is asked of them.
    yield f"tls {{ {_OWN_TLS}, timeout: {HANDSHAKE_SECONDS} }}"
    yield "include users.conf"
    if isinstance(server, National):
        yield from _cluster(server, description.national, cluster_keys)
        yield from _leafnodes(server, server.leaf_port, above=())
    elif isinstance(server, Hub):
        above = [(n.address, n.leaf_port) for n in description.national]
        yield from _leafnodes(server, server.leaf_port, above=above)
    else:
        hubs = {hub.name: hub for hub in description.hub}
        above = [(hubs[name].address, hubs[name].leaf_port) for name in server.hubs]
        yield from _leafnodes(server, None, above=above)


_OWN_TLS = 'cert_file: server.pem, key_file: server.key, min_version: "1.3"'
_SERVER_TLS = f"{_OWN_TLS}, ca_file: ca.pem, timeout: {HANDSHAKE_SECONDS}"


def _cluster(server: National, servers: Collection[National], keys: Sequence[str]) -> Iterator[str]:
    routes = ", ".join(
        f'"nats-route://{host_port(s.address, s.route_port)}"' for s in servers if s.name != server.name
    )
    yield "cluster {"
    yield "  name: national"
    yield f'  listen: "{host_port(server.bind, server.route_port)}"'
    # A route carries everything and asks for no user: a site's certificate, or a stolen one, must not make one.
    pins = ", ".join(f'"{key}"' for key in sorted(keys))
    yield f"  tls {{ {_SERVER_TLS}, verify: true, pinned_certs: [{pins}] }}"
    yield f"  routes: [{routes}]"
    # What others are told to dial is what the description says, not what a server thinks of its own network.
    yield f'  cluster_advertise: "{host_port(server.address, server.route_port)}"'
    yield "}"


def _leafnodes(server: Server, listen_port: int | None, *, above: Sequence[tuple[str, int]]) -> Iterator[str]:
    yield "leafnodes {"
    if listen_port is not None:
        yield f'  listen: "{host_port(server.bind, listen_port)}"'
        yield f'  advertise: "{host_port(server.address, listen_port)}"'
        yield "  compression: s2_best"
        yield f"  authorization {{ timeout: {HANDSHAKE_SECONDS} }}"
        yield f"  tls {{ {_SERVER_TLS}, verify_and_map: true }}"
    if above:
        # One remote with all addresses: two into one cluster would bring every message twice.
        urls = ", ".join(f'"tls://{host_port(address, port)}"' for address, port in above)
        yield f'  reconnect: "{RECONNECT_SECONDS}s"'
        yield "  remotes: [ {"
        yield f"    urls: [{urls}], account: {ACCOUNT}, compression: s2_best"
        # The order is of preference, and failing over must not depend on what another server advertises.
        yield f'    no_randomize: true, ignore_discovered_servers: true, first_info_timeout: "{FIRST_INFO_SECONDS}s"'
        yield f"    tls {{ {_SERVER_TLS} }}"
        yield "  } ]"
    yield "}"


def host_port(address: str, port: int) -> str:
    """Where something listens, as URLs and configurations write it."""
    try:
        if ipaddress.ip_address(address).version == 6:
            return f"[{address}]:{port}"
    except ValueError:
        pass  # A host name.
    return f"{address}:{port}"
