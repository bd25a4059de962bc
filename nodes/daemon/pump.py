"""Carries between links and conversations: bytes in from the event loop, decisions in one worker thread, bytes out again.

The conversations (`nodes.peering`) verify, read and write, which takes milliseconds to seconds, so they run in a thread of
their own; the loop only moves bytes and keeps the links alive. What comes in waits in bounded queues, one a sender,
so that nobody's flood delays anybody else. What goes out waits here, urgent ahead of the rest, until its link has room.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

import structlog

from ledger.errors import StoreDamaged, StoreFull
from ledger.writing import Written
from nodes.daemon.inflow import Inflow, Received
from nodes.lines import Outgoing
from nodes.links import Link, LinkState, LinkStatus
from nodes.peering import Peering

__all__ = ["Pump"]

BATCH = 64
"""Messages looked at before answers go out: some ten milliseconds."""
EACH = 16
"""Of one sender: the dearest of a hostile one (a branch of its own feed) take 20 ms each, and the others wait for that."""
LARGE_BYTES = 4096
"""From here on a message is taken to bring entries that catch up."""
TOGETHER_BYTES_MAX = 256 * 1024
"""Of such messages, made durable at once: a flush costs for one what it costs for several. Who writes waits so long."""
OUTBOX_BYTES_MAX = 16 * 1024 * 1024
"""What may wait for one link; more is lost, and asked for again."""
RETRY_SECONDS = 0.01
"""When a link that was behind is tried again."""
T = TypeVar("T")

log = structlog.get_logger("rxledger")


def _together(batch: Iterable[Received]) -> Iterator[list[Received]]:
    """What came in, in order; large messages that follow each other together, every other by itself."""
    some: list[Received] = []
    size = 0
    for received in batch:
        length = len(received.payload)
        if some and (length < LARGE_BYTES or size + length > TOGETHER_BYTES_MAX):
            yield some
            some, size = [], 0
        some.append(received)
        size += length
        if length < LARGE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


class _Outbox:
    """What waits for one link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.urgent: deque[Outgoing] = deque()
        self.rest: deque[Outgoing] = deque()
        self.bytes = 0
        self.lost = 0

    def put(self, message: Outgoing) -> None:
        if self.bytes + len(message.payload) > OUTBOX_BYTES_MAX:
            self.lost += 1
            return
        self.bytes += len(message.payload)
        (self.urgent if message.urgent else self.rest).append(message)

    def flush(self) -> bool:
        """Hand over what the link takes; False if something is left for later."""
        link = self.link
        while queue := self.urgent or self.rest:
            size = len(queue[0].payload)
            if link.room() < size and (link.below() or link.status().state is LinkState.DOWN):
                if link.status().state is LinkState.DOWN:
                    self.lost += len(self.urgent) + len(self.rest)
                    self.urgent.clear()
                    self.rest.clear()
                    self.bytes = 0
                    return True
                return False
            message = queue.popleft()
            self.bytes -= size
            if not link.send(message.subject, message.payload):
                self.lost += 1
        return True


class Pump:
    """Runs one `Peering` over its links. Made, run and closed on one event loop."""

    def __init__(
        self, peering: Peering, *, wall_ms: Callable[[], int], worker: ThreadPoolExecutor | None = None
    ) -> None:
        """`worker` has one thread, and may be shared by several nodes of one process; None: one of its own."""
        self.peering = peering
        self._loop = asyncio.get_running_loop()
        self._shared = worker is not None
        self._worker = worker or ThreadPoolExecutor(1, thread_name_prefix="peering")
        self._outboxes: dict[str, _Outbox] = {}
        self._inflow = Inflow()
        self._changes: deque[tuple[str, bool]] = deque()
        self._stirred = asyncio.Event()
        self._again: asyncio.TimerHandle | None = None
        self._subjects: tuple[str, ...] = ()
        self._start_wall_ms, self._start_s = wall_ms(), time.monotonic()
        self.faults = 0
        """Messages that brought a fault of ours to light; see the log."""
        peering.ledger.node.on_written.append(self._written)

    def now_ms(self) -> int:
        """The wall's time when this was made, and what has passed since: it never steps back."""
        return self._start_wall_ms + int((time.monotonic() - self._start_s) * 1000)

    @property
    def lost(self) -> int:
        """Messages that came in faster than they could be looked at."""
        return self._inflow.lost

    # --- from the links -----------------------------------------------------------------------------------------------

    def add(self, link: Link) -> None:
        """Add a link before it runs; its `on_message` and `on_change` are `message` and `changed` of this pump."""
        self._outboxes[link.name] = _Outbox(link)
        self._subjects = self.peering.subjects()
        link.listen(self._subjects)

    def message(self, link: str, subject: str, payload: bytes) -> None:
        """A message came in. On the loop."""
        self._inflow.put(Received(link, subject, payload))
        self._stirred.set()

    def changed(self, status: LinkStatus) -> None:
        """A link went up or down. On the loop."""
        self._changes.append((status.name, status.state is LinkState.UP))
        self._stirred.set()

    def links(self) -> Sequence[LinkStatus]:
        """As they stand."""
        return [box.link.status() for box in self._outboxes.values()]

    def _written(self, _district: str, _written: Written) -> None:
        """An entry of ours is durable. In any thread."""
        self.peering.written(_district, _written)
        self._loop.call_soon_threadsafe(self._stirred.set)

    # --- turns ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Links are run by whoever made them.

        Raises:
            StoreFull, StoreDamaged: this node's own disk refuses.
        """
        try:
            while True:
                next_ms = await self._loop.run_in_executor(self._worker, self._peek)
                wait_s = max(0.0, (next_ms - self.now_ms()) / 1000)
                if not self._stirred.is_set() and wait_s > 0:
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._stirred.wait()
                    except TimeoutError:
                        pass
                self._stirred.clear()
                await self._turn()
        finally:
            self.peering.ledger.node.on_written.remove(self._written)
            if self._again is not None:
                self._again.cancel()
            if not self._shared:
                self._worker.shutdown(wait=True)

    def _peek(self) -> int:
        return self.peering.next_ms(self.now_ms())

    async def _turn(self) -> None:
        batch = self._inflow.take(BATCH, EACH)
        changes, self._changes = self._changes, deque()
        clear = {
            name
            for name, box in self._outboxes.items()
            if not box.urgent and not box.rest and box.link.room() > 0
        }
        out, subjects = await self._loop.run_in_executor(self._worker, self._work, changes, batch, clear)
        if subjects != self._subjects:
            self._subjects = subjects
            for box in self._outboxes.values():
                box.link.listen(subjects)
        for message in out:
            self._outboxes[message.link].put(message)
        if len(self._inflow):
            self._stirred.set()
        self._flush()

    def _work(
        self, changes: deque[tuple[str, bool]], batch: list[Received], clear: set[str]
    ) -> tuple[list[Outgoing], tuple[str, ...]]:
        peering, now_ms = self.peering, self.now_ms()
        for name, up in changes:
            if up:
                peering.link_up(name, now_ms)
            else:
                peering.link_down(name)
        node = peering.ledger.node
        for some in _together(batch):
            try:
                # What answers them is made after the transaction, so nobody is told before it is durable (R1).
                with node.lock, node.transaction() if len(some[0].payload) >= LARGE_BYTES else nullcontext():
                    for received in some:
                        self._take(received, now_ms)
            except StoreFull:
                # Nothing of it was kept; it comes again once there is room, and what is held can still be read and given.
                log.critical("store.full")
        try:
            return peering.poll(self.now_ms(), clear), peering.subjects()
        except StoreFull:
            log.critical("store.full")
            return [], self._subjects

    def _take(self, received: Received, now_ms: int) -> None:
        try:
            self.peering.received(received.link, received.subject, received.payload, now_ms)
        except (StoreFull, StoreDamaged):
            raise
        except Exception as error:
            # A fault of ours that some bytes brought to light must not end the node for whoever sent them.
            self.faults += 1
            log.exception("received.fault", kind=type(error).__name__)

    def _flush(self) -> None:
        waiting = False
        for box in self._outboxes.values():
            had = bool(box.urgent or box.rest)
            if not box.flush() or (box.link.room() == 0 and box.link.status().state is LinkState.UP):
                waiting = True
            elif had:
                # There is room again for what goes piece by piece.
                self._stirred.set()
        if waiting and self._again is None:
            self._again = self._loop.call_later(RETRY_SECONDS, self._flush_again)

    def _flush_again(self) -> None:
        self._again = None
        self._flush()
        self._stirred.set()

    async def call(self, function: Callable[[Peering], T]) -> T:
        """Run something on the conversations, between two turns."""
        result = await self._loop.run_in_executor(self._worker, lambda: function(self.peering))
        self._stirred.set()
        return result
