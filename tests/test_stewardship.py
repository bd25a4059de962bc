"""Revocation and key epochs reach whom they must, and nothing of them is half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, OFFICER, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import Ledger, NodeRole, NotPermitted, Supply
from ledger.writing import Written
from nodes.claims import answer_claim, make_claim
from nodes.inprocess import synchronise


class FailingClock:
    """A clock that can be made to fail, as a disk or a process would, in the middle of an act."""

    def __init__(self) -> None:
        self.ms, self.fails = 1_795_500_000_000, False
        self.fails_after: int | None = None
        """So many more times that it is asked."""

    def now_ms(self) -> int:
        self.ms += 1
        if self.fails_after is not None:
            self.fails_after -= 1
            if self.fails_after < 0:
                raise OSError("the machine stopped here")
        if self.fails:
            raise OSError("the machine stopped here")
        return self.ms


@pytest.fixture
def clock() -> FailingClock:
    return FailingClock()


@pytest.fixture
def realm(tmp_path: Path, clock: FailingClock) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path, clock=clock)
    yield made
    clock.fails = False
    made.close()


def test_a_revoked_claimant_gets_no_custody(realm: SmallRealm) -> None:
    thief = realm.enrol("thief", NodeRole.PHARMACY)
    holder = realm.pharmacy
    document = realm.prescriber.prescribe(
        order(0, holder=holder.node.identity.node), person=PRESCRIBER
    ).document
    realm.replicate()
    synchronise(thief.exchange, realm.prescriber.exchange)
    claim = make_claim(thief, document, (1,), DISTRICT, bytes(16))
    realm.agency.stewardship.revoke(thief.node.identity.node, person=OFFICER, reason="stolen")
    realm.replicate()
    with pytest.raises(NotPermitted) as refused:
        answer_claim(holder, claim, person=PHARMACIST)
    assert refused.value.reasons == ("revoked",)
    assert holder.show(document).prescription.fills[0].holder == holder.node.own_feed(DISTRICT)
    thief.close()


def test_revoking_a_node_that_was_never_heard_starts_an_epoch_in_its_district(realm: SmallRealm) -> None:
    silent = realm.enrol("silent", NodeRole.PHARMACY, "SE-C-0380")
    before = realm.agency.node.keyring.newest_epoch("SE-C-0380")
    realm.agency.stewardship.revoke(silent.node.identity.node, person=OFFICER, reason="stolen")
    assert realm.agency.node.keyring.newest_epoch("SE-C-0380") == before + 1
    synchronise(silent.exchange, realm.agency.exchange)
    assert silent.stewardship.take_epochs() == 0
    silent.close()


def test_a_new_epoch_reaches_a_node_that_was_enrolled_but_not_yet_heard(realm: SmallRealm) -> None:
    late = realm.enrol("late", NodeRole.PHARMACY)
    epoch = realm.agency.node.keyring.newest_epoch(DISTRICT) + 1
    realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    realm.replicate()
    for ledger in (realm.prescriber, realm.pharmacy):
        ledger.stewardship.take_epochs()
    document = realm.prescriber.prescribe(order(0, holder=None), person=PRESCRIBER).document
    synchronise(late.exchange, realm.agency.exchange)
    synchronise(late.exchange, realm.prescriber.exchange)
    assert late.stewardship.take_epochs() == 1
    assert late.node.keyring.newest_epoch(DISTRICT) == epoch
    assert late.show(document).prescription.issued is not None
    late.close()


def test_an_epoch_that_could_not_be_announced_is_not_sealed_in(
    realm: SmallRealm, clock: FailingClock, tmp_path: Path
) -> None:
    epoch = realm.agency.node.keyring.newest_epoch(DISTRICT)
    clock.fails = True
    with pytest.raises(OSError, match="stopped here"):
        realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    clock.fails = False
    assert realm.agency.node.keyring.newest_epoch(DISTRICT) == epoch
    realm.agency.close()
    realm.agency = Ledger.open(tmp_path / "realm" / "agency", realm.unlock, clock=clock)
    assert realm.agency.node.keyring.newest_epoch(DISTRICT) == epoch


def test_a_revocation_without_its_new_keys_is_not_made(realm: SmallRealm, clock: FailingClock) -> None:
    """All or nothing, on disk and in memory, wherever it stops: a key that nobody else has seals nothing."""
    thief = realm.enrol("thief", NodeRole.PHARMACY)
    target, agency = thief.node.identity.node, realm.agency
    for stops_after in range(20):
        clock.fails_after = stops_after
        try:
            agency.stewardship.revoke(target, person=OFFICER, reason="stolen", command=bytes(16))
        except OSError:
            clock.fails_after = None
            assert agency.node.keyring.newest_epoch(DISTRICT) == 1
            assert agency.node.reader.governance().revocation(target) is None
            continue
        clock.fails_after = None
        break
    assert stops_after >= 2
    assert agency.node.keyring.newest_epoch(DISTRICT) == agency.node.reader.governance().epoch(DISTRICT) == 2
    assert agency.node.reader.governance().revocation(target) is not None
    thief.close()


def test_what_is_announced_is_durable(realm: SmallRealm, tmp_path: Path) -> None:
    """R1: another process sees an entry at the moment it is announced, also one of several in a transaction."""
    announced: list[bool] = []

    def told(district: str, written: Written) -> None:
        with Ledger.open(tmp_path / "realm" / "agency", realm.unlock, writable=False) as reader:
            announced.append(reader.node.store.by_link(written.link) is not None)

    realm.agency.node.on_written.append(told)
    realm.agency.stewardship.start_epoch(DISTRICT, person=OFFICER)
    realm.agency.stewardship.revoke(realm.pharmacy.node.identity.node, person=OFFICER, reason="stolen")
    assert announced == [True] * 3


def test_what_a_revoked_authority_admits_afterwards_has_no_authority(realm: SmallRealm) -> None:
    """Its supplies count as facts all the same (R9)."""
    authority = realm.enrol("authority", NodeRole.AUTHORITY)
    realm.replicate()
    synchronise(authority.exchange, realm.agency.exchange)
    realm.agency.stewardship.revoke(
        authority.node.identity.node, person=OFFICER, reason="stolen", new_epoch=False
    )
    from ledger import SeededEntropy
    from ledger.enrolment import make_request, open_package
    from ledger.identity import NodeKeys

    keys = NodeKeys.generate(SeededEntropy(4))
    package = authority.stewardship.admit(
        make_request(keys, NodeRole.PHARMACY, DISTRICT, "false"), person=OFFICER
    )
    false = Ledger.create(
        realm.directory / "false", open_package(package, keys), keys, realm.unlock, clock=realm.founded.clock
    )
    synchronise(false.exchange, realm.prescriber.exchange)
    document = realm.prescriber.prescribe(
        order(0, holder=false.node.identity.node), person=PRESCRIBER
    ).document
    synchronise(false.exchange, realm.prescriber.exchange)
    false.dispense(document, Supply(fill=1), person=PHARMACIST)
    synchronise(false.exchange, realm.prescriber.exchange)
    synchronise(realm.agency.exchange, realm.prescriber.exchange)
    state = realm.prescriber.show(document).prescription
    assert state.balance.dispensed > 0
    assert any(a.kind == "supplied_without_authority" for a in state.anomalies)
    false.close()
    authority.close()
