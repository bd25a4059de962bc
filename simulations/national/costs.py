"""Kronor: what an arrangement costs a year, and what one outage costs under it. From stated figures only."""

from __future__ import annotations

from msgspec import Struct

from simulations.national.arrangements import Arrangement, Holder
from simulations.national.demand import Country
from simulations.national.figures import Figures
from simulations.national.outage import Reach

__all__ = ["Cost", "yearly_cost"]

_DAYS_A_YEAR = 365


class Cost(Struct, frozen=True, kw_only=True):
    """Kronor."""

    pharmacies: float
    """A year: nodes and their upkeep."""
    care: float
    """A year: adapting journal systems, written off; custodians."""
    agency: float
    """A year: central administration."""
    extras: float
    """A year: radio, couriers and paper, those used in outages times outages a year."""
    outage: float
    """One outage's staff: pharmacies and prescribers beyond an ordinary day."""

    @property
    def year(self) -> float:
        """All that is paid whether an outage comes or not, and the extras."""
        return self.pharmacies + self.care + self.agency + self.extras


def yearly_cost(
    arrangement: Arrangement, country: Country, reach: Reach, figures: Figures, *, extra_staff_hours: float,
    prescriber_hours: float, printed: int,
) -> Cost:  # fmt: skip
    """The cost of an arrangement, at the size of the country that was run."""
    staff = (
        extra_staff_hours * figures["staff_kr_per_hour"]
        + prescriber_hours * figures["prescriber_kr_per_hour"]
    )
    if arrangement.holder is Holder.REGISTER:
        return Cost(pharmacies=0, care=0, agency=0, extras=0, outage=staff)
    # What is paid once for the country is scaled with it, so that a small run compares with a large one.
    scale = country.size / figures["pharmacies"]
    integration = figures["systems"] * figures["integration_kr"] / figures["write_off_years"] * scale
    custodians = 0.0
    if arrangement.preposition:
        custodians = (int(country.district.max()) + 1) * figures["custodian_kr_per_year"]
    extras = 0.0
    if arrangement.radio:
        extras += country.size * figures["radio_share"] * figures["radio_kr_per_year"]
    if arrangement.bundles:
        cut_off = (reach.island[:, reach.start] >= 100).sum() if reach.end else 0
        trips = int(cut_off) * (reach.end - reach.start) / figures["courier_hours"]
        extras += trips * figures["courier_kr_per_trip"] * figures["outages_per_year"]
    if arrangement.holder is Holder.BEARER:
        # Outages come without warning: every prescription is printed all year.
        new = country.rows_per_day.sum() * _DAYS_A_YEAR * figures["new_share"]
        extras += float(new) * figures["paper_kr"]
    elif arrangement.printed:
        extras += printed * figures["paper_kr"] * figures["outages_per_year"]
    return Cost(
        pharmacies=float(country.size * figures["coverage"] * figures["node_kr_per_year"]), care=integration + custodians,
        agency=figures["central_kr_per_year"] * scale, extras=extras, outage=float(staff),
    )  # fmt: skip
