"""rxledger, embedded: the prescription ledger that goes on when the network is gone.

A host imports from here only. These names keep their meaning within a major version.
"""

from ledger.anomalies import Anomaly
from ledger.clock import Clock, SystemClock
from ledger.commands import IssuePrescription, Supply
from ledger.entropy import Entropy, SeededEntropy, SystemEntropy
from ledger.errors import (
    CommandRefused,
    InvalidInput,
    KeysLocked,
    LedgerBug,
    NotFound,
    NotPermitted,
    PeerFault,
    RxLedgerError,
    StoreBusy,
    StoreDamaged,
    StoreFull,
)
from ledger.events import (
    Basis,
    Coded,
    ControlledClass,
    Criticality,
    Level,
    Origin,
    Patient,
    Person,
    PersonRole,
    Product,
    ReversalKind,
)
from ledger.guard import Decision, Horizon, Reason, Verdict
from ledger.history import FillState, FillStatus, Prescription, Status, View
from ledger.identity import NodeRole, Realm, RealmKind
from ledger.ids import DocumentId, FeedId, Link, NodeId, RealmId
from ledger.keystore import Passphrase, UnlockFile
from ledger.ledger import Answer, Ledger
from ledger.node import Receipt
from ledger.placement import CustodyPlan
from ledger.policy import Policy

__all__ = [
    "Anomaly",
    "Answer",
    "Basis",
    "Clock",
    "Coded",
    "CommandRefused",
    "ControlledClass",
    "Criticality",
    "CustodyPlan",
    "Decision",
    "DocumentId",
    "Entropy",
    "FeedId",
    "FillState",
    "FillStatus",
    "Horizon",
    "InvalidInput",
    "IssuePrescription",
    "KeysLocked",
    "Ledger",
    "LedgerBug",
    "Level",
    "Link",
    "NodeId",
    "NodeRole",
    "NotFound",
    "NotPermitted",
    "Origin",
    "Passphrase",
    "Patient",
    "PeerFault",
    "Person",
    "PersonRole",
    "Policy",
    "Prescription",
    "Product",
    "Realm",
    "RealmId",
    "RealmKind",
    "Reason",
    "Receipt",
    "ReversalKind",
    "RxLedgerError",
    "SeededEntropy",
    "Status",
    "StoreBusy",
    "StoreDamaged",
    "StoreFull",
    "Supply",
    "SystemClock",
    "SystemEntropy",
    "UnlockFile",
    "Verdict",
    "View",
]
