"""What a node says of itself: to the operator, to metrics, over the owner's socket. Never a bare "ok".

What is not known is None and shown as unknown: a node that has no conversation with a peer does not know what that peer
lacks (R11). All counts are of entries, all times milliseconds since 1970 UTC, nodes hexadecimal.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from ledger import Ledger, NodeId
from ledger.identity import Certified
from ledger.node import STORE_FILE
from ledger.policy import HOUR_MS
from nodes.daemon.config import ReadinessConfig
from nodes.daemon.readiness import Readiness, readiness_of
from nodes.daemon.report import NightReport, last_report, moment, report_lines
from nodes.links import LinkState, LinkStatus

__all__ = [
    "LANES",
    "STATUS_METHOD",
    "PEERS_SHOWN_MAX",
    "LaneCounts",
    "LaneTimes",
    "NightStatus",
    "NodeStatus",
    "PeerStatus",
    "StoreStatus",
    "known_peers",
    "node_status",
    "status_lines",
    "store_status",
]

LANES = (0, 1, 2)
"""Stop and custody; supplies and life-sustaining prescriptions; the rest."""
STATUS_METHOD = "daemon.status"
"""Under which name a daemon gives its `NodeStatus` on the owner's socket."""
PEERS_SHOWN_MAX = 2048
"""Peers in one status: every pharmacy of the country. Those silent longest come first."""
PEERS_TOLD_MAX = 40
"""Lines for people; JSON has them all."""


FREE_BYTES_LOW = 256 * 1024 * 1024
"""Some weeks of a pharmacy's entries, or one backup of them: time to act."""


class LaneCounts(Struct, frozen=True, array_like=True):
    """Entries by lane."""

    stop: int = 0
    supplies: int = 0
    rest: int = 0

    @property
    def total(self) -> int:
        """Of all lanes."""
        return self.stop + self.supplies + self.rest


class LaneTimes(Struct, frozen=True, array_like=True):
    """A time by lane; 0: there is none."""

    stop: int = 0
    supplies: int = 0
    rest: int = 0

    @property
    def oldest(self) -> int:
        """The oldest of all lanes; 0 if there is none."""
        return min((at for at in (self.stop, self.supplies, self.rest) if at), default=0)


class PeerStatus(Struct, frozen=True, kw_only=True):
    """How this node stands with one other."""

    node: str
    name: str = ""
    """As in its certificate."""
    role: str = ""
    link: str = ""
    """The link over which it was last heard; empty: none now."""
    heard_ms: int = 0
    """When it was last heard, by whatever way; 0 never."""
    in_step: bool | None = None
    """At the last comparison both held the same of all districts that both want."""
    they_lack: LaneCounts | None = None
    we_lack: LaneCounts | None = None
    oldest_unsent_ms: LaneTimes | None = None
    """When the oldest entry that this peer lacks was written."""
    entries_in: int = 0
    entries_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0
    """Messages of this peer that were refused."""
    last_refusal: str = ""
    """The code of the newest refusal, of either side."""


class StoreStatus(Struct, frozen=True, kw_only=True):
    """What is held on disk."""

    entries: int = 0
    """Chained, over all feeds (the longest branch of a forked one)."""
    feeds: int = 0
    districts: int = 0
    detached: int = 0
    """Held ahead of their feeds: something before them is missing."""
    forked_feeds: int = 0
    size_bytes: int = 0
    free_bytes: int = 0
    """On the disk of the store."""
    incarnation: int = 0
    oldest_unheard_ms: int = 0
    """The horizon: when the author longest silent, of those that write here, was last heard; 0: one never was."""


class NightStatus(Struct, frozen=True, kw_only=True):
    """The nightly window."""

    next_ms: int = 0
    """When it opens next; 0: not configured, or the daemon is not running."""
    running: bool = False
    last: NightReport | None = None


class NodeStatus(Struct, frozen=True, kw_only=True):
    """All that `rxledger status` says."""

    at_ms: int
    running: bool
    """Asked of the owning daemon; False: read from the store alone, by another process."""
    owned: bool = False
    """Some process writes the store now."""
    started_ms: int = 0
    node: str
    name: str
    role: str
    realm: str
    district: str
    readiness: Readiness
    links: tuple[LinkStatus, ...] = ()
    peers: tuple[PeerStatus, ...] = ()
    peers_not_shown: int = 0
    store: StoreStatus = StoreStatus()
    night: NightStatus = NightStatus()
    refusals: dict[str, int] = {}
    """Refusals of peers' bytes since the daemon started, by code."""
    notes: tuple[str, ...] = ()
    """What an operator should look at, in words."""


def store_status(ledger: Ledger, directory: Path) -> StoreStatus:
    """What a ledger's store holds. Reads heads only: cheap however many entries there are."""
    node = ledger.node
    with node.lock:
        districts = node.held_districts()
        heads = {feed: ends for district in districts for feed, ends in node.store.frontier(district)}
        detached = sum(len(node.store.detached_links(district)) for district in districts)
        authors = {row.author for row in node.store.feeds()} - {node.identity.node}
        heard = {who: at for who, _, at in node.store.horizon()}
        incarnation = node.writer.incarnation
    size, free = _disk(directory)
    return StoreStatus(
        entries=sum(max(head.sequence for head in ends) for ends in heads.values()),
        feeds=len(heads), districts=len(districts), detached=detached,
        forked_feeds=sum(len(ends) > 1 for ends in heads.values()),
        size_bytes=size, free_bytes=free, incarnation=incarnation,
        oldest_unheard_ms=min((heard.get(author, 0) for author in authors), default=0),
    )  # fmt: skip


def _disk(directory: Path) -> tuple[int, int]:
    """Bytes of store and log, and bytes free beside them."""
    size = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            size += (directory / (STORE_FILE + suffix)).stat().st_size
    return size, shutil.disk_usage(directory).free


def known_peers(ledger: Ledger) -> list[PeerStatus]:
    """Every other node that has a feed here, those silent longest first; what they lack is not known from the store."""
    node = ledger.node
    with node.lock:
        heard = {who: at for who, _, at in node.store.horizon()}
        certified: dict[NodeId, Certified | None] = {}
        for row in node.store.feeds():
            if row.author != node.identity.node and row.author not in certified:
                certified[row.author], _ = node.reader.author(row.feed)
        for who in heard.keys() - certified.keys() - {node.identity.node}:
            certified[who] = None
    return sorted(
        (
            PeerStatus(
                node=who.hex(),
                name="" if who_is is None else who_is.name,
                role="" if who_is is None else who_is.role.value,
                heard_ms=heard.get(who, 0),
            )
            for who, who_is in certified.items()
        ),
        key=lambda peer: (peer.heard_ms, peer.node),
    )


def node_status(
    ledger: Ledger,
    directory: Path,
    *,
    site: ReadinessConfig = ReadinessConfig(),  # noqa: B008 - frozen.
    running: bool,
    peers: Sequence[PeerStatus] | None = None,
    links: Sequence[LinkStatus] = (),
    started_ms: int = 0,
    next_window_ms: int = 0,
    window_running: bool = False,
    owned: bool = True,
    refusals: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> NodeStatus:
    """Put a status together: what the store says, and what only the caller knows.

    Args:
        ledger: open.
        directory: the node's.
        site: this site's hours (see `nodes.daemon.readiness`).
        running: whether the caller is the daemon.
        peers: what the conversations know; None: what the store knows.
        links: of the daemon.
        started_ms: when the daemon started.
        next_window_ms: when the nightly window opens next; 0: not configured.
        window_running: whether it is open now.
        owned: whether some process writes the store.
        refusals: of peers' bytes, by code.
        notes: what the caller wants looked at.
    """
    node = ledger.node
    shown = sorted(known_peers(ledger) if peers is None else peers, key=lambda p: (p.heard_ms, p.node))
    status = NodeStatus(
        at_ms=node.now_ms(), running=running, owned=owned, started_ms=started_ms,
        node=node.identity.node.hex(), name=node.identity.name, role=node.identity.role.value,
        realm=node.realm.name, district=node.identity.district,
        readiness=readiness_of(ledger, site), links=tuple(links), peers=tuple(shown[:PEERS_SHOWN_MAX]),
        peers_not_shown=max(0, len(shown) - PEERS_SHOWN_MAX), store=store_status(ledger, directory),
        night=NightStatus(next_ms=next_window_ms, running=window_running, last=last_report(directory)),
        refusals=dict(refusals or {}),
    )  # fmt: skip
    return msgspec.structs.replace(status, notes=(*remarks(status, ledger), *notes))


def remarks(status: NodeStatus, ledger: Ledger) -> tuple[str, ...]:
    """What an operator should look at."""
    found = []
    if not status.running:
        found.append(
            "the daemon is not running: nothing is replicated"
            if not status.owned
            else "another process owns the store and answers no status: it may be a command, or a daemon that starts"
        )
    elif not any(link.state is LinkState.UP for link in status.links):
        found.append("no link is up: nothing is replicated but by the spool folder")
    if status.readiness.by_itself:
        found.append(
            f"the level has risen to {status.readiness.level.value} by itself, for want of the agency"
        )
    found += [
        f"{key} is earlier than policy's hours and is not obeyed" for key in status.readiness.not_obeyed
    ]
    silent_ms = ledger.policy()[0].stale_hours * HOUR_MS
    silent = sum(status.at_ms - peer.heard_ms > silent_ms for peer in status.peers)
    if silent:
        found.append(f"{silent} nodes have not been heard for {silent_ms // HOUR_MS} hours or more")
    if status.store.detached:
        found.append(
            f"{status.store.detached} entries are held ahead of their feeds: what precedes them is missing"
        )
    if status.store.forked_feeds:
        found.append(f"{status.store.forked_feeds} feeds are forked: see `rxledger anomalies`")
    if status.store.free_bytes < FREE_BYTES_LOW:
        found.append(f"the disk of the store has {status.store.free_bytes} bytes left")
    last = status.night.last
    if last is not None and not last.whole:
        found.append(f"the night of {last.night} left something undone")
    return tuple(found)


def status_lines(status: NodeStatus) -> Iterator[str]:
    """The status for people."""
    yield f"{status.name} ({status.role}, {status.district or 'all districts'}) in realm {status.realm}"
    yield f"  node {status.node}, incarnation {status.store.incarnation}, at {moment(status.at_ms)}"
    yield (
        f"  daemon: running since {moment(status.started_ms)}"
        if status.running
        else "  daemon: NOT running; this is what the store alone says"
    )
    yield from _readiness_lines(status.readiness)
    yield (
        f"  store: {status.store.entries} entries in {status.store.feeds} feeds of {status.store.districts} districts, "
        f"{status.store.size_bytes} bytes; {status.store.free_bytes} bytes free"
    )
    yield f"  horizon: the node longest silent was heard {_ago(status.store.oldest_unheard_ms, status.at_ms)}"
    if status.running:
        yield "links:" if status.links else "links: none is configured"
    for link in status.links:
        where = f" {link.server}" if link.server else ""
        why = f": {link.reason}" if link.reason and link.state is not LinkState.UP else ""
        yield (
            f"  {link.name} {link.state.value}{where} since {moment(link.since_ms)}{why}; {link.sent_bytes} bytes out, "
            f"{link.received_bytes} in, {link.reconnects} reconnects, {link.refused} not taken"
        )
    yield "peers:" if status.peers else "peers: no other node is known"
    for peer in status.peers[:PEERS_TOLD_MAX]:
        yield _peer_line(peer, status.at_ms)
    hidden = len(status.peers) - PEERS_TOLD_MAX
    if hidden > 0 or status.peers_not_shown:
        yield f"  and {max(0, hidden) + status.peers_not_shown} more, heard later than these (--json shows them)"
    if status.refusals:
        yield "refused: " + ", ".join(f"{count} {code}" for code, count in sorted(status.refusals.items()))
    if status.night.next_ms:
        yield f"nightly window: {'open now' if status.night.running else f'next {moment(status.night.next_ms)}'}"
    if status.night.last is not None:
        yield from report_lines(status.night.last)
    for note in status.notes:
        yield f"! {note}"


def _readiness_lines(ready: Readiness) -> Iterator[str]:
    why = f"by itself; declared is {ready.declared.value}" if ready.by_itself else "declared"
    coming = ""
    if ready.next_level is not None:
        coming = f"; without contact {ready.next_level.value} in {_span(ready.next_in_ms)}"
    yield f"  level: {ready.level.value} ({why}); agency silent for {_span(ready.agency_silence_ms)}{coming}"


def _peer_line(peer: PeerStatus, at_ms: int) -> str:
    parts = [f"heard {_ago(peer.heard_ms, at_ms)}" + (f" over {peer.link}" if peer.link else "")]
    parts.append("in step" if peer.in_step else "not in step" if peer.in_step is not None else "not compared")
    # What it lacks is counted from when both last held the same: it may have got some of it since, told at once.
    for who, lacks in (("it lacks", peer.they_lack), ("we lack", peer.we_lack)):
        if lacks is None:
            parts.append(f"{who} unknown")
        elif lacks.total:
            parts.append(f"{who} at most {lacks.stop}+{lacks.supplies}+{lacks.rest}")
    unsent = peer.oldest_unsent_ms
    if unsent is not None and unsent.oldest:
        told = (
            f"lane {lane} {_ago(at, at_ms)}" for lane, at in zip(LANES, _lanes(unsent), strict=True) if at
        )
        parts.append("oldest not known to be there: " + ", ".join(told))
    if peer.refused:
        parts.append(f"{peer.refused} refused ({peer.last_refusal})")
    name = f" {peer.name} ({peer.role})" if peer.name else ""
    return f"  {peer.node[:16]}{name}: " + "; ".join(parts)


def _lanes(times: LaneTimes) -> tuple[int, int, int]:
    return times.stop, times.supplies, times.rest


def _ago(ms: int, now_ms: int) -> str:
    if not ms:
        return "never"
    return f"{_span(now_ms - ms)} ago" if ms <= now_ms else "in the future by this machine's clock"


def _span(ms: int) -> str:
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
