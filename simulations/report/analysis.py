"""What the report needs beyond the comparison: knocked-out services, policies, sensitivity, proposals, the dose patients.

The comparison runs at the scenario's size; everything here at a tenth or a twentieth of the country, and says so. Every run
has a name, which the page prints beside its numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec
import numpy as np
from msgspec import Struct

from ledger.events import Level
from ledger.policy import EmergencyRule, MedicineClass, Policy
from simulations.national.arrangements import ARRANGEMENTS, BEST, Arrangement, arrangement
from simulations.national.comparison import Comparison, Setting, compare
from simulations.national.demand import make_country
from simulations.national.figures import FIGURES, Figures, Kind
from simulations.national.measures import Measures
from simulations.national.outage import make_reach
from simulations.report.consistency import Consistency, check_consistency
from simulations.report.services import SERVICES, Service
from simulations.scenario import Fault, FaultKind, Scenario

__all__ = [
    "Analysis",
    "DoseResult",
    "Islands",
    "Knockout",
    "PolicyResult",
    "Proposal",
    "Sensitivity",
    "analyse",
    "check_figures",
]

TENTH, TWENTIETH = 0.1, 0.05
CHECK_SCALE = 0.05
"""Of the control figures that a test recomputes."""
_ZERO = "today"
_COST_FIGURES = frozenset(name for name in FIGURES if "kr" in name.split("_") or name in {
    "systems", "write_off_years", "outages_per_year", "minutes_late", "minutes_prescriber_call", "minutes_anomaly",
})  # fmt: skip
_NO_EFFECT_ON_SERVED = frozenset({
    "dose_patients", "dose_roll_days", "dose_buffer_days", "bytes_prescription", "bytes_supply", "bytes_round",
    "rounds_per_hour", "second_attempt_ordinary", "second_attempt_controlled", "reserve_days",
})  # fmt: skip


MOVED = frozenset(
    name
    for name, figure in FIGURES.items()
    if figure.kind is Kind.ASSUMED and name not in _COST_FIGURES and name not in _NO_EFFECT_ON_SERVED
)
"""Every assumed figure on which it depends who is served."""


class Knockout(Struct, frozen=True):
    """A service knocked out on top of the scenario."""

    service: Service
    today: Measures
    system: Measures


class PolicyResult(Struct, frozen=True):
    """What a policy of emergency supply does."""

    key: str
    result: Measures


class Sensitivity(Struct, frozen=True):
    """How much the lead of the system over today moves with one figure over its range."""

    figure: str
    low: float
    high: float
    """Percentage points of rows supplied during the outage."""


class Proposal(Struct, frozen=True, kw_only=True):
    """A measure, against the zero alternative and against the next cheaper one."""

    arrangement: str
    run: str
    kr_per_year: float
    kr_low: float
    kr_high: float
    """With every cost figure at the low, and at the high, end of its range."""
    extra_rows: float
    """Supplied during one outage beyond what today's fallback supplies."""
    extra_without_risk: float
    """The same, emergency supplies left out: those last a week at most."""
    kr_per_row: float
    """Of the extra rows without risk, at the assumed number of outages a year; infinite where there are none."""
    break_even_manual: float
    """The share that paper and telephone would have to carry to supply as much."""


class DoseResult(Struct, frozen=True):
    """Patients on dispensed doses, by arithmetic: rolls go on where the dose pharmacy holds what it needs."""

    without_today: float
    without_system: float


class Islands(Struct, frozen=True):
    """Pharmacies by hour: joined to the agency, joined without it, on a region's island, alone, dark."""

    agency: tuple[int, ...]
    mainland: tuple[int, ...]
    region: tuple[int, ...]
    alone: tuple[int, ...]
    dark: tuple[int, ...]


class Analysis(Struct, frozen=True, kw_only=True):
    """Everything that the page shows."""

    scenario: Scenario
    comparison: Comparison
    islands: Islands
    knockouts: tuple[Knockout, ...]
    policies: tuple[PolicyResult, ...]
    sensitivity: tuple[Sensitivity, ...]
    proposals: tuple[Proposal, ...]
    dose: DoseResult
    check: Comparison
    consistency: tuple[Consistency, ...]


def _sized(scenario: Scenario, scale: float) -> Scenario:
    return msgspec.structs.replace(scenario, scale=min(scale, scenario.scale), expect=())


def analyse(scenario: Scenario, moved: Collection[str] = MOVED) -> Analysis:
    """Run everything. Minutes for the whole country.

    Args:
        scenario: what happens.
        moved: the figures that sensitivity moves over their ranges, one at a time.
    """
    comparison = compare(scenario)
    figures = Figures(scenario.figures)
    return Analysis(
        scenario=scenario, comparison=comparison, islands=_islands(scenario), knockouts=_knockouts(scenario),
        policies=_policies(scenario), sensitivity=_sensitivity(scenario, figures, moved),
        proposals=_proposals(scenario, comparison, figures), dose=_dose(scenario, figures),
        check=check_figures(scenario), consistency=check_consistency(),
    )  # fmt: skip


def check_figures(scenario: Scenario) -> Comparison:
    """The control figures: small enough to be recomputed by a test."""
    return compare(_sized(scenario, CHECK_SCALE), [arrangement(n) for n in (_ZERO, "agency", "chosen", BEST)])


def _islands(scenario: Scenario) -> Islands:
    small = _sized(scenario, TENTH)
    figures = Figures(small.figures)
    reach = make_reach(small, figures, make_country(small, figures))
    dark = ~(reach.open & reach.node)
    alone = (reach.island >= 100) & ~dark
    region = (reach.island > 0) & ~alone & ~dark
    mainland = (reach.island == 0) & ~dark

    def by_hour(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[int, ...]:
        return tuple(int(n) for n in mask.sum(axis=0))

    return Islands(
        by_hour(mainland & reach.agency), by_hour(mainland & ~reach.agency), by_hour(region), by_hour(alone), by_hour(dark)
    )  # fmt: skip


def _run(
    scenario: Scenario, arrangements: Iterable[Arrangement], figures: Figures | None = None
) -> list[Measures]:
    setting = Setting(scenario, figures)
    return [setting.run(a) for a in arrangements]


def _knockouts(scenario: Scenario) -> tuple[Knockout, ...]:
    """Each service gone on top of the scenario, for as long; sorted by what its loss costs the system."""
    start, end = scenario.outage_hours
    pair = (arrangement(_ZERO), arrangement(BEST))
    small = _sized(scenario, TENTH)
    found = []
    for service in SERVICES:
        faults = tuple(
            Fault(kind=FaultKind(kind), from_hour=start, until_hour=end, share=share) for kind, share in service.faults
        )  # fmt: skip
        struck = msgspec.structs.replace(small, faults=(*small.faults, *faults)) if end else small
        figures = Figures({**small.figures, **service.figures})
        found.append(Knockout(service, *_run(struck, pair, figures)))
    return tuple(sorted(found, key=lambda k: k.system.in_outage / max(k.system.total.demand, 1)))


def _policies(scenario: Scenario) -> tuple[PolicyResult, ...]:
    """Emergency supply forbidden, for life-sustaining medicines only, and as the scenario's policy has it."""
    small = _sized(scenario, TENTH)
    own = small.policy_in_force
    life = {MedicineClass.LIFE_SUSTAINING: own.rule(MedicineClass.LIFE_SUSTAINING)}
    early = {**own.emergency, MedicineClass.ORDINARY: EmergencyRule(from_level=Level.NORMAL)}
    policies: tuple[tuple[str, Policy], ...] = (
        ("none", msgspec.structs.replace(own, emergency={})),
        ("life", msgspec.structs.replace(own, emergency=life)),
        ("own", own),
        ("early", msgspec.structs.replace(own, emergency=early)),
    )
    chosen = [arrangement("chosen")]
    return tuple(
        PolicyResult(key, _run(msgspec.structs.replace(small, policy=policy), chosen)[0]) for key, policy in policies
    )  # fmt: skip


def _lead(scenario: Scenario, figures: Figures) -> float:
    """Percentage points of all rows supplied during the outage that the system is ahead of today."""
    today, system = _run(scenario, (arrangement(_ZERO), arrangement(BEST)), figures)
    return 100 * (system.in_outage - today.in_outage) / max(today.total.demand, 1)


def _moved(figures: Figures, name: str, value: float) -> Figures:
    """One figure moved; what shares a whole with it gives way."""
    changed = {name: value}
    if name in ("usual_pharmacy_share", "other_region_share"):
        other = sum(changed.get(n, figures[n]) for n in ("usual_pharmacy_share", "other_region_share"))
        changed["same_district_share"] = max(
            FIGURES["same_district_share"].low, min(figures["same_district_share"], 1 - other)
        )
    return figures.with_(**changed)


def _sensitivity(scenario: Scenario, figures: Figures, moved: Collection[str]) -> tuple[Sensitivity, ...]:
    small = _sized(scenario, TWENTIETH)
    found = []
    for name, figure in FIGURES.items():
        if name not in moved or name in figures.changed:
            continue
        low, high = (_lead(small, _moved(figures, name, value)) for value in (figure.low, figure.high))
        found.append(Sensitivity(name, low, high))
    return tuple(sorted(found, key=lambda s: -abs(s.high - s.low)))


def _proposals(scenario: Scenario, comparison: Comparison, figures: Figures) -> tuple[Proposal, ...]:
    from simulations.report.money import yearly_range

    zero = comparison.of(_ZERO)
    # Today's fallback carries in proportion to its assumed capacity: two runs give the line.
    small = _sized(scenario, TENTH)
    ends = FIGURES["manual_capacity_share"].low, FIGURES["manual_capacity_share"].high
    shares = []
    for end in ends:
        (today,) = _run(small, [arrangement(_ZERO)], figures.with_(manual_capacity_share=end))
        shares.append(today.in_outage / max(today.total.demand, 1))
    slope = (shares[1] - shares[0]) / (ends[1] - ends[0])
    found = []
    for a in ARRANGEMENTS:
        if a.name == _ZERO:
            continue
        m = comparison.of(a.name)
        extra = m.in_outage - zero.in_outage
        reached = m.in_outage / max(m.total.demand, 1)
        low, high = yearly_range(m.cost, figures)
        sure = extra - m.by_ground["emergency"]
        a_year = sure * figures["outages_per_year"]
        found.append(
            Proposal(
                arrangement=a.name, run=m.run, kr_per_year=m.cost.year, kr_low=low, kr_high=high,
                extra_rows=extra, extra_without_risk=sure, kr_per_row=m.cost.year / a_year if a_year > 0 else float("inf"),
                break_even_manual=ends[0] + (reached - shares[0]) / slope if slope > 0 else float("inf"),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda p: p.kr_per_row))


def _dose(scenario: Scenario, figures: Figures) -> DoseResult:
    start, end = scenario.outage_hours
    days = max(0.0, (end - start) / 24 - figures["dose_buffer_days"])
    # Rolls end evenly over their length; who runs out while none can be made is without.
    out = figures["dose_patients"] * min(1.0, days / figures["dose_roll_days"])
    # The dose pharmacy is the chosen one: what falls due within the plan's days stands there before the outage.
    late = max(0.0, (end - start) / 24 - figures["plan_days"])
    without = figures["dose_patients"] * min(1.0, late / figures["dose_roll_days"])
    return DoseResult(out, without + out * (1 - figures["coverage"]))
