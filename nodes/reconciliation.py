"""Reconciliation of two replicas, without I/O: bytes in, bytes out (section 7 of the design).

1. Digests of the frontier, a district at a time (they cover links, so forks show); equal ones are done.
2. The frontiers of the districts that differ, in as many messages as they need.
3. Each side sends what the other lacks: proofs of fork, openings, entries held ahead of their feeds, then runs;
   governance first, unforked feeds before forked ones, within its own budget and the other's credit.

Both sides do the same; every message may be lost, repeated or reordered, and the next round goes on where things
stand (`turn` makes it begin with another feed, so that one which a peer keeps refusing holds up no other). A session is
one round. Memory and work are bounded by the limits named here, whatever the peer sends (R15).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from ledger.errors import LimitExceeded, OtherRealm, PeerFault
from ledger.exchange import ImportReport
from ledger.feed import ForkProof, Run, SignedOpening
from ledger.ids import GOVERNANCE, FeedId, Link, tagged_hash
from nodes.messages import (
    CREDIT_BYTES_MAX,
    DETACHED_PER_MESSAGE_MAX,
    DISTRICTS_MAX,
    FEEDS_PER_MESSAGE_MAX,
    HEADS_PER_FEED_MAX,
    HIGHEST,
    LOWEST,
    MESSAGE_BYTES_MAX,
    Ahead,
    Detached,
    Digest,
    Done,
    Entries,
    Frontier,
    Message,
    Refusal,
    decode_message,
    encode_message,
)
from nodes.ports import Heads, Replica, all_runs, entry_bytes, lacks, run_bytes

__all__ = [
    "BUDGET_BYTES",
    "DIGESTS_MAX",
    "FRONTIERS_MAX",
    "MESSAGES_MAX",
    "PROBLEMS_MAX",
    "REFUSALS_MAX",
    "Session",
    "frontier_digest",
]

BUDGET_BYTES = 8 * 1024 * 1024
"""What one side sends in one round: some 30,000 entries; the rest follows in the next round."""
PART_BYTES = 256 * 1024
"""Where a message is closed: the store cuts runs at half of it, so that one of ours stays below half the limit."""
MESSAGES_MAX = 10_000
"""Messages taken in from a peer in one round: its budget in runs of one small entry each."""
DIGESTS_MAX = 4
"""Digests answered in one round: each may cost a whole frontier. One is enough on a good link, more come of repetition."""
FRONTIERS_MAX = 1024
"""Frontiers answered in one round: each costs a look at one district's feeds. At a first meeting there is one for each
of a country's three hundred districts, several for a large one."""
PROBLEMS_MAX = 100
"""Codes remembered of one round; a peer that sends nothing but rubbish fills no memory."""
REFUSALS_MAX = 8
"""Refusals sent in one round: two sides that cannot read each other must not go on refusing for ever."""


def frontier_digest(replica: Replica, district: str) -> bytes:
    """A hash of what is held of a district: feeds, all their heads, and the entries held ahead of their feeds."""
    parts: list[bytes] = []
    for feed, heads in sorted(replica.frontier(district).items()):
        parts.append(feed)
        parts += [sequence.to_bytes(8, "big") + link for sequence, link in heads]
    detached = sorted(replica.detached_links(district))
    return tagged_hash("frontier of a district", *parts, *((b"detached", *detached) if detached else ()))


class Session:
    """One side of one round of conversation about the districts that both hold."""

    def __init__(
        self,
        replica: Replica,
        *,
        budget_bytes: int = BUDGET_BYTES,
        credit_bytes: int = CREDIT_BYTES_MAX,
        turn: int = 0,
    ) -> None:
        self._replica = replica
        self._left = budget_bytes
        self._credit_bytes = min(credit_bytes, CREDIT_BYTES_MAX)
        self._turn = tagged_hash("turn", turn.to_bytes(8, "big"))[:16]
        self._looked: dict[str, dict[FeedId, Heads]] = {}
        """What was held when last looked: so that many frontiers cost one look, as long as nothing new comes in."""
        self._messages = self._digests = self._frontiers = self._refusals = 0
        self.received = 0
        """New entries taken in."""
        self.problems: list[str] = []
        """Codes of what was refused, on either side; the first `PROBLEMS_MAX`."""
        self.moved = False
        """Anything at all was new: entries or openings."""
        self.in_step = False
        """The peer's digests were equal to ours."""

    def open(self) -> list[bytes]:
        """What to say first."""
        return [encode_message(self._digest())]

    def receive(self, data: bytes) -> list[bytes]:
        """Take in one message; returns the answers. A bad message is answered with a refusal, never raised.

        Raises:
            StoreFull, StoreDamaged: this node's own disk; nothing of the message was kept.
        """
        self._messages += 1
        if self._messages > MESSAGES_MAX:
            self._problem(LimitExceeded.code)
            return []
        try:
            return [encode_message(m) for m in self._answer(decode_message(data))]
        except PeerFault as error:
            self._problem(error.code)
            self._refusals += 1
            return [encode_message(Refusal(error.code))] if self._refusals <= REFUSALS_MAX else []

    def _problem(self, code: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(code)

    def _digest(self) -> Digest:
        districts = sorted(self._replica.districts(), key=_governance_first)[:DISTRICTS_MAX]
        return Digest(self._replica.realm, {d: frontier_digest(self._replica, d) for d in districts})

    def _answer(self, message: Message) -> Iterator[Message]:
        match message:
            case Digest():
                self._digests += 1
                if self._digests <= DIGESTS_MAX:
                    yield from self._compare(message)
            case Frontier():
                self._frontiers += 1
                if self._frontiers <= FRONTIERS_MAX:
                    yield from self._send(message)
            case Entries():
                self._moved(self._take(message))
            case Detached():
                self._moved(self._take_detached(message))
            case Refusal():
                self._problem(f"peer: {message.code}")
            case Done():
                pass

    # --- asking ----------------------------------------------------------------------------------------------

    def _compare(self, theirs: Digest) -> Iterator[Message]:
        if theirs.realm != self._replica.realm:
            raise OtherRealm("the peer is of another realm")
        held = self._replica.districts()
        # What only we hold is the peer's to ask for, if it wants it.
        differing = [
            district
            for district in sorted(theirs.districts, key=_governance_first)
            if (district in held or self._replica.wants(district))
            and frontier_digest(self._replica, district) != theirs.districts[district]
        ]
        self.in_step = not differing
        for district in differing:
            yield from self._told(district)

    def _told(self, district: str) -> Iterator[Frontier]:
        """What is held of a district, in messages of bounded size, each for a range of feeds without a gap."""
        detached = tuple(sorted(self._replica.detached_links(district))[:DETACHED_PER_MESSAGE_MAX])
        feeds: dict[bytes, tuple[tuple[int, bytes], ...]] = {}
        size, lowest = 0, LOWEST
        for feed, heads in sorted(self._replica.frontier(district).items()):
            if size >= PART_BYTES or len(feeds) == FEEDS_PER_MESSAGE_MAX:
                below = (int.from_bytes(feed, "big") - 1).to_bytes(16, "big")
                yield Frontier({district: feeds}, lowest, below, detached, self._credit_bytes)
                feeds, size, lowest = {}, 0, feed
            feeds[feed] = heads[-HEADS_PER_FEED_MAX:]
            size += 20 + 44 * len(feeds[feed])
        yield Frontier({district: feeds}, lowest, HIGHEST, detached, self._credit_bytes)

    # --- giving ----------------------------------------------------------------------------------------------

    def _send(self, theirs: Frontier) -> Iterator[Message]:
        self._left = min(self._left, theirs.credit)
        for district in sorted(theirs.districts, key=_governance_first):
            if self._frontier(district):
                yield from self._send_district(district, theirs.districts[district], theirs)
        yield Done()

    def _frontier(self, district: str) -> dict[FeedId, Heads]:
        if len(self._looked) > DISTRICTS_MAX:
            self._looked.clear()
        if district not in self._looked:
            self._looked[district] = self._replica.frontier(district)
        return self._looked[district]

    def _send_district(
        self, district: str, told: dict[bytes, tuple[tuple[int, bytes], ...]], theirs: Frontier
    ) -> Iterator[Message]:
        known = {
            FeedId(feed): tuple(sorted((sequence, Link(link)) for sequence, link in heads))
            for feed, heads in told.items()
        }
        ours = {
            feed: heads
            for feed, heads in self._frontier(district).items()
            if theirs.lowest <= feed <= theirs.highest
        }
        yield from self._send_proofs(ours, known)
        introduced = set(known)
        yield from self._send_detached(district, ours.keys(), introduced, set(theirs.detached))
        yield from self._send_runs(ours, known, introduced)

    def _send_proofs(self, ours: dict[FeedId, Heads], known: dict[FeedId, Heads]) -> Iterator[Message]:
        if all(len(heads) == 1 for heads in ours.values()):
            return
        for proof in self._replica.fork_proofs():
            feed = FeedId(proof.left.feed)
            if feed in ours and feed in known and len(known[feed]) < 2 and self._left > 0:
                self._left -= run_bytes(proof.left) + run_bytes(proof.right)
                message = Entries(proofs=(proof,))
                # Two of the longest runs do not fit one message; the branches themselves follow, and prove the same.
                if len(encode_message(message)) <= MESSAGE_BYTES_MAX:
                    yield message

    def _send_detached(
        self, district: str, ours: AbstractSet[FeedId], introduced: set[FeedId], known: set[bytes]
    ) -> Iterator[Message]:
        openings: list[SignedOpening] = []
        batch: list[Ahead] = []
        size = 0
        for link in self._replica.detached_links(district):
            found = None if link in known or self._left <= 0 else self._replica.detached_entry(link)
            if found is None or found[0] not in ours:
                continue
            if found[0] not in introduced:
                introduced.add(found[0])
                openings.append(self._introduce(found[0]))
            batch.append(Ahead(*found))
            size += 128 + entry_bytes(found[2])
            self._left -= 128 + entry_bytes(found[2])
            if size + sum(len(o.body) for o in openings) >= PART_BYTES:
                yield from _ahead(openings, batch)
                openings, batch, size = [], [], 0
        yield from _ahead(openings, batch)

    def _send_runs(
        self, ours: dict[FeedId, Heads], known: dict[FeedId, Heads], introduced: set[FeedId]
    ) -> Iterator[Message]:
        """Feed by feed, each opening just before its runs: on a thin link what has arrived can be used."""
        openings: list[SignedOpening] = []
        batch: list[Run] = []
        size = 0
        for feed in sorted(ours, key=lambda f: (len(ours[f]) > 1, f < self._turn, f)):
            theirs = known.get(feed, ())
            if self._left <= 0 or not lacks(theirs, ours[feed]):
                continue
            if feed not in introduced:
                openings.append(self._introduce(feed))
                size += len(openings[-1].body) + 128
            for run in all_runs(self._replica, feed, theirs, self._left):
                if batch and size + run_bytes(run) > PART_BYTES:
                    yield Entries(openings=tuple(openings), runs=tuple(batch))
                    openings, batch, size = [], [], 0
                batch.append(run)
                size += run_bytes(run)
                self._left -= run_bytes(run)
            if size > PART_BYTES:
                yield Entries(openings=tuple(openings), runs=tuple(batch))
                openings, batch, size = [], [], 0
        if openings or batch:
            yield Entries(openings=tuple(openings), runs=tuple(batch))

    def _introduce(self, feed: FeedId) -> SignedOpening:
        opening = self._replica.opening(feed)
        self._left -= len(opening.body) + 128
        return opening

    # --- taking ----------------------------------------------------------------------------------------------

    def _moved(self, new: int) -> None:
        if new:
            self.moved = True
            self._looked.clear()

    def _take(self, message: Entries) -> int:
        new = sum(self._take_opening(opening) for opening in message.openings)
        new += sum(self._take_proof(proof) for proof in message.proofs)
        if message.runs:
            report: ImportReport = self._replica.import_runs(message.runs)
            self.received += report.new
            new += report.new
            for _, code in report.refused:
                self._problem(code)
        return new

    def _take_opening(self, opening: SignedOpening) -> int:
        try:
            return self._replica.import_openings([opening])
        except PeerFault as error:
            self._problem(error.code)
            return 0

    def _take_proof(self, proof: ForkProof) -> int:
        try:
            return int(self._replica.import_fork_proof(proof))
        except PeerFault as error:
            self._problem(error.code)
            return 0

    def _take_detached(self, message: Detached) -> int:
        new = 0
        for ahead in message.entries:
            try:
                new += self._replica.import_detached(FeedId(ahead.feed), Link(ahead.previous), ahead.entry)
            except PeerFault as error:
                self._problem(error.code)
        self.received += new
        return new


def _ahead(openings: list[SignedOpening], batch: list[Ahead]) -> Iterator[Message]:
    if openings:
        yield Entries(openings=tuple(openings))
    if batch:
        yield Detached(tuple(batch))


def _governance_first(district: str) -> tuple[bool, str]:
    return district != GOVERNANCE, district
