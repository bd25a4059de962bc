"""The second fold: duplicates and double dispensing across the prescriptions of one patient."""

from __future__ import annotations

import random

import pytest

from ledger import events as e
from ledger.facts import with_past
from ledger.history import Prescription
from ledger.ids import DocumentId, Link
from ledger.patients import PatientState, fold_patient
from tests.ledger.case_for_tests import Case

ELECTRONIC, PAPER = e.Origin.ELECTRONIC, e.Origin.PAPER
DOUBLE = [("double_dispensing", "on a prescription and its replacement")]


def prescription(number: int, origin: e.Origin = ELECTRONIC, **fields: object) -> Case:
    return Case(
        **({"nonce": bytes([number]) * 16, "command": bytes([number]) * 16, "origin": origin} | fields)
    )


def states(*cases: Case) -> dict[DocumentId, Prescription]:
    return {case.document: case.fold() for case in cases}


def across(*cases: Case) -> PatientState:
    return fold_patient(states(*cases))


def found(*cases: Case) -> list[tuple[str, str]]:
    return [(a.kind, a.detail) for a in across(*cases).anomalies]


def product(code: str = "1", atc: str = "A10BA02") -> e.Product:
    return e.Product(pack=e.Coded("npl", code), name="Metformin", atc=atc, pack_quantity=100)


def test_two_electronic_prescriptions_of_one_medicine_are_no_duplicate():
    assert found(prescription(1), prescription(2)) == []


def test_a_paper_registered_beside_the_same_substance_is_a_possible_duplicate():
    assert found(prescription(1), prescription(2, PAPER)) == [
        ("possible_duplicate", "same substance and period")
    ]


def test_the_serial_of_the_order_is_the_exact_key():
    far = prescription(2, order_serial="A1", issued="2027-03-01")
    one = prescription(1, order_serial="A1")
    assert found(one, far) == [("possible_duplicate", "same order")]
    assert found(one, prescription(3, order_serial="A2")) == []
    assert found(one, prescription(4, order_serial="A1", product=product("2", "C07AB02"))) == []


def test_one_command_of_one_node_that_founded_two_documents_is_a_duplicate():
    assert found(prescription(1), prescription(2, command=bytes([1]) * 16)) == [
        ("possible_duplicate", "same command")
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"issued": "2027-01-16"},
        {"product": product("2", "C07AB02")},
        {"valid_from": "2028-01-01", "valid_until": "2028-06-01"},
    ],
    ids=["issued too long after", "another substance", "another period"],
)
def test_what_is_no_duplicate(other: dict[str, object]):
    assert found(prescription(1), prescription(2, PAPER, **other)) == []


def test_without_a_substance_code_the_pack_is_compared():
    one = prescription(1, product=product("7", ""))
    assert found(one, prescription(2, PAPER, product=product("7", ""))) != []
    assert found(one, prescription(2, PAPER, product=product("8", ""))) == []


def test_a_cancelled_prescription_is_no_duplicate_by_substance():
    one = prescription(1)
    one.act(one.doctor, e.PrescriptionCancelled)
    assert found(one, prescription(2, PAPER)) == []


def test_a_decision_in_either_document_is_listed_and_changes_the_digest():
    one, two = prescription(1), prescription(2, PAPER)
    before = across(one, two)
    (anomaly,) = before.anomalies
    made = {c.act(c.agency, e.AnomalyResolved, anomaly=anomaly.id, decision="två order") for c in (one, two)}
    (after,) = across(one, two).anomalies
    assert {r.event for r in after.resolutions} == made
    assert after.id == anomaly.id
    assert across(one, two).digest != before.digest


# --- reissue ----------------------------------------------------------------------------------------------------------


def reissue(old: Case, *heads: Link) -> Case:
    return prescription(9, replaces=old.document, replaced_heads=heads)


def with_known(old: Case, new: Case) -> list[tuple[str, str]]:
    known = {new.document: with_past(old.facts.values(), map(Link, new.event.replaced_heads))}
    return [(a.kind, a.detail) for a in fold_patient(states(old, new), known).anomalies]


def test_a_reissue_is_no_duplicate_of_what_it_replaces():
    old = prescription(1, PAPER)
    assert found(old, reissue(old, old.issued)) == []


def test_a_supply_that_the_reissue_knew_of_is_no_double_dispensing():
    old = prescription(1)
    supply = old.supply(old.eken, 1, old.issued)
    later = old.act(old.doctor, e.PrescriptionAmended, (supply,), dosage="2")
    new = reissue(old, later)
    new.supply(new.eken, 1, new.issued)
    assert with_known(old, new) == []
    assert found(old, new) == DOUBLE, "without the past of the heads: rather one too many"


@pytest.mark.parametrize("supplied_ms", [1, 1_900_000_000_000])
def test_supplies_on_both_that_knew_nothing_of_each_other_are_found_whatever_the_clocks_said(
    supplied_ms: int,
):
    old = prescription(1)
    new = reissue(old, old.issued)
    old.supply(old.eken, 1, old.issued, ms=supplied_ms)
    assert with_known(old, new) == []
    new.supply(new.eken, 1, new.issued)
    assert with_known(old, new) == DOUBLE


def test_a_reversed_supply_on_either_side_is_no_double_dispensing():
    old = prescription(1)
    new = reissue(old, old.issued)
    old.reverse(old.eken, old.supply(old.eken, 1, old.issued))
    new.supply(new.eken, 1, new.issued)
    assert with_known(old, new) == []


def test_the_replaced_prescription_may_not_be_held():
    old = prescription(1)
    new = reissue(old, old.issued)
    new.supply(new.eken, 1, new.issued)
    assert fold_patient(states(new)).anomalies == ()


def test_the_order_of_prescriptions_does_not_matter():
    cases = [prescription(n, PAPER if n % 2 else ELECTRONIC) for n in range(1, 6)]
    held = list(states(*cases).items())
    expected = fold_patient(dict(held))
    assert len(expected.anomalies) == 9
    for seed in range(5):
        random.Random(seed).shuffle(held)
        assert fold_patient(dict(held)) == expected


def test_the_state_across_documents_names_no_patient():
    patient = e.Patient(name="Planterad", birth_date="1950-01-01")
    assert "Planterad" not in repr(
        across(prescription(1, patient=patient), prescription(2, PAPER, patient=patient))
    )
