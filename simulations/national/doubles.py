"""Double dispensings: who tries a second time, who is stopped, and when the others are found.

A second attempt is made at another pharmacy within three days of the first supply. That pharmacy's view of the fill is
put to the same guard's tables. It is found when both halves meet: when the two pharmacies are joined again (R9), or, for
paper and telephone, when both rows have been registered late.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from simulations.national.arrangements import Arrangement, Holder
from simulations.national.decisions import Decisions, Place, Seen
from simulations.national.demand import Country, Demand
from simulations.national.engine import Ground, Outcome
from simulations.national.figures import Figures
from simulations.national.outage import Reach

__all__ = ["Doubles", "count_doubles"]


class Doubles(Struct, frozen=True, kw_only=True):
    """What became of second attempts on supplies of the outage."""

    attempts: int
    prevented: int
    permitted: int
    """Double dispensings: permitted with risk, on a copied paper, or by paper and telephone."""
    by_hand: int
    """Of those, by paper and telephone."""
    found: int
    """Within the run."""
    median_hours_to_find: float
    longest_hours_to_find: float


def count_doubles(
    country: Country, demand: Demand, reach: Reach, arrangement: Arrangement, decisions: Decisions, figures: Figures,
    outcome: Outcome, level: npt.NDArray[np.uint8], late_days: float,
) -> Doubles:  # fmt: skip
    """Count them.

    Args:
        country: of the run.
        demand: of the run.
        reach: of the run.
        arrangement: of the run.
        decisions: of the run.
        figures: of the run.
        outcome: its outcome.
        level: of each pharmacy and hour.
        late_days: how long late registration takes after the outage.
    """
    second = demand.second
    first = outcome.served[second.row].astype(np.int64)
    when = first + second.delay_hours
    ground = outcome.ground[second.row]
    usable = (first >= reach.start) & (first < reach.end) & (when < reach.hours)
    row, at, first, when = second.row[usable], second.pharmacy[usable], first[usable], when[usable]
    ground, luck = ground[usable], second.luck[usable]
    one = demand.pharmacy[row]
    by_hand_first = ground == Ground.MANUAL
    online = reach.agency[at, when]
    # The first supply is registered some time after the outage, uniformly within the days that it takes.
    registered_at = reach.end + late_days * 24 * luck
    telephone = ~online & (luck < figures["manual_capacity_share"])
    if arrangement.holder is Holder.REGISTER:
        slips = online & by_hand_first & (when < registered_at)
        permitted, by_hand = telephone | slips, telephone | slips
        found_at = np.maximum(registered_at, when)
    else:
        joined = reach.island[at, when] == reach.island[one, when]
        if arrangement.bundles:
            joined |= second.delay_hours[usable] >= 2 * figures["courier_hours"]
        home = demand.usual[row]
        held = country.district[at] == country.district[home]
        held |= reach.island[at, when] == reach.hub[country.region[home], when]
        place = outcome.place[row]
        island = reach.island[at, when]
        hub = reach.hub[country.region[home], when]
        # After an emergency supply, or one on paper, the holder that was not asked still has the fill in custody.
        holder = np.select(
            [place == Place.PHARMACY, place == Place.CUSTODIAN],
            [(home == at) | (reach.island[home, when] == island), hub == island],
            online,
        )
        beside = (ground == Ground.EMERGENCY) | by_hand_first
        seen = np.where(beside & holder & (place != Place.BEARER), Seen.OWN, Seen.ELSEWHERE)
        seen = np.where(ground == Ground.BEARER, Seen.BEARER_PAPER, np.where(held, seen, Seen.UNKNOWN))
        seen = np.where(joined & ~beside, Seen.DISPENSED, seen)
        at_table = (seen, demand.medicine[row], level[at, when])
        # A week's supply twice is still within what was prescribed; so is the rest after a week's that is known of.
        capped = decisions.share[Seen.ELSEWHERE, demand.medicine[row], level[one, first]]
        given = np.where(ground == Ground.EMERGENCY, capped, 1.0)
        over = ~(joined & (ground == Ground.EMERGENCY)) & (given + decisions.share[at_table] > 1.0)
        risk = decisions.permitted[at_table] & over
        by_hand = ~risk & telephone & (seen != Seen.DISPENSED)
        permitted = risk | by_hand
        met = _first_meeting(reach, at, one, when)
        if arrangement.bundles:
            met = np.minimum(met, when + 2 * figures["courier_hours"])
        found_at = np.where(by_hand | by_hand_first, np.maximum(registered_at, when), met)
    waited = (found_at - when)[permitted]
    found = found_at[permitted] < reach.hours
    return Doubles(
        attempts=len(row), prevented=int((~permitted).sum()), permitted=int(permitted.sum()),
        by_hand=int((permitted & by_hand).sum()), found=int(found.sum()),
        median_hours_to_find=float(np.median(waited[found])) if found.any() else 0.0,
        longest_hours_to_find=float(waited[found].max()) if found.any() else 0.0,
    )  # fmt: skip


def _first_meeting(
    reach: Reach, one: npt.NDArray[np.int16], other: npt.NDArray[np.int16], after: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The first hour, from `after` on, in which two pharmacies stand on one island; the run's end if none."""
    met = np.full(len(one), float(reach.hours))
    for hour in range(reach.hours):
        now = (after <= hour) & (met == reach.hours) & (reach.island[one, hour] == reach.island[other, hour])
        met[now] = hour
    return met
