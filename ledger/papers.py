"""The paper in the patient's hand, as one node writes and reads it (section 6 of the design).

- Seeds of bearer fills are derived from this node's own secret and the command id, so that the paper can be printed
  again and nothing secret is stored for it.
- Reading a paper needs no link and no earlier acquaintance: the opening is verified against the realm root, the entry
  by its signature, then kept as a detached entry; the document key joins the keyring.
- A slip carries the signed supplies: scanned with the paper it shows which fills are used.
"""

from __future__ import annotations

import hmac

from msgspec import Struct

from ledger.errors import NotAuthentic, NotFound, NotPermitted
from ledger.events import CustodyTransferred, PrescriptionIssued
from ledger.exchange import Exchange
from ledger.feed import Entry, SignedOpening, feed_id
from ledger.ids import DocumentId, FeedId, Link, tagged_hash
from ledger.node import Node
from ledger.paper import CarriedEntry, Paper, decode_paper, encode_paper
from ledger.store.port import StoredEntry
from ledger.vault import entry_key

__all__ = ["Papers", "ScannedPaper"]


class ScannedPaper(Struct, frozen=True):
    """What a scan gave: the prescription, and the seeds of the fills that the bearer may spend."""

    document: DocumentId
    district: str
    seeds: dict[int, bytes]

    def __repr__(self) -> str:
        return f"ScannedPaper(document={self.document.hex()}, fills={sorted(self.seeds)})"


class Papers:
    """Prints and scans. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def seeds(self, command: bytes, fills: int) -> tuple[tuple[int, bytes], ...]:
        """The seed (32 bytes) of each fill of a bearer prescription issued or transferred under this command."""
        secret = self._node.secret_for("bearer", command)
        return tuple(
            (fill, tagged_hash("bearer seed", secret, bytes([fill]))) for fill in range(1, fills + 1)
        )

    def print(self, document: DocumentId) -> bytes:
        """The bytes of a bearer prescription's paper, with the supplies known here as slips.

        Raises:
            NotFound: the prescription is not held.
            NotPermitted: its fills are not bearer fills of this node.
        """
        node = self._node
        with node.lock:
            issuing: StoredEntry | None = None
            carried: list[StoredEntry] = []
            seeds: dict[int, bytes] = {}
            for opened in node.reader.opened(document):
                fact = opened.fact
                if fact is None or fact.event is None:
                    continue
                event = fact.event
                ours = fact.author == node.identity.node
                if isinstance(event, PrescriptionIssued):
                    issuing = opened.entry
                    if event.bearer_keys and ours:
                        seeds.update(self.seeds(event.command, event.fills))
                elif isinstance(event, CustodyTransferred) and event.bearer_keys and ours:
                    carried.append(opened.entry)
                    highest = max(key.fill for key in event.bearer_keys)
                    wanted = {key.fill for key in event.bearer_keys}
                    seeds.update({f: s for f, s in self.seeds(event.command, highest) if f in wanted})
            if issuing is None:
                raise NotFound("that prescription is not held here")
            if not seeds:
                raise NotPermitted("no fill of that prescription is a bearer fill of this node")
            return self._encode(issuing, carried, tuple(sorted(seeds.items())))

    def slip(self, document: DocumentId, supply: Link) -> bytes:
        """The bytes of the slip for one supply: the signed dispensing, readable by whoever has the paper or the key.

        Raises:
            NotFound: that supply is not held.
        """
        with self._node.lock:
            found = self._node.store.by_link(supply)
            if found is None or found.document != document:
                raise NotFound("that supply is not held here")
            return self._encode(found, [], ())

    def scan(self, data: bytes) -> ScannedPaper:
        """Take in a paper or a slip, with no link and no earlier acquaintance.

        Raises:
            PeerFault: it is not authentic, not of this realm, or damaged.
        """
        paper = decode_paper(data)
        feed = feed_id(paper.opening)
        # Before anything is kept: a false key would take the place of a true one held already.
        promised = entry_key(paper.document_key, feed, paper.entry.sequence).commitment
        if not hmac.compare_digest(promised, paper.entry.commitment):
            raise NotAuthentic("the key on the paper does not belong to its entry")
        node, exchange = self._node, Exchange(self._node)
        with node.lock:
            exchange.import_openings(
                [paper.opening, *(c.opening for c in paper.carried if c.opening is not None)]
            )
            district = paper.opening.opening().district
            exchange.import_detached(feed, Link(paper.previous), paper.entry)
            for carried in paper.carried:
                exchange.import_detached(FeedId(carried.feed), Link(carried.previous), carried.entry)
            document = DocumentId(paper.entry.document)
            node.keyring.add_document(document, paper.entry.epoch, paper.document_key)
            with node.transaction():
                node.save_keyring()
            return ScannedPaper(document, district, dict(paper.seeds))

    def _encode(
        self, first: StoredEntry, others: list[StoredEntry], seeds: tuple[tuple[int, bytes], ...]
    ) -> bytes:
        node = self._node
        _, district = node.reader.author(first.feed)
        opening = self._opening(first)
        carried = tuple(
            CarriedEntry(
                opening=None if e.feed == first.feed else self._opening(e),
                feed=e.feed, previous=e.previous, entry=self._signed(e),
            )
            for e in others
        )  # fmt: skip
        return encode_paper(
            Paper(
                opening=opening, previous=first.previous, entry=self._signed(first),
                document_key=node.keyring.document_key(district, first.epoch, first.document),
                seeds=seeds, carried=carried,
            )
        )  # fmt: skip

    def _opening(self, stored: StoredEntry) -> SignedOpening:
        row = self._node.store.feed(stored.feed)
        if row is None:
            raise NotFound("the opening of that feed is not held here")
        return row.signed

    def _signed(self, stored: StoredEntry) -> Entry:
        if stored.signature is None:
            raise NotFound(
                "that entry came in a run without its own signature", advice="print it where it was made"
            )
        return stored.entry()
