"""The daemon: one process that owns a node's store, keeps its links, and does what is due.

It replicates continuously over every link that is up, takes in and writes out the spool folder, serves the owner's socket
to other processes, measures, raises the readiness level by itself when the agency stays silent, and in its window does the
night's work. It stops cleanly on SIGTERM; what it had acknowledged before a kill -9 is on disk.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any, TypeVar

import structlog

from ledger import Clock, Coded, Patient, Person, PersonRole, SystemClock
from ledger.errors import CommandRefused, RxLedgerError, StoreBusy, StoreDamaged
from ledger.identity import NodeRole
from ledger.ids import DocumentId, NodeId
from ledger.keystore import Unlock
from ledger.retention import drop_retired
from nodes.acquaintances import PeeringSettings
from nodes.daemon.config import DaemonConfig, LinkConfig, NightlyConfig
from nodes.daemon.host import notify, stop_signals, watchdog_s
from nodes.daemon.metrics import MetricsServer
from nodes.daemon.night import Night
from nodes.daemon.pump import Pump
from nodes.daemon.readiness import SiteLedger
from nodes.daemon.report import NightReport
from nodes.daemon.scrub import Scrub
from nodes.daemon.spool import Spool, SpoolReport, spool_of
from nodes.daemon.standing import held_by_peers, peer_statuses
from nodes.daemon.status import STATUS_METHOD, NodeStatus, PeerStatus, node_status
from nodes.daemon.window import Opening, WindowMemory, current, following, zone_of
from nodes.lines import LinkSettings
from nodes.local.server import OwnerSocket
from nodes.nats.certificates import client_tls
from nodes.nats.link import NatsLink
from nodes.nats.nkeys import Login
from nodes.peering import Peering
from nodes.requests import Told

__all__ = ["CLAIM_METHOD", "FETCH_METHOD", "OPERATING", "Service", "run"]

OPERATING = "rxledger-daemon"
"""Code of the acting "person" where no person acts: transfers that answer a claim."""
OPERATOR_SYSTEM = "urn:rxledger:operator"
CLAIM_METHOD, FETCH_METHOD = "daemon.claim", "daemon.fetch"
"""On the owner's socket."""
WAIT_MS_MAX = 10 * 60_000
"""How long a claim or fetch may be waited for."""
HOUSEKEEPING_SECONDS = 5.0
"""Between looks for keys of new epochs, arrivals to index and content to drop."""
OPEN_SECONDS = 10.0
"""How long the store may belong to another process when the daemon starts: a command ends, a backup is put in place."""
OPEN_PAUSE_SECONDS = 0.02
LOOK_SECONDS = 1.0
"""Between looks at the clock: it may be set, or the machine may have slept."""
REFUSED_SECONDS = 10.0
"""After something was refused, for want of room on the disk above all."""
CALL_SECONDS = 30.0
"""For a status from another thread: the conversations are in the midst of something long."""
T = TypeVar("T")

log = structlog.get_logger("rxledger")


class Service:
    """All parts of one daemon, on one event loop."""

    def __init__(
        self, config: DaemonConfig, ledger: SiteLedger, unlock: Unlock, clock: Clock, jitter: random.Random
    ) -> None:
        self._config, self._ledger, self._unlock, self._clock = config, ledger, unlock, clock
        self._loop = asyncio.get_running_loop()
        self._jitter = jitter
        settings = PeeringSettings(peers=config.peers.ids())
        peering = Peering(
            ledger,
            [_settings_of(link) for link in config.links],
            settings,
            person=Person(Coded(OPERATOR_SYSTEM, OPERATING), PersonRole.OPERATOR),
            random=jitter,
        )
        self._pump = Pump(peering, wall_ms=clock.now_ms)
        self._links = [self._link(link) for link in config.links]
        for link in self._links:
            self._pump.add(link)
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="slow")
        self._memory = WindowMemory(config.node)
        self._started_ms = clock.now_ms()
        self._night_running = False
        self._spooled: SpoolReport | None = None
        self._scrub = Scrub(config.node, unlock, clock)

    def _link(self, config: LinkConfig) -> NatsLink:
        node = self._ledger.node
        return NatsLink(
            config.name,
            config.urls,
            on_message=self._pump.message,
            on_change=self._pump.changed,
            clock=self._clock,
            jitter=self._jitter,
            tls=client_tls(node.realm) if config.tls else None,
            login=Login(node.keys.signing),
        )

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self, *, nightly_only: bool = False) -> int:
        """Until SIGTERM or SIGINT; with `nightly_only`, until one night's work is done. Returns an exit code.

        Raises:
            StoreDamaged: the node cannot go on.
        """
        tasks: dict[str, Coroutine[Any, Any, object]] = {
            **{f"link {link.name}": link.run() for link in self._links},
            "conversations": self._pump.run(),
            "housekeeping": self._every(
                HOUSEKEEPING_SECONDS, "housekeeping", lambda: self._in_thread(self._keep)
            ),
            "watchdog": self._watchdog(),
        }
        config, night = self._config, None
        if config.spool is not None:
            spool = spool_of(config.spool, self._ledger)
            tasks["spool"] = self._every(config.spool.interval_s, "spool", lambda: self._look_at_spool(spool))
        if nightly_only:
            night = "night"
            tasks[night] = self._one_night()
        elif (nightly := config.nightly) is not None:
            tasks["nights"] = self._every(LOOK_SECONDS, "night", lambda: self._night_if_due(nightly))
        with ExitStack() as stack, stop_signals(self._loop) as stop:
            stack.callback(self._slow.shutdown)
            stack.callback(self._scrub.close)
            stack.enter_context(self._socket())
            address = self._config.metrics_address()
            if address is not None:
                stack.enter_context(MetricsServer(address, self.status))
            running = {asyncio.create_task(work, name=name): name for name, work in tasks.items()}
            waiting = asyncio.create_task(stop.wait(), name="stop")
            notify("READY=1")
            log.info("daemon.started", node=self._ledger.node.identity.node.hex(), links=len(self._links))
            try:
                done, _ = await asyncio.wait({*running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                notify("STOPPING=1")
                for task in (*running, waiting):
                    task.cancel()
                results = await asyncio.gather(*running, waiting, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, asyncio.CancelledError):
                    raise result
            report = next((t.result() for t in done if t in running and running[t] == night), None)
            log.info("daemon.stopped")
            return 0 if not nightly_only or (isinstance(report, NightReport) and report.whole) else 1

    def _socket(self) -> OwnerSocket:
        socket = OwnerSocket(
            self._ledger, self._config.node, path=self._config.socket, group=self._config.socket_group
        )
        socket.register(STATUS_METHOD, self.status)
        socket.register(CLAIM_METHOD, self.claim, writes=True)
        socket.register(FETCH_METHOD, self.fetch, writes=True)
        return socket

    # --- for other threads -------------------------------------------------------------------------------------------

    def _on_loop(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run on the loop, from another thread.

        Raises:
            CommandRefused: it takes too long, or the daemon is stopping.
        """
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            future.cancel()
            raise CommandRefused("the daemon is busy or stopping", advice="ask again") from error

    def status(self) -> NodeStatus:
        """How this node stands."""
        peers, links = self._on_loop(self._standing(), CALL_SECONDS)
        next_ms = 0
        if self._config.nightly is not None:
            zone = zone_of(self._config.nightly)
            next_ms = following(self._config.nightly, self._memory.state, self._clock.now_ms(), zone)
        return node_status(
            self._ledger, self._config.node, site=self._config.readiness, running=True, peers=peers, links=links,
            started_ms=self._started_ms, next_window_ms=next_ms, window_running=self._night_running,
            refusals=self._pump.peering.refused, notes=self._notes(),
        )  # fmt: skip

    async def _standing(self) -> tuple[list[PeerStatus], tuple[Any, ...]]:
        return await self._pump.call(peer_statuses), tuple(self._pump.links())

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._pump.faults:
            notes.append(
                f"{self._pump.faults} messages met a fault of this program: see the log, and report it"
            )
        if self._pump.lost:
            notes.append(f"{self._pump.lost} messages came in faster than they could be looked at")
        if self._spooled is not None and self._spooled.problem:
            notes.append(f"the spool folder cannot be used: {self._spooled.problem}")
        return tuple(notes)

    def claim(
        self,
        document: DocumentId,
        fills: list[int],
        command: bytes,
        *,
        holder: bytes = b"",
        wait_ms: int = 15_000,
    ) -> Told:
        """Ask the holder of fills for them, and wait for the answer.

        Args:
            document: of a prescription that is held here.
            fills: their numbers.
            command: 16 bytes; asking again with the same is one claim.
            holder: the node to ask; empty: who holds them, as known here.
            wait_ms: how long to wait, at most ten minutes.

        Raises:
            NotFound: the prescription is not held here, or nobody is known to hold the fills.
        """
        wait_ms = min(wait_ms, WAIT_MS_MAX)
        return self._on_loop(
            self._requested(
                lambda peering, done: peering.requests.claim(
                    NodeId(holder) if holder else None, document, tuple(fills), command=command,
                    now_ms=self._pump.now_ms(), deadline_ms=self._pump.now_ms() + wait_ms, done=done,
                )
            ),
            wait_ms / 1000 + CALL_SECONDS,
        )  # fmt: skip

    def fetch(
        self, holder: bytes, person: Person, purpose: str, *, document: bytes = b"", patient: Patient | None = None,
        request: bytes, wait_ms: int = 60_000,
    ) -> Told:  # fmt: skip
        """Ask a node of another district for a document, or a patient's: entries, and keys that open them.

        Args:
            holder: the node to ask, which holds the keys.
            person: who asks; it is logged there.
            purpose: what for; logged too.
            document: 16 bytes, or empty.
            patient: whose, if no document is named.
            request: 16 bytes of the caller's choice.
            wait_ms: how long to wait, at most ten minutes.
        """
        wait_ms = min(wait_ms, WAIT_MS_MAX)
        return self._on_loop(
            self._requested(
                lambda peering, done: peering.requests.fetch(
                    NodeId(holder), request=request, person=person, purpose=purpose,
                    document=DocumentId(document) if document else None, patient=patient,
                    now_ms=self._pump.now_ms(), deadline_ms=self._pump.now_ms() + wait_ms, done=done,
                )
            ),
            wait_ms / 1000 + CALL_SECONDS,
        )  # fmt: skip

    async def _requested(self, ask: Callable[[Peering, Callable[[Told], None]], None]) -> Told:
        answered: asyncio.Future[Told] = self._loop.create_future()

        def answer(told: Told) -> None:
            if not answered.done():
                answered.set_result(told)

        def done(told: Told) -> None:
            self._loop.call_soon_threadsafe(answer, told)

        await self._pump.call(lambda peering: ask(peering, done))
        return await answered

    # --- what is due -------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._slow, work)

    async def _every(self, seconds: float, what: str, turn: Callable[[], Awaitable[object]]) -> None:
        """Do something again and again. What is refused, for want of room above all, is tried later; damage ends the daemon.

        With a full disk a node goes on reading and giving, and takes up writing once there is room.
        """
        while True:
            pause = seconds
            try:
                await turn()
            except StoreDamaged:
                raise
            except RxLedgerError as error:
                log.error("daemon.refused", what=what, code=error.code)
                pause = max(seconds, REFUSED_SECONDS)
            await asyncio.sleep(pause)

    def _keep(self) -> None:
        """Keys of new epochs, the index of what arrived, retention."""
        identity = self._ledger.node.identity
        if identity.district and identity.role is not NodeRole.RELAY:
            # After a fork or a restored backup: others can name as holder only a feed that they know.
            with self._ledger.node.lock:
                self._ledger.node.own_feed(identity.district)
        self._ledger.stewardship.take_epochs()
        self._ledger.inquiry.settle()
        dropped = drop_retired(self._ledger.node)
        if dropped:
            log.info("retention.dropped", documents=dropped)

    async def _look_at_spool(self, spool: Spool) -> None:
        now_ms = self._clock.now_ms()
        taken = self._spooled = await self._in_thread(lambda: spool.take_in(now_ms))
        known = await self._pump.call(held_by_peers)
        await self._in_thread(lambda: spool.write_out(known, now_ms))
        if taken.new_entries:
            await self._in_thread(self._keep)

    async def _watchdog(self) -> None:
        seconds = watchdog_s()
        while True:
            await asyncio.sleep(seconds or 3600)
            # A loop that turns and conversations that answer: what systemd is to know of.
            await self._pump.call(lambda _: None)
            notify("WATCHDOG=1")

    async def _night_if_due(self, config: NightlyConfig) -> None:
        opening = current(config, self._memory.state, self._clock.now_ms(), zone_of(config))
        if opening is not None:
            await self._night(opening)

    async def _one_night(self) -> NightReport:
        """One night's work now, whatever the schedule."""
        config = self._config.nightly
        if config is None:
            raise CommandRefused(
                "no [nightly] is configured", advice="write what a night is to do into node.toml"
            )
        now_ms = self._clock.now_ms()
        zone = zone_of(config)
        opening = current(config, self._memory.state, now_ms, zone)
        if opening is None:
            night = datetime.fromtimestamp(now_ms / 1000, zone).date()
            opening = Opening(
                night=night, opens_ms=now_ms, closes_ms=now_ms + config.duration_minutes * 60_000
            )
        return await self._night(opening, alone=True)

    async def _night(self, opening: Opening, *, alone: bool = False) -> NightReport:
        assert self._config.nightly is not None
        self._night_running = True
        try:
            night = Night(
                self._config.nightly, self._config.node, self._pump, self._memory, self._scrub,
                now_ms=self._clock.now_ms, in_thread=self._in_thread, alone=alone,
            )  # fmt: skip
            return await night.run(opening)
        finally:
            self._night_running = False


def _settings_of(link: LinkConfig) -> LinkSettings:
    return LinkSettings(name=link.name, bits_per_second=link.bandwidth_bits_per_s, thin=link.slow)


def _opened(config: DaemonConfig, unlock: Unlock, clock: Clock) -> SiteLedger:
    """The node's ledger, as soon as nobody else writes its store.

    Raises:
        StoreBusy: somebody does for longer than `OPEN_SECONDS`.
    """
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return SiteLedger.open(config.node, unlock, clock=clock).at(config.readiness)
        except StoreBusy:
            if time.monotonic() >= deadline:
                raise
        time.sleep(OPEN_PAUSE_SECONDS)


def run(
    config: DaemonConfig, unlock: Unlock, *, nightly_only: bool = False, clock: Clock | None = None
) -> int:
    """Run a daemon in this process until it is told to stop; returns its exit code.

    Raises:
        RxLedgerError: the node cannot be opened, or cannot go on.
    """
    clock = clock or SystemClock()
    ledger = _opened(config, unlock, clock)
    # For back-off and choice only: the system's entropy, so that no two nodes do the same.
    jitter = random.SystemRandom()

    async def serve() -> int:
        return await Service(config, ledger, unlock, clock, jitter).run(nightly_only=nightly_only)

    try:
        return asyncio.run(serve())
    finally:
        ledger.close()
