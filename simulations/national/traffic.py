"""Bytes on links: what a pharmacy's own link carries in each lane, what waits for it after the outage, what radio carries."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from simulations.national.arrangements import Arrangement, Holder
from simulations.national.demand import Country, Demand
from simulations.national.engine import Ground, Outcome
from simulations.national.figures import Figures
from simulations.national.outage import Reach

__all__ = ["Traffic", "measure_traffic"]


class Traffic(Struct, frozen=True, kw_only=True):
    """Of a mean pharmacy's link and day of the outage unless said otherwise; bytes. Both directions."""

    claims: float
    """Lane 0."""
    supplies: float
    """Lane 1: supplies, and prescriptions that sustain life."""
    prescriptions: float
    """Lane 2."""
    rounds: float
    """Digests of nodes that are in step."""
    catch_up_mean: float
    """Of a pharmacy that saw nothing of its district for the whole outage."""
    catch_up_largest: float
    catch_up_all: float
    """Of all pharmacies together, as if all had seen nothing: the return of everybody at once."""
    channel_share: float
    """Of the busiest region and hour: claims on a thin channel against what it carries; 0 where there is none."""


def measure_traffic(
    country: Country,
    demand: Demand,
    reach: Reach,
    arrangement: Arrangement,
    figures: Figures,
    outcome: Outcome,
) -> Traffic:
    """Count what is written in the outage, and who of a district must learn it."""
    if arrangement.holder is Holder.REGISTER or reach.end == 0:
        return Traffic(
            claims=0, supplies=0, prescriptions=0, rounds=0, catch_up_mean=0, catch_up_largest=0, catch_up_all=0,
            channel_share=0,
        )  # fmt: skip
    days = (reach.end - reach.start) / 24
    served = (outcome.served >= reach.start) & (outcome.served < reach.end)
    written = served & (outcome.ground >= Ground.CUSTODY) & (outcome.ground <= Ground.EMERGENCY)
    districts = int(country.district.max()) + 1
    home = country.district[demand.usual]
    fresh = (demand.issued >= reach.start) & (demand.issued < reach.end)
    vital = demand.medicine == 0
    supplies = np.bincount(home[written], minlength=districts) * figures["bytes_supply"]
    supplies = (
        supplies + np.bincount(home[fresh & vital], minlength=districts) * figures["bytes_prescription"]
    )
    rest = np.bincount(home[fresh & ~vital], minlength=districts) * figures["bytes_prescription"]
    claims = np.bincount(
        demand.pharmacy[served & (outcome.ground == Ground.CLAIMED)], minlength=country.size
    ) * figures["bytes_claim"]  # fmt: skip
    catch_up = (supplies + rest)[country.district] + claims
    return Traffic(
        claims=2 * float(claims.mean()) / days, supplies=float(supplies[country.district].mean()) / days,
        prescriptions=float(rest[country.district].mean()) / days,
        rounds=24 * figures["rounds_per_hour"] * figures["bytes_round"], catch_up_mean=float(catch_up.mean()),
        catch_up_largest=float(catch_up.max()), catch_up_all=float(catch_up.sum()),
        channel_share=_channel(country, demand, reach, figures, outcome),
    )  # fmt: skip


def _channel(country: Country, demand: Demand, reach: Reach, figures: Figures, outcome: Outcome) -> float:
    claimed = outcome.ground == Ground.CLAIMED
    regions, hours = reach.channel_bytes.shape
    at = country.region[demand.pharmacy[claimed]].astype(np.int64) * hours + outcome.served[claimed]
    used = np.bincount(at, minlength=regions * hours).reshape(regions, hours) * figures["bytes_claim"]
    return float((used / reach.channel_bytes).max())
