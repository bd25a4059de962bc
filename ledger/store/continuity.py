"""The continuity token: proof that this database is the one that was last open here (section 5 of the design).

Database and a file beside it hold a token; every opening advances the file, then the database. A database that holds
neither the file's token nor its predecessor is an older copy: a backup restored, a file rolled back. Backups carry
no token, so a restored one never proves continuity. An image rolled back whole, file and all, is not caught here but
by its fork (R6).
"""

from __future__ import annotations

import os
from pathlib import Path

from ledger.ids import tagged_hash
from ledger.store.connection import sync_directory

__all__ = ["TOKEN_BYTES", "advance", "is_proven", "read_token", "write_token"]

TOKEN_BYTES = 32


def advance(token: bytes) -> bytes:
    """The token of the next opening."""
    return tagged_hash("continuity", token)


def is_proven(in_database: bytes | None, in_file: bytes | None) -> bool:
    """Whether the database is the one that was last open beside this file.

    The file is advanced first: after a crash between the two it is one step ahead.
    """
    if not in_database or not in_file:
        return False
    return in_file in (in_database, advance(in_database))


def read_token(path: Path) -> bytes | None:
    """The token in the file; None if there is none or it is not one."""
    try:
        token = path.read_bytes()
    except FileNotFoundError:
        return None
    return token if len(token) == TOKEN_BYTES else None


def write_token(path: Path, token: bytes) -> None:
    """Replace the file durably."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, token)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    sync_directory(path.parent)
