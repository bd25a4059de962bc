"""How much may be verified for strangers: what turns out to be forged is paid for from a purse that fills slowly.

Anybody on a hub can send what looks like somebody's entry, sign of life or certificates, and verifying costs us a tenth of
a millisecond and more. Good ones cost nothing here. With the purse empty everything of the kind is left unseen for a
moment, good ones too, which costs time only: rounds between nodes that know each other go on.
"""

from __future__ import annotations

from ledger.errors import LimitExceeded

__all__ = ["FORGED_PER_SECOND_MAX", "Doubt"]

FORGED_PER_SECOND_MAX = 100
"""Vain verifications: some two hundredths of a core."""


class Doubt:
    """The purse. Each `check` takes a coin; `removed` gives it back, once what was checked was good."""

    def __init__(self) -> None:
        self._coins, self._at_ms = float(FORGED_PER_SECOND_MAX), 0

    def check(self, now_ms: int) -> None:
        """Take a coin before something is verified.

        Raises:
            LimitExceeded: there is none.
        """
        gained = max(0, now_ms - self._at_ms) * FORGED_PER_SECOND_MAX / 1000
        self._coins, self._at_ms = min(float(FORGED_PER_SECOND_MAX), self._coins + gained), now_ms
        if self._coins < 1:
            raise LimitExceeded(
                "too much that was forged came in; nothing of the kind is looked at for a moment"
            )
        self._coins -= 1

    def removed(self) -> None:
        """Give the coin of the last `check` back."""
        self._coins = min(float(FORGED_PER_SECOND_MAX), self._coins + 1)
