"""A TCP relay on loopback that does to its bytes what a bad network would: hold, lose for good, delay, slow, break off.

For machines where network namespaces do not work, and for faults of a byte stream. Its buffers are small on purpose: a
relay that took in megabytes would acknowledge what has not arrived, and hide from the sender how slow the way is.

What it cannot do: lose or reorder single packets (TCP repairs those anyway), or leave a SYN unanswered (the kernel
answers; the connection then stays silent).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field

__all__ = ["DOWN", "UP", "Direction", "Proxy"]

UP, DOWN = 0, 1
"""From who connects to whom it connects to, and back."""
CHUNK_BYTES = 512
"""Forwarded at once: half a second at 9,600 bit/s."""
WINDOW_BYTES = 4096
"""Asked of the kernel for each socket; it doubles that for its own book-keeping."""
SEGMENT_BYTES = 536
"""Loopback's own 64 kB would open so small a window in jumps only."""
HELD_CHUNKS_MAX = 256
"""On the way, when there is a delay."""


@dataclass
class Direction:
    """What happens to bytes that go one way. May be changed at any time."""

    held: bool = False
    """Nothing passes, and nobody is told: a silent cut."""
    delay_s: float = 0.0
    bits_per_s: float = 0.0
    """0: no limit."""
    reset_after: int | None = None
    """Break the connection off after so many more bytes."""
    passed: int = 0
    """Bytes that came through."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """One relay: a port of loopback that leads to one address. Lives in one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.ways = (Direction(), Direction())
        self.refuses = False
        self.port = 0
        self.accepted = 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Proxy:
        """Listen on a free port."""
        listener = socket.socket()
        self._listener = listener
        # Inherited by what it accepts; set before listening, or the window is announced too large.
        _narrow(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listener))
        return self

    async def stop(self) -> None:
        """Break everything off and stop listening."""
        tasks = [*self._relays, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()

    # --- faults -----------------------------------------------------------------------------------------------------

    def hold(self, *ways: int) -> None:
        """Cut silently, both ways or one; new connections are accepted and stay silent."""
        for way in ways or (UP, DOWN):
            self.ways[way].held = True

    def release(self) -> None:
        """End `hold`: what was held comes first."""
        for way in self.ways:
            way.held = False
            way.changed.set()

    def heal(self) -> None:
        """Undo every fault."""
        self.refuses = False
        self.slow(0)
        for way in self.ways:
            way.reset_after = None
        self.release()

    def slow(self, bits_per_s: float, delay_s: float = 0.0) -> None:
        """Limit both ways."""
        for way in self.ways:
            way.bits_per_s, way.delay_s = bits_per_s, delay_s

    def reset_after(self, count: int, way: int) -> None:
        """Break off in the middle of whatever is being said after `count` more bytes."""
        self.ways[way].reset_after = count

    def reset(self) -> None:
        """Break off all connections now."""
        for relay in self._relays:
            relay.cancel()

    def refuse(self) -> None:
        """Break off all connections, and every new one at once."""
        self.refuses = True
        self.reset()

    # --- relaying ---------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            near.setblocking(False)
            self.accepted += 1
            if self.refuses:
                _close(near, broken=True)
                continue
            relay = asyncio.create_task(self._relay(near))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        far.setblocking(False)
        _narrow(far)
        broken = True
        try:
            await self._passing(self.ways[UP])
            await loop.sock_connect(far, self._target)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(near, far, self.ways[UP]))
                both.create_task(self._carry(far, near, self.ways[DOWN]))
            broken = False
        except* OSError:
            pass
        finally:
            _close(near, far, broken=broken)

    async def _carry(self, source: socket.socket, target: socket.socket, way: Direction) -> None:
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS_MAX)

        async def take() -> None:
            while True:
                await self._passing(way)
                data = await loop.sock_recv(source, CHUNK_BYTES if way.bits_per_s or way.delay_s else 65536)
                if way.bits_per_s:
                    # Before the delay, as a slow modem stands before a long way: so no more is on it than fits.
                    await asyncio.sleep(len(data) * 8 / way.bits_per_s)
                await held.put((loop.time() + way.delay_s, data))
                if not data:
                    return

        async def give() -> None:
            while True:
                due, data = await held.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._passing(way)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                if way.reset_after is not None:
                    data, way.reset_after = data[: way.reset_after], way.reset_after - len(data)
                    await loop.sock_sendall(target, data)
                    if way.reset_after <= 0:
                        way.reset_after = None
                        raise ConnectionResetError
                else:
                    await loop.sock_sendall(target, data)
                way.passed += len(data)

        async with asyncio.TaskGroup() as pair:
            pair.create_task(take())
            pair.create_task(give())

    @staticmethod
    async def _passing(way: Direction) -> None:
        while way.held:
            way.changed.clear()
            await way.changed.wait()


def _narrow(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


def _close(*sockets: socket.socket, broken: bool) -> None:
    """Close; if `broken` with RST instead of FIN, whatever was on its way."""
    for one in sockets:
        if broken:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
