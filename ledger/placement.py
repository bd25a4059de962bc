"""The custody plan: moves fills, in normal times, to where they can be dispensed without a network.

Outages come without warning, to people who already have prescriptions. So every night each holder passes on the
fills that fall due within the plan's days: to the pharmacy the patient chose, else to the district's custodian,
never to the agency. A pure function of states and plan; the holder signs what it says (section 6 of the design).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

from msgspec import Struct

from ledger.errors import InvalidInput
from ledger.events import FillRight
from ledger.history import Prescription, holdings
from ledger.ids import FeedId, NodeId

__all__ = ["PLAN_DAYS_MAX", "CustodyPlan", "Move", "due_day", "plan_moves"]

PLAN_DAYS_MAX = 3_660
"""Ten years: a prescription is valid for one, and nothing that falls due later than that is ever collected."""


class CustodyPlan(Struct, frozen=True, kw_only=True):
    """The standing rule of one node.

    Raises:
        InvalidInput: its days are fewer than none or more than `PLAN_DAYS_MAX`.
    """

    days: int = 30
    """Fills due within so many days are moved."""
    custodians: Mapping[str, NodeId] = {}
    """District → the node that holds fills for which the patient chose no pharmacy."""

    def __post_init__(self) -> None:
        """Refuse days that no calendar can hold, whoever sends them."""
        if not 0 <= self.days <= PLAN_DAYS_MAX:
            raise InvalidInput(
                f"days: a custody plan looks 0 to {PLAN_DAYS_MAX} days ahead", advice="30 is usual"
            )


class Move(Struct, frozen=True):
    """Fills of one prescription to pass on."""

    fills: tuple[FillRight, ...]
    to: FeedId


def due_day(prescription: Prescription, fill: int) -> date:
    """The first day on which a fill may be collected, if each before it is collected on its own first day.

    Without a prescribed interval every fill may be collected at any time, so all are due at once.
    """
    issued = prescription.issued
    if issued is None:
        return date.max
    first = date.fromisoformat(issued.valid_from or issued.issued)
    steps = fill - 1
    before = [f.number for f in prescription.fills if f.supplied and f.number < fill]
    if before and prescription.last_supplied_day:
        first, steps = date.fromisoformat(prescription.last_supplied_day), fill - max(before)
    try:
        return first + timedelta(days=issued.interval_days * steps)
    except OverflowError:
        # A peer may write any day up to the year 9999; one such prescription must not stop the nightly plan (R15).
        return date.max


def plan_moves(
    prescription: Prescription,
    *,
    district: str,
    own: FeedId,
    plan: CustodyPlan,
    today: date,
    feed_of: Callable[[NodeId, str], FeedId | None],
    unread: int = 0,
) -> list[Move]:
    """What the holder `own` passes on of one prescription tonight; empty if everything stands where it should."""
    issued = prescription.issued
    if issued is None:
        return []
    target: FeedId | None = None
    for node in (issued.chosen_pharmacy, plan.custodians.get(district)):
        if node is not None and target is None:
            target = feed_of(NodeId(node), district)
    if target is None or target == own:
        return []
    horizon = today + timedelta(days=plan.days)
    fills = tuple(
        right
        for right in holdings(prescription, own, unread=unread)
        if due_day(prescription, right.fill) <= horizon
    )
    return [Move(fills, target)] if fills else []
