"""Content: what stands inside the seal, encoded and compressed with a published dictionary (R15).

``format number (1 byte) | zstandard frame of [document, parents, event bytes]``, the array in MessagePack.

- The format number pins the dictionary by its hash, for ever: what was written once can always be read. The
  frame itself names no dictionary; one that names another is refused.
- The bytes before compression have one form. The compressed bytes need not: what was written is what is
  signed, kept and passed on, so another level or version of zstandard changes nothing.
- On the way out every size is bounded before anything is allocated (decompression bombs); trailing bytes,
  second frames and frames that do not state their size are refused. Any bytes whatever end in content or a
  `PeerFault`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Annotated

import msgspec
import zstandard
from msgspec import Meta, Struct

from ledger.errors import LedgerBug, LimitExceeded, Malformed, VersionUnknown
from ledger.events import EVENT_BYTES_MAX
from ledger.ids import DocumentId, Link

__all__ = ["PARENTS_MAX", "PLAINTEXT_BYTES_MAX", "Content", "decode_content", "encode_content"]

FORMAT = 1
DICTIONARY_SHA256 = "ef50f8a261893acba656d7838e313bc2a6319d1649e0c1087dcf0c112fac0d93"
"""Of `dictionaries/1.zdict`, which format 1 uses."""
PARENTS_MAX = 64
"""Concurrent heads that one event can join; more are joined by the next event."""
PLAINTEXT_BYTES_MAX = EVENT_BYTES_MAX + PARENTS_MAX * 34 + 64
"""The largest event, all its parents, and their framing."""
_LEVEL = 3


class Content(Struct, frozen=True, array_like=True):
    """The document the event belongs to, its causal parents ascending, and the event's bytes verbatim."""

    document: Annotated[bytes, Meta(min_length=16, max_length=16)]
    parents: Annotated[
        tuple[Annotated[bytes, Meta(min_length=32, max_length=32)], ...], Meta(max_length=PARENTS_MAX)
    ]
    event_bytes: Annotated[bytes, Meta(max_length=EVENT_BYTES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Content)
# Compressors are not safe to share between threads, and making one costs as much as twenty contents.
_local = threading.local()


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    return _pinned((files("ledger") / "dictionaries" / "1.zdict").read_bytes())


def _pinned(data: bytes) -> zstandard.ZstdCompressionDict:
    if hashlib.sha256(data).hexdigest() != DICTIONARY_SHA256:
        raise LedgerBug("the published dictionary is not the one that format 1 names")
    return zstandard.ZstdCompressionDict(data)


def _compressor() -> zstandard.ZstdCompressor:
    made: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if made is None:
        made = _local.compressor = zstandard.ZstdCompressor(
            level=_LEVEL,
            dict_data=_dictionary(),
            write_checksum=False,
            write_content_size=True,
            write_dict_id=False,
        )
    return made


def _decompressor() -> zstandard.ZstdDecompressor:
    made: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if made is None:
        made = _local.decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary())
    return made


def encode_content(document: DocumentId, parents: Sequence[Link], event_bytes: bytes) -> bytes:
    """Encode and compress.

    Args:
        document: the document that the event belongs to.
        parents: ids of the document's heads when the event was written, ascending and distinct.
        event_bytes: what `ledger.events.encode_event` gave.

    Raises:
        LimitExceeded: the event is larger than `EVENT_BYTES_MAX`, or the parents are more than `PARENTS_MAX`.
        LedgerBug: an id has the wrong length, or the parents are not ascending.
    """
    if len(event_bytes) > EVENT_BYTES_MAX:
        raise LimitExceeded(f"an event of {len(event_bytes)} bytes; at most {EVENT_BYTES_MAX} are allowed")
    if len(parents) > PARENTS_MAX:
        raise LimitExceeded(f"an event with {len(parents)} parents; at most {PARENTS_MAX} are allowed")
    # What is signed cannot be taken back: never write what every reader would have to call void.
    if len(document) != 16 or any(len(parent) != 32 for parent in parents) or not _ascending(parents):
        raise LedgerBug("content to be sealed names a document or parents that no reader would accept")
    plain = _encoder.encode(Content(document, tuple(parents), event_bytes))
    return bytes([FORMAT]) + _compressor().compress(plain)


def decode_content(data: bytes) -> Content:
    """Decompress and decode.

    Raises:
        VersionUnknown: written in a newer format.
        LimitExceeded: it is, or claims to be, larger than `PLAINTEXT_BYTES_MAX`.
        Malformed: not one frame of content in its one form.
    """
    if not data:
        raise Malformed("content is empty")
    if data[0] != FORMAT:
        raise VersionUnknown(f"content of format {data[0]}; this software reads format {FORMAT}")
    plain = _decompress(data[1:])
    try:
        content = _decoder.decode(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("content cannot be decoded") from error
    if _encoder.encode(content) != plain:
        raise Malformed("content is not in canonical form")
    if not _ascending(content.parents):
        raise Malformed("the parents of an event are not ascending")
    return content


def _decompress(frame: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(frame)
        if size > PLAINTEXT_BYTES_MAX:
            raise LimitExceeded(f"content of {size} bytes; at most {PLAINTEXT_BYTES_MAX} are allowed")
        if size < 0:
            raise Malformed("content does not state its size")
        # In one pass, into a buffer of the stated size: the window that a frame declares reserves nothing.
        return _decompressor().decompress(
            frame, max_output_size=PLAINTEXT_BYTES_MAX, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Malformed("content cannot be decompressed") from error


def _ascending(parents: Sequence[bytes]) -> bool:
    return all(a < b for a, b in pairwise(parents))
