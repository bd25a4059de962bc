"""Digests of what is held of a district: equal ones mean the same feeds, heads and forks (section 7 of the design).

Feeds fall into a fixed number of buckets by the first bits of their ids, which are hashes, so buckets are about equally
full. Two replicas that differ in one feed of thousands find it by comparing the buckets' digests first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ledger.ids import FeedId, Link, tagged_hash

__all__ = ["BUCKETS", "bucket_digests", "bucket_range", "district_digest"]

BUCKETS = 64
"""Told in 64 × 16 bytes, one kilobyte: with 5,000 feeds, one that differs costs as much again and not 300 kB."""
_SHIFT = 2
"""Bits of a feed id's first byte that do not choose the bucket."""
_DIGEST_BYTES = 16
"""Of a bucket's digest. Whoever could find two sets of feeds with equal ones would only hide his own from a peer."""
_EMPTY = bytes(_DIGEST_BYTES)

Heads = tuple[tuple[int, Link], ...]


def bucket_range(first: int, last: int) -> tuple[bytes, bytes]:
    """The lowest and the highest feed id of the buckets from `first` to `last`."""
    return bytes([first << _SHIFT]) + bytes(15), bytes([((last + 1) << _SHIFT) - 1]) + b"\xff" * 15


def bucket_digests(frontier: Mapping[FeedId, Heads]) -> tuple[bytes, ...]:
    """A digest of each bucket's feeds and heads (16 bytes each); zeros for an empty one."""
    parts: list[list[bytes]] = [[] for _ in range(BUCKETS)]
    for feed, heads in sorted(frontier.items()):
        mine = parts[feed[0] >> _SHIFT]
        mine.append(feed)
        mine += [sequence.to_bytes(8, "big") + link for sequence, link in heads]
    return tuple(tagged_hash("bucket", *mine)[:_DIGEST_BYTES] if mine else _EMPTY for mine in parts)


def district_digest(buckets: Iterable[bytes], detached: Iterable[Link]) -> bytes:
    """32 bytes over the buckets' digests and the links of entries held ahead of their feeds."""
    links = sorted(detached)
    return tagged_hash("frontier of a district", *buckets, *((b"detached", *links) if links else ()))
