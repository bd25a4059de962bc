"""What a node gives to and takes from others: openings, runs, detached entries, proofs of fork (R2, R3, R6).

- Everything taken is verified here, before the store sees it: the opening against the realm root, the run against
  its author's key. What is refused is refused by itself; the rest of a batch is kept.
- A run that does not join what is held is a gap: nothing of it is kept, unless its entries travel *detached*.
- Two branches of one feed are both kept, and a proof of it is made and kept for ever.
- A feed of ours that somebody else added to is never written again: the node goes on in its next incarnation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec
import structlog
from msgspec import Struct

from ledger.census import Census
from ledger.errors import LimitExceeded, NotAuthentic, OtherRealm, PeerFault
from ledger.feed import (
    Entry,
    ForkProof,
    Run,
    SignedOpening,
    VerifiedRun,
    check_fork_proof,
    entry_link,
    feed_id,
    verify_link,
    verify_opening_signature,
    verify_run,
)
from ledger.frontiers import district_digest
from ledger.identity import Certified, NodeRole, verify_chain
from ledger.ids import FeedId, Link, NodeId, RealmId
from ledger.node import Node

__all__ = ["FEEDS_PER_NODE_AND_DISTRICT_MAX", "FEEDS_PER_NODE_MAX", "URGENT_LANE", "Exchange", "ImportReport"]

FEEDS_PER_NODE_AND_DISTRICT_MAX = 256
"""Incarnations of one node in one district: one a week for five years. More is a flood, refused per author, so
that no honest author is kept out."""
FEEDS_PER_NODE_MAX = 4096
"""Feeds of one node in all districts: five in each of the nation's 700 or so. More is a flood of invented districts."""

URGENT_LANE = 1
"""Lanes up to this one may travel ahead of their feeds: stop and custody, supplies and what sustains life."""
_CONTINUED = "a feed of this node was continued elsewhere"

log = structlog.get_logger("rxledger")


class ImportReport(Struct, frozen=True, kw_only=True):
    """What became of a batch. `refused` names feeds and reasons, never content."""

    new: int = 0
    known: int = 0
    gaps: tuple[FeedId, ...] = ()
    forks: tuple[FeedId, ...] = ()
    refused: tuple[tuple[FeedId, str], ...] = ()


class Exchange:
    """The replication face of a ledger: what `nodes` connects. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._digests: dict[str, tuple[tuple[tuple[bytes, ...], list[Link]], bytes]] = {}
        """District → what its digest was made of, and the digest."""
        self._census = Census(node.store)

    @property
    def realm(self) -> RealmId:
        """The realm, which never mixes with another."""
        return self._node.realm.id

    # --- giving ------------------------------------------------------------------------------------------------

    def districts(self) -> set[str]:
        """Districts that this node replicates."""
        with self._node.lock:
            return set(self._node.held_districts())

    def wants(self, district: str) -> bool:
        """Whether this node takes a district that a peer offers: the agency and relays all, others what they serve."""
        role = self._node.identity.role
        return role in (NodeRole.AGENCY, NodeRole.RELAY) or district in self.districts()

    def frontier(self, district: str) -> dict[FeedId, tuple[tuple[int, Link], ...]]:
        """Feed → heads (sequence, link), sorted; several if the feed is forked."""
        with self._node.lock:
            return {
                feed: tuple(sorted((head.sequence, head.link) for head in heads))
                for feed, heads in self._node.store.frontier(district)
            }

    def frontier_of(self, feed: FeedId) -> tuple[tuple[int, Link], ...]:
        """Heads of one held feed, ascending."""
        with self._node.lock:
            return tuple(sorted((head.sequence, head.link) for head in self._node.store.heads(feed)))

    def written_by(self, feed: FeedId) -> tuple[NodeId, str] | None:
        """Author and district of a feed; None if it is not held."""
        with self._node.lock:
            row = self._node.store.feed(feed)
        return None if row is None else (row.author, row.district)

    def certified(self, node: NodeId) -> Certified | None:
        """The certificates of a node, if a feed of its is held: the newest opening's."""
        with self._node.lock:
            feed = self._census.newest(node)
            return None if feed is None else self._node.reader.author(feed)[0]

    def mark(self) -> int:
        """What is held by now, as a number for `since`."""
        with self._node.lock:
            return self._node.store.last_arrival()

    def frontier_at(self, mark: int, district: str) -> dict[FeedId, tuple[tuple[int, Link], ...]]:
        """The frontier at a mark, without feeds that have forked."""
        store = self._node.store
        with self._node.lock:
            heads = ((row.feed, store.head_at(row.feed, mark)) for row in store.feeds(district))
            return {feed: ((head.sequence, head.link),) for feed, head in heads if head is not None}

    def since(self, mark: int, districts: Collection[str]) -> list[tuple[int, int, int]]:
        """Lane, entries and oldest stamp of what was written or came since a mark, in these districts."""
        with self._node.lock:
            return self._node.store.lanes_since(mark, districts)

    def district_digest(self, district: str) -> bytes:
        """32 bytes that are equal on replicas that hold the same of a district."""
        with self._node.lock:
            held = self.bucket_digests(district), self.detached_links(district)
            known = self._digests.get(district)
            if known is None or known[0] != held:
                known = self._digests[district] = held, district_digest(*held)
            return known[1]

    def bucket_digests(self, district: str) -> tuple[bytes, ...]:
        """A digest of each bucket of a district's feeds."""
        with self._node.lock:
            return self._node.store.bucket_digests(district)

    def opening(self, feed: FeedId) -> SignedOpening:
        """The signed opening of a held feed."""
        with self._node.lock:
            row = self._node.store.feed(feed)
        if row is None:
            raise NotAuthentic("that feed is not held")
        return row.signed

    def runs(self, feed: FeedId, after: Iterable[tuple[int, Link]], budget_bytes: int) -> Iterator[Run]:
        """Runs of a feed, from the given heads of a peer on, every branch, as far as the budget goes."""
        with self._node.lock:
            runs = list(self._node.store.runs_after(feed, tuple(after), budget_bytes))
        yield from runs

    def urgent(self, feed: FeedId, after: int, limit: int) -> list[tuple[Link, Entry]]:
        """Signed entries of lanes 0 and 1 after a sequence, each with the link before it, the most urgent first."""
        with self._node.lock:
            found = self._node.store.urgent_after(feed, after, URGENT_LANE, limit)
            return [(stored.previous, stored.entry()) for stored in found]

    def fork_proofs(self) -> list[ForkProof]:
        """Every proof of fork held."""
        with self._node.lock:
            return [msgspec.msgpack.decode(proof, type=ForkProof) for _, proof in self._node.store.proofs()]

    def detached_links(self, district: str) -> list[Link]:
        """Links of the entries held ahead of their feeds, sorted."""
        with self._node.lock:
            return self._node.store.detached_links(district)

    def detached_entry(self, link: Link) -> tuple[FeedId, Link, Entry] | None:
        """Feed, previous link and entry of one that is held ahead of its feed; None if it is chained by now."""
        with self._node.lock:
            found = self._node.store.by_link(link)
        return (found.feed, found.previous, found.entry()) if found is not None and found.detached else None

    # --- taking ------------------------------------------------------------------------------------------------

    def import_openings(self, openings: Iterable[SignedOpening]) -> int:
        """Verify and keep openings; returns how many were new.

        Raises:
            OtherRealm, NotAuthentic, Malformed, LimitExceeded: the first bad one; those before it are kept.
        """
        node, new = self._node, 0
        with node.lock:
            for signed in openings:
                feed = feed_id(signed)
                if node.store.feed(feed) is not None:
                    continue
                opening = signed.opening()
                if opening.realm != node.realm.id:
                    raise OtherRealm("a feed's opening is of another realm")
                certified = verify_chain(node.realm, opening.certificates)
                verify_opening_signature(signed, certified.public_key)
                of_node, in_district = self._census.opened(certified.node, opening.district)
                if of_node >= FEEDS_PER_NODE_MAX or in_district >= FEEDS_PER_NODE_AND_DISTRICT_MAX:
                    raise LimitExceeded("a node has opened too many feeds")
                with node.transaction():
                    node.store.add_feed(feed, signed, opening.district, certified.node, opening.incarnation)
                self._census.add(certified.node, opening.district, opening.incarnation, feed)
                new += 1
        return new

    def import_runs(self, runs: Iterable[Run]) -> ImportReport:
        """Verify and keep runs in one transaction; bad ones are refused one by one."""
        node = self._node
        new = known = 0
        gaps: list[FeedId] = []
        forks: list[FeedId] = []
        refused: list[tuple[FeedId, str]] = []
        ours = False
        with node.lock:
            verified: list[VerifiedRun] = []
            for run in runs:
                try:
                    certified, _ = node.reader.author(FeedId(run.feed))
                    verified.append(verify_run(node.realm.id, run, certified.public_key))
                except PeerFault as error:
                    refused.append((FeedId(run.feed), error.code))
            with node.transaction():
                for good in verified:
                    added = node.store.add_run(good)
                    if added is None:
                        gaps.append(good.feed)
                        continue
                    new += added.new
                    known += len(good.entries) - added.new
                    if not added.new:
                        continue
                    author, district = node.reader.author(good.feed)
                    if added.forked:
                        forks.append(good.feed)
                    ours = ours or good.feed == node.writer.feed(district)
                    last = good.entries[-1].stamp
                    node.hybrid.observe(last, node.now_ms())
                    node.store.put_horizon(author.node, last, node.now_ms())
                for feed in dict.fromkeys(forks):
                    self._keep_proof(feed)
                if ours:  # Within: killed in between, this node would go on where somebody else had written.
                    node.begin_incarnation(_CONTINUED)
        for feed, code in refused:
            log.warning("run.refused", feed=feed.hex(), code=code)
        return ImportReport(
            new=new, known=known, gaps=tuple(gaps), forks=tuple(dict.fromkeys(forks)), refused=tuple(refused)
        )

    def import_detached(self, feed: FeedId, previous: Link, entry: Entry) -> bool:
        """Keep one urgent entry ahead of its feed, by its own signature; False if it was held.

        Raises:
            PeerFault: it is not authentic, or its feed has too many detached entries already.
        """
        node = self._node
        with node.lock:
            certified, district = node.reader.author(feed)
            if entry.signature is None:
                raise NotAuthentic("a detached entry carries no signature")
            link = entry_link(node.realm.id, feed, previous, entry)
            verify_link(link, entry.signature, certified.public_key)
            if node.store.by_link(link) is not None:
                return False
            with node.transaction():
                node.store.add_detached(feed, previous, entry, link)
                node.hybrid.observe(entry.stamp, node.now_ms())
                if feed == node.writer.feed(district):
                    node.begin_incarnation(_CONTINUED)
            return True

    def import_fork_proof(self, proof: ForkProof) -> bool:
        """Verify and keep a proof of fork and both its branches; False if nothing of it was new."""
        node = self._node
        with node.lock:
            feed = FeedId(proof.left.feed)
            certified, _ = node.reader.author(feed)
            check_fork_proof(node.realm.id, proof, certified.public_key)
        report = self.import_runs([proof.left, proof.right])
        return report.new > 0

    def heard_from(self, node: NodeId, upto_stamp: int = 0) -> None:
        """A peer was reached just now, and holds nothing of its own that this node lacks up to a stamp."""
        with self._node.lock, self._node.transaction():
            self._node.store.put_horizon(node, upto_stamp, self._node.now_ms())

    def _keep_proof(self, feed: FeedId) -> None:
        """Within a transaction: make the proof of a fork from the branches held, and keep it."""
        proof = self._node.store.fork_proof(feed)
        if proof is not None:
            self._node.store.put_proof(feed, msgspec.msgpack.encode(proof))
