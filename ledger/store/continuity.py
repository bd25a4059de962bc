"""The continuity token: proof that this database is the one that was last open here (section 5 of the design).

Database and a file beside it hold the same token, which every opening and every closing advances. An older copy of the
database, be it of an hour ago, holds a token that the file has left behind: continuity is not proven, and stays so until
the node says that it writes in a new incarnation. Backups carry no token, so a restored one never proves continuity.

The file goes first and names both tokens, then the database takes the new one, then the file names that alone: killed
anywhere between, the database is still recognised, and an older one is not. An image rolled back whole, file and all,
or copied and put back without a closing between, is not caught here but by its fork (R6).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ledger.ids import tagged_hash
from ledger.store.connection import disk_errors, sync_directory

__all__ = ["TOKEN_BYTES", "advance", "read_tokens", "write_tokens"]

TOKEN_BYTES = 32


def advance(token: bytes) -> bytes:
    """The token after this one."""
    return tagged_hash("continuity", token)


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """The tokens that the file accepts: one, or two if it was left half way; none if there is no such file."""
    with disk_errors(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return ()
    if len(content) not in (TOKEN_BYTES, 2 * TOKEN_BYTES):
        return ()
    return tuple(content[at : at + TOKEN_BYTES] for at in range(0, len(content), TOKEN_BYTES))


def write_tokens(path: Path, *tokens: bytes) -> None:
    """Replace the file durably.

    Raises:
        StoreFull, StoreDamaged: as their names say; the file is then as it was.
    """
    fresh = path.with_name(path.name + ".new")
    with disk_errors(path):
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            content = b"".join(tokens)
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, "short write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
        sync_directory(path.parent)
