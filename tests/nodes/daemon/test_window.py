"""The nightly window: once a night, whatever clocks, sleep and restarts do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import NodeId
from nodes.daemon.config import NightlyConfig
from nodes.daemon.window import (
    NIGHTS_KEPT,
    ByteBudget,
    Opening,
    WindowMemory,
    WindowState,
    current,
    following,
    in_turn,
    zone_of,
)

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HALF_PAST_TWO = NightlyConfig(start="02:30", duration_minutes=120)
NO_CATCH_UP = NightlyConfig(start="02:30", duration_minutes=120, catch_up=False)
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def at(text: str, fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=STOCKHOLM, fold=fold)
    return int(local.timestamp() * 1000)


def utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%m-%d %H:%M")


def ran(*nights: str) -> WindowState:
    return WindowState(nights=tuple(date.fromisoformat(n) for n in nights))


def test_it_opens_at_its_time_and_closes_after_its_length() -> None:
    before = ran("2026-01-10")
    assert current(HALF_PAST_TWO, before, at("2026-01-11T02:29:59"), STOCKHOLM) is None
    opening = current(HALF_PAST_TWO, before, at("2026-01-11T02:30"), STOCKHOLM)
    assert opening == Opening(
        night=date(2026, 1, 11), opens_ms=at("2026-01-11T02:30"), closes_ms=at("2026-01-11T04:30")
    )
    assert current(NO_CATCH_UP, before, at("2026-01-11T04:29:59"), STOCKHOLM) == opening
    assert current(NO_CATCH_UP, before, at("2026-01-11T04:30"), STOCKHOLM) is None
    assert following(HALF_PAST_TWO, before, at("2026-01-10T12:00"), STOCKHOLM) == at("2026-01-11T02:30")


def test_no_night_runs_twice() -> None:
    done = (
        ran().begun(Opening(night=date(2026, 1, 11), opens_ms=0, closes_ms=1), at("2026-01-11T02:30")).ended()
    )
    for hour in ("02:31", "04:00", "12:00", "23:59"):
        assert current(HALF_PAST_TWO, done, at(f"2026-01-11T{hour}"), STOCKHOLM) is None
        assert following(HALF_PAST_TWO, done, at(f"2026-01-11T{hour}"), STOCKHOLM) == at("2026-01-12T02:30")


def test_a_night_run_again_on_demand_is_remembered_once() -> None:
    opening = Opening(night=date(2026, 1, 11), opens_ms=0, closes_ms=1)
    state = ran("2026-01-10", "2026-01-11", "2026-01-12").begun(opening, 5)
    assert state.nights == (date(2026, 1, 10), date(2026, 1, 12), date(2026, 1, 11))


# --- clocks ---------------------------------------------------------------------------------------------------------


def test_a_start_that_does_not_exist_moves_on_by_the_change() -> None:
    """29 March 2026: 02:00 is followed by 03:00."""
    before = ran("2026-03-28")
    assert (
        utc(following(HALF_PAST_TWO, before, at("2026-03-28T12:00"), STOCKHOLM)) == "03-29 01:30"
    )  # 03:30 there.
    opening = current(HALF_PAST_TWO, before, at("2026-03-29T03:30"), STOCKHOLM)
    assert opening is not None
    assert opening.closes_ms - opening.opens_ms == 120 * MINUTE_MS
    assert current(HALF_PAST_TWO, before, at("2026-03-29T03:29"), STOCKHOLM) is None


def test_a_start_that_exists_twice_is_the_first_and_runs_once() -> None:
    """25 October 2026: 03:00 is followed by 02:00."""
    before = ran("2026-10-24")
    first, second = at("2026-10-25T02:30"), at("2026-10-25T02:30", fold=1)
    assert second - first == HOUR_MS
    assert following(HALF_PAST_TWO, before, at("2026-10-24T12:00"), STOCKHOLM) == first
    opening = current(HALF_PAST_TWO, before, first, STOCKHOLM)
    assert opening is not None
    assert opening.closes_ms == first + 120 * MINUTE_MS
    done = before.begun(opening, first).ended()
    assert current(HALF_PAST_TWO, done, second, STOCKHOLM) is None
    assert following(HALF_PAST_TWO, done, second, STOCKHOLM) == at("2026-10-26T02:30")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    late = NightlyConfig(start="23:00", duration_minutes=180)
    opening = current(late, ran("2026-01-10"), at("2026-01-12T01:00"), STOCKHOLM)
    assert opening is not None
    assert opening.night == date(2026, 1, 11)
    done = ran("2026-01-10").begun(opening, at("2026-01-12T01:00")).ended()
    assert following(late, done, at("2026-01-12T01:30"), STOCKHOLM) == at("2026-01-12T23:00")


def test_a_clock_set_back_brings_no_second_run() -> None:
    done = ran("2026-01-10", "2026-01-11", "2026-01-12")
    for back in ("2026-01-12T02:00", "2026-01-12T02:31", "2026-01-11T03:00", "2026-01-10T02:30"):
        assert current(HALF_PAST_TWO, done, at(back), STOCKHOLM) is None
        assert following(HALF_PAST_TWO, done, at(back), STOCKHOLM) == at("2026-01-13T02:30")
    # Not even of a night in between that had not run.
    assert current(HALF_PAST_TWO, ran("2026-01-10", "2026-01-12"), at("2026-01-11T02:31"), STOCKHOLM) is None


def test_a_clock_that_had_been_wrong_by_years_stops_no_run() -> None:
    wrong = ran("2026-01-10", "2040-05-05")
    opening = current(HALF_PAST_TWO, wrong, at("2026-01-11T02:31"), STOCKHOLM)
    assert opening is not None
    done = wrong.begun(opening, at("2026-01-11T02:31")).ended()
    assert current(HALF_PAST_TWO, done, at("2026-01-11T03:00"), STOCKHOLM) is None
    assert following(HALF_PAST_TWO, done, at("2026-01-11T03:00"), STOCKHOLM) == at("2026-01-12T02:30")


# --- sleep and restarts ---------------------------------------------------------------------------------------------


def test_a_machine_asleep_over_the_start_runs_in_what_is_left() -> None:
    opening = current(NO_CATCH_UP, ran("2026-01-10"), at("2026-01-11T04:00"), STOCKHOLM)
    assert opening is not None
    assert opening.closes_ms == at("2026-01-11T04:30")


def test_a_machine_off_all_night_catches_up_for_as_long_as_a_window_lasts() -> None:
    opening = current(HALF_PAST_TWO, ran("2026-01-10"), at("2026-01-11T08:00"), STOCKHOLM)
    assert opening is not None
    assert (opening.night, opening.closes_ms) == (date(2026, 1, 11), at("2026-01-11T10:00"))
    # Never into the next night's own window.
    opening = current(HALF_PAST_TWO, ran("2026-01-10"), at("2026-01-12T01:30"), STOCKHOLM)
    assert opening is not None
    assert (opening.night, opening.closes_ms) == (date(2026, 1, 11), at("2026-01-12T02:30"))
    assert current(NO_CATCH_UP, ran("2026-01-10"), at("2026-01-11T08:00"), STOCKHOLM) is None


def test_a_new_node_has_missed_no_night() -> None:
    assert current(HALF_PAST_TWO, WindowState(), at("2026-01-11T12:00"), STOCKHOLM) is None
    assert following(HALF_PAST_TWO, WindowState(), at("2026-01-11T12:00"), STOCKHOLM) == at(
        "2026-01-12T02:30"
    )


def test_a_run_that_was_cut_off_goes_on_with_what_it_had_left() -> None:
    opening = current(HALF_PAST_TWO, ran("2026-01-10"), at("2026-01-11T02:40"), STOCKHOLM)
    assert opening is not None
    state = ran("2026-01-10").begun(opening, at("2026-01-11T02:40")).progressed(700, [NodeId(b"\1" * 16)])
    resumed = current(HALF_PAST_TWO, state, at("2026-01-11T04:00"), STOCKHOLM)
    assert resumed is not None
    assert (resumed.resumed, resumed.spent_bytes, resumed.night) == (True, 700, date(2026, 1, 11))
    assert state.begun(resumed, at("2026-01-11T04:00")) == state
    # From when it began, not from when it goes on; and not at all once that has passed.
    assert resumed.closes_ms == at("2026-01-11T04:40")
    assert current(HALF_PAST_TWO, state, at("2026-01-11T04:40"), STOCKHOLM) is None
    assert following(HALF_PAST_TWO, state, at("2026-01-11T04:00"), STOCKHOLM) == at("2026-01-12T02:30")
    tomorrow = current(HALF_PAST_TWO, state, at("2026-01-12T02:30"), STOCKHOLM)
    assert tomorrow is not None
    assert not tomorrow.resumed
    assert state.begun(tomorrow, at("2026-01-12T02:30")).spent_bytes == 0


@given(
    st.lists(
        st.one_of(
            st.integers(0, 36 * 60).map(lambda m: ("on", m)),
            st.integers(1, 3 * 24 * 60).map(lambda m: ("back", m)),
            st.sampled_from([("restart", 0), ("end", 0)]),
        ),
        max_size=60,
    ),
    st.integers(0, 365),
)
def test_through_any_clock_and_any_restart_no_night_runs_twice(
    steps: list[tuple[str, int]], day: int
) -> None:
    """Steps of minutes forward and back, restarts and ends, over both changes of the clocks."""
    now = at("2026-01-01T12:00") + day * DAY_MS
    state = WindowState()
    begun: list[date] = []
    for what, minutes in steps:
        now += minutes * MINUTE_MS if what == "on" else -minutes * MINUTE_MS if what == "back" else 0
        if what == "restart":
            state = msgspec.json.decode(msgspec.json.encode(state), type=WindowState)
        if what == "end":
            state = state.ended()
        opening = current(HALF_PAST_TWO, state, now, STOCKHOLM)
        following_ms = following(HALF_PAST_TWO, state, now, STOCKHOLM)
        assert following_ms >= now
        if opening is not None:
            assert opening.closes_ms > now
            if not opening.resumed:
                assert opening.night not in begun[-NIGHTS_KEPT:]
                begun.append(opening.night)
            state = state.begun(opening, now)
    assert len(state.nights) <= NIGHTS_KEPT


def test_every_night_of_two_years_has_one_run_of_full_length() -> None:
    state, now, nights = WindowState(), at("2026-01-01T12:00"), []
    for _ in range(731):
        now = following(HALF_PAST_TWO, state, now, STOCKHOLM)
        opening = current(HALF_PAST_TWO, state, now, STOCKHOLM)
        assert opening is not None
        assert opening.closes_ms - now == 120 * MINUTE_MS
        nights.append(opening.night)
        state = state.begun(opening, now).ended()
    assert nights == [date(2026, 1, 2) + timedelta(days=n) for n in range(731)]


# --- memory, order, budget ----------------------------------------------------------------------------------------------


def test_what_ran_is_remembered_on_disk(tmp_path: Path) -> None:
    memory = WindowMemory(tmp_path)
    opening = Opening(night=date(2026, 1, 11), opens_ms=0, closes_ms=9)
    memory.keep(memory.state.begun(opening, 5).progressed(17, [NodeId(b"\2" * 16)]))
    assert WindowMemory(tmp_path).state == memory.state
    assert [p.name for p in tmp_path.iterdir()] == ["window.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"nights":["2026-13-01"]}', b'{"spent_bytes":"x"}', b"\xff", b"x" * 2_000_000],
)
def test_a_damaged_memory_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "window.json").write_bytes(content)
    assert WindowMemory(tmp_path).state == WindowState()


def test_peers_left_over_come_first_then_those_silent_longest() -> None:
    a, b, c, d = (NodeId(bytes([n]) * 16) for n in range(4))
    state = WindowState().progressed(0, [d, b])
    assert in_turn(state, {a: 50, b: 90, c: 0, d: 99}) == [d, b, c, a]
    assert in_turn(WindowState(), {a: 50, b: 50}) == [a, b]


def test_a_budget_is_shared_and_never_negative() -> None:
    budget = ByteBudget(1000, spent_bytes=100)
    assert budget.share(3) == 300
    assert budget.spend(500) == 400
    assert budget.share(2) == 200
    assert budget.spend(5000) == 0
    assert budget.share(1) == 0
    assert budget.spent_bytes == 5600
    with pytest.raises(ValueError, match="come back"):
        budget.spend(-1)


def test_the_zone_is_the_one_named_or_the_machines() -> None:
    assert zone_of(NightlyConfig(start="02:30", time_zone="Europe/Stockholm")) == STOCKHOLM
    assert zone_of(HALF_PAST_TWO) is not None
