"""The byte stream under a nats-py client: one that never waits for a dead peer, never grows, never falls back to clear.

nats-py 2.16 hands all its input and output to a `Transport`. Its own one waits, when it closes, until the far end has
taken what is left: for a silent peer, half an hour. This one differs in five things:

- it is *open before* the client gets it, so that a refused or silent server is our supervisor's to judge;
- it *aborts* instead of closing, and lets the kernel give up on unacknowledged bytes (TCP_USER_TIMEOUT);
- `drain` never blocks: what lies below us is bounded by `Outflow` before it is written, not by waiting after;
- it *refuses to speak in clear* where TLS was asked for: nats-py itself believes a server that says it has no TLS;
- what a hostile server makes us keep is bounded, on the way in and on the way out.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from urllib.parse import ParseResult

from nats.aio.transport import Transport

from nodes.nats.outflow import Outflow

__all__ = ["INCOMING_BYTES_MAX", "OUTGOING_BYTES_MAX", "HardTransport", "Insecure", "Overrun"]

LINE_BYTES_MAX = 64 * 1024
"""The server's longest line (INFO), with the addresses of a large cluster; parsing it takes some 10 ms."""
INCOMING_BYTES_MAX = 2 * 1024 * 1024
"""An unfinished message that a server makes us keep: twice the largest that servers take by default."""
OUTGOING_BYTES_MAX = 4 * 1024 * 1024
"""Beyond what `Outflow` lets in there are only answers to pings: more of them means a server that asks but never reads."""
NEXT_ADDRESS_SECONDS = 1.0
"""A name may stand for several addresses, and the first may lead nowhere; a round trip on a slow link is below this."""
CLOSED_TURNS = 3
"""Turns of the event loop until an aborted socket is closed: one for TCP, one more for TLS, one to be sure."""


class Insecure(ConnectionError):
    """One side asks for TLS and the other knows nothing of it. Nothing was sent."""


class Overrun(ConnectionError):
    """The server makes us keep more than a named limit allows."""


class HardTransport(Transport):
    """One TCP connection, with TLS on top if asked for. Used once."""

    def __init__(self, *, secure: bool, user_timeout_s: float, first_line_s: float) -> None:
        self._secure = secure
        self._user_timeout_s = user_timeout_s
        self._first_line_s: float | None = first_line_s
        self._reader: asyncio.StreamReader | None = None
        self._bare: asyncio.StreamWriter | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._socket: socket.socket | None = None
        self.outflow: Outflow | None = None
        self.kept: Callable[[], tuple[int, bool]] = lambda: (0, False)
        """Bytes that the client keeps of what it read and could not use yet; whether they are of a message."""
        self.alive: Callable[[], None] = lambda: None
        """Called when anything is read."""
        self.sent_bytes = 0
        """Given to the connection, above TLS."""
        self.received_bytes = 0
        """Taken from the connection, above TLS."""

    async def open(self, host: str, port: int, seconds: float) -> None:
        """Connect.

        Raises:
            OSError: refused, unreachable, no such name; TimeoutError if there was no answer in time.
        """
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(
                host, port, limit=LINE_BYTES_MAX, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS
            )
        self._reader, self._bare, self._writer = reader, writer, writer
        self._socket = writer.get_extra_info("socket")
        assert self._socket is not None
        self._socket.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._user_timeout_s * 1000))
        )
        self.outflow = Outflow(self._socket)

    def below(self) -> int:
        """Bytes between us and the far end: not acknowledged, not sent, not yet encrypted."""
        if self._bare is None or self._writer is None or self.outflow is None:
            return 0
        count = self.outflow.unacknowledged() + self._bare.transport.get_write_buffer_size()
        if self._writer is not self._bare:
            count += self._writer.transport.get_write_buffer_size()
        return count

    # --- what nats-py calls -----------------------------------------------------------------------------------------

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Nothing: `open` has done it."""

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """Put TLS on top; what came in clear after the first line is forgotten.

        Raises:
            Insecure: the server demands TLS, and nobody has told us whom to trust.
            OSError: (ssl.SSLError among them) the handshake failed; TimeoutError if it took too long.
        """
        assert self._bare is not None
        if not self._secure:
            raise Insecure("the server demands TLS; give the link a TLS context")
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport = await loop.start_tls(
            self._bare.transport,
            protocol,
            ssl_context,
            server_hostname=uri if isinstance(uri, str) else uri.hostname,
            ssl_handshake_timeout=connect_timeout,
        )
        if transport is None:
            raise ConnectionResetError("the connection was lost during the handshake")
        # asyncio does not say so here; without it the reader could not hold back a server that sends too fast.
        protocol.connection_made(transport)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def write(self, payload: bytes) -> None:
        """Give bytes to the connection; dropped if it is closing.

        Raises:
            Insecure: TLS was asked for and is not there.
        """
        assert self._writer is not None
        if self._secure and self._writer is self._bare:
            raise Insecure("the server does not offer TLS")
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > OUTGOING_BYTES_MAX:
            self.close()
            return
        self.sent_bytes += len(payload)
        transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Give several at once."""
        self.write(b"".join(payload))

    async def read(self, buffer_size: int) -> bytes:
        """What comes next; empty at the end.

        Raises:
            Overrun: the server makes us keep too much.
        """
        assert self._reader is not None
        kept, of_message = self.kept()
        if kept > (INCOMING_BYTES_MAX if of_message else LINE_BYTES_MAX):
            raise Overrun(f"the server sends a {'message' if of_message else 'line'} without an end")
        # A server that sends without a pause must leave others their turn.
        await asyncio.sleep(0)
        data = await self._reader.read(buffer_size)
        self.received_bytes += len(data)
        if data:
            self.alive()
        return data

    async def readline(self) -> bytes:
        """One line; the first must come within the time that a connection may take.

        Raises:
            ValueError: it is longer than `LINE_BYTES_MAX`.
        """
        assert self._reader is not None
        seconds, self._first_line_s = self._first_line_s, None
        async with asyncio.timeout(seconds):
            line = await self._reader.readline()
        self.received_bytes += len(line)
        return line

    async def drain(self) -> None:
        """Return at once (see above)."""

    def close(self) -> None:
        """Drop the connection and what is left in our buffers; what the kernel has is still sent."""
        for writer in (self._writer, self._bare):
            if writer is not None:
                writer.transport.abort()

    async def wait_closed(self) -> None:
        """Until the socket is closed: an aborted one is, within a few turns."""
        for _ in range(CLOSED_TURNS):
            if self._socket is None or self._socket.fileno() == -1:
                return
            await asyncio.sleep(0)

    def at_eof(self) -> bool:
        """Whether the far end has closed and everything is read."""
        return self._reader is None or self._reader.at_eof()

    def __bool__(self) -> bool:
        # nats-py makes a transport of its own if the one it has is not open.
        return self._writer is not None
