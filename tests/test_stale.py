"""R4: what a node worked out and kept is never given once it holds or can read more, though the entries be the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, OFFICER, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import DocumentId, Ledger, Level, Link, NodeRole, Status, Supply
from nodes.inprocess import synchronise


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


@pytest.fixture
def other(realm: SmallRealm) -> Iterator[Ledger]:
    """A second pharmacy, which everybody knows."""
    made = realm.enrol("other", NodeRole.PHARMACY)
    synchronise(made.exchange, realm.prescriber.exchange)
    realm.replicate()
    synchronise(made.exchange, realm.prescriber.exchange)
    yield made
    made.close()


def prescribed(realm: SmallRealm) -> DocumentId:
    """A prescription that the first pharmacy holds."""
    holder = realm.pharmacy.node.identity.node
    return realm.prescriber.prescribe(order(0, holder=holder), person=PRESCRIBER).document


def send_ahead(source: Ledger, target: Ledger, link: Link) -> None:
    stored = source.node.store.by_link(link)
    assert stored is not None
    assert target.exchange.import_detached(stored.feed, stored.previous, stored.entry())


def holders(ledger: Ledger, document: DocumentId) -> list[bytes]:
    return [fill.holder for fill in ledger.show(document).prescription.fills]


def settled(ledger: Ledger) -> None:
    """Snapshots too are up to date, so that an old one would be found."""
    while ledger.inquiry.settle():
        pass


def test_a_key_that_comes_after_a_delegation_changes_who_holds(realm: SmallRealm, other: Ledger) -> None:
    """The delegation was held all the time; it could not be read."""
    document = prescribed(realm)
    realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    realm.replicate()
    realm.pharmacy.stewardship.take_epochs()
    realm.pharmacy.delegate(DISTRICT, other.node.identity.node, person=PHARMACIST)
    synchronise(other.exchange, realm.pharmacy.exchange)
    own = other.node.own_feed(DISTRICT)
    assert own not in holders(other, document)
    settled(other)
    assert other.stewardship.take_epochs() == 1
    assert set(holders(other, document)) == {own}
    assert other.inquiry.state_digest() == realm.pharmacy.inquiry.state_digest()


@pytest.mark.parametrize("reopened", [False, True])
def test_what_came_ahead_of_its_feed_counts_whole_when_the_feed_follows(
    realm: SmallRealm, other: Ledger, reopened: bool, tmp_path: Path
) -> None:
    """A transfer and a delegation held ahead confer nothing; chained, they do. The set of the document's entries is the same."""
    document, elsewhere = prescribed(realm), prescribed(realm)
    realm.replicate()
    synchronise(other.exchange, realm.prescriber.exchange)
    realm.pharmacy.hold(elsewhere, person=PHARMACIST)
    moved = realm.pharmacy.transfer(document, [1], other.node.identity.node, person=PHARMACIST)
    delegated = realm.pharmacy.delegate(DISTRICT, other.node.identity.node, person=PHARMACIST)
    for receipt in (moved, delegated):
        send_ahead(realm.pharmacy, other, receipt.link)
    own = other.node.own_feed(DISTRICT)
    assert own not in holders(other, document)
    settled(other)
    synchronise(other.exchange, realm.pharmacy.exchange)
    if reopened:
        other.close()
        with Ledger.open(tmp_path / "other", realm.unlock) as again:
            assert set(holders(again, document)) == {own}
    else:
        assert set(holders(other, document)) == {own}
        assert other.inquiry.state_digest() == realm.pharmacy.inquiry.state_digest()
        assert sum(1 for _ in other.inquiry.verify()) > 0


def test_nobody_is_taken_to_know_a_revocation_that_a_later_entry_of_governance_overtook(
    realm: SmallRealm, other: Ledger
) -> None:
    """What an act cites is what its author held without a gap: else an honest node were blamed for what it never saw."""
    document = realm.prescriber.prescribe(
        order(0, holder=other.node.identity.node), person=PRESCRIBER
    ).document
    realm.replicate()
    synchronise(other.exchange, realm.prescriber.exchange)
    agency = realm.agency.stewardship
    agency.revoke(other.node.identity.node, person=OFFICER, reason="stulen", new_epoch=False)
    declared = agency.declare(Level.CRISIS, person=OFFICER)
    send_ahead(realm.agency, other, declared.link)
    assert other.level(DISTRICT) is Level.CRISIS
    other.dispense(document, Supply(fill=1), person=PHARMACIST)
    synchronise(other.exchange, realm.prescriber.exchange)
    realm.replicate()
    kinds = {a.kind for a in realm.agency.show(document).prescription.anomalies}
    assert kinds == {"contested_custody", "supplied_without_authority"}
    mark = other.node.reader.governance().mark
    synchronise(other.exchange, realm.agency.exchange)
    assert other.node.reader.governance().mark == declared.link[:8] != mark


def test_a_prescription_read_with_a_later_key_stands_in_the_patients_list(
    realm: SmallRealm, other: Ledger
) -> None:
    """It had been looked at, and could not be read, when the list was last asked for."""
    wanted = order(0, holder=None).patient
    realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    realm.replicate()
    realm.prescriber.stewardship.take_epochs()
    document = prescribed(realm)
    synchronise(other.exchange, realm.prescriber.exchange)
    for _ in range(2):
        assert not other.patient(wanted, person=PHARMACIST, purpose="dispensing").prescriptions
    assert other.stewardship.take_epochs() == 1
    for _ in range(2):
        assert set(other.patient(wanted, person=PHARMACIST, purpose="dispensing").prescriptions) == {document}


def test_an_event_builds_on_all_that_its_author_could_read_when_it_wrote(
    realm: SmallRealm, other: Ledger
) -> None:
    """R5: a resume ends the holds that its author knew of, also of one that a key made readable just before."""
    document = prescribed(realm)
    realm.replicate()
    synchronise(other.exchange, realm.prescriber.exchange)
    realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    realm.replicate()
    realm.pharmacy.stewardship.take_epochs()
    realm.pharmacy.hold(document, person=PHARMACIST)
    synchronise(realm.agency.exchange, realm.pharmacy.exchange)
    synchronise(realm.prescriber.exchange, realm.pharmacy.exchange)
    realm.prescriber.amend(document, person=PRESCRIBER, dosage="2 tabletter")
    assert realm.prescriber.stewardship.take_epochs() == 1
    realm.prescriber.resume(document, person=PRESCRIBER)
    assert realm.prescriber.show(document).prescription.status is Status.ACTIVE
