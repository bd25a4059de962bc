"""Two replicas in one process, joined by a link that a test can make as bad as it likes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from nodes.ports import Replica
from nodes.reconciliation import BUDGET_BYTES, Session

__all__ = ["ROUNDS", "STEPS_MAX", "BadLink", "synchronise"]

STEPS_MAX = 100_000
"""Messages in one conversation: more is a loop."""
ROUNDS = 8
"""Two for what differs and the check, one more for each branch of a fork that the other side cannot place."""

Link = Callable[[bytes], list[bytes]]
"""What a link makes of a message: lost, repeated, or as it was."""


class BadLink:
    """One direction of a link that drops, repeats and reorders at the given rates, until it is cut; seeded."""

    def __init__(
        self,
        seed: int,
        *,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        cut_after: int | None = None,
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - for repeatable faults, not for secrets.
        self._drop, self._duplicate, self._reorder = drop, duplicate, reorder
        self._left = cut_after
        self._late: list[bytes] = []
        self.delivered = 0
        """Messages that came through."""

    def __call__(self, message: bytes) -> list[bytes]:
        """What comes out at the far end when this goes in: late ones are overtaken by what follows, or lost."""
        out: list[bytes] = []
        if self._random.random() >= self._drop:
            copies = 2 if self._random.random() < self._duplicate else 1
            for _ in range(copies):
                (self._late if self._random.random() < self._reorder else out).append(message)
        while out and self._late and self._random.random() >= self._reorder:
            out.append(self._late.pop(self._random.randrange(len(self._late))))
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
        self.delivered += len(out)
        return out


def synchronise(
    one: Replica,
    other: Replica,
    *,
    link: Link | tuple[Link, Link] | None = None,
    rounds: int = ROUNDS,
    budget_bytes: int = BUDGET_BYTES,
) -> int:
    """Let two replicas talk until they are in step or the rounds are over; returns new entries on both sides together.

    Args:
        one: a replica.
        other: another.
        link: what becomes of messages; a pair is (towards `other`, towards `one`). None: a good link.
        rounds: conversations at most. On a good link an idle one ends them.
        budget_bytes: what each side sends in a round.
    """
    moved = 0
    towards_other, towards_one = link if isinstance(link, tuple) else (link, link)
    for turn in range(rounds):
        left, right = (Session(r, budget_bytes=budget_bytes, turn=turn) for r in (one, other))
        queue: deque[tuple[Session, bytes]] = deque((right, m) for m in left.open())
        queue.extend((left, m) for m in right.open())
        for _ in range(STEPS_MAX):
            if not queue:
                break
            receiver, message = queue.popleft()
            sender, way = (left, towards_other) if receiver is right else (right, towards_one)
            for delivered in way(message) if way is not None else [message]:
                queue.extend((sender, answer) for answer in receiver.receive(delivered))
        moved += left.received + right.received
        if left.in_step and right.in_step:
            break
        if link is None and turn and not (left.moved or right.moved):
            break
    return moved
