"""What the agency decided, folded from the governance chain: a pure function of the set of its entries (R4, R14).

- One numbered chain with one writer: entries of agency nodes, in the order of their feeds; anything by another role is
  listed in `refused` and has no effect. Numbers (positions) are what "in its causal past" means for governance.
- Several agency feeds (a new incarnation, a second agency node) are chained one after the other, ordered by the stamp
  and id of their first entry: a label that all nodes compute alike.
- A forked governance feed: revocations and retention of every branch apply (they only take away); everything else
  from the first forked position on is void until the root replaces the writer.
- Several revocations of one node: what all of them call good stays good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


class Revocation(Struct, frozen=True):
    """A node's loss of authority: since which position, and what of its feeds stays good (feed → sequence, link)."""

    position: int
    good: Mapping[FeedId, tuple[int, Link]]


class GovernanceView(Struct, frozen=True):
    """What is in force. Made by `fold_governance`."""

    mark: bytes
    """First eight bytes of the newest entry's link; empty if there is none. What events cite."""
    policy: tuple[bytes, str] | None
    """Policy bytes and the law they cite."""
    retired_before: int
    refused: tuple[Link, ...]
    forked: bool
    _positions: Mapping[bytes, int]
    _levels: Mapping[str, Level]
    _revocations: Mapping[NodeId, Revocation]
    _epochs: Mapping[str, int]
    _wrapped: Mapping[NodeId, tuple[tuple[str, int, bytes], ...]]
    _digest: bytes

    def position(self, mark: bytes) -> int | None:
        """Where in the chain an event's author stood: 0 before the first entry; None if that entry is not held."""
        return 0 if not mark else self._positions.get(mark)

    def revocation(self, node: NodeId) -> Revocation | None:
        """How a node was revoked, if it was."""
        return self._revocations.get(node)

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
        """A hash of the set it was folded from: what a state depends on beside its own entries."""
        return self._digest


def _chain(entries: Iterable[GovernanceEntry]) -> list[GovernanceEntry]:
    feeds: dict[FeedId, list[GovernanceEntry]] = {}
    for entry in entries:
        feeds.setdefault(entry.feed, []).append(entry)
    for held in feeds.values():
        held.sort(key=lambda e: (e.sequence, e.id))
    order = sorted(feeds.values(), key=lambda held: (held[0].stamp, held[0].id))
    return [entry for held in order for entry in held]


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
    levels: dict[str, Level] = {}
    revocations: dict[NodeId, Revocation] = {}
    epochs: dict[str, int] = {}
    wrapped: dict[NodeId, list[tuple[str, int, bytes]]] = {}
    policy: tuple[bytes, str] | None = None
    retired = 0
    for number, entry in enumerate(chain, 1):
        positions[bytes(entry.id[:MARK_BYTES])] = number
        event = entry.event
        in_dispute = entry.feed in forked_at and entry.sequence >= forked_at[entry.feed]
        if isinstance(event, NodeRevoked):
            _revoke(revocations, NodeId(event.node), number, event)
        elif isinstance(event, RetentionSet):
            retired = max(retired, event.before_month)
        elif in_dispute or isinstance(event, NodeAdmitted):
            continue
        elif isinstance(event, ReadinessDeclared):
            if not event.districts:
                levels = {"": event.declared}
            levels.update(dict.fromkeys(event.districts, event.declared))
        elif isinstance(event, PolicySet):
            policy = event.policy, event.legal_basis
        elif isinstance(event, KeyEpochStarted):
            epochs[event.district] = max(epochs.get(event.district, 1), event.epoch)
            for key in event.wrapped:
                wrapped.setdefault(NodeId(key.node), []).append((event.district, event.epoch, key.sealed))
    return GovernanceView(
        mark=bytes(chain[-1].id[:MARK_BYTES]) if chain else b"",
        policy=policy,
        retired_before=retired,
        refused=refused,
        forked=any(e.feed in forked_at for e in chain),
        _positions=positions,
        _levels=levels,
        _revocations=revocations,
        _epochs=epochs,
        _wrapped={node: tuple(keys) for node, keys in wrapped.items()},
        _digest=tagged_hash("governance", *sorted(held), msgspec.msgpack.encode(sorted(forked_at.items()))),
    )


def _revoke(revocations: dict[NodeId, Revocation], node: NodeId, position: int, event: NodeRevoked) -> None:
    good = {FeedId(end.feed): (end.sequence, Link(end.link)) for end in event.good}
    before = revocations.get(node)
    if before is not None:
        position = min(position, before.position)
        both = good.keys() & before.good.keys()
        good = {feed: min(good[feed], before.good[feed]) for feed in both}
    revocations[node] = Revocation(position, good)
