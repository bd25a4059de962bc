"""What a node's role lets it do, and what a revocation takes away (R14).

A supply of medicine is a physical fact: it can lack authority, it cannot vanish (R9). So this module says *lacks*,
never *drop*.
"""

from __future__ import annotations

from enum import StrEnum

from ledger import events as e
from ledger.facts import Branches, Fact
from ledger.governance import GovernanceView, Revocation
from ledger.identity import NodeRole

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
    for who in (fact.author, fact.admitted_by):
        revocation = None if who is None else governance.revocation(who)
        if revocation is not None and not _is_good(fact, revocation, branches):
            return Lack.REVOKED
    return None


def _is_good(fact: Fact, revocation: Revocation, branches: Branches) -> bool:
    """Whether a fact stands at or before the end that a revocation names for its feed.

    The revocation of a district authority names the feeds of the nodes it admitted as well: whoever is admitted with a
    stolen key afterwards has no authority.
    """
    end = revocation.good.get(fact.feed)
    if end is None or fact.sequence > end[0]:
        return False
    forked_at = branches.forked_at.get(fact.feed)
    # On a forked feed only the branch of the named link is good; without that link's place, nothing past the fork.
    return forked_at is None or fact.sequence < forked_at or fact.id == end[1]


def knew_of_revocation(fact: Fact, governance: GovernanceView) -> bool:
    """Whether the author wrote this knowing of a governance chain that had already revoked it."""
    if fact.event is None:
        return False
    position = governance.position(fact.event.governance)
    known = [governance.revocation(who) for who in (fact.author, fact.admitted_by) if who is not None]
    return position is not None and any(r is not None and position >= r.position for r in known)
