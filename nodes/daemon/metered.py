"""A replica that gives only so many bytes of runs: for a bundle that must fit where it is put."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from ledger.feed import Run
from ledger.ids import FeedId, Link
from nodes.ports import Replica, run_bytes

__all__ = ["Metered"]


class Metered:
    """The replica behind it in everything but runs. What was withheld comes with the next bundle."""

    def __init__(self, replica: Replica, budget_bytes: int) -> None:
        self._replica, self._left = replica, budget_bytes
        self._given = False
        self.withheld = False
        """Something did not fit, or nothing more would have."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._replica, name)

    @property
    def replica(self) -> Replica:
        """This, as what it stands for."""
        return cast("Replica", self)

    def runs(self, feed: FeedId, after: Iterable[tuple[int, Link]], budget_bytes: int) -> Iterator[Run]:
        """Runs, in order, cut to what is left; from the first that does not fit, none of any feed.

        The first is given whatever its size: a run that cannot be cut would otherwise never come.
        """
        allowed = min(budget_bytes, self._left)
        if allowed <= 0:
            self.withheld = True
            return
        for run in self._replica.runs(feed, after, allowed):
            size = run_bytes(run)
            if size > self._left and self._given:
                self._left = 0
            else:
                self._left -= size
                self._given = True
                yield run
            if self._left <= 0:
                self.withheld = True  # Or it was just enough; the next bundle will tell.
                return
