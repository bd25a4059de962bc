"""A night's counts are added up over the processes of one run, and over no others."""

from __future__ import annotations

from datetime import date
from itertools import count
from pathlib import Path

import pytest

from nodes.daemon.report import BackupResult, PeerTurn, ScrubResult, read_report
from nodes.daemon.tally import Tally
from nodes.daemon.window import Opening

NIGHT = date(2026, 11, 24)
A, B, C = (f"{n:032x}" for n in range(3))
NEW = Opening(night=NIGHT, opens_ms=0, closes_ms=9)
RESUMED = Opening(night=NIGHT, opens_ms=0, closes_ms=9, resumed=True, spent_bytes=11)


def turn(node: str, much: int, why: str = "", *, in_step: bool = True, link: str = "hub") -> PeerTurn:
    return PeerTurn(
        node=node, link=link, entries_in=much, entries_out=2 * much, bytes_in=3 * much, bytes_out=4 * much,
        in_step=in_step, why=why,
    )  # fmt: skip


def tally(directory: Path, opening: Opening, began_ms: int = 1000) -> Tally:
    ticks = count(began_ms)
    return Tally(directory, opening, 500, lambda: next(ticks))


def test_what_two_processes_counted_is_added_peer_by_peer(tmp_path: Path) -> None:
    one = tally(tmp_path, NEW)
    one.ends(turn(A, 1))
    one.ends(turn(B, 0, "it does not answer", in_step=False))
    one.goes_on(turn(C, 5, in_step=False))
    one.goes_on(turn(C, 7, in_step=False))  # The same turn, further on.
    one.keep(70, scrub=ScrubResult(checked_entries=3, complete=True))
    kept = read_report(tmp_path, NIGHT)
    assert kept is not None
    assert kept.peers == (turn(A, 1), turn(C, 7, "the run was cut off", in_step=False))
    assert kept.not_reached == ((B, "it does not answer"),)
    assert (kept.ended_ms, kept.whole) == (0, False)

    two = tally(tmp_path, RESUMED, 5000)
    assert two.spent_bytes == 70, (
        "what the report counted, where it was written later than the window's state"
    )
    assert two.scrub == ScrubResult(checked_entries=3, complete=True)
    two.ends(turn(C, 2, link=""))
    two.ends(turn(A, 0, "it does not answer", in_step=False))
    two.ends(turn(B, 4, "its time was over", in_step=False))
    assert [node.hex() for node in two.left_over()] == [B]
    report = two.keep(90, backup=BackupResult(verified=True), ended=True)
    assert report.peers == (turn(A, 1), turn(C, 9), turn(B, 4, "its time was over", in_step=False))
    assert (report.began_ms, report.resumed, report.spent_bytes) == (1000, True, 90)
    assert report.scrub == two.scrub
    assert report.not_reached == ()
    assert report == read_report(tmp_path, NIGHT)


def test_a_peer_that_the_cut_off_run_had_no_more_time_for_keeps_what_passed(tmp_path: Path) -> None:
    one = tally(tmp_path, NEW)
    one.goes_on(turn(C, 5, in_step=False))
    one.keep(35)
    two = tally(tmp_path, RESUMED)
    two.misses(C, "the window closed")
    report = two.keep(35, ended=True)
    assert report.peers == (turn(C, 5, "the window closed", in_step=False),)
    assert report.not_reached == ()
    assert [node.hex() for node in two.left_over()] == [C]


@pytest.mark.parametrize("opening", [NEW, RESUMED])
def test_a_run_that_had_ended_is_not_added_to(tmp_path: Path, opening: Opening) -> None:
    one = tally(tmp_path, NEW)
    one.ends(turn(A, 1))
    one.keep(70, ended=True)
    assert tally(tmp_path, opening).keep(0).peers == ()


def test_a_new_run_of_a_night_takes_nothing_from_one_that_was_cut_off(tmp_path: Path) -> None:
    tally(tmp_path, NEW).keep(70)
    assert tally(tmp_path, NEW).spent_bytes == 0


@pytest.mark.parametrize("content", [b"", b"{", b'{"night":"x"}'])
def test_without_a_readable_report_the_run_goes_on_from_the_windows_state(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / f"reports/night-{NIGHT}.json").write_bytes(content)
    assert tally(tmp_path, RESUMED).spent_bytes == 11
