"""Clocks of simulated nodes: wrong by a constant, drifting, stepped; only the simulation's own time never steps back."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["SimClock"]

FIRST_MS = 86_400_000
"""A stamp cannot hold a time before 1970."""


class SimClock:
    """The wall clock of one machine (satisfies `ledger.Clock`)."""

    def __init__(self, true_ms: Callable[[], int]) -> None:
        self._true_ms = true_ms
        self._since_ms = true_ms()
        self._offset_ms = 0
        self._rate = 1.0

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, as this machine believes."""
        passed = self._true_ms() - self._since_ms
        return max(FIRST_MS, self._since_ms + self._offset_ms + int(passed * self._rate))

    def step(self, ms: int) -> None:
        """Set the clock forward or back."""
        self._offset_ms += ms

    def drift(self, rate: float) -> None:
        """Go so many times as fast from now on."""
        now = self.now_ms()
        self._since_ms = self._true_ms()
        self._offset_ms = now - self._since_ms
        self._rate = rate

    def right(self) -> None:
        """Set right: somebody looked at a clock."""
        self._since_ms, self._offset_ms, self._rate = self._true_ms(), 0, 1.0
