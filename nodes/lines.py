"""The links of a node as its conversations see them: whether they are up, what they may carry, what waits for each.

Two queues a link: what is urgent goes at once, whatever the pace, and leaves a debt; the rest goes when there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from msgspec import Struct

from nodes.flow import Pace

__all__ = ["QUEUE_MAX", "LinkSettings", "Lines", "Outgoing"]

QUEUE_MAX = 4096
"""Messages waiting for a link, in either queue: every peer of a hub answered once. More are lost, which costs time only."""


class LinkSettings(Struct, frozen=True, kw_only=True):
    """What is known of a link beforehand."""

    name: str
    bits_per_second: int | None = None
    """What it may carry; None: whatever it can."""
    thin: bool = False
    """It is slow enough that every kilobyte counts."""


class Outgoing(Struct, frozen=True):
    """One message for a link."""

    link: str
    subject: str
    payload: bytes
    urgent: bool = True
    """It goes ahead of what is not."""


class _Line:
    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.up = False
        self.pace = Pace(settings.bits_per_second)
        self.urgent: deque[Outgoing] = deque()
        self.rest: deque[Outgoing] = deque()


class Lines:
    """All links of a node, the preferred first."""

    def __init__(self, links: Iterable[LinkSettings]) -> None:
        self._lines = {link.name: _Line(link) for link in links}

    def up(self, name: str) -> bool:
        """Note that a link came up; False if it was."""
        line = self._lines[name]
        if line.up:
            return False
        line.up, line.pace = True, Pace(line.settings.bits_per_second)
        return True

    def down(self, name: str) -> None:
        """Note that a link went down: what waits for it is dropped."""
        line = self._lines[name]
        line.up = False
        line.urgent.clear()
        line.rest.clear()

    def names(self) -> list[str]:
        """Links that are up."""
        return [name for name, line in self._lines.items() if line.up]

    def is_up(self, name: str) -> bool:
        """Whether a link is up; one that does not exist is not."""
        return name in self._lines and self._lines[name].up

    def is_thin(self, name: str) -> bool:
        """Whether every kilobyte counts on a link."""
        return name in self._lines and self._lines[name].settings.thin

    def post(self, name: str, subject: str, payload: bytes, *, urgent: bool) -> None:
        """Queue a message; lost if the link is down or too much waits for it."""
        line = self._lines[name]
        queue = line.urgent if urgent else line.rest
        if line.up and len(queue) < QUEUE_MAX:
            queue.append(Outgoing(name, subject, payload, urgent))

    def take(self, now_ms: int) -> Iterator[Outgoing]:
        """What is to go now: all that is urgent, the rest as far as the pace allows."""
        for line in self._lines.values():
            line.pace.ready(now_ms)  # Its time runs from now on, also if all that goes is urgent.
            while line.urgent:
                message = line.urgent.popleft()
                line.pace.spent(len(message.payload))
                yield message
            while line.rest and line.pace.ready(now_ms):
                message = line.rest.popleft()
                line.pace.spent(len(message.payload))
                yield message

    def ready(self, name: str, now_ms: int) -> bool:
        """Whether a link's pace allows more now."""
        return self._lines[name].pace.ready(now_ms)

    def spent(self, name: str, size: int) -> None:
        """Bytes were sent over a link beside its queues."""
        self._lines[name].pace.spent(size)

    def wait_ms(self) -> int | None:
        """How long until a pace allows what waits for it; None: none holds anything up."""
        waits = [line.pace.wait_ms() for line in self._lines.values() if line.up]
        return min((wait for wait in waits if wait), default=None)
