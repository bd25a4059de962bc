"""Reconciliation of two replicas, without I/O: bytes in, bytes out (section 7 of the design).

1. One digest over all that both hold, or one a district (they cover links, so forks show); equal ones are done.
2. Of large districts that differ, the digests of their buckets of feeds; then the frontiers of what differs, in as
   many messages as they need.
3. Each side sends what the other lacks, in the order of `nodes.sending`, within its own budget and the other's credit.

Both sides do the same; every message may be lost, repeated or reordered, and the next round goes on where things
stand (`turn` makes it begin with another feed, so that one which a peer keeps refusing holds up no other). A session is
one round. Memory and work are bounded by the limits named here, whatever the peer sends (R15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ledger.errors import LimitExceeded, OtherRealm, PeerFault
from ledger.exchange import ImportReport
from ledger.feed import ForkProof, SignedOpening
from ledger.frontiers import BUCKETS, bucket_range
from ledger.ids import GOVERNANCE, FeedId, Link, tagged_hash
from nodes.messages import (
    CREDIT_BYTES_MAX,
    DETACHED_PER_MESSAGE_MAX,
    DISTRICTS_MAX,
    FEEDS_PER_MESSAGE_MAX,
    HEADS_PER_FEED_MAX,
    HIGHEST,
    LOWEST,
    Buckets,
    Detached,
    Digest,
    Done,
    Entries,
    Frontier,
    InStep,
    Message,
    Refusal,
    Summary,
    decode_message,
    encode_message,
)
from nodes.ports import Heads, Replica
from nodes.promises import Voice
from nodes.sending import PART_BYTES, UNHELD, Sending

__all__ = [
    "BUCKETED_FEEDS",
    "BUDGET_BYTES",
    "DIGESTS_MAX",
    "FRONTIERS_MAX",
    "MESSAGES_MAX",
    "PROBLEMS_MAX",
    "REFUSALS_MAX",
    "Session",
    "summary_digest",
]

BUDGET_BYTES = 8 * 1024 * 1024
"""What one side sends in one round: some 30,000 entries; the rest follows in the next round."""
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


BUCKETED_FEEDS = 128
"""Feeds of a district from which on buckets are compared before frontiers: 8 kB of frontier against 1 kB of digests."""


def summary_digest(replica: Replica, districts: Iterable[str]) -> bytes:
    """One digest of what is held of some districts."""
    parts: list[bytes] = []
    for district in sorted(set(districts)):
        parts += [district.encode(), replica.district_digest(district)]
    return tagged_hash("summary", *parts)


class Session:
    """One side of one round of conversation about the districts that both hold."""

    def __init__(
        self,
        replica: Replica,
        *,
        budget_bytes: int = BUDGET_BYTES,
        credit_bytes: int = CREDIT_BYTES_MAX,
        turn: int = 0,
        urgent_ahead: bool = False,
        common: frozenset[str] = frozenset(),
        stamp: Callable[[], int] = int,
        promises: Voice | None = None,
    ) -> None:
        """Begin a round.

        Args:
            replica: what is held here.
            budget_bytes: what this side sends at most.
            credit_bytes: what this side will take.
            turn: which feed comes first.
            urgent_ahead: send urgent entries before the feeds that they belong to: for thin links.
            common: districts that the peer said, in an earlier round, that it holds; none: not known.
            stamp: this node's clock, told to a peer that is in step.
            promises: what other peers are about to send, and where to note what this one is.
        """
        self._replica = replica
        self._sending = Sending(replica, budget_bytes=budget_bytes, turn=turn, urgent_ahead=urgent_ahead)
        self._credit_bytes = min(credit_bytes, CREDIT_BYTES_MAX)
        self._stamp, self._promises = stamp, promises
        self._looked: dict[str, dict[FeedId, Heads]] = {}
        """What was held when last looked: so that many frontiers cost one look, as long as nothing new comes in."""
        self._messages = self._digests = self._frontiers = self._refusals = 0
        self._frontiers_told = set[bytes]()
        self._told_digest = self._owing = self._opened = False
        self.theirs = common
        """Districts that the peer said that it holds."""
        self.received = 0
        """New entries taken in."""
        self.sent = 0
        """Entries sent."""
        self.problems: list[str] = []
        """Codes of what was refused, on either side; the first `PROBLEMS_MAX`."""
        self.moved = False
        """Anything at all was new: entries or openings."""
        self.in_step = False
        """The peer's digests were equal to ours."""
        self.peer_stamp = 0
        """The peer's clock when it said that it was in step."""
        self.peer_done = False
        """The peer said that it has nothing more for this round."""
        self.peer_has_more = False
        """It has, but not in this round."""
        self.awaited = False
        """The peer was not asked for what others are about to send."""

    def open(self) -> list[bytes]:
        """What to say first: everything in one digest, if it is known what the peer holds, else one a district."""
        self._opened = True
        if self.theirs:
            return [encode_message(Summary(self._summary()))]
        self._told_digest = True
        return [encode_message(self._digest())]

    def take(self, data: bytes) -> list[bytes]:
        """Take in one message; returns the answers that go ahead of everything else. `more` gives the rest.

        A bad message is answered with a refusal, never raised.

        Raises:
            StoreFull, StoreDamaged: this node's own disk; nothing of the message was kept.
        """
        try:
            message = decode_message(data)
        except PeerFault as error:
            self._messages += 1
            return self._refuse(error)
        return self.take_message(message)

    def take_message(self, message: Message) -> list[bytes]:
        """`take`, of a message that is decoded."""
        self._messages += 1
        if self._messages > MESSAGES_MAX:
            self._problem(LimitExceeded.code)
            return []
        try:
            return [encode_message(m) for m in self._answer(message)]
        except PeerFault as error:
            return self._refuse(error)

    def _refuse(self, error: PeerFault) -> list[bytes]:
        self._problem(error.code)
        self._refusals += 1
        return [encode_message(Refusal(error.code))] if self._refusals <= REFUSALS_MAX else []

    def more(self, size: int = PART_BYTES) -> bytes | None:
        """The next message of what the peer lacks, of about this size; None if there is nothing more to send."""
        if not self._owing:
            return None
        message = self._sending.next(size)
        if message is None:
            self._owing = False
            message = Done(more=self._sending.left <= 0)
        elif isinstance(message, Entries):
            self.sent += sum(len(run.entries) for run in message.runs)
        elif isinstance(message, Detached):
            self.sent += len(message.entries)
        return encode_message(message)

    def idle(self) -> bool:
        """Nothing is owed to the peer."""
        return not self._owing

    def receive(self, data: bytes) -> list[bytes]:
        """`take`, and all there is `more`: for a link without limits."""
        return [*self.take(data), *iter(self.more, None)]

    def _problem(self, code: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(code)

    def _summary(self) -> bytes:
        return summary_digest(self._replica, self.theirs & self._replica.districts())

    def _digest(self) -> Digest:
        districts = sorted(self._replica.districts(), key=_governance_first)[:DISTRICTS_MAX]
        return Digest(self._replica.realm, {d: self._replica.district_digest(d) for d in districts})

    def _answer(self, message: Message) -> Iterator[Message]:
        match message:
            case Summary() | Digest() | Buckets():
                self._digests += 1
                if self._digests <= DIGESTS_MAX:
                    yield from self._compare(message)
            case Frontier():
                self._frontiers += 1
                if self._frontiers <= FRONTIERS_MAX and not self._is_repeated(message):
                    self._owe(message)
            case Entries():
                self._moved(self._take(message))
            case Detached():
                self._moved(self._take_detached(message))
            case Refusal():
                self._problem(f"peer: {message.code}")
            case Done():
                self.peer_done, self.peer_has_more = True, message.more
            case InStep():
                # Said to what we began with, it is fresh; elsewhere it may be repeated from a round long over.
                if self._opened:
                    self.in_step, self.peer_stamp = True, message.stamp
            case _:
                pass  # What else peers say to each other is no part of a round.

    # --- asking ----------------------------------------------------------------------------------------------

    def _compare(self, message: Summary | Digest | Buckets) -> Iterator[Message]:
        match message:
            case Summary():
                if self.theirs and message.digest == self._summary():
                    self.in_step = True
                    yield InStep(self._stamp())
                else:
                    yield from self._tell_digest()
            case Digest():
                yield from self._compare_digests(message)
            case Buckets():
                for district, theirs in sorted(message.districts.items()):
                    if district in self._replica.districts() or self._replica.wants(district):
                        yield from self._compare_buckets(district, theirs)

    def _tell_digest(self) -> Iterator[Message]:
        if not self._told_digest:
            self._told_digest = True
            yield self._digest()

    def _compare_digests(self, theirs: Digest) -> Iterator[Message]:
        if theirs.realm != self._replica.realm:
            raise OtherRealm("the peer is of another realm")
        self.theirs = frozenset(theirs.districts)
        held = self._replica.districts()
        # What only we hold is the peer's to ask for, if it wants it.
        differing = [
            district
            for district in sorted(theirs.districts, key=_governance_first)
            if (district in held or self._replica.wants(district))
            and self._replica.district_digest(district) != theirs.districts[district]
        ]
        self.in_step = not differing
        # Told even if all that it told is equal: it may want a district that only we hold.
        yield from self._tell_digest()
        for district in differing:
            if len(self._frontier(district)) >= BUCKETED_FEEDS:
                yield Buckets({district: self._replica.bucket_digests(district)})
            else:
                yield from self._told(district, LOWEST, HIGHEST)
        if self.in_step:
            yield InStep(self._stamp())

    def _compare_buckets(self, district: str, theirs: tuple[bytes, ...]) -> Iterator[Message]:
        ours = self._replica.bucket_digests(district)
        first: int | None = None
        for bucket in range(BUCKETS + 1):
            if bucket < BUCKETS and ours[bucket] != theirs[bucket]:
                first = bucket if first is None else first
            elif first is not None:
                yield from self._told(district, *bucket_range(first, bucket - 1))
                first = None

    def _told(self, district: str, lowest: bytes, highest: bytes) -> Iterator[Frontier]:
        """What is held of a district, in messages of bounded size, each for a range of feeds without a gap."""
        detached = tuple(sorted(self._replica.detached_links(district))[:DETACHED_PER_MESSAGE_MAX])
        credit = self._credit_bytes
        if self._promises is not None and not self._promises.may_ask():
            credit, self.awaited = 0, True
        feeds: dict[bytes, tuple[tuple[int, bytes], ...]] = {}
        size = 0
        for feed, heads in sorted(self._told_frontier(district).items()):
            if not lowest <= feed <= highest:
                continue
            if size >= PART_BYTES or len(feeds) == FEEDS_PER_MESSAGE_MAX:
                below = (int.from_bytes(feed, "big") - 1).to_bytes(16, "big")
                yield Frontier({district: feeds}, lowest, below, detached, credit)
                feeds, size, lowest = {}, 0, feed
            feeds[feed] = heads[-HEADS_PER_FEED_MAX:]
            size += 20 + 44 * len(feeds[feed])
        yield Frontier({district: feeds}, lowest, highest, detached, credit)

    def _told_frontier(self, district: str) -> dict[FeedId, Heads]:
        """What is held of a district; as a second end of a feed, what another peer is about to send."""
        held = self._frontier(district)
        coming = {} if self._promises is None else self._promises.by_others(district)
        told = dict(held)
        for feed, end in coming.items():
            ours = held.get(feed, UNHELD)
            if len(ours) == 1 and ours[0][0] < end[0]:
                told[feed] = (*ours, end)
                self.awaited = True
        return told

    # --- giving ----------------------------------------------------------------------------------------------

    def _owe(self, theirs: Frontier) -> None:
        self._owing = True
        if self._promises is not None:
            self._promises.heard()
        self._sending.left = min(self._sending.left, theirs.credit)
        for district in sorted(theirs.districts, key=_governance_first):
            told = theirs.districts[district]
            known = {
                FeedId(feed): tuple(sorted((sequence, Link(link)) for sequence, link in heads))
                for feed, heads in told.items()
            }
            frontier = self._frontier(district)
            ours = {f: heads for f, heads in frontier.items() if theirs.lowest <= f <= theirs.highest}
            if self._promises is not None and district in self._replica.districts():
                for feed, heads in known.items():
                    self._promises.make(district, feed, frontier.get(feed, ()), heads)
            if ours:
                self._sending.owe(district, ours, known, set(theirs.detached))

    def _is_repeated(self, message: Frontier) -> bool:
        """Told before in this round, word for word, and nothing is new since: what the peer lacks is owed to it once."""
        told = tagged_hash("frontier told", encode_message(message))
        repeated = told in self._frontiers_told
        self._frontiers_told.add(told)
        return repeated

    def _frontier(self, district: str) -> dict[FeedId, Heads]:
        if len(self._looked) > DISTRICTS_MAX:
            self._looked.clear()
        if district not in self._looked:
            self._looked[district] = self._replica.frontier(district)
        return self._looked[district]

    # --- taking ----------------------------------------------------------------------------------------------

    def _moved(self, new: int) -> None:
        if new:
            self.moved = True
            self._looked.clear()
            self._frontiers_told.clear()

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


def _governance_first(district: str) -> tuple[bool, str]:
    return district != GOVERNANCE, district
