"""Two numbers that are known without any model, against what the model says: the daily volume, and the outage of 2016."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from simulations.national.arrangements import arrangement
from simulations.national.comparison import compare
from simulations.national.demand import HOURS_OPEN
from simulations.national.figures import Figures
from simulations.scenario import Scenario, load_scenario

__all__ = ["Consistency", "check_consistency"]

SCALE = 0.05
"""Of the country: seconds."""


class Consistency(Struct, frozen=True):
    """One number of the model, and the same by arithmetic; of the whole country."""

    key: str
    model: float
    arithmetic: float
    run: str


def check_consistency() -> tuple[Consistency, ...]:
    """Run both."""
    return _daily_volume(_small("no-outage")), _unserved(_small("outage-2016"))


def _small(name: str) -> Scenario:
    return msgspec.structs.replace(load_scenario(name), scale=SCALE)


def _daily_volume(scenario: Scenario) -> Consistency:
    """With no outage the sourced daily volume is supplied."""
    m = compare(scenario, [arrangement("today")]).of("today")
    supplied = (m.total.served + m.total.delayed) / (scenario.hours / 24) / scenario.scale
    return Consistency("daily", supplied, Figures(scenario.figures)["rows_per_day"], m.run)


def _unserved(scenario: Scenario) -> Consistency:
    """What could not be collected on 5 April 2016, from 14 o'clock (whole hours) to closing time."""
    m = compare(scenario, [arrangement("today")]).of("today")
    figures = Figures(scenario.figures)
    weekday = figures["rows_per_day"] * 365 / figures["equivalent_days"]
    peak, opening = figures["peak_hour_share"], len(HOURS_OPEN)
    hours = sum(hour >= int(scenario.outage_hours[0]) for hour in HOURS_OPEN)
    # One of the hours left is the peak, the others are even; by hand a share of a mean hour's load goes on.
    asked = ((hours - 1) * (1 - peak) / (opening - 1) + peak) * weekday
    by_hand = hours / opening * figures["manual_capacity_share"] * weekday
    return Consistency("2016", (m.total.demand - m.in_outage) / scenario.scale, asked - by_hand, m.run)
