"""What the node asks of any way to other nodes: a link that carries small messages, and may lose every one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct

__all__ = ["Link", "LinkState", "LinkStatus", "Received"]

Received = Callable[[str, str, bytes], None]
"""Called with the link's name, the subject and the payload of each message that arrives; must return at once."""


class LinkState(enum.StrEnum):
    """Whether messages can be given to a link now."""

    DOWN = "down"
    UP = "up"


class LinkStatus(Struct, frozen=True, kw_only=True):
    """What an operator is told of a link."""

    name: str
    state: LinkState
    server: str = ""
    """The server it is connected to; empty when down."""
    since_ms: int = 0
    """When it came into this state."""
    reason: str = ""
    """Why it is down, in words."""
    reconnects: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    refused: int = 0
    """Messages not taken because the link was down or behind, and subjects that the server did not permit."""


class Link(Protocol):
    """One way to other nodes. It promises nothing: messages may be lost, repeated or reordered."""

    name: str

    def status(self) -> LinkStatus: ...
    def send(self, subject: str, payload: bytes) -> bool:
        """Hand over one message; False if the link is down or behind. Never blocks, never keeps one for later."""
        ...

    def room(self) -> int:
        """How many bytes `send` would take now; 0 if down or behind. Into an idle link one larger message fits too."""
        ...

    def below(self) -> int:
        """Bytes handed over that may still be overtaken by nothing."""
        ...

    def listen(self, subjects: Iterable[str]) -> None:
        """Listen to these subjects and no others, now and after every reconnect."""
        ...

    async def run(self) -> None:
        """Connect, stay connected, come back; until cancelled."""
        ...
