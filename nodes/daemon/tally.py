"""What a night has come to so far: added up turn by turn, on disk after each, and across a run that was cut off.

A run that was killed and goes on is one run with one report. What its processes counted is added, peer by peer; whether a
peer is in step is what its last turn found. At most what passed within `KEEP_SECONDS` before a kill is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from ledger.ids import NodeId
from nodes.daemon.report import BackupResult, NightReport, PeerTurn, ScrubResult, keep_report, read_report
from nodes.daemon.window import Opening

__all__ = ["KEEP_SECONDS", "Tally"]

KEEP_SECONDS = 2.0
"""Between two writes while a turn goes on: a turn may take a quarter of an hour, a write costs one fsync."""
_CUT_OFF = "the run was cut off"


class Tally:
    """One night's counts. Used by one task."""

    def __init__(
        self, directory: Path, opening: Opening, budget_bytes: int, now_ms: Callable[[], int]
    ) -> None:
        """Begin, or go on from what an earlier process of the same run had put on disk.

        Args:
            directory: the node's.
            opening: of the window.
            budget_bytes: of the night.
            now_ms: the ledger's clock.
        """
        self._directory, self._now_ms = directory, now_ms
        before = read_report(directory, opening.night) if opening.resumed else None
        if before is not None and before.ended_ms:
            before = (
                None  # Of a run that ended: this one began later, and was cut off before its first write.
            )
        self._report = NightReport(
            night=opening.night, began_ms=now_ms() if before is None else before.began_ms, resumed=opening.resumed,
            budget_bytes=budget_bytes, spent_bytes=opening.spent_bytes,
        )  # fmt: skip
        self._turns: dict[str, PeerTurn] = {}
        self._missed: dict[str, str] = {}
        self._present: PeerTurn | None = None
        if before is not None:
            self._turns = {turn.node: turn for turn in before.peers}
            self._report = msgspec.structs.replace(
                self._report, spent_bytes=max(before.spent_bytes, opening.spent_bytes), scrub=before.scrub,
                backup=before.backup,
            )  # fmt: skip

    @property
    def spent_bytes(self) -> int:
        """By the whole run, as far as it was written down."""
        return self._report.spent_bytes

    @property
    def scrub(self) -> ScrubResult | None:
        """How far this night's scrub had come."""
        return self._report.scrub

    @property
    def backup(self) -> BackupResult | None:
        """This night's backup, if one was made."""
        return self._report.backup

    def goes_on(self, turn: PeerTurn) -> None:
        """What a turn under way has come to; it takes the place of what was said of the same turn before."""
        self._present = turn

    def ends(self, turn: PeerTurn) -> None:
        """A turn is over."""
        self._present = None
        if turn.in_step or turn.entries_in or turn.entries_out or turn.bytes_in:
            self._turns[turn.node] = self._with(turn)
        else:
            self.misses(turn.node, turn.why)

    def misses(self, node: str, why: str) -> None:
        """No conversation was had with a peer (in this process of the run)."""
        had = self._turns.get(node)
        if had is None:
            self._missed[node] = why
        elif not had.in_step:
            self._turns[node] = msgspec.structs.replace(had, why=why)

    def _with(self, turn: PeerTurn) -> PeerTurn:
        """A turn added to what the same peer had in this run before."""
        had = self._turns.get(turn.node)
        if had is None:
            return turn
        return msgspec.structs.replace(
            turn, link=turn.link or had.link, entries_in=had.entries_in + turn.entries_in,
            entries_out=had.entries_out + turn.entries_out, bytes_in=had.bytes_in + turn.bytes_in,
            bytes_out=had.bytes_out + turn.bytes_out,
        )  # fmt: skip

    def left_over(self) -> list[NodeId]:
        """Peers that it did not finish with."""
        undone = [turn.node for turn in self._turns.values() if not turn.in_step]
        return [NodeId(bytes.fromhex(node)) for node in dict.fromkeys([*undone, *self._missed])]

    def keep(
        self, spent_bytes: int, *, scrub: ScrubResult | None = None, backup: BackupResult | None = None, ended: bool = False
    ) -> NightReport:  # fmt: skip
        """Put the report on disk as it stands now; when this returns, a restart goes on from it.

        Raises:
            StoreFull, StoreDamaged: it could not be written.
        """
        turns = dict(self._turns)
        if self._present is not None and (self._present.bytes_in or self._present.bytes_out):
            cut_off = msgspec.structs.replace(self._present, in_step=False, why=_CUT_OFF)
            turns[cut_off.node] = self._with(cut_off)
        self._report = msgspec.structs.replace(
            self._report, spent_bytes=spent_bytes, peers=tuple(turns.values()), not_reached=tuple(self._missed.items()),
            scrub=scrub or self._report.scrub, backup=backup or self._report.backup,
            ended_ms=self._now_ms() if ended else 0,
        )  # fmt: skip
        keep_report(self._directory, self._report)
        return self._report
