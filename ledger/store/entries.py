"""Entries in SQLite: runs chained to what is held, branches, detached entries, and what is read back, checked.

Rows point to feeds and documents by small numbers; an entry carries its previous link, so that it can be checked
where it stands. Documents carry the number and the XOR of the links of their entries, so that a damaged index cannot
hide one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ledger.errors import LedgerBug, StoreDamaged
from ledger.feed import Entry, VerifiedRun, entry_link, genesis_link
from ledger.ids import DocumentId, FeedId, Link, RealmId
from ledger.store import runs
from ledger.store.connection import Connection, as_written
from ledger.store.feeds import Feeds
from ledger.store.port import Added, StoredEntry

__all__ = ["COLUMNS", "Entries"]

DETACHED = -1
_NO_MONTH = b"\0\0"
"""A district's own document stands in no month."""
DOCUMENT_IDS_CACHED_MAX = 200_000
"""Row numbers of documents kept while importing: some 20 MB."""
COLUMNS = (
    "e.feed, e.branch, e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment, e.sealed, e.sealed_hash, "
    "e.signature, e.previous, e.link"
)
_INSERT = "INSERT INTO entry VALUES(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)"


Row: TypeAlias = tuple[Any, ...]
"""`COLUMNS` as SQLite gives them: of any type, if the file is damaged."""


class Entries(Feeds):
    """The part of the SQLite store that holds entries."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.realm = RealmId(b"")
        self._documents: dict[tuple[bytes, str], int] = {}
        self._new_documents = 0

    # --- entries -----------------------------------------------------------------------------------------------

    def _document(self, document: bytes, district: str) -> int:
        place = (document, district)
        known = self._documents.get(place)
        if known is None:
            row = self._c.one("SELECT id FROM document WHERE document=? AND district=?", place)
            if row is not None:
                known = int(row[0])
            else:
                known = self._c.insert(
                    "INSERT INTO document VALUES(NULL,?,?,0,?)", (document, district, bytes(32))
                )
                self._new_documents += 1
            if len(self._documents) >= DOCUMENT_IDS_CACHED_MAX:
                self._documents.clear()
            self._documents[place] = known
        return known

    def _insert(
        self, number: int, branch: int, district: str, items: Sequence[tuple[Entry, Link, Link]]
    ) -> None:
        """Insert entries (with previous link and link) and account for them in their documents."""
        rows, changes = [], dict[int, tuple[int, int]]()
        for e, previous, link in items:
            if e.document[:2] == _NO_MONTH or branch > 0:
                self._changes += 1
            document = self._document(e.document, district)
            rows.append(
                (number, branch, e.sequence, e.stamp, document, e.lane, e.epoch, e.commitment, e.sealed,
                 e.sealed_hash, e.signature, previous, link)
            )  # fmt: skip
            count, xor = changes.get(document, (0, 0))
            changes[document] = count + 1, xor ^ int.from_bytes(link, "big")
        if self._new_documents:
            self._count("documents", self._new_documents)
            self._new_documents = 0
        self._c.run_many(_INSERT, rows)
        self._account(changes)

    def _account(self, changes: Mapping[int, tuple[int, int]]) -> None:
        rows = []
        for document, (count, xor) in changes.items():
            row = self._c.one("SELECT entries, digest FROM document WHERE id=?", (document,))
            if row is None:
                raise LedgerBug("a document's row has gone while writing to it")
            digest = (int.from_bytes(row[1], "big") ^ xor).to_bytes(32, "big")
            rows.append((row[0] + count, digest, document))
        self._c.run_many("UPDATE document SET entries=?, digest=? WHERE id=?", rows)

    def add_own(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Append one entry of ours at the end of the main branch."""
        number = self._number(feed)
        if number is None:
            raise LedgerBug("an entry was written to a feed that is not open")
        district = self._row(number).district
        self._insert(number, 0, district, [(entry, previous, link)])
        self._c.run(
            "UPDATE branch SET sequence=?, link=?, stamp=? WHERE feed=? AND branch=0",
            (entry.sequence, link, entry.stamp, number),
        )

    def add_run(self, run: VerifiedRun) -> Added | None:
        """Chain a run to what is held; None if it joins nothing (a gap)."""
        number = self._number(run.feed)
        if number is None:
            return None
        row = self._row(number)
        first = run.entries[0].sequence
        at = self._place_of(number, run.previous, first - 1)
        if at is None:
            # It may still overlap: an entry of the run itself may be held.
            at = self._held_in(number, run)
            if at is None:
                return None
        branch, skip = self._follow(number, at, run)
        if skip == len(run.entries):
            return Added(0, forked=False)
        previous = run.links[skip - 1] if skip else run.previous
        sequence = run.entries[skip].sequence
        end = self._c.one("SELECT sequence FROM branch WHERE feed=? AND branch=?", (number, branch))
        forked = end is not None and end[0] >= sequence
        if forked:
            branch = self._part(number, branch, sequence)
        entries, links = run.entries[skip:], run.links[skip:]
        moved = self._attach_detached(number, links)
        before = (previous, *links[:-1])
        self._insert(number, branch, row.district, list(zip(entries, before, links, strict=True)))
        self._c.run(
            "UPDATE branch SET sequence=?, link=?, stamp=? WHERE feed=? AND branch=?",
            (entries[-1].sequence, links[-1], entries[-1].stamp, number, branch),
        )
        return Added(len(entries) - moved, forked=forked)

    def _place_of(self, number: int, link: bytes, sequence: int) -> int | None:
        """The branch on which this link stands at this sequence; the main branch for the start of the feed."""
        if sequence == 0:
            return 0 if link == genesis_link(self._row(number).signed) else None
        row = self._c.one(
            "SELECT branch FROM entry WHERE feed=? AND sequence=? AND branch>=0 AND link=?",
            (number, sequence, link),
        )
        return None if row is None else int(row[0])

    def _held_in(self, number: int, run: VerifiedRun) -> int | None:
        for entry, link in zip(run.entries, run.links, strict=True):
            branch = self._place_of(number, link, entry.sequence)
            if branch is not None:
                return branch
        return None

    def _follow(self, number: int, branch: int, run: VerifiedRun) -> tuple[int, int]:
        """How far the run says what is held: the branch it ends on and the number of entries to skip."""
        skip = 0
        end = self._c.one("SELECT max(sequence) FROM branch WHERE feed=?", (number,))
        if end is None or run.entries[0].sequence > end[0]:
            return branch, 0
        for index, (entry, link) in enumerate(zip(run.entries, run.links, strict=True)):
            found = self._place_of(number, link, entry.sequence)
            if found is not None:
                branch, skip = found, index + 1
            elif skip or entry.sequence > end[0]:
                break
        return branch, skip

    def _part(self, number: int, parent: int, sequence: int) -> int:
        row = self._c.one("SELECT max(branch) FROM branch WHERE feed=?", (number,))
        branch = int(row[0]) + 1 if row else 1
        self._c.run("INSERT INTO branch VALUES(?,?,?,?,0,?,0)", (number, branch, parent, sequence, bytes(32)))
        self._count("branches", 1)
        self._changes += 1
        return branch

    def _attach_detached(self, number: int, links: Sequence[Link]) -> int:
        """Make room for entries of a run that were held detached; returns how many."""
        held = self._c.all("SELECT arrival, document, link FROM entry WHERE feed=? AND branch<0", (number,))
        if not held:
            return 0
        wanted, gone = set(links), []
        changes: dict[int, tuple[int, int]] = {}
        for arrival, document, link in held:
            if link in wanted:
                gone.append((arrival,))
                count, xor = changes.get(document, (0, 0))
                changes[document] = count - 1, xor ^ int.from_bytes(link, "big")
        self._c.run_many("DELETE FROM entry WHERE arrival=?", gone)
        self._account(changes)
        return len(gone)

    def add_detached(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Hold an entry ahead of its feed.

        Raises:
            LimitExceeded: the feed has too many detached entries.
        """
        number = self._number(feed)
        if number is None or self.by_link(link) is not None:
            return
        runs.check_detached_room(
            self._c.one("SELECT count(*) FROM entry WHERE feed=? AND branch<0", (number,))
        )
        row = self._c.one(
            "SELECT min(branch) FROM entry WHERE feed=? AND sequence=?", (number, entry.sequence)
        )
        branch = min(0, row[0] if row and row[0] is not None else 0) + DETACHED
        self._insert(number, branch, self._row(number).district, [(entry, previous, link)])

    def detached_links(self, district: str) -> list[Link]:
        """Links of detached entries, sorted."""
        rows = self._c.all("SELECT feed, link FROM entry WHERE branch<0 AND feed IN (SELECT id FROM feed)")
        return sorted(Link(link) for number, link in rows if self._row(number).district == district)

    def _stored(self, row: Row, document: DocumentId) -> StoredEntry:
        """The entry of a row, checked against its link."""
        feed, branch = self._row(row[0]).feed, row[1]
        where = f"feed {feed.hex()} sequence {row[2]}"
        with as_written(where):
            stored = StoredEntry(
                feed, max(branch, 0), row[2], row[3], document, row[5], row[6], row[7], row[8], row[9], row[10],
                row[11], row[12], branch < 0,
            )  # fmt: skip
            whole = entry_link(self.realm, feed, stored.previous, stored.entry()) == stored.link
        if not whole:
            raise StoreDamaged("an entry is not what was written", where=where)
        return stored

    def by_link(self, link: Link) -> StoredEntry | None:
        """The entry with this link."""
        row = self._c.one(
            f"SELECT {COLUMNS}, d.document FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
            "WHERE substr(e.link,1,8)=? AND e.link=?", (link[:8], link),
        )  # fmt: skip
        return None if row is None else self._stored(row[:-1], DocumentId(row[-1]))

    def entries_of(self, document: DocumentId, district: str | None = None) -> list[StoredEntry]:
        """Every entry of a document, checked; only those in feeds of one district if it is named."""
        found = []
        for number, where, count, digest in self._places(document):
            if district is not None and where != district:
                continue
            held = [
                self._stored(row, document)
                for row in self._c.all(f"SELECT {COLUMNS} FROM entry e WHERE e.document=?", (number,))  # noqa: S608
            ]
            xor = 0
            for entry in held:
                xor ^= int.from_bytes(entry.link, "big")
            if len(held) != count or xor.to_bytes(32, "big") != digest:
                raise StoreDamaged("entries of a document are missing", where=f"document {document.hex()}")
            for feed in {entry.feed for entry in held}:
                row = self.feed(feed)
                if row is None or row.district != where:
                    raise StoreDamaged("a document stands elsewhere than its entries", where=document.hex())
            found += held
        return sorted(found, key=lambda e: (e.feed, e.sequence, e.link))

    def _places(self, document: DocumentId) -> list[tuple[int, str, int, bytes]]:
        # From the table, whose sums are checked at opening, not from the index through which it is found.
        return self._c.all(
            "SELECT t.id, t.district, t.entries, t.digest FROM document d JOIN document t ON t.id=d.id "
            "WHERE d.document=? ORDER BY t.district",
            (document,),
        )

    def places(self, document: DocumentId) -> list[tuple[str, bytes]]:
        """Each district in whose feeds entries of a document are held, ascending, with a digest of which entries."""
        return [
            (district, count.to_bytes(8, "big") + digest)
            for _, district, count, digest in self._places(document)
            if count
        ]

    def document_basis(self, document: DocumentId, district: str) -> bytes:
        """A digest of exactly which entries of a document are held in a district's feeds; empty if none."""
        places = dict(self.places(document))
        if places and district not in places:
            self.entries_of(document)  # Raises if it is a name that was damaged.
        return places.get(district, b"")

    def documents(self, district: str | None = None) -> Iterator[DocumentId]:
        """Every document of which an entry is held."""
        for document, where in self._c.all("SELECT document, district FROM document WHERE entries>0"):
            if district is None or where == district:
                yield DocumentId(document)

    def arrivals(self, after: int, limit: int) -> list[tuple[int, StoredEntry]]:
        """Entries in order of arrival, after an arrival number."""
        rows = self._c.all(
            f"SELECT e.arrival, d.document, {COLUMNS} FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
            "WHERE e.arrival>? ORDER BY e.arrival LIMIT ?", (after, limit),
        )  # fmt: skip
        return [(row[0], self._stored(row[2:], DocumentId(row[1]))) for row in rows]
