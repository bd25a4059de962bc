"""What inbox and outbox of a spool folder share: the report of a look, and where things lie."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

__all__ = ["MEMORY_MAX", "SUFFIX", "SpoolReport", "make_folders", "total"]

SUFFIX = ".rxb"
MEMORY_MAX = 4096
"""Targets and files remembered: every pharmacy of the country, twice."""


class SpoolReport(Struct, frozen=True, kw_only=True):
    """What one look did."""

    taken: int = 0
    """Bundles taken in whole."""
    new_entries: int = 0
    refused: tuple[str, ...] = ()
    """Codes, one for each file refused."""
    written: int = 0
    entries_written: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    waiting: int = 0
    """Peers whose bundle did not fit into the outbox, or not whole."""
    problem: str = ""
    """What kept the folder from being used."""


def make_folders(root: Path) -> None:
    """Make the folders of a spool where they are missing.

    Raises:
        OSError: they cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("inbox", "outbox", "done", "refused"):
        (root / name).mkdir(exist_ok=True, mode=0o700)


def total(one: SpoolReport, other: SpoolReport) -> SpoolReport:
    """Both together."""
    return SpoolReport(
        taken=one.taken + other.taken, new_entries=one.new_entries + other.new_entries,
        refused=one.refused + other.refused, written=one.written + other.written,
        entries_written=one.entries_written + other.entries_written, bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out, waiting=one.waiting + other.waiting,
        problem=one.problem or other.problem,
    )  # fmt: skip
