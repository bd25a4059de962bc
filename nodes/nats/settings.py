"""What a link over NATS is told: which servers, how patient to be, and how to prove who it is."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct
from nats.aio.client import Client

from ledger.errors import InvalidInput

__all__ = ["LinkSettings", "Login", "Server", "server_of"]


class Login(Protocol):
    """How this node proves who it is to a server that knows nodes by key (`nodes.nats.nkeys.Login`)."""

    def prepare(self, client: Client) -> None:
        """Let a client that has not connected yet name the key."""
        ...

    def sign(self, nonce: str) -> bytes:
        """The signature of what the server asks to be signed, in base 64."""
        ...


class LinkSettings(Struct, frozen=True, kw_only=True):
    """How patient a link is. The defaults suit 9,600 bit/s with 0.3 s of delay and do no harm on fast links."""

    ping_interval_s: int = 10
    """Twice this must be more than the longest message takes to send: answers queue behind it."""
    connect_timeout_s: float = 10.0
    """For the connection, and again for the server's first line."""
    handshake_timeout_s: int = 45
    """For TLS, authentication and the rest: ten seconds on the slowest links."""
    retry_first_s: float = 2.0
    """The first wait is random below this, and is doubled for every vain round through the servers.

    1,400 nodes that lose one hub come back at 700 a second.
    """
    retry_max_s: float = 30.0
    """The longest wait: after a long outage 1,400 nodes come at less than 50 a second."""
    stable_s: float = 30.0
    """A connection that held less counts as a vain attempt: a server that accepts and drops us is not stormed."""


class Server(Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int
    secure: bool
    """``tls://``: never in clear."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def server_of(url: str) -> Server:
    """The server that a URL names: ``nats://host:port`` or ``tls://host:port``; 4222 if no port is given.

    Raises:
        InvalidInput: it is not one, or carries credentials.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        host, parts, port = None, urlsplit(""), 0
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            "the URL of a server carries credentials", advice="nodes authenticate by certificate"
        )
    if not host or parts.scheme not in ("nats", "tls") or parts.path not in ("", "/") or parts.query:
        raise InvalidInput(
            f"{url!r} is not the URL of a server", advice="write nats://HOST:PORT or tls://HOST:PORT"
        )
    return Server(host, port, parts.scheme == "tls")
