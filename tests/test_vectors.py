"""Every published vector, judged by the real code: what must hold holds, what must fail fails for the stated reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scripts.vectors.judge import CHECKS, judge

VECTORS = Path(__file__).resolve().parent.parent / "schemas" / "vectors"
FOLDERS = sorted(path for path in VECTORS.iterdir() if path.is_dir())
ALL_MIN, FAIL_MIN = 60, 36


def description(folder: Path) -> dict[str, dict[str, object]]:
    return msgspec.json.decode((folder / "vector.json").read_bytes())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_vector(folder: Path):
    """The check ends in exactly the stated code ("" for none) and finds exactly what is written down."""
    expect = description(folder)["expect"]
    code, found = judge(folder)
    assert code == expect.get("error", "")
    if "found" in expect:
        assert msgspec.json.decode(msgspec.json.encode(found)) == expect["found"]


def test_there_are_enough_and_most_must_fail():
    failing = [folder for folder in FOLDERS if folder.name.endswith("_fail")]
    assert len(FOLDERS) >= ALL_MIN
    assert len(failing) >= FAIL_MIN
    assert len(failing) * 2 > len(FOLDERS)


def test_a_name_says_whether_the_vector_must_fail():
    for folder in FOLDERS:
        assert folder.name.endswith("_fail") == ("error" in description(folder)["expect"]), folder.name


def test_every_kind_of_check_has_a_vector_that_holds_and_one_that_must_not():
    kinds = {(str(description(folder)["check"]), folder.name.endswith("_fail")) for folder in FOLDERS}
    held = {kind for kind, fails in kinds if not fails} | {
        "act",
        "claim",
        "unread",
    }  # Asked only of what must not hold.
    refused = {kind for kind, fails in kinds if fails} | {"automerge", "fold"}  # Asked only of what holds.
    assert held == refused == set(CHECKS)


def test_files_of_a_vector_are_all_used():
    for folder in FOLDERS:
        text = (folder / "vector.json").read_text(encoding="utf-8")
        for file in folder.iterdir():
            assert file.name == "vector.json" or f'"file:{file.name}"' in text, file
