"""The tests are tested: deliberate faults in the real code, each of which a named test must catch.

A mutant is one replacement in a copy of the sources; the test that must fail runs against the copy. A mutant whose
text is no longer found is an error, not a pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLD = "tests/ledger/test_fold_properties.py"
VECTORS = "tests/test_vectors.py"
CRASH = "tests/ledger/store/test_crash.py"
CUSTODY = "tests/ledger/test_custody.py"
MACHINE = "tests/test_machine.py"
REPEATS = "tests/test_repeats.py"
STALE = "tests/test_stale.py"

MUTANTS = {
    "a guard that ignores the holder": (
        "ledger/guard.py", "fill.holder and fill.holder == self.request.own_feed", "fill.holder",
        FOLD, "second_pharmacy",
    ),
    "custody judged by the linear order instead of the causal past": (
        "ledger/custody.py", "        contested = token.tainted\n",
        "        contested = token.tainted\n        past = (1 << self.causality.index[fact.id]) - 1\n",
        FOLD, "could_not_know",
    ),
    "a fold ordered by clock": (
        "ledger/facts.py", "topological(edges)", "sorted(self.facts, key=lambda link: self.facts[link].stamp)",
        FOLD, "clock_that_is_behind",
    ),
    "a fork resolved by first seen": (
        "ledger/facts.py", "return forked_at is not None and fact.sequence >= forked_at",
        "return forked_at is not None and fact.sequence >= forked_at and fact.branch > 0",
        FOLD, "two_images",
    ),
    "an acknowledgement before fsync": (
        "ledger/store/connection.py", "PRAGMA synchronous=FULL", "PRAGMA synchronous=OFF", CRASH, "acknowledgement_comes",
    ),
    "an entry accepted unverified": (
        "ledger/feed.py", "    verify_link(links[-1], last.signature, public_key)\n", "", VECTORS, "run",
    ),
    "over-supply netted away": (
        "ledger/supplies.py", "over += supply.net - taken", "over += 0", FOLD, "never_vanishes",
    ),
    "a stolen key that makes supplies vanish": (
        "ledger/supplies.py", " as event if fact.id not in lacking:", " as event:",
        "tests/ledger/test_balance.py", "stolen_key",
    ),
    "a delegation that confers before what its author spent has come": (
        "ledger/conveyances.py", "return not any(self._causality.facts[link].detached for link in path)", "return True",
        "tests/ledger/test_custody.py", "ahead_of_its_feed",
    ),
    "a delegate who ends what he passed on": (
        "ledger/conveyances.py", "return aside.feed in (fact.feed, delegation.feed)", "return True",
        "tests/ledger/test_custody.py", "cannot_end_it",
    ),
    "what stands in the district's document counting in every prescription": (
        "ledger/history.py", "f if isinstance(f.event, _OF_DISTRICT) else _without_void(f)", "f",
        "tests/ledger/test_custody.py", "wrong_document",
    ),
    "a copy of the issuing event that splits custody": (
        "ledger/custody.py", "rests_on = self.founder.get(rests_on, rests_on)\n", "pass\n",
        "tests/ledger/test_custody.py", "copy_of_the_issuing_event_by_somebody",
    ),
    "a bearer signature unchecked": (
        "ledger/custody.py", "        except (InvalidSignature, ValueError):\n            return Standing.BREACH\n",
        "        except (InvalidSignature, ValueError):\n            pass\n",
        "tests/ledger/test_custody.py", "without_the_right_signature",
    ),
    "a guard that acts on what was conveyed without reading all": (
        "ledger/guard.py", "if not (fill.conveyed and self.is_blind()):", "if True:",
        "tests/ledger/test_guard.py", "what_was_conveyed",
    ),
    "an amendment that replaces nothing it knew of": (
        "ledger/anomalies.py", "if not causality.in_past_of_any(f, made)", "if True", FOLD, "clock_that_is_behind",
    ),
    "a guard that ignores the holder, on whole realms": (
        "ledger/guard.py", "fill.holder and fill.holder == self.request.own_feed", "fill.holder",
        MACHINE, "one_short and honest",
    ),
    "custody judged by the linear order, on whole realms": (
        "ledger/custody.py", "        contested = token.tainted\n",
        "        contested = token.tainted\n        past = (1 << self.causality.index[fact.id]) - 1\n",
        MACHINE, "one_short and disaster",
    ),
    "a balance that is off by one": (
        "ledger/supplies.py", "room[supply.fill] -= taken\n", "room[supply.fill] -= taken - (supply.quantity == 7)\n",
        MACHINE, "one_short and honest",
    ),
    "a repeated command with a second effect": (
        "ledger/node.py", "return None if found is None else Receipt(command, found[0], found[1], repeated=True)",
        "return None", REPEATS, "at_once and hold",
    ),
    "a restored node that learns nothing of what it did": (
        "ledger/node.py", "self.former.learn(self.keyring.digest(), self.writer.feed)", "pass",
        REPEATS, "that_has_heard_of_its_command and amend",
    ),
    "a revocation that may be half done": (
        "ledger/stewardship.py", "                with node.transaction():\n                    receipt",
        "                if True:\n                    receipt", REPEATS, "after_a_kill and revoke",
    ),
    "a state that is kept when a key comes": (
        "ledger/reading.py", "known[:2] != (basis, keys)", "known[0] != basis", STALE, "after_a_delegation",
    ),
    "heads that are kept when a key comes": (
        "ledger/reading.py", "known[0] == place[1] + self._keyring.digest()", "known[0].startswith(place[1])",
        STALE, "builds_on_all",
    ),
    "a patient's list without what could not be read at first": (
        "ledger/inquiry.py", "if unread is not None and unread.keys != keys:", "if False:", STALE, "patients_list",
    ),
    "a state that is kept when a feed's beginning comes": (
        "ledger/store/documents.py", "tagged_hash(\"detached\", link) if detached else link", "link",
        STALE, "ahead_of_its_feed",
    ),
    "a citation that claims what it overtook": (
        "ledger/governance.py", "if entry.detached or (cited and cited not in positions):", "if False:", STALE, "overtook",
    ),
    "an old image that goes on after reading the paper": (
        "ledger/exchange.py",
        "                if feed == node.writer.feed(district):\n                    node.begin_incarnation(_CONTINUED)\n", "",
        "tests/test_images.py", "learns_of_the_other",
    ),
    "blame for what rests on an act that is not held": (
        "ledger/custody.py", " or self.unproven & {(rests_on, fill), (rests_on, _ANY_FILL)}", "", CUSTODY, "however_far_away",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mutants")
    for part in ("benchmarks", "ledger", "nodes", "tests", "schemas", "scripts", "simulations"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def run(copy: Path, path: str, pattern: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            path,
            "-k",
            pattern,
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(copy: Path, name: str) -> None:
    source, before, after, path, pattern = MUTANTS[name]
    if path == CRASH and shutil.which("strace") is None:
        pytest.skip("strace shows the order of calls; .ci/run installs it")
    original = (copy / source).read_text()
    assert original.count(before) == 1, (
        f"the text to replace stands {original.count(before)} times in {source}"
    )
    (copy / source).write_text(original.replace(before, after))
    try:
        done = run(copy, path, pattern)
    finally:
        (copy / source).write_text(original)
    assert done.returncode == 1, f"the mutant survived:\n{done.stdout[-2000:]}{done.stderr[-500:]}"


@pytest.mark.parametrize(("path", "pattern"), sorted({(m[3], m[4]) for m in MUTANTS.values()}))
def test_the_same_tests_pass_on_the_code_as_it_is(copy: Path, path: str, pattern: str) -> None:
    """Else a mutant would be caught by a test that fails anyway."""
    done = run(copy, path, pattern)
    assert done.returncode == 0, done.stdout[-2000:]
