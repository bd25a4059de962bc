"""Retention: what governance retired long ago goes from the disk, nothing else does, and no node's state depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.world import DISTRICT, OFFICER, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger import Ledger, NodeRole, SeededEntropy, Supply
from ledger.enrolment import make_request, open_package
from ledger.history import Status
from ledger.identity import NodeKeys
from ledger.ids import DocumentId, document_month, month_number
from ledger.retention import KEPT_MONTHS, PAUSE_DAYS, drop_retired
from nodes.daemon.service import Service
from nodes.inprocess import synchronise

DAY_MS = 86_400_000


class SettableClock:
    def __init__(self) -> None:
        self.set(date(2020, 1, 15))

    def set(self, day: date) -> None:
        self.ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def realm(tmp_path: Path, clock: SettableClock) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path, clock=clock)
    yield made
    made.close()


def written(realm: SmallRealm, clock: SettableClock) -> dict[date, list[DocumentId]]:
    """Three prescriptions in each of four months, each dispensed once; everybody holds them."""
    made: dict[date, list[DocumentId]] = {}
    holder = realm.pharmacy.node.identity.node
    for day in (date(2020, 1, 15), date(2020, 2, 15), date(2020, 3, 15), date(2022, 12, 15)):
        clock.set(day)
        made[day] = [
            realm.prescriber.prescribe(order(n, holder=holder), person=PRESCRIBER).document for n in range(3)
        ]
        realm.replicate()
        for document in made[day]:
            realm.pharmacy.dispense(document, Supply(fill=1), person=PHARMACIST)
        realm.replicate()
    return made


def retire(realm: SmallRealm, day: date) -> None:
    realm.agency.stewardship.retire(month_number(day), person=OFFICER)
    realm.replicate()


def dropped_all(ledger: Ledger, limit: int = 64) -> int:
    total = 0
    while more := drop_retired(ledger.node, limit=limit):
        total += more
    return total


def has_content(ledger: Ledger, document: DocumentId) -> bool:
    found = {e.sealed is not None for e in ledger.node.store.entries_of(document)}
    assert len(found) == 1
    return found.pop()


def test_content_goes_after_the_pause_and_of_no_later_month(realm: SmallRealm, clock: SettableClock) -> None:
    made = written(realm, clock)
    clock.set(date(2023, 1, 10))
    retire(realm, date(2020, 3, 1))
    pharmacy, prescriber = realm.pharmacy, realm.prescriber
    digest = prescriber.inquiry.state_digest([DISTRICT])
    entries = len(list(pharmacy.inquiry.verify()))
    assert dropped_all(pharmacy) == 0, "the pause begins"
    clock.ms += PAUSE_DAYS * DAY_MS - 1
    assert dropped_all(pharmacy) == 0
    clock.ms += 1
    assert dropped_all(pharmacy) == 6
    for day, documents in made.items():
        assert {has_content(pharmacy, d) for d in documents} == {day >= date(2020, 3, 1)}
        assert all(has_content(prescriber, d) for d in documents)
    # The chains hold, and neither the set of entries nor any state tells who dropped what.
    assert len(list(pharmacy.inquiry.verify())) == entries
    assert list(pharmacy.inquiry.rebuild())
    assert pharmacy.inquiry.state_digest([DISTRICT]) == digest
    assert pharmacy.inquiry.frontier_digest([DISTRICT]) == prescriber.inquiry.frontier_digest([DISTRICT])
    assert {a.kind for a in pharmacy.anomalies()} == {a.kind for a in prescriber.anomalies()}
    # A peer brings nothing back, and whoever catches up from here gets every place.
    synchronise(pharmacy.exchange, prescriber.exchange)
    assert not any(has_content(pharmacy, d) for d in made[date(2020, 1, 15)])
    fresh = realm.enrol("fresh", NodeRole.PHARMACY)
    synchronise(fresh.exchange, pharmacy.exchange)
    assert fresh.inquiry.state_digest([DISTRICT]) == digest
    assert len(list(fresh.inquiry.verify())) == entries
    assert fresh.show(made[date(2020, 1, 15)][0]).prescription.status is Status.RETIRED
    assert fresh.show(made[date(2020, 3, 15)][0]).prescription.balance.dispensed > 0
    fresh.close()


def test_what_may_still_be_dispensed_stays_whatever_governance_says(
    realm: SmallRealm, clock: SettableClock
) -> None:
    made = written(realm, clock)
    retire(realm, date(2030, 1, 1))
    dropped_all(realm.pharmacy)
    clock.ms += 2 * PAUSE_DAYS * DAY_MS
    dropped_all(realm.pharmacy)
    now = month_number(datetime.fromtimestamp(clock.ms / 1000, UTC).date())
    for documents in made.values():
        for document in documents:
            assert has_content(realm.pharmacy, document) == (document_month(document) >= now - KEPT_MONTHS)
    assert has_content(realm.pharmacy, made[date(2022, 12, 15)][0])


def test_a_kill_between_two_slices_costs_nothing(
    realm: SmallRealm, clock: SettableClock, tmp_path: Path
) -> None:
    made = written(realm, clock)
    clock.set(date(2023, 1, 10))
    retire(realm, date(2020, 4, 1))
    dropped_all(realm.pharmacy)
    clock.ms += PAUSE_DAYS * DAY_MS
    dropped = []
    while more := drop_retired(realm.pharmacy.node, limit=2):
        dropped.append(more)
        realm.pharmacy.close()
        realm.pharmacy = Ledger.open(tmp_path / "pharmacy", realm.unlock, clock=clock)
    assert sum(dropped) == 9
    assert max(dropped) == 2
    assert not any(has_content(realm.pharmacy, d) for day in list(made)[:3] for d in made[day])
    assert list(realm.pharmacy.inquiry.verify())


def test_a_daemons_housekeeping_does_it_slice_by_slice(realm: SmallRealm, clock: SettableClock) -> None:
    made = written(realm, clock)
    clock.set(date(2023, 1, 10))
    retire(realm, date(2020, 4, 1))
    daemon = SimpleNamespace(_ledger=realm.pharmacy)
    Service._keep(daemon)  # type: ignore[arg-type]
    clock.ms += PAUSE_DAYS * DAY_MS
    Service._keep(daemon)  # type: ignore[arg-type]
    gone = [d for day, documents in made.items() if day < date(2020, 4, 1) for d in documents]
    assert not any(has_content(realm.pharmacy, document) for document in gone)
    assert list(realm.pharmacy.inquiry.verify())


def test_what_comes_late_of_a_retired_month_goes_with_a_later_pass(
    realm: SmallRealm, clock: SettableClock
) -> None:
    clock.set(date(2020, 1, 15))
    late = realm.prescriber.prescribe(order(0, holder=None), person=PRESCRIBER).document
    clock.set(date(2023, 1, 10))
    realm.agency.stewardship.retire(month_number(date(2020, 3, 1)), person=OFFICER)
    synchronise(realm.agency.exchange, realm.pharmacy.exchange)
    dropped_all(realm.pharmacy)
    clock.ms += PAUSE_DAYS * DAY_MS
    assert dropped_all(realm.pharmacy) == 0
    realm.replicate()
    assert has_content(realm.pharmacy, late)
    assert dropped_all(realm.pharmacy) == 0, "not before the next day"
    clock.ms += DAY_MS
    assert dropped_all(realm.pharmacy) == 1
    assert not has_content(realm.pharmacy, late)


def test_retention_that_moves_on_every_month_is_followed_and_a_clock_set_back_ends_nothing(
    realm: SmallRealm, clock: SettableClock
) -> None:
    made = written(realm, clock)
    clock.set(date(2023, 1, 10))
    retire(realm, date(2020, 2, 1))
    dropped_all(realm.pharmacy)
    clock.ms += 20 * DAY_MS
    retire(realm, date(2020, 3, 1))
    dropped_all(realm.pharmacy)
    clock.ms += 10 * DAY_MS
    assert dropped_all(realm.pharmacy) == 3, "the first month's pause was not begun anew"
    clock.ms -= 5 * DAY_MS
    assert dropped_all(realm.pharmacy) == 0
    clock.ms += PAUSE_DAYS * DAY_MS
    assert dropped_all(realm.pharmacy) == 3
    assert not has_content(realm.pharmacy, made[date(2020, 2, 15)][0])


def test_what_a_thief_retired_is_still_there_when_he_is_revoked(
    realm: SmallRealm, clock: SettableClock
) -> None:
    made = written(realm, clock)
    clock.set(date(2023, 1, 10))
    keys = NodeKeys.generate(SeededEntropy(9))
    request = make_request(keys, NodeRole.AGENCY, "", "second agency")
    package = realm.agency.stewardship.admit(request, person=OFFICER, issuer=realm.founded.issuer)
    second = Ledger.create(
        realm.directory / "second", open_package(package, keys), keys, realm.unlock, clock=clock
    )
    synchronise(second.exchange, realm.agency.exchange)
    second.stewardship.retire(month_number(date(2020, 4, 1)), person=OFFICER)
    synchronise(second.exchange, realm.pharmacy.exchange)
    dropped_all(realm.pharmacy)
    clock.ms += (PAUSE_DAYS - 1) * DAY_MS
    assert dropped_all(realm.pharmacy) == 0
    realm.agency.stewardship.revoke(second.node.identity.node, person=OFFICER, reason="stolen", good=[])
    realm.replicate()
    clock.ms += 90 * DAY_MS
    assert dropped_all(realm.pharmacy) == 0
    assert all(has_content(realm.pharmacy, d) for documents in made.values() for d in documents)
    second.close()
