"""Realistic Swedish content for demonstrations, exercises and simulations. All of it is fiction.

**People.** Identity numbers are test numbers or examples published for the purpose, and nothing else: a
random number with a right check digit may be a living person's.

- Four personal numbers are the tax agency's test numbers, as HL7 Sweden's example patients carry them.
- The coordination number is one of those four with sixty added to its day and the check digit made anew; its
  serial 239 lies in the series that the test numbers use.
- The reserve number is the one of HL7 Sweden's example patient.
- The others have, as the register allows, birth date and sex only.

Names are invented. **Codes** of prescribers and pharmacists are not handed out (they begin with 00); location
numbers have GS1's Swedish prefix, the invented company number 99999 and a right check digit.

**Products.** Substances, ATC codes, forms and strengths are meant to be those of the Swedish market; pack ids
are invented and begin with the year 2099, so that none can be a real NPL pack id. Controlled classes and
criticality are this project's assumption (see `nodes.fhir_classes`), as are typical fills and intervals.

`prescriptions` draws from these with entropy that is handed in: the same seed tells the same story (R4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from ledger.events import Coded, ControlledClass, Criticality, Patient, Product
from ledger.persons import (
    COORDINATION_NUMBER,
    GLN,
    LICENCE_CODE,
    NPL_PACK_ID,
    PERSONAL_NUMBER,
    PRESCRIBER_CODE,
    RESERVE_NUMBER,
)
from nodes.fhir_types import ImportedPrescription
from nodes.fhir_values import plus_year

__all__ = [
    "CATALOGUE",
    "PATIENTS",
    "PHARMACIES",
    "PHARMACISTS",
    "PRESCRIBERS",
    "CatalogueItem",
    "DemoPharmacy",
    "DemoPrescriber",
    "prescriptions",
]

DEMO_ORDER: Final = "urn:rxledger:demo-order"
"""System of the external ids that this module makes."""

_HORIZON_DAYS = 330
"""Prescriptions are at most so old, hence still valid: they are issued for a year."""


class Entropy(Protocol):
    """Where choices come from; as `ledger.entropy.Entropy`."""

    def bytes(self, n: int, /) -> bytes:
        """The next n bytes."""


class CatalogueItem(Struct, frozen=True, kw_only=True):
    """A product and how it is usually prescribed."""

    product: Product
    dosages: tuple[str, ...]
    fills: int = 1
    packs: int = 1
    interval_days: int = 0
    controlled: ControlledClass = ControlledClass.NONE
    criticality: Criticality = Criticality.ORDINARY


class DemoPrescriber(Struct, frozen=True):
    """A prescriber of fiction, and where."""

    code: Coded
    name: str
    workplace: str
    district: str


class DemoPharmacy(Struct, frozen=True):
    """A pharmacy of fiction."""

    location: Coded
    name: str
    district: str


def _item(
    number: int, atc: str, name: str, form: str, strength: str, size: int, unit: str, *dosages: str,
    fills: int = 1, packs: int = 1, interval: int = 0, controlled: ControlledClass = ControlledClass.NONE,
    vital: bool = False,
) -> CatalogueItem:  # fmt: skip
    return CatalogueItem(
        product=Product(
            pack=Coded(NPL_PACK_ID, f"20990101{100_000 + number}"),
            name=name,
            atc=atc,
            form=form,
            strength=strength,
            pack_quantity=size,
            unit=unit,
        ),
        dosages=dosages,
        fills=fills,
        packs=packs,
        interval_days=interval,
        controlled=controlled,
        criticality=Criticality.LIFE_SUSTAINING if vital else Criticality.ORDINARY,
    )


_II, _III, _IV, _V = ControlledClass.II, ControlledClass.III, ControlledClass.IV, ControlledClass.V

CATALOGUE: Final[tuple[CatalogueItem, ...]] = (
    _item(1, "C07AB02", "Metoprolol depottablett 50 mg", "Depottablett", "50 mg", 98, "st",
          "1 depottablett 1 gång dagligen mot högt blodtryck", "1 depottablett på morgonen", fills=4,
          interval=90),
    _item(2, "C09AA02", "Enalapril tablett 10 mg", "Tablett", "10 mg", 98, "st",
          "1 tablett 1 gång dagligen mot högt blodtryck", "1 tablett morgon och kväll", fills=4, interval=90),
    _item(3, "C08CA01", "Amlodipin tablett 5 mg", "Tablett", "5 mg", 98, "st",
          "1 tablett 1 gång dagligen", fills=4, interval=90),
    _item(4, "C10AA05", "Atorvastatin filmdragerad tablett 20 mg", "Filmdragerad tablett", "20 mg", 98, "st",
          "1 tablett till kvällen mot höga blodfetter", fills=4, interval=90),
    _item(5, "A10BA02", "Metformin filmdragerad tablett 500 mg", "Filmdragerad tablett", "500 mg", 100, "st",
          "1 tablett 2 gånger dagligen till måltid", "2 tabletter morgon och kväll i samband med måltid",
          fills=4, packs=2, interval=90),
    # Levothyroxine stays in the body for weeks: a missed fill is no emergency, so it counts as ordinary.
    _item(6, "H03AA01", "Levotyroxinnatrium tablett 100 mikrogram", "Tablett", "100 mikrogram", 100, "st",
          "1 tablett på morgonen, fastande, en halvtimme före frukost", fills=4, interval=90),
    _item(7, "A02BC01", "Omeprazol enterokapsel 20 mg", "Enterokapsel", "20 mg", 98, "st",
          "1 kapsel 1 gång dagligen före frukost", "1 kapsel vid behov, högst 1 kapsel dagligen", fills=2,
          interval=60),
    _item(8, "N06AB06", "Sertralin filmdragerad tablett 50 mg", "Filmdragerad tablett", "50 mg", 100, "st",
          "1 tablett 1 gång dagligen mot depression", fills=4, interval=90),
    _item(9, "N02BE01", "Paracetamol filmdragerad tablett 500 mg", "Filmdragerad tablett", "500 mg",
          100, "st", "2 tabletter vid behov, högst 8 tabletter per dygn, mot smärta", fills=3, interval=30),
    _item(10, "J01CE02", "Fenoximetylpenicillin filmdragerad tablett 1 g", "Filmdragerad tablett", "1 g",
          30, "st", "1 tablett 3 gånger dagligen i 10 dagar mot infektion"),
    _item(11, "J01CA04", "Amoxicillin pulver till oral suspension 50 mg/ml", "Pulver till oral suspension",
          "50 mg/ml", 100, "ml", "7,5 ml 2 gånger dagligen i 5 dagar mot öroninflammation"),
    _item(12, "R01AD09", "Mometason nässpray 50 mikrogram/dos", "Nässpray, suspension", "50 mikrogram/dos",
          140, "dos", "2 sprayningar i vardera näsborren 1 gång dagligen under pollensäsongen", fills=2,
          interval=60),
    _item(13, "D07AC01", "Betametason kräm 0,1 %", "Kräm", "0,1 %", 100, "g",
          "Tunt lager 1 gång dagligen på eksem, högst 2 veckor i taget", fills=2, interval=30),
    # Life-sustaining.
    _item(14, "A10AE04", "Insulin glargin injektionsvätska 100 enheter/ml, penna",
          "Injektionsvätska, lösning, förfylld injektionspenna", "100 enheter/ml", 15, "ml",
          "18 enheter till kvällen, under huden", "Enligt särskild ordination, högst 40 enheter per dygn",
          fills=4, interval=60, vital=True),
    _item(15, "A10AB05", "Insulin aspart injektionsvätska 100 enheter/ml, penna",
          "Injektionsvätska, lösning, förfylld injektionspenna", "100 enheter/ml", 15, "ml",
          "6-10 enheter till varje huvudmål, under huden", fills=4, packs=2, interval=60, vital=True),
    _item(16, "B01AA03", "Warfarin tablett 2,5 mg", "Tablett", "2,5 mg", 100, "st",
          "Enligt doseringslista från mottagningen, mot blodpropp", fills=4, interval=60, vital=True),
    _item(17, "B01AF02", "Apixaban filmdragerad tablett 5 mg", "Filmdragerad tablett", "5 mg", 168, "st",
          "1 tablett morgon och kväll mot blodpropp", fills=4, interval=80, vital=True),
    _item(18, "C01CA24", "Adrenalin injektionsvätska 300 mikrogram, autoinjektor",
          "Injektionsvätska, lösning, förfylld injektionspenna", "300 mikrogram", 2, "st",
          "1 injektion i lårets utsida vid svår allergisk reaktion, ring 112", fills=2, interval=30,
          vital=True),
    _item(19, "R03AC02", "Salbutamol inhalationspulver 0,1 mg/dos", "Inhalationspulver, avdelad dos",
          "0,1 mg/dos", 200, "dos", "1-2 inhalationer vid behov mot andnöd", fills=3, interval=30,
          vital=True),
    _item(20, "H02AB09", "Hydrokortison tablett 10 mg", "Tablett", "10 mg", 100, "st",
          "1 tablett på morgonen och en halv på eftermiddagen; dubbla dosen vid feber", fills=4, interval=45,
          vital=True),
    _item(21, "N03AX14", "Levetiracetam filmdragerad tablett 500 mg", "Filmdragerad tablett", "500 mg",
          100, "st", "1 tablett morgon och kväll mot epilepsi", fills=4, interval=50, vital=True),
    # Controlled.
    _item(22, "N06BA04", "Metylfenidat depottablett 36 mg", "Depottablett", "36 mg", 30, "st",
          "1 depottablett på morgonen mot adhd", fills=6, interval=28, controlled=_II),
    _item(23, "N02AA05", "Oxikodon depottablett 10 mg", "Depottablett", "10 mg", 28, "st",
          "1 depottablett morgon och kväll mot svår smärta", fills=2, interval=14, controlled=_II),
    _item(24, "N02AJ06", "Paracetamol och kodein tablett 500 mg/30 mg", "Tablett", "500 mg/30 mg", 50, "st",
          "1-2 tabletter vid behov, högst 6 per dygn, mot smärta", fills=1, controlled=_III),
    _item(25, "N05CF01", "Zopiklon filmdragerad tablett 5 mg", "Filmdragerad tablett", "5 mg", 30, "st",
          "1 tablett till natten vid behov mot sömnsvårigheter", fills=3, interval=30, controlled=_IV),
    _item(26, "N05BA01", "Diazepam tablett 5 mg", "Tablett", "5 mg", 25, "st",
          "1 tablett vid behov mot oro, högst 2 per dygn", fills=2, interval=30, controlled=_IV),
    _item(27, "N05CM02", "Klometiazol kapsel 300 mg", "Kapsel", "300 mg", 100, "st",
          "1 kapsel till natten mot sömnsvårigheter", fills=1, controlled=_V),
)  # fmt: skip


def _person(name: str, system: str, code: str, born: str, sex: str) -> Patient:
    return Patient(name=name, identifier=Coded(system, code), birth_date=born, sex=sex)


PATIENTS: Final[tuple[Patient, ...]] = (
    _person("Hulda Prövengren", PERSONAL_NUMBER, "189002029800", "1890-02-02", "female"),
    _person("Birgitta Exempelsson", PERSONAL_NUMBER, "196101182803", "1961-01-18", "female"),
    _person("Mattias Övningström", PERSONAL_NUMBER, "199002222397", "1990-02-22", "male"),
    _person("Alva Testlund", PERSONAL_NUMBER, "200001252386", "2000-01-25", "female"),
    _person("Samir Provkvist", COORDINATION_NUMBER, "199002822394", "1990-02-22", "male"),
    _person("Leila Låtsasdotter", RESERVE_NUMBER, "20210325K069", "2021-03-25", "female"),
    Patient(name="Åke Påhittberg", birth_date="1944-11-03", sex="male"),
    Patient(name="Greta Sagofors", birth_date="1952-06-17", sex="female"),
    Patient(name="Jokkmokks-Nils Fabelström", birth_date="1938-12-30", sex="male"),
    Patient(name="Ewa Fiktiwska", birth_date="1979-08-09", sex="female"),
    Patient(name="Yusuf Diktaryd", birth_date="2011-05-21", sex="male"),
    Patient(name="Kim Skuggås", birth_date="1999-01-01", sex="other"),
)

PRESCRIBERS: Final[tuple[DemoPrescriber, ...]] = (
    DemoPrescriber(Coded(PRESCRIBER_CODE, "0000101"), "Dr Ylva Lekander", "00000000011", "SE-AB-0180"),
    DemoPrescriber(Coded(PRESCRIBER_CODE, "0000202"), "Dr Omar Spelman", "00000000022", "SE-AB-0180"),
    DemoPrescriber(Coded(PRESCRIBER_CODE, "0000303"), "Dr Karin Scenmark", "00000000033", "SE-C-0380"),
    DemoPrescriber(Coded(PRESCRIBER_CODE, "0000404"), "Dr Lars Repetitsson", "00000000044", "SE-BD-2514"),
)
PHARMACISTS: Final[tuple[Coded, ...]] = tuple(Coded(LICENCE_CODE, f"0009{n:02d}") for n in range(1, 7))


def _location(number: int) -> Coded:
    digits = f"73599999{number:04d}"
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return Coded(GLN, f"{digits}{-weighted % 10}")


PHARMACIES: Final[tuple[DemoPharmacy, ...]] = (
    DemoPharmacy(_location(1), "Apotek Eken", "SE-AB-0180"),
    DemoPharmacy(_location(2), "Apotek Björken", "SE-AB-0180"),
    DemoPharmacy(_location(3), "Apotek Linden", "SE-AB-0180"),
    DemoPharmacy(_location(4), "Apotek Aspen", "SE-C-0380"),
    DemoPharmacy(_location(5), "Apotek Rönnen", "SE-BD-2514"),
)

_Choice = TypeVar("_Choice")


def _below(entropy: Entropy, limit: int) -> int:
    # The bias of a modulus of 64 bits over a few hundred is far below what a story could show.
    return int.from_bytes(entropy.bytes(8), "big") % limit


def _one(entropy: Entropy, among: Sequence[_Choice]) -> _Choice:
    return among[_below(entropy, len(among))]


def prescriptions(
    entropy: Entropy,
    today: date,
    *,
    district: str | None = None,
    catalogue: Sequence[CatalogueItem] = CATALOGUE,
) -> Iterator[ImportedPrescription]:
    """Prescriptions without end, each valid today; take as many as are wanted.

    Args:
        entropy: the only source of choice; the same bytes give the same prescriptions.
        today: the story's day.
        district: only prescribers of this district; all if it has none, or None.
        catalogue: products to draw from.
    """
    prescribers = [p for p in PRESCRIBERS if p.district == district] or PRESCRIBERS
    while True:
        item = _one(entropy, catalogue)
        prescriber = _one(entropy, prescribers)
        issued = today - timedelta(days=_below(entropy, _HORIZON_DAYS))
        serial = entropy.bytes(6).hex()
        yield ImportedPrescription(
            patient=_one(entropy, PATIENTS),
            product=item.product,
            dosage=_one(entropy, item.dosages),
            fills=item.fills,
            packs_per_fill=item.packs,
            interval_days=item.interval_days,
            issued=issued.isoformat(),
            valid_until=plus_year(issued).isoformat(),
            substitution=_below(entropy, 20) > 0,
            controlled=item.controlled,
            criticality=item.criticality,
            prescriber=prescriber.code,
            workplace=prescriber.workplace,
            order_serial=f"DEMO-{serial}",
            external_id=Coded(DEMO_ORDER, serial),
            notes=("fiction",),
        )
