"""The code on paper: a signed, sealed entry that is its own replication link (section 6 of the design).

A *paper* carries the issuing feed's opening (with its certificates), the signed entry, the document's key and the seeds
of its bearer fills; a *slip* carries a supply in the same form, without seeds. A pharmacy that has never heard of
either verifies it against the realm root alone.

It carries the document's key rather than the entry's: a pharmacy outside the home district must seal its own supply
so that the district can read it. The key reads this one prescription, which the bearer knows anyway (see the ADR).

Text form for a bar code: ``RXL1:`` and base45 (RFC 9285), the alphabet of QR's alphanumeric mode.
"""

from __future__ import annotations

import zlib
from typing import Annotated

import msgspec
import zstandard
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed, VersionUnknown
from ledger.feed import Entry, SignedOpening

__all__ = [
    "PAPER_BYTES_MAX",
    "CarriedEntry",
    "Paper",
    "decode_paper",
    "encode_paper",
    "from_text",
    "to_text",
]

PAPER_BYTES_MAX = 2860
"""What one QR code (version 40, level L) holds in base45: 4,296 characters."""
PLAIN_BYTES_MAX = 16 * 1024
_VERSION = 1
_PREFIX = "RXL1:"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class CarriedEntry(Struct, frozen=True, array_like=True):
    """One more signed entry, with its feed's opening unless that is the paper's own."""

    opening: SignedOpening | None
    feed: Bytes16
    previous: Bytes32
    entry: Entry


class Paper(Struct, frozen=True, array_like=True):
    """What a code holds. Never printed by ``repr``: it holds keys."""

    opening: SignedOpening
    previous: Bytes32
    entry: Entry
    document_key: Bytes32
    seeds: Annotated[tuple[tuple[Annotated[int, Meta(ge=1, le=99)], Bytes32], ...], Meta(max_length=99)] = ()
    carried: Annotated[tuple[CarriedEntry, ...], Meta(max_length=16)] = ()

    def __repr__(self) -> str:
        return f"Paper(document={self.entry.document.hex()}, {len(self.seeds)} fills)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        # Otherwise a pretty-printed traceback shows every field (R13).
        return [("document", self.entry.document.hex())]


def encode_paper(paper: Paper) -> bytes:
    """Version, checksum, compressed content.

    Raises:
        LimitExceeded: it does not fit one code.
    """
    body = zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(paper))
    data = bytes([_VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body
    if len(data) > PAPER_BYTES_MAX:
        raise LimitExceeded(f"a paper of {len(data)} bytes; at most {PAPER_BYTES_MAX} fit one code")
    return data


def decode_paper(data: bytes) -> Paper:
    """Decode what a scanner read; nothing is verified yet.

    Raises:
        LimitExceeded, Malformed, VersionUnknown: it is not a paper, or was misread.
    """
    if len(data) > PAPER_BYTES_MAX:
        raise LimitExceeded(f"a paper of {len(data)} bytes; at most {PAPER_BYTES_MAX} fit one code")
    if len(data) < 6:
        raise Malformed("a paper is too short")
    if data[0] != _VERSION:
        raise VersionUnknown(f"a paper of version {data[0]}; this software reads version {_VERSION}")
    body = data[5:]
    if zlib.crc32(body).to_bytes(4, "big") != data[1:5]:
        raise Malformed("a paper was misread", advice="scan it again")
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= PLAIN_BYTES_MAX:
            raise LimitExceeded(f"a paper of {size} bytes inflated; at most {PLAIN_BYTES_MAX} are allowed")
        plain = zstandard.ZstdDecompressor(max_window_size=1 << 20).decompress(
            body, max_output_size=PLAIN_BYTES_MAX, read_across_frames=False, allow_extra_data=False
        )
        return msgspec.msgpack.decode(plain, type=Paper)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("a paper cannot be decoded") from error


def to_text(data: bytes) -> str:
    """The text of the bar code (RFC 9285)."""
    out: list[str] = []
    for at in range(0, len(data) - 1, 2):
        rest, low = divmod(data[at] * 256 + data[at + 1], 45)
        high, middle = divmod(rest, 45)
        out += (_ALPHABET[low], _ALPHABET[middle], _ALPHABET[high])
    if len(data) % 2:
        high, low = divmod(data[-1], 45)
        out += (_ALPHABET[low], _ALPHABET[high])
    return _PREFIX + "".join(out)


def from_text(text: str) -> bytes:
    """Bytes from the text of a bar code.

    Raises:
        Malformed: it is not one of ours, or was misread.
        LimitExceeded: it is longer than any of ours.
    """
    if not text.startswith(_PREFIX):
        raise Malformed("this code is not one of a prescription's paper")
    body = text[len(_PREFIX) :]
    if len(body) > PAPER_BYTES_MAX * 3 // 2 + 3:
        raise LimitExceeded("a code is longer than any paper")
    try:
        values = [_VALUES[character] for character in body]
    except KeyError as error:
        raise Malformed("a code holds a character that is not of its alphabet") from error
    out = bytearray()
    for at in range(0, len(values), 3):
        part = values[at : at + 3]
        number = sum(value * 45**place for place, value in enumerate(part))
        if len(part) == 1 or number >= (1 << 16 if len(part) == 3 else 1 << 8):
            raise Malformed("a code was misread", advice="scan it again")
        out += number.to_bytes(2 if len(part) == 3 else 1, "big")
    return bytes(out)
