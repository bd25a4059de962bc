"""What peers are about to send to us, so that no two of them send the same.

After an outage a node talks with several at once, and each of them holds much that others hold too. Whoever tells that
it holds more of a feed than we do is about to send it; to the others we name, beside what we hold, what is on its way.

Nothing rests on it: a promise lasts `PROMISE_MS` at most and ends with the round in which it was made, and a feed whose
promise was not kept is not believed of anybody for `AGAIN_MS`. So a peer that promises and does not send, on purpose or
not, delays a feed by seconds, and never what is told live.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ledger.ids import FeedId, Link, NodeId
from nodes.ports import Heads

__all__ = ["AGAIN_MS", "PROMISES_MAX", "PROMISE_MS", "Promises", "Voice"]

PROMISE_MS = 10_000
"""What one peer sends in a round takes seconds at most, but on thin links; there the others send it too."""
AGAIN_MS = 60_000
"""A feed that was promised in vain is fetched from whoever sends it."""
ASK_MS = 2_000
"""How long others are not asked, while one that was asked has not told what it holds: a round trip on a slow line. Who
kept them waiting in vain does not for `AGAIN_MS`."""
PEERS_MAX = 4096
"""Of whom that is remembered."""
PROMISES_MAX = 10_000
"""Feeds of all of a node's districts; the agency, which has more, lets some come twice."""


class _Promise(Struct):
    sequence: int
    link: Link
    made_ms: int
    ended: bool = False


class Promises:
    """Of one node, from all its peers. Not thread-safe."""

    def __init__(self, author: Callable[[FeedId], NodeId | None] = lambda _: None) -> None:
        """`author` says who writes a feed: of one's own feed a peer is believed, whatever others promise of it."""
        self._author = author
        self._of: dict[str, dict[FeedId, _Promise]] = {}
        self._by: dict[NodeId, list[_Promise]] = {}
        self._count = 0
        self._asked: tuple[NodeId, int] | None = None
        """Whom we told what we hold and have not heard from what it holds, and when."""
        self._kept_waiting: dict[NodeId, int] = {}
        """Who let others wait for that, and when."""

    def may_ask(self, peer: NodeId, now_ms: int) -> bool:
        """Whether to let a peer send what we lack, or first to hear what another one, asked just now, is about to send."""
        if self._asked is not None and self._asked[0] != peer and now_ms - self._asked[1] <= ASK_MS:
            return False
        if now_ms - self._kept_waiting.get(peer, -AGAIN_MS) >= AGAIN_MS:
            if len(self._kept_waiting) >= PEERS_MAX:
                self._kept_waiting.clear()
            self._kept_waiting[peer] = now_ms
            self._asked = peer, now_ms
        return True

    def heard(self, peer: NodeId) -> None:
        """A peer told what it holds."""
        self._kept_waiting.pop(peer, None)
        if self._asked is not None and self._asked[0] == peer:
            self._asked = None

    def make(
        self, peer: NodeId, district: str, feed: FeedId, ours: Heads, theirs: Heads, now_ms: int
    ) -> None:
        """Note that a peer holds more of a feed, if it does, and if the feed is promised by nobody else."""
        if len(theirs) != 1 or len(ours) > 1 or theirs[0][0] <= _end(ours):
            return
        here = self._of.setdefault(district, {})
        former = here.get(feed)
        if former is not None and _end(ours) < former.sequence and now_ms - former.made_ms < AGAIN_MS:
            return
        if former is None:
            self._count += 1
            if self._count > PROMISES_MAX:
                self._forget(now_ms)
        promise = _Promise(*theirs[0], made_ms=now_ms)
        self._of.setdefault(district, {})[feed] = promise
        self._by.setdefault(peer, []).append(promise)

    def by_others(self, peer: NodeId, district: str, now_ms: int) -> dict[FeedId, tuple[int, Link]]:
        """Of a district: feed → the end that somebody else is about to bring it to."""
        own = {id(promise) for promise in self._by.get(peer, ())}
        return {
            feed: (promise.sequence, promise.link)
            for feed, promise in self._of.get(district, {}).items()
            if not promise.ended
            and now_ms - promise.made_ms <= PROMISE_MS
            and id(promise) not in own
            and self._author(feed) != peer
        }

    def end(self, peer: NodeId) -> None:
        """The round with a peer is over."""
        if self._asked is not None and self._asked[0] == peer:
            self._asked = None
        for promise in self._by.pop(peer, ()):
            promise.ended = True

    def _forget(self, now_ms: int) -> None:
        """Of too many, keep those that count still; if they are too many themselves, none."""
        kept = {
            district: {feed: promise for feed, promise in of.items() if now_ms - promise.made_ms < PROMISE_MS}
            for district, of in self._of.items()
        }
        self._count = sum(map(len, kept.values()))
        if self._count > PROMISES_MAX // 2:
            kept, self._count = {}, 0
            self._by.clear()
        self._of = kept


class Voice:
    """The promises of a node as they concern one of its peers, at a time that is set before each use."""

    def __init__(self, promises: Promises, peer: NodeId) -> None:
        self._promises, self._peer = promises, peer
        self.now_ms = 0

    def make(self, district: str, feed: FeedId, ours: Heads, theirs: Heads) -> None:
        """The peer told what it holds of a feed."""
        self._promises.make(self._peer, district, feed, ours, theirs, self.now_ms)

    def may_ask(self) -> bool:
        """Whether to let the peer send."""
        return self._promises.may_ask(self._peer, self.now_ms)

    def heard(self) -> None:
        """The peer told what it holds."""
        self._promises.heard(self._peer)

    def by_others(self, district: str) -> dict[FeedId, tuple[int, Link]]:
        """What others are about to send of a district."""
        return self._promises.by_others(self._peer, district, self.now_ms)

    def end(self) -> None:
        """The round with the peer is over."""
        self._promises.end(self._peer)


def _end(heads: Heads) -> int:
    return heads[-1][0] if heads else 0
