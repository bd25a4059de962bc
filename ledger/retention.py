"""Retention: the content of retired documents goes from this disk; their places in the chains stay (R2).

What is retired, governance alone decides (`RetentionSet`): such documents fold to one constant, whether their content is
held or not, so that no node's state depends on when another dropped it (R4, R9's only exception). Dropping is the one act
that nothing takes back, so it is done late and by two rules that no single key can bend:

- a month is dropped only after governance has retired it for `PAUSE_DAYS` as this node saw it, without a break: a
  `RetentionSet` by a stolen key is revoked before that;
- nothing issued within `KEPT_MONTHS` is dropped, whatever governance says: it may still be dispensed.

The work is done in slices, each one transaction; a kill between two costs nothing. Every node does it that can read
governance, relays included.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from ledger.ids import month_number
from ledger.node import Node

__all__ = ["DOCUMENTS_AT_ONCE", "KEPT_MONTHS", "PAUSE_DAYS", "drop_retired"]

DAY_MS = 86_400_000
PAUSE_DAYS = 30
"""Time for a `RetentionSet` that was a mistake, or a thief's, to be seen and revoked."""
KEPT_MONTHS = 24
"""A prescription is valid for a year; the second covers late registration and the year's questions about it."""
DOCUMENTS_AT_ONCE = 64
"""In one transaction: some ten milliseconds, in which a till waits."""
PASS_DAYS = 1
"""Between passes over what was dropped before: entries of retired documents unknown till then may have come."""
_MEMORY = "retention"


class _Memory(Struct, frozen=True, array_like=True):
    """What is noted of the work."""

    cleared: int = 0
    """What was issued before this month has been retired for the whole pause."""
    waiting: int = 0
    """The month whose pause runs, if it is another."""
    since_ms: int = 0
    """When that one's began."""
    cursor: bytes = b""
    """The document dropped last in the present pass; empty: none is under way."""
    passed_ms: int = 0
    """When the last pass ended."""


def drop_retired(node: Node, *, limit: int = DOCUMENTS_AT_ONCE) -> int:
    """Drop the content of up to `limit` retired documents; returns of how many.

    Raises:
        StoreDamaged: what was to be dropped is not what was written; nothing is dropped then.
    """
    with node.lock:
        now_ms = node.now_ms()
        noted = _noted(node)
        memory = _seen(noted, node.reader.governance().retired_before, now_ms)
        before = min(memory.cleared, _month_of(now_ms) - KEPT_MONTHS)
        # A clock that was set back must not end the work for as long as it had been ahead.
        passed = not memory.cursor and 0 <= now_ms - memory.passed_ms < PASS_DAYS * DAY_MS
        if before <= 0 or passed:
            _note(node, noted, memory)
            return 0
        documents = node.store.undropped(memory.cursor, before, limit)
        with node.transaction():
            for document in documents:
                node.store.drop_content(document)
            if len(documents) < limit:
                memory = msgspec.structs.replace(memory, cursor=b"", passed_ms=now_ms)
            else:
                memory = msgspec.structs.replace(memory, cursor=bytes(documents[-1]))
            _note(node, noted, memory)
        return len(documents)


def _month_of(now_ms: int) -> int:
    return month_number(datetime.fromtimestamp(now_ms / 1000, UTC).date())


def _seen(memory: _Memory, retired: int, now_ms: int) -> _Memory:
    """What is noted, after a look at what is retired now.

    One pause at a time: if retention moves on every month, the next month's begins when the last one's is over. What is
    retired no longer (a revocation) is no longer cleared either, and begins anew.
    """
    replace = msgspec.structs.replace
    if memory.cleared < memory.waiting <= retired and now_ms - memory.since_ms >= PAUSE_DAYS * DAY_MS:
        memory = replace(memory, cleared=memory.waiting)
    if retired < memory.waiting:
        return replace(memory, cleared=min(memory.cleared, retired), waiting=retired, since_ms=now_ms)
    if memory.waiting == memory.cleared < retired or memory.since_ms > now_ms:
        return replace(memory, waiting=retired, since_ms=now_ms)
    return memory


def _noted(node: Node) -> _Memory:
    noted = node.store.get_meta(_MEMORY)
    return _Memory() if noted is None else msgspec.msgpack.decode(noted, type=_Memory)


def _note(node: Node, before: _Memory, memory: _Memory) -> None:
    if memory != before:
        with node.transaction():
            node.store.put_meta(_MEMORY, msgspec.msgpack.encode(memory))
