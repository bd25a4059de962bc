"""The level rises by itself, at policy's hours or a site's later ones, never at a site's earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import Level, Policy, UnlockFile
from ledger.policy import HOUR_MS
from nodes.daemon.config import ReadinessConfig
from nodes.daemon.readiness import SiteLedger, readiness, readiness_of
from tests.nodes.local.site_for_tests import DISTRICT, DOCTOR, Site, order

POLICY = Policy()
NOTHING = ReadinessConfig()


class LaterClock:
    """The machine's time, so much later."""

    def __init__(self, ms: int) -> None:
        from ledger import SystemClock

        self.ms, self._clock = ms, SystemClock()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ms


@pytest.mark.parametrize(
    ("hours", "level", "following", "in_hours"),
    [
        (0, Level.NORMAL, Level.STRAINED, 1),
        (0.99, Level.NORMAL, Level.STRAINED, 0.01),
        (1, Level.STRAINED, Level.CRISIS, 23),
        (24, Level.CRISIS, Level.MINIMUM, 144),
        (168, Level.MINIMUM, None, 0),
    ],
)
def test_it_rises_at_policys_hours(
    hours: float, level: Level, following: Level | None, in_hours: float
) -> None:
    found = readiness(Level.NORMAL, int(hours * HOUR_MS), POLICY, NOTHING)
    assert (found.level, found.next_level) == (level, following)
    assert found.next_in_ms == pytest.approx(in_hours * HOUR_MS, abs=1000)
    assert found.by_itself == (level is not Level.NORMAL)


def test_what_was_declared_stands_until_silence_is_worse() -> None:
    found = readiness(Level.CRISIS, 2 * HOUR_MS, POLICY, NOTHING)
    assert (found.level, found.by_itself, found.next_level) == (Level.CRISIS, False, Level.MINIMUM)


def test_a_site_may_wait_longer_and_not_rise_sooner() -> None:
    later = ReadinessConfig(strained_after_hours=30, crisis_after_hours=48)
    assert readiness(Level.NORMAL, 25 * HOUR_MS, POLICY, later).level is Level.NORMAL
    assert readiness(Level.NORMAL, 30 * HOUR_MS, POLICY, later).level is Level.STRAINED
    sooner = ReadinessConfig(crisis_after_hours=1)
    found = readiness(Level.NORMAL, 2 * HOUR_MS, POLICY, sooner)
    assert found.level is Level.STRAINED
    assert found.not_obeyed == ("readiness.crisis_after_hours",)


def test_levels_that_would_be_skipped_are_not_promised() -> None:
    """All at one hour: what comes next is the worst."""
    policy = Policy(strained_after_hours=5, crisis_after_hours=5, minimum_after_hours=5)
    found = readiness(Level.NORMAL, 0, policy, NOTHING)
    assert (found.next_level, found.next_in_ms) == (Level.MINIMUM, 5 * HOUR_MS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_the_guard_and_every_event_go_by_the_sites_level(site: Site) -> None:
    unlock: UnlockFile = site.unlock
    directory: Path = site.node("clinic")
    clock = LaterClock(26 * HOUR_MS)
    with SiteLedger.open(directory, unlock, clock=clock) as ledger:
        assert ledger.level(DISTRICT) is Level.CRISIS
        assert readiness_of(ledger, NOTHING).by_itself
        ledger.at(ReadinessConfig(crisis_after_hours=48))
        assert ledger.level(DISTRICT) is Level.STRAINED
        document = ledger.prescribe(order(), person=DOCTOR).document
        issued = ledger.show(document).prescription.issued
        assert issued is not None
        assert issued.level is Level.STRAINED
