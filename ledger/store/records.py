"""What a node notes for itself beside the log: values, commands, patient index, snapshots, audit, horizon, proofs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ledger.errors import InvalidInput, StoreDamaged
from ledger.ids import DocumentId, FeedId, Link, NodeId, tagged_hash
from ledger.store.connection import Connection, sync_directory

__all__ = ["Records", "row_checksum"]


def row_checksum(*parts: bytes) -> bytes:
    """Eight bytes that a row's values must match."""
    return tagged_hash("row", *parts)[:8]


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
        if row is None:
            return None
        value = bytes(row[0])
        if value[-8:] != row_checksum(name.encode(), value[:-8]):
            raise StoreDamaged("a local value is not what was written", where=f"meta {name}")
        return value[:-8]

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a local value."""
        self._c.run(
            "INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value + row_checksum(name.encode(), value))
        )

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

    def index(self, key: bytes) -> list[DocumentId]:
        """Documents filed under a patient's key, sorted."""
        return [
            DocumentId(d)
            for (d,) in self._c.all("SELECT document FROM patient WHERE key=? ORDER BY document", (key,))
        ]

    def put_snapshot(self, document: DocumentId, basis: bytes, sealed: bytes) -> None:
        """Keep a sealed snapshot of a state."""
        self._c.run("INSERT OR REPLACE INTO snapshot VALUES(?,?,?)", (document, basis, sealed))

    def snapshot(self, document: DocumentId) -> tuple[bytes, bytes] | None:
        """A sealed snapshot and its basis."""
        row = self._c.one("SELECT basis, sealed FROM snapshot WHERE document=?", (document,))
        return None if row is None else (row[0], row[1])

    def append_audit(self, sealed: bytes, chain: bytes) -> None:
        """Append to the audit log."""
        self._c.run("INSERT INTO audit VALUES(NULL,?,?)", (sealed, chain))

    def audit_head(self) -> bytes:
        """Chain value of the last audit record; empty if none."""
        row = self._c.one("SELECT chain FROM audit ORDER BY id DESC LIMIT 1")
        return b"" if row is None else bytes(row[0])

    def audit(self) -> Iterator[tuple[bytes, bytes]]:
        """Every audit record: sealed bytes and chain value, each checked against its predecessor."""
        chain = b""
        for sealed, stored in self._c.all("SELECT sealed, chain FROM audit ORDER BY id"):
            chain = tagged_hash("audit", chain, sealed)
            if chain != stored:
                raise StoreDamaged("the audit log is not what was written", where="audit")
            yield sealed, stored

    def put_horizon(self, node: NodeId, stamp: int, heard_ms: int) -> None:
        """Note up to which stamp a node's entries are held and when it was heard; neither goes backwards."""
        self._c.run(
            "INSERT INTO horizon VALUES(?,?,?) ON CONFLICT(node) DO UPDATE SET "
            "stamp=max(stamp, excluded.stamp), heard=max(heard, excluded.heard)", (node, stamp, heard_ms),
        )  # fmt: skip

    def horizon(self) -> list[tuple[NodeId, int, int]]:
        """Node, stamp, heard (ms), by node."""
        return [
            (NodeId(n), s, h)
            for n, s, h in self._c.all("SELECT node, stamp, heard FROM horizon ORDER BY node")
        ]

    def put_proof(self, feed: FeedId, proof: bytes) -> None:
        """Keep a proof for ever."""
        self._c.run("INSERT OR IGNORE INTO proof VALUES(?,?)", (feed, proof))

    def proofs(self) -> list[tuple[FeedId, bytes]]:
        """Every proof, by feed."""
        return [(FeedId(f), p) for f, p in self._c.all("SELECT feed, proof FROM proof ORDER BY feed")]

    def backup(self, target: Path) -> None:
        """Copy the store while it is in use, without its continuity token; the copy appears whole or not at all.

        Raises:
            InvalidInput: the target exists.
        """
        if target.exists():
            raise InvalidInput("the backup's file exists already", advice="name another file")
        fresh = target.with_name(target.name + ".new")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._c.copy_to(fresh)
        # A plain connection: the stripped copy must be one file, with no log beside it.
        import sqlite3

        database = sqlite3.connect(fresh, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("DELETE FROM meta WHERE name='continuity'")
            (whole,) = database.execute("PRAGMA integrity_check").fetchone()
        finally:
            database.close()
        if whole != "ok":
            raise StoreDamaged("the copy does not hold together", where=str(target))
        descriptor = os.open(fresh, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(target)
        sync_directory(target.parent)
