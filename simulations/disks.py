"""What a power cut leaves of a SQLite store: what was synced, and of the rest any part, torn, or rubbish (D2, D3).

The write-ahead log is read as its format says (https://www.sqlite.org/fileformat2.html#walformat): up to its last commit
it was synced, if the process syncs at commit; what follows may have reached the disk in any state. A process that does not
sync at commit loses the log.
"""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

__all__ = ["committed_end", "lose_unsynced"]

HEADER = struct.Struct(">8I")
FRAME = struct.Struct(">6I")
GARBAGE_BYTES_MAX = 20_000


def committed_end(log: bytes) -> int:
    """Bytes of a log up to the end of its last commit; 0: there is none."""
    if len(log) < HEADER.size:
        return 0
    _, _, page_bytes, _, *salts, _, _ = HEADER.unpack_from(log)
    end, at = 0, HEADER.size
    while at + FRAME.size + page_bytes <= len(log):
        _, pages, *frame_salts, _, _ = FRAME.unpack_from(log, at)
        if frame_salts != salts:
            break  # Of an earlier turn of the log, which begins again from its start.
        at += FRAME.size + page_bytes
        if pages:
            end = at
    return end


def lose_unsynced(store: Path, *, synced: bool, random: Random) -> str:
    """Change a copied store as a power cut may have; returns what was done.

    Args:
        store: the database; its log lies beside it.
        synced: whether commits were synced.
        random: of the choice.
    """
    path = store.with_name(store.name + "-wal")
    log = path.read_bytes() if path.exists() else b""
    if not synced:
        path.unlink(missing_ok=True)
        return "lost"
    end = committed_end(log)
    what = random.choice(["cut", "torn", "garbage"])
    rest = log[end:]
    if what == "cut":
        rest = b""
    elif what == "torn":
        rest = rest[: random.randint(0, len(rest))]
    else:
        rest = random.randbytes(random.randint(1, GARBAGE_BYTES_MAX))
    path.write_bytes(log[:end] + rest)
    path.chmod(0o600)
    return what
