"""Many nodes in one process: each with its own store, conversations and connection, all on one loop and one worker.

Told over its standard input what to do, as `benchmarks.network_child`.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from benchmarks.network_child import start_module
from benchmarks.world import PHARMACIST
from ledger import Clock, Ledger, SystemClock
from ledger.exchange import ImportReport
from ledger.feed import Run
from ledger.ids import GOVERNANCE
from ledger.keystore import UnlockFile
from nodes.acquaintances import PeeringSettings
from nodes.daemon.pump import Pump
from nodes.lines import LinkSettings
from nodes.links import LinkState, LinkStatus
from nodes.nats.certificates import client_tls
from nodes.nats.link import NatsLink
from nodes.nats.nkeys import Login
from nodes.peering import Peering

__all__ = ["Many", "Part", "start_many"]

MODULE = "benchmarks.network_swarm_child"


class Part(Struct):
    """One node of many."""

    directory: Path
    lacks: int
    """Entries that it is to fetch, governance left out."""


class Many(Struct):
    """What the process is started with."""

    unlock: Path
    urls: list[str]
    parts: list[Part]


def start_many(many: Many) -> subprocess.Popen[str]:
    """Start the process."""
    return start_module(MODULE, msgspec.json.encode(many, enc_hook=str).decode())


class _Member:
    """One node."""

    def __init__(
        self, part: Part, unlock: UnlockFile, urls: list[str], clock: Clock, worker: ThreadPoolExecutor
    ) -> None:
        self.part = part
        self.ledger = Ledger.open(part.directory, unlock, clock=clock)
        node = self.ledger.node
        self.peering = Peering(
            self.ledger,
            [LinkSettings(name="hub")],
            PeeringSettings(),
            person=PHARMACIST,
            random=random.Random(),
        )
        node.reader.governance()  # As every node has since it started.
        self.new = self.again = 0
        """Entries taken in, and entries that came although they were held."""
        self.up_ns = self.whole_ns = 0
        self._import_runs = self.ledger.exchange.import_runs
        self.ledger.exchange.import_runs = self._counted  # type: ignore[method-assign]
        self.pump = Pump(self.peering, wall_ms=clock.now_ms, worker=worker)
        self.link = NatsLink(
            "hub", urls, on_message=self.pump.message, on_change=self._changed, clock=clock,
            jitter=random.Random(), tls=client_tls(node.realm), login=Login(node.keys.signing),
        )  # fmt: skip
        self.pump.add(self.link)

    def _counted(self, runs: Iterable[Run]) -> ImportReport:
        runs = list(runs)
        report = self._import_runs(runs)
        self.again += report.known
        if report.new and self.ledger.exchange.written_by(runs[0].feed)[1] != GOVERNANCE:  # type: ignore[index, arg-type]
            self.new += report.new
            if self.new >= self.part.lacks and not self.whole_ns:
                self.whole_ns = time.monotonic_ns()
        return report

    def _changed(self, status: LinkStatus) -> None:
        if status.state is LinkState.UP and not self.up_ns:
            self.up_ns = time.monotonic_ns()
        self.pump.changed(status)


class _Swarm:
    """The process's inside."""

    def __init__(self, many: Many) -> None:
        clock, unlock = SystemClock(), UnlockFile(many.unlock)
        self._worker = ThreadPoolExecutor(1)
        self.members = [_Member(part, unlock, many.urls, clock, self._worker) for part in many.parts]
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> int:
        """Let all run; the server may not be there yet."""
        for member in self.members:
            self._tasks += [asyncio.create_task(member.pump.run()), asyncio.create_task(member.link.run())]
        return len(self.members)

    async def status(self) -> dict[str, Any]:
        """How many are whole, and where the others stand."""
        ended = [repr(task.exception()) for task in self._tasks if task.done() and not task.cancelled()]
        left = [member for member in self.members if not member.whole_ns]
        return {
            "up": sum(member.link.status().state is LinkState.UP for member in self.members),
            "whole": len(self.members) - len(left),
            "missing": sum(member.part.lacks - member.new for member in left),
            "failed": ended,
        }

    async def result(self) -> dict[str, Any]:
        """When each was connected and whole, what it took, and the digest of its district."""
        problems: Counter[str] = Counter()
        for member in self.members:
            problems.update(member.peering.refused)
            for peer in member.peering.peers:
                problems.update(peer.problems)
        links = [member.link.status() for member in self.members]
        return {
            "up_ns": [member.up_ns for member in self.members],
            "whole_ns": [member.whole_ns for member in self.members],
            "digests": [
                (district := member.ledger.node.identity.district, member.ledger.exchange.district_digest(district).hex())
                for member in self.members
            ],
            "bytes": sum(status.sent_bytes + status.received_bytes for status in links),
            "rounds": sum(peer.rounds for member in self.members for peer in member.peering.peers),
            "again": sum(member.again for member in self.members),
            "lost": sum(member.pump.lost for member in self.members),
            "problems": problems,
            "cpu_s": time.process_time(),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }  # fmt: skip

    async def close(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._worker.shutdown()
        for member in self.members:
            member.ledger.close()


async def _serve(many: Many) -> None:
    swarm = _Swarm(many)
    loop = asyncio.get_running_loop()
    try:
        print(json.dumps({"node": ""}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await getattr(swarm, json.loads(line)["do"])()), flush=True)
    finally:
        await swarm.close()


def main() -> None:
    """Run the process."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(50),
    )
    asyncio.run(_serve(msgspec.json.decode(sys.argv[1], type=Many, dec_hook=lambda kind, value: kind(value))))


if __name__ == "__main__":
    main()
