"""A hub that speaks NATS and cannot be trusted: it drops, repeats, delays past others, swaps and spoils what it carries.

`HostileHub` is a whole server in Python: enough of the protocol for clients (INFO, CONNECT, PING, PONG, SUB, UNSUB,
PUB, MSG), with faults from a seed. Clients that connect cannot tell it from a real one. `Rudeness` says what else it
does to each of them, once: what no honest server would send.

One event loop each; `in_thread` runs one beside a test that has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.loops import LoopThread

__all__ = ["Faults", "HostileHub", "Rudeness", "in_thread"]

MESSAGE_BYTES_MAX = 1024 * 1024
LATE_MAX = 64
"""Messages that wait to be overtaken, at most."""
HANDSHAKE_PINGS = 2
"""One with CONNECT, one when a client has subscribed."""
PINGS = 200_000
"""Questions of a hub that never reads the answers."""


def _other_servers(first: int) -> bytes:
    named = [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:4222" for n in range(first, first + 1000)]
    return b"INFO " + json.dumps({"connect_urls": named}).encode() + b"\r\n"


OTHER_SERVERS = [_other_servers(first) for first in range(0, 50_000, 1000)]


class Rudeness(enum.StrEnum):
    """What a hub does to each client after the handshake, or instead of it."""

    NONE = "none"
    SILENT = "accepts, and says nothing"
    NOT_NATS = "says something else"
    LONG_LINE = "a first line without an end"
    NO_PONG = "stops answering pings"
    DENIES = "authorization violation"
    ENDLESS = "a message of 8 GB"
    ENDLESS_LINE = "a line without an end"
    GARBAGE = "unprintable lines"
    NOT_TEXT = "a subject that is not UTF-8"
    PINGS = "asks and never reads"
    SERVERS = "names a million other servers"
    PONGS = "answers what was not asked"
    SMALL = "takes only small messages"
    STRANGE_SIZE = "a largest message that is no number"


@dataclass(frozen=True)
class Faults:
    """Chances from 0 to 1, drawn for each delivery by one generator."""

    drop: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    """Kept, and delivered after later ones."""
    swap: float = 0.0
    """Delivered with the payload of another message, of any subject."""
    spoil: float = 0.0
    """One bit turned over."""
    cut: float = 0.0
    """Shortened."""


@dataclass(eq=False)
class _Client:
    writer: asyncio.StreamWriter
    subscriptions: dict[bytes, bytes] = field(default_factory=dict)


class HostileHub:
    """Listens on a port of loopback until stopped."""

    def __init__(
        self, seed: int = 0, faults: Faults | None = None, rudeness: Rudeness = Rudeness.NONE
    ) -> None:
        self.faults, self.rudeness = faults or Faults(), rudeness
        self.counts = dict.fromkeys(("delivered", "drop", "repeat", "late", "swap", "spoil", "cut"), 0)
        """How often each happened: a test must see that its fault did."""
        self.connections = 0
        self.url = ""
        self._random = random.Random(seed)
        self._clients: set[_Client] = set()
        self._late: list[tuple[bytes, bytes]] = []
        self._last: list[bytes] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> HostileHub:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"nats://{host}:{port}"
        return self

    async def stop(self) -> None:
        """Drop everybody and stop listening."""
        assert self._server is not None
        self._server.close()
        while self._clients:
            for client in list(self._clients):
                client.writer.transport.abort()
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def _info(self) -> bytes:
        told = {
            "server_id": "H",
            "version": "2.15.0",
            "proto": 1,
            "max_payload": MESSAGE_BYTES_MAX,
            "headers": True,
        }
        if self.rudeness is Rudeness.SMALL:
            told["max_payload"] = 100
        elif self.rudeness is Rudeness.STRANGE_SIZE:
            told["max_payload"] = "much"
        return b"INFO " + json.dumps(told).encode() + b"\r\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        self._clients.add(client)
        self.connections += 1
        try:
            if self.rudeness is Rudeness.SILENT:
                await reader.read()
            elif self.rudeness is Rudeness.NOT_NATS:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await reader.read()
            elif self.rudeness is Rudeness.LONG_LINE:
                await self._pour(writer, b"INFO " + b"x" * 4096)
            else:
                writer.write(self._info())
                await self._converse(client, reader)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self._clients.discard(client)
            writer.transport.abort()

    async def _converse(self, client: _Client, reader: asyncio.StreamReader) -> None:
        greeted, pings = False, 0
        while line := await reader.readline():
            word, _, rest = line.strip().partition(b" ")
            match word.upper():
                case b"PING":
                    if self.rudeness is Rudeness.DENIES:
                        client.writer.write(b"-ERR 'Authorization Violation'\r\n")
                        return
                    pings += 1
                    if pings <= HANDSHAKE_PINGS or self.rudeness is not Rudeness.NO_PONG:
                        client.writer.write(b"PONG\r\n")
                case b"SUB":
                    subject, *_, number = rest.split()
                    client.subscriptions[number] = subject
                    if not greeted:
                        greeted = True
                        await self._be_rude(client, number)
                case b"UNSUB":
                    client.subscriptions.pop(rest.split()[0], None)
                case b"PUB":
                    subject, *_, size = rest.split()
                    payload = (await reader.readexactly(int(size) + 2))[:-2]
                    self._carry(client, subject, payload)

    # --- faults -----------------------------------------------------------------------------------------------------

    def _happens(self, fault: str) -> bool:
        if self._random.random() >= getattr(self.faults, fault):
            return False
        self.counts[fault] += 1
        return True

    def _carry(self, sender: _Client, subject: bytes, payload: bytes) -> None:
        self._last = [*self._last[-15:], payload]
        due = [(subject, payload)]
        if self._happens("drop"):
            due.clear()
        elif self._happens("repeat"):
            due *= 2
        if due and len(self._late) < LATE_MAX and self._happens("late"):
            self._late += due
            due = []
        elif self._late:
            # Whatever passes may bring one of those with it that it overtook.
            due.append(self._late.pop(self._random.randrange(len(self._late))))
        for one in due:
            self._deliver(sender, *one)

    def _deliver(self, sender: _Client, subject: bytes, payload: bytes) -> None:
        if self._happens("swap"):
            payload = self._random.choice(self._last)
        if payload and self._happens("spoil"):
            at = self._random.randrange(len(payload))
            payload = payload[:at] + bytes([payload[at] ^ 1 << self._random.randrange(8)]) + payload[at + 1 :]
        if payload and self._happens("cut"):
            payload = payload[: self._random.randrange(len(payload))]
        for client in self._clients:
            for number, pattern in client.subscriptions.items():
                if client is not sender and _fits(pattern, subject):
                    self.counts["delivered"] += 1
                    client.writer.write(b"MSG %b %b %d\r\n%b\r\n" % (subject, number, len(payload), payload))

    # --- rudeness ---------------------------------------------------------------------------------------------------

    async def _be_rude(self, client: _Client, number: bytes) -> None:
        write = client.writer.write
        match self.rudeness:
            case Rudeness.ENDLESS:
                write(b"MSG x %b 8000000000\r\n" % number)
                await self._pour(client.writer, bytes(65536))
            case Rudeness.ENDLESS_LINE:
                await self._pour(client.writer, b"INFO " + b"x" * 65536)
            case Rudeness.GARBAGE:
                write(b"\x00\xff\xfe nonsense\r\n" * 100)
            case Rudeness.NOT_TEXT:
                write(b"MSG \xff\xfe %b 1\r\nx\r\n" % number)
            case Rudeness.PINGS:
                for _ in range(PINGS // 1000):
                    write(b"PING\r\n" * 1000)
                    await client.writer.drain()
                await client.writer.wait_closed()
            case Rudeness.SERVERS:
                for line in OTHER_SERVERS * 20:
                    write(line)
                    await client.writer.drain()
            case Rudeness.PONGS:
                write(b"PONG\r\n" * 10_000)
            case _:
                pass

    @staticmethod
    async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
        """For ever, or until the client has had enough."""
        while True:
            writer.write(data)
            await writer.drain()


def _fits(pattern: bytes, subject: bytes) -> bool:
    wanted, given = pattern.split(b"."), subject.split(b".")
    if wanted[-1] == b">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(w in (b"*", g) for w, g in zip(wanted, given, strict=True))


@contextmanager
def in_thread(make: Callable[[], HostileHub]) -> Iterator[HostileHub]:
    """A hub with a loop of its own, for tests without one."""
    with LoopThread() as loop:
        hub = loop.do(make)
        loop.call(hub.start())
        try:
            yield hub
        finally:
            with contextlib.suppress(ConnectionError):
                loop.call(hub.stop())
