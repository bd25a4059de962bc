"""A link over NATS: one client, one ordered list of servers, and a supervisor that never gives up and never hangs.

It promises nothing about messages (`nodes.links.Link`) and this about itself:

- It is *down* when nothing came for three ping intervals, or what we sent was not acknowledged for as long; at once
  when refused or broken off. Then it tries its servers in turn, for ever, with exponential back-off and full jitter:
  1,400 nodes do not return at once.
- Nothing given to `send` is kept for later: while down it is refused, and a new connection starts with nothing.
- At most `Outflow`'s bound, or one message larger than that, lies below `send`: urgent ones wait for no more.
- Every connection has a client of its own, without nats-py's reconnecting: that one replays what has long timed out,
  ends for good after some errors, and may wait half an hour for a dead socket.
- A hostile server can keep its messages to itself, which is what a dead one does; it cannot stop us, fill us, send us to
  other servers, or have its words in our log.

Private names of nats-py (pinned exactly) are used in `_client_over` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_MSG_PAYLOAD

from ledger.clock import Clock
from ledger.errors import InvalidInput, LedgerBug
from nodes.links import LinkState, LinkStatus, Received
from nodes.nats.reasons import Unfit, reason_of
from nodes.nats.settings import LinkSettings, Login, Server, server_of
from nodes.nats.transport import HardTransport
from nodes.wire import FRAME_BYTES_MAX

__all__ = ["PAYLOAD_BYTES_MAX", "SUBJECTS_MAX", "NatsLink"]

PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX
"""One message, either way: what our hubs are configured to take, and two minutes at 9,600 bit/s."""
SUBJECTS_MAX = 1024
"""Two a district, for the municipalities of several regions; who serves more uses a wildcard."""
SUBJECT_BYTES_MAX = 256
"""Ours are below 100."""
SERVERS_MAX = 16
"""In one link. More would only lengthen the way back to the first."""
PENDING_MESSAGES_MAX = 16 * 1024
"""Received and not yet handed over, for one subject. Handed over in the same turn of the loop, so this is one read."""
PENDING_BYTES_MAX = 8 * 1024 * 1024
"""The same in bytes."""
PINGS_UNANSWERED_MAX = 2
"""The third ping interval without an answer ends the connection."""
CLOSE_SECONDS = 2.0
"""Closing waits for nothing; this is for the day it does."""
USER_TIMEOUT_PINGS = 3
"""Unacknowledged bytes end a connection after as many ping intervals as unanswered pings do."""
ATTEMPTS_DOUBLED_MAX = 16
"""Exponent of the back-off: beyond it every maximum is reached."""

_WORD = r"[!-)+-\-/-=?-~]+"
"""Printable ASCII without the dot and the wildcards."""
_SUBJECT = re.compile(rf"{_WORD}(\.{_WORD})*")
_PATTERN = re.compile(rf"({_WORD}|\*)(\.({_WORD}|\*))*(\.>)?|>")

_log = structlog.get_logger()


class NatsLink:
    """One way to other nodes, over NATS. Owned by one event loop; `run` does the work until cancelled.

    Bytes in its status are those of the NATS protocol, both ways, pings and subjects included, TLS not.
    """

    def __init__(
        self,
        name: str,
        servers: Iterable[str],
        *,
        on_message: Received,
        clock: Clock,
        jitter: random.Random,
        subjects: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
        login: Login | None = None,
        settings: LinkSettings | None = None,
        on_change: Callable[[LinkStatus], None] | None = None,
    ) -> None:
        """`servers` are tried in the order given. With `tls`, nothing is ever said in clear.

        Raises:
            InvalidInput: no server, too many, a malformed URL or subject; ``tls://`` without `tls`.
        """
        self.name = name
        self._servers = tuple(server_of(url) for url in servers)
        if not 1 <= len(self._servers) <= SERVERS_MAX:
            raise InvalidInput(f"link {name} needs 1 to {SERVERS_MAX} servers, not {len(self._servers)}")
        if tls is None and any(server.secure for server in self._servers):
            raise InvalidInput(f"link {name} has a tls:// server but no TLS context")
        self._on_message, self._on_change = on_message, on_change
        self._clock, self._jitter = clock, jitter
        self._tls, self._login = tls, login
        self._settings = settings or LinkSettings()
        self._wanted: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self.listen(subjects)
        self._running = False
        self._up_at_s = math.inf
        """When the connection came up, on the loop's clock."""
        self._client: Client | None = None
        self._transport: HardTransport | None = None
        self._state, self._server, self._reason = LinkState.DOWN, "", "not started"
        self._since_ms = clock.now_ms()
        self._times_up, self._refused, self._sent_bytes, self._received_bytes = 0, 0, 0, 0

    # --- the port ---------------------------------------------------------------------------------------------------

    def status(self) -> LinkStatus:
        """As things stand. `LinkState.UP` is a connection on which something came within three ping intervals."""
        sent, received = self._sent_bytes, self._received_bytes
        if self._transport is not None:
            sent, received = sent + self._transport.sent_bytes, received + self._transport.received_bytes
        return LinkStatus(
            name=self.name,
            state=self._state,
            server=self._server,
            since_ms=self._since_ms,
            reason=self._reason,
            reconnects=max(0, self._times_up - 1),
            sent_bytes=sent,
            received_bytes=received,
            refused=self._refused,
        )

    def send(self, subject: str, payload: bytes) -> bool:
        """Hand over one message; False if the link is down or behind. Never blocks, never keeps one for later.

        Raises:
            InvalidInput: a malformed subject, or a payload over `PAYLOAD_BYTES_MAX`.
        """
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise InvalidInput(
                f"a message of {len(payload)} bytes exceeds {PAYLOAD_BYTES_MAX}", advice="split it"
            )
        _check_subject(subject, wildcards=False)
        client, transport = self._client, self._transport
        if client is None or transport is None or not client.is_connected:
            self._refused += 1
            return False
        below = self.below()
        if below and below + len(payload) > self._bound(transport):
            self._refused += 1
            return False
        try:
            _at_once(client.publish(subject, payload))
        except errors.Error:
            # It was closed in this very turn of the loop.
            self._refused += 1
            return False
        return True

    def room(self) -> int:
        """How many bytes `send` would take now; 0 if down or behind. Into an idle link one larger message fits too."""
        client, transport = self._client, self._transport
        if client is None or transport is None or not client.is_connected:
            return 0
        return max(0, self._bound(transport) - self.below())

    def below(self) -> int:
        """Bytes handed over and not acknowledged by the far end: those of `send`, and of NATS itself."""
        client, transport = self._client, self._transport
        return 0 if client is None or transport is None else client.pending_data_size + transport.below()

    def listen(self, subjects: Iterable[str]) -> None:
        """Listen to these subjects and no others, now and after every reconnect.

        Raises:
            InvalidInput: one is malformed, or they are too many.
        """
        wanted = frozenset(subjects)
        if len(wanted) > SUBJECTS_MAX:
            raise InvalidInput(
                f"{len(wanted)} subjects on one link; at most {SUBJECTS_MAX}", advice="use a wildcard"
            )
        for subject in wanted:
            _check_subject(subject, wildcards=True)
        self._wanted = wanted
        self._wake.set()

    async def run(self) -> None:
        """Connect, stay connected, come back; until cancelled. Leaves no task and no socket behind."""
        if self._running:
            raise LedgerBug(f"link {self.name} runs twice")
        self._running = True
        loop = asyncio.get_running_loop()
        turn, vain = 0, 0
        try:
            while True:
                self._up_at_s = math.inf
                reason = await self._session(self._servers[turn % len(self._servers)])
                held_s = loop.time() - self._up_at_s
                self._become(LinkState.DOWN, reason=reason)
                turn, vain = turn + 1, 0 if held_s >= self._settings.stable_s else vain + 1
                await asyncio.sleep(self._wait_s(vain))
        finally:
            self._running = False
            self._become(LinkState.DOWN, reason="stopped")

    # --- one connection ---------------------------------------------------------------------------------------------

    async def _session(self, server: Server) -> str:
        """Connect to one server and stay until it is lost; why it was, in words. Raises nothing but cancellation."""
        settings = self._settings
        transport = HardTransport(
            secure=self._tls is not None,
            user_timeout_s=settings.ping_interval_s * USER_TIMEOUT_PINGS,
            first_line_s=settings.connect_timeout_s,
        )
        client = _client_over(transport)
        if self._login is not None:
            self._login.prepare(client)
        self._transport = transport
        try:
            await transport.open(server.host, server.port, settings.connect_timeout_s)
            return await self._stay(server, client)
        except errors.ConnectionClosedError:
            return reason_of(client.last_error)
        except Exception as error:  # Whatever a server makes nats-py raise is no reason to stop.
            return reason_of(error)
        finally:
            self._client = self._transport = None
            self._sent_bytes += transport.sent_bytes
            self._received_bytes += transport.received_bytes
            transport.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.close()
            await transport.wait_closed()

    async def _stay(self, server: Server, client: Client) -> str:
        """The handshake, the subscriptions, and then as long as it lasts."""
        lost = standing = False

        async def on_closed() -> None:
            nonlocal lost
            lost = True
            self._wake.set()

        async def stand() -> None:
            nonlocal standing
            try:
                await client.flush(self._settings.handshake_timeout_s)
                standing = True
            except errors.Error:
                return
            finally:
                self._wake.set()

        await self._handshake(server, client, on_closed)
        subscribed: dict[str, Subscription] = {}
        await self._subscribe(client, subscribed)
        # Up is when the server has our subscriptions. A flush that times out spoils nats-py's client (its late answer
        # ends the reading); here the client is dropped with it.
        answer = asyncio.create_task(stand())
        try:
            while not lost and (standing or not answer.done()):
                self._wake.clear()
                await self._subscribe(client, subscribed)
                if standing and self._client is None and client.is_connected:
                    self._client = client
                    self._times_up += 1
                    self._up_at_s = asyncio.get_running_loop().time()
                    self._become(LinkState.UP, server=str(server))
                await self._wake.wait()
        finally:
            answer.cancel()
        return reason_of(client.last_error if lost else TimeoutError())

    async def _handshake(
        self,
        server: Server,
        client: Client,
        on_closed: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout_s + settings.handshake_timeout_s):
            await client.connect(
                [f"nats://{server}"],
                error_cb=self._on_error,
                closed_cb=on_closed,
                # The server's operator may see which link this is, nothing of the node.
                name="rxledger",
                allow_reconnect=False,
                connect_timeout=settings.handshake_timeout_s,
                ping_interval=settings.ping_interval_s,
                max_outstanding_pings=PINGS_UNANSWERED_MAX,
                dont_randomize=True,
                # What we post comes back to us only if we listen to it; a node does not talk to itself.
                no_echo=True,
                pending_size=0,
                tls=self._tls,
                tls_hostname=server.host if self._tls is not None else None,
                signature_cb=None if self._login is None else self._login.sign,
            )
        if not client.is_connected:
            raise Unfit("the server ended the handshake; does it admit this node?")
        takes: object = client.max_payload
        if not isinstance(takes, int) or takes < PAYLOAD_BYTES_MAX:
            raise Unfit(
                f"the server takes only messages smaller than {PAYLOAD_BYTES_MAX} bytes; raise max_payload"
            )

    async def _subscribe(self, client: Client, subscribed: dict[str, Subscription]) -> None:
        """Make what the server knows of our subjects equal to what is wanted."""
        for subject in sorted(subscribed.keys() - self._wanted):
            await subscribed.pop(subject).unsubscribe()
        for subject in sorted(self._wanted - subscribed.keys()):
            subscribed[subject] = await client.subscribe(
                subject,
                cb=self._receive,
                pending_msgs_limit=PENDING_MESSAGES_MAX,
                pending_bytes_limit=PENDING_BYTES_MAX,
            )

    # --- called by nats-py ------------------------------------------------------------------------------------------

    async def _receive(self, message: Msg) -> None:
        if len(message.data) > PAYLOAD_BYTES_MAX or not _is_subject(message.subject):
            self._refused += 1
            return
        try:
            self._on_message(self.name, message.subject, message.data)
        except Exception as error:  # A receiver that fails is our bug; it must not end the link.
            _log.error("link.receiver_failed", link=self.name, error=type(error).__name__)

    async def _on_error(self, error: Exception) -> None:
        """Count what an operator should know of; never raise, which would end nats-py's own tasks."""
        if isinstance(error, errors.SlowConsumerError) or "permissions violation" in str(error):
            self._refused += 1

    # --- small things -----------------------------------------------------------------------------------------------

    def _bound(self, transport: HardTransport) -> int:
        assert transport.outflow is not None
        return transport.outflow.bound()

    def _wait_s(self, vain: int) -> float:
        """Full jitter: anything up to a maximum that doubles with every vain round through the servers."""
        rounds = min(vain // len(self._servers), ATTEMPTS_DOUBLED_MAX)
        return self._jitter.uniform(
            0, min(self._settings.retry_max_s, self._settings.retry_first_s * 2**rounds)
        )

    def _become(
        self, state: Literal[LinkState.UP, LinkState.DOWN], *, server: str = "", reason: str = ""
    ) -> None:
        changed = state is not self._state
        if changed:
            self._since_ms = self._clock.now_ms()
        if changed or reason != self._reason:
            _log.info(f"link.{state}", link=self.name, server=server, reason=reason)
        self._state, self._server, self._reason = state, server, reason
        if changed and self._on_change is not None:
            self._on_change(self.status())


class _Client(Client):
    """A client that goes nowhere else: what a server tells of other servers is not even looked at."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Nothing: nats-py would look at each address for 20 µs, and a hub could keep us busy with lists of them."""


def _client_over(transport: HardTransport) -> Client:
    """A client that speaks over our transport. The private names of nats-py that we use; tests pin what they do."""
    client = _Client()
    client._transport = transport

    def alive() -> None:
        # On a thin link the answer to a ping waits behind all that the server has for us; it is no less alive for that.
        client._pings_outstanding = 0

    transport.alive = alive
    parser = client._ps
    transport.kept = lambda: (len(parser.buf), parser.state == AWAITING_MSG_PAYLOAD)
    return client


def _at_once(publishing: Coroutine[Any, Any, None]) -> None:
    """Run to its end a coroutine that has nothing to wait for: nats-py's publish with `pending_size` 0."""
    try:
        publishing.send(None)
    except StopIteration:
        return
    publishing.close()
    raise LedgerBug("nats-py waits where it never did: is its version the pinned one?")


def _is_subject(text: str, *, wildcards: bool = False) -> bool:
    return len(text) <= SUBJECT_BYTES_MAX and bool((_PATTERN if wildcards else _SUBJECT).fullmatch(text))


def _check_subject(subject: str, *, wildcards: bool) -> None:
    if not _is_subject(subject, wildcards=wildcards):
        raise InvalidInput("malformed subject", advice="make subjects with nodes.nats.subjects")
