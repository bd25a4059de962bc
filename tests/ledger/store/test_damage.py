"""R16: a damaged store opens to what was written or to a typed error, never to another or a smaller ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from ledger import (
    Coded,
    IssuePrescription,
    Ledger,
    NodeRole,
    Patient,
    Person,
    PersonRole,
    Product,
    RealmKind,
    RxLedgerError,
    SeededEntropy,
    StoreBusy,
    StoreDamaged,
    SystemClock,
    UnlockFile,
)
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PRESCRIBER_CODE
from nodes.founding import enrol, found_realm

PERSON = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
PATIENT = Patient(name="Test", birth_date="1950-01-01", sex="male")
SAMPLED_FLIPS = 700
"""Of the reference store's bytes in a normal run; the nightly run takes all."""


class Reference:
    """A closed node with two prescriptions and a few events, and all that can be read from it."""

    def __init__(self, directory: Path) -> None:
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.node = directory / "node"
        founded = found_realm(
            directory / "realm",
            "damage",
            RealmKind.EXERCISE,
            self.unlock,
            clock=SystemClock(),
            entropy=SeededEntropy(5),
        )
        with founded.agency, enrol(
            founded, self.node, role=NodeRole.PRESCRIBER, district="SE-X-1", name="vc", unlock=self.unlock, person=OFFICER
        ) as ledger:  # fmt: skip
            for number in range(2):
                order = IssuePrescription(
                    patient=PATIENT, product=Product(pack=Coded(NPL_PACK_ID, f"2099123110000{number}"), name="Metformin"),
                    dosage="1 tablett", fills=3, prescriber=PERSON.code,
                )  # fmt: skip
                document = ledger.prescribe(order, person=PERSON).document
                ledger.amend(document, person=PERSON, dosage="2 tabletter")
            ledger.cancel(document, person=PERSON)
            while ledger.inquiry.settle():
                pass
        self.store = (self.node / "store.db").read_bytes()

    def damaged(self, target: Path, content: bytes) -> Path:
        """The node with another store file."""
        shutil.copytree(self.node, target, ignore=shutil.ignore_patterns("store.db-*"), dirs_exist_ok=True)
        for leftover in target.glob("store.db-*"):
            leftover.unlink()
        (target / "store.db").write_bytes(content)
        return target

    def read(self, node: Path) -> tuple[object, ...]:
        """Everything that counts as the ledger, read anew."""
        with Ledger.open(node, self.unlock, writable=False) as ledger:
            states = [(d, s.heads, s.unread, s.prescription) for d, s in ledger.inquiry.states()]
            frontier = {d: ledger.exchange.frontier(d) for d in sorted(ledger.exchange.districts())}
            # Signatures stand beside the state (R4): a damaged one is found by `verify`, and by whoever it is sent to.
            runs = [
                [msgspec.structs.replace(entry, signature=None) for entry in run.entries]
                for feeds in frontier.values()
                for feed in sorted(feeds)
                for run in ledger.exchange.runs(feed, (), 1 << 30)
            ]
            return states, frontier, runs, ledger.inquiry.state_digest()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("damage"))


def flip_all(reference: Reference, tmp_path: Path, positions: range) -> dict[str, int]:
    """Flip a byte at each position; every reading must be the original or a typed error."""
    original = reference.read(reference.damaged(tmp_path / "node", reference.store))
    outcomes = {"same": 0, "refused": 0}
    content = bytearray(reference.store)
    for position in positions:
        content[position] ^= 1 << position % 8
        node = reference.damaged(tmp_path / "node", bytes(content))
        try:
            assert reference.read(node) == original, f"byte {position} changed the ledger silently"
            outcomes["same"] += 1
        except RxLedgerError:
            outcomes["refused"] += 1
        content[position] ^= 1 << position % 8
    return outcomes


def test_a_flipped_byte_never_changes_the_ledger_silently(reference: Reference, tmp_path: Path) -> None:
    size = len(reference.store)
    step = max(1, size // SAMPLED_FLIPS) | 1
    outcomes = flip_all(reference, tmp_path, range(0, size, step))
    print(outcomes)
    assert outcomes["refused"] > 20
    assert outcomes["same"] > 20


@pytest.mark.nightly
def test_every_byte_flipped_once_never_changes_the_ledger_silently(
    reference: Reference, tmp_path: Path
) -> None:
    outcomes = flip_all(reference, tmp_path, range(len(reference.store)))
    print(f"{len(reference.store)} bytes: {outcomes}")
    assert sum(outcomes.values()) == len(reference.store)


def test_a_damaged_signature_is_found_by_verifying(reference: Reference, tmp_path: Path) -> None:
    node = reference.damaged(tmp_path / "node", reference.store)
    with Ledger.open(node, reference.unlock, writable=False) as ledger:
        signatures = [entry.signature for entry in ledger.node.store.verify() if entry.signature is not None]
    for number, signature in enumerate(signatures):
        at = reference.store.index(signature) + 20
        content = bytearray(reference.store)
        content[at] ^= 1
        damaged = reference.damaged(tmp_path / f"signature-{number}", bytes(content))
        with Ledger.open(damaged, reference.unlock, writable=False) as ledger, pytest.raises(StoreDamaged):
            for _ in ledger.inquiry.verify():
                pass


def test_a_store_cut_short_or_emptied_is_an_error_and_no_new_store(
    reference: Reference, tmp_path: Path
) -> None:
    size = len(reference.store)
    for length in [0, 1, 16, 100, *range(512, size, 4096), size - 4096, size - 1]:
        node = reference.damaged(tmp_path / f"cut-{length}", reference.store[:length])
        with pytest.raises(StoreDamaged):
            reference.read(node)


def test_garbage_at_the_end_or_a_page_of_zeros_is_never_believed(
    reference: Reference, tmp_path: Path
) -> None:
    original = reference.read(reference.damaged(tmp_path / "whole", reference.store))
    size = len(reference.store)
    for number, content in enumerate(
        [reference.store + b"\xff" * 4096]
        + [reference.store[:at] + bytes(4096) + reference.store[at + 4096 :] for at in range(0, size, 4096)]
        + [
            reference.store[:at] + reference.store[4096:8192] + reference.store[at + 4096 :]
            for at in range(8192, size, 4096)
        ]
    ):
        node = reference.damaged(tmp_path / f"garbage-{number}", content)
        try:
            assert reference.read(node) == original
        except RxLedgerError:
            continue


def test_a_second_writer_is_refused_and_readers_read_on(reference: Reference, tmp_path: Path) -> None:
    node = reference.damaged(tmp_path / "node", reference.store)
    with Ledger.open(node, reference.unlock) as writer:
        with pytest.raises(StoreBusy):
            Ledger.open(node, reference.unlock)
        before = reference.read(node)
        order = IssuePrescription(
            patient=PATIENT, product=Product(pack=Coded(NPL_PACK_ID, "20991231100009"), name="Warfarin"), dosage="1",
            fills=1, prescriber=PERSON.code,
        )  # fmt: skip
        with Ledger.open(node, reference.unlock, writable=False) as reader:
            document = writer.prescribe(order, person=PERSON).document
            assert reader.show(document).prescription.issued is not None
        assert reference.read(node) != before


def test_a_restored_backup_never_continues_its_old_feed(reference: Reference, tmp_path: Path) -> None:
    """I1: the backup carries no continuity token, so the node goes on in its next incarnation, in a new feed."""
    node = reference.damaged(tmp_path / "node", reference.store)
    with Ledger.open(node, reference.unlock) as ledger:
        ledger.node.store.backup(tmp_path / "backup")
        first = ledger.node.own_feed("SE-X-1")
        incarnation = ledger.node.writer.incarnation
    for leftover in node.glob("store.db*"):
        if leftover.suffix != ".continuity":
            leftover.unlink()
    shutil.copyfile(tmp_path / "backup", node / "store.db")
    with Ledger.open(node, reference.unlock) as ledger:
        assert ledger.node.writer.incarnation == incarnation + 1
        assert ledger.node.own_feed("SE-X-1") != first


def test_a_store_without_its_continuity_file_goes_on_in_a_new_incarnation(
    reference: Reference, tmp_path: Path
) -> None:
    node = reference.damaged(tmp_path / "node", reference.store)
    with Ledger.open(node, reference.unlock) as ledger:
        incarnation = ledger.node.writer.incarnation
    with Ledger.open(node, reference.unlock) as ledger:
        assert ledger.node.writer.incarnation == incarnation
    (node / "store.db.continuity").unlink()
    with Ledger.open(node, reference.unlock) as ledger:
        assert ledger.node.writer.incarnation == incarnation + 1
