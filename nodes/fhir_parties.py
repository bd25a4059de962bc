"""Patient and prescriber of a FHIR request: one identifier each, the best there is, the others listed.

A Swedish number that is wrong refuses the request, since it may be another person's. A patient who is not in
the file is kept by the reference, to be matched to a person by a person.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from ledger.errors import InvalidInput
from ledger.events import Coded, Patient
from ledger.persons import (
    COORDINATION_NUMBER,
    FHIR_REFERENCE,
    HSA_ID,
    LICENCE_CODE,
    PERSONAL_NUMBER,
    PRESCRIBER_CODE,
    RESERVE_NUMBER,
    birth_date,
    canonical_system,
    validate_identifier,
    validate_prescriber_code,
)
from nodes.fhir_references import Place
from nodes.fhir_types import NAME_MAX, SHORT_MAX, UNNAMED_SYSTEM, Options, missing, short, wrong
from nodes.fhir_values import Json, Notes, day_of, items, one, text

__all__ = ["identifiers", "patient_of", "prefer", "prescriber_of"]

_SWEDISH: Final = (PERSONAL_NUMBER, COORDINATION_NUMBER, RESERVE_NUMBER)
_PRESCRIBERS: Final = (PRESCRIBER_CODE, LICENCE_CODE, HSA_ID)


def identifiers(value: object) -> list[Coded]:
    """Usable identifiers, official ones first; without those that are marked as old."""
    found = [i for i in items(value) if text(i.get("value")) and text(i.get("use")) != "old"]
    found.sort(key=lambda identifier: text(identifier.get("use")) != "official")
    coded = [
        Coded(canonical_system(text(i.get("system"))) or UNNAMED_SYSTEM, text(i.get("value"))) for i in found
    ]
    return [code for code in coded if len(code.system) <= SHORT_MAX and len(code.code) <= SHORT_MAX]


def prefer(found: list[Coded], systems: tuple[str, ...]) -> Coded | None:
    """The first of the first system that occurs, else the first."""
    return next(
        (code for wanted in systems for code in found if code.system == wanted), found[0] if found else None
    )


def _name(patient: Json) -> str:
    names = items(patient.get("name"))
    names.sort(key=lambda name: {"official": 0, "usual": 1, "": 2}.get(text(name.get("use")), 3))
    for name in names:
        given = name.get("given")
        parts = [text(part) for part in given] if isinstance(given, list) else [text(given)]
        whole_name = text(name.get("text")) or " ".join(
            part for part in [*parts, text(name.get("family"))] if part
        )
        if whole_name:
            return whole_name
    return ""


def patient_of(place: Place, issued: date, notes: Notes) -> Patient:  # noqa: C901  one note for each thing amiss
    """The patient.

    Raises:
        RequestRefused: nobody is named, or a Swedish identity number is wrong.
    """
    subject = one(place.resource.get("subject"))
    if not subject:
        raise missing("subject", "no patient")
    resource = place.follow(subject, "Patient") or {}
    found = identifiers(resource.get("identifier")) + identifiers(subject.get("identifier"))
    name = _name(resource) or text(subject.get("display"))
    born = day_of(resource.get("birthDate"))
    if resource.get("birthDate") is not None and born is None:
        notes.add("Patient.birthDate", "not held: not precise to the day")
    if isinstance(subject.get("identifier"), list):
        notes.add("subject.identifier", "a list where one belongs; the first usable was taken")
    chosen = prefer(found, _SWEDISH)
    reference = text(subject.get("reference"))
    if chosen is None and born is None:
        if not reference or len(reference) > SHORT_MAX:
            raise missing("subject", "neither identifier, birth date nor reference of the patient")
        notes.add("subject", "not in the file; its reference stands as identifier until matched to a person")
        chosen = Coded(FHIR_REFERENCE, reference)
    if chosen is not None:
        try:
            chosen = validate_identifier(chosen.system, chosen.code, today=issued, field="Patient.identifier")
            inside = birth_date(chosen)
        except InvalidInput as error:
            raise wrong("Patient.identifier", error.message.partition(": ")[2]) from None
        if born is not None and inside is not None and inside != born:
            notes.add("Patient.birthDate", "differs from the date in the identity number; both are held")
    if len({(code.system, code.code) for code in found}) > 1:
        notes.add("Patient.identifier", "more than one; only one is held")
    if not name:
        notes.add("Patient.name", "missing")
    sex = text(resource.get("gender"))
    notes.unheld("Patient.", resource, frozenset({"identifier", "name", "birthDate", "gender", "active"}))
    if one(resource.get("meta")).get("security"):
        notes.add("Patient.meta.security", "not held")
    if resource.get("active") is False:
        notes.add("Patient.active", "the source calls this record inactive")
    return Patient(
        name=short(name or "okänd", NAME_MAX, "Patient.name", notes),
        identifier=chosen,
        birth_date=born.isoformat() if born else None,
        sex=sex if sex in ("male", "female", "other", "unknown") else None,
    )


def prescriber_of(place: Place, options: Options, notes: Notes) -> tuple[Coded, str]:
    """Code of the prescriber, and of the workplace if it is told.

    Raises:
        RequestRefused: a Swedish prescriber's code is malformed.
    """
    requester = one(place.resource.get("requester"))
    resource = place.follow(requester, "Practitioner", "PractitionerRole") or {}
    role: Json = resource if resource.get("resourceType") == "PractitionerRole" else {}
    person = (place.follow(role.get("practitioner"), "Practitioner") or {}) if role else resource
    workplace: Coded | None = None
    if role:
        organisation = place.follow(role.get("organization"), "Organization") or one(role.get("organization"))
        workplace = next(iter(identifiers(organisation.get("identifier"))), None)
    found = identifiers(person.get("identifier")) + identifiers(role.get("identifier"))
    found += identifiers(requester.get("identifier"))
    chosen = prefer(found, _PRESCRIBERS)
    if resource:
        notes.add("requester", "only a code of the prescriber and of the workplace is held")
    if chosen is None:
        reference = text(requester.get("reference"))
        told = bool(reference) and not resource and len(reference) <= SHORT_MAX
        chosen = Coded(FHIR_REFERENCE, reference) if told else options.prescriber
        notes.add(
            "requester",
            "no code; its reference is held" if told else "no code; the importer's default is held",
        )
    elif chosen.system == PRESCRIBER_CODE:
        try:
            chosen = validate_prescriber_code(chosen.code)
        except InvalidInput:
            raise wrong("requester.identifier", "a prescriber's code has 7 digits") from None
    return chosen, workplace.code if workplace else ""
