"""What one side of a round owes the other, made piece by piece as there is room for it (section 7 of the design).

In order: proofs of fork, governance, entries held ahead of their feeds, urgent entries of long feeds (if asked for), then
the feeds: those with urgent entries before the rest, unforked before forked. Nothing is read before it can be sent, so a
peer that lacks a million entries costs the memory of one piece.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import pairwise

from ledger.feed import Entry, Run, SignedOpening, run_links
from ledger.ids import GOVERNANCE, FeedId, Link, tagged_hash
from nodes.messages import (
    DETACHED_PER_MESSAGE_MAX,
    MESSAGE_BYTES_MAX,
    Ahead,
    Detached,
    Entries,
    Message,
    encode_message,
)
from nodes.ports import CHUNK_BYTES, Heads, Replica, entry_bytes, lacks, run_bytes

__all__ = ["PART_BYTES", "UNHELD", "URGENT_PER_FEED_MAX", "Sending"]

PART_BYTES = 64 * 1024
"""Where a message is closed: the store cuts runs at half of it, so that one of ours stays below half the limit."""
UNHELD: Heads = ((0, Link(bytes(32))),)
"""What is said to be held of a feed of which nothing is, before what is on its way."""
URGENT_PER_FEED_MAX = 64
"""Entries of one feed that travel ahead of it in one round: a pharmacy's busy hour; the feed itself follows."""
URGENT_FEEDS_MAX = 256
"""Feeds that are looked at for urgent entries in one round: each costs a query."""
_PROOFS, _GOVERNANCE, _AHEAD, _URGENT, _FEEDS = range(5)


class Sending:
    """A queue of generators of messages, by rank."""

    def __init__(
        self, replica: Replica, *, budget_bytes: int, turn: int = 0, urgent_ahead: bool = False
    ) -> None:
        self._replica = replica
        self.left = budget_bytes
        """Bytes that may still be sent in this round."""
        self._turn = tagged_hash("turn", turn.to_bytes(8, "big"))[:16]
        self._urgent_ahead = urgent_ahead
        self._size = PART_BYTES
        self._queue: list[tuple[int, int, Iterator[Message]]] = []
        self._queued = 0

    def owe(
        self,
        district: str,
        ours: dict[FeedId, Heads],
        known: dict[FeedId, Heads],
        detached: AbstractSet[bytes],
    ) -> None:
        """Queue what the peer lacks of these feeds, given what it said that it holds of them."""
        introduced: set[FeedId] = set(known)
        if any(len(heads) > 1 for heads in ours.values()):
            self._add(_PROOFS, self._proofs(ours, known))
        self._add(_AHEAD, self._ahead(district, ours.keys(), introduced, detached))
        lacking = [
            feed
            for feed in ours
            # Of a feed that only begins to come from somebody else, the peer could take in nothing beyond.
            if known.get(feed, ())[:1] != UNHELD and lacks(known.get(feed, ()), ours[feed])
        ]
        if not lacking:
            return
        urgent = set[FeedId]()
        if len(lacking) <= URGENT_FEEDS_MAX and (self._urgent_ahead or len(lacking) > 1):
            urgent = {feed for feed in lacking if self._replica.urgent(feed, _held(known, feed), 1)}
        if self._urgent_ahead and urgent and district != GOVERNANCE:
            self._add(_URGENT, self._urgent(sorted(urgent), known, introduced))
        lacking.sort(key=lambda f: (len(ours[f]) > 1, f not in urgent, f < self._turn, f))
        rank = _GOVERNANCE if district == GOVERNANCE else _FEEDS
        self._add(rank, self._runs(lacking, ours, known, introduced))

    def next(self, size: int = PART_BYTES) -> Message | None:
        """The next message, of about `size` bytes; None if nothing is owed or the budget is spent."""
        self._size = max(1, min(size, PART_BYTES))
        while self._queue:
            message = next(self._queue[0][2], None)
            if message is not None:
                return message
            heapq.heappop(self._queue)
        return None

    def _add(self, rank: int, messages: Iterator[Message]) -> None:
        self._queued += 1
        heapq.heappush(self._queue, (rank, self._queued, messages))

    # --- what is sent ------------------------------------------------------------------------------------------------

    def _proofs(self, ours: dict[FeedId, Heads], known: dict[FeedId, Heads]) -> Iterator[Message]:
        for proof in self._replica.fork_proofs():
            feed = FeedId(proof.left.feed)
            if feed in ours and feed in known and len(known[feed]) < 2 and self.left > 0:
                self.left -= run_bytes(proof.left) + run_bytes(proof.right)
                message = Entries(proofs=(proof,))
                # Two of the longest runs do not fit one message; the branches themselves follow, and prove the same.
                if len(encode_message(message)) <= MESSAGE_BYTES_MAX:
                    yield message

    def _ahead(
        self, district: str, ours: AbstractSet[FeedId], introduced: set[FeedId], known: AbstractSet[bytes]
    ) -> Iterator[Message]:
        links = (link for link in self._replica.detached_links(district) if link not in known)
        found = (self._replica.detached_entry(link) for link in links)
        yield from self._detached(
            (each for each in found if each is not None and each[0] in ours), introduced
        )

    def _urgent(
        self, feeds: list[FeedId], known: dict[FeedId, Heads], introduced: set[FeedId]
    ) -> Iterator[Message]:
        found = [
            (feed, previous, entry)
            for feed in feeds
            for previous, entry in self._replica.urgent(feed, _held(known, feed), URGENT_PER_FEED_MAX)
        ]
        found.sort(key=lambda each: (each[2].lane, each[2].stamp))
        yield from self._detached(iter(found), introduced)

    def _detached(
        self, found: Iterator[tuple[FeedId, Link, Entry]], introduced: set[FeedId]
    ) -> Iterator[Message]:
        openings: list[SignedOpening] = []
        batch: list[Ahead] = []
        size = 0
        for feed, previous, entry in found:
            if self.left <= 0:
                break
            cost = 128 + entry_bytes(entry)
            if feed not in introduced:
                introduced.add(feed)
                openings.append(self._introduce(feed))
                cost += len(openings[-1].body)
            batch.append(Ahead(feed, previous, entry))
            size += cost
            self.left -= 128 + entry_bytes(entry)
            if size >= self._size or len(batch) == DETACHED_PER_MESSAGE_MAX:
                yield from _split(openings, batch)
                openings, batch, size = [], [], 0
        yield from _split(openings, batch)

    def _runs(
        self,
        feeds: list[FeedId],
        ours: dict[FeedId, Heads],
        known: dict[FeedId, Heads],
        introduced: set[FeedId],
    ) -> Iterator[Message]:
        """Feed by feed, each opening just before its runs: on a thin link what has arrived can be used."""
        openings: list[SignedOpening] = []
        batch: list[Run] = []
        size = 0
        for feed in feeds:
            if self.left <= 0:
                break
            if feed not in introduced:
                introduced.add(feed)
                openings.append(self._introduce(feed))
                size += len(openings[-1].body) + 128
            after: Heads | None = known.get(feed, ())
            while after is not None and self.left > 0:
                room = max(1, min(self._size - size, self.left, CHUNK_BYTES))
                got = list(self._replica.runs(feed, after, room))
                for run in got:
                    if batch and size + run_bytes(run) > self._size:
                        yield Entries(openings=tuple(openings), runs=tuple(batch))
                        openings, batch, size = [], [], 0
                    batch.append(run)
                    size += run_bytes(run)
                    self.left -= run_bytes(run)
                after = _advanced(self._replica, after, got, ours[feed])
                if size >= self._size * 3 // 4:  # What is left would cost as much reading as a whole piece.
                    yield Entries(openings=tuple(openings), runs=tuple(batch))
                    openings, batch, size = [], [], 0
        if openings or batch:
            yield Entries(openings=tuple(openings), runs=tuple(batch))

    def _introduce(self, feed: FeedId) -> SignedOpening:
        opening = self._replica.opening(feed)
        self.left -= len(opening.body) + 128
        return opening


def _held(known: dict[FeedId, Heads], feed: FeedId) -> int:
    """The highest sequence that the peer holds of a feed, as it said."""
    return max((sequence for sequence, _ in known.get(feed, ())), default=0)


def _advanced(replica: Replica, after: Heads, got: list[Run], ours: Heads) -> Heads | None:
    """What the peer holds of a feed once it has these runs too; None if that is all of it."""
    if not got:
        return None
    ends = [
        run
        for run, following in pairwise(got)
        if run.entries[-1].sequence + 1 != following.entries[0].sequence
    ]
    told = [(run.entries[-1].sequence, run_links(replica.realm, run)[-1]) for run in (*ends, got[-1])]
    return None if len(ours) == 1 and told[-1] == ours[0] else (*after, *told)


def _split(openings: list[SignedOpening], batch: list[Ahead]) -> Iterator[Message]:
    if openings:
        yield Entries(openings=tuple(openings))
    if batch:
        yield Detached(tuple(batch))
