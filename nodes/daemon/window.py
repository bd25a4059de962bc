"""The nightly window: when it opens, for how long, and that it opens once a night. Pure; time comes in (R5).

A *night* has the name of the local day on which its window is to open. Rules:

- A window opens at the configured local time. Where that time does not exist (clocks put forward) it opens as long
  after the preceding midnight as it would have; where it exists twice, at the first.
- It lasts so many minutes of real time, whatever the clocks on the wall do meanwhile.
- No night runs twice. Nights that ran are remembered on disk; a run that was cut off goes on within its window, with
  the budget that it has left, and is the same run.
- A clock that was set back brings no second run of a night. A clock that had been wrong by days and is put right
  stops no run: a remembered night that lies days ahead is taken for what it is.
- A machine asleep or off over the start runs inside what is left of the window; and with `catch_up` as soon as it is
  on again, for as long as a window lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
import structlog
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, StoreDamaged
from ledger.ids import NodeId
from nodes.daemon.config import PEERS_MAX, NightlyConfig
from nodes.daemon.files import read_small, write_whole

__all__ = [
    "ByteBudget",
    "Opening",
    "WindowMemory",
    "WindowState",
    "current",
    "following",
    "in_turn",
    "zone_of",
]

MINUTE_MS = 60_000
NIGHTS_KEPT = 16
"""Nights remembered as run: a clock set back by up to two weeks brings none of them again."""
AHEAD_DAYS_MAX = 2
"""A remembered night further ahead than this was named by a clock that was wrong."""
STATE_FILE = "window.json"

log = structlog.get_logger("rxledger")

Peer = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Opening(Struct, frozen=True, kw_only=True):
    """A window of one night, in milliseconds since 1970 UTC."""

    night: date
    opens_ms: int
    closes_ms: int
    resumed: bool = False
    """The run of this night had begun before and was cut off."""
    spent_bytes: int = 0
    """What it had spent by then."""


class WindowState(Struct, frozen=True, kw_only=True):
    """What is remembered of nights that ran."""

    nights: Annotated[tuple[date, ...], Meta(max_length=NIGHTS_KEPT)] = ()
    """Begun, oldest first."""
    began_ms: int = 0
    """When the last of them began."""
    finished: bool = True
    """The last of them came to its end."""
    spent_bytes: int = 0
    """By the last of them."""
    pending: Annotated[tuple[Peer, ...], Meta(max_length=PEERS_MAX)] = ()
    """Peers that it did not finish with: the first of the next night."""

    def begun(self, opening: Opening, now_ms: int) -> WindowState:
        """After a night's run has begun (or goes on)."""
        if opening.resumed:
            return self
        # Run again on demand, it is remembered once, and pushes no other night out.
        others = (night for night in self.nights if night != opening.night)
        return msgspec.structs.replace(
            self, nights=(*others, opening.night)[-NIGHTS_KEPT:], began_ms=now_ms, finished=False, spent_bytes=0
        )  # fmt: skip

    def progressed(self, spent_bytes: int, pending: Sequence[NodeId]) -> WindowState:
        """After the run has spent so much and has these peers before it."""
        names = tuple(node.hex() for node in pending[:PEERS_MAX])
        return msgspec.structs.replace(self, spent_bytes=spent_bytes, pending=names)

    def ended(self) -> WindowState:
        """After the run has come to its end, finished with its peers or not."""
        return msgspec.structs.replace(self, finished=True)


def zone_of(config: NightlyConfig) -> tzinfo:
    """The zone in which the start is meant; the machine's own unless named (UTC if it says none)."""
    if config.time_zone:
        return ZoneInfo(config.time_zone)
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, "local")
    except (OSError, ValueError):
        return UTC


def _opens_ms(config: NightlyConfig, night: date, zone: tzinfo) -> int:
    # A time that does not exist is reckoned with the offset before the change (fold=0), so it moves on by the change.
    local = datetime.combine(night, config.start_time(), tzinfo=zone)
    return int(local.timestamp() * 1000)


def _length_ms(config: NightlyConfig) -> int:
    return config.duration_minutes * MINUTE_MS


def _night_of(config: NightlyConfig, now_ms: int, zone: tzinfo) -> date:
    """The last night whose window has opened by now."""
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    return today if _opens_ms(config, today, zone) <= now_ms else today - timedelta(days=1)


def _may_run(state: WindowState, night: date) -> bool:
    """Whether a night has not run, as far as is remembered."""
    if night in state.nights:
        return False
    plausible = night + timedelta(days=AHEAD_DAYS_MAX)
    # A night before one that ran: the clock was set back. Unless that one lies in a future which was never true.
    return not any(night < ran <= plausible for ran in state.nights)


def current(config: NightlyConfig, state: WindowState, now_ms: int, zone: tzinfo) -> Opening | None:
    """The run that is to be under way now: a new one, or one that was cut off; None if none is.

    Args:
        config: the schedule.
        state: what is remembered.
        now_ms: milliseconds since 1970 UTC.
        zone: see `zone_of`.
    """
    night = _night_of(config, now_ms, zone)
    opens, length = _opens_ms(config, night, zone), _length_ms(config)
    if state.nights and state.nights[-1] == night and not state.finished:
        # From when it began in truth: caught up, it began after its window.
        closes = max(opens, state.began_ms) + length
        if state.began_ms <= now_ms < closes:
            return Opening(
                night=night, opens_ms=opens, closes_ms=closes, resumed=True, spent_bytes=state.spent_bytes
            )
        return None
    if not _may_run(state, night):
        return None
    if now_ms < opens + length:
        return Opening(night=night, opens_ms=opens, closes_ms=opens + length)
    if not config.catch_up or not state.nights:
        return None  # A new node has missed no night.
    # Never into the next night's own window.
    closes = min(now_ms + length, _opens_ms(config, night + timedelta(days=1), zone))
    return Opening(night=night, opens_ms=opens, closes_ms=closes)


def following(config: NightlyConfig, state: WindowState, now_ms: int, zone: tzinfo) -> int:
    """When the next run begins that has not begun, in milliseconds since 1970 UTC: now, if one is due."""
    open_now = current(config, state, now_ms, zone)
    if open_now is not None and not open_now.resumed:
        return max(now_ms, open_now.opens_ms)
    night = _night_of(config, now_ms, zone) + timedelta(days=1)
    # At most as many nights can be barred as are remembered, each for the days that it may lie ahead.
    for _ in range(NIGHTS_KEPT * (AHEAD_DAYS_MAX + 1)):
        if _may_run(state, night):
            break
        night += timedelta(days=1)
    return _opens_ms(config, night, zone)


def in_turn(state: WindowState, heard_ms: Mapping[NodeId, int]) -> list[NodeId]:
    """Peers in the order of a night's run: those that the last night left over, then those silent longest.

    Args:
        state: what is remembered.
        heard_ms: when each known peer was last heard; 0 never.
    """
    left_over = {text: place for place, text in enumerate(state.pending)}
    return sorted(
        heard_ms, key=lambda node: (left_over.get(node.hex(), len(left_over)), heard_ms[node], node)
    )


class ByteBudget:
    """What one night may send and receive, over all links. Counts; the caller stops when nothing is left."""

    def __init__(self, total_bytes: int, spent_bytes: int = 0) -> None:
        self.total_bytes = total_bytes
        self.spent_bytes = spent_bytes

    @property
    def left_bytes(self) -> int:
        """What is left; never negative."""
        return max(0, self.total_bytes - self.spent_bytes)

    def spend(self, count: int) -> int:
        """Count bytes that went either way; returns what is left."""
        if count < 0:
            raise ValueError("bytes do not come back")
        self.spent_bytes += count
        return self.left_bytes

    def share(self, peers_left: int) -> int:
        """What the next of so many peers may use, so that one alone cannot use up the night; what it leaves goes on."""
        return self.left_bytes // max(1, peers_left)


class WindowMemory:
    """The state of the window on disk, in the node's directory. One process uses it: the owner of the store."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_FILE
        self.state = self._load()

    def _load(self) -> WindowState:
        try:
            data = read_small(self._path)
            return WindowState() if data is None else msgspec.json.decode(data, type=WindowState)
        except (LimitExceeded, StoreDamaged, msgspec.MsgspecError, ValueError, RecursionError):
            # Better a night too many than a node that never again does its night's work.
            log.warning("window.state-unreadable", file=STATE_FILE)
            return WindowState()

    def keep(self, state: WindowState) -> None:
        """Remember durably; when this returns, a restart knows it.

        Raises:
            StoreFull, StoreDamaged: it is not remembered on disk, but is in memory.
        """
        self.state = state
        write_whole(self._path, msgspec.json.encode(state))
