"""Runs out of a store: what a peer lacks, proofs of fork, and the check of every chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ledger.errors import LimitExceeded, StoreDamaged
from ledger.feed import (
    ENTRY_OVERHEAD_BYTES,
    RUN_ENTRIES_MAX,
    ForkProof,
    Run,
    drop_inner_signatures,
    genesis_link,
)
from ledger.ids import FeedId, Link
from ledger.store.port import BranchRow, FeedRow, Head, StoredEntry

__all__ = [
    "DETACHED_PER_FEED_MAX",
    "RUN_ENTRIES",
    "check_detached_room",
    "fork_proof",
    "runs_after",
    "verify",
]

RUN_ENTRIES = 500
"""Entries read at once at most, and those that share one signature."""
RUN_BYTES = 56 * 1024
"""Where a run is cut: one, with its feed's opening, fits a message of replication. A run that came with one signature at its end can be
cut nowhere else, but no longer one is taken in than `ledger.feed.RUN_BYTES_MAX`."""
TYPICAL_ENTRY_BYTES = 200
"""Guides how many entries are read for a run of so many bytes; where they are smaller, runs are shorter."""
DETACHED_PER_FEED_MAX = 1000
"""Urgent entries ahead of one feed: several days of a pharmacy's supplies; more is a flood."""


class Chains(Protocol):
    """What is needed of a store."""

    def feed(self, feed: FeedId) -> FeedRow | None: ...
    def feeds(self, district: str | None = None) -> list[FeedRow]: ...
    def heads(self, feed: FeedId) -> list[Head]: ...
    def branch_rows(self, feed: FeedId) -> list[BranchRow]: ...
    def chain(self, feed: FeedId, branch: int, after: int, limit: int) -> list[StoredEntry]: ...
    def position(self, feed: FeedId, sequence: int, link: Link) -> int | None: ...


def check_detached_room(row: tuple[int, ...] | None) -> None:
    """Refuse one detached entry too many.

    Raises:
        LimitExceeded: the feed has `DETACHED_PER_FEED_MAX` already.
    """
    if row is not None and row[0] >= DETACHED_PER_FEED_MAX:
        raise LimitExceeded(f"a feed has {DETACHED_PER_FEED_MAX} detached entries already")


def _parents(store: Chains, feed: FeedId) -> dict[int, BranchRow]:
    return {row.branch: row for row in store.branch_rows(feed)}


def _known(store: Chains, feed: FeedId, after: tuple[tuple[int, Link], ...]) -> dict[int, int]:
    """Branch → highest sequence on it that a peer with these heads holds, its parents included."""
    parents = _parents(store, feed)
    known: dict[int, int] = {}
    for end, link in after:
        sequence, branch = end, store.position(feed, end, link) if end else 0
        while branch is not None:
            known[branch] = max(known.get(branch, 0), sequence)
            row = parents.get(branch)
            branch, sequence = (row.parent, row.sequence - 1) if row else (None, 0)
    return known


def runs_after(
    store: Chains, feed: FeedId, after: tuple[tuple[int, Link], ...], budget_bytes: int
) -> Iterator[Run]:
    """What a peer with these heads lacks of a feed, branch by branch, parents first, up to a budget.

    A run ends at a signed entry. Heads that are not held here (the peer is ahead) say nothing.
    """
    # Heads first: of a branch that another process adds meanwhile, the parent would not be known.
    heads = store.heads(feed)
    known, parents = _known(store, feed, after), _parents(store, feed)
    for head in heads:
        row = parents.get(head.branch)
        position = max(known.get(head.branch, 0), row.sequence - 1 if row else 0)
        while position < head.sequence and budget_bytes > 0:
            room = min(budget_bytes, RUN_BYTES)
            count = min(RUN_ENTRIES, room // TYPICAL_ENTRY_BYTES + 1)
            chunk = _cut(store.chain(feed, head.branch, position, count), room)
            if (
                not chunk
            ):  # The next signature lies further than there is room: the least that can be verified.
                chunk = _cut(store.chain(feed, head.branch, position, RUN_ENTRIES_MAX), 1)
            _check_consecutive(feed, position, chunk)
            yield _run(feed, chunk)
            budget_bytes -= sum(_size(entry) for entry in chunk)
            position = chunk[-1].sequence


def _check_consecutive(feed: FeedId, position: int, chunk: list[StoredEntry]) -> None:
    """Every run taken in ended with a signature: what follows a position begins right after it and ends with one."""
    if not chunk:
        raise StoreDamaged(
            "the rest of a feed is missing", where=f"feed {feed.hex()} sequence {position + 1}"
        )
    previous = chunk[0].previous
    for expected, entry in enumerate(chunk, position + 1):
        if entry.sequence != expected or entry.previous != previous:
            raise StoreDamaged("an entry is missing", where=f"feed {feed.hex()} sequence {expected}")
        previous = entry.link


def _size(entry: StoredEntry) -> int:
    return ENTRY_OVERHEAD_BYTES + len(entry.sealed or b"") + len(entry.sealed_hash or b"")


def _cut(chunk: list[StoredEntry], budget_bytes: int) -> list[StoredEntry]:
    """The longest beginning that fits the budget (or one entry) and ends with a signature."""
    end, size = 0, 0
    for index, entry in enumerate(chunk):
        size += _size(entry)
        if size > budget_bytes and end:
            break
        if entry.signature is not None:
            end = index + 1
    return chunk[:end]


def _run(feed: FeedId, chunk: list[StoredEntry]) -> Run:
    return Run(feed, chunk[0].previous, drop_inner_signatures([entry.entry() for entry in chunk]))


def fork_proof(store: Chains, feed: FeedId) -> ForkProof | None:
    """Make the proof of the first fork of a feed from the branches held; None if a side has no signature yet."""
    rows = sorted(store.branch_rows(feed), key=lambda row: row.sequence)
    for row in rows:
        right = _cut(store.chain(feed, row.branch, row.sequence - 1, RUN_ENTRIES_MAX), 1)
        left = _cut(store.chain(feed, row.parent, row.sequence - 1, RUN_ENTRIES_MAX), 1)
        if left and right and left[0].previous == right[0].previous:
            first, second = sorted((left, right), key=lambda chunk: chunk[0].link)
            return ForkProof(_run(feed, first), _run(feed, second))
    return None


def verify(store: Chains) -> Iterator[StoredEntry]:
    """Every chained entry in order of feed, branch and sequence, each checked against its predecessor.

    Raises:
        StoreDamaged: a chain does not hold; names feed and sequence.
    """
    for row in store.feeds():
        heads = store.heads(row.feed)
        parents = _parents(store, row.feed)
        links: dict[tuple[int, int], Link] = {}
        for head in heads:
            branch = parents.get(head.branch)
            position = branch.sequence - 1 if branch else 0
            previous: Link | None = genesis_link(row.signed) if position == 0 else None
            if branch is not None and position:
                previous = links.get((branch.parent, position)) or _link_at(store, row.feed, branch, position)
            while position < head.sequence:
                # Not beyond the head that was read: another process may be writing.
                chunk = store.chain(
                    row.feed, head.branch, position, min(RUN_ENTRIES, head.sequence - position)
                )
                if not chunk:
                    break
                for entry in chunk:
                    if entry.sequence != position + 1 or entry.previous != previous:
                        raise StoreDamaged(
                            "a chain is broken", where=f"feed {row.feed.hex()} sequence {position + 1}"
                        )
                    position, previous = entry.sequence, entry.link
                    yield entry
            if position != head.sequence or previous != head.link:
                raise StoreDamaged("a chain does not reach its head", where=f"feed {row.feed.hex()}")


def _link_at(store: Chains, feed: FeedId, branch: BranchRow, sequence: int) -> Link | None:
    parents = _parents(store, feed)
    at = branch.parent
    while at in parents and parents[at].sequence > sequence:
        at = parents[at].parent
    found = store.chain(feed, at, sequence - 1, 1)
    return found[0].link if found else None
