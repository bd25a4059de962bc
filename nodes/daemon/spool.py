"""A folder as a link (USB, sneakernet): bundles that a courier brought are taken in, bundles for one are written.

``inbox`` what was brought, ``outbox`` what is to be carried, ``done`` and ``refused`` what became of what was brought.
Taken in twice, a bundle does no harm, so a crash at any point costs a repetition at most. See `nodes.daemon.inbox` and
`nodes.daemon.outbox` for what each promises.
"""

from __future__ import annotations

from collections.abc import Mapping

from ledger import Ledger
from ledger.ids import NodeId
from nodes.daemon.config import SpoolConfig
from nodes.daemon.inbox import Inbox
from nodes.daemon.outbox import Outbox, Sealer
from nodes.daemon.spooling import SpoolReport
from nodes.ports import Frontier, Replica

__all__ = ["Spool", "SpoolReport", "sealer_of", "spool_of"]


class Spool:
    """One spool folder. Used by one thread of the store's owner at a time."""

    def __init__(self, config: SpoolConfig, replica: Replica, sealer: Sealer) -> None:
        self._inbox = Inbox(config, replica, sealer.realm)
        self._outbox = Outbox(config, replica, sealer)

    def take_in(self, now_ms: int) -> SpoolReport:
        """See `Inbox.take_in`."""
        return self._inbox.take_in(now_ms)

    def write_out(self, peers: Mapping[NodeId, Mapping[str, Frontier]], now_ms: int) -> SpoolReport:
        """See `Outbox.write_out`."""
        return self._outbox.write_out(peers, now_ms)


def sealer_of(ledger: Ledger) -> Sealer:
    """A ledger's node as the sealer of bundles."""
    node = ledger.node
    return Sealer(
        realm=node.realm, node=node.identity.node, key=node.keys.signing, certificates=node.identity.certificates
    )  # fmt: skip


def spool_of(config: SpoolConfig, ledger: Ledger) -> Spool:
    """The spool folder of an open ledger. After something new was taken in, let it take its keys and index."""
    return Spool(config, ledger.exchange, sealer_of(ledger))
