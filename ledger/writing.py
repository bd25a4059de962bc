"""From event to entry: seals, chains, signs and stores what this node writes (R1, section 5 of the design).

- One feed per district and incarnation, opened when first needed; a new incarnation opens new feeds and names the
  last positions it knows of the former ones.
- One transaction stores an entry with all that belongs to it; the caller acknowledges after it has ended.
- A feed of ours that somebody else added to (an image rolled back, a second copy running) is never written again.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from ledger.clock import Clock, HybridClock
from ledger.codec import PARENTS_MAX, encode_content
from ledger.entropy import Entropy
from ledger.feed import (
    Entry,
    FormerFeed,
    Opening,
    encode_header,
    entry_link,
    feed_id,
    sign_link,
    sign_opening,
)
from ledger.ids import GOVERNANCE, DocumentId, FeedId, Link, NodeId, RealmId
from ledger.store.port import Store
from ledger.vault import Keyring, entry_key, seal

__all__ = ["Written", "Writer"]


class Written(Struct, frozen=True):
    """An entry of ours, stored durably once the surrounding transaction has ended."""

    feed: FeedId
    previous: Link
    entry: Entry
    link: Link


class Writer:
    """Writes the feeds of one incarnation of one node. Call within a store transaction, under the façade's lock."""

    def __init__(
        self,
        *,
        realm: RealmId,
        node: NodeId,
        certificates: tuple[bytes, ...],
        signing: Ed25519PrivateKey,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        entropy: Entropy,
        hybrid: HybridClock,
        incarnation: int,
    ) -> None:
        self._realm = realm
        self._node = node
        self._certificates = certificates
        self._signing = signing
        self._store = store
        self._keyring = keyring
        self._clock = clock
        self._entropy = entropy
        self._hybrid = hybrid
        self.incarnation = incarnation
        self._feeds: dict[str, FeedId] = {}

    def feed(self, district: str) -> FeedId | None:
        """This incarnation's feed in a district, if it is open."""
        known = self._feeds.get(district)
        if known is None:
            # By a note in this store, not by author and incarnation: a store restored from an old backup may hold
            # a feed that a lost store of this node opened under the same number.
            noted = self._store.get_meta(_own_feed(district, self.incarnation))
            if noted is not None:
                known = self._feeds[district] = FeedId(noted)
        return known

    def open_feed(self, district: str) -> FeedId:
        """This incarnation's feed in a district, opened if need be."""
        known = self.feed(district)
        if known is not None:
            return known
        former = [
            FormerFeed(row.feed, head.sequence, head.link)
            for row in self._store.feeds(district)
            if row.author == self._node
            for head in self._store.heads(row.feed)
        ]
        opening = Opening(
            realm=self._realm,
            district=district,
            incarnation=self.incarnation,
            nonce=self._entropy.bytes(16),
            stamp=self._hybrid.tick(self._clock.now_ms()),
            certificates=self._certificates,
            former=tuple(sorted(former, key=lambda f: f.feed)[-8:]),
        )
        signed = sign_opening(opening, self._signing)
        feed = feed_id(signed)
        self._store.add_feed(feed, signed, district, self._node, self.incarnation)
        self._store.put_meta(_own_feed(district, self.incarnation), feed)
        self._feeds[district] = feed
        return feed

    def forget_feeds(self) -> None:
        """After a rolled-back transaction: a feed opened in it is not open."""
        self._feeds.clear()

    def _sealing_epoch(self, district: str, document: DocumentId) -> int:
        """The newest epoch that this node can seal in: of the district, else of this one document (from its paper)."""
        if district == GOVERNANCE:
            return 0
        return self._keyring.newest_epoch(district) or self._keyring.document_epoch(document)

    def append(
        self, district: str, document: DocumentId, event_bytes: bytes, parents: Sequence[Link], lane: int
    ) -> Written:
        """Seal, chain, sign and store one event."""
        feed = self.open_feed(district)
        head = self._store.heads(feed)[0]
        epoch = self._sealing_epoch(district, document)
        document_key = self._keyring.document_key(district, epoch, document)
        sequence = head.sequence + 1
        key = entry_key(document_key, feed, sequence)
        stamp = self._hybrid.tick(self._clock.now_ms(), head.stamp)
        bare = Entry(sequence, stamp, document, lane, epoch, key.commitment, None)
        content = encode_content(document, tuple(sorted(parents)[:PARENTS_MAX]), event_bytes)
        sealed = seal(key, encode_header(self._realm, feed, bare), content)
        unsigned = Entry(sequence, stamp, document, lane, epoch, key.commitment, sealed)
        link = entry_link(self._realm, feed, head.link, unsigned)
        entry = Entry(
            sequence, stamp, document, lane, epoch, key.commitment, sealed, sign_link(link, self._signing)
        )
        self._store.add_own(feed, head.link, entry, link)
        return Written(feed, head.link, entry, link)


def _own_feed(district: str, incarnation: int) -> str:
    return f"own-feed/{incarnation}/{district}"
