"""One night's work: full reconciliation with each peer in turn within the byte budget, scrub, backup, report.

Each part is counted by who does it and told as it was; what was not done is done first the next night. A run that is cut
off goes on within its window with what is left of its budget, and its report is of the whole run (`nodes.daemon.tally`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from ledger.ids import NodeId
from nodes.daemon.backups import back_up
from nodes.daemon.config import NightlyConfig
from nodes.daemon.pump import Pump
from nodes.daemon.report import BackupResult, NightReport, PeerTurn, ScrubResult
from nodes.daemon.scrub import Scrub
from nodes.daemon.tally import KEEP_SECONDS, Tally
from nodes.daemon.window import ByteBudget, Opening, WindowMemory, in_turn
from nodes.peer import Peer
from nodes.peering import Peering

__all__ = ["Night"]

TURN_SECONDS = 15 * 60
"""With one peer at most, if others wait: at 9,600 bit/s a megabyte."""
POLL_SECONDS = 0.05
SILENCE_SECONDS = 45
"""Without a word of a peer its turn is over: two rounds were given up."""
MEETING_SECONDS = 10
"""For the first sign of life of anybody, where links are configured: a hub's nodes answer a new one within two seconds."""
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


_NOTHING = _Counters(0, 0, 0, 0)


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
        alone: bool = False,
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
            alone: this process runs for the night only: nothing is exchanged but in turns, within the budget. A daemon
                that replicates all day goes on doing so beside them.
        """
        self._config, self._directory, self._pump, self._memory = config, directory, pump, memory
        self._scrub, self._now_ms, self._in_thread = scrub, now_ms, in_thread
        self._alone = alone

    async def run(self, opening: Opening) -> NightReport:
        """Do the night's work, until it is done or its window closes; the report is on disk when this returns.

        A run that was cut off is added to, and what it had finished is not done again but for a look at each peer.
        """
        self._memory.keep(self._memory.state.begun(opening, self._now_ms()))
        tally = Tally(self._directory, opening, self._config.budget_bytes, self._now_ms)
        budget = ByteBudget(self._config.budget_bytes, tally.spent_bytes)
        try:
            await self._turns(opening, tally, budget)
            if self._config.scrub and not _done(tally.scrub):
                tally.keep(budget.spent_bytes, scrub=await self._scrubbed(opening))
            if self._config.backup_directory is not None and not (tally.backup and tally.backup.verified):
                tally.keep(budget.spent_bytes, backup=await self._backed_up())
        except asyncio.CancelledError:
            tally.keep(budget.spent_bytes)
            raise
        report = tally.keep(budget.spent_bytes, ended=True)
        self._memory.keep(self._memory.state.ended())
        log.info("night.ended", night=report.night.isoformat(), whole=report.whole, bytes=report.spent_bytes)
        return report

    async def _turns(self, opening: Opening, tally: Tally, budget: ByteBudget) -> None:
        """Every peer in turn, those met meanwhile too, until the window closes or the bytes are spent."""
        cut_off = self._memory.state.pending if opening.resumed else ()
        left_over = [NodeId(bytes.fromhex(text)) for text in cut_off]
        if self._alone:
            await self._pump.call(lambda p: p.peers.hold_to(frozenset()))
        since = await self._pump.call(lambda p: {peer.node: _Counters.of(peer) for peer in p.peers})
        waiting, had = await self._met(left_over), set[NodeId]()
        self._memory.keep(self._memory.state.progressed(budget.spent_bytes, waiting))
        while waiting:
            node = waiting[0]
            left_ms = opening.closes_ms - self._now_ms()
            if left_ms <= 0 or budget.left_bytes == 0:
                why = "the window closed" if left_ms <= 0 else "the night's bytes were spent"
                for each in waiting:
                    tally.misses(each.hex(), why)
                self._note(tally, budget, [])
                return
            turn = await self._turn(node, tally, budget, budget.share(len(waiting)), left_ms / 1000, since)
            tally.ends(turn)
            had.add(node)
            peers = await self._pump.call(lambda peering: self._peers(peering, left_over))
            waiting = [node for node in peers if node not in had]
            self._note(tally, budget, waiting)

    def _note(self, tally: Tally, budget: ByteBudget, waiting: Sequence[NodeId]) -> None:
        """What has been done and what is before it, for whoever goes on after a kill."""
        tally.keep(budget.spent_bytes)
        undone = dict.fromkeys([*tally.left_over(), *waiting])
        self._memory.keep(self._memory.state.progressed(budget.spent_bytes, list(undone)))

    async def _met(self, left_over: Sequence[NodeId]) -> list[NodeId]:
        """Whom to talk to. A daemon that has just started, for the night alone maybe, waits until somebody is heard."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MEETING_SECONDS
        while not (found := await self._pump.call(lambda peering: self._peers(peering, left_over))):
            if not self._pump.links() or loop.time() > deadline:
                return []
            await asyncio.sleep(POLL_SECONDS)
        return found

    def _peers(self, peering: Peering, left_over: Sequence[NodeId]) -> list[NodeId]:
        """Whom to talk to: configured, heard, or left over by the run that was cut off; what was left over first."""
        heard = {peer.node: peer.heard_ms or 0 for peer in peering.peers if peer.heard_ms is not None}
        for node in (*peering.peers.settings.peers, *left_over):
            heard.setdefault(node, 0)
        return in_turn(self._memory.state, heard)

    async def _turn(
        self,
        node: NodeId,
        tally: Tally,
        budget: ByteBudget,
        share: int,
        left_s: float,
        since: Mapping[NodeId, _Counters],
    ) -> PeerTurn:
        """One peer's turn: rounds until both hold the same, its share is spent, or it falls silent.

        What passed before its turn counts too, since the counters in `since`: it begins rounds when it likes.
        """
        loop = asyncio.get_running_loop()
        before = since.get(node, _NOTHING)
        if self._alone:
            await self._pump.call(lambda p: p.peers.hold_to(frozenset({node})))
        await self._pump.call(lambda p: p.converse(node, self._pump.now_ms(), share // 2))
        began_ms, spent = self._pump.now_ms(), 0
        deadline, heard_at = loop.time() + min(left_s, TURN_SECONDS), loop.time()
        why, now, in_step, kept_at = "", before, False, loop.time()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            known = await self._pump.call(lambda p: _Seen.of(p, node))
            if known is None:
                why = "no such node is known here"
            else:
                # Only what comes from it is a word of it: a dead one is asked again and again.
                if known.counters.bytes_in != now.bytes_in:
                    heard_at = loop.time()
                now, in_step = known.counters, known.in_step_ms is not None and known.in_step_ms >= began_ms
                # Never less than before: a peer that was forgotten for want of room counts from nothing again.
                used = max(spent, now.bytes_in + now.bytes_out - before.bytes_in - before.bytes_out)
                budget.spend(used - spent)
                spent = used
                tally.goes_on(_turn_of(node, known.link, before, now))
                if loop.time() - kept_at > KEEP_SECONDS:
                    kept_at = loop.time()
                    tally.keep(budget.spent_bytes)
                if in_step:
                    break
                # Each round that follows may use what is left, not the whole share again.
                await self._pump.call(lambda p: _allot(p, node, (share - spent) // 2))  # noqa: B023 - awaited at once.
                if spent >= share:
                    why = "its share of the night's bytes was spent"
                elif loop.time() - heard_at > SILENCE_SECONDS:
                    why = "it does not answer"
                elif loop.time() > deadline:
                    why = "its time was over"
            if why:
                break
        await self._pump.call(lambda p: p.converse(node, self._pump.now_ms(), None))
        if self._alone:
            await self._pump.call(lambda p: p.peers.hold_to(frozenset()))
        link = "" if known is None else known.link
        turn = _turn_of(node, link, before, now)
        return msgspec.structs.replace(turn, in_step=in_step, why=why)

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


def _done(scrub: ScrubResult | None) -> bool:
    return scrub is not None and scrub.complete and not scrub.damage


def _turn_of(node: NodeId, link: str, before: _Counters, now: _Counters) -> PeerTurn:
    return PeerTurn(
        node=node.hex(), link=link, entries_in=max(0, now.entries_in - before.entries_in),
        entries_out=max(0, now.entries_out - before.entries_out), bytes_in=max(0, now.bytes_in - before.bytes_in),
        bytes_out=max(0, now.bytes_out - before.bytes_out),
    )  # fmt: skip


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


def _allot(peering: Peering, node: NodeId, budget_bytes: int) -> None:
    peer = peering.peers.known(node)
    if peer is not None:
        peer.budget_bytes = max(0, budget_bytes)
