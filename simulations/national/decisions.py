"""The real guard and the real custody plan, asked once for every class of cases that they cannot tell apart.

Four million prescriptions do not need four million questions: to the guard, a supply is the state of its fill seen from
this pharmacy, the medicine's class, and the level. Each such class is a real `Prescription` put to `ledger.guard.decide`;
each distance to the due day a real one put to `ledger.placement.plan_moves`. A test compares with real ledgers.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ledger.events import (
    Coded,
    ControlledClass,
    Criticality,
    Origin,
    Patient,
    Person,
    PersonRole,
    PrescriptionIssued,
    Product,
)
from ledger.guard import Decision, Horizon, SupplyRequest, Verdict, decide
from ledger.history import FillState, FillStatus, Prescription, Status
from ledger.ids import DocumentId, FeedId, Link, NodeId
from ledger.persons import NPL_PACK_ID, PRESCRIBER_CODE
from ledger.placement import CustodyPlan, plan_moves
from ledger.policy import HOUR_MS, LEVELS, Policy
from simulations.scenario import Scenario

__all__ = ["CLASSES", "Decisions", "Place", "Seen", "placed"]

CLASSES = ("life-sustaining", "controlled", "ordinary")
"""In the order in which a pharmacy under pressure serves."""
_DAY = date(2026, 11, 2)
_NOW_MS = int(datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp() * 1000)
_OWN, _OTHER, _CUSTODIAN = FeedId(b"\1" * 16), FeedId(b"\2" * 16), FeedId(b"\3" * 16)
_KEY, _PACK, _INTERVAL_DAYS = b"\7" * 32, 100, 30
_DISTRICT = "SE-AB-0180"


class Seen(IntEnum):
    """The state of a fill as the pharmacy that is asked sees it."""

    OWN = 0
    """In its custody: it holds it, or the holder can be reached and passes it on."""
    ELSEWHERE = 1
    """In the custody of somebody who cannot be reached."""
    BEARER_PAPER = 2
    """Bearer, and the patient has the paper."""
    BEARER_BARE = 3
    """Bearer, and the paper is not there."""
    DISPENSED = 4
    CONTESTED = 5
    RECOVERED = 6
    UNKNOWN = 7
    """The prescription is not held here."""


class Place(IntEnum):
    """Where a fill stands."""

    AGENCY = 0
    CUSTODIAN = 1
    PHARMACY = 2
    """The patient's usual one."""
    BEARER = 3


def _issued(medicine: str, day: date, chosen: bytes | None) -> PrescriptionIssued:
    return PrescriptionIssued(
        person=Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER), command=b"\0" * 16,
        governance=b"", origin=Origin.ELECTRONIC, nonce=b"\0" * 16, district=_DISTRICT, issued=day.isoformat(),
        patient=Patient(name="Test Testsson", birth_date="1950-01-01", sex="female"),
        product=Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Test", pack_quantity=_PACK), dosage="1",
        fills=1, interval_days=_INTERVAL_DAYS, valid_from=day.isoformat(),
        valid_until=(day + timedelta(days=400)).isoformat(), prescriber=Coded(PRESCRIBER_CODE, "0012345"),
        controlled=ControlledClass.II if medicine == "controlled" else ControlledClass.NONE,
        criticality=Criticality.LIFE_SUSTAINING if medicine == "life-sustaining" else Criticality.ORDINARY,
        chosen_pharmacy=chosen,
    )  # fmt: skip


def _fill(status: FillStatus, *, holder: bytes = b"", key: bytes | None = None) -> FillState:
    spent = status is FillStatus.DISPENSED
    return FillState(
        number=1, status=status, holder=holder, rests_on=Link(b"\5" * 32) if holder or key else None, bearer_key=key,
        authorised=_PACK, dispensed=_PACK if spent else 0, remaining=0 if spent else _PACK, supplied=spent,
    )  # fmt: skip


_FILLS = {
    Seen.OWN: _fill(FillStatus.IN_CUSTODY, holder=_OWN),
    Seen.ELSEWHERE: _fill(FillStatus.IN_CUSTODY, holder=_OTHER),
    Seen.BEARER_PAPER: _fill(FillStatus.BEARER, key=_KEY),
    Seen.BEARER_BARE: _fill(FillStatus.BEARER, key=_KEY),
    Seen.DISPENSED: _fill(FillStatus.DISPENSED),
    Seen.CONTESTED: _fill(FillStatus.CONTESTED),
    Seen.RECOVERED: _fill(FillStatus.RECOVERED),
}


def _ask(seen: Seen, medicine: str, level: int, scenario: Scenario) -> Decision:
    fill = _FILLS.get(seen)
    prescription = Prescription(
        document=DocumentId(b"\0" * 16), status=Status.UNKNOWN if fill is None else Status.ACTIVE,
        issued=None if fill is None else _issued(medicine, _DAY - timedelta(days=1), None),
        fills=() if fill is None else (fill,),
    )  # fmt: skip
    request = SupplyRequest(
        fill=1, own_feed=_OWN, reason="the register is unreachable",
        bearer_public_key=_KEY if seen is Seen.BEARER_PAPER else None,
    )  # fmt: skip
    return decide(
        prescription, request, scenario.policy_in_force, scenario.legal_basis,
        production=scenario.kind == "production", level=LEVELS[level], horizon=Horizon(), now_ms=_NOW_MS,
    )  # fmt: skip


class Decisions:
    """The guard's answers under one policy, as tables by (`Seen`, class, level)."""

    def __init__(self, scenario: Scenario) -> None:
        shape = (len(Seen), len(CLASSES), len(LEVELS))
        self.permitted: npt.NDArray[np.bool_] = np.zeros(shape, np.bool_)
        """Whether a supply is permitted at all."""
        self.risky: npt.NDArray[np.bool_] = np.zeros(shape, np.bool_)
        """Whether it is permitted with risk."""
        self.share: npt.NDArray[np.float64] = np.zeros(shape)
        """How much of the fill may be supplied."""
        for seen in Seen:
            for c, medicine in enumerate(CLASSES):
                for level in range(len(LEVELS)):
                    decision = _ask(seen, medicine, level, scenario)
                    at = (seen, c, level)
                    self.permitted[at] = decision.verdict is not Verdict.REFUSE
                    self.risky[at] = decision.verdict is Verdict.PERMIT_WITH_RISK
                    self.share[at] = decision.quantity_max / _PACK
        self.declared = LEVELS.index(scenario.declared)
        """The level that the agency declares when the outage begins."""
        self._policy: Policy = scenario.policy_in_force

    def levels_after(self, hours: int) -> npt.NDArray[np.uint8]:
        """The level (index into `LEVELS`) after 0, 1 … `hours` hours without the agency, by the real policy."""
        found = [LEVELS.index(self._policy.level_after(hour * HOUR_MS)) for hour in range(hours + 1)]
        return np.array(found, np.uint8)


def placed(*, chosen: bool, custodian: bool, days_until_due: int, plan_days: int) -> Place:
    """Where last night's run of the real custody plan put a fill that the agency held.

    Args:
        chosen: the patient's pharmacy is known to the plan.
        custodian: the district has one.
        days_until_due: from tonight to the day on which the fill may be collected.
        plan_days: of the custody plan.
    """
    pharmacy = NodeId(_OTHER)
    prescription = Prescription(
        document=DocumentId(b"\0" * 16), status=Status.ACTIVE,
        issued=_issued("ordinary", _DAY + timedelta(days=days_until_due), pharmacy if chosen else None),
        fills=(_fill(FillStatus.IN_CUSTODY, holder=_OWN),),
    )  # fmt: skip
    moves = plan_moves(
        prescription, district=_DISTRICT, own=_OWN,
        plan=CustodyPlan(days=plan_days, custodians={_DISTRICT: NodeId(_CUSTODIAN)} if custodian else {}),
        today=_DAY, feed_of=lambda node, _: FeedId(node),
    )  # fmt: skip
    if not moves:
        return Place.AGENCY
    return Place.PHARMACY if moves[0].to == _OTHER else Place.CUSTODIAN
