"""R1, R6, R17: two processes write through one owner, and any of the three may be killed at any moment.

Nothing acknowledged is lost, no feed forks, no command has two effects. Real processes, real SIGKILL. What must be
killed and how often is counted: a run in which nobody was killed says nothing.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.ids import Link
from tests.nodes.local.site_for_tests import DISTRICT, Site
from tests.nodes.local.writer_child import amends, command_of

ROOT = Path(__file__).resolve().parents[3]
WRITERS = ("till-1", "till-2")
SECONDS_MAX = 900.0


class Rig:
    """An owner and two writers, each begun anew whenever it was killed."""

    def __init__(self, site: Site, directory: Path, writes: int, seed: int, pause_ms: float) -> None:
        self.site, self.writes, self.pause_ms = site, writes, pause_ms
        self.random = random.Random(seed)
        self.journals = {name: directory / f"{name}.journal" for name in WRITERS}
        for journal in self.journals.values():
            journal.touch()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed = dict.fromkeys(("owner", *WRITERS), 0)
        self.ways = {"shared": 0, "owned": 0}
        self.turns = 0
        """How often an entry of one writer follows one of the other."""

    def start(self, name: str) -> None:
        node, unlock = str(self.site.node("clinic")), str(self.site.unlock.path)
        script, more = "owner_child", []
        if name != "owner":
            script, more = (
                "writer_child",
                [
                    name,
                    str(self.writes // len(WRITERS)),
                    str(self.journals[name]),
                    str(self.pause_ms),
                ],
            )
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", f"tests.nodes.local.{script}", node, unlock, *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def ready(self, name: str) -> None:
        """Wait until a process has begun in earnest: killing one that only starts says little."""
        said = self.running[name].stdout
        assert said is not None
        assert select.select([said], [], [], 60)[0], f"{name} does not begin"
        assert said.readline() == b"ready\n"

    def stop(self, name: str) -> int:
        process = self.running.pop(name)
        process.communicate(timeout=60)
        return process.returncode

    def acknowledged(self) -> int:
        return sum(journal.read_bytes().count(b"\n") for journal in self.journals.values())

    def kill(self, name: str) -> None:
        if self.running[name].poll() is None:
            self.running[name].send_signal(signal.SIGKILL)
            self.killed[name] += 1
        self.stop(name)
        self.start(name)
        self.ready(name)

    def run(self, kills: int) -> None:
        """All writes, with about so many kills between them, of whom and when by the seed."""
        for name in ("owner", *WRITERS):
            self.start(name)
            self.ready(name)
        at = sorted(self.random.sample(range(1, self.writes), kills))
        deadline = time.monotonic() + SECONDS_MAX
        try:
            while any(self.running[name].poll() is None for name in WRITERS):
                assert time.monotonic() < deadline, (
                    f"{self.acknowledged()} of {self.writes} were acknowledged"
                )
                if at and self.acknowledged() >= at[0]:
                    at.pop(0)
                    # At another point of a write each time.
                    time.sleep(self.random.uniform(0, 0.004))
                    self.kill(self.random.choice(("owner", *WRITERS)))
                time.sleep(0.0005)
            codes = [self.stop(name) for name in WRITERS]
            assert codes == [0, 0]
            assert self.stop("owner") == 0
        finally:
            for process in self.running.values():
                process.kill()
                process.communicate()


def check(site: Site, rig: Rig) -> None:
    with Ledger.open(site.node("clinic"), site.unlock) as ledger:
        node, store = ledger.node, ledger.node.store
        expected = rig.writes // len(WRITERS)
        issued = 0
        places: dict[int, str] = {}
        for name, journal in rig.journals.items():
            lines = [line.split() for line in journal.read_text().splitlines()]
            assert [int(line[0]) for line in lines] == list(range(expected))
            for number, link, document, way in lines:
                held = store.by_link(Link(bytes.fromhex(link)))
                assert held is not None, "an acknowledged write is lost"
                assert held.document.hex() == document
                places[held.sequence] = name
                rig.ways[way] += 1
                first = node.first_result(command_of(name, int(number)))
                assert first is not None
                assert first.link.hex() == link, "a command was answered by another effect than its own"
            issued += sum(not amends(number) for number in range(expected))
        own = [row for row in store.feeds(DISTRICT) if row.author == node.identity.node]
        assert len(own) == 1, "no incarnation began: continuity was never lost"
        assert node.writer.incarnation == 1
        assert not store.forks(DISTRICT)
        assert store.heads(own[0].feed)[0].sequence == rig.writes, "as many entries as commands"
        assert sum(1 for _ in store.documents(DISTRICT)) == issued
        assert sum(1 for _ in ledger.inquiry.verify()) >= rig.writes
        rig.turns = sum(one != other for one, other in pairwise(places[at] for at in sorted(places)))


def tried(tmp_path: Path, *, writes: int, kills: int, seed: int, pause_ms: float) -> Rig:
    site = Site(tmp_path / "site")
    rig = Rig(site, tmp_path, writes, seed, pause_ms)
    rig.run(kills)
    check(site, rig)
    return rig


def test_two_processes_write_and_any_is_killed(tmp_path: Path) -> None:
    rig = tried(tmp_path, writes=300, kills=9, seed=5, pause_ms=20)
    assert sum(rig.killed.values()) >= 6
    assert rig.killed["owner"] >= 1
    assert rig.ways["shared"] > 0
    assert rig.turns >= 10


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_writes_of_two_processes_and_any_is_killed(tmp_path: Path, seed: int) -> None:
    rig = tried(tmp_path, writes=10_000, kills=120, seed=seed, pause_ms=4)
    assert all(count >= 10 for count in rig.killed.values())
    assert rig.ways["shared"] >= 1000
    assert rig.ways["owned"] >= 100
    assert rig.turns >= 500
