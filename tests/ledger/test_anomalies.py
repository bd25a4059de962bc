"""Anomalies (R9): what is found, who is named, and that it stays open until a human resolves it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ledger import events as e
from ledger.clock import DRIFT_MAX_MS
from ledger.events import PrescriptionAmended, PrescriptionCancelled
from ledger.history import Anomaly, Status
from tests.ledger.case_for_tests import NOW_MS, SIZE, Author, Case


def one(case: Case, kind: str) -> Anomaly:
    (found,) = [a for a in case.fold().anomalies if a.kind == kind]
    return found


def ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def test_double_dispensing_names_every_supply_of_the_fill():
    case = Case()
    both = {case.supply(case.eken, 2, case.issued), case.supply(case.bjorken, 2)}
    found = one(case, "double_dispensing")
    assert (set(found.involved), found.fill) == (both, 2)


def test_one_supply_of_too_much_is_over_quantity():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued, quantity=SIZE + 1)
    assert one(case, "over_quantity").involved == (supply,)
    assert case.kinds() == {"over_quantity"}


def test_parts_of_a_fill_are_no_double_dispensing():
    case = Case()
    part = case.supply(case.eken, 1, case.issued, quantity=60, part=True)
    case.supply(case.eken, 1, part, quantity=40)
    assert case.kinds() == set()


def test_a_supply_after_a_cancellation_says_whether_it_was_known():
    case = Case()
    cancel = case.act(case.doctor, PrescriptionCancelled)
    unknowing = case.supply(case.eken, 1, case.issued)
    knowing = case.supply(case.eken, 2, case.issued, knowing=(cancel,))
    found = {a.involved: a.detail for a in case.fold().anomalies if a.kind == "supplied_after_cancellation"}
    assert found == {
        tuple(sorted((unknowing, cancel))): "concurrently",
        tuple(sorted((knowing, cancel))): "knowingly",
    }


def test_a_supply_that_the_cancellation_knew_of_is_not_after_it():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.act(case.doctor, PrescriptionCancelled, (supply,))
    assert case.kinds() == set()


def test_many_cancellations_make_one_anomaly_of_a_supply():
    case = Case()
    for _ in range(5):
        case.act(case.doctor, PrescriptionCancelled)
    case.supply(case.eken, 1, case.issued)
    assert one(case, "supplied_after_cancellation")


def test_a_cancellation_out_of_role_cancels_nothing_and_blames_no_supply():
    case = Case()
    case.act(case.bjorken, PrescriptionCancelled)
    case.supply(case.eken, 1, case.issued)
    assert case.kinds() == {"out_of_role"}
    assert case.fold().status is Status.ACTIVE


def test_a_supply_after_expiry_is_found_by_when_it_happened():
    case = Case(valid_until="2027-06-30")
    case.supply(case.eken, 1, case.issued, ms=ms("2027-06-30T23:59"))
    late = case.supply(case.eken, 2, case.issued, ms=ms("2027-07-01"))
    case.supply(case.eken, 3, case.issued, ms=ms("2027-08-01"), happened=ms("2027-06-01"))
    assert one(case, "supplied_after_expiry").involved == (late,)


def test_a_reversed_supply_is_no_anomaly():
    case = Case(valid_until="2027-06-30")
    case.act(case.doctor, PrescriptionCancelled)
    case.supply(case.linden, 1)
    supply = case.supply(case.eken, 1, case.issued, ms=ms("2027-07-01"), quantity=SIZE * 2)
    case.reverse(case.eken, supply)
    involved = {link for a in case.fold().anomalies if a.kind != "clock_beyond_bound" for link in a.involved}
    assert supply not in involved


def test_void_events_are_named_with_their_reason_and_have_no_effect():
    case = Case()
    void = case.write(case.doctor, None, void="undecodable-malformed")
    other = {name: getattr(case.event, name) for name in case.event.__struct_fields__} | {"nonce": b"1" * 16}
    copied = case.write(case.doctor, e.PrescriptionIssued(**other))
    found = {a.involved[0]: a.detail for a in case.fold().anomalies if a.kind == "void_event"}
    assert found == {void: "undecodable-malformed", copied: "id-mismatch"}
    assert case.fill(1).holder == case.eken.feed


def test_what_a_role_may_not_do_has_no_effect_and_is_named():
    case = Case()
    acts = {
        case.act(case.bjorken, PrescriptionAmended, dosage="9"),
        case.act(case.bjorken, PrescriptionCancelled),
        case.act(case.bjorken, e.CustodyRecovered, fills=(1,), reason="x"),
        case.act(case.relay, e.PrescriptionHeld),
        case.act(case.doctor, e.Dispensed, fill=2, quantity=1, basis=e.Basis.EMERGENCY),
        case.act(case.authority, e.ExternalIdAttached, external_id=e.Coded("x", "1")),
    }
    assert case.blamed("out_of_role") == acts
    assert case.fold().dosage == ("1 tablett",)
    assert case.fold().external_ids == ()
    assert case.fill(1).holder == case.eken.feed


@pytest.mark.parametrize(
    ("name", "origin", "allowed"),
    [
        ("bjorken", e.Origin.PAPER, True), ("bjorken", e.Origin.TELEPHONE, True),
        ("bjorken", e.Origin.ELECTRONIC, False), ("bjorken", e.Origin.REGISTER, False),
        ("agency", e.Origin.REGISTER, True), ("agency", e.Origin.ELECTRONIC, False),
        ("relay", e.Origin.PAPER, False), ("authority", e.Origin.PAPER, False),
    ],
)  # fmt: skip
def test_who_may_issue_from_what(name: str, origin: e.Origin, allowed: bool):
    case = Case(origin=origin)
    case.facts.clear()
    case.doctor.path.clear()
    case.issued = case.write(getattr(case, name), case.event, knowing=())
    assert (case.fold().status is Status.ACTIVE) is allowed
    assert case.kinds() == (set() if allowed else {"out_of_role"})


def test_concurrent_amendments_of_one_field_all_stand():
    case = Case()
    case.act(case.doctor, PrescriptionAmended, dosage="2")
    case.act(case.agency, PrescriptionAmended, dosage="9")
    other = Author(case, "doctor 2", case.doctor.role)
    case.act(other, PrescriptionAmended, dosage="3")
    case.act(other, PrescriptionAmended, instructions="efter mat")
    assert set(case.fold().dosage) == {"2", "3"}
    assert one(case, "conflicting_amendments").detail == "dosage"
    assert case.fold().instructions == ("efter mat",)


def test_concurrent_amendments_that_agree_are_no_conflict():
    case = Case()
    for author in (case.doctor, Author(case, "doctor 2", case.doctor.role)):
        case.act(author, PrescriptionAmended, dosage="2")
    assert case.kinds() == set()


def test_a_clock_that_ran_ahead_of_what_builds_on_it_is_named():
    case = Case()
    ahead = case.act(case.doctor, PrescriptionAmended, dosage="2", ms=NOW_MS * 2)
    case.supply(case.eken, 1, case.issued, knowing=(ahead,))
    assert one(case, "clock_beyond_bound").involved == (ahead,)


def test_a_clock_that_stepped_back_within_a_feed_is_named():
    case = Case()
    case.act(case.eken, e.NotDispensed, fill=1, reason="x", ms=NOW_MS * 2)
    back = case.supply(case.eken, 2, case.issued)
    assert one(case, "clock_beyond_bound").involved == (back,)


def test_what_was_recorded_long_before_it_happened_is_named():
    case = Case()
    now = NOW_MS + 1000
    case.supply(case.eken, 1, case.issued, ms=now, happened=now + DRIFT_MAX_MS)
    odd = case.supply(case.eken, 2, case.issued, ms=now, happened=now + DRIFT_MAX_MS + 1)
    assert one(case, "clock_beyond_bound").involved == (odd,)


def test_a_decision_is_listed_with_the_anomaly_it_names_if_its_author_may_make_it():
    case = Case()
    case.supply(case.eken, 1, case.issued, quantity=SIZE + 1)
    found = one(case, "over_quantity")
    case.act(case.relay, e.AnomalyResolved, anomaly=found.id, decision="nej")
    made = case.act(case.authority, e.AnomalyResolved, anomaly=found.id, decision="kassationsfel")
    (resolution,) = one(case, "over_quantity").resolutions
    assert (resolution.event, resolution.decision) == (made, "kassationsfel")


def test_more_evidence_makes_another_anomaly_which_is_open():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    case.supply(case.bjorken, 1)
    first = one(case, "double_dispensing")
    case.act(case.agency, e.AnomalyResolved, anomaly=first.id, decision="utrett")
    assert one(case, "double_dispensing").resolutions
    case.supply(case.linden, 1)
    assert one(case, "double_dispensing").id != first.id
    assert one(case, "double_dispensing").resolutions == ()


def test_a_decision_about_what_this_document_does_not_show_is_kept_for_who_looks_across_documents():
    case = Case()
    made = case.act(case.agency, e.AnomalyResolved, anomaly=b"a" * 16, decision="samma order")
    ((anomaly, resolution),) = case.fold().decisions
    assert (anomaly, resolution.event) == (b"a" * 16, made)
