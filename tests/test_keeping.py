"""What a node keeps for itself and for those who follow: the audit log, backups put back, a computer that is replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import Coded, InvalidInput, Ledger, NodeRole, NotPermitted, Patient, StoreDamaged, Supply
from ledger.store import restore_store
from nodes.inprocess import synchronise


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


def test_every_lookup_of_a_patient_is_logged_sealed_and_can_be_shown(realm: SmallRealm) -> None:
    wanted = order(0, holder=None).patient
    for purpose in ("dispensing", "care"):
        realm.pharmacy.patient(wanted, person=PHARMACIST, purpose=purpose)
    node, chain, shown = realm.pharmacy.node, b"", []
    for sealed, following in node.store.audit():
        shown.append(node.open_private("audit", chain, sealed))
        chain = following
    assert [purpose in record for purpose, record in zip((b"dispensing", b"care"), shown, strict=True)] == [
        True,
        True,
    ]
    assert all(PHARMACIST.code.code.encode() in record for record in shown)


@pytest.mark.parametrize("left", [2, 1, 0])
def test_an_audit_log_whose_end_was_cut_off_is_damage(realm: SmallRealm, tmp_path: Path, left: int) -> None:
    for number in range(3):
        realm.pharmacy.patient(order(number, holder=None).patient, person=PHARMACIST, purpose="dispensing")
    assert list(realm.pharmacy.inquiry.verify())
    realm.pharmacy.close()
    with closing(sqlite3.connect(tmp_path / "pharmacy" / "store.db")) as database, database:
        database.execute("DELETE FROM audit WHERE id > ?", (left,))
    realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock)
    with pytest.raises(StoreDamaged, match="audit"):
        list(realm.pharmacy.inquiry.verify())
    with pytest.raises(StoreDamaged, match="audit"):  # Nor does anything go on from there.
        realm.pharmacy.patient(order(0, holder=None).patient, person=PHARMACIST, purpose="dispensing")


def test_a_missing_or_empty_backup_leaves_the_present_store_where_it_is(
    realm: SmallRealm, tmp_path: Path
) -> None:
    realm.pharmacy.close()
    store = tmp_path / "pharmacy" / "store.db"
    before = store.read_bytes()
    (tmp_path / "empty").touch()
    for backup in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(StoreDamaged):
            restore_store(backup, store, aside=tmp_path / "aside")
        assert store.read_bytes() == before
    with pytest.raises(InvalidInput):
        restore_store(store, store)
    realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock)


def test_a_restored_store_reads_nothing_from_the_log_of_the_lost_one(
    realm: SmallRealm, tmp_path: Path
) -> None:
    document = realm.prescriber.prescribe(order(0, holder=None), person=PRESCRIBER).document
    realm.prescriber.node.store.backup(tmp_path / "backup")
    realm.prescriber.close()
    node = tmp_path / "prescriber"
    (node / "store.db").unlink()
    (node / "store.db-wal").write_bytes(b"of another store" * 100)
    restore_store(tmp_path / "backup", node / "store.db")
    assert not (node / "store.db-wal").exists()
    realm.prescriber = Ledger.open(node, realm.unlock)
    assert realm.prescriber.show(document).prescription.issued is not None


def test_a_planned_change_of_computer_loses_nothing(realm: SmallRealm) -> None:
    """The old feed's last entry names its successor, which dispenses what the old one held or is named for later."""
    old = realm.pharmacy.node.identity.node
    document = realm.prescriber.prescribe(order(0, holder=old), person=PRESCRIBER).document
    new = realm.enrol("new computer", NodeRole.PHARMACY)
    realm.replicate()
    synchronise(new.exchange, realm.pharmacy.exchange)
    synchronise(realm.pharmacy.exchange, realm.prescriber.exchange)
    realm.pharmacy.close_feed(DISTRICT, new.node.identity.node, person=PHARMACIST)
    later = realm.prescriber.prescribe(order(1, holder=old), person=PRESCRIBER).document
    realm.replicate()
    synchronise(new.exchange, realm.pharmacy.exchange)
    with pytest.raises(NotPermitted):
        realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST)
    for held in (document, later):
        new.dispense(held, Supply(fill=1), person=PHARMACIST)
        assert not new.show(held).prescription.anomalies
    new.close()


def test_blocks_consent_and_the_registers_id_stand_in_the_state(realm: SmallRealm) -> None:
    document = realm.prescriber.prescribe(order(0, holder=None), person=PRESCRIBER).document
    ledger = realm.prescriber
    ledger.block_access(document, ["care"], person=PRESCRIBER)
    assert ledger.show(document).prescription.blocked == ("care",)
    ledger.give_consent(document, ["care"], person=PRESCRIBER)
    assert ledger.show(document).prescription.blocked == ()
    ledger.attach_external_id(document, Coded("register", "42"), person=PRESCRIBER)
    assert ledger.show(document).prescription.external_ids == (Coded("register", "42"),)


@pytest.mark.parametrize("birth_date", ["19-01-01", "1990-13-01", "igår", "19900101"])
def test_a_question_that_means_nothing_is_refused_and_not_answered_with_nothing(
    realm: SmallRealm, birth_date: str
) -> None:
    with pytest.raises(InvalidInput):
        realm.pharmacy.patient(Patient(name="-", birth_date=birth_date), person=PHARMACIST, purpose="vård")
