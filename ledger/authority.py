"""What a node's role lets it do, and what a revocation takes away (R14).

A supply of medicine is a physical fact: it can lack authority, it cannot vanish (R9). So this module says *lacks*,
never *drop*.
"""

from __future__ import annotations

from enum import StrEnum

from ledger import events as e
from ledger.facts import Branches, Fact
from ledger.governance import GovernanceView
from ledger.identity import NodeRole
from ledger.ids import NodeId

__all__ = ["Lack", "knew_of_revocation", "lack_of_authority"]

_CARE: tuple[type[e.Event], ...] = (
    e.PrescriptionHeld,
    e.ExternalIdAttached,
    e.AccessBlocked,
    e.ConsentGiven,
    e.AnomalyResolved,
)
_FEED: tuple[type[e.Event], ...] = (
    e.CustodyTransferred,
    e.CustodyDelegated,
    e.CustodyDelegationEnded,
    e.FeedClosed,
)
_MAY: dict[NodeRole, frozenset[type[e.Event]]] = {
    NodeRole.PRESCRIBER: frozenset(
        {e.PrescriptionIssued, e.PrescriptionAmended, e.PrescriptionResumed, e.PrescriptionCancelled, *_CARE, *_FEED}
    ),
    NodeRole.PHARMACY: frozenset(
        {e.PrescriptionIssued, e.Dispensed, e.NotDispensed, e.DispensingReversed, e.DispensingCorrected,
         e.SupplyLinked, *_CARE, *_FEED}
    ),
    NodeRole.AGENCY: frozenset(
        {e.PrescriptionIssued, e.PrescriptionResumed, e.PrescriptionCancelled, e.CustodyRecovered, *_CARE, *_FEED}
    ),
    NodeRole.AUTHORITY: frozenset({e.AnomalyResolved, *_FEED}),
    NodeRole.RELAY: frozenset(),
}  # fmt: skip
"""Governance events are absent: the governance chain has its own fold."""
_PHARMACY_ORIGINS = (e.Origin.PAPER, e.Origin.TELEPHONE)


class Lack(StrEnum):
    """Why a fact lacks authority."""

    OUT_OF_ROLE = "out-of-role"
    REVOKED = "revoked"


def lack_of_authority(fact: Fact, governance: GovernanceView, branches: Branches) -> Lack | None:
    """Why a fact lacks authority, or None."""
    event = fact.event
    if event is not None:
        if type(event) not in _MAY[fact.role]:
            return Lack.OUT_OF_ROLE
        if isinstance(event, e.PrescriptionIssued):
            if fact.role is NodeRole.PHARMACY and event.origin not in _PHARMACY_ORIGINS:
                return Lack.OUT_OF_ROLE
            if fact.role is NodeRole.AGENCY and event.origin is not e.Origin.REGISTER:
                return Lack.OUT_OF_ROLE
    revocation = governance.revocation(NodeId(fact.author))
    if revocation is None:
        return None
    end = revocation.good.get(fact.feed)
    if end is None or fact.sequence > end[0]:
        return Lack.REVOKED
    forked_at = branches.forked_at.get(fact.feed)
    if forked_at is not None and fact.sequence >= forked_at and fact.id != end[1]:
        # On a forked feed only the branch of the named link is good; without that link's place, nothing past the fork.
        return Lack.REVOKED
    return None


def knew_of_revocation(fact: Fact, governance: GovernanceView) -> bool:
    """Whether the author wrote this knowing of a governance chain that had already revoked it."""
    revocation = governance.revocation(NodeId(fact.author))
    if revocation is None or fact.event is None:
        return False
    position = governance.position(fact.event.governance)
    return position is not None and position >= revocation.position
