"""The owner's local socket: one process writes a store, others on the same machine write through it."""

from nodes.local.client import OwnerClient
from nodes.local.faults import OutcomeUnknown, OwnerGone
from nodes.local.opening import SOCKET_FILE, connect_or_open
from nodes.local.server import OwnerSocket

__all__ = ["SOCKET_FILE", "OutcomeUnknown", "OwnerClient", "OwnerGone", "OwnerSocket", "connect_or_open"]
