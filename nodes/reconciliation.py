"""Reconciliation of two replicas, without I/O: bytes in, bytes out (section 7 of the design).

1. Digests of the frontier, a district at a time (they cover links, so forks show); equal ones are done.
2. The frontiers of the districts that differ.
3. Each side sends what the other lacks: proofs of fork, openings, then runs, governance first, within a budget.

Both sides do the same; every message may be lost, repeated or reordered, and the next round goes on where things
stand. Memory is bounded by the message limit and the budget, whatever the peer sends.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.errors import OtherRealm, PeerFault
from ledger.exchange import ImportReport
from ledger.feed import ForkProof, Run, SignedOpening
from ledger.ids import GOVERNANCE, FeedId, Link, tagged_hash
from nodes.messages import (
    Digest,
    Done,
    Entries,
    Frontier,
    Message,
    Refusal,
    decode_message,
    encode_message,
)
from nodes.ports import Heads, Replica

__all__ = ["BUDGET_BYTES", "Session", "frontier_digest"]

BUDGET_BYTES = 8 * 1024 * 1024
"""What one side sends in one round: some 30,000 entries; the rest follows in the next round."""
OPENINGS_PER_MESSAGE = 100
"""At most 800 kB of openings; in practice 150 kB."""


def frontier_digest(replica: Replica, district: str) -> bytes:
    """A hash of what is held of a district: feeds and all their heads."""
    parts: list[bytes] = []
    for feed, heads in sorted(replica.frontier(district).items()):
        parts.append(feed)
        parts += [sequence.to_bytes(8, "big") + link for sequence, link in heads]
    return tagged_hash("frontier of a district", *parts)


class Session:
    """One side of a conversation about the districts that both hold."""

    def __init__(self, replica: Replica, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._replica = replica
        self._budget_bytes = budget_bytes
        self.received = 0
        """New entries taken in."""
        self.problems: list[str] = []
        """Codes of what was refused, on either side."""
        self.in_step = False
        """The peer's digests were equal to ours."""

    def open(self) -> list[bytes]:
        """What to say first."""
        return [encode_message(self._digest())]

    def receive(self, data: bytes) -> list[bytes]:
        """Take in one message; returns the answers. A bad message is answered with a refusal, never raised."""
        try:
            return [encode_message(m) for m in self._answer(decode_message(data))]
        except PeerFault as error:
            self.problems.append(error.code)
            return [encode_message(Refusal(error.code))]

    def _digest(self) -> Digest:
        districts = sorted(self._replica.districts())
        return Digest(self._replica.realm, {d: frontier_digest(self._replica, d) for d in districts})

    def _answer(self, message: Message) -> Iterator[Message]:
        match message:
            case Digest():
                yield from self._compare(message)
            case Frontier():
                yield from self._send(message)
            case Entries():
                self._take(message)
            case Refusal():
                self.problems.append(f"peer: {message.code}")
            case Done():
                pass

    def _compare(self, theirs: Digest) -> Iterator[Message]:
        if theirs.realm != self._replica.realm:
            raise OtherRealm("the peer is of another realm")
        ours = self._digest().districts
        wanted = {d for d in theirs.districts if self._replica.wants(d)} | ours.keys()
        differing = sorted(d for d in wanted if ours.get(d) != theirs.districts.get(d))
        if not differing:
            self.in_step = True
            return
        yield Frontier({district: dict(self._replica.frontier(district).items()) for district in differing})

    def _send(self, theirs: Frontier) -> Iterator[Message]:
        left = self._budget_bytes
        for proof in self._replica.fork_proofs():
            if not self._peer_knows(theirs, proof):
                yield Entries(openings=(self._replica.opening(FeedId(proof.left.feed)),), proofs=(proof,))
        for district in sorted(theirs.districts, key=lambda d: (d != GOVERNANCE, d)):
            held = theirs.districts[district]
            ours = self._replica.frontier(district)
            unknown = [self._replica.opening(feed) for feed in ours if feed not in held]
            for at in range(0, len(unknown), OPENINGS_PER_MESSAGE):
                yield Entries(openings=tuple(unknown[at : at + OPENINGS_PER_MESSAGE]))
            for feed, heads in sorted(ours.items()):
                after: Heads = tuple((sequence, Link(link)) for sequence, link in held.get(feed, ()))
                if heads == tuple(sorted(after)) or left <= 0:
                    continue
                for run in self._replica.runs(feed, after, left):
                    size = _run_bytes(run)
                    left -= size
                    yield Entries(runs=(run,))
        yield Done()

    @staticmethod
    def _peer_knows(theirs: Frontier, proof: ForkProof) -> bool:
        return any(len(feeds.get(proof.left.feed, ())) > 1 for feeds in theirs.districts.values())

    def _take(self, message: Entries) -> None:
        self._take_openings(message.openings)
        for proof in message.proofs:
            try:
                self._replica.import_fork_proof(proof)
            except PeerFault as error:
                self.problems.append(error.code)
        if message.runs:
            report: ImportReport = self._replica.import_runs(message.runs)
            self.received += report.new
            self.problems += [code for _, code in report.refused]

    def _take_openings(self, openings: tuple[SignedOpening, ...]) -> None:
        for opening in openings:
            try:
                self._replica.import_openings([opening])
            except PeerFault as error:
                self.problems.append(error.code)


def _run_bytes(run: Run) -> int:
    return sum(64 + len(entry.sealed or b"") for entry in run.entries)
