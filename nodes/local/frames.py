"""Frames on a local socket: ``length (4 bytes, big-endian) | MessagePack``. Bounded in size and in time.

One exchange is a request and its reply; a connection begins with a greeting that fixes the version. Whoever sends
half a frame and falls silent loses the connection, never the process at the other end (R15).
"""

from __future__ import annotations

import socket
import time
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed

__all__ = [
    "FRAME_BYTES_MAX",
    "VERSION",
    "Hello",
    "Outcome",
    "Reply",
    "Request",
    "Welcome",
    "read_body",
    "read_frame",
    "read_length",
    "write_frame",
]

VERSION = 1
"""Of framing and greeting. Methods and parameters grow without it: see docs/daemon.md."""
FRAME_BYTES_MAX = 24 * 1024 * 1024
"""A frame of a bundle (16 MiB inflated) on top of what was gathered before it (4 MiB), with room for encoding."""
FRAME_SECONDS = 30.0
"""For a frame's bytes, once they begin to come. Both ends are on one machine; slower is stopped or hostile."""
CHUNK_BYTES = 256 * 1024
"""Read at once: memory grows with what arrives, not with what a length claims."""
GREETING = b"rxledger-owner"


class Hello(Struct, frozen=True, array_like=True):
    """The first frame of a client: what it speaks."""

    greeting: Annotated[bytes, Meta(max_length=32)]
    versions: Annotated[tuple[int, ...], Meta(max_length=16)]


class Welcome(Struct, frozen=True, array_like=True):
    """The first frame of an owner: what they speak, and whose store it is. Version 0: none that both know."""

    version: int
    newest: int
    node: Annotated[bytes, Meta(max_length=16)]
    realm: Annotated[bytes, Meta(max_length=16)]


class Request(Struct, frozen=True, array_like=True):
    """A call. `params` by name."""

    number: int
    method: Annotated[str, Meta(max_length=64)]
    params: msgspec.Raw


class Outcome:
    """How a call ended."""

    RESULT = 0
    PROBLEM = 1
    PAGE = 2
    """Some items, and the number of a cursor for more: 0 if these are the last."""


class Reply(Struct, frozen=True, array_like=True):
    """The answer to the request of the same number."""

    number: int
    outcome: int
    body: msgspec.Raw
    cursor: int = 0


def write_frame(sock: socket.socket, value: object) -> None:
    """Send one frame.

    Raises:
        LimitExceeded: it is too large; nothing was sent.
        OSError: the other end has gone, or does not read; the connection is of no more use.
    """
    body = msgspec.msgpack.encode(value)
    if len(body) > FRAME_BYTES_MAX:
        raise LimitExceeded(f"a message of {len(body)} bytes; at most {FRAME_BYTES_MAX} are allowed")
    sock.settimeout(FRAME_SECONDS)
    sock.sendall(len(body).to_bytes(4, "big") + body)


def read_frame(sock: socket.socket, *, idle_s: float | None) -> bytes | None:
    """Receive one frame; None if the other end has ended the connection between frames.

    Args:
        sock: connected.
        idle_s: how long to wait for its first byte; None: for ever.

    Raises:
        LimitExceeded: it claims to be too large.
        Malformed: the connection ended within it.
        OSError: `TimeoutError` if it does not come in time.
    """
    length = read_length(sock, idle_s=idle_s)
    return None if length is None else read_body(sock, length)


def read_length(sock: socket.socket, *, idle_s: float | None) -> int | None:
    """The length of the frame that begins; None if the connection has ended. See `read_frame`."""
    sock.settimeout(idle_s)
    first = sock.recv(4)
    if not first:
        return None
    head = first + _exactly(sock, 4 - len(first), time.monotonic() + FRAME_SECONDS)
    length = int.from_bytes(head, "big")
    if length > FRAME_BYTES_MAX:
        raise LimitExceeded(f"a message of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")
    return length


def read_body(sock: socket.socket, length: int) -> bytes:
    """The rest of a frame of this length. See `read_frame`."""
    return _exactly(sock, length, time.monotonic() + FRAME_SECONDS)


def _exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    while count > 0:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("a message does not come to its end")
        sock.settimeout(left)
        part = sock.recv(min(count, CHUNK_BYTES))
        if not part:
            raise Malformed("the connection ended within a message")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
