"""The simulator: its runs hold, can be repeated to the bit, the kept plans stay good, and what it does not see it admits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import msgspec
import pytest

from ledger.errors import InvalidInput, LedgerBug
from simulations import canaries
from simulations.canaries import CANARIES, Canary, try_canaries
from simulations.coverage import HITS, never_hit
from simulations.disks import FRAME, HEADER, committed_end, lose_unsynced
from simulations.plan import Plan, Step, decode_plan, draw_plan, encode_plan
from simulations.run import Result, run_plan
from simulations.shrink import kind_of, shrink_plan
from simulations.swarm import main, swarm

ROOT = Path(__file__).parent.parent
KEPT = sorted((ROOT / "simulations" / "plans").glob("*.json"))
assert KEPT, "without a kept plan the test of them tests nothing"
SEEDS = int(os.environ.get("RXLEDGER_SEEDS", "60"))
"""Runs of one `make test`; a night makes ten thousand (`make sim-night`)."""
PAGE_BYTES = 512


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_was_once_found_stays_mended(path: Path) -> None:
    result = run_plan(decode_plan(path.read_bytes()))
    assert result.verdict != "invalid", result.finding


def test_a_swarm_of_seeds_finds_nothing_and_hits_something() -> None:
    results = list(swarm(1, SEEDS, 1))
    assert [(r.seed, r.finding) for r in results if r.finding] == []
    hits = {name for result in results for name in result.hits}
    assert len(hits & set(HITS)) >= 40, sorted(set(HITS) - hits)
    assert all(result.verdict == "valid" for result in results)


def test_one_plan_tells_one_story_whatever_the_hash_seed() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-m", "simulations", "--seed", "9", "--json"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(told) == 1
    assert json.loads(told.pop())["trace"]


def test_a_plan_can_be_kept_in_a_file() -> None:
    plan = draw_plan(5)
    assert decode_plan(encode_plan(plan)) == plan


def test_rubbish_is_no_plan() -> None:
    with pytest.raises(InvalidInput):
        decode_plan(b"{}")


def test_a_swarm_that_missed_something_says_what() -> None:
    assert never_hit(dict.fromkeys(HITS[1:], 1), {})[0] == HITS[0]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name.replace(" ", "-"))
def test_a_canary_is_a_fault_in_the_code_as_it_is(canary: Canary) -> None:
    assert (ROOT / canary.file).read_text().count(canary.before) == 1


def test_a_canary_is_caught_by_a_finding() -> None:
    """One of them here; `make nightly` tries all."""
    caught = next(iter(try_canaries(["commits that are not synced"], 1, seeds=40)))
    assert kind_of(caught.finding) in ("A1", "A4")
    assert 0 < caught.seeds <= 40


def test_a_canary_whose_text_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = msgspec.structs.replace(CANARIES[0], before="no such line of code")
    monkeypatch.setattr(canaries, "CANARIES", (stale,))
    with pytest.raises(LedgerBug, match="stands 0 times"):
        list(try_canaries([], 1, seeds=1))


def test_shrinking_keeps_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forty steps the two that together fail are left, whatever else one alone would do."""

    def run(plan: Plan) -> Result:
        kinds = {step.kind for step in plan.steps}
        finding = "A1: lost" if {"kill", "garbage"} <= kinds else "E1: another" if "kill" in kinds else ""
        return Result(
            seed=plan.seed,
            verdict="",
            finding=finding,
            trace="",
            hits={},
            outcomes={},
            simulated_ms=0,
            seconds=0,
            messages=0,
        )

    monkeypatch.setattr("simulations.shrink.run_plan", run)
    noise = [Step(at, "prescribe", at) for at in range(38)]
    plan = msgspec.structs.replace(
        draw_plan(1), steps=(*noise[:20], Step(20, "kill", 1), *noise[20:], Step(38, "garbage", 2))
    )
    short = shrink_plan(plan)
    assert short is not None
    assert [step.kind for step in short.steps] == ["kill", "garbage"]
    assert short.note == "A1: lost"
    assert len(short.machines) == 2
    assert shrink_plan(msgspec.structs.replace(plan, steps=())) is None


def _log(*commits: int) -> bytes:
    """A write-ahead log of as many frames; those with a number end a transaction."""
    head = HEADER.pack(0x377F0682, 3007000, PAGE_BYTES, 0, 11, 12, 0, 0)
    return head + b"".join(FRAME.pack(1, n, 11, 12, 0, 0) + bytes(PAGE_BYTES) for n in commits)


def test_a_log_is_synced_up_to_its_last_commit() -> None:
    frame = FRAME.size + PAGE_BYTES
    assert committed_end(b"") == 0
    assert committed_end(_log(0, 0)) == 0
    assert committed_end(_log(0, 3, 0)) == HEADER.size + 2 * frame
    stale = FRAME.pack(1, 5, 10, 12, 0, 0) + bytes(PAGE_BYTES)
    assert committed_end(_log(0, 3) + stale) == HEADER.size + 2 * frame


def test_a_power_cut_loses_nothing_that_was_synced_and_all_that_was_not(tmp_path: Path) -> None:
    log = tmp_path / "store.db-wal"
    for seed in range(20):
        log.write_bytes(_log(0, 3, 0))
        lose_unsynced(tmp_path / "store.db", synced=True, random=Random(seed))
        assert log.read_bytes().startswith(_log(0, 3))
    lose_unsynced(tmp_path / "store.db", synced=False, random=Random(0))
    assert not log.exists()


def test_the_table_of_a_run_has_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "18"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith("valid; ")
    assert len(lines) > 20


@pytest.mark.nightly
def test_every_canary_is_caught() -> None:
    assert [c.name for c in try_canaries([], os.cpu_count() or 1) if not c.finding] == []
