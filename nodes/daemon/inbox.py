"""The inbox of a spool folder: what a courier brought, taken in and moved out of the way.

- A file is touched once it has stood still: a stick is copied slower than we look. Only names that end in ``.rxb`` are
  looked at, no link is followed, nothing that is not a plain file is opened (R15).
- What is foreign, damaged or too large goes to ``refused`` with a file beside it that says why. A bundle cut short is
  taken in as far as it is whole, and then goes there too. Both folders keep a bounded number of files and bytes.
- Files that move get a name of ours, of numbers only: theirs may be anybody's (R13).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import structlog
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed, PeerFault, RxLedgerError
from ledger.identity import Realm
from ledger.ids import tagged_hash
from nodes.bundle import import_bundle
from nodes.daemon.config import SpoolConfig
from nodes.daemon.files import read_small, replace_whole
from nodes.daemon.spooling import MEMORY_MAX, SUFFIX, SpoolReport, make_folders, total
from nodes.ports import Replica

__all__ = ["Inbox"]

STILL_MS = 2_000
"""A file that has not changed for so long is whole; a copy that pauses longer is cut short, which does no harm."""
FILES_A_LOOK_MAX = 64
"""Taken in at one look; the rest wait for the next, so that one full stick does not hold up everything else."""
ENTRIES_A_LOOK_MAX = 4096
"""Directory entries looked at: a folder with a million files must not stop the daemon."""
KEPT_FILES_MAX = 64
"""In `done` and in `refused`, each: enough to find out what a stick brought."""
KEPT_BYTES_MAX = 1024 * 1024 * 1024
"""In `done` and in `refused`, each, beyond the newest file."""
STATE_FILE = "inbox.json"

log = structlog.get_logger("rxledger")


class _State(Struct, frozen=True):
    number: int = 0
    seen: Annotated[tuple[str, ...], Meta(max_length=MEMORY_MAX)] = ()
    """Files that were taken in but could not be moved: a stick that can only be read."""


class _Found(Struct, frozen=True):
    name: str
    size: int
    changed_ns: int
    inode: int
    mode: int

    @property
    def identity(self) -> str:
        """Which file, in which version: a hash, because the name may be anybody's."""
        text = f"{self.name}\0{self.size}\0{self.changed_ns}\0{self.inode}"
        return tagged_hash("spool file", text.encode(errors="surrogateescape")).hex()[:32]


class Inbox:
    """Used by one thread at a time."""

    def __init__(self, config: SpoolConfig, replica: Replica, realm: Realm) -> None:
        self._config, self._replica, self._realm = config, replica, realm
        self._root = config.directory
        self._still: dict[str, int] = {}
        self._state = self._load()

    def _load(self) -> _State:
        try:
            data = read_small(self._root / STATE_FILE)
            return _State() if data is None else msgspec.json.decode(data, type=_State)
        except (RxLedgerError, msgspec.MsgspecError, ValueError, RecursionError):
            log.warning(
                "spool.state-unreadable", file=STATE_FILE
            )  # What cannot be moved is taken in once more.
            return _State()

    def _keep(self, state: _State) -> None:
        self._state = state
        replace_whole(self._root / STATE_FILE, msgspec.json.encode(state))

    def take_in(self, now_ms: int) -> SpoolReport:
        """Take in what stands still in the inbox. Faults of single files end in `refused`, never in an error.

        Args:
            now_ms: milliseconds since 1970 UTC, or of any clock that goes forward.

        Raises:
            StoreFull, StoreDamaged: of the node's own store: nothing more can be taken in.
        """
        report = SpoolReport()
        try:
            make_folders(self._root)
            found = list(self._standing_still(now_ms))
        except OSError as error:
            return SpoolReport(problem=f"the spool folder cannot be read ({type(error).__name__})")
        for file in found[:FILES_A_LOOK_MAX]:
            report = total(report, self._take(file))
        return report

    def _standing_still(self, now_ms: int) -> Iterator[_Found]:
        """Bundles in the inbox that have not changed between two looks, by name."""
        found: dict[str, _Found] = {}
        with os.scandir(self._root / "inbox") as entries:
            for looked, entry in enumerate(entries):
                if looked >= ENTRIES_A_LOOK_MAX:
                    break
                if not entry.name.lower().endswith(SUFFIX) or entry.name.startswith("."):
                    continue
                with suppress(FileNotFoundError):
                    s = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(s.st_mode):
                        file = _Found(entry.name, s.st_size, s.st_mtime_ns, s.st_ino, s.st_mode)
                        found[file.identity] = file
        # Only what is there now is remembered: the memory is bounded by the look.
        self._still = {identity: self._still.get(identity, now_ms) for identity in found}
        for identity, file in sorted(found.items(), key=lambda item: item[1].name):
            # A clock set back begins the wait anew rather than ending it for ever.
            since = self._still[identity] = min(self._still[identity], now_ms)
            if now_ms - since >= STILL_MS and identity not in self._state.seen:
                yield file

    def _take(self, file: _Found) -> SpoolReport:
        refusal: PeerFault | None = None
        new = 0
        try:
            with self._open(file) as source:
                taken = import_bundle(self._replica, source, realm=self._realm)
            new = taken.new
            if not taken.complete:
                refusal = Malformed(f"{taken.problem}; {taken.new} new entries of it were taken in")
        except FileNotFoundError:
            return SpoolReport()
        except PeerFault as error:
            refusal = error
        except OSError as error:
            refusal = Malformed(
                f"the file cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})"
            )
        if refusal is not None:
            log.warning("bundle.refused", code=refusal.code, new=new)
        self._move(file, "done" if refusal is None else "refused", refusal)
        return SpoolReport(
            taken=int(refusal is None), new_entries=new, refused=() if refusal is None else (refusal.code,),
            bytes_in=file.size if stat.S_ISREG(file.mode) else 0,
        )  # fmt: skip

    def _open(self, file: _Found) -> BinaryIO:
        """Open for reading: a plain file of bounded size, and no other."""
        if not stat.S_ISREG(file.mode):
            raise Malformed("this is not a plain file")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.fdopen(os.open(self._root / "inbox" / file.name, flags), "rb")
        now = os.fstat(source.fileno())
        if not stat.S_ISREG(now.st_mode) or now.st_size > self._config.bundle_bytes_max:
            source.close()
            if not stat.S_ISREG(now.st_mode):
                raise Malformed("this is not a plain file")
            raise LimitExceeded(
                f"a bundle of {now.st_size} bytes; at most {self._config.bundle_bytes_max} are taken",
                advice="raise spool.bundle_bytes_max if it is one of ours",
            )
        return source

    def _move(self, file: _Found, folder: str, why: PeerFault | None) -> None:
        """Out of the inbox, under a name of ours; what cannot be moved is remembered instead."""
        number = self._state.number + 1
        target = self._root / folder / f"{number:08d}-{file.identity[:8]}{SUFFIX}"
        seen = self._state.seen
        try:
            (self._root / "inbox" / file.name).rename(target)
        except OSError:  # Another file system, or one that can only be read.
            seen = (*seen, file.identity)[-MEMORY_MAX:]
        with suppress(OSError):  # Not worth stopping for: the next look does it again.
            if why is not None:
                text = f"{why.code}\n{why.message}\n{why.advice}\n"
                replace_whole(target.with_suffix(".reason.txt"), text.encode())
            self._keep(msgspec.structs.replace(self._state, number=number, seen=seen))
            _prune(self._root / folder)


def _prune(folder: Path) -> None:
    """Keep the newest files of a folder: names begin with rising numbers."""
    size = 0
    for kept, path in enumerate(sorted(folder.glob(f"*{SUFFIX}"), reverse=True), 1):
        size += path.lstat().st_size
        if kept > 1 and (kept > KEPT_FILES_MAX or size > KEPT_BYTES_MAX):
            path.unlink(missing_ok=True)
            path.with_suffix(".reason.txt").unlink(missing_ok=True)
