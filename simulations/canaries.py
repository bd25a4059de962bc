"""Canaries: deliberate faults in a copy of the real code, each of which the simulator must find (`python -m simulations canaries`).

The whole rig is tried, not one test of it: a copy of the sources with one replacement runs the same seeds as a swarm until
one of them is found invalid. How many that took is printed. A mutant that survives all its seeds fails the run: the
invariant that should have seen it, or the fault that should have brought it to light, is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from msgspec import Struct

from ledger.errors import LedgerBug

__all__ = ["CANARIES", "Canary", "Caught", "main", "try_canaries"]

ROOT = Path(__file__).resolve().parent.parent
SEEDS_MAX = 150
"""Tried for each: less than a swarm of `make sim-swarm`."""
SECONDS_MAX = 900
"""For one canary: a mutant that never comes to rest is caught too."""


class Canary(Struct, frozen=True, kw_only=True):
    """One deliberate fault."""

    name: str
    file: str
    before: str
    """Stands exactly once in the file."""
    after: str


class Caught(Struct, frozen=True, kw_only=True):
    """What became of one."""

    name: str
    seeds: int
    """Tried until it was found."""
    finding: str
    """Empty: it survived."""
    seconds: float


CANARIES: tuple[Canary, ...] = (
    Canary(
        name="a guard that ignores the holder", file="ledger/guard.py",
        before="fill.holder and fill.holder == self.request.own_feed", after="fill.holder",
    ),
    Canary(
        name="custody judged by the linear order", file="ledger/custody.py",
        before="        contested = token.tainted\n",
        after="        contested = token.tainted\n        past = (1 << self.causality.index[fact.id]) - 1\n",
    ),
    Canary(
        name="over-supply netted away", file="ledger/supplies.py",
        before="over += supply.net - taken", after="over += 0",
    ),
    Canary(
        name="a balance that is off by one", file="ledger/supplies.py",
        before="room[supply.fill] -= taken\n", after="room[supply.fill] -= taken - (supply.quantity > 20)\n",
    ),
    Canary(
        name="runs accepted unverified", file="ledger/feed.py",
        before="    verify_link(links[-1], last.signature, public_key)\n", after="",
    ),
    Canary(
        name="entries ahead of their feeds accepted unverified", file="ledger/exchange.py",
        before="            verify_link(link, entry.signature, certified.public_key)\n", after="",
    ),
    Canary(
        name="signs of life accepted unverified", file="nodes/acquaintances.py",
        before="        check_here(self._ledger.node.realm.id, district, sign, signature, certified.public_key)\n",
        after="",
    ),
    Canary(
        name="commits that are not synced", file="ledger/store/connection.py",
        before="PRAGMA synchronous=FULL", after="PRAGMA synchronous=OFF",
    ),
    Canary(
        name="an acknowledgement before the commit", file="ledger/store/connection.py",
        before="            yield\n            self.run(end)\n        except BaseException:",
        after="            yield\n            if depth or self._db.total_changes % 7:\n                self.run(end)\n"
        "            else:\n                self.run(undo)\n        except BaseException:",
    ),
    Canary(
        name="an empty file taken for a new store", file="ledger/store/connection.py",
        before='            raise StoreDamaged("the store is empty, which no store ever is", where=str(path))\n',
        after="            import sqlite3 as s\n\n            with s.connect(path) as c:\n"
        '                c.executescript(SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")\n',
    ),
    Canary(
        name="a repeated command with a second effect", file="ledger/node.py",
        before="return None if found is None else Receipt(command, found[0], found[1], repeated=True)",
        after="return None",
    ),
    Canary(
        name="a set back disk that goes on in the same feed", file="ledger/exchange.py",
        before="                if ours:  # Within: killed in between, this node would go on where somebody else had written.\n",
        after="                if False:\n",
    ),
    Canary(
        name="a fork resolved by what came first", file="ledger/facts.py",
        before="return forked_at is not None and fact.sequence >= forked_at",
        after="return forked_at is not None and fact.sequence >= forked_at and fact.branch > 0",
    ),
    Canary(
        name="a fold ordered by clock", file="ledger/facts.py",
        before="topological(edges)", after="sorted(self.facts, key=lambda link: self.facts[link].stamp)",
    ),
    Canary(
        name="a stamp from the wall clock alone", file="ledger/clock.py", before="stamp = max(pack_stamp(now_ms), low + 1)", after="stamp = pack_stamp(now_ms)",
    ),
    Canary(
        name="a state that is kept when a key comes", file="ledger/reading.py",
        before="known[:2] != (basis, keys)", after="known[0] != basis",
    ),
    Canary(
        name="a digest that covers no entry", file="ledger/frontiers.py",
        before='return tagged_hash("frontier of a district", *buckets, *', after='return tagged_hash("frontier of a district", *',
    ),
    Canary(
        name="a round that is never given up", file="nodes/peer.py",
        before="return now_ms - current.moved_ms > self.timing.give_up_ms", after="return False",
    ),
    Canary(
        name="a window that never opens again", file="nodes/flow.py",
        before="        self._bytes -= gone\n", after="",
    ),
    Canary(
        name="a claim believed before the transfer is here", file="nodes/requests.py",
        before="                return held is not None and not held.detached\n", after="                return True\n",
    ),
    Canary(
        name="a revoked node that is listened to", file="nodes/peering.py",
        before="        if self.peers.is_revoked(peer.node):\n            self._refuse", after="        if False:\n            self._refuse",
    ),
    Canary(
        name="rounds begun with everybody at every poll", file="nodes/peer.py",
        before="self.next_ms = now_ms + self._jittered(self.timing.idle_ms)", after="self.next_ms = now_ms",
    ),
)  # fmt: skip


def try_canaries(names: Sequence[str], jobs: int, seeds: int = SEEDS_MAX) -> Iterator[Caught]:
    """Try canaries, all or those whose name contains one of some words; as they are done.

    Raises:
        LedgerBug: the text to be replaced is not there: the canary is out of date.
    """
    chosen = [c for c in CANARIES if not names or any(name in c.name for name in names)]
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(_try, canary, seeds) for canary in chosen]):
            yield done.result()


def _try(canary: Canary, seeds: int) -> Caught:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rxledger-canary-") as temporary:
        copy = Path(temporary)
        _mutate(canary, copy)
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter, on a copy of these sources.
                [sys.executable, "-m", "simulations", "--swarm", str(seeds), "--jobs", "1", "--until-found", "--json"],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
                capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Caught(name=canary.name, seeds=0, finding="", seconds=time.perf_counter() - started)
        try:
            told = json.loads(done.stdout)
        except ValueError:
            raise LedgerBug(f"the canary {canary.name!r} did not run: {done.stderr[-400:]}") from None
    findings = told["findings"]
    return Caught(
        name=canary.name, seeds=told["seeds"], finding=findings[0][1] if findings else "",
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _mutate(canary: Canary, copy: Path) -> None:
    for part in ("ledger", "nodes", "simulations"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / canary.file
    text = file.read_text()
    if text.count(canary.before) != 1:
        raise LedgerBug(
            f"the text that the canary {canary.name!r} replaces stands {text.count(canary.before)} times in {canary.file}",
            advice="bring simulations/canaries.py up to date with it",
        )
    file.write_text(text.replace(canary.before, canary.after))


def main(names: Sequence[str], jobs: int) -> int:
    """Try them and print; 0: all were caught."""
    survived = 0
    for caught in try_canaries(names, jobs):
        survived += not caught.finding
        what = (
            f"after {caught.seeds:>3} seeds: {caught.finding}"
            if caught.finding
            else f"SURVIVED {caught.seeds} seeds"
        )
        sys.stdout.write(f"{caught.seconds:6.1f} s  {caught.name}: {what}\n")
        sys.stdout.flush()
    return 1 if survived else 0
