"""Small files of a daemon, written whole and durably or not at all, and read with a bound."""

from __future__ import annotations

import os
from pathlib import Path

from ledger.errors import LimitExceeded
from ledger.store.connection import disk_errors, sync_directory

__all__ = ["read_small", "replace_whole", "write_whole"]

SMALL_BYTES_MAX = 1024 * 1024
"""State, reports and configuration have some kilobytes; a larger file is not ours."""


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file: after a crash it holds the old bytes or the new ones, never some of each.

    Raises:
        StoreFull, StoreDamaged: as their names say; the old file stays.
    """
    with disk_errors(path):
        replace_whole(path, data)


def replace_whole(path: Path, data: bytes) -> None:
    """The same for a folder that is not the node's own: what goes wrong there is the system's error.

    Raises:
        OSError: the old file stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def read_small(path: Path, limit: int = SMALL_BYTES_MAX) -> bytes | None:
    """The bytes of a file; None if there is none.

    Raises:
        LimitExceeded: it is larger than `limit` bytes.
        StoreDamaged: it cannot be read.
    """
    with disk_errors(path):
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
    if len(data) > limit:
        raise LimitExceeded(f"{path.name} has more than {limit} bytes")
    return data
