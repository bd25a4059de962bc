"""The demonstration on real servers tells its whole story within its time, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nodes.demo_nats_processes import until

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60
GONE_SECONDS = 30.0
COMMAND = [sys.executable, "-c", "from nodes.cli import main; raise SystemExit(main())", "demo-nats"]
STEPS = (
    "two regional hubs are its leaf nodes", "claims the fills", "told that Apotek Eken holds it", "cable", "kill -9",
    "permit-with-risk", "no emergency supply of the class controlled", "policy permits it from level crisis",
    "registers a prescription by telephone", "all 3 acknowledged are there", "never up at once",
    "all hold the same", "1 lookup logged at the agency", "claims fill 1 from Apotek Eken and dispenses it",
    "letters refused as of one revoked", "is off its hub", "what they write is not there",
)  # fmt: skip


def started(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    temporary.mkdir()
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


def processes(directory: Path) -> list[int]:
    """Processes that were started with anything in a directory: servers and daemons, that is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # It ended meanwhile.
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run tells, as JSON; nothing of it is left."""
    temporary = tmp_path_factory.mktemp("demo") / "temporary"
    began = time.monotonic()
    with started(temporary, "--json") as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out[-2000:] + err[-2000:]
    assert "Traceback" not in err
    # Twice the promise: the tests share the machine with each other.
    assert time.monotonic() - began < 2 * SECONDS_MAX
    assert not processes(temporary)
    assert not list(temporary.iterdir())
    value: dict[str, Any] = json.loads(out)
    return value


def test_every_step_that_is_promised_is_told(told: dict[str, Any]) -> None:
    text = json.dumps(told["steps"], ensure_ascii=False)
    for part in STEPS:
        assert part in text, part


def test_all_who_hold_a_district_end_with_one_digest(told: dict[str, Any]) -> None:
    rows = next(step["digests"] for step in told["steps"] if "digests" in step)
    by_district: dict[str, set[str]] = {}
    for district, _, entries, _ in rows:
        by_district.setdefault(district, set()).add(entries)
    assert {district: len(found) for district, found in by_district.items()} == {
        "SE-AB-0180": 1,
        "SE-C-0380": 1,
    }
    readers = [(district, states) for district, node, _, states in rows if node != "Relay"]
    assert len(set(readers)) == 2


def test_the_double_supply_is_found_and_nothing_else(told: dict[str, Any]) -> None:
    found = next(step["anomalies"] for step in told["steps"] if "anomalies" in step)
    assert [(prescription, kind) for prescription, kind, _ in found] == [("insulin", "double_dispensing")]


def test_figures_were_measured(told: dict[str, Any]) -> None:
    healed = next(
        step for step in told["steps"] if "all hold the same" in step.get("outcome", "") and "bytes" in step
    )
    assert healed["entries"] > 20
    assert healed["bytes"] > 1000
    assert 0 < healed["seconds"] < SECONDS_MAX
    status = next(step["status"] for step in told["steps"] if "status" in step)
    assert status["running"]
    assert status["refusals"]["revoked"] >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_midst_it_leaves_no_process_and_unless_killed_no_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    with started(temporary) as process:
        try:
            # Three servers run, and the daemons are being started.
            until(lambda: len(processes(temporary)) > 4 or process.poll() is not None, "it is under way", 120)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (-9 if number is signal.SIGKILL else 1), out + err
    assert "Traceback" not in err
    until(lambda: not processes(temporary), "all processes are gone", GONE_SECONDS)
    if number is not signal.SIGKILL:
        assert not list(temporary.iterdir())


def test_a_directory_that_holds_something_already_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "realm" / "root").mkdir(parents=True)
    with started(tmp_path / "temporary", "--directory", str(tmp_path), "--json") as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(out)["error"]["code"] == "invalid-input"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["realm", "temporary"]
