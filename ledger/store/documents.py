"""Documents in SQLite: which entries of each are held, and where it stands.

A document's row counts its entries and holds the XOR of what each adds (`in_digest`); it is found by two indexes, so that a damaged one
cannot make a document look unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from ledger.errors import StoreDamaged
from ledger.ids import DocumentId, Link, tagged_hash
from ledger.store.connection import Connection
from ledger.store.feeds import Feeds
from ledger.store.records import row_checksum

__all__ = ["Change", "DocumentRow", "Documents", "in_digest"]

DOCUMENTS_CACHED_MAX = 50_000
"""Rows of documents kept by the one process that writes them: some 30 MB."""
_INSERT = "INSERT INTO document VALUES(?6,?7,?8,?9,?1,?2,?3,?4,?5)"
_UPDATE = "UPDATE document SET entries=?1, bare=?2, dropped=?3, digest=?4, checksum=?5 WHERE id=?6"
_MONTH_ONE = b"\0\1"
"""The first month of an id. What a district's own document has is none: that is never dropped."""
_MONTHS = 0xFFFF


class DocumentRow(Struct, frozen=True):
    """What is held of a document in one district."""

    number: int
    document: DocumentId
    district: str
    entries: int
    bare: int
    """Entries without content."""
    dropped: bool
    """Retention dropped the content: what comes later is kept without it too."""
    digest: int
    """XOR of what its entries add (`in_digest`)."""

    def basis(self) -> bytes:
        """A digest of exactly which entries are held, which of them detached, and of how many without content."""
        return (
            self.entries.to_bytes(8, "big") + self.bare.to_bytes(8, "big") + self.digest.to_bytes(32, "big")
        )


class Change(Struct):
    """What a write changes of a document."""

    entries: int = 0
    bare: int = 0
    digest: int = 0


def in_digest(link: Link, *, detached: bool) -> int:
    """What an entry adds to its document's digest: another number ahead of its feed than in it.

    Ahead of its feed it confers nothing: what was folded from it then must not pass for a fold of it now.
    """
    return int.from_bytes(tagged_hash("detached", link) if detached else link, "big")


class Documents(Feeds):
    """The part of the SQLite store that knows documents."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._documents: dict[tuple[bytes, str], DocumentRow] = {}
        self._places: dict[bytes, dict[str, bytes]] = {}
        """Whole answers of `places`, kept by the one process that writes them."""
        self._fresh: set[int] = set()
        """Numbers given to documents that are not yet written."""
        self._last_document: int | None = None

    def _forget_documents(self) -> None:
        """What is remembered of documents may not be so."""
        self._documents.clear()
        self._places.clear()
        self._fresh.clear()
        self._last_document = None

    def _check_documents(self) -> None:
        """Documents and feeds must account for the same entries, district by district: no page may have vanished."""
        row = self._c.one("SELECT count(*) FROM document")
        if row is None or int.from_bytes(self.get_meta("documents") or b"", "big") != row[0]:
            raise StoreDamaged("the number of documents is not what was written", where="documents")
        by_feed: dict[str, int] = {}
        for number, count in self._c.all("SELECT feed, count(*) FROM entry GROUP BY feed"):
            district = self._row(number).district
            by_feed[district] = by_feed.get(district, 0) + count
        rows = self._c.all("SELECT district, sum(entries) FROM document GROUP BY district")
        if by_feed != {district: count for district, count in rows if count}:
            raise StoreDamaged("documents do not account for the entries held", where="documents")

    def _document_row(self, row: tuple[int, bytes, str, bytes, int, int, int, bytes, bytes]) -> DocumentRow:
        number, document, district, _, entries, bare, dropped, digest, check = row
        if check != row_checksum(number, document, district, entries, bare, dropped, digest):
            raise StoreDamaged(
                "the row of a document is not what was written", where=f"document row {number}"
            )
        return DocumentRow(
            number,
            DocumentId(document),
            district,
            entries,
            bare,
            bool(dropped),
            int.from_bytes(digest, "big"),
        )

    def _rows_of(self, document: bytes, district: str | None = None) -> list[DocumentRow]:
        """Rows of a document, by district; found both ways."""
        with self._c.snapshot():
            found = self._c.all("SELECT * FROM document WHERE document=?", (document,))
            tagged = self._c.all("SELECT * FROM document WHERE tag=?", (row_checksum(document),))
        rows = sorted([self._document_row(row) for row in found], key=lambda row: row.district)
        others = [row for row in map(self._document_row, tagged) if row.document == document]
        if rows != sorted(others, key=lambda row: row.district):
            raise StoreDamaged("a document cannot be found both ways", where=f"document {document.hex()}")
        return [row for row in rows if district in (None, row.district)]

    def _document(self, document: bytes, district: str) -> DocumentRow:
        """The row of a document; a fresh one, written when it is accounted for, if there is none."""
        place = (document, district)
        known = self._documents.get(place)
        if known is None:
            if len(self._documents) >= DOCUMENTS_CACHED_MAX and not self._fresh:
                self._documents.clear()
            rows = self._rows_of(document, district)
            if rows:
                known = rows[0]
            else:
                if self._last_document is None:
                    row = self._c.one("SELECT max(id) FROM document")
                    self._last_document = 0 if row is None or row[0] is None else int(row[0])
                self._last_document += 1
                self._fresh.add(self._last_document)
                known = DocumentRow(self._last_document, DocumentId(document), district, 0, 0, False, 0)
            self._documents[place] = known
        return known

    def _account(self, district: str, changes: Mapping[bytes, Change]) -> None:
        """Carry what was written in the feeds of a district over to the rows of its documents."""
        fresh, known = [], []
        for document, change in changes.items():
            row = self._document(document, district)
            row = DocumentRow(
                row.number, row.document, district, row.entries + change.entries, row.bare + change.bare,
                row.dropped, row.digest ^ change.digest,
            )  # fmt: skip
            self._documents[document, district] = row
            places = self._places.get(document)
            if places is not None:
                places[district] = row.basis()
            if row.number in self._fresh:
                fresh.append((*_values(row), document, district, row_checksum(document)))
            else:
                known.append(_values(row))
        if fresh:
            self._fresh.clear()
            self._count("documents", len(fresh))
            self._c.run_many(_INSERT, fresh)
        self._c.run_many(_UPDATE, known)

    def _drop(self, row: DocumentRow) -> None:
        """Note that retention dropped the content of a document."""
        self._c.run(_UPDATE, _values(msgspec.structs.replace(row, bare=row.entries, dropped=True)))
        self._forget_documents()

    def entries_held(self, document: DocumentId) -> int:
        """How many entries of a document are held, in whatever district."""
        return sum(row.entries for row in self._rows_of(document))

    def places(self, document: DocumentId) -> list[tuple[str, bytes]]:
        """Each district in whose feeds entries of a document are held, ascending, with a digest of which entries."""
        places = self._places.get(document)
        if places is None:
            places = {row.district: row.basis() for row in self._rows_of(document) if row.entries}
            if self._c.writable:  # Nobody else writes; a reader must look again.
                if len(self._places) >= DOCUMENTS_CACHED_MAX:
                    self._places.clear()
                self._places[document] = places
        return sorted(places.items())

    def document_basis(self, document: DocumentId, district: str) -> bytes:
        """A digest of exactly which entries of a document are held in a district's feeds; empty if none."""
        return dict(self.places(document)).get(district, b"")

    def documents(self, district: str | None = None) -> Iterator[DocumentId]:
        """Every document of which an entry is held."""
        for row in map(self._document_row, self._c.all("SELECT * FROM document")):
            if row.entries and district in (None, row.district):
                yield row.document

    def undropped(self, after: bytes, before_month: int, limit: int) -> list[DocumentId]:
        """Documents of months from 1 up to before a month that retention has not dropped, after an id, ascending."""
        rows = self._c.all(
            "SELECT DISTINCT document FROM document WHERE document>? AND document>=? AND document<? AND NOT dropped "
            "ORDER BY document LIMIT ?",
            (after, _MONTH_ONE, min(before_month, _MONTHS).to_bytes(2, "big"), limit),
        )
        return [DocumentId(document) for (document,) in rows]


def _values(row: DocumentRow) -> tuple[int, int, int, bytes, bytes, int]:
    digest = row.digest.to_bytes(32, "big")
    check = row_checksum(
        row.number, row.document, row.district, row.entries, row.bare, int(row.dropped), digest
    )
    return row.entries, row.bare, int(row.dropped), digest, check, row.number
