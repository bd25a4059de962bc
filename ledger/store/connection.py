"""One SQLite connection: pragmas, transactions, the single-writer lock, and errors in our own words.

WAL with ``synchronous=FULL``: a commit returns after fsync of the log (R1). One place translates SQLite's errors.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from ledger.errors import NotFound, StoreBusy, StoreDamaged, StoreFull
from ledger.store.schema import SCHEMA

__all__ = ["Connection", "WriterLock", "as_written", "sync_directory"]

CACHE_KIB = 64 * 1024
"""Page cache: holds the hot part of every index of a million entries."""
BUSY_MS = 5_000
"""How long a reader waits for a checkpoint to pass."""
WAL_PAGES = 4_000
"""Checkpoint after 16 MB of log: bounds the log and the time to open after a crash."""


_SCHEMA_QUERY = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"


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

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self.writable = path, writable
        if not path.exists():
            raise NotFound(f"no store at {path}", advice="create the node first, or restore a backup")
        if path.stat().st_size == 0:
            raise StoreDamaged("the store is empty, which no store ever is", where=str(path))
        self._check_length()
        mode = "rw" if writable else "ro"
        with self.translated():
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False,
                timeout=BUSY_MS / 1000,
            )  # fmt: skip
            self._prepare()
        self._depth = 0

    def _check_length(self) -> None:
        """A file shorter than its header says was cut; with a log beside it, it may yet be made whole from that."""
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size:
            return
        with self.path.open("rb") as file:
            header = file.read(100)
        page_bytes = int.from_bytes(header[16:18], "big")
        if len(header) < 100 or self.path.stat().st_size < page_bytes * int.from_bytes(header[28:32], "big"):
            raise StoreDamaged("the store is cut short", where=str(self.path))

    def _prepare(self) -> None:
        run = self._db.execute
        run("PRAGMA cell_size_check=ON")
        run("PRAGMA trusted_schema=OFF")
        run(f"PRAGMA cache_size=-{CACHE_KIB}")
        if self.writable:
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=FULL")
            run(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        if run(_SCHEMA_QUERY).fetchall() != _expected_schema():
            raise StoreDamaged("the store's tables are not those of its version", where=str(self.path))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            # Some errors of damaged schemas carry no code.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise StoreFull("the disk is full") from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreBusy("the store is busy") from error
            if code == sqlite3.SQLITE_IOERR and _disk_full(error):
                raise StoreFull("the disk is full") from error
            raise StoreDamaged(
                f"the store cannot be read or written ({error})", where=str(self.path)
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError) as error:
            raise StoreDamaged(
                f"the store is damaged ({type(error).__name__})", where=str(self.path)
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested ones join the outer."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        if not self.writable:
            raise StoreBusy("the store is open for reading only")
        with self.translated():
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of ours is open."""
        return self._depth > 0

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Execute one statement."""
        with self.translated():
            self._db.execute(sql, values)

    def insert(self, sql: str, values: Sequence[object]) -> int:
        """Execute one insert; returns the row's number."""
        with self.translated():
            return int(self._db.execute(sql, values).lastrowid or 0)

    def run_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute one statement for many rows."""
        with self.translated():
            self._db.executemany(sql, rows)

    def one(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        with self.translated():
            row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
            return row

    def all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Every row."""
        with self.translated():
            return self._db.execute(sql, values).fetchall()

    def script(self, sql: str) -> None:
        """Several statements."""
        with self.translated():
            self._db.executescript(sql)

    def copy_to(self, target: Path) -> None:
        """SQLite's online backup into a new file."""
        with self.translated():
            copy = sqlite3.connect(target)
            try:
                self._db.backup(copy)
            finally:
                copy.close()

    def close(self) -> None:
        """Close; checkpoints the log if this was the last connection."""
        with suppress(sqlite3.Error):
            self._db.close()


@contextmanager
def as_written(where: str) -> Iterator[None]:
    """A value of another type or size than was ever written is damage, wherever it first shows."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreDamaged("a row is not what was written", where=where) from error


def _disk_full(error: sqlite3.OperationalError) -> bool:
    return "WRITE" in (getattr(error, "sqlite_errorname", "") or "")


def sync_directory(path: Path) -> None:
    """Make a rename in this directory durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
