"""R6, R7: an old image of a node that runs beside it stops writing that feed as soon as it learns of the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import Basis, Ledger, Supply, Verdict
from nodes.inprocess import synchronise


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["paper", "ahead", "run"])
def test_an_image_that_learns_of_the_other_dispenses_no_more_on_custody(
    realm: SmallRealm, tmp_path: Path, how: str
) -> None:
    """Whichever way it learns: from a patient's paper, an urgent entry, or a whole run."""
    holder = realm.pharmacy.node.identity.node
    document = realm.prescriber.prescribe(order(0, holder=holder), person=PRESCRIBER).document
    realm.replicate()
    realm.pharmacy.close()
    shutil.copytree(tmp_path / "pharmacy", tmp_path / "image")
    realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock)
    with Ledger.open(tmp_path / "image", realm.unlock) as image:
        supply = Supply(fill=2, basis=Basis.CUSTODY)
        assert image.assess(document, supply).verdict is Verdict.PERMIT, "nothing tells it so far"
        moved = realm.pharmacy.transfer(document, [1], None, person=PHARMACIST)
        before = image.node.own_feed(DISTRICT)
        if how == "paper":
            image.papers.scan(realm.pharmacy.papers.print(document))
        elif how == "ahead":
            stored = realm.pharmacy.node.store.by_link(moved.link)
            assert stored is not None
            image.exchange.import_detached(stored.feed, stored.previous, stored.entry())
        else:
            synchronise(image.exchange, realm.pharmacy.exchange)
        assert image.assess(document, supply).verdict is Verdict.REFUSE
        assert image.node.own_feed(DISTRICT) != before
        assert realm.pharmacy.assess(document, supply).verdict is Verdict.PERMIT, "the node itself goes on"
