"""One night's work: full reconciliation with each peer in turn within the byte budget, scrub, backup, report.

Each part is counted by who does it and told as it was; what was not done is done first the next night. A run that is cut
off goes on within its window with what is left of its budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from msgspec import Struct

from ledger.ids import NodeId
from nodes.daemon.backups import back_up
from nodes.daemon.config import NightlyConfig
from nodes.daemon.pump import Pump
from nodes.daemon.report import BackupResult, NightReport, PeerTurn, ScrubResult, keep_report
from nodes.daemon.scrub import Scrub
from nodes.daemon.window import ByteBudget, Opening, WindowMemory, in_turn
from nodes.peer import Peer
from nodes.peering import Peering

__all__ = ["Night"]

TURN_SECONDS = 15 * 60
"""With one peer at most, if others wait: at 9,600 bit/s a megabyte."""
POLL_SECONDS = 0.05
SILENCE_SECONDS = 45
"""Without a word of a peer its turn is over: two rounds were given up."""
SLICE_PAUSE_SECONDS = 0.02
"""Between two slices of the scrub, so that a till does not wait."""

log = structlog.get_logger("rxledger")


class _Counters(Struct, frozen=True):
    entries_in: int
    entries_out: int
    bytes_in: int
    bytes_out: int

    @classmethod
    def of(cls, peer: Peer | None) -> _Counters:
        if peer is None:
            return cls(0, 0, 0, 0)
        moved_in, moved_out = peer.moved()
        return cls(moved_in, moved_out, peer.bytes_in, peer.bytes_out)


class Night:
    """The work of one window."""

    def __init__(
        self,
        config: NightlyConfig,
        directory: Path,
        pump: Pump,
        memory: WindowMemory,
        scrub: Scrub,
        *,
        now_ms: Callable[[], int],
        in_thread: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        """Set up.

        Args:
            config: what is asked for.
            directory: the node's.
            pump: the conversations.
            memory: of earlier nights.
            scrub: of this node's store.
            now_ms: the ledger's clock.
            in_thread: runs slow work off the loop.
        """
        self._config, self._directory, self._pump, self._memory = config, directory, pump, memory
        self._scrub, self._now_ms, self._in_thread = scrub, now_ms, in_thread

    async def run(self, opening: Opening) -> NightReport:
        """Do the night's work, until it is done or its window closes; the report is on disk when this returns."""
        self._memory.keep(self._memory.state.begun(opening, self._now_ms()))
        budget = ByteBudget(self._config.budget_bytes, opening.spent_bytes)
        report = NightReport(
            night=opening.night,
            began_ms=self._now_ms(),
            resumed=opening.resumed,
            budget_bytes=self._config.budget_bytes,
        )
        turns: list[PeerTurn] = []
        missed: list[tuple[str, str]] = []
        waiting = await self._pump.call(self._peers)
        while waiting:
            node = waiting[0]
            left_ms = opening.closes_ms - self._now_ms()
            if left_ms <= 0 or budget.left_bytes == 0:
                why = "the window closed" if left_ms <= 0 else "the night's bytes were spent"
                missed += [(each.hex(), why) for each in waiting]
                break
            turn = await self._turn(node, budget, budget.share(len(waiting)), left_ms / 1000)
            if turn.entries_in or turn.entries_out or turn.in_step or turn.bytes_in:
                turns.append(turn)
            else:
                missed.append((node.hex(), turn.why))
            waiting.pop(0)
            undone = [NodeId(bytes.fromhex(t.node)) for t in turns if not t.in_step]
            left_over = [*undone, *(NodeId(bytes.fromhex(text)) for text, _ in missed), *waiting]
            self._memory.keep(self._memory.state.progressed(budget.spent_bytes, left_over))
        scrubbed = await self._scrubbed(opening) if self._config.scrub else None
        backup = await self._backed_up() if self._config.backup_directory is not None else None
        report = NightReport(
            night=report.night, began_ms=report.began_ms, ended_ms=self._now_ms(), resumed=report.resumed,
            budget_bytes=report.budget_bytes, spent_bytes=budget.spent_bytes, peers=tuple(turns),
            not_reached=tuple(missed), scrub=scrubbed, backup=backup,
        )  # fmt: skip
        keep_report(self._directory, report)
        self._memory.keep(self._memory.state.ended())
        log.info("night.ended", night=report.night.isoformat(), whole=report.whole, bytes=report.spent_bytes)
        return report

    def _peers(self, peering: Peering) -> list[NodeId]:
        """Whom to talk to: those configured and those that were heard, left over from last night first."""
        heard = {peer.node: peer.heard_ms or 0 for peer in peering.peers if peer.heard_ms is not None}
        for node in peering.peers.settings.peers:
            heard.setdefault(node, 0)
        return in_turn(self._memory.state, heard)

    async def _turn(self, node: NodeId, budget: ByteBudget, share: int, left_s: float) -> PeerTurn:
        """One peer's turn: rounds until both hold the same, its share is spent, or it falls silent."""
        loop = asyncio.get_running_loop()
        before = await self._pump.call(lambda p: _Counters.of(p.peers.known(node)))
        await self._pump.call(lambda p: p.converse(node, self._pump.now_ms(), share // 2))
        began_ms, spent = self._pump.now_ms(), 0
        deadline, heard_at = loop.time() + min(left_s, TURN_SECONDS), loop.time()
        why, now, in_step = "", before, False
        while True:
            await asyncio.sleep(POLL_SECONDS)
            known = await self._pump.call(lambda p: _Seen.of(p, node))
            if known is None:
                why = "no such node is known here"
            else:
                if known.counters != now:
                    heard_at = loop.time()
                now, in_step = known.counters, known.in_step_ms is not None and known.in_step_ms >= began_ms
                used = now.bytes_in + now.bytes_out - before.bytes_in - before.bytes_out
                budget.spend(used - spent)
                spent = used
                if in_step:
                    break
                if spent >= share:
                    why = "its share of the night's bytes was spent"
                elif loop.time() - heard_at > SILENCE_SECONDS:
                    why = "it does not answer"
                elif loop.time() > deadline:
                    why = "its time was over"
            if why:
                break
        await self._pump.call(lambda p: p.converse(node, self._pump.now_ms(), None))
        link = "" if known is None else known.link
        return PeerTurn(
            node=node.hex(), link=link, entries_in=now.entries_in - before.entries_in,
            entries_out=now.entries_out - before.entries_out, bytes_in=now.bytes_in - before.bytes_in,
            bytes_out=now.bytes_out - before.bytes_out, in_step=in_step, why=why,
        )  # fmt: skip

    async def _scrubbed(self, opening: Opening) -> ScrubResult:
        """As much of the verification as the window allows; what is left goes on the next night."""
        while True:
            result = await self._in_thread(self._scrub.step)
            assert isinstance(result, ScrubResult)
            if not self._scrub.under_way or self._now_ms() >= opening.closes_ms:
                return result
            await asyncio.sleep(SLICE_PAUSE_SECONDS)

    async def _backed_up(self) -> BackupResult:
        target = self._config.backup_directory
        assert target is not None
        node = self._pump.peering.ledger.node.identity.node
        result = await self._in_thread(
            lambda: back_up(self._directory, node, target, self._config.backups_kept, self._now_ms())
        )
        assert isinstance(result, BackupResult)
        return result


class _Seen(Struct, frozen=True):
    counters: _Counters
    in_step_ms: int | None
    link: str

    @classmethod
    def of(cls, peering: Peering, node: NodeId) -> _Seen | None:
        peer = peering.peers.known(node)
        if peer is None:
            return None
        return cls(_Counters.of(peer), peer.in_step_ms, peer.link)
