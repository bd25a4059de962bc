"""The embedded store: SQLite. See `ledger.store.port` for what it guarantees.

Rows point to feeds and documents by small numbers; an entry carries its previous link, so that it can be checked
where it stands. Documents carry the number and the XOR of the links of their entries, so that a damaged index cannot
hide one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256

from ledger.entropy import Entropy
from ledger.errors import LedgerBug, StoreDamaged, VersionUnknown
from ledger.feed import Entry, ForkProof, Run, VerifiedRun, entry_link, genesis_link
from ledger.ids import DocumentId, FeedId, Link, RealmId
from ledger.store import runs
from ledger.store.connection import Connection, WriterLock, as_written
from ledger.store.continuity import advance, is_proven, read_token, write_token
from ledger.store.feeds import Feeds
from ledger.store.port import Added, StoredEntry
from ledger.store.schema import SCHEMA_VERSION

__all__ = ["SQLiteStore"]

DETACHED = -1
_NO_MONTH = b"\0\0"
"""A district's own document stands in no month."""
DOCUMENTS_CHECKED_MAX = 50_000
"""Documents whose index is checked at every opening, in some 0.1 s; in a larger store `verify` does it."""
DOCUMENT_IDS_CACHED_MAX = 200_000
"""Row numbers of documents kept while importing: some 20 MB."""
_COLUMNS = (
    "e.feed, e.branch, e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment, e.sealed, e.sealed_hash, "
    "e.signature, e.previous, e.link"
)
_INSERT = "INSERT INTO entry VALUES(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)"


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(32, "big")


class SQLiteStore(Feeds):
    """A store in one SQLite file. Not thread-safe: its owner serialises."""

    def __init__(self, connection: Connection, lock: WriterLock | None, entropy: Entropy) -> None:
        super().__init__(connection)
        self.writable = connection.writable
        self._lock = lock
        self._documents: dict[tuple[bytes, str], int] = {}
        self._new_documents = 0
        self._data_version = 0
        with as_written(str(connection.path)):
            self._check()
        self.continuity_proven = self._advance_continuity(entropy) if self.writable else False

    # --- life -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """What can be checked without reading every entry; each entry is checked when it is read."""
        connection = self._c
        version = connection.one("PRAGMA user_version")
        if version is None or version[0] != SCHEMA_VERSION:
            if version is not None and version[0] > SCHEMA_VERSION:
                raise VersionUnknown(
                    f"the store has version {version[0]}; this software reads {SCHEMA_VERSION}"
                )
            raise StoreDamaged("the store names no version", where=str(connection.path))
        self.realm = RealmId(self.get_meta("realm-id") or b"")
        self._check_feeds()
        self._check_documents()

    def _check_documents(self) -> None:
        """Documents and feeds must account for the same entries, district by district: no page may have vanished."""
        if int.from_bytes(self.get_meta("documents") or b"", "big") != self._one_number(
            "SELECT count(*) FROM document"
        ):
            raise StoreDamaged("the number of documents is not what was written", where="documents")
        by_feed: dict[str, int] = {}
        for number, count in self._c.all("SELECT feed, count(*) FROM entry GROUP BY feed"):
            district = self._row(number).district
            by_feed[district] = by_feed.get(district, 0) + count
        rows = self._c.all("SELECT district, sum(entries) FROM document GROUP BY district")
        if by_feed != {district: count for district, count in rows if count}:
            raise StoreDamaged("documents do not account for the entries held", where="documents")

        if self._one_number("SELECT count(*) FROM document") <= DOCUMENTS_CHECKED_MAX:
            self.check_document_index()

    def check_document_index(self) -> None:
        """The index by which documents are found must name what the table holds."""
        columns = "SELECT id, document, district FROM document"
        by_index = self._c.all(f"{columns} INDEXED BY document_place")
        if sorted(by_index) != sorted(self._c.all(f"{columns} NOT INDEXED")):
            raise StoreDamaged("documents are not found where they stand", where="documents")

    def _one_number(self, sql: str) -> int:
        row = self._c.one(sql)
        return 0 if row is None else int(row[0])

    def _advance_continuity(self, entropy: Entropy) -> bool:
        path = self._c.path.with_name(self._c.path.name + ".continuity")
        in_database, in_file = self.get_meta("continuity"), read_token(path)
        proven = is_proven(in_database, in_file)
        following = advance(in_file) if proven and in_file else entropy.bytes(32)
        write_token(path, following)
        with self.transaction():
            self.put_meta("continuity", following)
        return proven

    def close(self) -> None:
        """Release files and lock."""
        self._c.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when it has ended."""
        outermost = not self._c.in_transaction
        try:
            with self._c.transaction():
                yield
        except BaseException:
            if outermost:  # Row numbers and counts of what was rolled back must not be believed.
                self._documents.clear()
                self._new_documents = 0
                self._feed_numbers.clear()
                self._rows.clear()
                self._changes += 1
            raise

    def district_changes(self) -> int:
        """Grows whenever feeds, branches or a district's own document (governance's included) may have changed.

        What was derived from them stays true while it stands still.
        """
        if not self.writable:
            row = self._c.one("PRAGMA data_version")
            if row is not None and row[0] != self._data_version:
                self._data_version = row[0]
                self._changes += 1
        return self._changes

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

    def _stored(self, row: Sequence[object], document: DocumentId) -> StoredEntry:
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
            signature,
            previous,
            link,
        ) = row
        feed = self._row(number).feed  # type: ignore[arg-type]
        try:
            stored = StoredEntry(
                feed, branch if branch >= 0 else 0, sequence, stamp, document, lane, epoch, commitment, sealed,  # type: ignore[operator,arg-type]
                sealed_hash, signature, previous, link, branch < 0,  # type: ignore[operator,arg-type]
            )  # fmt: skip
            whole = entry_link(self.realm, feed, previous, stored.entry()) == link  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise StoreDamaged(
                "an entry is not what was written", where=f"feed {feed.hex()} {sequence}"
            ) from error
        if not whole:
            raise StoreDamaged(
                "an entry is not what was written", where=f"feed {feed.hex()} sequence {sequence}"
            )
        return stored

    def by_link(self, link: Link) -> StoredEntry | None:
        """The entry with this link."""
        row = self._c.one(
            f"SELECT {_COLUMNS}, d.document FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
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
                for row in self._c.all(f"SELECT {_COLUMNS} FROM entry e WHERE e.document=?", (number,))  # noqa: S608
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
            f"SELECT e.arrival, d.document, {_COLUMNS} FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
            "WHERE e.arrival>? ORDER BY e.arrival LIMIT ?", (after, limit),
        )  # fmt: skip
        return [(row[0], self._stored(row[2:], DocumentId(row[1]))) for row in rows]

    def chain(self, feed: FeedId, branch: int, after: int, limit: int) -> list[StoredEntry]:
        """Up to `limit` entries of one branch's own rows after a sequence, in order."""
        rows = self._c.all(
            f"SELECT d.document, {_COLUMNS} FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
            "WHERE e.feed=? AND e.branch=? AND e.sequence>? ORDER BY e.sequence LIMIT ?",
            (self._number(feed), branch, after, limit),
        )
        return [self._stored(row[1:], DocumentId(row[0])) for row in rows]

    def position(self, feed: FeedId, sequence: int, link: Link) -> int | None:
        """The branch on which a link stands at a sequence, if it is held."""
        number = self._number(feed)
        return None if number is None else self._place_of(number, link, sequence)

    def runs_after(
        self, feed: FeedId, after: tuple[tuple[int, Link], ...], budget_bytes: int
    ) -> Iterator[Run]:
        """What a peer with these heads lacks of a feed, branch by branch, up to a budget."""
        return runs.runs_after(self, feed, after, budget_bytes)

    def fork_proof(self, feed: FeedId) -> ForkProof | None:
        """Make the proof of the first fork of a feed from the branches held."""
        return runs.fork_proof(self, feed)

    def drop_content(self, document: DocumentId) -> int:
        """Retention: drop the sealed bytes of a document, keep its places; returns how many."""
        rows = [
            (sha256(e.sealed).digest(), e.link[:8], e.link)
            for e in self.entries_of(document)
            if e.sealed is not None
        ]
        self._c.run_many(
            "UPDATE entry SET sealed=NULL, sealed_hash=? WHERE substr(link,1,8)=? AND link=?", rows
        )
        self._c.run("DELETE FROM snapshot WHERE document=?", (document,))
        return len(rows)

    def verify(self) -> Iterator[StoredEntry]:
        """Every chained entry in order of feed, branch and sequence, each checked against its predecessor."""
        self.check_document_index()
        return runs.verify(self)
