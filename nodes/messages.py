"""The messages of reconciliation: versioned, bounded, decoded into types before anything looks at them (R15)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed, VersionUnknown
from ledger.feed import ForkProof, Run, SignedOpening

__all__ = [
    "MESSAGE_BYTES_MAX",
    "VERSION",
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
"""Four thousand entries, or the frontier of ten thousand feeds."""
FEEDS_PER_MESSAGE_MAX = 10_000
DISTRICTS_MAX = 1000
"""Municipalities and their parts: 290 today."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
District = Annotated[str, Meta(min_length=1, max_length=128)]
HeadsOnWire = Annotated[
    tuple[tuple[Annotated[int, Meta(ge=0, lt=1 << 53)], Bytes32], ...], Meta(max_length=64)
]


class Digest(Struct, frozen=True, array_like=True, tag=1):
    """District → digest of its frontier: equal ones need no more."""

    realm: Bytes16
    districts: Annotated[dict[District, Bytes32], Meta(max_length=DISTRICTS_MAX)]


class Frontier(Struct, frozen=True, array_like=True, tag=2):
    """District → feed → heads, of the districts that differ."""

    districts: Annotated[
        dict[District, Annotated[dict[Bytes16, HeadsOnWire], Meta(max_length=FEEDS_PER_MESSAGE_MAX)]],
        Meta(max_length=DISTRICTS_MAX),
    ]


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


Message = Digest | Frontier | Entries | Done | Refusal


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
