"""One connection to one server for as long as a block lasts; it does not come back by itself.

For an operator's errand and for tests. A node stays connected with `nodes.nats.link.NatsLink`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from nats.aio.client import Client

from ledger.identity import Realm
from nodes.nats.certificates import client_tls
from nodes.nats.nkeys import Login
from nodes.nats.transport import HardTransport

__all__ = ["session"]

CONNECT_SECONDS = 15.0
"""TCP, TLS and login over a line of 9600 bit/s take 10 s."""
SILENCE_SECONDS = 30.0
"""Bytes that nobody acknowledges for so long are lost with the connection."""
CLOSE_SECONDS = 1.0
"""nats-py's own tidying; the socket is dropped before that."""


async def _nothing(error: Exception) -> None:
    """What nats-py has to say besides: each request has its own outcome."""


@contextlib.asynccontextmanager
async def session(
    address: str,
    port: int,
    realm: Realm,
    login: Login | None,
    *,
    on_error: Callable[[Exception], Awaitable[None]] = _nothing,
) -> AsyncIterator[Client]:
    """Connect, with TLS under the realm's root, and log in.

    Raises:
        OSError: no connection, or no TLS; ssl.SSLError and TimeoutError among them.
        nats.errors.Error: the server does not let this login in.
    """
    # nats-py's own transport waits for ever on a TLS connection that failed.
    transport = HardTransport(secure=True, user_timeout_s=SILENCE_SECONDS, first_line_s=CONNECT_SECONDS)
    client = Client()
    client._transport = transport
    if login is not None:
        login.prepare(client)
    try:
        await transport.open(address, port, CONNECT_SECONDS)
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                f"nats://{f'[{address}]' if ':' in address else address}:{port}",  # Open already; it asks for one.
                tls=client_tls(realm), tls_hostname=address, signature_cb=login.sign if login else None,
                allow_reconnect=False, error_cb=on_error,
                # Whatever `allow_reconnect` says, nats-py tries so many times.
                max_reconnect_attempts=1, reconnect_time_wait=0,
            )  # fmt: skip
        yield client
    finally:
        transport.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close()
        await transport.wait_closed()
