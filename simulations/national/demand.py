"""Who asks for what, where and when: the country's pharmacies, and every prescription row of a stretch of days.

Rows lie in the order in which a pharmacy serves them: by pharmacy, class, hour. One generator per concern, all from the
scenario's seed: the same demand meets every arrangement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulations.national.decisions import CLASSES
from simulations.national.figures import Figures
from simulations.national.regions import REGIONS
from simulations.scenario import Scenario

__all__ = ["HOURS_OPEN", "LONG_AGO", "Country", "Demand", "SecondAttempts", "make_country", "make_demand"]

Ints = npt.NDArray[np.int16]
HOURS_OPEN = tuple(range(9, 18))
"""Nine hours a day, some 53 a week with shorter weekends."""
LONG_AGO = -32_000
"""Hour of issue of what was written before the run."""
_WEEK_DAYS = 7
_SECOND_DELAY_HOURS = 72
"""Somebody who tries again elsewhere does so within three days (assumed)."""
_NEAR_DAYS = 20
"""First fills not of the same day are of prescriptions up to so many days old (assumed)."""


@dataclass(frozen=True)
class Country:
    """Pharmacies, sorted by region and district."""

    region: Ints
    """Of each pharmacy: index into `REGIONS`."""
    district: Ints
    """Of each pharmacy: a number of its own for each municipality that has one."""
    rows_per_day: npt.NDArray[np.float64]
    """Mean of each pharmacy."""

    @property
    def size(self) -> int:
        """How many pharmacies."""
        return len(self.region)


@dataclass(frozen=True)
class SecondAttempts:
    """Somebody tries to collect the same fill again at another pharmacy."""

    row: npt.NDArray[np.int64]
    pharmacy: Ints
    delay_hours: Ints
    """After the first supply."""
    luck: npt.NDArray[np.float32]
    """Uniform in 0 … 1: whether there is manual capacity for it."""


@dataclass(frozen=True)
class Demand:
    """Every row that is asked for, in serving order."""

    pharmacy: Ints
    """Where it is asked for."""
    usual: Ints
    """The patient's usual pharmacy: its district is the prescription's home."""
    medicine: npt.NDArray[np.int8]
    """Index into `CLASSES`."""
    hour: Ints
    """When it is first asked for."""
    issued: Ints
    """When the prescription was written; `LONG_AGO` for those of before the run."""
    due_hour: Ints
    """When the fill may first be collected."""
    numberless: npt.NDArray[np.bool_]
    """The patient has no personal number: nobody but the named pharmacy can look the prescription up."""
    paper: npt.NDArray[np.float32]
    """Uniform in 0 … 1: brings paper if below the share of those who do."""
    choice: npt.NDArray[np.float32]
    """Uniform in 0 … 1: the pharmacy is known if below the share of those for whom it is."""
    reserve_hours: npt.NDArray[np.float32]
    """Of the medicine at home."""
    second: SecondAttempts
    day_factors: npt.NDArray[np.float64]
    """Of each day against a mean day."""

    @property
    def size(self) -> int:
        """How many rows."""
        return len(self.pharmacy)


def _apportion(total: int, weights: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Whole shares of a total by largest remainder."""
    exact = total * weights / weights.sum()
    whole: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - whole), kind="stable")[: total - int(whole.sum())]
    whole[rest] += 1
    return whole


def _generator(seed: int, concern: int) -> np.random.Generator:
    return np.random.default_rng([seed, concern])


def make_country(scenario: Scenario, figures: Figures) -> Country:
    """Pharmacies by the regions' inhabitants, within a region by a municipality's rank; at least one a region."""
    total = max(len(REGIONS), round(figures["pharmacies"] * scenario.scale))
    inhabitants = np.array([r.thousands for r in REGIONS], np.float64)
    counts = 1 + _apportion(total - len(REGIONS), inhabitants)
    region, district, weight = [], [], []
    number = 0
    chance = _generator(scenario.seed, 1)
    for r, count in enumerate(counts):
        # Municipalities by rank, larger ones first: a usual shape, and only there to tell near from far (assumed).
        size = 1.0 / np.arange(1, REGIONS[r].municipalities + 1) ** 0.8
        for here in _apportion(int(count), size):
            region += [r] * int(here)
            district += [number] * int(here)
            number += bool(here)
        sizes = chance.lognormal(0.0, 0.3, int(count))
        weight += list(inhabitants[r] * sizes / sizes.sum())
    share = np.array(weight) / sum(weight)
    return Country(
        np.array(region, np.int16),
        np.array(district, np.int16),
        share * figures["rows_per_day"] * scenario.scale,
    )


def _profile(figures: Figures) -> npt.NDArray[np.float64]:
    """Share of a day by hour: one peak at 16, the rest even."""
    peak = figures["peak_hour_share"]
    profile = np.zeros(24)
    profile[list(HOURS_OPEN)] = (1 - peak) / (len(HOURS_OPEN) - 1)
    profile[16] = peak
    return profile


def _elsewhere(
    low: npt.NDArray[np.int64], count: npt.NDArray[np.int64], here: Ints, chance: np.random.Generator
) -> Ints:
    """One of the `count` pharmacies from `low` on, other than `here` where there is another."""
    pick = low + (chance.random(len(here)) * np.maximum(count - 1, 1)).astype(np.int64)
    pick = np.where((pick >= here) & (count > 1), pick + 1, pick)
    return pick.astype(np.int16)


def _spans(of: Ints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each pharmacy: first of its group and the group's size; groups are contiguous."""
    _, first, inverse, counts = np.unique(of, return_index=True, return_inverse=True, return_counts=True)
    return first[inverse].astype(np.int64), counts[inverse].astype(np.int64)


def make_demand(scenario: Scenario, figures: Figures, country: Country) -> Demand:
    """All rows of the run."""
    factors = _day_factors(scenario, figures)
    hourly = (factors[:, None] * _profile(figures)[None, :]).ravel()[: scenario.hours]
    counts = _generator(scenario.seed, 2).poisson(country.rows_per_day[:, None] * hourly[None, :])
    pharmacy = np.repeat(np.arange(country.size, dtype=np.int16), counts.sum(axis=1))
    hour = np.repeat(np.tile(np.arange(scenario.hours, dtype=np.int16), country.size), counts.ravel())
    size = len(hour)
    chance = _generator(scenario.seed, 3)
    draw = chance.random(size)
    life, controlled = figures["life_sustaining_share"], figures["controlled_share"]
    medicine = np.where(draw < life, 0, np.where(draw < life + controlled, 1, 2)).astype(np.int8)
    order = np.lexsort((hour, medicine, pharmacy))
    pharmacy, hour, medicine = pharmacy[order], hour[order], medicine[order]
    usual = _usual(country, figures, pharmacy, _generator(scenario.seed, 4))
    issued, due = _written(figures, hour, _generator(scenario.seed, 5))
    chance = _generator(scenario.seed, 6)
    return Demand(
        pharmacy=pharmacy, usual=usual, medicine=medicine, hour=hour, issued=issued, due_hour=due,
        numberless=chance.random(size, np.float32) < figures["without_number_share"],
        paper=chance.random(size, np.float32), choice=chance.random(size, np.float32),
        reserve_hours=(chance.standard_exponential(size, np.float32) * 24 * figures["reserve_days"]).astype(np.float32),
        second=_second(country, figures, pharmacy, medicine, _generator(scenario.seed, 7)), day_factors=factors,
    )  # fmt: skip


def _day_factors(scenario: Scenario, figures: Figures) -> npt.NDArray[np.float64]:
    """365 days carry `equivalent_days` weekdays' volume: a weekday is above the mean day, a weekend's day below."""
    up = 365 / figures["equivalent_days"]
    down = (_WEEK_DAYS - 5 * up) / 2
    days = -(-scenario.hours // 24)
    return np.array([up if (scenario.weekday - 1 + d) % _WEEK_DAYS < 5 else down for d in range(days)])


def _usual(country: Country, figures: Figures, pharmacy: Ints, chance: np.random.Generator) -> Ints:
    """The usual pharmacy of whoever asks at a pharmacy."""
    near, far = _spans(country.district), _spans(country.region)
    draw = chance.random(len(pharmacy))
    same = figures["usual_pharmacy_share"]
    district = same + figures["same_district_share"]
    abroad = 1 - figures["other_region_share"]
    usual = np.where(
        draw < district,
        _elsewhere(near[0][pharmacy], near[1][pharmacy], pharmacy, chance),
        _elsewhere(far[0][pharmacy], far[1][pharmacy], pharmacy, chance),
    )
    anywhere = chance.integers(0, country.size, len(pharmacy))
    usual = np.where(draw >= abroad, anywhere, usual)
    return np.where(draw < same, pharmacy, usual).astype(np.int16)


def _written(figures: Figures, hour: Ints, chance: np.random.Generator) -> tuple[Ints, Ints]:
    """When the prescription was written, and when the fill may be collected."""
    new = chance.random(len(hour)) < figures["new_share"]
    today = chance.random(len(hour)) < figures["issued_today_share"]
    age = np.where(today, 1, chance.integers(2, _NEAR_DAYS * 24, len(hour)))
    issued = np.where(new, hour - age, LONG_AGO).astype(np.int16)
    late = chance.random(len(hour)) * 24 * figures["late_collection_days"]
    due = np.where(new, hour - age, hour - late).astype(np.int16)
    return issued, due


def _second(
    country: Country,
    figures: Figures,
    pharmacy: Ints,
    medicine: npt.NDArray[np.int8],
    chance: np.random.Generator,
) -> SecondAttempts:
    controlled = medicine == CLASSES.index("controlled")
    share = np.where(controlled, figures["second_attempt_controlled"], figures["second_attempt_ordinary"])
    rows = np.flatnonzero(chance.random(len(pharmacy)) < share)
    far = _spans(country.region)
    here = pharmacy[rows]
    return SecondAttempts(
        row=rows, pharmacy=_elsewhere(far[0][here], far[1][here], here, chance),
        delay_hours=chance.integers(1, _SECOND_DELAY_HOURS + 1, len(rows)).astype(np.int16),
        luck=chance.random(len(rows), np.float32),
    )  # fmt: skip
