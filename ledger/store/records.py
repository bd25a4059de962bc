"""What a node notes for itself beside the log: values, commands, patient index, snapshots, audit, horizon, proofs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from ledger.errors import InvalidInput, StoreDamaged
from ledger.ids import DocumentId, FeedId, Link, NodeId, tagged_hash
from ledger.store.connection import Connection, disk_errors, sync_directory

__all__ = ["Records", "meta_row", "names_row", "row_checksum"]

_encode = msgspec.msgpack.Encoder().encode
_AUDIT = "audit"
"""The local value that says how long the audit log is and how it ends: a chain says nothing of what is cut off it."""
_NAMES = "names"
"""The local value that says which others there are: one whose name was damaged would look like one never set."""


def row_checksum(*values: object) -> bytes:
    """Eight bytes that a row's values must match, whatever types a damaged row comes back with."""
    return sha256(b"rxledger/1 row\0" + _encode(values)).digest()[:8]


def meta_row(name: str, value: bytes) -> tuple[str, bytes]:
    """A local value as it is stored."""
    return name, value + row_checksum(name, value)


def names_row(names: Iterable[str]) -> tuple[str, bytes]:
    """What is stored of the names of all local values."""
    return meta_row(_NAMES, tagged_hash("names", *(name.encode() for name in sorted(names))))


class Records:
    """The part of the SQLite store that is not the log."""

    def __init__(self, connection: Connection) -> None:
        self._c = connection

    def get_meta(self, name: str) -> bytes | None:
        """A local value.

        Raises:
            StoreDamaged: it is not what was written.
        """
        row = self._c.one("SELECT value FROM meta WHERE name=?", (name,))
        return None if row is None else self._checked_meta(name, row[0])

    def _checked_meta(self, name: object, stored: object) -> bytes:
        if not isinstance(stored, bytes) or not isinstance(name, str) or len(stored) < 8:
            raise StoreDamaged("a local value is not what was written", where="meta")
        value = stored[:-8]
        if stored[-8:] != row_checksum(name, value):
            raise StoreDamaged("a local value is not what was written", where="meta")
        return value

    def _meta_names(self) -> set[str]:
        return {name for (name,) in self._c.all("SELECT name FROM meta")} - {_NAMES}

    def _check_meta(self) -> None:
        """Every local value is what was written, and none is missing."""
        for name, stored in self._c.all("SELECT name, value FROM meta"):
            self._checked_meta(name, stored)
        row = self._c.one("SELECT name, value FROM meta WHERE name=?", (_NAMES,))
        if row is None or row != names_row(self._meta_names()):
            raise StoreDamaged("a local value is missing", where="meta")

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a local value."""
        known = self._c.one("SELECT 1 FROM meta WHERE name=?", (name,))
        self._c.run("INSERT OR REPLACE INTO meta VALUES(?,?)", meta_row(name, value))
        if known is None:
            self._c.run("INSERT OR REPLACE INTO meta VALUES(?,?)", names_row(self._meta_names()))

    def _forget_meta(self, name: str) -> None:
        self._c.run("DELETE FROM meta WHERE name=?", (name,))
        self._c.run("INSERT OR REPLACE INTO meta VALUES(?,?)", names_row(self._meta_names()))

    def put_command(self, command: bytes, document: DocumentId, link: Link) -> None:
        """Note what a command did."""
        check = row_checksum(command, document, link)
        self._c.run("INSERT OR IGNORE INTO command VALUES(?,?,?,?)", (command, document, link, check))

    def command(self, command: bytes) -> tuple[DocumentId, Link] | None:
        """What a command did.

        Raises:
            StoreDamaged: the note is not what was written.
        """
        row = self._c.one("SELECT document, link, checksum FROM command WHERE command=?", (command,))
        if row is None:
            return None
        if row[2] != row_checksum(command, row[0], row[1]):
            raise StoreDamaged("the note of a command is not what was written", where="command")
        return DocumentId(row[0]), Link(row[1])

    def put_index(self, key: bytes, document: DocumentId) -> None:
        """File a document under a patient's key."""
        self._c.run("INSERT OR IGNORE INTO patient VALUES(?,?)", (key, document))
        self._c.run(
            "INSERT OR IGNORE INTO patient_copy VALUES(?,?,?)",
            (row_checksum(key), document, row_checksum(key, document)),
        )

    def index(self, key: bytes) -> list[DocumentId]:
        """Documents filed under a patient's key, sorted.

        Raises:
            StoreDamaged: the two ways to find them disagree: one might be missing.
        """
        with self._c.snapshot():
            found = self._c.all("SELECT document FROM patient WHERE key=?", (key,))
            copies = self._c.all(
                "SELECT document, checksum FROM patient_copy WHERE tag=?", (row_checksum(key),)
            )
        documents = {document for document, check in copies if check == row_checksum(key, document)}
        if documents != {document for (document,) in found}:
            raise StoreDamaged("the patient index is not what was written", where="patient index")
        return sorted(DocumentId(document) for document in documents)

    def put_snapshot(self, document: DocumentId, basis: bytes, sealed: bytes) -> None:
        """Keep a sealed snapshot of a state."""
        self._c.run("INSERT OR REPLACE INTO snapshot VALUES(?,?,?)", (document, basis, sealed))

    def snapshot(self, document: DocumentId) -> tuple[bytes, bytes] | None:
        """A sealed snapshot and its basis."""
        row = self._c.one("SELECT basis, sealed FROM snapshot WHERE document=?", (document,))
        return None if row is None else (row[0], row[1])

    def append_audit(self, sealed: bytes, chain: bytes) -> None:
        """Append to the audit log, and note its new end in the same transaction."""
        with self._c.transaction():
            count, _ = self._audit_end()
            self._c.run("INSERT INTO audit VALUES(NULL,?,?)", (sealed, chain))
            self.put_meta(_AUDIT, (count + 1).to_bytes(8, "big") + chain)

    def _audit_end(self) -> tuple[int, bytes]:
        """How many audit records there are, and the chain value of the last, as noted when it was written.

        Raises:
            StoreDamaged: the log does not end so.
        """
        with self._c.snapshot():
            row = self._c.one("SELECT chain FROM audit ORDER BY id DESC LIMIT 1")
            noted = self.get_meta(_AUDIT) or bytes(8)
        count, head = int.from_bytes(noted[:8], "big"), noted[8:]
        if (b"" if row is None else row[0]) != head or bool(count) != bool(head):
            raise StoreDamaged("the audit log does not end where it says", where="audit")
        return count, head

    def audit_head(self) -> bytes:
        """Chain value of the last audit record; empty if none.

        Raises:
            StoreDamaged: the end of the log was cut off or changed.
        """
        return self._audit_end()[1]

    def audit(self) -> Iterator[tuple[bytes, bytes]]:
        """Every audit record: sealed bytes and chain value, each checked against its predecessor.

        Raises:
            StoreDamaged: a record is changed or missing, at the end too; before the first is given, if it is the end.
        """
        with self._c.snapshot():
            count, _ = self._audit_end()
            rows = self._c.all("SELECT sealed, chain FROM audit ORDER BY id")
        if len(rows) != count:
            raise StoreDamaged("a record of the audit log is missing", where="audit")
        chain = b""
        for sealed, stored in rows:
            if not isinstance(sealed, bytes):
                raise StoreDamaged("the audit log is not what was written", where="audit")
            chain = tagged_hash("audit", chain, sealed)
            if chain != stored:
                raise StoreDamaged("the audit log is not what was written", where="audit")
            yield sealed, stored

    def put_horizon(self, node: NodeId, stamp: int, heard_ms: int) -> None:
        """Note up to which stamp a node's entries are held and when it was heard; neither goes backwards."""
        row = self._c.one("SELECT * FROM horizon WHERE node=?", (node,))
        if row is not None:
            _, known_stamp, known_heard = self._horizon_row(row)
            stamp, heard_ms = max(stamp, known_stamp), max(heard_ms, known_heard)
        self._c.run(
            "INSERT OR REPLACE INTO horizon VALUES(?,?,?,?)",
            (node, stamp, heard_ms, row_checksum(node, stamp, heard_ms)),
        )

    @staticmethod
    def _horizon_row(row: tuple[bytes, int, int, bytes]) -> tuple[NodeId, int, int]:
        node, stamp, heard, check = row
        if check != row_checksum(node, stamp, heard):
            raise StoreDamaged("when a node was heard is not what was written", where="horizon")
        return NodeId(node), stamp, heard

    def horizon(self) -> list[tuple[NodeId, int, int]]:
        """Node, stamp, heard (ms), by node."""
        return sorted([self._horizon_row(row) for row in self._c.all("SELECT * FROM horizon")])

    def put_proof(self, feed: FeedId, proof: bytes) -> None:
        """Keep a proof for ever."""
        self._c.run("INSERT OR IGNORE INTO proof VALUES(?,?,?)", (feed, proof, row_checksum(feed, proof)))

    def proofs(self) -> list[tuple[FeedId, bytes]]:
        """Every proof, by feed."""
        rows = self._c.all("SELECT feed, proof, checksum FROM proof")
        if any(check != row_checksum(feed, proof) for feed, proof, check in rows):
            raise StoreDamaged("a proof of fork is not what was written", where="proof")
        return sorted((FeedId(feed), proof) for feed, proof, _ in rows)

    def _check_records(self) -> None:
        """Every command and filed document is what was written."""
        for command, document, link, check in self._c.all("SELECT * FROM command"):
            if check != row_checksum(command, document, link):
                raise StoreDamaged("the note of a command is not what was written", where="command")
        filed = {
            (row_checksum(key), document, row_checksum(key, document))
            for key, document in self._c.all("SELECT key, document FROM patient")
        }
        if filed != set(self._c.all("SELECT tag, document, checksum FROM patient_copy")):
            raise StoreDamaged("the patient index is not what was written", where="patient index")
        self.horizon()
        self.proofs()

    def backup(self, target: Path) -> None:
        """Copy the store while it is in use, without its continuity token; the copy appears whole or not at all.

        Raises:
            InvalidInput: the target exists.
            StoreDamaged: what was copied does not hold together; there is no backup then.
            StoreFull: no room for it.
        """
        if target.exists():
            raise InvalidInput("the backup's file exists already", advice="name another file")
        fresh = target.with_name(target.name + ".new")
        with disk_errors(target):
            for suffix in (".new", ".new-journal", ".new-wal", ".new-shm"):
                target.with_name(target.name + suffix).unlink(missing_ok=True)
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                self._c.copy_to(fresh)
                # One file, with no log beside it.
                with self._c.translated():
                    _one_file(fresh)
                copy = Records(Connection(fresh, writable=True, log=False))
                try:
                    copy.strip()
                finally:
                    copy.close_connection()
                descriptor = os.open(fresh, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
            fresh.replace(target)
            sync_directory(target.parent)

    def strip(self) -> None:
        """Take out what a backup must not carry, and check the rest."""
        with self._c.transaction():
            self._forget_meta("continuity")
        self._check_meta()
        self._c.check()

    def close_connection(self) -> None:
        """Close the database."""
        self._c.close()


def _one_file(path: Path) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=DELETE")
    finally:
        database.close()
