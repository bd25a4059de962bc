"""Hybrid logical clock: stamps that order what one node saw and never decide what is true (R5).

A stamp is one integer: 48 bits of milliseconds since 1970 UTC, then a 16-bit counter
(Kulkarni et al., "Logical Physical Clocks", OPODIS 2014). Rules:

- Per feed stamps strictly increase, whatever the machine's clock does (C1, C2 of the fault list).
- A stamp from a peer moves this clock at most `DRIFT_MAX_MS` beyond the machine's own time; the
  entry that carries it counts all the same.
- A full counter borrows one millisecond; the largest stamp is refused rather than wrapped.

Pure: the machine's time comes in as an argument, in milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from ledger.errors import InvalidInput

__all__ = ["DRIFT_MAX_MS", "STAMP_MAX", "Clock", "HybridClock", "SystemClock", "pack_stamp", "stamp_ms"]

COUNTER_BITS = 16
COUNTER_MAX = (1 << COUNTER_BITS) - 1
MS_MAX = (1 << 47) - 1
"""Last millisecond a stamp can hold (year 6429): keeps a stamp inside a signed 64-bit integer."""
STAMP_MAX = (MS_MAX << COUNTER_BITS) | COUNTER_MAX
DRIFT_MAX_MS = 10 * 60 * 1000
"""How far ahead of our own time a peer may pull us: ten minutes, the practice of iroh-docs and Subduction."""


class Clock(Protocol):
    """The machine's time. The real one and the simulated one satisfy the same tests."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC. May step backwards; nothing depends on it not doing so."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC by this machine."""
        return int(datetime.now(UTC).timestamp() * 1000)


def pack_stamp(ms: int, counter: int = 0) -> int:
    """The stamp of a millisecond and a counter.

    Raises:
        InvalidInput: outside what a stamp can hold.
    """
    if not 0 <= ms <= MS_MAX or not 0 <= counter <= COUNTER_MAX:
        raise InvalidInput(f"time {ms} ms, counter {counter} is outside what a stamp can hold")
    return (ms << COUNTER_BITS) | counter


def stamp_ms(stamp: int) -> int:
    """Milliseconds since 1970 UTC of a stamp."""
    return stamp >> COUNTER_BITS


class HybridClock:
    """The clock of one node. `last` is the highest stamp issued or (within bounds) observed."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def tick(self, now_ms: int, floor: int = 0) -> int:
        """The next stamp: after `last` and `floor`, and not before the machine's time.

        Raises:
            InvalidInput: the clock has run out (year 6429), or the machine's time is negative.
        """
        low = max(self.last, floor)
        stamp = max(pack_stamp(now_ms), low + 1)
        if stamp > STAMP_MAX:
            raise InvalidInput("the clock of this node has run out")
        self.last = stamp
        return stamp

    def observe(self, stamp: int, now_ms: int) -> bool:
        """Fold a peer's stamp in. False if it lies beyond the drift bound and moved nothing."""
        if stamp <= self.last:
            return True
        if stamp_ms(stamp) > now_ms + DRIFT_MAX_MS:
            return False
        self.last = stamp
        return True
