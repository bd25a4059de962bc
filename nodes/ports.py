"""What replication needs of a ledger. `ledger.exchange.Exchange` is the one that production uses.

Also the rule, common to every transport, for who sends what of a feed that two replicas hold differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ledger.exchange import ImportReport
from ledger.feed import Entry, ForkProof, Run, SignedOpening, run_links
from ledger.ids import FeedId, Link, RealmId

__all__ = ["Frontier", "Heads", "Replica", "all_runs", "entry_bytes", "lacks", "run_bytes"]

CHUNK_BYTES = 4 * 1024 * 1024
"""Runs of one feed asked for at once: bounds what is held in memory, however long the feed."""

Heads = tuple[tuple[int, Link], ...]
"""Sequence and link of every branch's end, ascending."""
Frontier = dict[FeedId, Heads]
"""What is held of a district."""


class Replica(Protocol):
    """A set of feeds that can be told of and added to."""

    @property
    def realm(self) -> RealmId: ...
    def districts(self) -> set[str]: ...
    def wants(self, district: str) -> bool: ...
    def frontier(self, district: str) -> Frontier: ...
    def mark(self) -> int: ...
    def district_digest(self, district: str) -> bytes: ...
    def bucket_digests(self, district: str) -> tuple[bytes, ...]: ...
    def urgent(self, feed: FeedId, after: int, limit: int) -> list[tuple[Link, Entry]]: ...
    def opening(self, feed: FeedId) -> SignedOpening: ...
    def runs(self, feed: FeedId, after: Iterable[tuple[int, Link]], budget_bytes: int) -> Iterator[Run]: ...
    def fork_proofs(self) -> list[ForkProof]: ...
    def detached_links(self, district: str) -> list[Link]: ...
    def detached_entry(self, link: Link) -> tuple[FeedId, Link, Entry] | None: ...
    def import_openings(self, openings: Iterable[SignedOpening]) -> int: ...
    def import_runs(self, runs: Iterable[Run]) -> ImportReport: ...
    def import_detached(self, feed: FeedId, previous: Link, entry: Entry) -> bool: ...
    def import_fork_proof(self, proof: ForkProof) -> bool: ...


def lacks(theirs: Heads, ours: Heads) -> bool:
    """Whether a peer with these heads of a feed is to be sent something of it.

    A peer whose highest head lies above ours is ahead, as a rule: it sends first, or every meeting would send the whole
    feed back. Should it stand on another branch, we hold that branch after its turn, and ours goes the next round.
    The holder of the highest head that only one side has always sends, so that every round brings the two nearer.
    """
    if tuple(sorted(theirs)) == ours:
        return False
    return not theirs or not ours or max(theirs)[0] <= max(ours)[0]


def entry_bytes(entry: Entry) -> int:
    """What an entry costs to carry, at least: never nothing, so that no number of them is free."""
    return 64 + len(entry.sealed or b"") + len(entry.sealed_hash or b"")


def run_bytes(run: Run) -> int:
    """What a run costs to carry."""
    return 64 + sum(entry_bytes(entry) for entry in run.entries)


def all_runs(replica: Replica, feed: FeedId, after: Heads, budget_bytes: int | None = None) -> Iterator[Run]:
    """Runs of a feed after these heads, asked for a chunk at a time, up to a budget (None: all)."""
    left = budget_bytes
    while left is None or left > 0:
        chunk = CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)
        size, ends, last = 0, [], None
        for run in replica.runs(feed, after, chunk):
            size += run_bytes(run)
            if last is not None and last.entries[-1].sequence + 1 != run.entries[0].sequence:
                ends.append(last)  # A branch ends within the chunk: the next chunk must not begin it again.
            last = run
            yield run
        if last is None or size < chunk:
            return
        told = [(end.entries[-1].sequence, run_links(replica.realm, end)[-1]) for end in (*ends, last)]
        after = (*after, *told)
        left = None if left is None else left - size
