"""When rounds with peers begin: those that are due, the longest due first, so many at once; thousands of peers cost little."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ledger.ids import NodeId
from nodes.acquaintances import Acquaintances
from nodes.peer import Peer

__all__ = ["AT_ONCE_AGAIN_MS", "ROUNDS_AT_ONCE_MAX", "Rounds"]

ROUNDS_AT_ONCE_MAX = 8
"""Rounds of ours under way: each reads and writes as fast as it can, and more of them would only share that."""
AT_ONCE_AGAIN_MS = 500
"""Between rounds with one peer that found nothing: what somebody only claims to be missing costs no more than that."""
SCAN_MS = 20
"""All peers are looked at for rounds that are due at most so often: there may be thousands."""
CHOSEN_WITHIN_MS = 1_000
"""Over which first rounds with partners newly chosen are spread."""


class Rounds:
    """The rounds of one node that are to begin."""

    def __init__(self, peers: Acquaintances, name: Callable[[], bytes]) -> None:
        """`name` gives 8 random bytes, by which a round is known."""
        self._peers, self._name = peers, name
        self._next_scan_ms = 0
        self._next_begin_ms: int | None = None

    def look(self, now_ms: int) -> None:
        """Look at all peers the next time."""
        self._next_begin_ms = now_ms

    def soon(self, peer: Peer, now_ms: int, within_ms: int = 0) -> None:
        """Begin a round with a peer soon; not at once again, if both held the same just now."""
        at = peer.soon(max(now_ms, (peer.in_step_ms or 0) + AT_ONCE_AGAIN_MS), within_ms)
        self._next_begin_ms = at if self._next_begin_ms is None else min(self._next_begin_ms, at)

    def next_ms(self) -> int | None:
        """When `begin` can next have something to do."""
        return None if self._next_begin_ms is None else max(self._next_begin_ms, self._next_scan_ms)

    def begin(self, stirred: Mapping[NodeId, Peer], now_ms: int) -> list[Peer]:
        """Begin what is due; returns the peers with whom a round has begun.

        Args:
            stirred: peers with which something is under way.
            now_ms: the time.
        """
        if now_ms < self._next_scan_ms:
            return []
        self._next_scan_ms = now_ms + SCAN_MS
        for peer in self._peers.chosen(now_ms):
            if peer.next_ms is None and not peer.busy:
                peer.soon(now_ms, CHOSEN_WITHIN_MS)
        under_way = sum(peer.busy for peer in stirred.values())
        due = [peer for peer in self._peers if peer.next_ms is not None and not peer.busy]
        due.sort(key=lambda peer: peer.next_ms or 0)
        begun: list[Peer] = []
        self._next_begin_ms = None
        for peer in due:
            way = self._peers.way(peer)
            full = under_way + len(begun) >= ROUNDS_AT_ONCE_MAX
            if (peer.next_ms or 0) > now_ms or full or way is None:
                # When one of those under way ends, or this time comes.
                self._next_begin_ms = max(peer.next_ms or 0, now_ms + SCAN_MS)
                break
            peer.next_ms = None
            if peer.held_back or self._peers.is_revoked(peer.node) or self._peers.is_given_up(peer, now_ms):
                continue
            peer.timing = self._peers.timing(way)
            peer.begin(self._name(), now_ms)
            begun.append(peer)
        return begun
