"""Replicas in memory on the real feed functions: real certificates, signatures, links and runs, only no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ledger.entropy import Entropy, SeededEntropy
from ledger.errors import NotAuthentic, OtherRealm, PeerFault
from ledger.exchange import URGENT_LANE, ImportReport
from ledger.feed import (
    Entry,
    ForkProof,
    Opening,
    Run,
    SignedOpening,
    check_fork_proof,
    drop_inner_signatures,
    entry_link,
    feed_id,
    genesis_link,
    sign_link,
    sign_opening,
    verify_link,
    verify_opening_signature,
    verify_run,
)
from ledger.frontiers import bucket_digests, district_digest
from ledger.identity import NodeKeys, NodeRole, Realm, verify_chain
from ledger.ids import GOVERNANCE, FeedId, Link, RealmId
from nodes.ports import entry_bytes
from tests.ledger.realm_for_tests import NOW_MS, STOCKHOLM, RealmForTests

RUN_ENTRIES = 5
"""Small, so that a handful of entries makes several runs."""


class MemoryReplica:
    """Feeds as trees of links."""

    def __init__(
        self, realm: Realm, districts: Iterable[str] = (STOCKHOLM,), *, takes_all: bool = False
    ) -> None:
        self._realm = realm
        self._districts = {GOVERNANCE, *districts}
        self._takes_all = takes_all
        self.openings: dict[FeedId, SignedOpening] = {}
        self.keys: dict[FeedId, bytes] = {}
        self.chains: dict[FeedId, dict[Link, tuple[Link, Entry]]] = {}
        self.ahead: dict[Link, tuple[FeedId, Link, Entry]] = {}
        self.imports = 0

    @property
    def realm(self) -> RealmId:
        return self._realm.id

    def held(self) -> tuple[object, ...]:
        """Everything held, to be compared."""
        return (
            sorted(self.openings),
            {feed: sorted(chain) for feed, chain in self.chains.items()},
            sorted(self.ahead),
        )

    def entries(self) -> int:
        return sum(len(chain) for chain in self.chains.values())

    def districts(self) -> set[str]:
        return self._districts | {s.opening().district for s in self.openings.values()}

    def wants(self, district: str) -> bool:
        return self._takes_all or district in self.districts()

    def _heads(self, feed: FeedId) -> tuple[tuple[int, Link], ...]:
        chain = self.chains[feed]
        inner = {previous for previous, _ in chain.values()}
        ends = sorted((entry.sequence, link) for link, (_, entry) in chain.items() if link not in inner)
        return tuple(ends) or ((0, genesis_link(self.openings[feed])),)

    def frontier(self, district: str) -> dict[FeedId, tuple[tuple[int, Link], ...]]:
        return {f: self._heads(f) for f, s in self.openings.items() if s.opening().district == district}

    def mark(self) -> int:
        return self.entries()

    def bucket_digests(self, district: str) -> tuple[bytes, ...]:
        return bucket_digests(self.frontier(district))

    def district_digest(self, district: str) -> bytes:
        return district_digest(self.bucket_digests(district), self.detached_links(district))

    def urgent(self, feed: FeedId, after: int, limit: int) -> list[tuple[Link, Entry]]:
        found = [
            (previous, entry)
            for previous, entry in self.chains[feed].values()
            if entry.sequence > after and entry.lane <= URGENT_LANE and entry.signature is not None
        ]
        return sorted(found, key=lambda f: (f[1].lane, f[1].sequence))[:limit]

    def opening(self, feed: FeedId) -> SignedOpening:
        return self.openings[feed]

    def runs(self, feed: FeedId, after: Iterable[tuple[int, Link]], budget_bytes: int) -> Iterator[Run]:
        chain = self.chains[feed]
        known: set[Link] = set()
        for _, known_end in after:
            at = known_end
            while at in chain and at not in known:
                known.add(at)
                at = chain[at][0]
        for _, end in self._heads(feed):
            path: list[Link] = []
            at = end
            while at in chain and at not in known:
                path.append(at)
                at = chain[at][0]
            path.reverse()
            known.update(path)
            while path and budget_bytes > 0:
                cut = max(
                    (i + 1 for i, link in enumerate(path[:RUN_ENTRIES]) if chain[link][1].signature),
                    default=0,
                ) or next((i + 1 for i, link in enumerate(path) if chain[link][1].signature), 0)
                if not cut:
                    break
                entries = [chain[link][1] for link in path[:cut]]
                yield Run(feed, chain[path[0]][0], drop_inner_signatures(entries))
                budget_bytes -= sum(entry_bytes(e) for e in entries)
                path = path[cut:]

    def fork_proofs(self) -> list[ForkProof]:
        proofs: list[ForkProof] = []
        for feed, chain in sorted(self.chains.items()):
            children: dict[Link, list[Link]] = {}
            for link, (previous, entry) in chain.items():
                if entry.signature:
                    children.setdefault(previous, []).append(link)
            for previous, links in children.items():
                if len(links) > 1:
                    left, right = (Run(feed, previous, (chain[link][1],)) for link in sorted(links)[:2])
                    proofs.append(ForkProof(left, right))
                    break
        return proofs

    def detached_links(self, district: str) -> list[Link]:
        return sorted(
            link for link, (f, _, _) in self.ahead.items() if self.openings[f].opening().district == district
        )

    def detached_entry(self, link: Link) -> tuple[FeedId, Link, Entry] | None:
        return self.ahead.get(link)

    def import_openings(self, openings: Iterable[SignedOpening]) -> int:
        new = 0
        for signed in openings:
            opening = signed.opening()
            if opening.realm != self.realm:
                raise OtherRealm("a feed's opening is of another realm")
            certified = verify_chain(self._realm, opening.certificates)
            verify_opening_signature(signed, certified.public_key)
            feed = feed_id(signed)
            if feed not in self.openings:
                self.openings[feed], self.keys[feed], self.chains[feed] = signed, certified.public_key, {}
                new += 1
        return new

    def _key(self, feed: bytes) -> bytes:
        if feed not in self.keys:
            raise NotAuthentic("that feed is not held")
        return self.keys[FeedId(feed)]

    def import_runs(self, runs: Iterable[Run]) -> ImportReport:
        self.imports += 1
        new = known = 0
        gaps: list[FeedId] = []
        refused: list[tuple[FeedId, str]] = []
        for run in runs:
            try:
                verified = verify_run(self.realm, run, self._key(run.feed))
            except PeerFault as error:
                refused.append((FeedId(run.feed), error.code))
                continue
            chain = self.chains[verified.feed]
            if verified.previous not in chain and verified.previous != genesis_link(
                self.openings[verified.feed]
            ):
                gaps.append(verified.feed)
                continue
            previous = verified.previous
            for entry, link in zip(verified.entries, verified.links, strict=True):
                new, known = (new, known + 1) if link in chain else (new + 1, known)
                before = chain.get(link)
                if before is None or before[1].signature is None:
                    ahead = self.ahead.pop(link, None)
                    chain[link] = (previous, ahead[2] if ahead and entry.signature is None else entry)
                previous = link
        return ImportReport(new=new, known=known, gaps=tuple(gaps), refused=tuple(refused))

    def import_detached(self, feed: FeedId, previous: Link, entry: Entry) -> bool:
        key = self._key(feed)
        if entry.signature is None:
            raise NotAuthentic("a detached entry carries no signature")
        link = entry_link(self.realm, feed, previous, entry)
        verify_link(link, entry.signature, key)
        if link in self.chains[feed] or link in self.ahead:
            return False
        self.ahead[link] = (feed, previous, entry)
        return True

    def import_fork_proof(self, proof: ForkProof) -> bool:
        check_fork_proof(self.realm, proof, self._key(proof.left.feed))
        return self.import_runs([proof.left, proof.right]).new > 0


class Author:
    """A node that writes one feed, honestly or on several branches."""

    def __init__(self, realm: RealmForTests, seed: int, district: str = STOCKHOLM) -> None:
        self._open(
            realm.realm.id,
            SeededEntropy(seed),
            lambda keys: realm.chain(keys, NodeRole.PHARMACY, STOCKHOLM),
            district,
        )

    @classmethod
    def certified(
        cls, realm: RealmId, entropy: Entropy, certify: Callable[[NodeKeys], tuple[bytes, ...]]
    ) -> Author:
        """An author in any realm."""
        made = cls.__new__(cls)
        made._open(realm, entropy, certify, STOCKHOLM)
        return made

    def _open(
        self,
        realm: RealmId,
        entropy: Entropy,
        certify: Callable[[NodeKeys], tuple[bytes, ...]],
        district: str,
    ) -> None:
        self.realm = realm
        self.keys = NodeKeys.generate(entropy)
        self.certificates = certify(self.keys)
        self.signed = sign_opening(
            Opening(self.realm, district, 1, entropy.bytes(16), NOW_MS << 16, self.certificates),
            self.keys.signing,
        )
        self.feed, self.genesis = feed_id(self.signed), genesis_link(self.signed)

    def chain(
        self,
        count: int,
        after: tuple[int, Link] | None = None,
        *,
        mark: int = 0,
        every: int = 1,
        size: int = 20,
        lane: Callable[[int], int] = lambda _: 1,
        entropy: Entropy | None = None,
    ) -> Run:
        """The next `count` entries; `mark` makes branches differ; every `every`-th is signed, the last in any case."""
        sequence, link = after or (0, self.genesis)
        start, entries = link, []
        for at in range(sequence + 1, sequence + count + 1):
            entry = Entry(
                at,
                (NOW_MS << 16) + at,
                bytes([at % 7]) * 16,
                lane(at),
                1,
                b"c" * 16,
                bytes([mark]) + (entropy.bytes(size) if entropy else b"s" * size),
            )
            link = entry_link(self.realm, self.feed, link, entry)
            if at % every == 0 or at == sequence + count:
                entry = _signed(entry, sign_link(link, self.keys.signing))
            entries.append(entry)
        return Run(self.feed, start, tuple(entries))

    def end(self, run: Run) -> tuple[int, Link]:
        """Sequence and link of the last entry of a run."""
        return list(self.positions(run))[-1]

    def positions(self, run: Run) -> Iterator[tuple[int, Link]]:
        """Sequence and link of every entry of a run."""
        link = Link(run.previous)
        for entry in run.entries:
            link = entry_link(self.realm, self.feed, link, entry)
            yield entry.sequence, link


def _signed(e: Entry, signature: bytes) -> Entry:
    return Entry(
        e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment, e.sealed, signature, e.sealed_hash
    )
