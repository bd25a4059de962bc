"""The catalogue: systems and services of care, pharmacies and the agency, each with what it takes to lose it.

What follows from losing one is run by the model. Readiness levels, development, payers and questions of law are proposals of
this project, for the actors named to confirm; no authority has said any of it.
"""

from __future__ import annotations

from msgspec import Struct

from simulations.scenario import Words

__all__ = ["SERVICES", "Service"]


class Service(Struct, frozen=True, kw_only=True):
    """One system or service."""

    key: str
    title: Words
    actor: Words
    needed: tuple[bool, bool, bool, bool]
    """At the levels normal, strained, crisis, minimum."""
    development: Words
    payer: Words
    law: Words
    confirm: str
    faults: tuple[tuple[str, float], ...] = ()
    """How the model loses it: kind of fault and share."""
    figures: dict[str, float] = {}
    modelled: Words = Words("", "")


_AGENCY, _CARE, _PHARMACY = (
    Words("E-hälsomyndigheten", "The agency (E-hälsomyndigheten)"), Words("Vården", "Care"), Words("Apoteken", "Pharmacies"),
)  # fmt: skip

SERVICES: tuple[Service, ...] = (
    Service(
        key="register", title=Words("Registret (NLL)", "The register (NLL)"), actor=_AGENCY,
        needed=(True, True, False, False), faults=(("agency-down", 1.0),),
        development=Words("Ta emot efterregistrering i bulk; ge ut förvar varje natt", "Take late registration in bulk; give out custody every night"),
        payer=Words("Staten", "The state"),
        law=Words("Får förskrivningar enligt 3 kap. 8 § lagen (2018:1212) hållas hos apotek och vårdgivare i beredskapssyfte? Lagen är tyst.", "May the content of ch. 3 s. 8 of Act 2018:1212 be held at pharmacies and care providers for preparedness? The Act is silent."),
        confirm="E-hälsomyndigheten, Socialdepartementet", modelled=Words("Redan borta i scenariot", "Gone in the scenario already"),
    ),
    Service(
        key="journal", title=Words("Journalsystem: skicka recept", "Journal systems: sending prescriptions"), actor=_CARE,
        needed=(True, True, True, False), faults=(("care-down", 1.0),),
        development=Words("Nod i systemet; utskrift med kod när länk saknas", "A node in the system; printing with a code when there is no link"),
        payer=Words("Regionerna, med statsbidrag", "The regions, with a state grant"),
        law=Words("Är ett utskrivet recept med kod ett pappersrecept enligt HSLF-FS 2021:75?", "Is a printed prescription with a code a paper prescription under HSLF-FS 2021:75?"),
        confirm="SKR, Inera",
    ),
    Service(
        key="login", title=Words("Inloggning och kort", "Login and cards"), actor=Words("Vården och apoteken", "Care and pharmacies"),
        needed=(True, True, True, True), faults=(("nodes-lost", 1.0),),
        development=Words("Inloggning utan central: sparade behörigheter, kort som prövas lokalt", "Login without a centre: kept rights, cards checked locally"),
        payer=Words("Regionerna och apoteksaktörerna", "Regions and pharmacy companies"),
        law=Words("Räcker lokal prövning för kravet på behörighetskontroll i 8 kap. lagen (2018:1212)?", "Does a local check meet the access control of ch. 8 of Act 2018:1212?"),
        confirm="Inera, DIGG", modelled=Words("Ingen kan logga in: allt för hand", "Nobody can log in: all by hand"),
    ),
    Service(
        key="electricity", title=Words("El på apotek", "Electricity at pharmacies"), actor=_PHARMACY,
        needed=(True, True, True, True), faults=(("power-cuts", 0.33),),
        development=Words("Reservkraft för nod, kassa och kyl", "Back-up power for node, till and refrigerator"),
        payer=Words("Apoteksaktörerna; staten för beredskapsapotek", "Pharmacy companies; the state for preparedness pharmacies"),
        law=Words("Kan krav ställas i lag (2009:366)?", "Can it be required under Act 2009:366?"), confirm="TLV, Läkemedelsverket",
        modelled=Words("En tredjedel mörk i taget", "A third dark at a time"),
    ),
    Service(
        key="ordering", title=Words("Beställning från partihandeln", "Ordering from wholesalers"), actor=_PHARMACY,
        needed=(True, True, True, True), faults=(("ordering-down", 1.0),),
        development=Words("Beställning per fil och telefon; lager mot förvarets prognos", "Ordering by file and telephone; stock from what custody forecasts"),
        payer=Words("Partihandeln och apoteken", "Wholesalers and pharmacies"),
        law=Words("Ingen fråga funnen", "No question found"), confirm="partihandeln, Sveriges Apoteksförening",
    ),
    Service(
        key="telephone", title=Words("Telefoni", "Telephony"), actor=Words("Alla", "All"),
        needed=(True, True, True, True), faults=(("telephone-down", 1.0),),
        development=Words("Rakel eller satellit till ett apotek per kommun", "Rakel or satellite to one pharmacy per municipality"),
        payer=Words("Staten", "The state"), law=Words("Kan apotek bli Rakelanvändare?", "Can pharmacies become users of Rakel?"),
        confirm="MSB",
    ),
    Service(
        key="verification", title=Words("Läkemedelsverifiering (e-VIS)", "Medicines verification (e-VIS)"), actor=_PHARMACY,
        needed=(True, False, False, False), figures={"capacity_headroom": 1.35},
        development=Words("Kontrollera och avaktivera i efterhand", "Verify and decommission afterwards"),
        payer=Words("e-VIS", "e-VIS"),
        law=Words("Tillåter delegerad förordning (EU) 2016/161 avaktivering i efterhand?", "Does Delegated Regulation (EU) 2016/161 allow decommissioning afterwards?"),
        confirm="e-VIS, Läkemedelsverket", modelled=Words("Varje rad tar en tiondel längre", "Each row takes a tenth longer"),
    ),
    Service(
        key="benefit", title=Words("Högkostnadsskydd", "High-cost protection"), actor=_AGENCY,
        needed=(True, False, False, False), figures={"capacity_headroom": 1.35},
        development=Words("Räkna lokalt på senast kända belopp; rätta efteråt", "Compute locally from the last known sum; correct afterwards"),
        payer=Words("Staten", "The state"),
        law=Words("Får förmån enligt lag (2002:160) räknas på ett inaktuellt belopp?", "May benefits under Act 2002:160 be computed from an outdated sum?"),
        confirm="TLV, E-hälsomyndigheten", modelled=Words("Varje rad tar en tiondel längre", "Each row takes a tenth longer"),
    ),
    Service(
        key="dose", title=Words("Dosdispensering", "Dose dispensing"), actor=_PHARMACY,
        needed=(True, True, True, False),
        development=Words("Dosapoteken är valt apotek i förvarsplanen; utskrivna doslistor", "Dose pharmacies are the chosen pharmacy of the plan; printed dose lists"),
        payer=Words("Regionerna", "The regions"),
        law=Words("Gäller samtycket enligt 4 kap. 1 § lagen (2018:1212) även en lokal kopia?", "Does consent under ch. 4 s. 1 of Act 2018:1212 cover a local copy?"),
        confirm="dosapoteken, E-hälsomyndigheten", modelled=Words("Räknas för sig, se patienter", "Counted apart, see patients"),
    ),
)  # fmt: skip
