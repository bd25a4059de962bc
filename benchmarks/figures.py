"""Figures: what was measured, beside its goal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

__all__ = ["Bench", "Figure", "percentile", "timed"]


class Figure(Struct, frozen=True):
    """One measured figure."""

    name: str
    value: float
    unit: str
    goal: str
    met: bool | None


class Bench:
    """Collects figures."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, name: str, value: float, unit: str, goal: str = "", *, met: bool | None = None) -> None:
        """Note one and print it."""
        self.figures.append(Figure(name, value, unit, goal, met))
        mark = {True: "meets", False: "MISSES", None: ""}[met]
        print(f"{name:<58} {value:>12,.3f} {unit:<10} {goal:<22} {mark}", flush=True)


def timed(act: Callable[[int], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - start)
    return times


def percentile(times: Sequence[float], share: float) -> float:
    """The value below which a share of the times lies."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]
