"""A store's beginning: made whole or not at all, opened by one writer or any number of readers."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

from ledger.entropy import Entropy, SystemEntropy
from ledger.errors import InvalidInput, StoreDamaged
from ledger.ids import RealmId
from ledger.store.connection import Connection, WriterLock, disk_errors, sync_directory
from ledger.store.records import meta_row, names_row
from ledger.store.schema import SCHEMA, SCHEMA_VERSION
from ledger.store.sqlite import SQLiteStore

__all__ = ["create_store", "open_store", "restore_store"]


def create_store(path: Path, realm: RealmId) -> SQLiteStore:
    """Make a new store; the file appears whole or not at all.

    Raises:
        InvalidInput: there is a file already.
        StoreBusy: another process is making one.
    """
    lock = WriterLock(_lock_of(path))
    try:
        if path.exists():
            raise InvalidInput("there is a store already", advice="open it, or choose another directory")
        # Leftovers of another store would be taken for parts of this one.
        for suffix in (".new", ".new-journal", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fresh = path.with_name(path.name + ".new")
        with disk_errors(path):
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            _write_schema(fresh, realm)
            fresh.replace(path)
            sync_directory(path.parent)
        store = SQLiteStore(Connection(path, writable=True), lock, SystemEntropy())
        store.begin_continuity()
    except BaseException:
        lock.release()
        raise
    return store


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _write_schema(path: Path, realm: RealmId) -> None:
    # A plain connection with a rollback journal: the new file must be one file, and never empty under its name.
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous=EXTRA")
        database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        values = [("realm-id", realm), ("feeds", bytes(8)), ("branches", bytes(8))]
        database.executemany("INSERT INTO meta VALUES(?,?)", [meta_row(*value) for value in values])
        database.execute("INSERT INTO meta VALUES(?,?)", names_row(name for name, _ in values))
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise OSError(errno.ENOSPC if full else errno.EIO, type(error).__name__) from error
    finally:
        database.close()


def open_store(path: Path, *, writable: bool = True, entropy: Entropy | None = None) -> SQLiteStore:
    """Open a store. `continuity_proven` says whether it is the one that was last open here.

    Raises:
        NotFound, StoreBusy, StoreDamaged, StoreFull, VersionUnknown: as their names say.
    """
    lock = WriterLock(_lock_of(path)) if writable and path.exists() else None
    connection: Connection | None = None
    try:
        connection = Connection(path, writable=writable)
        return SQLiteStore(connection, lock, entropy or SystemEntropy())
    except BaseException:
        if connection is not None:
            connection.close()
        if lock is not None:
            lock.release()
        raise


def restore_store(backup: Path, path: Path, *, aside: Path | None = None) -> None:
    """Put a backup where a store is to be: whole and durable, or not at all. It proves no continuity.

    Args:
        backup: the copy that `Store.backup` made.
        path: where the store is to be.
        aside: an empty directory to which a store that stands there is moved, with its log.

    Raises:
        InvalidInput: there is a store already, and nowhere to move it.
        StoreDamaged: the backup is missing or empty; the present store stays where it is.
        StoreFull: there is no room for it; likewise.
    """
    if path.exists() and aside is None:
        raise InvalidInput("there is a store already", advice="say where to move it")
    if not backup.exists() or not backup.stat().st_size:
        raise StoreDamaged("the backup is missing or empty", where=str(backup))
    fresh = path.with_name(path.name + ".new")
    with disk_errors(fresh):
        shutil.copyfile(backup, fresh)
        fresh.chmod(0o600)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        # A log or index left by the lost store must never be read into the restored one.
        for left in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
            if left.exists() and aside is not None:
                aside.mkdir(exist_ok=True, mode=0o700)
                left.replace(aside / left.name)
            else:
                left.unlink(missing_ok=True)
        fresh.replace(path)
        sync_directory(path.parent)
