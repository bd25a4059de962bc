"""Facts and what each could know: the causal past, computed once for a document (R4, R7).

The causal past of a fact is the transitive closure of its parents, of the facts it rests on or refers to, and of the
earlier entries of its branch of its feed, among the facts given. The canonical order (topological, ties by id) only
labels; nothing is decided by it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
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

__all__ = ["BranchPart", "Branches", "Causality", "Fact", "references", "with_past"]


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

    def grown_from(self, feed: FeedId, branch: int) -> Iterator[tuple[int, int]]:
        """The branches that one grew from, nearest first, each with the sequence at which it was left."""
        rows = self._parts.get(feed, {})
        parted: int | None = None
        while branch in rows:
            branch, since = rows[branch]
            parted = since if parted is None else min(parted, since)
            yield branch, parted


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


def with_past(facts: Iterable[Fact], heads: Iterable[Link]) -> frozenset[Link]:
    """Heads and all that they and their ancestors name as parents or rest on, as far as it is held."""
    held = {fact.id: fact for fact in facts}
    found: set[Link] = set()
    waiting = list(heads)
    while waiting:
        link = waiting.pop()
        if link in held and link not in found:
            found.add(link)
            waiting += (*held[link].parents, *references(held[link].event))
    return frozenset(found)


class Causality:
    """Canonical order and causal pasts of a set of facts. Pasts are bit masks: one number a fact.

    Facts *passed through* have no part in it but for what they knew: it stands before whatever builds on them.
    """

    def __init__(self, facts: Iterable[Fact], branches: Branches, passed: Iterable[Fact] = ()) -> None:
        self.facts: dict[Link, Fact] = {fact.id: fact for fact in facts}
        self.branches = branches
        self._previous: dict[Link, Link] = {}
        every = self.facts | {fact.id: fact for fact in passed if fact.id not in self.facts}
        edges = {link: {*fact.parents, *references(fact.event)} for link, fact in every.items()}
        self._add_feed_edges(every, edges)
        order: list[Link] = topological(edges)
        if len(order) < len(every):  # Hashes form no circle; a store's mistake must not stop the fold.
            order += sorted(every.keys() - set(order))
        self.order: list[Link] = [link for link in order if link in self.facts]
        """Ids in canonical order."""
        self.index: dict[Link, int] = {link: number for number, link in enumerate(self.order)}
        self._others: Collection[Fact] = ()
        self._union = 0
        self._past: list[int] = []
        through: dict[Link, int] = {}
        for link in order:
            mask = 0
            for before in edges[link]:
                number = self.index.get(before)
                if number is None:
                    mask |= through.get(before, 0)
                elif number < len(self._past):
                    mask |= self._past[number] | 1 << number
            if link in self.facts:
                self._past.append(mask)
            else:
                through[link] = mask
        self._branch_pasts: dict[FeedId, tuple[int, dict[Link, int]]] = {}

    def _add_feed_edges(self, every: Mapping[Link, Fact], edges: dict[Link, set[Link]]) -> None:
        """Each fact after the one before it on its branch. The place of a detached one is not known yet."""
        places: dict[FeedId, dict[int, list[Fact]]] = {}
        for fact in every.values():
            if not fact.detached:
                places.setdefault(fact.feed, {}).setdefault(fact.branch, []).append(fact)
        for feed, held in places.items():
            for facts in held.values():
                facts.sort(key=lambda f: (f.sequence, f.id))
            for branch, facts in held.items():
                previous = self._before_branch(feed, branch, held)
                taken = self._before_branch(feed, branch, held, among=self.facts)
                for fact in facts:
                    if previous is not None:
                        edges[fact.id].add(previous.id)
                    previous = fact
                    if fact.id in self.facts:
                        if taken is not None:
                            self._previous[fact.id] = taken.id
                        taken = fact

    def _before_branch(
        self,
        feed: FeedId,
        branch: int,
        held: Mapping[int, list[Fact]],
        among: Mapping[Link, Fact] | None = None,
    ) -> Fact | None:
        """The last fact (among those named) before the first of a branch, on the branches it grew from."""
        for parent, parted in self.branches.grown_from(feed, branch):
            facts = held.get(parent, [])
            for place in range(bisect_left(facts, parted, key=lambda f: f.sequence), 0, -1):
                if among is None or facts[place - 1].id in among:
                    return facts[place - 1]
        return None

    def in_order(self) -> list[Fact]:
        """The facts in canonical order."""
        return [self.facts[link] for link in self.order]

    def previous(self, link: Link) -> Link | None:
        """The one before it on its branch, among the facts given."""
        return self._previous.get(link)

    def past(self, link: Link) -> int:
        """The causal past as a bit mask over the canonical order."""
        number = self.index.get(link)
        return 0 if number is None else self._past[number]

    def before(self, first: Link, second: Link) -> bool:
        """Whether `first` is in the causal past of `second`."""
        number = self.index.get(first)
        return number is not None and bool(self.past(second) >> number & 1)

    def in_past_of_any(self, fact: Fact, others: Collection[Fact]) -> bool:
        """Whether a fact is in the causal past of one of the others."""
        if self._others is not others:
            self._others, self._union = others, 0
            for other in others:
                self._union |= self.past(other.id)
        return self.contains(self._union, fact.id)

    def mask(self, links: Iterable[Link]) -> int:
        """A set of facts as a bit mask."""
        mask = 0
        for link in links:
            number = self.index.get(link)
            if number is not None:
                mask |= 1 << number
        return mask

    def is_forked_at(self, fact: Fact) -> bool:
        """Whether a fact stands at or after the place where its feed forks."""
        forked_at = self.branches.forked_at.get(fact.feed)
        return forked_at is not None and fact.sequence >= forked_at

    def knows_of_fork(self, fact: Fact) -> bool:
        """Whether the causal past of a fact holds an entry of another branch of its own feed."""
        known = self._branch_pasts.get(fact.feed)
        if known is None:
            known = self._branch_pasts[fact.feed] = self._branch_past(fact.feed)
        whole, before = known
        return bool(self.past(fact.id) & whole & ~before.get(fact.id, 0))

    def _branch_past(self, feed: FeedId) -> tuple[int, dict[Link, int]]:
        """All facts of a feed, and for each those before it on its branch."""
        whole, before = 0, dict[Link, int]()
        for number, link in enumerate(self.order):
            if self.facts[link].feed == feed:
                whole |= 1 << number
                previous = self._previous.get(link)
                before[link] = 0 if previous is None else before.get(previous, 0) | 1 << self.index[previous]
        return whole, before

    def contains(self, mask: int, link: Link) -> bool:
        """Whether a fact is in a past."""
        number = self.index.get(link)
        return number is not None and bool(mask >> number & 1)
