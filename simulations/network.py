"""A simulated network of buses: what one machine posts on a bus, those that listen get: late, lost, twice, changed, or not.

Messages are the unit, as with NATS: below it TCP turns bit errors into loss, and a bus that lies changes whole messages.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from msgspec import Struct

from nodes.lines import Outgoing

__all__ = ["Envelope", "Network", "Quality"]

MESSAGE_OVERHEAD_BYTES = 14
"""Of the protocol, beside subject and payload."""
KEPT_FOR_REPLAY = 512
"""Messages that a bus remembers, to say them again later."""
QUEUE_MS_MAX = 60_000
"""What a slow link queues before it drops."""


class Quality(Struct, kw_only=True):
    """How bad the network is. Rates are shares of messages."""

    delay_ms: float = 2.0
    """Mean; the tail is long."""
    jitter: float = 0.2
    drop: float = 0.0
    repeat: float = 0.0
    flip: float = 0.0
    """One bit of the payload changed."""
    replay: float = 0.0
    """Some earlier message said again, to whoever it was to."""
    swap: float = 0.0
    """Delivered under another's subject."""


class Envelope(Struct):
    """A message on its way to one machine."""

    to: str
    bus: str
    subject: str
    payload: bytes


class Network:
    """All buses and who is on them."""

    def __init__(self, random: Random, now_ms: Callable[[], int], hits: Counter[str]) -> None:
        self._random, self._now_ms, self._hits = random, now_ms, hits
        self.quality = Quality()
        self.down: set[str] = set()
        """Buses whose server is down."""
        self.cut: set[tuple[str, str]] = set()
        """From whom to whom nothing goes through."""
        self.thin: dict[str, int] = {}
        """Machine → bits a second of its line."""
        self._free_ms: dict[str, float] = {}
        self._queue: list[tuple[float, int, Envelope]] = []
        self._count = 0
        self._past: list[Envelope] = []
        self.carried = 0
        self.bytes: Counter[str] = Counter()

    def next_ms(self) -> float | None:
        """When the next message arrives."""
        return self._queue[0][0] if self._queue else None

    def pop(self) -> Envelope:
        """The next message."""
        return heapq.heappop(self._queue)[2]

    def post(self, sender: str, message: Outgoing, listeners: Iterable[str]) -> None:
        """Carry a message to those who listen to its subject on its bus."""
        if message.link in self.down:
            return
        size = len(message.subject) + len(message.payload) + MESSAGE_OVERHEAD_BYTES
        self.bytes[sender] += size
        at = float(self._now_ms())
        bits = self.thin.get(sender)
        if bits is not None:
            self._hits["N8 slow link"] += 1
            at = max(at, self._free_ms.get(sender, 0.0)) + size * 8000 / bits
            if at - self._now_ms() > QUEUE_MS_MAX:
                return
            self._free_ms[sender] = at
        for to in listeners:
            if (sender, to) in self.cut:
                self._hits["N1 cut"] += 1
                if (to, sender) not in self.cut:
                    self._hits["N2 one-way cut"] += 1
                continue
            self._carry(Envelope(to, message.link, message.subject, message.payload), at)

    def _carry(self, envelope: Envelope, at: float) -> None:
        quality, random = self.quality, self._random
        if random.random() < quality.drop:
            self._hits["N7 drop"] += 1
            return
        if random.random() < quality.flip:
            self._hits["N10 bit flip"] += 1
            payload = bytearray(envelope.payload)
            payload[random.randrange(len(payload))] ^= 1 << random.randrange(8)
            envelope = Envelope(envelope.to, envelope.bus, envelope.subject, bytes(payload))
        if self._past and random.random() < quality.swap:
            self._hits["N11 swapped subject"] += 1
            envelope = Envelope(
                envelope.to, envelope.bus, random.choice(self._past).subject, envelope.payload
            )
        self._put(envelope, at)
        if random.random() < quality.repeat:
            self._hits["N6 repeat"] += 1
            self._put(envelope, at + random.expovariate(1 / 5000))
        if self._past and random.random() < quality.replay:
            self._hits["N6 replay"] += 1
            self._put(random.choice(self._past), at)
        if len(self._past) < KEPT_FOR_REPLAY:
            self._past.append(envelope)
        else:
            self._past[random.randrange(KEPT_FOR_REPLAY)] = envelope

    def _put(self, envelope: Envelope, at: float) -> None:
        delay = self.quality.delay_ms
        late = delay * (1 - self.quality.jitter) + random_tail(self._random, delay * self.quality.jitter)
        if self.quality.jitter > 1:
            self._hits["N4 delay"] += 1
        self._count += 1
        self.carried += 1
        arrival = at + late
        if self._queue and arrival < self._queue[-1][0]:
            self._hits["N5 reorder"] += 1
        heapq.heappush(self._queue, (arrival, self._count, envelope))

    def past(self) -> list[Envelope]:
        """Some of what was carried before."""
        return self._past

    def put_off(self, envelope: Envelope, until: float) -> None:
        """Keep a message for a machine that stands still."""
        self._count += 1
        heapq.heappush(self._queue, (until, self._count, envelope))

    def waits_for(self, to: str) -> bool:
        """Whether something is on its way to a machine."""
        return any(each[2].to == to for each in self._queue)

    def forget(self, to: str) -> None:
        """What was on its way to a machine that died is lost, as its connections are."""
        self._queue = [each for each in self._queue if each[2].to != to]
        heapq.heapify(self._queue)


def random_tail(random: Random, mean: float) -> float:
    """A delay with a long tail: now and then ten times the mean."""
    return random.expovariate(1 / mean) * (10 if random.random() < 0.01 else 1) if mean > 0 else 0.0
