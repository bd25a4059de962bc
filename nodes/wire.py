"""What goes over a link: letters, introductions, new entries and signs of life; decoded before anything looks at them (R15).

The first byte names the kind. Letters are sealed to their receiver (`nodes.envelope`); a *live* entry is sealed and signed
by its author as every entry is; a sign of life is signed by who gives it, so that no hub can make anybody seem alive.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from ledger.clock import STAMP_MAX
from ledger.errors import LimitExceeded, Malformed, NotAuthentic, VersionUnknown
from ledger.feed import Entry
from ledger.ids import NodeId, RealmId, tagged_hash

__all__ = [
    "FRAME_BYTES_MAX",
    "Here",
    "Kind",
    "Live",
    "SignedHere",
    "Speech",
    "check_here",
    "decode_here",
    "decode_live",
    "decode_speech",
    "encode_here",
    "encode_live",
    "encode_speech",
]

FRAME_BYTES_MAX = 128 * 1024
"""The largest message of reconciliation in its letter; what hubs are configured to carry."""
LIVE_VERSION = 1
ROUND_BYTES = 8
DIGEST_BYTES = 8
"""Of a district's digest in a sign of life: that it differs is only a reason to ask."""
_SPEECH_HEAD = ROUND_BYTES + 4

T = TypeVar("T")
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Kind(enum.IntEnum):
    """The first byte of what goes over a link."""

    LETTER = 1
    INTRODUCTION = 2
    """Certificates of the sender, in clear: they are no secret."""
    WHO = 3
    """A letter came from somebody unknown: the id of who asks."""
    LIVE = 4
    HERE = 5


class Speech(Struct, frozen=True):
    """What stands in a letter: the round it belongs to, its number if it is to be answered (else 0), the message."""

    round: bytes
    number: int
    message: bytes


def encode_speech(speech: Speech) -> bytes:
    """The content of a letter."""
    return speech.round + speech.number.to_bytes(4, "big") + speech.message


def decode_speech(data: bytes) -> Speech:
    """From the content of a letter.

    Raises:
        Malformed: too short.
    """
    if len(data) < _SPEECH_HEAD:
        raise Malformed("a letter holds no message")
    number = int.from_bytes(data[ROUND_BYTES:_SPEECH_HEAD], "big")
    return Speech(data[:ROUND_BYTES], number, data[_SPEECH_HEAD:])


class Live(Struct, frozen=True, array_like=True):
    """A new entry, told once to everybody who listens."""

    version: int
    feed: Bytes16
    entry: Entry
    previous: Annotated[bytes, Meta(max_length=32)] = b""
    """Link of the entry before it; empty: the one that everybody is thought to hold."""


def encode_live(live: Live) -> bytes:
    """The frame of a new entry."""
    return bytes([Kind.LIVE]) + msgspec.msgpack.encode(live)


_live = msgspec.msgpack.Decoder(Live)


def decode_live(body: bytes) -> Live:
    """From a frame without its first byte.

    Raises:
        LimitExceeded, Malformed, VersionUnknown: it is none.
    """
    live = _decode(_live, body, "a live entry")
    if live.version != LIVE_VERSION:
        raise VersionUnknown(
            f"a live entry of version {live.version}; this node reads version {LIVE_VERSION}"
        )
    return live


class Here(Struct, frozen=True, array_like=True):
    """A sign of life in a district: who, by its clock when, and the beginning of its digest of the district."""

    node: Bytes16
    stamp: Annotated[int, Meta(ge=0, le=STAMP_MAX)]
    digest: Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class SignedHere(Struct, frozen=True, array_like=True):
    """A sign of life and its giver's signature, over the realm and the district too."""

    here: Here
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


_here = msgspec.msgpack.Decoder(SignedHere)


def _said(realm: RealmId, district: str, here: Here) -> bytes:
    return tagged_hash("here", realm, district.encode(), msgspec.msgpack.encode(here))


def encode_here(realm: RealmId, district: str, here: Here, key: Ed25519PrivateKey) -> bytes:
    """The frame of a sign of life."""
    signed = SignedHere(here, key.sign(_said(realm, district, here)))
    return bytes([Kind.HERE]) + msgspec.msgpack.encode(signed)


def decode_here(body: bytes) -> tuple[Here, bytes]:
    """The sign of life of a frame without its first byte, and its signature, which is not yet checked.

    Raises:
        LimitExceeded, Malformed: it is none.
    """
    signed = _decode(_here, body, "a sign of life")
    return signed.here, signed.signature


def check_here(realm: RealmId, district: str, here: Here, signature: bytes, public_key: bytes) -> NodeId:
    """Who is there.

    Raises:
        NotAuthentic: it was not that node, or it spoke of another realm or district.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _said(realm, district, here))
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic("a sign of life is not from whom it says") from error
    return NodeId(here.node)


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes, what: str) -> T:
    if len(body) > FRAME_BYTES_MAX:
        raise LimitExceeded(f"{what} of {len(body)} bytes; at most {FRAME_BYTES_MAX} are allowed")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(f"{what} cannot be decoded") from error
