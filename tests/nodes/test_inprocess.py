"""The link that tests and simulations make bad: repeatable, and as bad as asked for."""

from __future__ import annotations

import pytest

from nodes.inprocess import BadLink

MESSAGES = [b"%d" % n for n in range(500)]


def through(link: BadLink) -> list[bytes]:
    return [out for message in MESSAGES for out in link(message)]


def test_a_link_with_no_faults_delivers_everything_in_order() -> None:
    link = BadLink(1)
    assert through(link) == MESSAGES
    assert link.delivered == len(MESSAGES)


def test_the_same_seed_gives_the_same_faults_and_another_gives_others() -> None:
    faults = {"drop": 0.3, "duplicate": 0.3, "reorder": 0.3}
    assert through(BadLink(1, **faults)) == through(BadLink(1, **faults)) != through(BadLink(2, **faults))


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 500, 500), (0.3, 300, 400), (1.0, 0, 0)])
def test_messages_are_lost_at_the_rate_asked_for(rate: float, least: int, most: int) -> None:
    assert least <= len(through(BadLink(1, drop=rate))) <= most


def test_repeated_messages_come_twice() -> None:
    assert through(BadLink(1, duplicate=1.0)) == [m for m in MESSAGES for _ in range(2)]


def test_late_messages_are_overtaken_and_most_still_come() -> None:
    out = through(BadLink(1, reorder=0.3))
    assert out != sorted(out, key=int)
    assert len(set(out)) == len(out) >= 490


def test_a_cut_link_delivers_nothing_more() -> None:
    assert through(BadLink(1, cut_after=7)) == MESSAGES[:7]
