"""What came in and waits to be looked at: bounded, and in turn by sender, so that nobody's flood delays anybody else.

Who sent a message is what it says, unproven: that takes no more than a look at its first bytes. Whoever speaks in another's
name can delay that one alone, by what refusing costs.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from msgspec import Struct

from nodes.wire import Kind

__all__ = ["INFLOW_BYTES_MAX", "INFLOW_MESSAGES_MAX", "Inflow", "Received", "sender_of"]

INFLOW_MESSAGES_MAX = 16_384
"""Signs of life of ten thousand nodes at once."""
INFLOW_BYTES_MAX = 32 * 1024 * 1024
"""What may wait to be looked at: four seconds of the quickest import."""
QUEUES = 1024
"""Senders share a queue beyond this, by a hash that differs from process to process: many names make no long search."""
_LETTER, _TOLD = bytes([Kind.LETTER]), (bytes([Kind.LIVE]), bytes([Kind.HERE]))
_LETTER_HEAD = 1 + 16
"""Kind, id of the sender."""
_TOLD_HEAD = 1 + 4 + 16
"""Kind, what MessagePack puts before the first id: of the feed, or of who gives a sign of life (`nodes.wire`)."""


class Received(Struct, frozen=True):
    """One message of a link."""

    link: str
    subject: str
    payload: bytes


def sender_of(payload: bytes) -> bytes:
    """By what a message is put in turn: letters by their sender, new entries by their feed, the rest by its kind."""
    kind = payload[:1]
    if kind == _LETTER:
        return payload[:_LETTER_HEAD]
    return payload[:_TOLD_HEAD] if kind in _TOLD else kind


class Inflow:
    """Queues by sender. Used by one thread."""

    def __init__(self, *, messages_max: int = INFLOW_MESSAGES_MAX, bytes_max: int = INFLOW_BYTES_MAX) -> None:
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._queues: OrderedDict[int, deque[Received]] = OrderedDict()
        """The first has its turn next."""
        self._sizes: dict[int, int] = {}
        self._count = self._bytes = 0
        self.lost = 0
        """Messages that came in faster than they could be looked at."""

    def __len__(self) -> int:
        return self._count

    def put(self, received: Received) -> None:
        """Take one in; with no room left, the newest of whoever has most waiting is lost."""
        sender, size = hash(sender_of(received.payload)) % QUEUES, len(received.payload)
        while self._count >= self._messages_max or self._bytes + size > self._bytes_max:
            # Only where there is no room, so that it costs nothing otherwise.
            longest = max(self._sizes, key=self._weight) if self._sizes else sender
            if longest == sender or self._weight(sender) + 1 >= self._weight(longest):
                self.lost += 1
                return
            self._remove(longest, self._queues[longest].pop())
            self.lost += 1
        if sender not in self._queues:
            self._queues[sender], self._sizes[sender] = deque(), 0
        self._queues[sender].append(received)
        self._sizes[sender] += size
        self._count += 1
        self._bytes += size

    def take(self, count: int, each: int) -> list[Received]:
        """The next messages, one of each sender in turn, at most `count` and at most `each` of one sender."""
        taken: list[Received] = []
        turns: dict[int, int] = {}
        while len(taken) < count:
            sender = next((s for s in self._queues if turns.get(s, 0) < each), None)
            if sender is None:
                break
            turns[sender] = turns.get(sender, 0) + 1
            received = self._queues[sender].popleft()
            self._queues.move_to_end(sender)
            self._remove(sender, received)
            taken.append(received)
        return taken

    def _weight(self, sender: int) -> int:
        """How much of the room a sender has: by messages or bytes, whichever is scarcer."""
        queue = self._queues.get(sender)
        if queue is None:
            return 0
        return max(len(queue) * (self._bytes_max // self._messages_max), self._sizes[sender])

    def _remove(self, sender: int, received: Received) -> None:
        self._count -= 1
        self._bytes -= len(received.payload)
        self._sizes[sender] -= len(received.payload)
        if not self._queues[sender]:
            del self._queues[sender], self._sizes[sender]
