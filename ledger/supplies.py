"""Supplies and the balance: what was handed over, whatever its authority (R9, R10, R17).

- Supplies of one node under one command id are one supply if document, fill, product and quantity agree, across forks
  and incarnations; otherwise all count, with an anomaly.
- A reversal by the registering node takes a supply back; a correction changes its quantity. Of concurrent
  corrections the largest counts: the safe side for the patient. Both need authority: whoever stole a key cannot make
  supplies vanish with it. A supply itself needs none, nor does the link that makes one count here, but for the role.
- A link is taken back as a supply is, by the node that made it.
- Per fill: custody before bearer before emergency, then the place in the canonical order, until the fill is full. The
  rest is over-supply; each unit of it forfeits a unit of a fill not yet dispensed, if there is one.
- Always: authorised = dispensed + remaining + forfeited. Over-supply stands apart and is never netted away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from ledger.authority import Lack
from ledger.custody import Custody, Standing
from ledger.events import (
    Basis,
    Dispensed,
    DispensingCorrected,
    DispensingReversed,
    PrescriptionIssued,
    SupplyLinked,
)
from ledger.facts import Causality, Fact
from ledger.ids import Link, NodeId

__all__ = ["Balance", "FillBalance", "Supply", "balance", "gather_supplies", "happened_ms", "product_of"]


class Supply(Struct, frozen=True, kw_only=True):
    """One supply, as it counts."""

    id: Link
    """The event that represents it: of several that are one supply, the first in canonical order."""
    ids: tuple[Link, ...]
    author: NodeId
    feed: bytes
    command: bytes
    fill: int
    quantity: int
    """Units, corrections taken in."""
    basis: Basis
    standing: Standing | None
    """None for an emergency supply, which rests on nothing."""
    at_ms: int
    reversed_by: Link | None
    corrections: tuple[Link, ...]
    conflicting: bool
    """Concurrent corrections disagree."""
    linked: Link | None = None
    """The supply in another document, if it was linked to this prescription."""

    @property
    def net(self) -> int:
        """Units that count."""
        return 0 if self.reversed_by else self.quantity


class FillBalance(Struct, frozen=True):
    """One fill, in units."""

    fill: int
    authorised: int
    dispensed: int
    remaining: int
    forfeited: int


class Balance(Struct, frozen=True):
    """authorised = dispensed + remaining + forfeited; over-supply and unmatched supplies stand apart."""

    authorised: int
    dispensed: int
    remaining: int
    forfeited: int
    over_supply: int
    unmatched: int
    """Units supplied while no prescription is held."""


def _same(facts: list[Fact]) -> bool:
    first = facts[0].event
    return all(
        isinstance(f.event, Dispensed)
        and isinstance(first, Dispensed)
        and (f.event.fill, f.event.quantity) == (first.fill, first.quantity)
        and product_of(f.event) == product_of(first)
        for f in facts
    )


def product_of(event: Dispensed) -> tuple[str, str] | None:
    """System and code of the pack, if it was another than prescribed."""
    return None if event.product is None else (event.product.pack.system, event.product.pack.code)


def gather_supplies(
    causality: Causality, own: Iterable[Fact], custody: Custody, lacking: Mapping[Link, Lack]
) -> tuple[list[Supply], list[tuple[Link, ...]]]:
    """Supplies in canonical order, and the groups of events that share a command but disagree.

    Args:
        causality: of the document and its district.
        own: the facts of the document, in canonical order.
        custody: as judged.
        lacking: facts that lack authority.
    """
    groups: dict[tuple[NodeId, bytes], list[Fact]] = {}
    linked: dict[Link, list[Fact]] = {}
    changes: dict[Link, list[Fact]] = {}
    held: set[Link] = set()
    for fact in own:
        held.add(fact.id)
        match fact.event:
            case Dispensed() as event:
                groups.setdefault((fact.author, event.command), []).append(fact)
            case SupplyLinked() as event if lacking.get(fact.id) is not Lack.OUT_OF_ROLE:
                linked.setdefault(Link(event.supply), []).append(fact)
            case (DispensingReversed() | DispensingCorrected()) as event if fact.id not in lacking:
                changes.setdefault(Link(event.supply), []).append(fact)
            case _:
                pass
    supplies: list[Supply] = []
    conflicts: list[tuple[Link, ...]] = []
    for group in groups.values():
        if len(group) > 1 and not _same(group):
            conflicts.append(tuple(f.id for f in group))
            supplies += [_supply([f], custody, causality, changes) for f in group]
        else:
            supplies.append(_supply(group, custody, causality, changes))
    for link in linked.keys() - held:  # A link to a supply of this very document would count it twice.
        made = [_supply([f], custody, causality, changes) for f in linked[link]]
        supplies.append(max(made, key=lambda s: s.reversed_by is None))  # The first that stands.
    supplies.sort(key=lambda s: causality.index[s.id])
    return supplies, conflicts


def happened_ms(fact: Fact) -> int:
    """When a supply was made, in milliseconds since 1970 UTC: as its author says, else when it was written."""
    happened = fact.event.happened if fact.event is not None else None
    return fact.stamp >> 16 if happened is None else happened


def _supply(
    group: list[Fact], custody: Custody, causality: Causality, changes: Mapping[Link, list[Fact]]
) -> Supply:
    first = group[0]
    event = first.event
    assert isinstance(event, Dispensed | SupplyLinked)
    by_author = [f for member in group for f in changes.get(member.id, ()) if f.author == first.author]
    taken_back = [f.id for f in by_author if isinstance(f.event, DispensingReversed)]
    changed = [f for f in by_author if isinstance(f.event, DispensingCorrected)]
    last = [f for f in changed if not causality.in_past_of_any(f, changed)]
    quantities = {f.event.quantity for f in last if isinstance(f.event, DispensingCorrected)}
    # Of copies of one supply the best standing counts: they are one act.
    standings = [custody.standing.get((f.id, event.fill)) for f in group]
    ranked = sorted((s for s in standings if s is not None), key=list(Standing).index)
    return Supply(
        id=first.id, ids=tuple(f.id for f in group), author=first.author, feed=first.feed, command=event.command,
        fill=event.fill, quantity=max(quantities, default=event.quantity),
        basis=event.basis if isinstance(event, Dispensed) else Basis.EMERGENCY,
        standing=ranked[0] if ranked else None, at_ms=happened_ms(first),
        reversed_by=min(taken_back, key=causality.index.__getitem__) if taken_back else None,
        corrections=tuple(f.id for f in changed), conflicting=len(quantities) > 1,
        linked=Link(event.supply) if isinstance(event, SupplyLinked) else None,
    )  # fmt: skip


def _rank(supply: Supply) -> int:
    if supply.basis is Basis.CUSTODY and supply.standing is Standing.VALID:
        return 0
    if supply.basis is Basis.CUSTODY and supply.standing is Standing.CONTESTED:
        return 1
    if supply.basis is Basis.BEARER and supply.standing in (Standing.VALID, Standing.CONTESTED):
        return 2
    return 3


def balance(
    issued: PrescriptionIssued | None, supplies: Iterable[Supply], *, cancelled: bool
) -> tuple[Balance, tuple[FillBalance, ...], frozenset[Link]]:
    """The balance of the whole and of every fill, and the supplies of which a part is over-supply."""
    if issued is None:
        unmatched = sum(s.net for s in supplies)
        return Balance(0, 0, 0, 0, 0, unmatched), (), frozenset()
    size = issued.packs_per_fill * issued.product.pack_quantity
    room = dict.fromkeys(range(1, issued.fills + 1), size)
    over, over_ids = 0, set[Link]()
    ordered = sorted(enumerate(supplies), key=lambda pair: (_rank(pair[1]), pair[0]))
    for _, supply in ordered:
        taken = min(supply.net, room.get(supply.fill, 0))
        if taken:
            room[supply.fill] -= taken
        if supply.net > taken:
            over += supply.net - taken
            over_ids.add(supply.id)
    dispensed = {fill: size - left for fill, left in room.items()}
    forfeited = dict.fromkeys(room, 0)
    to_forfeit = over
    for fill in sorted(room, reverse=True):
        if dispensed[fill] == 0 and to_forfeit:
            forfeited[fill] = min(room[fill], to_forfeit)
            to_forfeit -= forfeited[fill]
    if cancelled:
        forfeited = dict(room)
    fills = tuple(
        FillBalance(fill, size, dispensed[fill], room[fill] - forfeited[fill], forfeited[fill])
        for fill in sorted(room)
    )
    whole = Balance(
        sum(f.authorised for f in fills), sum(f.dispensed for f in fills), sum(f.remaining for f in fills),
        sum(f.forfeited for f in fills), over, 0,
    )  # fmt: skip
    return whole, fills, frozenset(over_ids)
