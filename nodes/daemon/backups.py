"""Rotating backups: a copy of the store, read back and checked, before any older one goes.

- The copy is taken through an own connection while the owner goes on writing. It holds no key in the clear and no
  continuity token: put back, it begins a new incarnation (section 5 of the design).
- Checked means: opened as a store is opened, every chain walked, and no feed shorter than in the store at the start.
- The oldest go only once a new one has been checked. A copy that does not hold is removed and told of.
- Names carry the node's id and the time, in numbers only (R13).
"""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import structlog

from ledger.errors import InvalidInput, RxLedgerError, StoreDamaged, StoreFull
from ledger.ids import NodeId
from ledger.node import STORE_FILE
from ledger.store import open_store
from ledger.store.port import Store
from nodes.daemon.report import BackupResult

__all__ = ["back_up", "backups_in"]

SPARE_SHARE = 10
"""A tenth of the store's size must stay free beside a new backup: a disk filled to the brim serves nobody."""

log = structlog.get_logger("rxledger")


def backups_in(directory: Path, node: NodeId) -> list[Path]:
    """A node's backups in a directory, the oldest first."""
    name = re.compile(rf"{node.hex()[:16]}-[0-9]{{14}}-[0-9]{{6}}\.db")
    return sorted(path for path in directory.glob(f"{node.hex()[:16]}-*.db") if name.fullmatch(path.name))


def back_up(node_directory: Path, node: NodeId, directory: Path, keep: int, now_ms: int) -> BackupResult:
    """Make a backup, check it, and remove all but the newest `keep`. Never raises for want of room or a bad disk.

    Args:
        node_directory: of the node, whose store any process may have open.
        node: its id.
        directory: where backups are kept; made if missing.
        keep: how many, this one included; at least 1.
        now_ms: milliseconds since 1970 UTC, for the name.
    """
    if keep < 1:
        raise InvalidInput("backups: keep at least one")
    source = node_directory / STORE_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = source.stat().st_size
        free = shutil.disk_usage(directory).free
        if free < size + size // SPARE_SHARE:
            return BackupResult(why=f"{free} bytes are free where {size + size // SPARE_SHARE} are needed")
        target = _name(directory, node, now_ms)
        before = _copy(source, target)
        entries = _checked(target, before)
    except RxLedgerError as error:
        log.error("backup.failed", code=error.code)
        return BackupResult(why=f"{error.code}: {error.message}")
    except OSError as error:
        log.error("backup.failed", code="os")
        return BackupResult(why=f"the directory of backups cannot be used ({error.strerror})")
    removed = 0
    for old in backups_in(directory, node)[:-keep]:
        old.unlink(missing_ok=True)
        removed += 1
    log.info("backup.written", file=target.name, entries=entries, removed=removed)
    return BackupResult(
        file=target.name, entries=entries, size_bytes=target.stat().st_size, verified=True, removed=removed
    )


def _name(directory: Path, node: NodeId, now_ms: int) -> Path:
    """A name that sorts after those of earlier backups, also where the clock was set back."""
    prefix = f"{node.hex()[:16]}-"
    moment, number = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d%H%M%S"), 0
    held = backups_in(directory, node)
    if held:
        latest, _, counted = held[-1].stem.removeprefix(prefix).partition("-")
        if moment <= latest:
            # Otherwise the newest would look like the oldest, and be the one that goes.
            moment, number = latest, int(counted) + 1
    return directory / f"{prefix}{moment}-{number:06d}.db"


def _heads(store: Store) -> dict[bytes, int]:
    return {row.feed: max(head.sequence for head in store.heads(row.feed)) for row in store.feeds()}


def _copy(source: Path, target: Path) -> dict[bytes, int]:
    """Copy; what was held just before."""
    with closing(open_store(source, writable=False)) as store:
        before = _heads(store)
        store.backup(target)
    return before


def _checked(target: Path, before: dict[bytes, int]) -> int:
    """Read a backup back; how many entries it holds.

    Raises:
        StoreDamaged: it does not hold, or holds less than the store did. It has been removed.
    """
    try:
        with closing(open_store(target, writable=False)) as store:
            entries = sum(1 for _ in store.verify())
            held = _heads(store)
            if any(held.get(feed, -1) < sequence for feed, sequence in before.items()):
                raise StoreDamaged("the backup holds less than the store did", where=target.name)
    except (StoreDamaged, StoreFull):
        target.unlink(missing_ok=True)
        raise
    finally:
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
    return entries
