"""The run: hour by hour, who is served, on what ground, and who goes home with nothing.

Every hour each pharmacy looks at the rows that wait for it, in serving order. The guard's tables say what may be supplied;
what it refuses may still go by paper and telephone, which carries a share of the load. Staff minutes bound it all. A row
waits until it is served or the patient gives up. So demand = served + delayed + refused, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from simulations.national.arrangements import Arrangement, Holder
from simulations.national.decisions import CLASSES, Decisions, Place, Seen, placed
from simulations.national.demand import HOURS_OPEN, Country, Demand
from simulations.national.figures import Figures
from simulations.national.outage import Reach
from simulations.national.regions import REGIONS

__all__ = ["Ground", "Outcome", "levels", "run"]

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_CONTENT_SHARE = 0.5
"""Of a thin channel: half for claims, half for the rest of replication."""
_NEXT_DAY_HOURS = 15
"""From a closing hour to the next morning."""
_HOURS_RADIX = 1 << 12
"""More than the hours of any run."""
_DUE_DAYS_MAX = 100
"""Fills due later than so many days stand where those due then stand: the plan has at most `plan_days` (120) of them."""


class Ground(IntEnum):
    """On what a row was served."""

    NONE = 0
    REGISTER = 1
    """The register answered: an ordinary day."""
    CUSTODY = 2
    CLAIMED = 3
    """Custody passed on by its holder over a link."""
    BEARER = 4
    EMERGENCY = 5
    """Permitted with risk, capped."""
    MANUAL = 6
    """Paper and telephone."""


@dataclass(frozen=True)
class Outcome:
    """What became of every row."""

    served: npt.NDArray[np.int16]
    """Hour of supply; -1: refused, the patient gave up or still waits at the end."""
    ground: npt.NDArray[np.int8]
    refusal: npt.NDArray[np.int8]
    """Why the last try failed: 0 none, 1 the guard refused, 2 no time (staff or telephone), 3 closed."""
    place: npt.NDArray[np.int8]
    """Where each fill stood before: `Place`."""
    claims: npt.NDArray[np.int32]
    """Claims over links, by hour."""


class _Run:
    def __init__(
        self, country: Country, demand: Demand, reach: Reach, arrangement: Arrangement, decisions: Decisions,
        figures: Figures, seed: int,
    ) -> None:  # fmt: skip
        self.country, self.demand, self.reach = country, demand, reach
        self.arrangement, self.decisions, self.figures = arrangement, decisions, figures
        size = demand.size
        self.served = np.full(size, -1, np.int16)
        self.ground = np.zeros(size, np.int8)
        self.refusal = np.zeros(size, np.int8)
        self.claims = np.zeros(reach.hours, np.int32)
        self.level = levels(reach, decisions)
        chance = np.random.default_rng([seed, 50])
        self.has_system = chance.random(country.size) < figures["coverage"]
        if arrangement.holder is Holder.REGISTER:
            self.has_system[:] = False
        # Staff follows the day: fewer are there on a Sunday, as fewer come.
        mean_hour = country.rows_per_day[:, None] * demand.day_factors[None, :] / len(HOURS_OPEN)
        self.minutes = mean_hour * figures["capacity_headroom"] * figures["minutes_digital"]
        self.manual = mean_hour * figures["manual_capacity_share"]
        self.rounding = chance.random((country.size, reach.hours), np.float32)
        self.cost = np.array(
            [0, *[figures["minutes_digital"]] * 4, figures["minutes_risk"], figures["minutes_manual"]]
        )
        self.patience = np.where(
            demand.medicine == CLASSES.index("ordinary"),
            figures["patience_days_ordinary"] * 24, figures["patience_days_urgent"] * 24,
        ).astype(np.int32)  # fmt: skip
        self.place = self._places()
        self.paper = demand.paper < figures["paper_carried_share"]
        self.fresh = demand.issued >= reach.start
        self.by_hour = np.argsort(demand.hour, kind="stable")
        self.first_of = np.searchsorted(demand.hour[self.by_hour], np.arange(reach.hours + 1))

    # --- before the outage ------------------------------------------------------------------------------------

    def _places(self) -> npt.NDArray[np.int8]:
        """Where each fill stands: by the real custody plan, run the night before; or where its issuing named."""
        a, demand, figures = self.arrangement, self.demand, self.figures
        if a.holder is Holder.BEARER:
            return np.full(demand.size, Place.BEARER, np.int8)
        if a.holder in (Holder.REGISTER, Holder.AGENCY):
            return np.full(demand.size, Place.AGENCY, np.int8)
        days = np.ceil((demand.due_hour.astype(np.float64) - self.reach.start) / 24).astype(np.int64)
        days = np.clip(days, -_DUE_DAYS_MAX, _DUE_DAYS_MAX)
        named = demand.choice < (figures["chosen_known"] if a.preposition else figures["chosen_at_issue"])
        # A chosen pharmacy that has no system holds nothing; the plan then knows none.
        knows = named & self.has_system[demand.usual] & (a.holder is Holder.CHOSEN)
        if not a.preposition:
            return np.where(knows, Place.PHARMACY, Place.AGENCY).astype(np.int8)
        plan = int(figures["plan_days"])
        table = np.array(
            [
                [placed(chosen=chosen, custodian=True, days_until_due=day, plan_days=plan) for chosen in (False, True)]
                for day in range(-_DUE_DAYS_MAX, _DUE_DAYS_MAX + 1)
            ],
            np.int8,
        )  # fmt: skip
        place = table[days + _DUE_DAYS_MAX, knows.astype(np.int64)]
        # What is written in the outage is named for by its issuing event: the pharmacy chosen, else the custodian.
        in_outage = demand.issued >= self.reach.start
        at_issue = np.where(knows, Place.PHARMACY, Place.CUSTODIAN)
        return np.where(in_outage, at_issue, place).astype(np.int8)

    # --- an hour ----------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        waiting: Rows = np.zeros(0, np.int64)
        for hour in range(self.reach.hours):
            come = self.by_hour[self.first_of[hour] : self.first_of[hour + 1]]
            waiting = np.sort(np.concatenate([waiting, come]), kind="stable")
            if hour % 24 in HOURS_OPEN and len(waiting):
                waiting = self._hour(hour, waiting)
        return Outcome(self.served, self.ground, self.refusal, self.place, self.claims)

    def _hour(self, hour: int, rows: Rows) -> Rows:
        rows = rows[hour - self.demand.hour[rows] <= self.patience[rows]]
        pharmacy = self.demand.pharmacy[rows]
        ground = self._grounds(hour, rows, pharmacy)
        ground = self._within_telephone(hour, rows, pharmacy, ground)
        busy = ground > 0
        now = self._within_staff(hour, rows, pharmacy, ground)
        done = rows[now]
        self.served[done] = hour
        self.ground[done] = ground[now]
        self.claims[hour] = int((ground[now] == Ground.CLAIMED).sum())
        self.refusal[rows[busy & ~now]] = 2
        self.refusal[done] = 0
        return rows[~now]

    def _grounds(self, hour: int, rows: Rows, pharmacy: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
        """The best ground there is for each row; `MANUAL` is a candidate where there is no better."""
        reach = self.reach
        system = self.has_system[pharmacy] & reach.node[pharmacy, hour]
        ground = np.full(len(rows), Ground.MANUAL, np.int8)
        ground[~system & reach.agency[pharmacy, hour]] = Ground.REGISTER
        if system.any():
            mine, at = rows[system], pharmacy[system]
            seen, claimed = self._seen(hour, mine, at)
            medicine, level = self.demand.medicine[mine], self.level[at, hour]
            may = self.decisions.permitted[seen, medicine, level]
            risky = self.decisions.risky[seen, medicine, level]
            found = np.where(seen == Seen.BEARER_PAPER, Ground.BEARER, Ground.CUSTODY)
            found = np.where(claimed & (seen == Seen.OWN), Ground.CLAIMED, found)
            found = np.where(risky, Ground.EMERGENCY, found)
            ground[system] = np.where(may, found, Ground.MANUAL)
            self.refusal[mine[~may]] = 1
        ground = self._within_channel(hour, pharmacy, ground)
        ground[self._sold_out(hour, rows)] = Ground.NONE
        closed = ~reach.open[pharmacy, hour]
        self.refusal[rows[closed]] = 3
        ground[closed] = Ground.NONE
        return ground

    def _seen(self, hour: int, rows: Rows, at: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int64], Flags]:
        """How each fill looks from the pharmacy that is asked, and whether another's custody must be passed on."""
        reach, demand, region = self.reach, self.demand, self.country.region
        usual, place = demand.usual[rows], self.place[rows]
        island, hub = reach.island[at, hour], reach.hub[region[usual], hour]
        own = usual == at
        joined = island == reach.island[usual, hour]
        alive = reach.node[usual, hour] & reach.open[usual, hour]
        to_holder = np.select(
            [place == Place.AGENCY, place == Place.CUSTODIAN, place == Place.PHARMACY],
            [reach.agency[at, hour], island == hub, own | (joined & alive)],
            False,
        )
        waited = hour - demand.hour[rows]
        if self.arrangement.bundles:
            # A claim by courier: one way with the request, one back with the transfer. A dark agency answers no courier.
            by_courier = (waited >= 2 * self.figures["courier_hours"]) & (place != Place.AGENCY)
            to_holder |= by_courier
        seen = np.where(to_holder, Seen.OWN, Seen.ELSEWHERE)
        claimed = to_holder & ~(own & (place == Place.PHARMACY))
        fresh = self.fresh[rows]
        brought = np.where(fresh, demand.paper[rows] < self.figures["fresh_paper_share"], self.paper[rows])
        # Who was sent home for the paper brings it the next day.
        brought |= waited >= _NEXT_DAY_HOURS
        # Printed by whoever could not send it: the fills then belong to the paper.
        unsent = fresh & (
            reach.care[region[usual], np.clip(demand.issued[rows], 0, reach.hours - 1)] != island
        )
        on_paper = (place == Place.BEARER) & (~fresh | unsent) | (unsent & self.arrangement.printed)
        seen = np.where(on_paper, np.where(brought, Seen.BEARER_PAPER, Seen.BEARER_BARE), seen)
        # Bearer prescriptions that could be sent are held by the pharmacy that they were sent to.
        seen = np.where((place == Place.BEARER) & fresh & ~unsent, Seen.OWN, seen)
        seen = self._spoilt(hour, seen, usual, at, place)
        known = self._known(hour, rows, at, usual, waited) | (on_paper & brought)
        return np.where(known, seen, Seen.UNKNOWN), claimed

    def _spoilt(
        self,
        hour: int,
        seen: npt.NDArray[np.int64],
        usual: npt.NDArray[np.int16],
        at: npt.NDArray[np.int16],
        place: npt.NDArray[np.int8],
    ) -> npt.NDArray[np.int64]:
        """A revoked holder's fills are contested; a lost one's stand with nobody until the agency recovers them."""
        reach = self.reach
        held = place == Place.PHARMACY
        contested = held & (hour >= reach.contested_from[usual])
        lost = held & (hour >= reach.lost_from[usual])
        declared_dead = hour >= reach.lost_from[usual] + self.figures["recovery_hours"]
        recovered = lost & declared_dead & reach.agency[at, hour]
        seen = np.where(lost, np.where(recovered, Seen.RECOVERED, Seen.ELSEWHERE), seen)
        return np.where(contested, Seen.CONTESTED, seen)

    def _known(
        self,
        hour: int,
        rows: Rows,
        at: npt.NDArray[np.int16],
        usual: npt.NDArray[np.int16],
        waited: npt.NDArray[np.int16],
    ) -> Flags:
        """Whether the prescription is held here, or can be asked for by a link."""
        reach, demand, country = self.reach, self.demand, self.country
        region = country.region[usual]
        island = reach.island[at, hour]
        same_district = country.district[at] == country.district[usual]
        asked = island == reach.hub[region, hour]
        old = same_district | asked
        fresh = self.fresh[rows]
        sent = (reach.care[region, hour] == island) & asked
        if self.arrangement.bundles:
            sent |= waited >= self.figures["courier_hours"]
        known: Flags = np.where(fresh, sent, old)
        # Nobody can be looked up without a number; the pharmacy named by the prescription has it by that.
        by_name: Flags = ~demand.numberless[rows] | (at == usual)
        return known & by_name

    def _sold_out(self, hour: int, rows: Rows) -> Flags:
        """Whether the shelf is empty: each medicine lasts its own time, evenly up to twice the mean."""
        out: Flags = np.zeros(len(rows), np.bool_)
        if self.reach.ordering_from <= hour < self.reach.ordering_until:
            # Other digits of a uniform draw: as good as a draw of its own.
            lasts = (self.demand.paper[rows] * 4096) % 1 * 2 * self.figures["stock_days"] * 24
            out = hour - self.reach.ordering_from > lasts
        return out

    # --- what bounds it ---------------------------------------------------------------------------------------

    def _within_staff(
        self, hour: int, rows: Rows, pharmacy: npt.NDArray[np.int16], ground: npt.NDArray[np.int8]
    ) -> Flags:
        """Those for whom there are minutes.

        A slow telephone call never keeps out the many who could be served at once, unless it is for a medicine that
        sustains life.
        """
        left = self.minutes[:, hour // 24].copy()
        slow = (ground == Ground.MANUAL) & (self.demand.medicine[rows] != 0)
        now = np.zeros(len(rows), np.bool_)
        for turn in (~slow, slow):
            cost = np.where(turn, self.cost[ground], 0.0)
            fits = (
                turn
                & (ground > 0)
                & (_before_own(np.cumsum(cost), cost, pharmacy) + cost <= left[pharmacy] + 1e-6)
            )
            left -= np.bincount(pharmacy, np.where(fits, cost, 0.0), len(left))
            now |= fits
        return now

    def _within_telephone(
        self, hour: int, rows: Rows, pharmacy: npt.NDArray[np.int16], ground: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.int8]:
        by_hand = ground == Ground.MANUAL
        if not by_hand.any():
            return ground
        if not self.reach.telephone[hour]:
            return np.where(by_hand, Ground.NONE, ground).astype(np.int8)
        most = np.floor(self.manual[:, hour // 24] + self.rounding[:, hour])
        left = most.copy()
        kept = np.zeros(len(rows), np.bool_)
        # Those known to be urgent go first, whoever has waited longest after them.
        urgent = by_hand & (self.demand.medicine[rows] == 0)
        urgent &= self.has_system[pharmacy] | (self.demand.choice[rows] < self.figures["triage_share"])
        for turn in (urgent, by_hand & ~urgent):
            chosen = np.flatnonzero(turn)
            at = pharmacy[chosen].astype(np.int64)
            order = np.argsort(at * _HOURS_RADIX + self.demand.hour[rows[chosen]], kind="stable")
            chosen, at = chosen[order], at[order]
            ones = np.ones(len(at))
            fits = _before_own(np.cumsum(ones), ones, at) < left[at]
            kept[chosen[fits]] = True
            left -= np.bincount(at[fits], minlength=len(left))
        return np.where(by_hand & ~kept, Ground.NONE, ground).astype(np.int8)

    def _within_channel(
        self, hour: int, pharmacy: npt.NDArray[np.int16], ground: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.int8]:
        """Claims of a region share its thin channel; those for which there is no room wait."""
        carried = self.reach.channel_bytes[:, hour] * _CONTENT_SHARE / self.figures["bytes_claim"]
        if np.isinf(carried).all():
            return ground
        region = self.country.region[pharmacy]
        claims = ground == Ground.CLAIMED
        for r in range(len(REGIONS)):
            if np.isfinite(carried[r]):
                late = np.flatnonzero(claims & (region == r))[int(carried[r]) :]
                ground[late] = Ground.NONE
        return ground


def _before_own(
    running: npt.NDArray[np.float64], each: npt.NDArray[np.float64], pharmacy: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """What the rows before each of the same pharmacy add up to; rows lie by pharmacy."""
    if not len(pharmacy):
        return running
    starts = np.flatnonzero(np.concatenate([[True], pharmacy[1:] != pharmacy[:-1]]))
    base = running[starts] - each[starts]
    lengths = np.diff(np.concatenate([starts, [len(pharmacy)]]))
    return running - each - np.repeat(base, lengths)


def levels(reach: Reach, decisions: Decisions) -> npt.NDArray[np.uint8]:
    """The level in force at each pharmacy, hour by hour: as declared, or worse if the agency is silent (real policy)."""
    agency, hours = reach.agency, reach.hours
    table = decisions.levels_after(hours)
    silence = np.zeros(agency.shape[0], np.int64)
    level = np.zeros(agency.shape, np.uint8)
    for hour in range(hours):
        silence = np.where(agency[:, hour], 0, silence + 1)
        # Heard for the last time in the last hour in which it was reached.
        level[:, hour] = table[silence]
    # Kept up after the outage, until what was recovered has been written anew or collected.
    level[:, reach.start :] = np.maximum(level[:, reach.start :], decisions.declared)
    return level


def run(
    country: Country, demand: Demand, reach: Reach, arrangement: Arrangement, decisions: Decisions, figures: Figures,
    seed: int,
) -> Outcome:  # fmt: skip
    """Run one arrangement over one demand and one outage. Pure: the same arguments, the same outcome."""
    return _Run(country, demand, reach, arrangement, decisions, figures, seed).run()
