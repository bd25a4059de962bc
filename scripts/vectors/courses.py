"""Vectors of what befalls a prescription: changes, forks, revocations, what is not understood, and who meddles."""

from __future__ import annotations

from datetime import date

import msgspec

from ledger import events as e
from ledger.events import Basis, FeedEnd, encode_event
from ledger.ids import (
    Link,
    district_document,
    month_number,
)
from scripts.vectors.craft import ISSUED, STOCKHOLM, World
from scripts.vectors.shelf import Shelf
from scripts.vectors.stage import Stage, fold_vector, must_not

__all__ = ["courses"]

CUSTODY, BEARER, EMERGENCY = Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY


def courses(shelf: Shelf, world: World) -> None:
    """Write them."""
    for write in (_prescribing, _forks, _revocations, _unknown, _by_others, _elsewhere):
        write(shelf, world)


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


def _by_others(shelf: Shelf, world: World) -> None:
    """What only its author may take back."""
    s = Stage(world)
    document, issued = s.issue()
    supply = s.supply(s.eken, document, 1, CUSTODY, issued)
    kind = e.ReversalKind.BEFORE_HANDOVER
    s.act(e.DispensingReversed, s.bjorken, document, (supply,), supply=supply, kind=kind)
    s.act(e.DispensingCorrected, s.bjorken, document, (supply,), supply=supply, quantity=1)
    fold_vector(
        shelf,
        "reversed_by_another",
        "Another pharmacy takes a supply back, and corrects it: neither has effect.",
        "R9 R14",
        s,
        dispensed=100,
        fills=["dispensed", "in-custody"],
    )
    s = Stage(world)
    document, issued = s.issue()
    district, linden = district_document(STOCKHOLM), world.feed("linden")
    delegated = s.act(e.CustodyDelegated, s.eken, district, to=s.bjorken.id)
    ended = s.act(e.CustodyDelegationEnded, linden, district, (delegated,), delegation=delegated)
    s.supply(s.bjorken, document, 1, CUSTODY, delegated, parents=(issued, ended))
    fold_vector(
        shelf,
        "delegation_ended_by_another",
        "A third feed ends a delegation: without effect.",
        "R7",
        s,
        linden,
        dispensed=100,
        anomalies=[],
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
