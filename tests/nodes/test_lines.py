"""What waits for a link: the urgent first, at its pace, never more than so much, and nothing once it is down (R15)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import lines
from nodes.flow import Pace
from nodes.lines import Lines, LinkSettings

BITS = 8_000
"""A byte a millisecond."""


def two(bits: int | None = None) -> Lines:
    made = Lines([LinkSettings(name="hub"), LinkSettings(name="radio", bits_per_second=bits, thin=True)])
    made.up("hub")
    made.up("radio")
    return made


def test_links_come_up_once_and_keep_their_order() -> None:
    made = Lines([LinkSettings(name="hub"), LinkSettings(name="radio")])
    assert made.names() == []
    assert made.up("radio")
    assert not made.up("radio")
    assert made.up("hub")
    assert made.names() == ["hub", "radio"]
    made.down("hub")
    assert made.names() == ["radio"]


def test_a_link_that_does_not_exist_is_neither_up_nor_thin() -> None:
    made = two()
    assert not made.is_up("")
    assert not made.is_thin("")
    assert made.is_thin("radio")
    assert not made.is_thin("hub")


def test_what_is_urgent_goes_first_each_link_by_itself() -> None:
    made = two()
    for name in ("hub", "radio"):
        made.post(name, "s", b"later", urgent=False)
        made.post(name, "s", b"now", urgent=True)
    assert [(out.link, out.payload) for out in made.take(0)] == [
        ("hub", b"now"), ("hub", b"later"), ("radio", b"now"), ("radio", b"later"),
    ]  # fmt: skip
    assert list(made.take(0)) == []


def test_for_a_link_that_is_down_nothing_waits() -> None:
    made = two()
    made.post("radio", "s", b"x", urgent=True)
    made.post("radio", "s", b"x", urgent=False)
    made.down("radio")
    made.post("radio", "s", b"x", urgent=True)
    made.up("radio")
    assert list(made.take(0)) == []


@pytest.mark.parametrize("urgent", [True, False])
def test_no_more_waits_than_so_many(monkeypatch: pytest.MonkeyPatch, urgent: bool) -> None:
    monkeypatch.setattr(lines, "QUEUE_MAX", 3)
    made = two()
    for n in range(5):
        made.post("hub", "s", bytes([n]), urgent=urgent)
    assert [out.payload for out in made.take(0)] == [b"\0", b"\1", b"\2"]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 2_000), st.booleans()), max_size=60))
def test_the_pace_holds_for_what_is_not_urgent_and_what_is_leaves_a_debt(
    turns: list[tuple[int, int, bool]],
) -> None:
    made, now, sent, held = two(BITS), 0, 0, 0
    for later, size, urgent in turns:
        now += later
        made.post("radio", "s", bytes(size), urgent=urgent)
        out = list(made.take(now))
        assert not urgent or any(o.urgent and len(o.payload) == size for o in out)
        for each in out:
            if not each.urgent:
                # Whatever went before it, urgent or not, counts.
                assert sent <= now + Pace.BURST_MS
            sent += len(each.payload)
        held += 1
    assert held == len(turns)


def test_it_is_said_how_long_until_something_may_go() -> None:
    made = two(BITS)
    assert made.wait_ms() is None
    made.post("radio", "s", bytes(3_000), urgent=True)
    assert len(list(made.take(0))) == 1
    made.post("radio", "s", b"x", urgent=False)
    wait = made.wait_ms()
    assert wait is not None
    assert 1_000 <= wait <= 1_002
    assert not made.ready("radio", wait - 2)
    assert list(made.take(wait - 2)) == []
    assert [out.payload for out in made.take(wait + 1)] == [b"x"]


def test_a_link_that_comes_back_begins_without_debts() -> None:
    made = two(BITS)
    made.spent("radio", 100_000)
    assert not made.ready("radio", 0)
    made.down("radio")
    made.up("radio")
    assert made.ready("radio", 0)
