"""One SQLite connection: pragmas, transactions, the single-writer lock, and errors in our own words.

WAL with ``synchronous=FULL``: a commit returns after fsync of the log (R1). One place translates SQLite's errors.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from ledger.errors import (
    LedgerBug,
    NotFound,
    RxLedgerError,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    VersionUnknown,
)
from ledger.store.schema import SCHEMA, SCHEMA_VERSION

__all__ = ["Connection", "WriterLock", "disk_errors", "sync_directory"]

CACHE_KIB = 64 * 1024
"""Page cache: holds the hot part of every index of a million entries."""
BUSY_MS = 5_000
"""How long a reader waits for a checkpoint to pass."""
WAL_PAGES = 4_000
"""Checkpoint after 16 MB of log: bounds the log and the time to open after a crash."""
WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A log that one large import made longer than this is cut back at the next checkpoint."""
FREE_BYTES_MIN = 64 * 1024
"""Less free than this, and a write that failed for no stated reason failed for want of room."""
_SCHEMA_QUERY = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
_FROM_SQLITE = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a file into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull("the disk is full") from error
        raise StoreDamaged(f"a file cannot be read or written ({error.strerror})", where=str(path)) from error


@cache
def _expected_schema() -> list[tuple[str, str, str, str]]:
    """What the schema of a new store reads like: a flipped bit in it would change what the tables mean."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(SCHEMA)
        return database.execute(_SCHEMA_QUERY).fetchall()
    finally:
        database.close()


class WriterLock:
    """Held by the one process that writes a store; the operating system drops it when the process dies."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path):
            self._file: IO[bytes] = path.open("ab")
            path.chmod(0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StoreBusy("another process writes this store") from error

    def release(self) -> None:
        """Let another process write."""
        self._file.close()


class Connection:
    """A connection to one database file."""

    def __init__(self, path: Path, *, writable: bool, log: bool = True) -> None:
        self.path, self.writable = path, writable
        self._depth = 0
        self._disk_failed = False
        if not path.exists():
            raise NotFound(f"no store at {path}", advice="create the node first, or restore a backup")
        if path.stat().st_size == 0:
            raise StoreDamaged("the store is empty, which no store ever is", where=str(path))
        mode = "rw" if writable else "ro"
        with self.translated():
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False,
                timeout=BUSY_MS / 1000,
            )  # fmt: skip
            try:
                self._prepare(log=log)
            except BaseException:
                self._db.close()
                raise

    def _check_length(self) -> None:
        """A file shorter than its header says was cut; with a log beside it, it may yet be made whole from that.

        The file is not opened for this: closing it again would let go of the locks that SQLite holds on it for any
        other connection of this process.
        """
        log = self.path.with_name(self.path.name + "-wal")
        pages, page_bytes = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        with disk_errors(self.path):
            if not (log.exists() and log.stat().st_size) and self.path.stat().st_size < pages * page_bytes:
                raise StoreDamaged("the store is cut short", where=str(self.path))

    def _prepare(self, *, log: bool) -> None:
        run = self._db.execute
        run("PRAGMA cell_size_check=ON")
        run("PRAGMA trusted_schema=OFF")
        self._check_length()
        run(f"PRAGMA cache_size=-{CACHE_KIB}")
        if self.writable:
            if log:
                run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=FULL")
            run(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
            # What retention drops is overwritten, not left in a page's free space.
            run("PRAGMA secure_delete=ON")
            run(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        version = run("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise VersionUnknown(f"the store has version {version}; this software reads {SCHEMA_VERSION}")
        if version != SCHEMA_VERSION or run(_SCHEMA_QUERY).fetchall() != _expected_schema():
            raise StoreDamaged("the store's tables are not those of its version", where=str(self.path))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ours. Wraps calls of SQLite only, never a caller's code."""
        try:
            yield
        except _FROM_SQLITE as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> RxLedgerError:
        if isinstance(error, sqlite3.ProgrammingError):
            return LedgerBug(f"the store was asked in a way that it cannot answer ({error})")
        # Errors that Python's module raises itself carry no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        name: str = getattr(error, "sqlite_errorname", "") or type(error).__name__
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreBusy("the store is busy")
        if code == sqlite3.SQLITE_FULL:
            return StoreFull("the disk is full")
        if code == sqlite3.SQLITE_IOERR:
            if shutil.disk_usage(self.path.parent).free < FREE_BYTES_MIN:
                return StoreFull("the disk is full")
            # What a failed fsync left unwritten, a later one need not report: nothing is written from here on.
            self._disk_failed = True
        return self._damaged(name)

    def _damaged(self, name: str) -> StoreDamaged:
        return StoreDamaged(f"the store cannot be read or written ({name})", where=str(self.path))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable when it has ended; a nested one is all or nothing within the outer."""
        if not self.writable:
            raise StoreBusy("the store is open for reading only")
        if self._disk_failed:
            raise StoreDamaged(
                "the disk failed while writing; the store must be opened anew", where=str(self.path)
            )
        depth = self._depth
        begin, end, undo = (
            (f"SAVEPOINT s{depth}", f"RELEASE s{depth}", f"ROLLBACK TO s{depth}")
            if depth
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        self.run(begin)
        self._depth += 1
        try:
            yield
            self.run(end)
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute(undo)
                if depth:
                    self._db.execute(end)
            raise
        finally:
            self._depth = depth

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read within is of one moment, whatever another process writes meanwhile."""
        if self.writable or self._db.in_transaction:
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("COMMIT")

    def changes(self) -> int:
        """Rows that this connection has changed: what was read is still so while this stands still and nobody else writes."""
        return self._db.total_changes

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of ours is open."""
        return self._depth > 0

    def _still_in_transaction(self) -> None:
        """SQLite gives up a transaction by itself on some failures; what follows must not stand alone."""
        if self._depth and not self._db.in_transaction:
            raise StoreDamaged("the transaction was given up after a failure", where=str(self.path))

    # Each by itself rather than through `translated`: these are called several times for every entry.

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Execute one statement."""
        self._still_in_transaction()
        try:
            self._db.execute(sql, values)
        except _FROM_SQLITE as error:
            raise self._translate(error) from error

    def insert(self, sql: str, values: Sequence[object]) -> int:
        """Execute one insert; returns the row's number."""
        self._still_in_transaction()
        try:
            return int(self._db.execute(sql, values).lastrowid or 0)
        except _FROM_SQLITE as error:
            raise self._translate(error) from error

    def run_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute one statement for many rows."""
        self._still_in_transaction()
        if not rows:
            return
        try:
            self._db.executemany(sql, rows)
        except _FROM_SQLITE as error:
            raise self._translate(error) from error

    def one(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        try:
            row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
        except _FROM_SQLITE as error:
            raise self._translate(error) from error
        return row

    def all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Every row."""
        try:
            return self._db.execute(sql, values).fetchall()
        except _FROM_SQLITE as error:
            raise self._translate(error) from error

    def copy_to(self, target: Path) -> None:
        """SQLite's online backup into a new file."""
        with self.translated():
            copy = sqlite3.connect(target)
            try:
                self._db.backup(copy)
            finally:
                copy.close()

    def check(self) -> None:
        """Check every page, and every index against its table.

        Raises:
            StoreDamaged: names the first thing that SQLite finds.
        """
        row = self.one("PRAGMA integrity_check(1)")
        if row is None or row[0] != "ok":
            raise StoreDamaged("pages or indexes do not hold together", where=str(self.path))

    def close(self) -> None:
        """Close; checkpoints the log if this was the last connection."""
        with suppress(sqlite3.Error):
            self._db.close()


def sync_directory(path: Path) -> None:
    """Make a rename in this directory durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
