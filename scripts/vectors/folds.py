"""Vectors of supplies and custody: what a set of entries folds to.

Each is a set of messages with whole runs: opened, verified, folded. The order of messages must not matter.
"""

from __future__ import annotations

from datetime import date

from ledger import SeededEntropy
from ledger import events as e
from ledger.custody import sign_bearer
from ledger.events import Basis
from ledger.feed import FormerFeed
from ledger.ids import (
    district_document,
    paper_document,
)
from ledger.surplus import FACTS_PER_AUTHOR_MAX
from ledger.vault import document_key, entry_key
from scripts.vectors.craft import ISSUED, STOCKHOLM, World, right
from scripts.vectors.shelf import Shelf
from scripts.vectors.stage import Stage, fold_vector

__all__ = ["folds"]

CUSTODY, BEARER, EMERGENCY = Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY


def folds(shelf: Shelf, world: World) -> None:
    """Write them."""
    _supplies(shelf, world)
    _custody(shelf, world)
    _surplus(shelf, world)


def _supplies(shelf: Shelf, world: World) -> None:
    s = Stage(world)
    document, issued = s.issue()
    s.supply(s.eken, document, 1, CUSTODY, issued)
    fold_vector(
        shelf,
        "dispensed_on_custody",
        "The holder dispenses the first of two fills.",
        "R7 R10",
        s,
        status=["active"],
        dispensed=100,
        remaining=100,
        anomalies=[],
    )
    last = s.supply(s.eken, document, 2, CUSTODY, issued)
    fold_vector(
        shelf,
        "completed",
        "Both fills are dispensed.",
        "R10",
        s,
        status=["completed"],
        dispensed=200,
        remaining=0,
    )
    s.act(e.DispensingReversed, s.eken, document, (last,), supply=last, kind=e.ReversalKind.AFTER_HANDOVER)
    fold_vector(
        shelf,
        "reversed",
        "The second supply came back: the fill is there again, in custody of the same feed.",
        "R10",
        s,
        status=["active"],
        dispensed=100,
        fills=["dispensed", "in-custody"],
    )

    s = Stage(world)
    document, issued = s.issue()
    supply = s.supply(s.eken, document, 1, CUSTODY, issued, part=True, quantity=60)
    fold_vector(
        shelf,
        "part_supply",
        "Sixty of a hundred units; the rest is owed by the same feed.",
        "R7 R10",
        s,
        dispensed=60,
        remaining=140,
        fills=["part-dispensed", "in-custody"],
    )
    s.act(e.DispensingCorrected, s.eken, document, (supply,), supply=supply, quantity=50)
    fold_vector(shelf, "corrected", "The part supply was fifty units.", "R10", s, dispensed=50, remaining=150)

    s = Stage(world)
    document, issued = s.issue()
    s.supply(s.eken, document, 1, CUSTODY, issued)
    s.supply(s.bjorken, document, 1, EMERGENCY, None, parents=(issued,))
    fold_vector(
        shelf,
        "emergency_beside_custody",
        "The holder and another pharmacy supply one fill in two islands: found, and a later fill forfeited.",
        "R8 R9 R10",
        s,
        anomalies=["double_dispensing"],
        dispensed=100,
        forfeited=100,
        over_supply=100,
    )

    seeds = {fill: SeededEntropy(fill).bytes(32) for fill in (1, 2)}
    s = Stage(world)
    document, issued = s.issue(holder=None, seeds=seeds)
    s.supply(
        s.eken, document, 1, BEARER, issued, bearer_signature=sign_bearer(seeds[1], document, 1, s.eken.id)
    )
    fold_vector(
        shelf,
        "bearer",
        "A fill is dispensed to who carries the paper.",
        "R8",
        s,
        dispensed=100,
        anomalies=[],
        fills=["dispensed", "bearer"],
    )
    s.supply(
        s.bjorken,
        document,
        1,
        BEARER,
        issued,
        bearer_signature=sign_bearer(seeds[1], document, 1, s.bjorken.id),
    )
    fold_vector(
        shelf,
        "bearer_copies",
        "Two copies of one paper are spent in two islands.",
        "R8 R9",
        s,
        anomalies=["double_dispensing"],
        over_supply=100,
    )

    s = Stage(world)
    document, issued = s.issue()
    command = bytes(range(16))
    s.supply(s.eken, document, 1, CUSTODY, issued, command=command)
    again = world.feed("eken", incarnation=2, former=[FormerFeed(s.eken.id, 1, s.eken.links[0])])
    s.supply(again, document, 1, CUSTODY, issued, command=command)
    fold_vector(
        shelf,
        "command_repeated",
        "One command carried out by two incarnations of a node is one supply.",
        "R17",
        s,
        again,
        dispensed=100,
        over_supply=0,
    )

    s = Stage(world)
    unknown = paper_document(date.fromisoformat(ISSUED), world.index_keys[STOCKHOLM], "A-1234")
    supply = s.supply(s.eken, unknown, 1, EMERGENCY, None)
    fold_vector(
        shelf,
        "supply_without_prescription",
        "A supply on a paper that nobody holds: it counts, unmatched.",
        "R9",
        s,
        status=["unknown"],
        unmatched=100,
    )
    document, issued = s.issue(holder=s.doctor)
    key = entry_key(document_key(world.district_keys[STOCKHOLM, 1], unknown), s.eken.id, 1).key
    s.act(
        e.SupplyLinked,
        s.bjorken,
        document,
        (issued,),
        supply=supply,
        document=unknown,
        entry_key=key,
        fill=1,
        quantity=100,
    )
    fold_vector(
        shelf, "supply_linked", "Found later: the supply counts on the prescription.", "R9", s, dispensed=100
    )


def _custody(shelf: Shelf, world: World) -> None:
    s = Stage(world)
    document, issued = s.issue()
    moved = s.act(
        e.CustodyTransferred, s.eken, document, (issued,), fills=(right(1, issued),), to=s.bjorken.id
    )
    s.supply(s.bjorken, document, 1, CUSTODY, moved)
    fold_vector(
        shelf,
        "transferred",
        "Custody is passed on, and the new holder dispenses.",
        "R7",
        s,
        dispensed=100,
        anomalies=[],
    )

    s = Stage(world)
    document, issued = s.issue()
    district = district_document(STOCKHOLM)
    delegated = s.act(e.CustodyDelegated, s.eken, district, to=s.bjorken.id)
    s.supply(s.bjorken, document, 1, CUSTODY, delegated, parents=(issued,))
    fold_vector(
        shelf,
        "delegated",
        "Everything a feed holds is delegated; the delegate dispenses on it.",
        "R7",
        s,
        dispensed=100,
        anomalies=[],
    )
    s.act(e.CustodyDelegationEnded, s.bjorken, district, (delegated,), delegation=delegated)
    fold_vector(
        shelf,
        "delegation_ended",
        "The delegate gives back what it has not spent.",
        "R7",
        s,
        anomalies=[],
        fills=["dispensed", "in-custody"],
    )

    s = Stage(world)
    document, issued = s.issue()
    closed = s.act(e.FeedClosed, s.eken, district, successor=s.bjorken.id)
    s.supply(s.bjorken, document, 1, CUSTODY, closed, parents=(issued,))
    fold_vector(
        shelf,
        "feed_closed",
        "A planned change of computer: the successor dispenses.",
        "R7",
        s,
        dispensed=100,
        anomalies=[],
    )

    s = Stage(world)
    document, issued = s.issue()
    agency = world.feed("agency", STOCKHOLM)
    s.act(e.CustodyRecovered, agency, document, (issued,), fills=(1,), reason="brand")
    fold_vector(
        shelf,
        "recovered",
        "The holder is dead: the fill may be supplied with risk.",
        "R8",
        s,
        agency,
        fills=["recovered", "in-custody"],
    )
    s.supply(s.eken, document, 1, CUSTODY, issued)
    fold_vector(
        shelf,
        "recovered_while_alive",
        "The holder was not dead: its supply, which could not know, is contested, not a breach.",
        "R7 R9",
        s,
        agency,
        anomalies=["contested_custody"],
        dispensed=100,
    )


def _surplus(shelf: Shelf, world: World) -> None:
    """A pharmacy fills a document through two of its feeds: at the limit, and above it."""
    s = Stage(world)
    document, issued = s.issue()
    again = world.feed("bjorken", incarnation=2, former=[FormerFeed(s.bjorken.id, 0, s.bjorken.genesis)])
    half = FACTS_PER_AUTHOR_MAX // 2
    for feed in (s.bjorken, again):
        for _ in range(half):
            s.act(e.AccessBlocked, feed, document, (issued,), purposes=("x",))
    s.supply(s.eken, document, 1, CUSTODY, issued)
    fold_vector(
        shelf,
        "as_many_as_count",
        "One author wrote as many events as take part: nothing is set aside, and others act as ever.",
        "R4 R15",
        s,
        again,
        dispensed=100,
        anomalies=[],
    )
    s.act(e.ConsentGiven, again, document, (issued,), purposes=("x",))
    s.supply(again, document, 2, EMERGENCY, None, parents=(issued,), quantity=30)
    s.supply(s.eken, document, 2, CUSTODY, issued, part=True, quantity=60)
    fold_vector(
        shelf,
        "too_many",
        "Two more: the last of each feed are set aside, with one anomaly. A supply counts, whoever made it.",
        "R4 R9 R15",
        s,
        again,
        dispensed=190,
        over_supply=0,
        anomalies=["too_many"],
    )
