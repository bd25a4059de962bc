"""What a node's role lets it do, and what a revocation takes away (R14).

A supply of medicine is a physical fact: it can lack authority, it cannot vanish (R9). So this module says *lacks*,
never *drop*.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ledger import events as e
from ledger.facts import Causality, Fact
from ledger.governance import GovernanceView, Revocation
from ledger.identity import NodeRole
from ledger.ids import FeedId, Link, NodeId

__all__ = ["Lack", "Revocations", "may_write"]

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


def may_write(fact: Fact) -> bool:
    """Whether the author's role allows an event. One that is not understood is judged when it is."""
    event = fact.event
    if event is None:
        return True
    if isinstance(event, e.PrescriptionIssued):
        if fact.role is NodeRole.PHARMACY and event.origin not in _PHARMACY_ORIGINS:
            return False
        if fact.role is NodeRole.AGENCY and event.origin is not e.Origin.REGISTER:
            return False
    return type(event) in _MAY[fact.role]


class Revocations:
    """What roles and revocations take away among some facts, and who had to know of them."""

    def __init__(self, causality: Causality, governance: GovernanceView) -> None:
        self._causality, self._governance = causality, governance
        self._owners: dict[FeedId, tuple[NodeId, ...]] = {}
        self._aware: dict[int, int] = {}
        lacking: dict[Link, Lack] = {}
        for fact in causality.facts.values():
            owners = self._owners.setdefault(fact.feed, _vouching(fact))
            if not may_write(fact):
                lacking[fact.id] = Lack.OUT_OF_ROLE
            elif any(not self._is_good(fact, r) for r in self._of(owners)):
                lacking[fact.id] = Lack.REVOKED
        self.lacking: Mapping[Link, Lack] = lacking
        """Facts that lack authority, and why."""

    def _of(self, nodes: tuple[NodeId, ...]) -> list[Revocation]:
        return [r for r in map(self._governance.revocation, nodes) if r is not None]

    def is_revoked(self, feed: FeedId) -> bool:
        """Whether what a feed holds can no longer be acted on: its node, or who admitted it, was revoked.

        A feed that wrote nothing here is known by the revocation that names it.
        """
        owners = self._owners.get(feed)
        return bool(self._of(owners)) if owners is not None else self._governance.names_revoked(feed)

    def author(self, feed: FeedId) -> NodeId | None:
        """Whose feed it is, if it wrote something here."""
        owners = self._owners.get(feed)
        return None if owners is None else owners[0]

    def _is_good(self, fact: Fact, revocation: Revocation) -> bool:
        """Whether a fact is the end that a revocation names for its feed, or stands before it on its branch.

        The revocation of a district authority names the feeds of the nodes it admitted as well: whoever is admitted
        with a stolen key afterwards has no authority. Without the named entry at hand, what precedes it by number on a
        feed that is not forked is good; on a forked one, what precedes the fork.
        """
        end = revocation.good.get(fact.feed)
        if end is None or fact.sequence > end[0]:
            return False
        if fact.sequence == end[0]:
            return fact.id == end[1]
        branches, named = self._causality.branches, self._causality.facts.get(end[1])
        forked_at = branches.forked_at.get(fact.feed)
        if forked_at is None or fact.sequence < forked_at:
            return True
        return named is not None and branches.on_path(
            fact.feed, fact.branch, fact.sequence, named.branch, named.sequence
        )

    def were_known(self, fact: Fact) -> bool:
        """Whether a fact, or one in its causal past, cites governance that had already revoked its author."""
        known = self._causality.past(fact.id) | self._causality.mask((fact.id,))
        return any(known & self._aware_of(r.position) for r in self._of(_vouching(fact)))

    def _aware_of(self, position: int) -> int:
        """The facts whose authors cite that place of the chain, or a later one."""
        if position not in self._aware:
            self._aware[position] = self._causality.mask(
                fact.id
                for fact in self._causality.facts.values()
                if fact.event is not None
                and (self._governance.position(fact.event.governance) or 0) >= position
            )
        return self._aware[position]


def _vouching(fact: Fact) -> tuple[NodeId, ...]:
    """The author, and the district authority that admitted it."""
    return (fact.author,) if fact.admitted_by is None else (fact.author, fact.admitted_by)
