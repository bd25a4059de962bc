"""Surplus: what one author wrote on one document beyond any use, set aside so that folding stays cheap for all (R15).

- A pure function of the set of facts and governance (R4): how many came first here, nobody can tell.
- Of each author, `FACTS_PER_AUTHOR_MAX` facts take part in the fold of a document. First those that no revocation took
  the authority of; of these, supplies and issuing events, then what takes away (cancellations, holds, recoveries), then
  the rest; of each, the first of every feed, then the second of every feed, and so on. So whoever fills a document
  through many feeds, with a stolen key for instance, does not push out what its other feeds said first.
- What is set aside has no effect, as if it were not held: what rests on it is unproven, never blamed. Two things it
  keeps: what it knew still stands before what builds on it (`ledger.facts`), and its supplies, which are physical facts,
  count at once (R9), all of one author and fill as one.
- One anomaly for each such author says so.
- A node that keeps to the rules is never set aside: it writes no more than `OWN_FACTS_MAX` acts on a document, but for
  what it hands over and what stops others (`ledger.node`). Else it might take back, by a later act, a transfer of its
  own that another node relies on (R7).
- Only prescriptions are bounded. A district's own document holds years of honest delegations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from ledger.authority import may_write
from ledger.events import (
    Basis,
    CustodyRecovered,
    Dispensed,
    Event,
    PrescriptionCancelled,
    PrescriptionHeld,
    PrescriptionIssued,
    SupplyLinked,
)
from ledger.facts import Fact
from ledger.governance import GovernanceView
from ledger.ids import FeedId, Link, NodeId
from ledger.supplies import Supply, happened_ms, product_of

__all__ = [
    "FACTS_PER_AUTHOR_MAX",
    "OWN_FACTS_MAX",
    "Surplus",
    "is_never_refused",
    "set_aside",
    "surplus_supplies",
]

FACTS_PER_AUTHOR_MAX = 768
"""Seven for each of the 99 fills that a prescription may have; an honest pharmacy writes two or three a fill. Below what
is exported (`ledger.reading`), and three for each of the feeds that a node may open in a district."""
OWN_FACTS_MAX = FACTS_PER_AUTHOR_MAX // 2
"""What a node writes itself: the rest is room for supplies, which are facts, and for what stops others."""
_FIRST = (Dispensed, SupplyLinked, PrescriptionIssued)
_NEXT = (PrescriptionCancelled, PrescriptionHeld, CustodyRecovered)


class Surplus(Struct, frozen=True):
    """What one author has beyond the limit, in the order in which it would have been taken."""

    author: NodeId
    facts: tuple[Fact, ...]


def is_never_refused(event: Event) -> bool:
    """Whether an act is written however many there are: it is a fact already, or stops others."""
    return isinstance(event, _FIRST + _NEXT)


def set_aside(
    held: Mapping[Link, Fact], governance: GovernanceView
) -> tuple[dict[Link, Fact], tuple[Surplus, ...]]:
    """Part facts into those that take part in the fold, and the surplus of each author who has one, by author."""
    many = {
        author
        for author, count in Counter(fact.author for fact in held.values()).items()
        if count > FACTS_PER_AUTHOR_MAX
    }
    if not many:
        return dict(held), ()
    taken = {link: fact for link, fact in held.items() if fact.author not in many}
    surplus = []
    for author in sorted(many):
        ordered = _in_turn([fact for fact in held.values() if fact.author == author], governance)
        taken |= {fact.id: fact for fact in ordered[:FACTS_PER_AUTHOR_MAX]}
        surplus.append(Surplus(author, tuple(ordered[FACTS_PER_AUTHOR_MAX:])))
    return taken, tuple(surplus)


def _in_turn(facts: list[Fact], governance: GovernanceView) -> list[Fact]:
    facts.sort(key=lambda fact: (fact.feed, fact.sequence, fact.id))
    places: Counter[tuple[FeedId, int]] = Counter()
    turns: dict[Link, tuple[bool, int, int]] = {}
    for fact in facts:
        kind = 0 if isinstance(fact.event, _FIRST) else 1 if isinstance(fact.event, _NEXT) else 2
        turns[fact.id] = _is_withdrawn(fact, governance), kind, places[fact.feed, kind]
        places[fact.feed, kind] += 1
    return sorted(facts, key=lambda fact: (turns[fact.id], fact.feed, fact.sequence, fact.id))


def _is_withdrawn(fact: Fact, governance: GovernanceView) -> bool:
    """Whether a revocation takes a fact's authority, as far as its place by number tells."""
    for node in (fact.author, fact.admitted_by):
        revocation = None if node is None else governance.revocation(node)
        if revocation is not None:
            end = revocation.good.get(fact.feed)
            if end is None or fact.sequence > end[0]:
                return True
    return False


def surplus_supplies(surplus: Iterable[Surplus], taken: Iterable[Fact]) -> list[Supply]:
    """The supplies set aside: for each author and fill one that stands for all, after all others in the balance.

    A command repeated is one supply here too (R17), and so is a supply linked twice. Nothing is taken off: what reverses
    or corrects them is not looked at.
    """
    known = {key for fact in taken if (key := _key(fact)) is not None}
    supplies = []
    for one in surplus:
        by_fill: dict[int, list[tuple[Fact, Dispensed | SupplyLinked]]] = {}
        for fact in one.facts:
            key, event = _key(fact), fact.event
            if isinstance(event, Dispensed | SupplyLinked) and key is not None and key not in known:
                known.add(key)
                by_fill.setdefault(event.fill, []).append((fact, event))
        for fill, made in sorted(by_fill.items()):
            first, event = made[0]
            supplies.append(
                Supply(
                    id=first.id, ids=(first.id,), author=first.author, feed=first.feed, command=event.command, fill=fill,
                    quantity=sum(event.quantity for _, event in made), basis=Basis.EMERGENCY, standing=None,
                    at_ms=max(happened_ms(fact) for fact, _ in made), reversed_by=None, corrections=(),
                    conflicting=False,
                )
            )  # fmt: skip
    return supplies


def _key(fact: Fact) -> tuple[object, ...] | None:
    """What makes two supplies one; None for what is none."""
    event = fact.event
    if isinstance(event, Dispensed):
        return fact.author, event.command, event.fill, event.quantity, product_of(event)
    if isinstance(event, SupplyLinked) and may_write(fact):
        return (bytes(event.supply),)
    return None
