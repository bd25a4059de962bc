"""Every figure that the national model rests on: value, range, label, source, and who can confirm it.

A figure is *sourced* (read in the source named), *derived* (arithmetic on sourced figures) or *assumed* (nobody has published
it; the range is what sensitivity runs over). Every one can be set in a scenario's `[figures]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from ledger.errors import InvalidInput

__all__ = ["FIGURES", "Figure", "Figures", "Kind"]


class Kind(StrEnum):
    """What a figure rests on."""

    SOURCED = "sourced"
    DERIVED = "derived"
    ASSUMED = "assumed"


class Figure(Struct, frozen=True):
    """One figure."""

    value: float
    low: float
    high: float
    """The range that a scenario may set and that sensitivity runs over."""
    unit: str
    kind: Kind
    source: str
    confirm: str
    """Who could confirm or correct it."""
    sv: str
    en: str


_SFA, _TLV = "Sveriges Apoteksförening", "TLV"
_AGENCY, _CARE, _SOS = "E-hälsomyndigheten", "regionerna (SKR)", "Socialstyrelsen"


def _s(
    value: float, low: float, high: float, unit: str, source: str, confirm: str, sv: str, en: str
) -> Figure:
    return Figure(value, low, high, unit, Kind.SOURCED, source, confirm, sv, en)


def _d(
    value: float, low: float, high: float, unit: str, source: str, confirm: str, sv: str, en: str
) -> Figure:
    return Figure(value, low, high, unit, Kind.DERIVED, source, confirm, sv, en)


def _a(value: float, low: float, high: float, unit: str, confirm: str, sv: str, en: str) -> Figure:
    return Figure(value, low, high, unit, Kind.ASSUMED, "assumption of this project", confirm, sv, en)


FIGURES: Mapping[str, Figure] = {
    # --- demand
    "rows_per_day": _d(
        270_000, 200_000, 330_000, "rows", "87.5 M in 2017 growing 1.7 % a year (Branschrapport 2018): 98.5 M in 2024 / 365",
        _SFA, "Expedierade receptrader ett genomsnittligt dygn", "Prescription rows dispensed on an average day",
    ),
    "pharmacies": _s(
        1_400, 40, 2_000, "pharmacies", "TLV, apoteksmarknaden 2024: ca 1 400", _TLV, "Öppenvårdsapotek", "Community pharmacies",
    ),
    "equivalent_days": _d(
        300, 260, 365, "days", "365 days of volume carried by 300 weekday equivalents", _SFA,
        "Vardagsekvivalenter per år", "Weekday equivalents per year",
    ),
    "peak_hour_share": _a(0.15, 0.12, 0.2, "share", _SFA, "Största timmens andel av dygnet", "Share of the day in its busiest hour"),
    "new_share": _s(
        0.46, 0.3, 0.6, "share", "Åstrand et al., BMC MIDM 2009 9:8 (three mail-order pharmacies, 2006: biased)", _AGENCY,
        "Andel av uttagen som är första uttag på ett recept", "Share of fills that are the first of their prescription",
    ),
    "life_sustaining_share": _a(
        0.08, 0.04, 0.15, "share", _SOS, "Andel livsuppehållande läkemedel", "Share of life-sustaining medicines",
    ),
    "controlled_share": _a(
        0.07, 0.06, 0.08, "share", _AGENCY, "Andel narkotiska läkemedel (förteckning II–V)", "Share of controlled medicines (II–V)",
    ),
    "usual_pharmacy_share": _a(
        0.70, 0.5, 0.9, "share", _SFA, "Andel uttag på patientens vanliga apotek", "Share of fills at the patient's usual pharmacy",
    ),
    "same_district_share": _a(
        0.20, 0.05, 0.25, "share", _SFA, "Andel på annat apotek i kommunen", "Share at another pharmacy of the municipality",
    ),
    "other_region_share": _a(
        0.02, 0.0, 0.1, "share", _SFA, "Andel i en annan region", "Share in another region",
    ),
    "issued_today_share": _a(
        0.50, 0.2, 0.8, "share", _AGENCY, "Andel av första uttag som görs på recept skrivna samma dag",
        "Share of first fills on a prescription written the same day",
    ),
    "late_collection_days": _a(
        20, 0, 60, "days", _AGENCY, "Uttag hämtas upp till så många dagar efter att de får hämtas",
        "Fills are collected up to so many days after they may be",
    ),
    "reserve_days": _a(
        7, 2, 30, "days", _SOS, "Genomsnittlig reserv hemma av livsuppehållande läkemedel",
        "Mean reserve at home of life-sustaining medicine",
    ),
    "patience_days_ordinary": _a(3, 1, 14, "days", _SFA, "Dagar som en patient försöker igen, vanliga läkemedel", "Days a patient tries again, ordinary medicines"),
    "patience_days_urgent": _a(14, 3, 30, "days", _SFA, "Dagar som en patient försöker igen, övriga", "Days a patient tries again, other classes"),
    "dose_patients": _s(200_000, 150_000, 260_000, "patients", "SOU 2018:53", _AGENCY, "Dosdispenserade patienter", "Patients on dispensed doses"),
    "dose_roll_days": _a(14, 7, 28, "days", "dosapoteken", "Dosrullens längd", "Length of a dose roll"),
    "dose_buffer_days": _a(3, 0, 7, "days", "dosapoteken", "Färdiga dosrullar i förväg", "Dose rolls made ahead"),
    "without_number_share": _a(0.01, 0.0, 0.05, "share", _AGENCY, "Andel uttag för patienter utan personnummer", "Share of fills for patients without a number"),
    # --- capacity
    "manual_capacity_share": _a(
        0.25, 0.2, 0.35, "share", "Läkemedelsverket, apoteken", "Papper och telefon klarar så stor del av flödet",
        "Paper and telephone carry this share of the load",
    ),
    "stock_days": _a(12, 5, 30, "days", "partihandeln, " + _SFA, "Dagar som ett läkemedel i genomsnitt räcker på hyllan", "Days that a medicine on the shelf lasts on average"),
    "triage_share": _a(0.6, 0.2, 1.0, "share", "Läkemedelsverket, apoteken", "Andel livsuppehållande som känns igen i kön till papper och telefon", "Share of life-sustaining rows recognised in the queue for paper and telephone"),
    "recovery_hours": _a(24, 2, 168, "h", _AGENCY, "Tid tills myndigheten förklarar en innehavare död", "Time until the agency declares a holder dead"),
    "capacity_headroom": _a(1.5, 1.35, 2.0, "×", _SFA, "Bemanning mot en medeltimme", "Staffing against a mean hour"),
    "minutes_digital": _a(4, 3, 5, "min", _SFA, "Minuter per rad, digitalt", "Minutes a row, digital"),
    "minutes_risk": _a(8, 5, 12, "min", _SFA, "Minuter per rad med risk (akut utlämning)", "Minutes a row with risk (emergency supply)"),
    "minutes_manual": _a(15, 10, 20, "min", _SFA, "Minuter per rad, papper och telefon", "Minutes a row, paper and telephone"),
    "minutes_late": _a(5, 2, 8, "min", _SFA, "Minuter per efterregistrerad rad", "Minutes a row registered late"),
    "minutes_prescriber_call": _a(10, 5, 20, "min", _CARE, "Förskrivarens minuter per telefonrecept", "Prescriber's minutes per telephone prescription"),
    "minutes_anomaly": _a(15, 5, 40, "min", _SFA, "Minuter att utreda en dubbelutlämning", "Minutes to resolve a double dispensing"),
    # --- behaviour
    "second_attempt_ordinary": _a(0.004, 0.001, 0.02, "share", _AGENCY, "Andel uttag som någon försöker göra en gång till", "Share of fills that somebody tries to collect again"),
    "second_attempt_controlled": _a(0.015, 0.005, 0.05, "share", _AGENCY, "Samma, narkotiska läkemedel", "The same, controlled medicines"),
    "paper_carried_share": _a(0.75, 0.4, 0.95, "share", _SFA, "Andel patienter som har med sig papperet", "Share of patients who carry the paper"),
    "fresh_paper_share": _a(0.95, 0.7, 1.0, "share", _CARE, "Andel som har nyss utskrivet papper med sig", "Share who bring a paper just printed"),
    "coverage": _a(0.95, 0.5, 1.0, "share", "apoteksaktörerna", "Andel apotek som infört systemet", "Share of pharmacies that have the system"),
    "chosen_at_issue": _a(0.30, 0.1, 0.9, "share", _CARE, "Patienten väljer apotek när receptet skrivs", "The patient chooses a pharmacy at issuing"),
    "chosen_known": _a(0.85, 0.5, 1.0, "share", "apoteksaktörerna", "Vanligt apotek känt för förvarsplanen", "Usual pharmacy known to the custody plan"),
    "plan_days": _s(30, 1, 120, "days", "design of this system: the custody plan", "projektet", "Förvarsplanens dagar", "Days of the custody plan"),
    # --- links
    "bytes_prescription": _d(600, 400, 800, "bytes", "field sizes of a signed binary event", "projektet", "Förskrivning på ledningen", "A prescription on the wire"),
    "bytes_supply": _d(300, 250, 400, "bytes", "field sizes of a signed binary event", "projektet", "Uttag på ledningen", "A supply on the wire"),
    "bytes_claim": _d(700, 400, 1_200, "bytes", "request, transfer and answer", "projektet", "Begäran och överlåtelse av uttag", "Claim and transfer of a fill"),
    "bytes_round": _d(300, 150, 600, "bytes", "digest and answer of two nodes in step", "projektet", "En avstämning utan nyheter", "A round with no news"),
    "rounds_per_hour": _a(60, 1, 360, "per h", "projektet", "Avstämningar per timme", "Rounds per hour"),
    "radio_share": _a(0.30, 0.05, 1.0, "share", "MSB, regionerna", "Andel avskurna apotek som får radio", "Share of cut-off pharmacies given radio"),
    "radio_bits_per_second": _a(9_600, 2_400, 28_800, "bit/s", "MSB", "Radiolänkens takt, delad av en region", "Rate of the radio channel, shared by a region"),
    "courier_hours": _a(24, 6, 72, "h", _SFA, "Tid mellan budturer med filer", "Hours between couriers with files"),
    # --- cost
    "staff_kr_per_hour": _a(500, 350, 750, "kr", _SFA, "Timkostnad, farmaceut", "Cost of a pharmacist's hour"),
    "prescriber_kr_per_hour": _a(900, 600, 1_400, "kr", _CARE, "Timkostnad, förskrivare", "Cost of a prescriber's hour"),
    "node_kr_per_year": _a(6_000, 2_000, 20_000, "kr", "apoteksaktörerna", "Kostnad per apotek och år", "Cost per pharmacy and year"),
    "central_kr_per_year": _a(8e6, 3e6, 25e6, "kr", _AGENCY, "Central förvaltning per år", "Central administration per year"),
    "systems": _a(35, 20, 60, "systems", _CARE, "Journal- och apotekssystem att anpassa", "Journal and pharmacy systems to adapt"),
    "integration_kr": _a(2.5e6, 0.8e6, 8e6, "kr", _CARE, "Engångskostnad per system", "One-off cost per system"),
    "write_off_years": _a(5, 3, 10, "years", "finansiärerna", "Avskrivningstid", "Years of write-off"),
    "radio_kr_per_year": _a(15_000, 5_000, 40_000, "kr", "MSB", "Radioutrustning per apotek och år", "Radio equipment per pharmacy and year"),
    "courier_kr_per_trip": _a(300, 100, 800, "kr", _SFA, "En budtur till ett apotek", "One courier's trip to a pharmacy"),
    "custodian_kr_per_year": _a(50_000, 10_000, 200_000, "kr", _CARE, "Förvarare per kommun och år", "Custodian per municipality and year"),
    "paper_kr": _a(1.5, 0.5, 5, "kr", _CARE, "Ett utskrivet recept med kod", "A printed prescription with its code"),
    "outages_per_year": _a(0.1, 0.02, 1.0, "per year", "MSB, " + _AGENCY, "Sådana avbrott per år", "Such outages per year"),
}  # fmt: skip


class Figures:
    """The figures of one run: the table above, with what a scenario sets."""

    def __init__(self, changed: Mapping[str, float] | None = None) -> None:
        """Take what a scenario sets.

        Args:
            changed: name → value.

        Raises:
            InvalidInput: a name is unknown, or a value lies outside the figure's range.
        """  # fmt: skip
        self.changed = dict(changed or {})
        for name, value in self.changed.items():
            figure = FIGURES.get(name)
            if figure is None:
                raise InvalidInput(
                    f"figures.{name} is no figure of the model",
                    advice="names are listed in simulations/national/figures.py and in every report",
                )
            if not math.isfinite(value) or not figure.low <= value <= figure.high:
                raise InvalidInput(
                    f"figures.{name} is {value}, outside {figure.low:g} … {figure.high:g} {figure.unit}",
                    advice="give a value within the range; units stand beside it",
                )
        shares = sum(self[n] for n in ("usual_pharmacy_share", "same_district_share", "other_region_share"))
        if shares > 1 + 1e-9:
            raise InvalidInput(
                f"the shares of pharmacies collected from add up to {shares:g}",
                advice="lower figures.usual_pharmacy_share, same_district_share or other_region_share",
            )

    def __getitem__(self, name: str) -> float:
        return self.changed.get(name, FIGURES[name].value)

    def with_(self, **changed: float) -> Figures:
        """These, with some changed."""
        return Figures({**self.changed, **changed})
