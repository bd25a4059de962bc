"""Vectors of what a set of entries means: states, balances, anomalies, governance; and acts that must not hold.

Each is a set of messages with whole runs: opened, verified, folded. The order of messages must not matter.
"""

from __future__ import annotations

from datetime import date

import msgspec

from ledger import SeededEntropy
from ledger import events as e
from ledger.custody import sign_bearer
from ledger.events import Basis, FeedEnd, encode_event
from ledger.feed import FormerFeed
from ledger.ids import (
    DocumentId,
    Link,
    district_document,
    month_number,
    paper_document,
)
from ledger.vault import document_key, entry_key
from scripts.vectors.craft import ISSUED, STOCKHOLM, Feed, World, governance, message, right
from scripts.vectors.shelf import Shelf

__all__ = ["Stage", "fold_vector", "folds", "must_not"]

_replace = msgspec.structs.replace
CUSTODY, BEARER, EMERGENCY = Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY


class Stage:
    """A prescriber and two pharmacies, at the start of a vector."""

    def __init__(self, world: World) -> None:
        world.restart()
        self.world = world
        self.doctor, self.eken, self.bjorken = (
            world.feed("prescriber"),
            world.feed("eken"),
            world.feed("bjorken"),
        )
        self.governance, self.chain = governance(world)

    def issue(self, **how: object) -> tuple[DocumentId, Link]:
        """A prescription of two fills, held by the first pharmacy unless told otherwise."""
        return self.world.issue(self.doctor, **({"holder": self.eken} | how))  # type: ignore[arg-type]

    def supply(
        self, feed: Feed, document: DocumentId, fill: int, basis: Basis, rests_on: Link | None, **how: object
    ) -> Link:
        """A supply, with what it rests on as its only parent."""
        parents = how.pop("parents", (rests_on,) if rests_on else ())
        return feed.append(document, self.world.supply(feed, fill, basis, rests_on, **how), parents)  # type: ignore[arg-type]

    def act(
        self,
        event: type[e.Event],
        feed: Feed,
        document: DocumentId,
        parents: tuple[Link, ...] = (),
        /,
        **fields: object,
    ) -> Link:
        """Any other act."""
        return feed.append(document, self.world.act(event, feed, **fields), parents)

    def govern(self, event: type[e.Event], feed: Feed | None = None, /, **fields: object) -> Link:
        """An act of governance."""
        return self.act(event, feed or self.governance, self.chain, **fields)

    def messages(self, *more: Feed) -> list[bytes]:
        """One message a feed, of those in which something stands."""
        feeds = [self.governance, self.doctor, self.eken, self.bjorken, *more]
        openings = message(*(f for f in feeds if f.entries or f.opening), runs=[])
        return [openings, *(message(f) for f in feeds if f.entries)]


def folds(shelf: Shelf, world: World) -> None:
    """Write them."""
    for write in (_supplies, _custody, _prescribing, _forks, _revocations, _unknown, _elsewhere):
        write(shelf, world)


def fold_vector(
    shelf: Shelf, name: str, title: str, rules: str, stage: Stage, *more: Feed, **says: object
) -> None:
    """A set of entries and the state that it folds to."""
    shelf.add(f"fold_{name}", "fold", title, rules, {"messages": stage.messages(*more)}, says=says)


def must_not(
    shelf: Shelf,
    name: str,
    title: str,
    rules: str,
    stage: Stage,
    event: Link,
    error: str,
    *more: Feed,
    **says: object,
) -> None:
    """The same, with one event against which something must be said."""
    inputs = {"messages": stage.messages(*more), "event": event.hex()}
    shelf.add(f"act_{name}", "act", title, rules, inputs, error=error, says=says)


# --- what holds ----------------------------------------------------------------------------------------------


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


def _prescribing(shelf: Shelf, world: World) -> None:
    s = Stage(world)
    document, issued = s.issue()
    s.act(e.PrescriptionCancelled, s.doctor, document, (issued,), reason=3)
    fold_vector(
        shelf,
        "cancelled",
        "Cancelled before anything was supplied.",
        "R10",
        s,
        status=["cancelled"],
        forfeited=200,
    )
    s.supply(s.eken, document, 1, CUSTODY, issued)
    fold_vector(
        shelf,
        "cancelled_concurrently",
        "The other island dispensed meanwhile.",
        "R9",
        s,
        status=["stopped"],
        anomalies=["supplied_after_cancellation"],
    )

    s = Stage(world)
    document, issued = s.issue(holder=s.doctor)
    doctor2 = world.feed("prescriber", incarnation=2)
    for feed, dosage in ((s.doctor, "2 tabletter"), (doctor2, "3 tabletter")):
        s.act(e.PrescriptionAmended, feed, document, (issued,), dosage=dosage)
    fold_vector(
        shelf,
        "amended_concurrently",
        "Two amendments that knew nothing of each other both stand.",
        "R4",
        s,
        doctor2,
        anomalies=["conflicting_amendments"],
        dosage=["2 tabletter", "3 tabletter"],
    )
    s.act(e.PrescriptionAmended, s.doctor, document, (s.doctor.head, doctor2.head), dosage="1 tablett")
    fold_vector(
        shelf,
        "amended_after_both",
        "A third that knew of both settles it.",
        "R4",
        s,
        doctor2,
        anomalies=[],
        dosage=["1 tablett"],
    )

    s = Stage(world)
    document, issued = s.issue()
    held = s.act(e.PrescriptionHeld, s.doctor, document, (issued,))
    s.act(e.PrescriptionResumed, s.doctor, document, (held,))
    fold_vector(shelf, "resumed", "Held, then resumed.", "R4", s, status=["active"])
    s.act(e.PrescriptionHeld, s.eken, document, (issued,), reason="oklar dos")
    fold_vector(
        shelf,
        "held_concurrently",
        "A resume ends only the holds in its causal past.",
        "R4",
        s,
        status=["on-hold"],
    )

    s = Stage(world)
    document, issued = s.issue()
    s.govern(e.RetentionSet, before_month=month_number(date.fromisoformat(ISSUED)) + 1)
    fold_vector(
        shelf,
        "retired",
        "Issued before the month of retention: nothing of it is told.",
        "R2 R9",
        s,
        status=["retired"],
    )


def _forks(shelf: Shelf, world: World) -> None:
    s = Stage(world)
    document, issued = s.issue()
    twin = s.eken.branch(1)
    s.supply(s.eken, document, 1, CUSTODY, issued)
    s.supply(twin, document, 1, CUSTODY, issued)
    fold_vector(
        shelf,
        "forked_holder",
        "A holder's image was rolled back: both branches count, and what it held is contested.",
        "R6 R9",
        s,
        twin,
        anomalies=["contested_custody", "double_dispensing", "forked_feed"],
        over_supply=100,
    )

    s = Stage(world)
    document, issued = s.issue()
    twin = s.eken.branch(1)
    s.act(e.NotDispensed, s.eken, document, (issued,), fill=1, reason="slut på lagret")
    s.act(e.NotDispensed, twin, document, (issued,), fill=1, reason="fel patient")
    fold_vector(
        shelf,
        "forked_before_use",
        "A forked feed holds fills: they are never again dispensed on custody.",
        "R6",
        s,
        twin,
        fills=["contested", "contested"],
        anomalies=["forked_feed"],
    )


def _revocations(shelf: Shelf, world: World) -> None:
    def stage(good: int) -> tuple[Stage, Link]:
        s = Stage(world)
        document, issued = s.issue()
        first = s.supply(s.eken, document, 1, CUSTODY, issued)
        second = s.supply(s.eken, document, 2, CUSTODY, issued)
        ends = (FeedEnd(s.eken.id, good, (first, second)[good - 1]),) if good else ()
        s.govern(e.NodeRevoked, node=world["eken"].certified.node, good=ends, reason="stulen dator")
        return s, second

    s, second = stage(2)
    fold_vector(
        shelf,
        "revoked_after",
        "What stands at or before the named end keeps its authority.",
        "R14",
        s,
        dispensed=200,
        anomalies=[],
    )
    s, second = stage(1)
    must_not(
        shelf,
        "revoked_supply",
        "What stands after the named end lacks authority; the supply counts all the same.",
        "R9 R14",
        s,
        second,
        "supplied_without_authority",
        dispensed=200,
    )
    s, second = stage(0)
    must_not(
        shelf,
        "revoked_unnamed_feed",
        "A feed that the revocation does not name has no good end.",
        "R9 R14",
        s,
        second,
        "supplied_without_authority",
        dispensed=200,
    )


def _unknown(shelf: Shelf, world: World) -> None:
    for name, title, change, kind in (
        (
            "unknown_kind",
            "An event of a newer version is kept and named.",
            {"type": "FromTheFuture"},
            e.PrescriptionHeld,
        ),
        (
            "unknown_field",
            "A known event with an unknown field has its effect, and is named.",
            {"urgency": 2},
            e.PrescriptionHeld,
        ),
    ):
        s = Stage(world)
        document, issued = s.issue()
        plain = msgspec.msgpack.decode(encode_event(world.act(kind, s.doctor, reason="paus")))
        s.doctor.append(document, msgspec.msgpack.encode({**plain, **change}), [issued])
        fold_vector(shelf, name, title, "R2 R11", s, not_understood=1, anomalies=[])
    s = Stage(world)
    document, issued = s.issue()
    later = b"\x02" + bytes(40)
    s.doctor.append(document, world.act(e.PrescriptionHeld, s.doctor), [issued], content=later)
    fold_vector(
        shelf,
        "newer_format",
        "Content of a newer format is kept and named, not void.",
        "R2 R11",
        s,
        not_understood=1,
        anomalies=[],
    )
    s = Stage(world)
    document, issued = s.issue()
    s.doctor.append(document, world.act(e.PrescriptionCancelled, s.doctor), [issued], epoch=2)
    shelf.add(
        "fold_epoch_not_held",
        "unread",
        "An entry of a key epoch that has not arrived: counted as unread.",
        "R11 R12",
        {"messages": s.messages(), "document": bytes(document)},
        error="unreadable",
    )


def _elsewhere(shelf: Shelf, world: World) -> None:
    """Somebody puts ids of documents into a feed of another district, one that comes first in any list."""
    s = Stage(world)
    document, issued = s.issue()
    s.supply(s.eken, document, 1, CUSTODY, issued)
    s.govern(e.ReadinessDeclared, declared=e.Level.CRISIS)
    with world.with_district("A"):
        usurper = world.feed("aspen", "A")
        s.act(e.PrescriptionCancelled, usurper, document, (issued,))
        s.act(e.PrescriptionCancelled, usurper, s.chain)
        s.act(e.FeedClosed, usurper, district_document(STOCKHOLM), successor=usurper.id)
    fold_vector(
        shelf,
        "document_id_elsewhere",
        "A document's id in a feed of another district: the document stays where its issuing event says.",
        "R9 R14",
        s,
        usurper,
        status=["active"],
        dispensed=100,
        anomalies=[],
    )
    inputs = {
        "messages": s.messages(usurper),
        "district": STOCKHOLM,
        "node": bytes(world["eken"].certified.node),
    }
    shelf.add(
        "governance_document_id_elsewhere",
        "governance",
        "The id of governance's document in a feed of another district: governance is what its own district holds.",
        "R14",
        inputs,
        says={"level": "crisis"},
    )
