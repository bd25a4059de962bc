"""Content: what stands inside the seal, encoded and compressed with a published dictionary.

``format number (1 byte) | zstandard frame of [document, parents, event bytes]`` in MessagePack. The format number pins
library, level and dictionary by its hash, for ever: what was written once can always be read. On the way out every
size is bounded before it is allocated (decompression bombs); trailing bytes and second frames are refused.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated

import msgspec
import zstandard
from msgspec import Meta, Struct

from ledger.errors import LedgerBug, LimitExceeded, Malformed, VersionUnknown
from ledger.events import EVENT_BYTES_MAX
from ledger.ids import DocumentId, Link

__all__ = ["PARENTS_MAX", "PLAINTEXT_BYTES_MAX", "Content", "decode_content", "encode_content"]

FORMAT = 1
DICTIONARY_SHA256 = "3284b638700fa4614e43ad970720b3383321ae442e5879d5f1de71f9c9217eee"
"""Of `dictionaries/1.zdict`, which format 1 uses."""
PARENTS_MAX = 64
"""Concurrent heads that one event can join; more are joined by the next event."""
PLAINTEXT_BYTES_MAX = EVENT_BYTES_MAX + PARENTS_MAX * 34 + 64
"""The largest event, all its parents, and their framing."""
_LEVEL = 3


class Content(Struct, frozen=True, array_like=True):
    """The document the event belongs to, its causal parents ascending, and the event's bytes verbatim."""

    document: Annotated[bytes, Meta(min_length=16, max_length=16)]
    parents: Annotated[tuple[Annotated[bytes, Meta(min_length=32, max_length=32)], ...], Meta(max_length=PARENTS_MAX)]
    event_bytes: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Content)
_local = threading.local()


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    data = (files("ledger") / "dictionaries" / "1.zdict").read_bytes()
    if hashlib.sha256(data).hexdigest() != DICTIONARY_SHA256:
        raise LedgerBug("the published dictionary is not the one that format 1 names")
    return zstandard.ZstdCompressionDict(data)


def _compressor() -> zstandard.ZstdCompressor:
    made: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if made is None:
        made = _local.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, dict_data=_dictionary(), write_checksum=False, write_content_size=True, write_dict_id=False
        )
    return made


def _decompressor() -> zstandard.ZstdDecompressor:
    made: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if made is None:
        made = _local.decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(), max_window_size=1 << 20)
    return made


def encode_content(document: DocumentId, parents: Sequence[Link], event_bytes: bytes) -> bytes:
    """Encode and compress; parents ascending and distinct, at most `PARENTS_MAX`.

    Raises:
        LimitExceeded: the event is larger than `EVENT_BYTES_MAX`.
    """
    if len(event_bytes) > EVENT_BYTES_MAX:
        raise LimitExceeded(f"an event of {len(event_bytes)} bytes; at most {EVENT_BYTES_MAX} are allowed")
    plain = _encoder.encode(Content(document, tuple(parents), event_bytes))
    return bytes([FORMAT]) + _compressor().compress(plain)


def decode_content(data: bytes) -> Content:
    """Decompress and decode.

    Raises:
        VersionUnknown: written in a newer format.
        LimitExceeded: it would be larger than `PLAINTEXT_BYTES_MAX`.
        Malformed: not one frame of canonical content.
    """
    if not data:
        raise Malformed("content is empty")
    if data[0] != FORMAT:
        raise VersionUnknown(f"content of format {data[0]}; this software reads format {FORMAT}")
    frame = data[1:]
    try:
        size = zstandard.frame_content_size(frame)
        if size > PLAINTEXT_BYTES_MAX:
            raise LimitExceeded(f"content of {size} bytes; at most {PLAINTEXT_BYTES_MAX} are allowed")
        if size < 0:
            raise Malformed("content does not state its size")
        plain = _decompressor().decompress(
            frame, max_output_size=PLAINTEXT_BYTES_MAX, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Malformed("content cannot be decompressed") from error
    try:
        content = _decoder.decode(plain)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed("content cannot be decoded") from error
    if _encoder.encode(content) != plain:
        raise Malformed("content is not in canonical form")
    if any(a >= b for a, b in zip(content.parents, content.parents[1:], strict=False)):
        raise Malformed("the parents of an event are not ascending")
    return content
