"""What may be under way: never too much, never nothing, enough to fill any link, and little that waits in a queue (R15)."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Struct

from nodes.flow import DELAY_MS, MESSAGES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, Pace, Window
from nodes.sending import PART_BYTES

PIECE_MIN = WINDOW_BYTES_MIN // 2


class WindowMachine(RuleBasedStateMachine):
    """Any messages, answered in any order, late, twice, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(200_000)
        self.now = self.number = 0
        self.under_way: dict[int, int] = {}

    @precondition(lambda self: self.window.room() > 0)
    @rule(share=st.floats(0.1, 1.0))
    def send(self, share: float) -> None:
        self.number += 1
        size = max(1, int(self.window.room() * share))
        self.under_way[self.number] = size
        self.window.sent(self.number, size, self.now)

    @rule(number=st.integers(0, 1 << 32), ms=st.integers(-1_000, 100_000))
    def answer(self, number: int, ms: int) -> None:
        self.now += ms
        number = min(number, self.number + 1)
        self.under_way = {n: size for n, size in self.under_way.items() if n > number}
        self.window.answered(number, self.now)

    @invariant()
    def never_more_than_the_ceiling(self) -> None:
        assert sum(self.under_way.values()) <= self.window.ceiling
        assert WINDOW_BYTES_MIN <= self.window.size <= self.window.ceiling
        assert len(self.under_way) <= MESSAGES_MAX

    @invariant()
    def something_may_always_be_under_way(self) -> None:
        if not self.under_way:
            assert self.window.room() >= PIECE_MIN
        assert (self.window.oldest_ms() is None) == (not self.under_way)

    @invariant()
    def no_piece_is_a_crumb(self) -> None:
        room = self.window.room()
        assert room == 0 or room >= PIECE_MIN // 2


TestWindow = WindowMachine.TestCase


class Course(Struct):
    """What a link has seen."""

    filled: float
    """Share of what it could have carried, in the second half."""
    waited_ms: float
    """The longest that a message waited for others before it, in the second half."""
    most: int
    """Bytes under way at once."""


def run(
    window: Window,
    rate: float,
    there_and_back_ms: float,
    seed: int,
    *,
    least: float = 1.0,
    uneven_ms: float = 0.0,
    after: int = 0,
) -> Course:
    """Send without end over a link: `rate` bytes a millisecond, one queue, answers after `there_and_back_ms`.

    Messages are of `least` times the room to all of it; answers come up to `uneven_ms` later than they could.
    Numbers follow `after`; in the end all is answered.
    """
    random = Random(seed)
    # Long enough to grow from the smallest window, and for some hundred pieces.
    end = max(20 * there_and_back_ms * 4, 200 * PIECE_MIN / rate, 10 * window.size / rate, 4_000)
    now, free, number, under_way, most = 0, 0.0, after, 0, 0
    answers: list[tuple[float, int, int]] = []
    carried = waited = 0.0
    while now < end:
        while room := window.room():
            number += 1
            size = max(1, int(min(room, PART_BYTES) * random.uniform(least, 1.0)))
            window.sent(number, size, now)
            under_way += size
            most = max(most, under_way)
            begins = max(float(now), free)
            free = begins + size / rate
            if now > end / 2:
                waited = max(waited, begins - now)
            carried += max(0.0, min(free, end) - max(begins, end / 2)) * rate
            heapq.heappush(answers, (free + there_and_back_ms + random.uniform(0, uneven_ms), number, size))
        at, answered, size = heapq.heappop(answers)
        now, under_way = max(now, int(at) + 1), under_way - size
        window.answered(answered, now)
    while answers:
        at, answered, _ = heapq.heappop(answers)
        window.answered(answered, int(at) + 1)
    return Course(carried / (rate * end / 2), waited, most)


RATES = st.floats(0, 4).map(lambda power: 1.2 * 10**power)
"""Bytes a millisecond: 9,600 bit/s to a hundred megabit."""
DISTANCES = st.floats(0, 600)


def fits(rate: float, there_and_back_ms: float) -> bool:
    """Whether the ceiling allows as much as this link takes."""
    return 1.5 * rate * there_and_back_ms + DELAY_MS * rate <= WINDOW_BYTES_MAX


@given(RATES, DISTANCES, st.integers())
def test_a_link_of_any_rate_and_length_is_filled_to_four_fifths(rate: float, ms: float, seed: int) -> None:
    course = run(Window(), rate, ms, seed)
    if fits(rate, ms):
        assert course.filled >= 0.8
    else:  # As far as the ceiling reaches: it comes round once in the time of an answer.
        assert course.filled * rate * (ms + WINDOW_BYTES_MAX / rate) >= 0.5 * WINDOW_BYTES_MAX


@given(RATES, DISTANCES, st.integers())
def test_messages_of_any_size_and_uneven_answers_still_fill_most_of_it(
    rate: float, ms: float, seed: int
) -> None:
    course = run(Window(), rate, ms, seed, least=0.5, uneven_ms=ms / 10)
    if fits(rate, ms):
        assert course.filled >= 0.7


@given(RATES, DISTANCES, st.integers())
def test_little_waits_in_a_queue(rate: float, ms: float, seed: int) -> None:
    """Half as long as the quickest answer took, or the least that is no noise; and the pieces themselves."""
    course = run(Window(), rate, ms, seed, least=0.5)
    quickest = ms + PIECE_MIN / rate
    assert course.waited_ms <= max(DELAY_MS, quickest / 2) * 1.5 + WINDOW_BYTES_MIN / rate + 2


@given(RATES, DISTANCES, st.integers())
def test_on_a_thin_link_an_urgent_entry_waits_for_two_kilobytes_at_most(
    rate: float, ms: float, seed: int
) -> None:
    course = run(Window(WINDOW_BYTES_MIN), rate, ms, seed, least=0.5)
    assert course.most <= WINDOW_BYTES_MIN
    assert course.waited_ms <= WINDOW_BYTES_MIN / rate


def test_a_link_that_becomes_slow_is_given_less() -> None:
    window = Window()
    run(window, 1_000.0, 20, 1)
    before = window.size
    slow = run(window, 10.0, 20, 2, after=1 << 20)
    assert window.size < before / 5
    assert slow.waited_ms < 1_000


@pytest.mark.parametrize("number", [0, 5, 1 << 31])
def test_an_answer_to_what_was_never_sent_changes_nothing(number: int) -> None:
    window = Window()
    window.answered(number, 10)
    assert (window.size, window.last_ms, window.oldest_ms()) == (WINDOW_BYTES_MIN, None, None)


# --- pace -------------------------------------------------------------------------------------------------------------


@given(
    st.integers(300, 10_000_000),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 64 * 1024)), min_size=1, max_size=200),
)
def test_a_pace_is_kept_over_any_time(bits_per_second: int, turns: list[tuple[int, int]]) -> None:
    """Whatever is offered: at most the rate times the time, two seconds' worth beforehand, and the last message."""
    pace, now, sent, last = Pace(bits_per_second), 0, 0, 0
    for later, size in turns:
        now += later
        if pace.ready(now):
            pace.spent(size)
            sent, last = sent + size, size
        assert sent - last <= bits_per_second / 8000 * (now + Pace.BURST_MS) + 1


@given(st.integers(300, 10_000_000), st.integers(1, 64 * 1024))
def test_a_pace_says_how_long_to_wait(bits_per_second: int, size: int) -> None:
    pace, now = Pace(bits_per_second), 0
    assert pace.wait_ms() == 0
    while pace.ready(now):
        pace.spent(size)
    wait = pace.wait_ms()
    assert wait > 0
    if wait > 1:
        assert not pace.ready(now + wait - 2)
    assert pace.ready(now + wait)


def test_a_pace_without_a_rate_holds_nothing_back() -> None:
    pace = Pace(None)
    pace.spent(1 << 40)
    assert pace.ready(0)
    assert pace.wait_ms() == 0


def test_a_clock_that_steps_back_gains_nothing() -> None:
    pace = Pace(8_000)
    while pace.ready(1_000):
        pace.spent(1_000)
    assert not pace.ready(500)
