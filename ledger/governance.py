"""What the agency decided, folded from governance: a pure function of the set of its entries (R4, R14).

- One numbered chain with one writer: entries of agency nodes, in the order of their feeds; anything by
  another role is listed in `refused` and has no effect. Numbers (positions) are what "in its causal past"
  means for governance.
- Several agency feeds (a new incarnation, a node that replaces another) are chained one after the other. A
  feed comes after the one that its first entry cites as newest, and after the feeds of the nodes that it
  revokes; ties by feed id. No clock is asked (R5), so an agency whose clock ran ahead can still be succeeded.
- A revoked agency node keeps what its revocation calls good. The rest of its entries lack effect, but for its
  own revocations: two that revoke each other are both revoked, and the root names a third.
- A forked governance feed: revocations and retention of every branch apply (they only take away); everything
  else from the first forked position on is void until the root replaces the writer.
- Several revocations of one node: what all of them call good stays good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import Struct

from ledger.events import (
    Event,
    KeyEpochStarted,
    Level,
    NodeAdmitted,
    NodeRevoked,
    PolicySet,
    ReadinessDeclared,
    RetentionSet,
)
from ledger.identity import NodeRole
from ledger.ids import FeedId, Link, NodeId, tagged_hash

__all__ = ["GovernanceEntry", "GovernanceView", "Revocation", "fold_governance"]

MARK_BYTES = 8


class GovernanceEntry(Struct, frozen=True):
    """A governance event at its place."""

    id: Link
    feed: FeedId
    branch: int
    sequence: int
    stamp: int
    author: NodeId
    role: NodeRole
    kind: str
    event: Event | None
    detached: bool = False
    """Held ahead of its feed: it counts, and nobody who cites governance claims to know all before it."""


class Revocation(Struct, frozen=True):
    """A node's loss of authority: since which position, and what stays good (feed → sequence, link)."""

    position: int
    good: Mapping[FeedId, tuple[int, Link]]


class GovernanceView(Struct, frozen=True):
    """What is in force. Made by `fold_governance`."""

    mark: bytes
    """First eight bytes of the link of the newest entry before which none is missing; empty if there is none.

    What events cite. It says what their author knew: an entry that overtook others says nothing of those.
    """
    policy: tuple[bytes, str] | None
    """Policy bytes and the law they cite."""
    retired_before: int
    """Documents issued before this month are retired; 0: none. It only grows: what was dropped is gone."""
    admitted: tuple[bytes, ...]
    """Certificates (DER) as announced, in chain order. Information: a certificate admits by itself."""
    refused: tuple[Link, ...]
    """Entries by nodes that may not write governance: without effect, and outside the digest."""
    forked: bool
    """Whether a feed of the chain is forked: the root must name a new writer."""
    _positions: Mapping[bytes, int]
    _levels: Mapping[str, Level]
    _revocations: Mapping[NodeId, Revocation]
    _revoked_feeds: frozenset[FeedId]
    _epochs: Mapping[str, int]
    _wrapped: Mapping[NodeId, tuple[tuple[str, int, bytes], ...]]
    _digest: bytes

    def position(self, mark: bytes) -> int | None:
        """Where in the chain an author stood: 0 before the first entry; None if that entry is not held."""
        return 0 if not mark else self._positions.get(mark)

    def revocation(self, node: NodeId) -> Revocation | None:
        """How a node was revoked, if it was."""
        return self._revocations.get(node)

    def names_revoked(self, feed: FeedId) -> bool:
        """Whether a revocation names a feed as its node's: the node is known even if it wrote nothing at hand."""
        return feed in self._revoked_feeds

    def level(self, district: str) -> Level:
        """The declared level of a district."""
        return self._levels.get(district, self._levels.get("", Level.NORMAL))

    def epoch(self, district: str) -> int:
        """The newest key epoch of a district; at least 1."""
        return self._epochs.get(district, 1)

    def wrapped(self, node: NodeId) -> tuple[tuple[str, int, bytes], ...]:
        """District, epoch and wrapped key, of every key meant for a node."""
        return self._wrapped.get(node, ())

    def digest(self) -> bytes:
        """A hash of the chain and all that is in force: what a state depends on beside its own entries."""
        return self._digest


def _chain(entries: Iterable[GovernanceEntry]) -> list[GovernanceEntry]:
    feeds: dict[FeedId, list[GovernanceEntry]] = {}
    for entry in entries:
        feeds.setdefault(entry.feed, []).append(entry)
    for held in feeds.values():
        held.sort(key=lambda e: (e.sequence, e.id))
    return [entry for feed in _feed_order(feeds) for entry in feeds[feed]]


def _feed_order(feeds: Mapping[FeedId, list[GovernanceEntry]]) -> list[FeedId]:
    """Feeds after all that they follow, directly or not: who follows, follows strictly more.

    Nodes that revoke each other follow the same, a circle: among them, first who is cited, then by id.
    """
    if len(feeds) < 2:
        return list(feeds)
    by_mark: dict[bytes, FeedId] = {}
    by_author: dict[NodeId, int] = {}
    bit = {feed: 1 << number for number, feed in enumerate(sorted(feeds))}
    for feed, own in bit.items():
        author = feeds[feed][0].author
        by_author[author] = by_author.get(author, 0) | own
        for entry in feeds[feed]:
            by_mark.setdefault(bytes(entry.id[:MARK_BYTES]), feed)
    cites: dict[FeedId, FeedId] = {}
    follows: dict[int, int] = {}
    for feed, held in feeds.items():
        follows[bit[feed]] = bit[feed]
        first = held[0].event
        if first is not None and by_mark.get(first.governance, feed) != feed:
            cites[feed] = by_mark[first.governance]
            follows[bit[feed]] |= bit[cites[feed]]
        for entry in held:
            if isinstance(entry.event, NodeRevoked) and entry.event.node != entry.author:
                follows[bit[feed]] |= by_author.get(NodeId(entry.event.node), 0)
    return sorted(bit, key=lambda f: (_all_followed(bit[f], follows).bit_count(), _cited(f, cites), f))


def _all_followed(start: int, follows: Mapping[int, int]) -> int:
    """Feeds as bits of one integer: a hostile agency's thousand feeds in a circle cost little."""
    found, waiting = start, start
    while waiting:
        one = waiting & -waiting
        waiting ^= one
        new = follows[one] & ~found
        found |= new
        waiting |= new
    return found


def _cited(feed: FeedId, cites: Mapping[FeedId, FeedId]) -> int:
    """How many feeds stand before one by citation. Marks are short and might meet: none is walked twice."""
    seen = {feed}
    while (before := cites.get(feed)) is not None and before not in seen:
        seen.add(before)
        feed = before
    return len(seen)


def fold_governance(entries: Iterable[GovernanceEntry], forked_at: Mapping[FeedId, int]) -> GovernanceView:
    """Fold the set of governance entries.

    Args:
        entries: readable, authentic; any order, repeated or not.
        forked_at: feed → lowest sequence at which its branches part.
    """
    held = {entry.id: entry for entry in entries}
    refused = tuple(sorted(link for link, e in held.items() if e.role is not NodeRole.AGENCY))
    chain = _chain(e for e in held.values() if e.role is NodeRole.AGENCY)
    positions: dict[bytes, int] = {}
    revocations: dict[NodeId, Revocation] = {}
    retired = 0
    for number, entry in enumerate(chain, 1):
        positions.setdefault(bytes(entry.id[:MARK_BYTES]), number)
        if isinstance(entry.event, NodeRevoked):
            _revoke(revocations, NodeId(entry.event.node), number, entry.event)
    force = _Force()
    for entry in chain:
        if not _is_good(entry, revocations.get(entry.author)):
            continue
        if isinstance(entry.event, RetentionSet):
            retired = max(retired, entry.event.before_month)
        elif entry.sequence < forked_at.get(entry.feed, entry.sequence + 1):
            force.take(entry.event)
    return GovernanceView(
        mark=_mark(chain, positions),
        policy=force.policy,
        retired_before=retired,
        admitted=tuple(force.admitted),
        refused=refused,
        forked=any(e.feed in forked_at for e in chain),
        _positions=positions,
        _levels=force.levels,
        _revocations=revocations,
        _revoked_feeds=frozenset(
            FeedId(end.feed) for e in chain if isinstance(e.event, NodeRevoked) for end in e.event.good
        ),
        _epochs=force.epochs,
        _wrapped={node: tuple(keys) for node, keys in force.wrapped.items()},
        _digest=_digest([e.id for e in chain], revocations, retired, force),
    )


def _mark(chain: Collection[GovernanceEntry], positions: Mapping[bytes, int]) -> bytes:
    """The newest entry up to which all is held, as far as the entries themselves tell."""
    mark = b""
    for entry in chain:
        cited = entry.event.governance if entry.event is not None else b""
        if entry.detached or (cited and cited not in positions):
            break
        mark = bytes(entry.id[:MARK_BYTES])
    return mark


class _Force:
    """What is in force, entry by entry along the chain: the last word counts."""

    def __init__(self) -> None:
        self.policy: tuple[bytes, str] | None = None
        self.levels: dict[str, Level] = {}
        self.epochs: dict[str, int] = {}
        self.wrapped: dict[NodeId, list[tuple[str, int, bytes]]] = {}
        self.admitted: list[bytes] = []

    def take(self, event: Event | None) -> None:
        if isinstance(event, ReadinessDeclared):
            if not event.districts:
                self.levels = {"": event.declared}
            self.levels.update(dict.fromkeys(event.districts, event.declared))
        elif isinstance(event, PolicySet):
            self.policy = event.policy, event.legal_basis
        elif isinstance(event, KeyEpochStarted):
            self.epochs[event.district] = max(self.epochs.get(event.district, 1), event.epoch)
            for key in event.wrapped:
                self.wrapped.setdefault(NodeId(key.node), []).append(
                    (event.district, event.epoch, key.sealed)
                )
        elif isinstance(event, NodeAdmitted):
            self.admitted.append(event.certificate)


def _is_good(entry: GovernanceEntry, revocation: Revocation | None) -> bool:
    if revocation is None:
        return True
    end = revocation.good.get(entry.feed)
    return end is not None and entry.sequence <= end[0]


def _digest(
    chain: Collection[Link], revocations: Mapping[NodeId, Revocation], retired: int, force: _Force
) -> bytes:
    """Over results, not entries: software that understands more of the same entries has another digest."""
    encode = msgspec.msgpack.Encoder(order="deterministic").encode
    return tagged_hash(
        "governance",
        *chain,
        encode([(n, r.position, sorted(r.good.items())) for n, r in sorted(revocations.items())]),
        encode((force.policy, retired, force.levels, force.epochs, force.admitted)),
        encode(sorted(force.wrapped.items())),
    )


def _revoke(revocations: dict[NodeId, Revocation], node: NodeId, position: int, event: NodeRevoked) -> None:
    good: dict[FeedId, tuple[int, Link]] = {}
    for end in event.good:
        feed, stated = FeedId(end.feed), (end.sequence, Link(end.link))
        # Two ends of one forked feed: the lower one. Where the branches part is not known here.
        good[feed] = min(good.get(feed, stated), stated)
    before = revocations.get(node)
    if before is not None:
        position = min(position, before.position)
        good = {feed: min(good[feed], before.good[feed]) for feed in good.keys() & before.good.keys()}
    revocations[node] = Revocation(position, good)
