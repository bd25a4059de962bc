"""The embedded store: SQLite. See `ledger.store.port` for what it guarantees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from ledger.entropy import Entropy
from ledger.errors import StoreDamaged, VersionUnknown
from ledger.feed import ForkProof, Run
from ledger.ids import DocumentId, FeedId, Link, RealmId
from ledger.store import runs
from ledger.store.connection import Connection, WriterLock, as_written
from ledger.store.continuity import advance, is_proven, read_token, write_token
from ledger.store.entries import COLUMNS, Entries
from ledger.store.port import StoredEntry
from ledger.store.schema import SCHEMA_VERSION

__all__ = ["SQLiteStore"]

DOCUMENTS_CHECKED_MAX = 50_000
"""Documents whose index is checked at every opening, in some 0.1 s; in a larger store `verify` does it."""


class SQLiteStore(Entries):
    """A store in one SQLite file. Not thread-safe: its owner serialises."""

    def __init__(self, connection: Connection, lock: WriterLock | None, entropy: Entropy) -> None:
        super().__init__(connection)
        self.writable = connection.writable
        self._lock = lock
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

    # --- chains ------------------------------------------------------------------------------------------------

    def chain(self, feed: FeedId, branch: int, after: int, limit: int) -> list[StoredEntry]:
        """Up to `limit` entries of one branch's own rows after a sequence, in order."""
        rows = self._c.all(
            f"SELECT d.document, {COLUMNS} FROM entry e JOIN document d ON d.id=e.document "  # noqa: S608
            "WHERE e.feed=? AND e.branch=? AND e.sequence>? ORDER BY e.sequence LIMIT ?",
            (self._number(feed), branch, after, limit),
        )
        found = [self._stored(row[1:], DocumentId(row[0])) for row in rows]
        if any(entry.sequence != after + 1 + number for number, entry in enumerate(found)):
            raise StoreDamaged(
                "an entry of a feed is missing", where=f"feed {feed.hex()} after sequence {after}"
            )
        return found

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
