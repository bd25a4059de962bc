"""1,400 nodes on one hub after an outage."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Bench

__all__ = ["measure"]


def measure(bench: Bench, directory: Path) -> None:
    """Not yet."""
