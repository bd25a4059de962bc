"""R1, R16: a process killed at every write, fsync and rename of an append and of a recovery loses nothing acknowledged.

Real files, real processes; strace kills the child on entry to the n-th call, so that call is not done. Each test
checks that the fault happened: a run that was never killed ends the loop, and the loop must have had enough turns.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger import (
    Coded,
    DocumentId,
    IssuePrescription,
    Ledger,
    Link,
    NodeRole,
    Patient,
    Person,
    PersonRole,
    Product,
    RealmKind,
    SeededEntropy,
    SystemClock,
    UnlockFile,
)
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PRESCRIBER_CODE
from nodes.founding import enrol, found_realm

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace kills the child at a system call; .ci/run installs it"
)
CHILD = Path(__file__).with_name("crash_child.py")
PERSON = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
CALLS = ("pwrite64", "fdatasync,fsync", "rename,renameat,renameat2", "ftruncate", "unlink,unlinkat")
"""All by which SQLite and we change a disk."""
TURNS_MAX = 400


class Subject:
    """A node to be killed again and again, each time a fresh copy of it."""

    def __init__(self, directory: Path) -> None:
        self.base = directory / "base"
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        founded = found_realm(
            directory / "realm",
            "crash",
            RealmKind.EXERCISE,
            self.unlock,
            clock=SystemClock(),
            entropy=SeededEntropy(3),
        )
        with founded.agency, enrol(
            founded, self.base, role=NodeRole.PRESCRIBER, district="SE-X-1", name="vc", unlock=self.unlock, person=OFFICER
        ) as ledger:  # fmt: skip
            order = IssuePrescription(
                patient=Patient(name="Test", birth_date="1950-01-01", sex="male"),
                product=Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", pack_quantity=100),
                dosage="1 tablett", fills=3, prescriber=PERSON.code,
            )  # fmt: skip
            self.document = ledger.prescribe(order, person=PERSON).document
            self.first = ledger.exchange.frontier("SE-X-1")

    def copy(self, source: Path, target: Path) -> Path:
        shutil.copytree(source, target)
        return target

    def run(self, node: Path, appends: int, call: str = "", turn: int = 0) -> tuple[int, list[str]]:
        """Run the child, killed at a call if one is named; returns its exit status and what it said."""
        child = [
            sys.executable,
            str(CHILD),
            str(node),
            str(self.unlock.path),
            self.document.hex(),
            str(appends),
        ]
        if call:
            child = [
                "strace", "-f", "-qq", "-o", os.devnull, "-P", str(node / "store.db"), "-P", str(node / "store.db-wal"),
                "-P", str(node / "store.db.continuity"), "-P", str(node / "store.db.continuity.new"), "-P", str(node),
                "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={turn}", *child,
            ]  # fmt: skip
        done = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout.split()

    def check(self, node: Path, said: list[str]) -> None:
        """Nothing acknowledged is lost, and what is there is a verified prefix."""
        with Ledger.open(node, self.unlock) as ledger:
            links = [word for word in said if len(word) == 64]
            for link in links:
                assert ledger.node.store.by_link(Link(bytes.fromhex(link))) is not None, (
                    "an acknowledged event is lost"
                )
            assert sum(1 for _ in ledger.inquiry.verify()) >= 1 + len(links)
            state = ledger.show(DocumentId(self.document)).prescription
            assert state.issued is not None
            assert not state.anomalies
            # It goes on: the next append is accepted and durable too.
            receipt = ledger.amend(self.document, person=PERSON, dosage="1 tablett om dagen")
            assert ledger.node.store.by_link(receipt.link) is not None


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(tmp_path_factory.mktemp("crash"))


def killed_runs(
    subject: Subject, source: Path, scratch: Path, appends: int, call: str
) -> Iterator[tuple[Path, list[str]]]:
    """One run for each call of this kind, killed there; ends with the first run that is not killed."""
    for turn in range(1, TURNS_MAX):
        node = subject.copy(source, scratch / f"{call[:6]}-{appends}-{turn}")
        status, said = subject.run(node, appends, call, turn)
        if status == 0:
            assert said[-1] == "closed"
            return
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), f"the child ended with {status}"
        yield node, said
    raise AssertionError("the child never got to its end")


def test_nothing_acknowledged_is_lost_wherever_an_append_is_killed(subject: Subject, tmp_path: Path) -> None:
    """Killed at every write, fsync, rename, truncation and removal of opening, appending twice and closing."""

    def all_turns(call: str) -> int:
        count = 0
        for node, said in killed_runs(subject, subject.base, tmp_path, 2, call):
            subject.check(node, said)
            shutil.rmtree(node)
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        killed = dict(zip(CALLS, pool.map(all_turns, CALLS), strict=True))
    print("killed at", killed)
    assert killed["pwrite64"] >= 10
    assert killed["fdatasync,fsync"] >= 4
    assert killed["rename,renameat,renameat2"] >= 1


def test_nothing_acknowledged_is_lost_wherever_a_recovery_is_killed(subject: Subject, tmp_path: Path) -> None:
    """A crash leaves a log behind; the opening that recovers from it is killed at every call in turn."""
    crashed = subject.copy(subject.base, tmp_path / "crashed")
    status, acknowledged = subject.run(crashed, 3, "fdatasync,fsync", 6)
    assert status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert (crashed / "store.db-wal").stat().st_size > 0
    count = 0
    for call in ("pwrite64", "fdatasync,fsync", "rename,renameat,renameat2"):
        for node, _ in killed_runs(subject, crashed, tmp_path, 0, call):
            subject.check(node, acknowledged)
            shutil.rmtree(node)
            count += 1
    assert count >= 5


def test_the_acknowledgement_comes_after_the_fsync_of_what_it_acknowledges(
    subject: Subject, tmp_path: Path
) -> None:
    """Between an append's last write to the log and its acknowledgement stands an fsync of that log (R1)."""
    node = subject.copy(subject.base, tmp_path / "order")
    trace = tmp_path / "trace"
    command = [
        "strace", "-f", "-qq", "-y", "-s", "80", "-o", str(trace), "-e", "trace=pwrite64,fdatasync,fsync,write",
        sys.executable, str(CHILD), str(node), str(subject.unlock.path), subject.document.hex(), "2",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    lines = trace.read_text().splitlines()
    log_writes = [n for n, line in enumerate(lines) if "pwrite64" in line and "-wal>" in line]
    syncs = [
        n for n, line in enumerate(lines) if ("fdatasync" in line or "fsync" in line) and "-wal>" in line
    ]
    words = [n for n, line in enumerate(lines) if re.search(r'\bwrite\(1<.*"[0-9a-f]{64}', line)]
    assert len(words) == 2
    for word in words:
        last_write = max(n for n in log_writes if n < word)
        assert any(last_write < sync < word for sync in syncs), "acknowledged before it was durable"


def test_a_full_disk_refuses_with_a_typed_error_and_writing_resumes(subject: Subject, tmp_path: Path) -> None:
    """ENOSPC in the middle of an append: nothing is written, and the store is whole (D4)."""
    node = subject.copy(subject.base, tmp_path / "full")
    child = [
        "strace", "-f", "-qq", "-o", os.devnull, "-P", str(node / "store.db-wal"), "-e", "trace=pwrite64",
        "-e", "inject=pwrite64:error=ENOSPC:when=6+",
        sys.executable, str(CHILD), str(node), str(subject.unlock.path), subject.document.hex(), "3",
    ]  # fmt: skip
    done = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "StoreFull" in done.stderr
    subject.check(node, done.stdout.split())
