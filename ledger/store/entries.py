"""Entries in SQLite, as they are read: each checked against its link, its place and its document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import NoneType
from typing import Any

from ledger.errors import PeerFault, StoreDamaged
from ledger.feed import entry_link, genesis_link
from ledger.ids import DocumentId, FeedId, Link, RealmId
from ledger.store.documents import Documents, in_digest
from ledger.store.port import BranchRow, Head, StoredEntry
from ledger.store.records import row_checksum

__all__ = ["JOINED", "Entries", "signature_of", "signed_row"]

_COLUMNS = (
    "e.feed, e.branch, e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment, e.sealed, e.sealed_hash, "
    "e.signature, e.previous, e.link"
)
JOINED = f"SELECT e.arrival, d.document, {_COLUMNS} FROM entry e LEFT JOIN document d ON d.id=e.document"  # noqa: S608
"""What `Entries.joined` reads: a document's row that is missing must not take its entries with it."""


def signed_row(link: bytes, signature: bytes | None) -> bytes | None:
    """A signature as it is stored: links do not cover it, so a checksum stands beside it."""
    return None if signature is None else signature + row_checksum(link, signature)


def signature_of(link: bytes, stored: bytes | None) -> bytes | None:
    """The signature that `signed_row` stored.

    Raises:
        ValueError: it is not what was written.
    """
    if stored is None:
        return None
    signature = stored[:64]
    if stored != signed_row(link, signature):
        raise ValueError("a signature is not what was written")
    return signature


class Entries(Documents):
    """The part of the SQLite store that reads entries."""

    realm: RealmId
    _detached_known: tuple[int, list[tuple[str, Link]]] | None = None
    """Count of changes → district and link of every detached entry, sorted: every digest of a district asks."""

    def detached_links(self, district: str) -> list[Link]:
        """Links of detached entries, sorted."""
        known = self._detached_known
        if known is None or not self._c.writable or known[0] != self._c.changes():
            with self._reading():
                rows = self._c.all(f"{JOINED} WHERE e.branch<0")
                held = [self.joined(row)[1] for row in rows]
                found = sorted((self._district_of(entry.feed), entry.link) for entry in held)
            known = self._detached_known = self._c.changes(), found
        return [link for of, link in known[1] if of == district]

    def urgent_after(self, feed: FeedId, sequence: int, lane: int, limit: int) -> list[StoredEntry]:
        """Signed entries of an unforked feed after a sequence, up to a lane, the most urgent first."""
        with self._reading():
            number = self._number(feed)
            if number is None or len(self._ends(number)) > 1:
                return []
            rows = self._c.all(
                f"{JOINED} WHERE e.feed=? AND e.branch=0 AND e.sequence>? AND e.lane<=? AND e.signature IS NOT NULL "
                "ORDER BY e.lane, e.sequence LIMIT ?", (number, sequence, lane, limit),
            )  # fmt: skip
            return [self.joined(row)[1] for row in rows]

    def _district_of(self, feed: FeedId) -> str:
        row = self.feed(feed)
        return "" if row is None else row.district

    def joined(self, row: Sequence[Any]) -> tuple[int, StoredEntry]:
        """A row of `JOINED`: arrival and entry, checked."""
        arrival, document = row[0], row[1]
        if not isinstance(arrival, int) or not isinstance(document, bytes):
            raise StoreDamaged("an entry's document is missing", where=f"entry row {arrival}")
        return arrival, self._stored(row[2:], DocumentId(document))

    def _stored(self, row: Sequence[Any], document: DocumentId) -> StoredEntry:
        (
            number,
            branch,
            sequence,
            stamp,
            _,
            lane,
            epoch,
            commitment,
            sealed,
            sealed_hash,
            signed,
            previous,
            link,
        ) = row
        feed = self._row(number).feed
        where = f"feed {feed.hex()} sequence {sequence}"
        try:
            signature = signature_of(link, signed)
            stored = StoredEntry(
                feed, max(branch, 0), sequence, stamp, document, lane, epoch, commitment, sealed,
                sealed_hash, signature, previous, link, branch < 0,
            )  # fmt: skip
            # Strictly: what a damaged row comes back with may have other types, which some nodes would encode alike.
            whole = (
                all(type(value) is int for value in (branch, sequence, stamp, lane, epoch))
                and all(type(value) in (bytes, NoneType) for value in (sealed, sealed_hash))
                and (sealed is None) == (sealed_hash is not None)
                and entry_link(self.realm, feed, previous, stored.entry()) == link
            )
        except (TypeError, ValueError, OverflowError, PeerFault) as error:
            raise StoreDamaged("an entry is not what was written", where=where) from error
        if not whole or not self._stands(number, stored):
            raise StoreDamaged("an entry is not what was written", where=where)
        return stored

    def _stands(self, number: int, entry: StoredEntry) -> bool:
        """Whether an entry may stand on the branch that its row says: links do not cover branches."""
        if entry.detached:
            return True
        ends = self._ends(number)
        if entry.branch >= len(ends):
            return False
        parting, head = ends[entry.branch]
        if entry.sequence > head.sequence or (parting is not None and entry.sequence < parting.sequence):
            return False
        if len(ends) == 1:
            return True
        if entry.sequence == 1:
            return entry.previous == genesis_link(self._row(number).signed)
        before = entry.branch
        while parting is not None and entry.sequence - 1 < parting.sequence:
            before = parting.parent
            parting = ends[before][0]
        row = self._c.one(
            "SELECT link FROM entry WHERE feed=? AND sequence=? AND branch=?",
            (number, entry.sequence - 1, before),
        )
        return row is not None and row[0] == entry.previous

    def by_link(self, link: Link) -> StoredEntry | None:
        """The entry with this link."""
        with self._reading():
            row = self._c.one(f"{JOINED} WHERE substr(e.link,1,8)=? AND e.link=?", (link[:8], link))
            return None if row is None else self.joined(row)[1]

    def entries_of(self, document: DocumentId, district: str | None = None) -> list[StoredEntry]:
        """Every entry of a document, checked; only those in feeds of one district if it is named."""
        found: list[StoredEntry] = []
        with self._reading():
            for place in self._rows_of(document, district):
                rows = self._c.all(f"SELECT {_COLUMNS} FROM entry e WHERE e.document=?", (place.number,))  # noqa: S608
                held = [self._stored(row, document) for row in rows]
                digest = 0
                for entry in held:
                    digest ^= in_digest(entry.link, detached=entry.detached)
                bare = sum(entry.sealed is None for entry in held)
                if (len(held), bare, digest) != (place.entries, place.bare, place.digest):
                    raise StoreDamaged(
                        "entries of a document are missing", where=f"document {document.hex()}"
                    )
                found += held
        return sorted(found, key=lambda e: (e.feed, e.sequence, e.link))

    def arrivals(self, after: int, limit: int) -> list[tuple[int, StoredEntry]]:
        """Entries in order of arrival, after an arrival number."""
        with self._reading():
            rows = self._c.all(f"{JOINED} WHERE e.arrival>? ORDER BY e.arrival LIMIT ?", (after, limit))
            return [self.joined(row) for row in rows]

    def last_arrival(self) -> int:
        """The number of the newest arrival; 0 if nothing is held."""
        row = self._c.one("SELECT max(arrival) FROM entry")
        return 0 if row is None or row[0] is None else int(row[0])

    def head_at(self, feed: FeedId, arrival: int) -> Head | None:
        """Where an unforked feed ended when an arrival number was the newest; None: it was empty, or is forked."""
        number = self._number(feed)
        if number is None or len(self._ends(number)) > 1:
            return None
        row = self._c.one(
            "SELECT sequence, link, stamp FROM entry WHERE feed=? AND branch=0 AND arrival<=? "
            "ORDER BY sequence DESC LIMIT 1", (number, arrival),
        )  # fmt: skip
        return None if row is None else Head(0, row[0], Link(row[1]), row[2])

    def lanes_since(self, after: int, districts: Collection[str]) -> list[tuple[int, int, int]]:
        """Lane, entries, lowest stamp, of what came after an arrival number into feeds of these districts; ascending."""
        found: dict[int, tuple[int, int]] = {}
        with self._reading():
            rows = self._c.all(
                "SELECT feed, lane, count(*), min(stamp) FROM entry WHERE arrival>? GROUP BY feed, lane",
                (after,),
            )
            for number, lane, count, stamp in rows:
                if self._row(number).district in districts:
                    before, lowest = found.get(lane, (0, stamp))
                    found[lane] = (before + count, min(lowest, stamp))
        return [(lane, count, stamp) for lane, (count, stamp) in sorted(found.items())]

    def chain(self, feed: FeedId, branch: int, after: int, limit: int) -> list[StoredEntry]:
        """Up to `limit` entries of one branch's own rows after a sequence, in order."""
        with self._reading():
            rows = self._c.all(
                f"{JOINED} WHERE e.feed=? AND e.branch=? AND e.sequence>? ORDER BY e.sequence LIMIT ?",
                (self._number(feed), branch, after, limit),
            )
            found = [self.joined(row)[1] for row in rows]
        if any(entry.sequence != expected for expected, entry in enumerate(found, after + 1)):
            raise StoreDamaged(
                "an entry of a feed is missing", where=f"feed {feed.hex()} after sequence {after}"
            )
        return found

    def position(self, feed: FeedId, sequence: int, link: Link) -> int | None:
        """The branch on which a link stands at a sequence, if it is held."""
        number = self._number(feed)
        return None if number is None else self._branch_at(number, link, sequence, self._branches_of(number))

    def _branch_at(
        self, number: int, link: bytes, sequence: int, ends: Sequence[tuple[BranchRow | None, Head]]
    ) -> int | None:
        """The branch on which this link stands at this sequence; the main branch for the start of the feed."""
        if sequence == 0:
            return 0 if link == genesis_link(self._row(number).signed) else None
        for _, head in ends:
            if head.sequence == sequence and head.link == link:
                return head.branch
        row = self._c.one(
            "SELECT branch FROM entry WHERE feed=? AND sequence=? AND branch>=0 AND link=?",
            (number, sequence, link),
        )
        return None if row is None else int(row[0])
