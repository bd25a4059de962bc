"""``rxledger daemon --check``: what a daemon would trip over, found before it is started. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ledger import Ledger
from ledger.errors import InvalidInput, NotFound
from ledger.keystore import Unlock
from ledger.node import STORE_FILE
from nodes.daemon.config import DaemonConfig
from nodes.daemon.readiness import readiness_of

__all__ = ["checked"]


def checked(config: DaemonConfig, unlock: Unlock) -> Iterator[str]:
    """Check one thing after the other; a line for each that holds.

    Raises:
        NotFound, InvalidInput, KeysLocked, StoreDamaged: the first that does not.
    """
    if not (config.node / STORE_FILE).exists():
        raise NotFound(f"node: no node in {config.node}", advice="make one with `rxledger node enrol`")
    with Ledger.open(config.node, unlock, writable=False) as ledger:
        identity = ledger.node.identity
        yield f"node {identity.node.hex()}: {identity.role.value} {identity.name}, unlocked"
        ready = readiness_of(ledger, config.readiness)
        if ready.not_obeyed:
            raise InvalidInput(
                f"{ready.not_obeyed[0]}: earlier than policy's hours", advice="a site may only wait longer"
            )
        yield f"level {ready.level.value} after {ready.agency_silence_ms // 1000} s without the agency"
        own = [peer for peer in config.peers.ids() if peer == identity.node]
        if own:
            raise InvalidInput("peers.nodes: this node itself is among its peers", advice="leave it out")
    for link in config.links:
        limit = f"{link.bandwidth_bits_per_s} bit/s" if link.bandwidth_bits_per_s else "no limit"
        kind = ", slow" if link.slow else ""
        safe = "TLS" if link.tls else "NO TLS: who talks to whom can be seen"
        yield f"link {link.name}: {len(link.urls)} servers, {safe}, {limit}{kind}"
    if not config.links and config.spool is None:
        raise InvalidInput(
            "links: neither a link nor a spool folder is configured", advice="give one of them"
        )
    if config.spool is not None:
        _writable(config.spool.directory, "spool.directory")
        yield f"spool {config.spool.directory}: outbox for {config.spool.outbox}"
    if config.nightly is not None:
        yield f"nightly window at {config.nightly.start}, {config.nightly.duration_minutes} min"
        if config.nightly.backup_directory is not None:
            yield _backups(config.nightly.backup_directory, config.node)
    if config.socket is not None:
        _writable(config.socket.parent, "socket")
        yield f"socket {config.socket}"


def _backups(directory: Path, node: Path) -> str:
    place = directory.resolve()
    if place == node.resolve() or node.resolve() in place.parents:
        raise InvalidInput(
            "nightly.backup_directory: it lies within the node's directory", advice="give one on another disk"
        )
    there = _writable(directory, "nightly.backup_directory")
    same = (
        " (on the same file system as the node: lost with it)"
        if there.stat().st_dev == node.stat().st_dev
        else ""
    )
    return f"backups in {directory}{same}"


def _writable(directory: Path, key: str) -> Path:
    """The nearest directory that exists, if this user may write there."""
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InvalidInput(
            f"{key}: this user cannot write in {there}", advice="give the node's user that directory"
        )
    return there
