"""The owner's local socket: one process writes a store, others on the same machine write through it."""

from nodes.local.client import OwnerClient, RemoteLedger
from nodes.local.faults import OutcomeUnknown, OwnerGone
from nodes.local.opening import SOCKET_FILE, connect_or_open
from nodes.local.server import OwnerSocket

__all__ = [
    "SOCKET_FILE",
    "OutcomeUnknown",
    "OwnerClient",
    "OwnerGone",
    "OwnerSocket",
    "RemoteLedger",
    "connect_or_open",
]
