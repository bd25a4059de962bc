"""Open a node whoever owns it: through the socket of the process that does, or by owning it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ledger import Clock, Entropy, Ledger
from ledger.errors import StoreBusy
from ledger.keystore import Unlock
from ledger.node import STORE_FILE, Node
from nodes.local.client import OwnerClient, SharedLedger
from nodes.local.server import SOCKET_FILE

__all__ = ["SOCKET_FILE", "connect_or_open", "owner_of"]

WAIT_SECONDS = 10.0
"""How long a store may be owned by a process that does not listen: one that starts, or stops, or a short command."""
PAUSE_SECONDS = 0.02
"""Between two tries."""


def owner_of(directory: Path, *, entropy: Entropy | None = None) -> OwnerClient | None:
    """A connection to the process that owns a node's store; None if none listens.

    Raises:
        NotPermitted, VersionUnknown: one does, but not for this user or version.
    """
    store = directory / STORE_FILE
    user = store.stat().st_uid if store.exists() else None
    client = OwnerClient(directory / SOCKET_FILE, user=user, entropy=entropy)
    return client if client.connect() else None


def connect_or_open(
    directory: Path,
    unlock: Unlock,
    *,
    wait_s: float = WAIT_SECONDS,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Ledger:
    """Open a node for writing: through its owner if one listens, else as its owner.

    Args:
        directory: the node's.
        unlock: its unlock secret; needed both ways.
        wait_s: how long to try while another process holds the store and does not listen.
        clock: of the node.
        entropy: of the node, and for ids of commands.
        pause: waits between tries.

    Raises:
        KeysLocked, StoreDamaged: as their names say.
        StoreBusy: another process holds the store and lets nobody write through it.
        NotPermitted, VersionUnknown: the owner is not for this user or version.
    """
    deadline = time.monotonic() + wait_s
    while True:
        client = owner_of(directory, entropy=entropy)
        if client is not None:
            try:
                return SharedLedger(
                    Node.open(directory, unlock, writable=False, clock=clock, entropy=entropy), client
                )
            except BaseException:
                client.close()
                raise
        try:
            return Ledger.open(directory, unlock, clock=clock, entropy=entropy)
        except StoreBusy:
            if time.monotonic() >= deadline:
                raise
        pause(PAUSE_SECONDS)
