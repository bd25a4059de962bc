"""The messages of reconciliation: versioned, bounded, decoded into types before anything looks at them (R15)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.clock import STAMP_MAX
from ledger.errors import LimitExceeded, Malformed, VersionUnknown
from ledger.events import FILLS_MAX, Patient, Person
from ledger.feed import DISTRICT_PATTERN, Entry, ForkProof, Run, SignedOpening
from ledger.frontiers import BUCKETS

__all__ = [
    "CREDIT_BYTES_MAX",
    "DETACHED_PER_MESSAGE_MAX",
    "FEEDS_PER_MESSAGE_MAX",
    "HEADS_PER_FEED_MAX",
    "MESSAGE_BYTES_MAX",
    "VERSION",
    "Ack",
    "Ahead",
    "Buckets",
    "ClaimAsk",
    "ClaimTold",
    "Detached",
    "Digest",
    "Done",
    "Entries",
    "FetchAsk",
    "FetchTold",
    "Fetched",
    "Frontier",
    "InStep",
    "Message",
    "Refusal",
    "Summary",
    "decode_message",
    "encode_message",
]

VERSION = 1
MESSAGE_BYTES_MAX = 127 * 1024
"""Five hundred entries, or the frontier of two thousand feeds: half a minute at 32 kbit/s, less than a second on most
lines. With the envelope it is what our hubs carry, 128 KiB (`nodes.wire.FRAME_BYTES_MAX`)."""
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
District = Annotated[str, Meta(min_length=1, max_length=64, pattern=DISTRICT_PATTERN)]
"""As in openings: a name becomes part of subjects, and of what a node opens feeds in."""
Code = Annotated[str, Meta(max_length=64, pattern="^[a-z0-9-]*$(?!\\n)")]
"""Of a refusal, in no characters that could write on an operator's screen (R13)."""
HeadsOnWire = Annotated[
    tuple[tuple[Annotated[int, Meta(ge=0, lt=1 << 53)], Bytes32], ...], Meta(max_length=HEADS_PER_FEED_MAX)
]
Fills = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=FILLS_MAX)], ...], Meta(min_length=1, max_length=FILLS_MAX)
]
FETCHED_MAX = 100
"""Documents told in answer to one request: more than any patient has; the rest is asked for by id."""
EPOCHS_MAX = 64
"""Keys told of one document: one a year and one for each revocation."""
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
    """The sender has nothing more for this round; `more` says that only its budget or the credit ended."""

    more: bool = False


class Refusal(Struct, frozen=True, array_like=True, tag=5):
    """Why the sender will not go on: a code and the version it speaks."""

    code: Code
    version: int = VERSION


class Ahead(Struct, frozen=True, array_like=True):
    """One entry that travels ahead of its feed, with the link of the entry before it."""

    feed: Bytes16
    previous: Bytes32
    entry: Entry


class Detached(Struct, frozen=True, array_like=True, tag=6):
    """Entries ahead of their feeds, each by its own signature."""

    entries: Annotated[tuple[Ahead, ...], Meta(max_length=DETACHED_PER_MESSAGE_MAX)]


class InStep(Struct, frozen=True, array_like=True, tag=7):
    """The digests told are equal to the sender's; `stamp` is its clock (`ledger.clock`), for the horizon."""

    stamp: Annotated[int, Meta(ge=0, le=STAMP_MAX)] = 0


class Summary(Struct, frozen=True, array_like=True, tag=8):
    """One digest over the districts that both were last known to hold: all that two in step need to say."""

    digest: Bytes32


class Buckets(Struct, frozen=True, array_like=True, tag=9):
    """District → digests of its buckets of feeds: only the frontiers of those that differ need be told."""

    districts: Annotated[
        dict[District, Annotated[tuple[Bytes16, ...], Meta(min_length=BUCKETS, max_length=BUCKETS)]],
        Meta(max_length=DISTRICTS_MAX),
    ]


class ClaimAsk(Struct, frozen=True, array_like=True, tag=10):
    """Asks the holder for fills, for the asker's feed; repeating the command id gives the first answer."""

    command: Bytes16
    document: Bytes16
    feed: Bytes16
    fills: Fills


class ClaimTold(Struct, frozen=True, array_like=True, tag=11):
    """The holder's answer: the link of the transfer, or a code and who holds it as known there."""

    command: Bytes16
    link: Annotated[bytes, Meta(max_length=32)] = b""
    code: Code = ""
    holder: Annotated[bytes, Meta(max_length=16)] = b""
    """The node that holds them, if another one does."""


class FetchAsk(Struct, frozen=True, array_like=True, tag=12):
    """Asks a node that holds the keys for one document, or for a patient's: who asks, and what for, is logged there."""

    request: Bytes16
    person: Person
    purpose: Annotated[str, Meta(min_length=1, max_length=200)]
    document: Annotated[bytes, Meta(max_length=16)] = b""
    patient: Patient | None = None


class Fetched(Struct, frozen=True, array_like=True):
    """A document, its home district and its keys by epoch. The message that carries it is sealed to the asker."""

    document: Bytes16
    district: District
    keys: Annotated[dict[int, Bytes32], Meta(max_length=EPOCHS_MAX)]

    def __repr__(self) -> str:
        """Shows no key."""
        return f"Fetched({self.document.hex()})"


class FetchTold(Struct, frozen=True, array_like=True, tag=13):
    """What was asked for, or the code of a refusal."""

    request: Bytes16
    documents: Annotated[tuple[Fetched, ...], Meta(max_length=FETCHED_MAX)] = ()
    code: Code = ""


class Ack(Struct, frozen=True, array_like=True, tag=14):
    """Every numbered message up to this one was taken in or is lost: the sender may send as much again."""

    number: Annotated[int, Meta(ge=0, lt=1 << 32)]


Message = (
    Digest
    | Frontier
    | Entries
    | Done
    | Refusal
    | Detached
    | InStep
    | Summary
    | Buckets
    | ClaimAsk
    | ClaimTold
    | FetchAsk
    | FetchTold
    | Ack
)


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
