"""Two documents for one order: a possible duplicate, the same on every node that holds both (section 6 of the design)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.world import PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import IssuePrescription, Origin, Supply
from ledger.ids import DocumentId


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


def registered_on_paper(realm: SmallRealm, **changes: object) -> DocumentId:
    wanted: IssuePrescription = order(0, holder=realm.pharmacy.node.identity.node)
    paper = msgspec.structs.replace(wanted, origin=Origin.PAPER, **changes)
    return realm.pharmacy.prescribe(paper, person=PHARMACIST).document


def issued(realm: SmallRealm, **changes: object) -> DocumentId:
    wanted = msgspec.structs.replace(order(0, holder=realm.pharmacy.node.identity.node), **changes)
    return realm.prescriber.prescribe(wanted, person=PRESCRIBER).document


def found(realm: SmallRealm) -> set[tuple[tuple[str, str], ...]]:
    """What each node says of the patient; one element if all say the same."""
    realm.replicate()
    answers = set()
    for ledger, person in (
        (realm.prescriber, PRESCRIBER),
        (realm.pharmacy, PHARMACIST),
        (realm.agency, PHARMACIST),
    ):
        patient = order(0, holder=None).patient
        state = ledger.patient(patient, person=person, purpose="dispensing").patient
        answers.add(tuple((a.kind, a.detail) for a in state.anomalies))
    return answers


def test_the_printed_serial_is_the_exact_key(realm: SmallRealm) -> None:
    registered_on_paper(realm, order_serial="A-1")
    issued(realm, order_serial="A-1")
    assert found(realm) == {(("possible_duplicate", "same order"),)}


def test_without_a_serial_patient_substance_and_period_are_the_fallback(realm: SmallRealm) -> None:
    registered_on_paper(realm)
    issued(realm)
    assert found(realm) == {(("possible_duplicate", "same substance and period"),)}


def test_two_electronic_prescriptions_of_one_substance_are_no_duplicate(realm: SmallRealm) -> None:
    issued(realm)
    issued(realm)
    assert found(realm) == {()}


def test_a_reissue_is_no_duplicate_but_supplies_on_both_are_a_double_dispensing(realm: SmallRealm) -> None:
    old = issued(realm)
    realm.replicate()
    new = issued(realm, replaces=old)
    assert found(realm) == {()}
    realm.pharmacy.dispense(old, Supply(fill=1), person=PHARMACIST)
    realm.pharmacy.dispense(new, Supply(fill=1), person=PHARMACIST)
    assert found(realm) == {(("double_dispensing", "on a prescription and its replacement"),)}


def test_a_supply_linked_afterwards_counts_in_the_prescription(realm: SmallRealm) -> None:
    """An emergency supply on the paper's document, linked to the e-prescription that came later."""
    paper = registered_on_paper(realm, order_serial="A-2")
    supply = realm.pharmacy.dispense(paper, Supply(fill=1, quantity=30), person=PHARMACIST)
    late = issued(realm, order_serial="A-2")
    realm.replicate()
    before = realm.pharmacy.show(late).prescription.balance.dispensed
    realm.pharmacy.link_supply(late, supply.link, 1, 30, person=PHARMACIST)
    realm.replicate()
    for ledger in (realm.pharmacy, realm.prescriber, realm.agency):
        assert ledger.show(late).prescription.balance.dispensed == before + 30
