"""A store's beginning: made whole or not at all, opened by one writer or any number of readers."""

from __future__ import annotations

import os
from pathlib import Path

from ledger.entropy import Entropy, SystemEntropy
from ledger.errors import InvalidInput
from ledger.ids import RealmId
from ledger.store.connection import Connection, WriterLock, sync_directory
from ledger.store.records import row_checksum
from ledger.store.schema import SCHEMA, SCHEMA_VERSION
from ledger.store.sqlite import SQLiteStore

__all__ = ["create_store", "open_store"]


def create_store(path: Path, realm: RealmId) -> SQLiteStore:
    """Make a new store; the file appears whole or not at all.

    Raises:
        InvalidInput: there is a file already.
    """
    if path.exists():
        raise InvalidInput("there is a store already", advice="open it, or choose another directory")
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    # SQLite accepts an empty file as a new database; ours never is empty once it has its name.
    os.write(descriptor, b"")
    os.close(descriptor)
    _write_schema(fresh, realm)
    fresh.replace(path)
    sync_directory(path.parent)
    return open_store(path)


def _write_schema(path: Path, realm: RealmId) -> None:
    import sqlite3

    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous=EXTRA")
        database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        values = [("realm-id", realm), ("feeds", b"\0" * 8), ("branches", b"\0" * 8)]
        database.executemany(
            "INSERT INTO meta VALUES(?,?)", [(n, v + row_checksum(n.encode(), v)) for n, v in values]
        )
    finally:
        database.close()


def open_store(path: Path, *, writable: bool = True, entropy: Entropy | None = None) -> SQLiteStore:
    """Open a store. `continuity_proven` says whether it is the one that was last open here.

    Raises:
        NotFound, StoreBusy, StoreDamaged, VersionUnknown: as their names say.
    """
    lock = WriterLock(path.with_name(path.name + ".lock")) if writable and path.exists() else None
    try:
        return SQLiteStore(Connection(path, writable=writable), lock, entropy or SystemEntropy())
    except BaseException:
        if lock is not None:
            lock.release()
        raise
