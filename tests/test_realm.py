"""Whole realms of real ledgers: convergence in any order, one effect a command, no dead end of trust, nothing told."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from benchmarks.world import DISTRICT, OFFICER, PHARMACIST, PHARMACY, PRESCRIBER, SmallRealm, order
from ledger import (
    Basis,
    Coded,
    InvalidInput,
    Ledger,
    NodeRole,
    NotPermitted,
    RxLedgerError,
    SeededEntropy,
    Supply,
    Verdict,
)
from ledger.enrolment import make_request, open_package
from ledger.feed import Run
from ledger.identity import NodeKeys, is_expired
from ledger.ids import GOVERNANCE
from nodes.bundle import export_bundle, import_bundle
from nodes.inprocess import synchronise

NAME, NUMBER = "Planterad Patientsson", "196101182803"


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path)
    yield made
    made.close()


def all_runs(ledger: Ledger) -> list[Run]:
    exchange = ledger.exchange
    return [
        run
        for district in sorted(exchange.districts())
        for feed in sorted(exchange.frontier(district))
        for run in exchange.runs(feed, (), 4000)
    ]


def digests(ledger: Ledger) -> tuple[bytes, bytes]:
    names = [GOVERNANCE, DISTRICT]
    return ledger.inquiry.frontier_digest(names), ledger.inquiry.state_digest(names)


def busy(realm: SmallRealm) -> bytes:
    """A little of everything; returns a document of which much was written."""
    holder = realm.pharmacy.node.identity.node
    documents = [
        realm.prescriber.prescribe(order(n, holder=holder), person=PRESCRIBER).document for n in range(4)
    ]
    realm.replicate()
    for document in documents:
        realm.prescriber.amend(document, person=PRESCRIBER, dosage="2 tabletter")
        realm.pharmacy.dispense(document, Supply(fill=1, pharmacy=PHARMACY), person=PHARMACIST)
    realm.prescriber.cancel(documents[1], person=PRESCRIBER, reason=3)
    realm.pharmacy.transfer(documents[2], [2], realm.prescriber.node.identity.node, person=PHARMACIST)
    return documents[0]


@pytest.mark.parametrize("seed", range(4))
def test_any_order_grouping_and_repetition_of_delivery_gives_the_same_ledger(
    realm: SmallRealm, seed: int
) -> None:
    """R4: runs shuffled and repeated until nothing is new; entry set, states and Automerge bytes are equal."""
    document = busy(realm)
    late = realm.enrol("late", NodeRole.PHARMACY)
    realm.replicate()
    synchronise(late.exchange, realm.agency.exchange)
    synchronise(realm.agency.exchange, realm.prescriber.exchange)
    synchronise(realm.prescriber.exchange, realm.pharmacy.exchange)
    source = realm.pharmacy
    other = realm.enrol("other", NodeRole.PHARMACY)
    synchronise(other.exchange, source.exchange, budget_bytes=1)
    runs = all_runs(source)
    openings = [
        source.exchange.opening(f) for d in source.exchange.districts() for f in source.exchange.frontier(d)
    ]
    rng = random.Random(seed)
    rng.shuffle(openings)
    other.exchange.import_openings(openings)
    for _ in range(60):
        batch = rng.choices(runs, k=3)
        other.exchange.import_runs(batch)
    for _ in range(len(runs)):
        rng.shuffle(runs)
        if not other.exchange.import_runs(runs).new:
            break
    synchronise(other.exchange, source.exchange)
    assert digests(other) == digests(source)
    assert other.automerge(document) == source.automerge(document)
    late.close()
    other.close()


def test_a_command_repeated_after_reopening_and_restoring_has_one_effect(
    realm: SmallRealm, tmp_path: Path
) -> None:
    """R17: on the same store, after reopening, and in the incarnation that follows a restored backup."""
    holder = realm.pharmacy.node.identity.node
    document = realm.prescriber.prescribe(order(0, holder=holder), person=PRESCRIBER).document
    realm.replicate()
    command = bytes(range(16))
    realm.pharmacy.node.store.backup(tmp_path / "before")
    first = realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST, command=command)
    assert (
        realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST, command=command).link
        == first.link
    )
    realm.pharmacy.close()
    realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock)
    again = realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST, command=command)
    assert again.link == first.link
    assert again.repeated
    realm.replicate()
    realm.pharmacy.close()
    for leftover in (tmp_path / "pharmacy").glob("store.db*"):
        leftover.unlink()
    (tmp_path / "before").replace(tmp_path / "pharmacy" / "store.db")
    realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock)
    realm.replicate()
    restored = realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST, command=command)
    assert restored.link == first.link
    assert realm.pharmacy.show(document).prescription.balance.over_supply == 0


class SettableClock:
    def __init__(self) -> None:
        self.ms = 1_795_500_000_000

    def now_ms(self) -> int:
        return self.ms


def test_in_week_two_a_broken_computer_is_replaced_without_the_agency(tmp_path: Path) -> None:
    """No dead end of trust: a district authority admits the new computer offline; certificates are past their date."""
    clock = SettableClock()
    realm = SmallRealm(tmp_path, clock=clock)
    authority = realm.enrol("authority", NodeRole.AUTHORITY)
    realm.replicate()
    synchronise(authority.exchange, realm.prescriber.exchange)
    realm.agency.close()  # Down, and stays so.
    realm.pharmacy.close()  # Broken.
    clock.ms += 740 * 24 * 3_600_000
    assert is_expired(realm.prescriber.node.identity, clock.ms)
    keys = NodeKeys.generate(SeededEntropy(99))
    request = make_request(keys, NodeRole.PHARMACY, DISTRICT, "replacement")
    package = authority.stewardship.admit(request, person=OFFICER)
    with Ledger.create(
        tmp_path / "replacement", open_package(package, keys), keys, realm.unlock, clock=clock
    ) as fresh:
        synchronise(fresh.exchange, realm.prescriber.exchange)
        receipt = realm.prescriber.prescribe(order(0, holder=fresh.node.identity.node), person=PRESCRIBER)
        synchronise(fresh.exchange, realm.prescriber.exchange)
        decision = fresh.assess(receipt.document, Supply(fill=1))
        assert decision.verdict is Verdict.PERMIT
        assert decision.basis is Basis.CUSTODY
        fresh.dispense(receipt.document, Supply(fill=1), person=PHARMACIST)
        synchronise(fresh.exchange, realm.prescriber.exchange)
        supplies = realm.prescriber.show(receipt.document).prescription
        assert supplies.balance.dispensed > 0
        assert not supplies.anomalies
        with pytest.raises(NotPermitted):
            authority.stewardship.admit(
                make_request(
                    NodeKeys.generate(SeededEntropy(5)), NodeRole.PHARMACY, "SE-C-0380", "elsewhere"
                ),
                person=OFFICER,
            )
    authority.close()
    realm.prescriber.close()


def test_no_identity_name_or_key_stands_on_disk_in_bundles_logs_or_errors(
    realm: SmallRealm, tmp_path: Path
) -> None:
    """R12, R13: planted ones are looked for in every byte that leaves the process."""
    planted = order(1, holder=realm.pharmacy.node.identity.node)
    assert planted.patient.identifier is not None
    with structlog.testing.capture_logs() as logs:
        document = realm.prescriber.prescribe(planted, person=PRESCRIBER).document
        realm.replicate()
        realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST)
        realm.pharmacy.patient(planted.patient, person=PHARMACIST, purpose="dispensing")
        while realm.pharmacy.inquiry.settle():
            pass
        bundle = io.BytesIO()
        node = realm.pharmacy.node
        export_bundle(
            realm.pharmacy.exchange,
            node.keys.signing,
            node.identity.certificates,
            bundle,
            now_ms=node.now_ms(),
        )
        errors = []
        for bad in (NUMBER[:-1] + "9", NAME, "19610118280"):
            wrong = type(planted.patient)(name=NAME, identifier=Coded(planted.patient.identifier.system, bad))
            with pytest.raises(InvalidInput) as caught:
                realm.pharmacy.patient(wrong, person=PHARMACIST, purpose="dispensing")
            errors.append(str(caught.value))
    secrets = [
        NUMBER.encode(), planted.patient.name.encode(), planted.patient.identifier.code.encode(),
        node.keys.signing.private_bytes_raw(), node.keys.wrapping.private_bytes_raw(),
        *(key for _, key in node.keyring.epochs(DISTRICT)), node.keyring.index_key(DISTRICT),
    ]  # fmt: skip
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent.name != "unlock":
            content = path.read_bytes()
            assert not [s for s in secrets if s in content], f"found in {path.name}"
        assert NUMBER not in path.name
    assert not [s for s in secrets if s in bundle.getvalue()]
    told = (repr(logs) + repr(errors) + repr(node.keyring) + repr(node.keys)).encode()
    assert not [s for s in secrets if s in told or s.hex().encode() in told]
    assert len(logs) >= 2


def test_a_relay_verifies_stores_and_passes_on_everything_and_reads_nothing(realm: SmallRealm) -> None:
    """R12: between two nodes that never meet stands one without keys."""
    document = busy(realm)
    relay = realm.enrol("relay", NodeRole.RELAY)
    far = realm.enrol("far", NodeRole.PHARMACY)
    synchronise(relay.exchange, realm.pharmacy.exchange)
    synchronise(relay.exchange, realm.prescriber.exchange)
    synchronise(far.exchange, relay.exchange)
    realm.replicate()
    synchronise(relay.exchange, realm.prescriber.exchange)
    synchronise(far.exchange, relay.exchange)
    assert sum(1 for _ in relay.inquiry.verify()) > 10
    state = relay.node.reader.state(document)  # type: ignore[arg-type]
    assert state is not None
    assert state.prescription.issued is None
    assert state.unread >= 3
    assert far.show(document).prescription.issued is not None  # type: ignore[arg-type]
    assert digests(far)[0] == relay.inquiry.frontier_digest([GOVERNANCE, DISTRICT])
    with pytest.raises(RxLedgerError):
        relay.prescribe(order(0, holder=None), person=PRESCRIBER)
    relay.close()
    far.close()


def test_a_bundle_is_taken_in_twice_and_in_any_order(realm: SmallRealm) -> None:
    document = busy(realm)
    bundles = []
    for ledger in (realm.prescriber, realm.pharmacy, realm.agency):
        bundle = io.BytesIO()
        node = ledger.node
        export_bundle(
            ledger.exchange, node.keys.signing, node.identity.certificates, bundle, now_ms=node.now_ms()
        )
        bundles.append(bundle)
    late = realm.enrol("late", NodeRole.PHARMACY)
    for bundle in [*bundles, *bundles[::-1]]:
        bundle.seek(0)
        import_bundle(late.exchange, bundle)
    realm.replicate()
    synchronise(late.exchange, realm.prescriber.exchange)
    assert digests(late) == digests(realm.prescriber)
    assert late.automerge(document) == realm.prescriber.automerge(document)  # type: ignore[arg-type]
    late.close()
