"""What an operator states of a node: ``node.toml``, checked whole before anything is started.

Every refusal names the key and says what to write instead. A key that this version does not know is refused: a
misspelt limit must not silently be no limit.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from datetime import time
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from ledger.errors import InvalidInput, NotFound
from ledger.ids import NodeId
from ledger.policy import HOURS_MAX
from nodes.daemon.files import read_small

__all__ = [
    "DaemonConfig",
    "LinkConfig",
    "NightlyConfig",
    "PeersConfig",
    "ReadinessConfig",
    "SpoolConfig",
    "load_config",
    "parse_config",
]

CONFIG_BYTES_MAX = 64 * 1024
"""Sixteen links with all their servers have 10 kB."""
LINKS_MAX = 16
"""Two regional hubs, the site's own server, a few neighbours; each is a client with its own connection."""
URLS_MAX = 32
"""Servers of one link: a national cluster with room."""
PEERS_MAX = 2048
"""Every pharmacy of the country, named one by one."""
PATH_CHARACTERS_MAX = 4096
"""The system's own limit."""
MIB = 1024 * 1024

LinkName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
"""It is a label of metrics and stands in logs: a place, never a person."""
HexNode = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Url = Annotated[str, Meta(min_length=1, max_length=256)]
Hours = Annotated[int, Meta(ge=0, le=HOURS_MAX)]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class LinkConfig(_Section, frozen=True, kw_only=True):
    """One way to other nodes: a NATS client with its own list of servers, tried in turn."""

    name: LinkName
    urls: Annotated[tuple[Url, ...], Meta(min_length=1, max_length=URLS_MAX)]
    tls: bool = True
    """Mutual TLS with the realm's certificates. Entries are sealed without it too; who talks to whom is not."""
    bandwidth_bits_per_s: Annotated[int, Meta(ge=300, le=10**12)] | None = None
    """What this node sends at most; none: no limit."""
    slow: bool = False
    """A radio or a modem: urgent entries go ahead, patience is longer, nothing is sent that can wait."""


class PeersConfig(_Section, frozen=True, kw_only=True):
    """Nodes to talk to beside those that announce themselves."""

    nodes: Annotated[tuple[HexNode, ...], Meta(max_length=PEERS_MAX)] = ()

    def ids(self) -> tuple[NodeId, ...]:
        """As node ids."""
        return tuple(NodeId(bytes.fromhex(text)) for text in self.nodes)


class NightlyConfig(_Section, frozen=True, kw_only=True):
    """The nightly window: full reconciliation with peers in turn, verification scrub, backup, report."""

    start: Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    """Local time, ``HH:MM``."""
    time_zone: Annotated[str, Meta(max_length=64)] = ""
    """As ``Europe/Stockholm``; empty: the machine's own."""
    duration_minutes: Annotated[int, Meta(ge=1, le=20 * 60)] = 240
    """At most 20 hours, so that one night never meets the next."""
    budget_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 256 * MIB
    """Sent and received, over all links, a night."""
    catch_up: bool = True
    """A machine that was off or asleep over its start runs as soon as it is on again, for as long as a window lasts."""
    scrub: bool = True
    backup_directory: Path | None = None
    """None: no backups. Elsewhere than the node's disk, or they are of little use."""
    backups_kept: Annotated[int, Meta(ge=1, le=366)] = 7

    def start_time(self) -> time:
        """The start as a time of day."""
        return time.fromisoformat(self.start)


class SpoolConfig(_Section, frozen=True, kw_only=True):
    """A folder as a link: bundles are picked up from ``inbox`` and written to ``outbox``."""

    directory: Path
    outbox: Literal["peers", "broadcast", "off"] = "peers"
    """One bundle for each peer with what it lacks, one for all, or none."""
    interval_s: Annotated[int, Meta(ge=1, le=24 * 3600)] = 60
    bundle_bytes_max: Annotated[int, Meta(ge=MIB, le=1 << 40)] = 1024 * MIB
    """A larger file in the inbox is refused, a larger one is never written."""
    outbox_bytes_max: Annotated[int, Meta(ge=MIB, le=1 << 44)] = 4096 * MIB
    """All bundles waiting to be carried: the size of the smallest stick in use."""


class ReadinessConfig(_Section, frozen=True, kw_only=True):
    """Hours without the agency after which the level rises by itself, where policy's are too short for this site.

    Policy is the agency's; a site may only wait longer (one that has a link once a night is not in a crisis every
    evening). An earlier hour than policy's is not obeyed, and the status says so.
    """

    strained_after_hours: Hours | None = None
    crisis_after_hours: Hours | None = None
    minimum_after_hours: Hours | None = None


class DaemonConfig(_Section, frozen=True, kw_only=True):
    """All of ``node.toml``. Relative paths are relative to the file."""

    node: Path
    """The node's directory."""
    unlock: Path | None = None
    """The unlock file; None: systemd's credential or the user's configuration, as for every command."""
    socket: Path | None = None
    """The owner's socket; None: in the node's directory."""
    socket_group: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    """A group (number) whose processes may use the socket besides this user's."""
    metrics: str | None = None
    """``127.0.0.1:9464``: where Prometheus finds the metrics; none: nowhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    links: Annotated[tuple[LinkConfig, ...], Meta(max_length=LINKS_MAX)] = ()
    peers: PeersConfig = PeersConfig()
    nightly: NightlyConfig | None = None
    spool: SpoolConfig | None = None
    readiness: ReadinessConfig = ReadinessConfig()

    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of the metrics."""
        if self.metrics is None:
            return None
        parts = urlsplit(f"//{self.metrics}")
        return str(parts.hostname), int(parts.port or 0)


_REMEDIES = {
    "node": "the path of the node's directory, as made by `rxledger node enrol`",
    "unlock": "the path of the unlock file, outside the node's directory",
    "socket": "a path, or leave it out",
    "socket_group": "a group's number, as `getent group` shows it",
    "metrics": 'an address of this machine and a port, as "127.0.0.1:9464"',
    "log_level": 'one of "debug", "info", "warning", "error"',
    "links": f"at most {LINKS_MAX} tables [[links]]",
    "links.name": "small letters, digits and dashes, at most 32",
    "links.urls": 'a list of servers, as ["tls://hub.example:4222"]',
    "links.tls": "true or false",
    "links.bandwidth_bits_per_s": "a number of bits a second from 300 on, as 9600; leave it out for no limit",
    "links.slow": "true or false",
    "peers.nodes": "a list of node ids, 32 hexadecimal digits each, as `rxledger status` shows them",
    "nightly.start": 'a local time, as "02:30"',
    "nightly.time_zone": 'a zone, as "Europe/Stockholm"; leave it out for the machine\'s own',
    "nightly.duration_minutes": "minutes, from 1 to 1200",
    "nightly.budget_bytes": "a number of bytes a night, both directions together",
    "nightly.catch_up": "true or false",
    "nightly.scrub": "true or false",
    "nightly.backup_directory": "the path of a directory, on another disk than the node's",
    "nightly.backups_kept": "how many backups to keep, from 1 to 366",
    "spool.directory": "the path of a directory",
    "spool.outbox": 'one of "peers", "broadcast", "off"',
    "spool.interval_s": "seconds between looks, from 1 to 86400",
    "spool.bundle_bytes_max": "a number of bytes from 1048576 on",
    "spool.outbox_bytes_max": "a number of bytes from 1048576 on",
    "readiness.strained_after_hours": f"hours, from 0 to {HOURS_MAX}",
    "readiness.crisis_after_hours": f"hours, from 0 to {HOURS_MAX}",
    "readiness.minimum_after_hours": f"hours, from 0 to {HOURS_MAX}",
}
"""What to write for each key."""
_SECTIONS: dict[str, type[_Section]] = {
    "": DaemonConfig,
    "links": LinkConfig,
    "peers": PeersConfig,
    "nightly": NightlyConfig,
    "spool": SpoolConfig,
    "readiness": ReadinessConfig,
}


def load_config(path: Path) -> DaemonConfig:
    """Read and check a configuration file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: names the key that is wrong, and says what to write.
        LimitExceeded: the file is larger than any configuration.
    """
    data = read_small(path, CONFIG_BYTES_MAX)
    if data is None:
        raise NotFound(f"no configuration at {path}", advice="see docs/daemon.md for one to begin with")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not text in UTF-8") from error
    return parse_config(text, base=path.resolve().parent)


def parse_config(text: str, *, base: Path) -> DaemonConfig:
    """A configuration from the text of a file that lies in `base`.

    Raises:
        InvalidInput: names the key that is wrong, and says what to write.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"the configuration is not TOML: {error}") from error
    try:
        config = msgspec.convert(table, DaemonConfig, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from error
    _check_links(config)
    _check_metrics(config)
    _check_nightly(config)
    return _anchored(config, base)


def _path(kind: type, value: object) -> Path:
    if (
        kind is Path
        and isinstance(value, str)
        and 0 < len(value) <= PATH_CHARACTERS_MAX
        and "\0" not in value
    ):
        return Path(value)
    raise ValueError("this is not a path")


def _refusal(message: str) -> InvalidInput:
    """In an operator's words what msgspec found: the key, what is wrong, what to write."""
    what, _, path = message.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `(.*)`", what)
    missing = re.search(r"required field `(.*)`", what)
    inner = unknown or missing
    if inner is not None:
        key = f"{key}.{inner[1]}" if key else inner[1]
    general = _general(key)
    advice = _REMEDIES.get(general, "")
    if unknown is not None:
        section = _SECTIONS[general.rpartition(".")[0]]
        advice = "keys there: " + ", ".join(sorted(section.__struct_fields__))
        return InvalidInput(f"{key}: there is no such key", advice=advice)
    if missing is not None:
        return InvalidInput(f"{key}: is missing", advice=f"give {advice}" if advice else None)
    return InvalidInput(f"{key}: {what[0].lower()}{what[1:]}", advice=f"give {advice}" if advice else None)


def _wrong(key: str, what: str) -> InvalidInput:
    return InvalidInput(f"{key}: {what}", advice=f"give {_REMEDIES[_general(key)]}")


def _general(key: str) -> str:
    """The key without the numbers of tables and items."""
    return re.sub(r"\[[^\]]*\]", "", key)


def _check_links(config: DaemonConfig) -> None:
    names: set[str] = set()
    for number, link in enumerate(config.links):
        if link.name in names:
            raise _wrong(f"links[{number}].name", "another link has this name")
        names.add(link.name)
        for url in link.urls:
            key = f"links[{number}].urls"
            try:
                parts = urlsplit(url)
                port = parts.port
            except ValueError as error:
                raise _wrong(key, "an address cannot be read") from error
            if parts.scheme not in ("nats", "tls") or not parts.hostname or port is None:
                raise _wrong(key, "an address is not nats://host:port or tls://host:port")
            if parts.username is not None or parts.password is not None:
                raise _wrong(
                    key, "an address holds a user or password; nodes prove who they are by certificate"
                )
            if parts.path.strip("/") or parts.query or parts.fragment:
                raise _wrong(key, "an address has more than host and port")
            if parts.scheme == "tls" and not link.tls:
                raise _wrong(key, "an address says tls:// and the link says tls = false")


def _check_metrics(config: DaemonConfig) -> None:
    if config.metrics is None:
        return
    try:
        host, port = config.metrics_address() or ("", 0)
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise _wrong("metrics", "this is no address with a port") from error
    # Times, volumes and who talks to whom are nobody's business outside this machine.
    if not loopback or not 0 < port < 1 << 16:
        raise _wrong("metrics", "metrics are given on a loopback address only, with a port")


def _check_nightly(config: DaemonConfig) -> None:
    if config.nightly is None or not config.nightly.time_zone:
        return
    try:
        ZoneInfo(config.nightly.time_zone)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError.
        raise _wrong("nightly.time_zone", "this machine knows no such zone") from error
    except KeyError as error:
        raise _wrong("nightly.time_zone", "this machine knows no such zone") from error


def _anchored(config: DaemonConfig, base: Path) -> DaemonConfig:
    """Relative paths, taken from where the file lies; a daemon's own directory is anybody's guess."""

    def placed(path: Path | None) -> Path | None:
        return None if path is None else base / path.expanduser()

    nightly, spool = config.nightly, config.spool
    if nightly is not None:
        nightly = msgspec.structs.replace(nightly, backup_directory=placed(nightly.backup_directory))
    if spool is not None:
        spool = msgspec.structs.replace(spool, directory=base / spool.directory.expanduser())
    return msgspec.structs.replace(
        config,
        node=base / config.node.expanduser(),
        unlock=placed(config.unlock),
        socket=placed(config.socket),
        nightly=nightly,
        spool=spool,
    )
