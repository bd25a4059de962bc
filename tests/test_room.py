"""A node writes no act that might be set aside: whoever is told that it was done can rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.world import PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import CustodyPlan, NotPermitted, Supply, node
from ledger.history import Status


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


def test_beyond_its_share_a_node_only_hands_over_and_stops(
    realm: SmallRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "OWN_FACTS_MAX", 4)
    pharmacy, prescriber = realm.pharmacy, realm.prescriber
    receipt = prescriber.prescribe(order(0, holder=pharmacy.node.identity.node), person=PRESCRIBER)
    document = receipt.document
    realm.replicate()
    for number in range(4):
        pharmacy.not_dispensed(document, 2, f"reason {number}", person=PHARMACIST)
    with pytest.raises(NotPermitted, match="4 events"):
        pharmacy.not_dispensed(document, 2, "once more", person=PHARMACIST)
    pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST)
    realm.replicate()
    # Each counts its own: what others wrote is none of it.
    prescriber.amend(document, person=PRESCRIBER, dosage="1 tablett")
    prescriber.amend(document, person=PRESCRIBER, dosage="2 tabletter")
    prescriber.amend(document, person=PRESCRIBER, dosage="3 tabletter")
    with pytest.raises(NotPermitted, match="issue it anew"):
        prescriber.amend(document, person=PRESCRIBER, dosage="4 tabletter")
    prescriber.cancel(document, person=PRESCRIBER)
    realm.replicate()
    assert pharmacy.show(document).prescription.status is Status.STOPPED
    other = prescriber.prescribe(order(1, holder=None), person=PRESCRIBER).document
    prescriber.amend(other, person=PRESCRIBER, dosage="1 tablett")


def test_one_prescription_without_room_does_not_end_the_nightly_plan(
    realm: SmallRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "OWN_FACTS_MAX", 2)
    prescriber, pharmacy = realm.prescriber, realm.pharmacy
    chosen = pharmacy.node.identity.node
    documents = [
        prescriber.prescribe(
            replace(order(n, holder=prescriber.node.identity.node), chosen_pharmacy=chosen), person=PRESCRIBER
        ).document
        for n in range(3)
    ]
    full = min(documents)
    prescriber.amend(full, person=PRESCRIBER, dosage="1 tablett")
    realm.replicate()
    moved = prescriber.plan_custody(CustodyPlan(days=3660), person=PRESCRIBER)
    assert {receipt.document for receipt in moved} == set(documents) - {full}
