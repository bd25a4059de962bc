"""Facts and what each could know: the causal past, computed once for a document (R4, R7).

The causal past of a fact is the transitive closure of its parents, of the facts it rests on or refers to, and of the
earlier entries of its branch of its feed, among the facts given. The canonical order (topological, ties by id) only
labels; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from ledger.document import topological
from ledger.events import (
    CustodyDelegationEnded,
    CustodyTransferred,
    Dispensed,
    DispensingCorrected,
    DispensingReversed,
    Event,
)
from ledger.identity import NodeRole
from ledger.ids import DocumentId, FeedId, Link, NodeId

__all__ = ["BranchPart", "Branches", "Causality", "Fact", "references"]


class Fact(Struct, frozen=True):
    """An opened entry. `event` is None if its kind is unknown or it is void."""

    id: Link
    feed: FeedId
    branch: int
    """Label of the feed's branch at this node; depends on arrival and never reaches a result."""
    sequence: int
    stamp: int
    document: DocumentId
    author: NodeId
    role: NodeRole
    parents: tuple[Link, ...]
    kind: str
    event: Event | None
    event_bytes: bytes
    admitted_by: NodeId | None = None
    """The district authority that certified the author; None: the agency did."""
    whole: bool = True
    """All of it was understood."""
    void: str = ""
    """Why it is void, if it is."""
    detached: bool = False


class BranchPart(Protocol):
    """A branch parts from its parent: its first entry has this sequence."""

    @property
    def branch(self) -> int: ...
    @property
    def parent(self) -> int: ...
    @property
    def sequence(self) -> int: ...


class Branches:
    """How forked feeds branch. A feed that is not named is not forked."""

    def __init__(self, parts: Mapping[FeedId, Iterable[BranchPart]] | None = None) -> None:
        self._parts = {
            feed: {p.branch: (p.parent, p.sequence) for p in rows} for feed, rows in (parts or {}).items()
        }
        self.forked_at: Mapping[FeedId, int] = {
            feed: min(sequence for _, sequence in rows.values()) for feed, rows in self._parts.items() if rows
        }
        """Forked feed → the lowest sequence at which its branches part."""

    def on_path(self, feed: FeedId, branch: int, sequence: int, of_branch: int, of_sequence: int) -> bool:
        """Whether one position is the other's or stands before it on its branch."""
        rows = self._parts.get(feed, {})
        while of_branch != branch:
            if of_branch not in rows:
                return False
            of_branch, parts = rows[of_branch]
            of_sequence = min(of_sequence, parts - 1)
        return sequence <= of_sequence

    def is_before(self, first: Fact, second: Fact) -> bool:
        """Whether `first` stands earlier on `second`'s branch of one feed."""
        return (
            first.feed == second.feed
            and first.sequence < second.sequence
            and self.on_path(first.feed, first.branch, first.sequence, second.branch, second.sequence)
        )


def references(event: Event | None) -> tuple[Link, ...]:
    """Facts that an event rests on or speaks of."""
    if isinstance(event, Dispensed):
        return () if event.rests_on is None else (Link(event.rests_on),)
    if isinstance(event, CustodyTransferred):
        return tuple(Link(right.rests_on) for right in event.fills)
    if isinstance(event, DispensingReversed | DispensingCorrected):
        return (Link(event.supply),)
    if isinstance(event, CustodyDelegationEnded):
        return (Link(event.delegation),)
    return ()


class Causality:
    """Canonical order and causal pasts of a set of facts. Pasts are bit masks: one number a fact."""

    def __init__(self, facts: Iterable[Fact], branches: Branches) -> None:
        self.facts: dict[Link, Fact] = {fact.id: fact for fact in facts}
        self.branches = branches
        edges = {link: {*fact.parents, *references(fact.event)} for link, fact in self.facts.items()}
        self._add_feed_edges(edges)
        self.order: list[Link] = topological(edges)
        """Ids in canonical order."""
        self.index: dict[Link, int] = {link: number for number, link in enumerate(self.order)}
        self._unions: dict[tuple[Link, ...], int] = {}
        self._past: list[int] = []
        for link in self.order:
            mask = 0
            for before in edges[link]:
                number = self.index.get(before)
                if number is not None and number < len(self._past):
                    mask |= self._past[number] | 1 << number
            self._past.append(mask)

    def _add_feed_edges(self, edges: dict[Link, set[Link]]) -> None:
        feeds: dict[FeedId, list[Fact]] = {}
        for fact in self.facts.values():
            feeds.setdefault(fact.feed, []).append(fact)
        for feed, held in feeds.items():
            held.sort(key=lambda f: (f.sequence, f.id))
            forked = feed in self.branches.forked_at
            for number, fact in enumerate(held):
                for earlier in reversed(held[:number]):
                    if not forked or self.branches.is_before(earlier, fact):
                        edges[fact.id].add(earlier.id)
                        break

    def in_order(self) -> list[Fact]:
        """The facts in canonical order."""
        return [self.facts[link] for link in self.order]

    def past(self, link: Link) -> int:
        """The causal past as a bit mask over the canonical order."""
        number = self.index.get(link)
        return 0 if number is None else self._past[number]

    def before(self, first: Link, second: Link) -> bool:
        """Whether `first` is in the causal past of `second`."""
        number = self.index.get(first)
        return number is not None and bool(self.past(second) >> number & 1)

    def in_past_of_any(self, fact: Fact, others: Iterable[Fact]) -> bool:
        """Whether a fact is in the causal past of one of the others."""
        key = tuple(other.id for other in others)
        if key not in self._unions:
            union = 0
            for link in key:
                union |= self.past(link)
            self._unions[key] = union
        return self.contains(self._unions[key], fact.id)

    def contains(self, mask: int, link: Link) -> bool:
        """Whether a fact is in a past."""
        number = self.index.get(link)
        return number is not None and bool(mask >> number & 1)
