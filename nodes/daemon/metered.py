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
        self.withheld = False
        """Something did not fit."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._replica, name)

    @property
    def replica(self) -> Replica:
        """This, as what it stands for."""
        return cast("Replica", self)

    def runs(self, feed: FeedId, after: Iterable[tuple[int, Link]], budget_bytes: int) -> Iterator[Run]:
        """Runs, in order, as long as they fit; from the first that does not, none of any feed."""
        for run in self._replica.runs(feed, after, budget_bytes):
            if self._left < run_bytes(run):
                self.withheld = True
                self._left = 0
                return
            self._left -= run_bytes(run)
            yield run
