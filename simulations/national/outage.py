"""Faults over time: who reaches whom in every hour, who is open, and whose computers and keys are good.

Two nodes reach each other if they stand on the same island. A region's hub carries the district custodians and is where
its care units are joined; so its island is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.national.demand import Country
from simulations.national.figures import Figures
from simulations.national.regions import REGIONS
from simulations.scenario import Fault, FaultKind, Scenario

__all__ = ["NEVER", "Reach", "make_reach"]

NEVER = 32_000
"""An hour after every run."""
_ALONE = 100
"""Islands of single pharmacies are numbered from here; below it lie the mainland (0) and regions (1 …)."""

Table = npt.NDArray[np.int16]
Flags = npt.NDArray[np.bool_]


@dataclass
class Reach:
    """What works, by (pharmacy or region, hour)."""

    island: Table
    """Of each pharmacy."""
    hub: Table
    """Of each region's hub, with its custodians."""
    care: Table
    """Of each region's care units; -1: their systems cannot send."""
    agency: Flags
    """The pharmacy reaches the agency and its register."""
    open: Flags
    node: Flags
    """The pharmacy's own computers work."""
    contested_from: Table
    """Of each pharmacy: the hour from which what it held is contested."""
    lost_from: Table
    """The hour in which it lost its computers and with them its custody."""
    channel_bytes: npt.NDArray[np.float64]
    """Of each region and hour: bytes that its thin channel carries; infinite where links are good."""
    telephone: Flags
    """Of each hour: prescribers can be telephoned."""
    ordering_from: int
    """The hour from which nothing can be ordered, and the one in which it can again."""
    ordering_until: int
    radio: Flags
    """The pharmacy is reached by radio only."""
    start: int
    end: int
    """Hours of the first fault's begin and the last one's end."""

    @property
    def struck(self) -> Flags:
        """Where and when something was missing: the agency, electricity, computers, or a good link."""
        return ~(self.agency & self.open & self.node)

    @property
    def hours(self) -> int:
        """How long is looked at."""
        return int(self.island.shape[1])


def make_reach(scenario: Scenario, figures: Figures, country: Country, *, radio: bool = False) -> Reach:
    """Lay the scenario's faults over the country.

    Args:
        scenario: with its faults.
        figures: for what radio reaches.
        country: its pharmacies.
        radio: cut-off pharmacies are joined to their region's hub by radio, as many as the figure says.
    """
    size, hours, regions = country.size, scenario.hours, len(REGIONS)
    start, end = (int(hour) for hour in scenario.outage_hours)
    reach = Reach(
        island=np.zeros((size, hours), np.int16), hub=np.zeros((regions, hours), np.int16),
        care=np.zeros((regions, hours), np.int16), agency=np.ones((size, hours), np.bool_),
        open=np.ones((size, hours), np.bool_), node=np.ones((size, hours), np.bool_),
        contested_from=np.full(size, NEVER, np.int16), lost_from=np.full(size, NEVER, np.int16),
        channel_bytes=np.full((regions, hours), np.inf), radio=np.zeros((size, hours), np.bool_),
        telephone=np.ones(hours, np.bool_), ordering_from=NEVER, ordering_until=NEVER,
        start=start, end=end,
    )  # fmt: skip
    order = list(FaultKind)
    # Wider cuts first: who is alone within a cut region is alone.
    for at, fault in sorted(enumerate(scenario.faults), key=lambda f: (order.index(f[1].kind), f[0])):
        _apply(fault, reach, country, np.random.default_rng([scenario.seed, 100 + at]))
    if radio:
        _join_by_radio(reach, figures, country, np.random.default_rng([scenario.seed, 99]))
    return reach


def _apply(fault: Fault, reach: Reach, country: Country, chance: np.random.Generator) -> None:
    when = slice(int(fault.from_hour), max(int(fault.from_hour) + 1, int(-(-fault.until_hour // 1))))
    letters = [region.letters for region in REGIONS]
    regions = [letters.index(letter) for letter in fault.regions] or list(range(len(REGIONS)))
    among = np.isin(country.region, regions)
    struck = np.flatnonzero(among & (chance.random(country.size) < fault.share))
    match fault.kind:
        case FaultKind.AGENCY_DOWN:
            reach.agency[among, when] = False
        case FaultKind.REGIONS_CUT:
            for region in regions:
                reach.island[country.region == region, when] = 1 + region
                reach.hub[region, when] = reach.care[region, when] = 1 + region
            reach.agency[among, when] = False
        case FaultKind.TELEPHONE_DOWN:
            reach.telephone[when] = False
        case FaultKind.ORDERING_DOWN:
            reach.ordering_from, reach.ordering_until = when.start, when.stop
        case FaultKind.CARE_DOWN:
            reach.care[regions, when] = -1
        case FaultKind.PHARMACIES_ALONE:
            reach.island[struck, when] = (_ALONE + struck).astype(np.int16)[:, None]
            reach.agency[struck, when] = False
        case FaultKind.POWER_CUTS:
            _rolling(fault, reach, np.flatnonzero(among), when, chance)
        case FaultKind.THIN_LINKS:
            reach.channel_bytes[regions, when] = fault.bits_per_second / 8 * 3600
        case FaultKind.STOLEN_KEY:
            taken = chance.permutation(np.flatnonzero(among))[: fault.pharmacies]
            reach.contested_from[taken] = int(fault.until_hour)
        case FaultKind.NODES_LOST:
            reach.node[struck, when] = False
            reach.agency[struck, when] = False
            reach.island[struck, when] = (_ALONE + struck).astype(np.int16)[:, None]
            reach.lost_from[struck] = when.start


def _rolling(
    fault: Fault, reach: Reach, among: npt.NDArray[np.int64], when: slice, chance: np.random.Generator
) -> None:
    """Dark in turn: so many groups that one at a time is the share."""
    groups = max(1, round(1 / fault.share)) if fault.share else 0
    group = chance.integers(0, max(groups, 1), len(among))
    for hour in range(when.start, when.stop):
        turn = (hour - when.start) // fault.period_hours
        dark = among[group == turn % groups] if groups else among[:0]
        reach.open[dark, hour] = reach.agency[dark, hour] = False
        reach.island[dark, hour] = (_ALONE + dark).astype(np.int16)


def _join_by_radio(reach: Reach, figures: Figures, country: Country, chance: np.random.Generator) -> None:
    has = chance.random(country.size) < figures["radio_share"]
    alone = (reach.island >= _ALONE) & reach.node & reach.open & has[:, None]
    joined = reach.hub[country.region, :]
    reach.island[alone] = joined[alone]
    reach.radio |= alone
    channel = figures["radio_bits_per_second"] / 8 * 3600
    for region in range(len(REGIONS)):
        on_air = alone[country.region == region].any(axis=0)
        reach.channel_bytes[region, on_air] = np.minimum(reach.channel_bytes[region, on_air], channel)
