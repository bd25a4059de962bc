# ruff: noqa: ANN401 - JSON has no types.
"""A node in a process of its own, as it is measured: its store, its conversations, one link over NATS.

It is what the daemon runs (`nodes.daemon.pump.Pump` over `nodes.nats.link.NatsLink`, TLS and login included), told over
its standard input what to do, one JSON object a line, answered by one line. Moments are of the monotonic clock, which
is one for all processes of a machine. Run as a module it is the process; `Child` is its handle.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from msgspec import Struct

from benchmarks.world import PHARMACIST, PHARMACY, PRESCRIBER, fill, order
from ledger import Ledger, Supply, SystemClock
from ledger.exchange import ImportReport
from ledger.feed import Entry, Run
from ledger.ids import DocumentId, FeedId, Link, NodeId
from ledger.keystore import UnlockFile
from ledger.writing import Written
from nodes.acquaintances import PeeringSettings
from nodes.daemon.pump import Pump
from nodes.lines import LinkSettings
from nodes.links import LinkState, LinkStatus
from nodes.nats.certificates import client_tls
from nodes.nats.link import NatsLink
from nodes.nats.nkeys import Login
from nodes.nats.settings import LinkSettings as NatsSettings
from nodes.nats.subjects import here, live
from nodes.peering import Peering
from nodes.requests import Told as Answer
from nodes.wire import LIVE_VERSION, Here, Live, encode_here, encode_live

__all__ = ["Child", "Options", "Told", "start_module"]

MODULE = "benchmarks.network_child"
LINK = "hub"
END_SECONDS = 60.0
"""For seven hundred stores in one process to close."""
POLL_SECONDS = 0.02
ROUND_BYTES = 8 * 1024 * 1024
FEW = 100
"""Entries in a batch of which each is noted."""


class Options(Struct, kw_only=True):
    """How a node is run."""

    directory: Path
    unlock: Path
    urls: list[str]
    sign_ms: int = 30_000
    idle_ms: int = 60_000
    thin: bool = False
    ping_s: int = 10


class _Moments:
    """What happened when, in nanoseconds."""

    def __init__(self, ledger: Ledger, peering: Peering) -> None:
        self.up_ns = self.up_bytes = self.spoke_ns = 0
        self.new = 0
        self.arrived: list[tuple[int, int]] = []
        """When a batch was durable, and how many entries had come by then."""
        self.entries: dict[str, int] = {}
        """Feed and sequence of entries that came few at a time, or were written here → when they were durable."""
        exchange, postbox = ledger.exchange, peering.peers.postbox
        runs, detached, seal = exchange.import_runs, exchange.import_detached, postbox.seal

        def import_runs(given: Iterable[Run]) -> ImportReport:
            given = list(given)
            report = runs(given)
            if report.new:
                few = report.new <= FEW
                self._note(report.new, [(run.feed, e) for run in given for e in run.entries] if few else [])
            return report

        def import_detached(feed: FeedId, previous: Link, entry: Entry) -> bool:
            taken = detached(feed, previous, entry)
            if taken:
                self._note(1, [(feed, entry)])
            return taken

        def sealing(to: NodeId, message: bytes) -> bytes:
            self.spoke_ns = self.spoke_ns or time.monotonic_ns()
            return seal(to, message)

        exchange.import_runs = import_runs  # type: ignore[method-assign]
        exchange.import_detached = import_detached  # type: ignore[method-assign]
        postbox.seal = sealing  # type: ignore[method-assign]
        ledger.node.on_written.append(self._written)

    def _note(self, new: int, alone: list[tuple[bytes, Entry]]) -> None:
        now = time.monotonic_ns()
        self.new += new
        self.arrived.append((now, self.new))
        for feed, entry in alone:
            self.entries.setdefault(f"{feed.hex()}:{entry.sequence}", now)

    def _written(self, _district: str, written: Written) -> None:
        self.entries[f"{written.feed.hex()}:{written.entry.sequence}"] = time.monotonic_ns()

    def forget(self) -> None:
        self.new = self.spoke_ns = 0
        self.arrived.clear()
        self.entries.clear()


class _Node:
    """The process's inside."""

    def __init__(self, options: Options) -> None:
        clock = SystemClock()
        self.ledger = Ledger.open(options.directory, UnlockFile(options.unlock), clock=clock)
        self.peering = Peering(
            self.ledger,
            [LinkSettings(name=LINK, thin=options.thin)],
            PeeringSettings(sign_ms=options.sign_ms, idle_ms=options.idle_ms),
            person=PHARMACIST,
            random=random.Random(),
        )
        self.moments = _Moments(self.ledger, self.peering)
        self.pump = Pump(self.peering, wall_ms=clock.now_ms)
        node = self.ledger.node
        self.link = NatsLink(
            LINK, options.urls, on_message=self.pump.message, on_change=self._changed, clock=clock,
            jitter=random.Random(), tls=client_tls(node.realm), login=Login(node.keys.signing),
            settings=NatsSettings(ping_interval_s=options.ping_s),
        )  # fmt: skip
        self.pump.add(self.link)
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(self.pump.run())]

    def _changed(self, status: LinkStatus) -> None:
        if status.state is LinkState.UP:
            self.moments.up_ns = time.monotonic_ns()
            self.moments.up_bytes = status.sent_bytes + status.received_bytes
        self.pump.changed(status)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.ledger.close()

    # --- commands: one method each ------------------------------------------------------------------------------------

    async def connect(self) -> dict[str, Any]:
        self._tasks.append(asyncio.create_task(self.link.run()))
        return {}

    async def status(self) -> dict[str, Any]:
        status = self.link.status()
        peers = list(self.peering.peers)
        failed = [str(task.exception()) for task in self._tasks if task.done()]
        return {
            "up": status.state is LinkState.UP,
            "bytes": status.sent_bytes + status.received_bytes,
            "sent": status.sent_bytes,
            "new": self.moments.new,
            "rounds": sum(peer.rounds for peer in peers),
            "busy": any(peer.in_round for peer in peers),
            "sending": any(peer.sending for peer in peers),
            "cpu_s": time.process_time(),
            "failed": failed,
        }

    async def digests(self) -> dict[str, str]:
        exchange = self.ledger.exchange
        return {
            district: exchange.district_digest(district).hex() for district in sorted(exchange.districts())
        }

    async def happened(self) -> dict[str, Any]:
        known = self.moments
        return {
            "up_ns": known.up_ns, "up_bytes": known.up_bytes, "spoke_ns": known.spoke_ns,
            "arrived": known.arrived, "entries": known.entries,
        }  # fmt: skip

    async def forget(self) -> dict[str, Any]:
        self.moments.forget()
        return {}

    async def round_trip(self) -> float:
        """Seconds, the shortest that the kernel saw."""
        transport = self.link._transport
        assert transport is not None
        assert transport.outflow is not None
        return transport.outflow._measure()[2] / 1e6

    async def round(self, node: str) -> dict[str, Any]:
        """Begin a round with a peer."""
        now_ms = self.pump.now_ms()
        await self.pump.call(
            lambda peering: peering.converse(NodeId(bytes.fromhex(node)), now_ms, ROUND_BYTES)
        )
        return {}

    async def write(self, count: int, of: str) -> dict[str, Any]:
        """Write dispensings in bulk, told to nobody."""
        await asyncio.to_thread(fill, self.ledger.node, count, of=of)
        return {}

    async def prescribe(self, count: int, holder: str, gap_ms: float = 0) -> list[str]:
        """Write prescriptions, one at a time, each told to the district; returns their documents."""
        documents = []
        for number in range(count):
            asked = order(number, holder=bytes.fromhex(holder))
            receipt = await asyncio.to_thread(self.ledger.prescribe, asked, person=PRESCRIBER)
            documents.append(receipt.document.hex())
            await asyncio.sleep(gap_ms / 1000)
        return documents

    async def dispense(self, document: str, number: int) -> tuple[str, int]:
        """Dispense a fill; returns feed and sequence of the entry, and the bytes of its frame in NATS' words."""
        supply = Supply(fill=number, quantity=100, pharmacy=PHARMACY)
        receipt = await asyncio.to_thread(
            self.ledger.dispense, DocumentId(bytes.fromhex(document)), supply, person=PHARMACIST
        )
        stored = self.ledger.node.store.by_link(receipt.link)
        assert stored is not None
        frame = encode_live(Live(LIVE_VERSION, stored.feed, stored.entry(), stored.previous))
        subject = live(self.ledger.node.realm.id, self.ledger.node.identity.district)
        return f"{stored.feed.hex()}:{stored.sequence}", _published(subject, len(frame))

    async def sign_bytes(self) -> int:
        """What a sign of life costs its giver, in NATS' words."""
        node = self.ledger.node
        district, sign = (
            node.identity.district,
            Here(node.identity.node, self.peering.peers.stamp(), bytes(8)),
        )
        frame = encode_here(node.realm.id, district, sign, node.keys.signing)
        return _published(here(node.realm.id, district), len(frame))

    async def claim(self, document: str, number: int) -> dict[str, Any]:
        """Claim a fill from its holder and wait for it."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        begun, now_ms = time.monotonic_ns(), self.pump.now_ms()
        await self.pump.call(
            lambda peering: peering.requests.claim(
                None, DocumentId(bytes.fromhex(document)), (number,), command=os.urandom(16), now_ms=now_ms,
                deadline_ms=now_ms + 20_000,
                done=lambda told: loop.call_soon_threadsafe(answered.set_result, told) and None,
            )
        )  # fmt: skip
        told = await answered
        return {"code": told.code, "ms": (time.monotonic_ns() - begun) / 1e6}


def _published(subject: str, size: int) -> int:
    return len(f"PUB {subject} {size}\r\n\r\n") + size


async def _serve(options: Options) -> None:
    node = _Node(options)
    loop = asyncio.get_running_loop()
    try:
        print(json.dumps({"node": node.ledger.node.identity.node.hex()}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            told = json.loads(line)
            command: Callable[..., Any] = getattr(node, told.pop("do"))
            print(json.dumps(await command(**told)), flush=True)
    finally:
        await node.close()


def start_module(module: str, told: str, command: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a module of this tree that is told what to do; `command` goes before it: what enters a namespace."""
    root = Path(__file__).resolve().parents[1]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*command, sys.executable, "-m", module, told],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip


class Told:
    """The handle of such a process; a context manager that ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        try:
            self.node: str = self._answer()["node"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let it close its stores and end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, what: str, **more: Any) -> Any:
        """Give a command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with code {self._process.wait()}")
        return json.loads(line)


class Child(Told):
    """The handle of a node in a process of its own."""

    def __init__(self, options: Options, *, command: Sequence[str] = ()) -> None:
        super().__init__(start_module(MODULE, msgspec.json.encode(options, enc_hook=str).decode(), command))

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """Ask for its status until it is so."""
        deadline = time.monotonic() + seconds
        while True:
            status: dict[str, Any] = self.ask("status")
            if status["failed"]:
                raise RuntimeError(f"a part of the node ended: {status['failed']}")
            if condition(status):
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {seconds} s: {status}")
            time.sleep(POLL_SECONDS)


def main() -> None:
    """Run the process."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    options = msgspec.json.decode(sys.argv[1], type=Options, dec_hook=lambda kind, value: kind(value))
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
