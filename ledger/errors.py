"""Every error that this library raises, in one tree, cut first by whose fault it is.

::

    RxLedgerError
    ├── LedgerBug            ours: a broken invariant; never caught, please report
    ├── CommandRefused       the caller's: nothing was written; says what to do
    │   ├── InvalidInput         a field is malformed or out of bounds
    │   ├── NotPermitted         role, policy or custody does not allow it
    │   ├── NotFound             no such prescription, fill, node, anomaly, key
    │   └── StoreBusy            another process owns the store for writing
    ├── PeerFault            a peer's bytes: refused, nothing of them was kept
    │   ├── Malformed            not decodable, not canonical
    │   ├── LimitExceeded        larger, deeper or more than a named limit
    │   ├── NotAuthentic         signature, certificate, role or chain does not hold
    │   ├── OtherRealm           belongs to another realm
    │   └── VersionUnknown       written by a newer version; upgrade to read it
    ├── StoreDamaged         the disk's: names what is damaged; restore from backup
    ├── StoreFull            the disk's: no room; reads and outgoing replication go on
    ├── KeysLocked           the node's keys cannot be unlocked
    └── Unreadable           content is held but its key is not (or no longer)

Each has a stable ``code``, a message without any patient identifier or key (R13), and ``advice``
for the operator. A peer's input ends in `PeerFault`, never in `LedgerBug` or a bare ``Exception`` (R15).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CommandRefused",
    "InvalidInput",
    "KeysLocked",
    "LedgerBug",
    "LimitExceeded",
    "Malformed",
    "NotAuthentic",
    "NotFound",
    "NotPermitted",
    "OtherRealm",
    "PeerFault",
    "RxLedgerError",
    "StoreBusy",
    "StoreDamaged",
    "StoreFull",
    "Unreadable",
    "VersionUnknown",
]


class RxLedgerError(Exception):
    """Root of all errors of this library; not raised itself."""

    code: ClassVar[str] = "error"
    default_advice: ClassVar[str] = ""

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = self.default_advice if advice is None else advice

    def __str__(self) -> str:
        return f"{self.message} ({self.advice})" if self.advice else self.message


class LedgerBug(RxLedgerError):
    """An invariant of ours does not hold. Never caught by this library."""

    code = "bug"
    default_advice = "this is a fault in rxledger; stop the node and report it"


class CommandRefused(RxLedgerError):
    """The caller asked for something that cannot be done; nothing was written."""

    code = "refused"


class InvalidInput(CommandRefused):
    """A field of a command is malformed or out of bounds. The message names the field."""

    code = "invalid-input"


class NotPermitted(CommandRefused):
    """Role, policy or custody does not allow the act. `reasons` are the guard's, if it decided."""

    code = "not-permitted"

    def __init__(self, message: str, *, reasons: tuple[str, ...] = (), advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.reasons = reasons


class NotFound(CommandRefused):
    """The thing named is not held here. It may exist elsewhere (R11)."""

    code = "not-found"


class StoreBusy(CommandRefused):
    """Another process owns this store for writing."""

    code = "store-busy"
    default_advice = "stop the other process or open the store read-only"


class PeerFault(RxLedgerError):
    """Bytes from outside were refused; nothing of them was kept."""

    code = "peer-fault"


class Malformed(PeerFault):
    """Not decodable, or not in the one canonical form."""

    code = "malformed"


class LimitExceeded(PeerFault):
    """Larger, deeper or more than a named limit allows."""

    code = "limit-exceeded"


class NotAuthentic(PeerFault):
    """A signature, certificate, role or chain does not hold."""

    code = "not-authentic"


class OtherRealm(PeerFault):
    """Belongs to another realm; realms never mix."""

    code = "other-realm"


class VersionUnknown(PeerFault):
    """Written by a newer version of the software."""

    code = "version-unknown"
    default_advice = "upgrade this node to read it"


class StoreDamaged(RxLedgerError):
    """The store on disk is not what was written. `where` names file, table or entry."""

    code = "store-damaged"
    default_advice = "stop the node, keep the files, restore from backup and catch up from peers"

    def __init__(self, message: str, *, where: str = "", advice: str | None = None) -> None:
        super().__init__(f"{message}: {where}" if where else message, advice=advice)
        self.where = where


class StoreFull(RxLedgerError):
    """No room on disk. Nothing was written; reading goes on; writing resumes when there is room."""

    code = "store-full"
    default_advice = "free space on the disk and try again"


class KeysLocked(RxLedgerError):
    """The node's private keys cannot be unlocked with what was given."""

    code = "keys-locked"
    default_advice = "check the unlock file or passphrase of this node"


class Unreadable(RxLedgerError):
    """Content is held, but the key of its epoch or document is not."""

    code = "unreadable"
