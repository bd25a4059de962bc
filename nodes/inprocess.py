"""Two replicas in one process, joined by a link that a test can make as bad as it likes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nodes.ports import Replica
from nodes.reconciliation import Session

__all__ = ["STEPS_MAX", "synchronise"]

STEPS_MAX = 100_000
"""Messages in one conversation: more is a loop."""

Link = Callable[[bytes], list[bytes]]
"""What a link makes of a message: lost, repeated, or as it was."""


def synchronise(one: Replica, other: Replica, *, link: Link | None = None, rounds: int = 2) -> int:
    """Let two replicas talk until neither has more to say; returns new entries on both sides together."""
    moved = 0
    for _ in range(rounds):
        left, right = Session(one), Session(other)
        queue: deque[tuple[Session, bytes]] = deque((right, m) for m in left.open())
        queue.extend((left, m) for m in right.open())
        for _ in range(STEPS_MAX):
            if not queue:
                break
            receiver, message = queue.popleft()
            sender = left if receiver is right else right
            for delivered in link(message) if link is not None else [message]:
                queue.extend((sender, answer) for answer in receiver.receive(delivered))
        moved += left.received + right.received
        if left.in_step and right.in_step:
            break
    return moved
