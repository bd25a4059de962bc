"""The verification scrub: the whole store read and checked, a slice at a time, night after night until it is through.

- It reads through its own connection, open for reading: the owner's lock is never held, and writing goes on meanwhile.
- A slice ends at its time. What comes next waits in memory; a restart begins anew, because what was checked by a
  process that has gone vouches for nothing. How far it came, and the last time that it came through, stand in a file.
- Damage is a result, not a crash: it is reported, and the node keeps answering from what holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from ledger import Clock, Ledger
from ledger.errors import LimitExceeded, RxLedgerError, StoreDamaged
from ledger.keystore import Unlock
from nodes.daemon.files import read_small, write_whole
from nodes.daemon.report import ScrubResult

__all__ = ["Scrub", "ScrubMemory"]

SLICE_SECONDS = 0.5
"""Of reading before others have their turn; a pause as long follows wherever the caller has anything else to do."""
NOTED_EVERY_ENTRIES = 50_000
"""Progress is written so often: some seconds of checking."""
STATE_FILE = "scrub.json"

log = structlog.get_logger("rxledger")


class ScrubMemory(Struct, frozen=True, kw_only=True):
    """What is remembered of scrubs: the present one, and the last that came through."""

    began_ms: int = 0
    checked_entries: int = 0
    damage: str = ""
    completed_ms: int = 0
    """When the whole store was last found to hold; 0 never."""
    completed_entries: int = 0


class Scrub:
    """One scrub at a time of one node's store. Used by one thread at a time."""

    def __init__(
        self,
        directory: Path,
        unlock: Unlock,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._unlock, self._clock, self._monotonic = directory, unlock, clock, monotonic
        self._path = directory / STATE_FILE
        self._ledger: Ledger | None = None
        self._steps: Iterator[int] | None = None
        self.memory = self._load()

    def _load(self) -> ScrubMemory:
        try:
            data = read_small(self._path)
            return ScrubMemory() if data is None else msgspec.json.decode(data, type=ScrubMemory)
        except (LimitExceeded, StoreDamaged, msgspec.MsgspecError, ValueError, RecursionError):
            log.warning("scrub.state-unreadable", file=STATE_FILE)
            return ScrubMemory()

    @property
    def under_way(self) -> bool:
        """A scrub has begun and not come to its end."""
        return self._steps is not None

    def step(self, seconds: float = SLICE_SECONDS) -> ScrubResult:
        """Check on for about so long, beginning a scrub if none is under way; how far it has come.

        The first slice of a scrub is longer: the database's own check of its pages is one step.
        """
        if self._steps is None:
            self._begin()
        assert self._steps is not None
        noted = self.memory.checked_entries
        until = self._monotonic() + seconds
        try:
            for checked in self._steps:
                self.memory = msgspec.structs.replace(self.memory, checked_entries=checked)
                if checked - noted >= NOTED_EVERY_ENTRIES:
                    noted = checked
                    self._note()
                if self._monotonic() >= until:
                    return self.result(complete=False)
        except StoreDamaged as error:
            log.critical("store.damaged", where=error.where)
            self.memory = msgspec.structs.replace(self.memory, damage=error.message)
            return self._ended()
        self.memory = msgspec.structs.replace(
            self.memory, completed_ms=self._clock.now_ms(), completed_entries=self.memory.checked_entries
        )
        return self._ended()

    def _begin(self) -> None:
        self.memory = msgspec.structs.replace(
            self.memory, began_ms=self._clock.now_ms(), checked_entries=0, damage=""
        )
        self._steps = self._checking()

    def _checking(self) -> Iterator[int]:
        ledger = Ledger.open(self._directory, self._unlock, writable=False, clock=self._clock)
        self._ledger = ledger
        try:
            yield from ledger.inquiry.verify()
        finally:
            self._ledger = None
            ledger.close()

    def _ended(self) -> ScrubResult:
        self._steps = None
        self._note()
        return self.result(complete=not self.memory.damage, ended=True)

    def result(self, *, complete: bool, ended: bool = False) -> ScrubResult:
        """The present scrub as a report tells it."""
        return ScrubResult(
            checked_entries=self.memory.checked_entries, complete=complete, began_ms=self.memory.began_ms,
            ended_ms=self._clock.now_ms() if ended else 0, damage=self.memory.damage,
        )  # fmt: skip

    def _note(self) -> None:
        try:
            write_whole(self._path, msgspec.json.encode(self.memory))
        except RxLedgerError as error:  # A full disk must not end the check of what is on it.
            log.warning("scrub.state-not-kept", code=error.code)

    def close(self) -> None:
        """Give up the scrub that is under way, if any; the next begins anew."""
        steps, self._steps = self._steps, None
        if steps is not None:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
            self._note()
