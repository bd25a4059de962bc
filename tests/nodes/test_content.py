"""Promises of `nodes.content`: fiction only, well formed, and the same from the same seed."""

from __future__ import annotations

import hashlib
from datetime import date
from itertools import islice

import pytest

from ledger.events import (
    ControlledClass,
    Criticality,
    Patient,
    Person,
    PersonRole,
    PrescriptionIssued,
    decode_event,
    encode_event,
)
from ledger.persons import (
    IdentifierKind,
    birth_date,
    identifier_kind,
    lookup_key,
    validate_gln,
    validate_identifier,
    validate_licence_code,
    validate_npl_pack,
    validate_prescriber_code,
)
from nodes.content import (
    CATALOGUE,
    PATIENTS,
    PHARMACIES,
    PHARMACISTS,
    PRESCRIBERS,
    CatalogueItem,
    prescriptions,
)
from nodes.fhir_classes import guess_controlled, guess_criticality
from nodes.fhir_types import ImportedPrescription

TODAY = date(2026, 3, 1)
OFFICIAL = {"189002029800", "196101182803", "199002222397", "200001252386"}


class Seeded:
    """SHA-256 in counter mode."""

    def __init__(self, seed: int) -> None:
        self._seed, self._count = seed, 0

    def bytes(self, n: int, /) -> bytes:
        self._count += 1
        return hashlib.sha256(f"{self._seed}:{self._count}".encode()).digest()[:n]


def some(seed: int, count: int = 400) -> list[ImportedPrescription]:
    return list(islice(prescriptions(Seeded(seed), TODAY), count))


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda p: p.name)
def test_patients_are_test_persons_or_have_no_number(patient: Patient) -> None:
    assert lookup_key(patient)
    if patient.identifier is None:
        assert patient.birth_date
        assert patient.sex
        return
    identifier = patient.identifier
    assert validate_identifier(identifier.system, identifier.code, today=TODAY) == identifier
    born = birth_date(identifier)
    assert born is not None
    assert born.isoformat() == patient.birth_date
    if identifier_kind(identifier) is IdentifierKind.PERSONAL:
        assert identifier.code in OFFICIAL
    if identifier_kind(identifier) is IdentifierKind.COORDINATION:
        assert f"{identifier.code[:6]}{int(identifier.code[6:8]) - 60:02d}{identifier.code[8:11]}" in {
            number[:11] for number in OFFICIAL
        }


def test_the_sex_of_a_swedish_number_is_that_of_its_ninth_digit() -> None:
    for patient in PATIENTS:
        if patient.identifier is not None and patient.identifier.code.isdigit():
            assert patient.sex == ("male" if int(patient.identifier.code[10]) % 2 else "female")


def test_patients_differ() -> None:
    assert len({lookup_key(patient) for patient in PATIENTS}) == len(PATIENTS) >= 10


@pytest.mark.parametrize("item", CATALOGUE, ids=lambda item: item.product.atc)
def test_products_are_well_formed_and_no_real_pack(item: CatalogueItem) -> None:
    assert validate_npl_pack(item.product.pack.code) == item.product.pack
    assert item.product.pack.code.startswith("2099")
    assert item.dosages
    assert all(item.dosages)
    assert 1 <= item.fills <= 12


@pytest.mark.parametrize("item", CATALOGUE, ids=lambda item: item.product.atc)
def test_the_catalogue_and_the_edges_guesses_agree(item: CatalogueItem) -> None:
    """One assumption in the project, not two."""
    product = item.product
    assert guess_controlled(product.atc, product.name) is item.controlled
    assert guess_controlled("", product.name) is item.controlled
    assert guess_criticality(product.atc, product.name) is item.criticality


def test_the_catalogue_covers_every_class() -> None:
    assert len(CATALOGUE) >= 25
    assert len({item.product.pack for item in CATALOGUE}) == len(CATALOGUE)
    assert {item.controlled for item in CATALOGUE} == set(ControlledClass)
    assert {item.criticality for item in CATALOGUE} == set(Criticality)


def test_codes_of_people_and_places_are_well_formed() -> None:
    assert all(validate_gln(pharmacy.location.code) == pharmacy.location for pharmacy in PHARMACIES)
    assert all(pharmacy.location.code.startswith("735") for pharmacy in PHARMACIES)
    assert all(validate_prescriber_code(p.code.code) == p.code for p in PRESCRIBERS)
    assert all(validate_licence_code(code.code) == code for code in PHARMACISTS)


def test_the_same_seed_tells_the_same_story() -> None:
    assert some(7) == some(7)
    assert some(7) != some(8)


def test_every_prescription_can_be_issued_and_is_valid_on_the_day() -> None:
    for made in some(1):
        event = PrescriptionIssued(
            person=Person(made.prescriber, PersonRole.PRESCRIBER), command=bytes(16), nonce=bytes(16),
            district="SE-AB-0180", issued=made.issued, patient=made.patient, product=made.product,
            dosage=made.dosage, fills=made.fills, packs_per_fill=made.packs_per_fill,
            interval_days=made.interval_days, valid_until=made.valid_until, prescriber=made.prescriber,
            workplace=made.workplace, order_serial=made.order_serial, external_id=made.external_id,
        )  # fmt: skip
        assert decode_event(encode_event(event)).event == event
        assert made.issued <= TODAY.isoformat() <= made.valid_until


def test_a_few_hundred_show_all_there_is() -> None:
    made = some(3)
    assert len({m.order_serial for m in made}) == len(made)
    assert {m.product.pack for m in made} == {item.product.pack for item in CATALOGUE}
    assert {m.patient.name for m in made} == {patient.name for patient in PATIENTS}
    assert {m.substitution for m in made} == {True, False}


def test_a_district_has_its_own_prescribers() -> None:
    own = {p.code for p in PRESCRIBERS if p.district == "SE-AB-0180"}
    made = islice(prescriptions(Seeded(1), TODAY, district="SE-AB-0180"), 50)
    assert {m.prescriber for m in made} == own
    anywhere = islice(prescriptions(Seeded(1), TODAY, district="SE-X-0000"), 200)
    assert {m.prescriber for m in anywhere} == {p.code for p in PRESCRIBERS}
