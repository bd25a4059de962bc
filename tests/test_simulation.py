"""The simulator: its runs hold, can be repeated to the bit, and the kept plans stay good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.plan import decode_plan, draw_plan, encode_plan
from simulations.run import run_plan
from simulations.swarm import swarm

ROOT = Path(__file__).parent.parent
KEPT = sorted((ROOT / "simulations" / "plans").glob("*.json"))
SEEDS = int(os.environ.get("RXLEDGER_SEEDS", "60"))
"""Runs of one `make test`; a night makes ten thousand."""


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_was_once_found_stays_mended(path: Path) -> None:
    result = run_plan(decode_plan(path.read_bytes()))
    assert result.verdict != "invalid", result.finding


def test_a_swarm_of_seeds_finds_nothing_and_hits_something() -> None:
    results = list(swarm(1, SEEDS, 1))
    assert [(r.seed, r.finding) for r in results if r.finding] == []
    hits = {name for result in results for name in result.hits}
    assert len(hits) >= 25, sorted(hits)
    assert sum(result.verdict == "valid" for result in results) >= SEEDS * 0.9


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
