"""Why a connection is down, in words of ours: a server's own text is never repeated, it may name what it likes (R13)."""

from __future__ import annotations

import ssl

from nats import errors

from nodes.nats.transport import Insecure, Overrun

__all__ = ["Unfit", "reason_of"]

_SAID = {
    "authorization violation": "the server does not admit this node; is it in the server's list, and not revoked?",
    "authentication timeout": "the server gave this node too little time to authenticate; raise its timeouts",
    "authentication expired": "the credentials of this node have expired for the server",
    "authentication revoked": "the server has revoked this node",
    "maximum connections exceeded": "the server has no room for another connection",
    "maximum payload": "the server takes only smaller messages",
    "secure connection": "the server demands TLS; give the link a TLS context",
    "stale connection": "the server did not hear from this node in time",
    "slow consumer": "the server says that this node reads too slowly",
    "empty response": "the server closed the connection before it said anything",
}
"""What nats-server says (in lower case) → what we say."""


class Unfit(ConnectionError):
    """A server speaks NATS but cannot serve this link; the message is ours and may be shown."""


_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (errors.StaleConnectionError, "the server does not answer"),
    (errors.UnexpectedEOF, "the server closed the connection"),
    (errors.AuthorizationError, _SAID["authorization violation"]),
    (errors.ProtocolError, "what the server sends is not NATS"),
    (
        ssl.SSLCertVerificationError,
        "the server's certificate does not hold: wrong realm, wrong name, or out of date",
    ),
    (ssl.SSLError, "TLS failed; does the server accept this node's certificate?"),
    (TimeoutError, "no answer in time"),
    (ConnectionRefusedError, "nobody listens there"),
    (ConnectionError, "the connection was broken off"),
)
"""The first that fits counts."""


def reason_of(error: BaseException | None) -> str:
    """One sentence for an operator; no subject, no key, no text of the server's."""
    if error is None:
        return "the connection ended"
    if isinstance(error, Unfit | Insecure | Overrun):
        return str(error)
    for kind, words in _KINDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, errors.Error):
        said = str(error).lower()
        return next(
            (ours for theirs, ours in _SAID.items() if theirs in said),
            "the server ended the connection with an error; see its log",
        )
    if isinstance(error, OSError):
        return f"unreachable: {error.strerror or type(error).__name__}"
    return f"what the server sends cannot be used ({type(error).__name__})"
