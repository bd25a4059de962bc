"""What a night's run did and what it did not, counted by those who did it: one file a night, and lines for people.

A report claims only what it was told: entries and bytes come from the counters of each conversation, the results of
scrub and backup from those themselves. What was not tried is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from ledger.errors import LimitExceeded, StoreDamaged
from nodes.daemon.files import read_small, write_whole

__all__ = [
    "BackupResult",
    "NightReport",
    "PeerTurn",
    "ScrubResult",
    "keep_report",
    "last_report",
    "read_report",
    "report_lines",
]

REPORTS_KEPT = 62
"""Two months: an inspection after an outage looks back so far."""
DIRECTORY = "reports"
_PREFIX, _SUFFIX = "night-", ".json"

log = structlog.get_logger("rxledger")


class PeerTurn(Struct, frozen=True, kw_only=True):
    """What passed between this node and one peer in the night."""

    node: str
    """Its id, hexadecimal."""
    link: str = ""
    entries_in: int = 0
    """New here."""
    entries_out: int = 0
    """Sent; whether they were new there, the peer's own report says."""
    bytes_in: int = 0
    bytes_out: int = 0
    in_step: bool = False
    """At the end both held the same."""
    why: str = ""
    """If not: why, in words."""


class ScrubResult(Struct, frozen=True, kw_only=True):
    """How far the verification of the whole store has come."""

    checked_entries: int = 0
    complete: bool = False
    began_ms: int = 0
    ended_ms: int = 0
    damage: str = ""
    """What does not hold, if anything."""


class BackupResult(Struct, frozen=True, kw_only=True):
    """A backup that was written and read back, or why there is none."""

    file: str = ""
    entries: int = 0
    size_bytes: int = 0
    verified: bool = False
    removed: int = 0
    """Older ones removed after it was verified."""
    why: str = ""


class NightReport(Struct, frozen=True, kw_only=True):
    """One night's run."""

    night: date
    began_ms: int
    ended_ms: int = 0
    """0: it is under way, or was cut off."""
    resumed: bool = False
    """It was cut off, and went on: the counts are of the whole run."""
    budget_bytes: int = 0
    spent_bytes: int = 0
    peers: tuple[PeerTurn, ...] = ()
    not_reached: tuple[tuple[str, str], ...] = ()
    """Node and why, of those that no conversation was had with; they come first the next night."""
    scrub: ScrubResult | None = None
    """None: not asked for."""
    backup: BackupResult | None = None
    """None: not asked for."""

    @property
    def whole(self) -> bool:
        """Everything that was to be done was done, and well."""
        return (
            self.ended_ms > 0
            and not self.not_reached
            and all(turn.in_step for turn in self.peers)
            and (self.scrub is None or (self.scrub.complete and not self.scrub.damage))
            and (self.backup is None or self.backup.verified)
        )


def keep_report(directory: Path, report: NightReport) -> Path:
    """Write a night's report in a node's directory, whole and durably; the oldest beyond `REPORTS_KEPT` go.

    Raises:
        StoreFull, StoreDamaged: it could not be written.
    """
    place = directory / DIRECTORY
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreDamaged("the directory of reports cannot be made", where=str(place)) from error
    path = _path(directory, report.night)
    write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=1))
    for old in _reports(directory)[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path


def last_report(directory: Path) -> NightReport | None:
    """The newest report in a node's directory that can be read; None if there is none."""
    return next(
        (report for path in reversed(_reports(directory)) if (report := _read(path)) is not None), None
    )


def read_report(directory: Path, night: date) -> NightReport | None:
    """The report of one night; None if there is none that can be read."""
    return _read(_path(directory, night))


def _read(path: Path) -> NightReport | None:
    try:
        data = read_small(path)
        return None if data is None else msgspec.json.decode(data, type=NightReport)
    except (LimitExceeded, StoreDamaged, msgspec.MsgspecError, ValueError, RecursionError):
        log.warning("report.unreadable", file=path.name)
        return None


def _path(directory: Path, night: date) -> Path:
    return directory / DIRECTORY / f"{_PREFIX}{night.isoformat()}{_SUFFIX}"


def _reports(directory: Path) -> list[Path]:
    return sorted((directory / DIRECTORY).glob(f"{_PREFIX}????-??-??{_SUFFIX}"))


def moment(ms: int) -> str:
    """A time for people, in UTC; a dash for none."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if ms else "–"


def report_lines(report: NightReport) -> Iterator[str]:
    """The report for people."""
    end = moment(report.ended_ms) if report.ended_ms else "not ended"
    yield (
        f"night of {report.night}: {moment(report.began_ms)} to {end}"
        + (", resumed" if report.resumed else "")
        + f"; {report.spent_bytes} of {report.budget_bytes} bytes"
    )
    for turn in report.peers:
        yield (
            f"  {turn.node[:16]}{f' over {turn.link}' if turn.link else ''}: {turn.entries_in} entries in, "
            f"{turn.entries_out} out, {turn.bytes_in} bytes in, {turn.bytes_out} out; "
            + ("in step" if turn.in_step else f"NOT in step: {turn.why or 'no reason was given'}")
        )
    for node, why in report.not_reached:
        yield f"  {node[:16]}: NOT reached: {why}"
    if not report.peers and not report.not_reached:
        yield "  no peer is known"
    if report.scrub is None:
        yield "  scrub: not asked for"
    elif report.scrub.damage:
        yield f"  scrub: DAMAGE after {report.scrub.checked_entries} entries: {report.scrub.damage}"
    else:
        yield (
            f"  scrub: {report.scrub.checked_entries} entries verified, "
            + (
                "the whole store"
                if report.scrub.complete
                else "NOT the whole store yet; goes on the next night"
            )
        )
    if report.backup is None:
        yield "  backup: not asked for"
    elif report.backup.verified:
        yield (
            f"  backup: {report.backup.file}, {report.backup.entries} entries read back, "
            f"{report.backup.size_bytes} bytes; {report.backup.removed} older removed"
        )
    else:
        yield f"  backup: NONE: {report.backup.why or 'no reason was given'}"
