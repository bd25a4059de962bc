"""What is measured of a run: who was served, who was not, and what it took."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from simulations.national.arrangements import Arrangement
from simulations.national.costs import Cost, yearly_cost
from simulations.national.decisions import CLASSES, Decisions
from simulations.national.demand import Country, Demand
from simulations.national.doubles import Doubles, count_doubles
from simulations.national.engine import Ground, Outcome, levels
from simulations.national.figures import Figures
from simulations.national.outage import Reach
from simulations.national.regions import REGIONS
from simulations.national.traffic import Traffic, measure_traffic

__all__ = ["AT_ONCE_HOURS", "Counts", "Measures", "measure"]

AT_ONCE_HOURS = 12
"""Served later than this is served on another day: delayed."""
_WEEK_HOURS = 168
ROWS_A_PATIENT = 1.3
"""Life-sustaining medicines of one patient who has any (assumed): turns treatments into patients."""


class Counts(Struct, frozen=True):
    """Rows; demand = served + delayed + refused."""

    demand: int
    served: int
    """On the day."""
    delayed: int
    refused: int
    """Not at all: gave up, or still waiting at the end."""

    @property
    def share(self) -> float:
        """Served on the day, of the demand; 1 where there is none."""
        return self.served / self.demand if self.demand else 1.0

    @property
    def share_in_the_end(self) -> float:
        """Served on the day or later."""
        return (self.served + self.delayed) / self.demand if self.demand else 1.0


class Measures(Struct, frozen=True, kw_only=True):
    """Of one arrangement, over rows first asked for at a pharmacy that was struck just then (no outage: over all rows)."""

    arrangement: str
    run: str
    """Names the run: scenario, figures, arrangement, seed and the version of the model."""
    total: Counts
    existing: Counts
    """Prescriptions written before the outage."""
    numberless: Counts
    """Patients without a personal number."""
    by_class: dict[str, Counts]
    by_region: dict[str, Counts]
    by_ground: dict[str, int]
    asked_by_day: tuple[int, ...]
    served_by_day: tuple[int, ...]
    """By day of supply, of the whole run."""
    same_day_by_day: tuple[int, ...]
    """Rows asked for that day and supplied on it."""
    in_outage: int
    """Rows supplied before the outage was over."""
    existing_in_outage: int
    existing_by_day: tuple[tuple[int, int], ...]
    """Of prescriptions that existed and were asked for in the outage: asked for that day, and supplied that day."""
    overdue_by_day: tuple[int, ...]
    """Patients whose life-sustaining medicine has run out at the day's end while they wait, or have given up."""
    doubles: Doubles
    staff_hours: float
    extra_staff_hours: float
    """Beyond what the same supplies take on an ordinary day, late registration and resolution included."""
    prescriber_hours: float
    late_rows: int
    late_days: float
    traffic: Traffic
    cost: Cost


def _counts(
    mask: npt.NDArray[np.bool_], at_once: npt.NDArray[np.bool_], ever: npt.NDArray[np.bool_]
) -> Counts:
    demand, served, all_served = int(mask.sum()), int((mask & at_once).sum()), int((mask & ever).sum())
    return Counts(demand, served, all_served - served, demand - all_served)


def measure(
    name: str, country: Country, demand: Demand, reach: Reach, arrangement: Arrangement, decisions: Decisions,
    figures: Figures, outcome: Outcome,
) -> Measures:  # fmt: skip
    """Measure a run."""
    during = reach.struck[demand.pharmacy, demand.hour] if reach.end else np.ones(demand.size, np.bool_)
    ever = outcome.served >= 0
    at_once = ever & (outcome.served - demand.hour <= AT_ONCE_HOURS)
    region = country.region[demand.pharmacy]
    days = -(-reach.hours // 24)
    day = demand.hour // 24
    used = np.bincount(outcome.ground[during], minlength=len(Ground))
    manual = int(used[Ground.MANUAL])
    spare = country.rows_per_day.sum() * (figures["capacity_headroom"] - 1) * figures["minutes_digital"]
    late_days = float(manual * figures["minutes_late"] / spare)
    doubles = count_doubles(
        country, demand, reach, arrangement, decisions, figures, outcome, levels(reach, decisions), late_days
    )  # fmt: skip
    minutes, extra = _minutes(used, manual, doubles, figures, _returns(outcome, during, reach))
    in_time = ever & (outcome.served < reach.end) if reach.end else ever
    existing = during & (demand.issued < reach.start)
    asked = np.bincount(day, minlength=days)
    return Measures(
        arrangement=arrangement.name, run=name, total=_counts(during, at_once, ever),
        existing=_counts(existing, at_once, ever), numberless=_counts(during & demand.numberless, at_once, ever),
        by_class={c: _counts(during & (demand.medicine == k), at_once, ever) for k, c in enumerate(CLASSES)},
        by_region={r.letters: _counts(during & (region == k), at_once, ever) for k, r in enumerate(REGIONS)},
        by_ground={g.name.lower(): int(used[g]) for g in Ground},
        asked_by_day=_whole(asked), served_by_day=_whole(np.bincount(outcome.served[ever] // 24, minlength=days)),
        same_day_by_day=_whole(np.bincount(day[at_once], minlength=days)),
        in_outage=int((during & in_time).sum()),
        existing_in_outage=int((existing & in_time).sum()),
        existing_by_day=tuple(
            zip(
                _whole(np.bincount(day[existing], minlength=days)),
                _whole(np.bincount(outcome.served[existing & ever] // 24, minlength=days)),
                strict=True,
            )
        ),
        overdue_by_day=_overdue(demand, outcome, reach, days), doubles=doubles, staff_hours=minutes / 60,
        extra_staff_hours=extra / 60, prescriber_hours=manual * figures["minutes_prescriber_call"] / 60,
        late_rows=manual, late_days=late_days,
        traffic=measure_traffic(country, demand, reach, arrangement, figures, outcome),
        cost=yearly_cost(
            arrangement, country, reach, figures, extra_staff_hours=extra / 60,
            prescriber_hours=manual * figures["minutes_prescriber_call"] / 60,
            printed=int(used[Ground.BEARER]),
        ),
    )  # fmt: skip


def _whole(values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _returns(outcome: Outcome, during: npt.NDArray[np.bool_], reach: Reach) -> int:
    """Visits of those who were given a week's supply at most, and come again each week of the outage."""
    capped = during & (outcome.ground == Ground.EMERGENCY)
    return int((np.maximum(reach.end - outcome.served[capped].astype(np.int64), 0) // _WEEK_HOURS).sum())


def _minutes(
    used: npt.NDArray[np.int64], manual: int, doubles: Doubles, figures: Figures, returns: int
) -> tuple[float, float]:
    """Minutes of pharmacy staff: all, and beyond an ordinary day's for the same supplies."""
    digital = figures["minutes_digital"]
    supplies = int(used[1:].sum())
    quick = supplies - int(used[Ground.EMERGENCY]) - manual
    minutes = quick * digital + (int(used[Ground.EMERGENCY]) + returns) * figures["minutes_risk"]
    minutes += (
        manual * (figures["minutes_manual"] + figures["minutes_late"])
        + doubles.permitted * figures["minutes_anomaly"]
    )
    return minutes, minutes - supplies * digital


def _overdue(demand: Demand, outcome: Outcome, reach: Reach, days: int) -> tuple[int, ...]:
    rows = np.flatnonzero(
        (demand.medicine == CLASSES.index("life-sustaining")) & (demand.hour < max(reach.end, 1))
    )
    asked, out = demand.hour[rows], demand.hour[rows] + demand.reserve_hours[rows]
    served = np.where(outcome.served[rows] >= 0, outcome.served[rows], reach.hours * 2)
    counts = []
    for day in range(days):
        hour = (day + 1) * 24
        counts.append(round(int(((asked < hour) & (out <= hour) & (served > hour)).sum()) / ROWS_A_PATIENT))
    return tuple(counts)
