"""One scenario, all arrangements: the same demand and the same outage under each, and what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from simulations.national.arrangements import ARRANGEMENTS, Arrangement
from simulations.national.decisions import Decisions
from simulations.national.demand import Country, Demand, make_country, make_demand
from simulations.national.engine import run
from simulations.national.figures import Figures
from simulations.national.measures import Measures, measure
from simulations.national.outage import make_reach
from simulations.scenario import Scenario

__all__ = ["MODEL", "Comparison", "Setting", "compare", "unmet"]

MODEL = 1
"""Of this model: raised when the same scenario gives other numbers."""


class Comparison(Struct, frozen=True, kw_only=True):
    """What came out."""

    scenario: str
    digest: str
    model: int
    pharmacies: int
    rows: int
    outage_hours: tuple[float, float]
    measures: tuple[Measures, ...]

    def of(self, arrangement: str) -> Measures:
        """The measures of one arrangement that was run."""
        return next(m for m in self.measures if m.arrangement == arrangement)


class Setting:
    """Country, demand and decisions of a scenario: made once, met by every arrangement."""

    def __init__(self, scenario: Scenario, figures: Figures | None = None) -> None:
        self.scenario = scenario
        self.figures = figures or Figures(scenario.figures)
        self.country: Country = make_country(scenario, self.figures)
        self.demand: Demand = make_demand(scenario, self.figures, self.country)
        self.decisions = Decisions(scenario)

    def name_of(self, arrangement: Arrangement) -> str:
        """The run's name: twelve digits over all that it depends on."""
        parts = (MODEL, self.scenario, sorted(self.figures.changed.items()), arrangement)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:12]

    def run(self, arrangement: Arrangement) -> Measures:
        """Run one arrangement."""
        reach = make_reach(self.scenario, self.figures, self.country, radio=arrangement.radio)
        outcome = run(
            self.country, self.demand, reach, arrangement, self.decisions, self.figures, self.scenario.seed
        )
        return measure(
            self.name_of(arrangement), self.country, self.demand, reach, arrangement, self.decisions, self.figures, outcome
        )  # fmt: skip


def compare(scenario: Scenario, arrangements: Iterable[Arrangement] = ARRANGEMENTS) -> Comparison:
    """Run a scenario under each arrangement."""
    setting = Setting(scenario)
    measures = tuple(setting.run(arrangement) for arrangement in arrangements)
    return Comparison(
        scenario=scenario.name, digest=scenario.digest, model=MODEL, pharmacies=setting.country.size,
        rows=setting.demand.size, outage_hours=scenario.outage_hours, measures=measures,
    )  # fmt: skip


def unmet(scenario: Scenario, comparison: Comparison) -> list[str]:
    """The scenario's expectations that did not come out, in words; empty if all did."""
    found = []
    run_names = {m.arrangement for m in comparison.measures}
    for expected in scenario.expect:
        if expected.arrangement not in run_names:
            found.append(f"{expected.arrangement} was not run")
            continue
        total = comparison.of(expected.arrangement).total
        for what, share, low, high in (
            ("on the day", total.share, expected.same_day_min, expected.same_day_max),
            ("in the end", total.share_in_the_end, expected.served_min, expected.served_max),
        ):
            if not low <= share <= high:
                found.append(f"{expected.arrangement} served {share:.3f} {what}, expected {low:g} … {high:g}")
    return found
