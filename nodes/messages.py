"""The messages of reconciliation: versioned, bounded, decoded into types before anything looks at them (R15)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed, VersionUnknown
from ledger.feed import Entry, ForkProof, Run, SignedOpening

__all__ = [
    "CREDIT_BYTES_MAX",
    "DETACHED_PER_MESSAGE_MAX",
    "FEEDS_PER_MESSAGE_MAX",
    "HEADS_PER_FEED_MAX",
    "MESSAGE_BYTES_MAX",
    "VERSION",
    "Ahead",
    "Detached",
    "Digest",
    "Done",
    "Entries",
    "Frontier",
    "Message",
    "Refusal",
    "decode_message",
    "encode_message",
]

VERSION = 1
MESSAGE_BYTES_MAX = 1024 * 1024
"""Four thousand entries, or the frontier of ten thousand feeds. Also what NATS carries by default."""
FEEDS_PER_MESSAGE_MAX = 10_000
"""More are told in several messages, each for a range of feeds."""
HEADS_PER_FEED_MAX = 64
"""Ends of a forked feed that are told, the highest; a cheat's further branches cost him more rounds, nobody else."""
DETACHED_PER_MESSAGE_MAX = 4096
"""Links of detached entries that are told; those left out may be sent again, which does no harm."""
CREDIT_BYTES_MAX = 1 << 30
"""What a receiver may ask for in one round."""
DISTRICTS_MAX = 1000
"""Municipalities and their parts: 290 today."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
District = Annotated[str, Meta(min_length=1, max_length=128)]
HeadsOnWire = Annotated[
    tuple[tuple[Annotated[int, Meta(ge=0, lt=1 << 53)], Bytes32], ...], Meta(max_length=HEADS_PER_FEED_MAX)
]
LOWEST, HIGHEST = b"\0" * 16, b"\xff" * 16


class Digest(Struct, frozen=True, array_like=True, tag=1):
    """District → digest of its frontier: equal ones need no more."""

    realm: Bytes16
    districts: Annotated[dict[District, Bytes32], Meta(max_length=DISTRICTS_MAX)]


class Frontier(Struct, frozen=True, array_like=True, tag=2):
    """District → feed → heads, of the districts that differ: all of them whose id lies in the range told.

    `detached` are links of entries held ahead of their feeds. `credit` is how many bytes the sender will take in answer.
    """

    districts: Annotated[
        dict[District, Annotated[dict[Bytes16, HeadsOnWire], Meta(max_length=FEEDS_PER_MESSAGE_MAX)]],
        Meta(max_length=DISTRICTS_MAX),
    ]
    lowest: Bytes16 = LOWEST
    highest: Bytes16 = HIGHEST
    detached: Annotated[tuple[Bytes32, ...], Meta(max_length=DETACHED_PER_MESSAGE_MAX)] = ()
    credit: Annotated[int, Meta(ge=0, le=CREDIT_BYTES_MAX)] = CREDIT_BYTES_MAX


class Entries(Struct, frozen=True, array_like=True, tag=3):
    """Proofs of fork first, then openings, then runs."""

    proofs: Annotated[tuple[ForkProof, ...], Meta(max_length=64)] = ()
    openings: Annotated[tuple[SignedOpening, ...], Meta(max_length=1000)] = ()
    runs: Annotated[tuple[Run, ...], Meta(max_length=4096)] = ()


class Done(Struct, frozen=True, array_like=True, tag=4):
    """The sender has nothing more for this round."""


class Refusal(Struct, frozen=True, array_like=True, tag=5):
    """Why the sender will not go on: a code and the version it speaks."""

    code: Annotated[str, Meta(max_length=64)]
    version: int = VERSION


class Ahead(Struct, frozen=True, array_like=True):
    """One entry that travels ahead of its feed, with the link of the entry before it."""

    feed: Bytes16
    previous: Bytes32
    entry: Entry


class Detached(Struct, frozen=True, array_like=True, tag=6):
    """Entries ahead of their feeds, each by its own signature."""

    entries: Annotated[tuple[Ahead, ...], Meta(max_length=DETACHED_PER_MESSAGE_MAX)]


Message = Digest | Frontier | Entries | Done | Refusal | Detached


class _Envelope(Struct, frozen=True, array_like=True):
    version: int
    message: msgspec.Raw


_envelope = msgspec.msgpack.Decoder(_Envelope)
_message = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """The bytes of a message."""
    return msgspec.msgpack.encode((VERSION, message))


def decode_message(data: bytes) -> Message:
    """Decode a peer's message.

    Raises:
        LimitExceeded, Malformed, VersionUnknown: it is not one.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise LimitExceeded(f"a message of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} are allowed")
    try:
        envelope = _envelope.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("a message cannot be decoded") from error
    if envelope.version != VERSION:
        raise VersionUnknown(f"a message of version {envelope.version}; this node speaks version {VERSION}")
    try:
        message: Message = _message.decode(envelope.message)
        return message
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("a message cannot be decoded") from error
