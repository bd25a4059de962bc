"""What stands in `schemas/` is what the code says, and a difference is found and named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ledger.codec import DICTIONARY_SHA256
from ledger.events import KINDS

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "schemas"


def check(directory: Path, *, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "schemas.py", "--check", "--directory", directory],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )  # fmt: skip


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_nothing_has_drifted(hash_seed: str):
    result = check(SCHEMAS, hash_seed=hash_seed)
    assert result.returncode == 0, result.stdout + result.stderr


def test_drift_is_found_and_named(tmp_path: Path):
    """A changed schema, a missing vector and a foreign file are three findings, and what to do is said."""
    copy = tmp_path / "schemas"
    shutil.copytree(SCHEMAS, copy)
    schema = copy / "events" / "Dispensed.schema.json"
    schema.write_text(
        schema.read_text(encoding="utf-8").replace('"maximum": 99', '"maximum": 98'), encoding="utf-8"
    )
    shutil.rmtree(copy / "vectors" / "keys_good")
    (copy / "events" / "Invented.schema.json").write_text("{}", encoding="utf-8")
    result = check(copy)
    assert result.returncode == 1
    assert "differs: events/Dispensed.schema.json" in result.stdout
    assert "missing: vectors/keys_good/vector.json" in result.stdout
    assert "not from the code: events/Invented.schema.json" in result.stdout
    assert "make schemas" in result.stdout


def test_every_event_has_a_schema():
    assert {p.name.removesuffix(".schema.json") for p in (SCHEMAS / "events").iterdir()} == set(KINDS)


def test_the_dictionary_named_is_the_one_in_use():
    named = msgspec.json.decode((SCHEMAS / "dictionaries.json").read_bytes())
    assert named["1"]["sha256"] == DICTIONARY_SHA256
