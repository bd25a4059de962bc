"""The medicine of a FHIR request and how much of it: product, packs per fill, units in a pack.

A medicine is known by its NPL pack id, else by any code, else by its name. Quantities are whole numbers of
the product's unit; one that is not is refused, never rounded.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct

from ledger.errors import InvalidInput
from ledger.events import Coded, Product
from ledger.persons import NPL_ID, NPL_PACK_ID, validate_npl_pack
from nodes.fhir_parties import prefer
from nodes.fhir_references import Place
from nodes.fhir_types import MEDICINE_NAME, NAME_MAX, SHORT_MAX, UNNAMED_SYSTEM, missing, short, wrong
from nodes.fhir_values import (
    Json,
    Notes,
    codings,
    concept_text,
    items,
    number,
    one,
    quantity_text,
    text,
    whole,
)

__all__ = ["Supply", "supply_of"]

_ATC: Final = (
    "http://www.whocc.no/atc",
    "urn:oid:2.16.840.1.113883.6.73",
    "http://fhir.de/CodeSystem/bfarm/atc",
)
_SNOMED: Final = "http://snomed.info/sct"
_ANY_PRODUCT: Final = "763158003"
"""SNOMED CT "Medicinal product": a placeholder that names no medicine."""
_KIND_OF_ENTRY: Final = "KBV_CS_ERP_Medication_Type"
"""German code system that says how a medicine is described, not which it is."""
_PACK_UNITS: Final = frozenset(
    {"packung", "packungen", "förp", "förpackning", "förpackningar", "pack", "packs", "package", "packages"}
)
_QUANTITY_MAX: Final = 1_000_000
"""As `ledger.events.Quantity` allows."""
_PACKS_MAX: Final = 1000
"""As `ledger.events.PrescriptionIssued.packs_per_fill` allows."""


def _strength(ingredients: list[Json]) -> str:
    said: list[str] = []
    for ingredient in ingredients:
        ratio = one(ingredient.get("strength"))
        top, bottom = quantity_text(ratio.get("numerator")), quantity_text(ratio.get("denominator"))
        if top:
            said.append(top if bottom in ("", "1") else f"{top}/{bottom.removeprefix('1 ')}")
    return " + ".join(said)


def _pack_code(listed: list[tuple[str, str, str]], name: str, notes: Notes) -> Coded:
    usable = [
        Coded(system or UNNAMED_SYSTEM, code)
        for system, code, _ in listed
        if code and system not in _ATC and len(system) <= SHORT_MAX and len(code) <= SHORT_MAX
    ]
    chosen = prefer(usable, (NPL_PACK_ID, NPL_ID))
    if len(usable) > 1:
        notes.add("medication.coding", "more than one code; only one is held")
    if chosen is None:
        notes.add("medication.coding", "no code; the name stands as product code")
        return Coded(MEDICINE_NAME, name[:SHORT_MAX])
    if chosen.system == NPL_PACK_ID:
        try:
            return validate_npl_pack(chosen.code)
        except InvalidInput:
            raise wrong("medication.coding", "an NPL pack id has 14 digits") from None
    return chosen


class _Medicine(Struct, frozen=True):
    code: Coded
    name: str
    atc: str
    form: str
    strength: str
    pack_size: int | None
    """Units in one pack, if the source says."""


def _medicine(place: Place, notes: Notes) -> _Medicine:
    request = place.resource
    reference = one(request.get("medicationReference"))
    resource = place.follow(reference, "Medication") or {}
    concept = one(request.get("medicationCodeableConcept")) or one(resource.get("code"))
    if reference and not resource and not concept:
        if not text(reference.get("display")):
            raise missing("medicationReference", "the medicine is not in the file and has no display")
        notes.add("medicationReference", "the medicine is not in the file; its display is held")
    ingredients = items(resource.get("ingredient"))
    named = " + ".join(filter(None, (concept_text(i.get("itemCodeableConcept")) for i in ingredients)))
    listed = [coding for coding in codings(concept) if not coding[0].endswith(_KIND_OF_ENTRY)]
    if any(system == _SNOMED and code == _ANY_PRODUCT for system, code, _ in listed):
        raise missing("medicationCodeableConcept", "the code means any medicinal product, it names none")
    name = text(concept.get("text")) or next((display for _, _, display in listed if display), "")
    name = (
        name or text(reference.get("display")) or named or next((code for _, code, _ in listed if code), "")
    )
    if not name:
        raise missing("medication", "neither code nor name of a medicine")
    if ingredients and name != named:
        notes.add("Medication.ingredient", "only the strength is held")
    notes.unheld("Medication.", resource, frozenset({"code", "form", "ingredient", "amount", "status"}))
    amount = one(resource.get("amount"))
    size = whole(one(amount.get("numerator")).get("value"))
    per = number(one(amount.get("denominator")).get("value"))
    if amount and (size is None or per not in (None, Decimal(1))):
        notes.add("Medication.amount", "not held: not a whole number in one pack")
        size = None
    atc = next((code for system, code, _ in codings(concept) if system in _ATC and len(code) <= 16), "")
    return _Medicine(
        code=_pack_code(listed, name, notes),
        name=short(name, NAME_MAX, "medication.text", notes),
        atc=atc,
        form=short(concept_text(resource.get("form")), SHORT_MAX, "Medication.form", notes),
        strength=short(_strength(ingredients), SHORT_MAX, "Medication.ingredient.strength", notes),
        pack_size=size if size and size <= _QUANTITY_MAX else None,
    )


def _amounts(dispense: Json, pack_size: int | None, notes: Notes) -> tuple[int, int, str]:
    """Packs per fill, units in a pack, and the unit."""
    element = "dispenseRequest.quantity"
    quantity = one(dispense.get("quantity"))
    if quantity.get("value") is None:
        notes.add(element, "missing; one pack of unknown size per fill is assumed")
        return 1, pack_size or 1, "st" if pack_size else "förp"
    value = whole(quantity.get("value"))
    if value is None or value < 1:
        raise wrong(element, "not a whole number of units above zero")
    unit = short(text(quantity.get("unit")) or text(quantity.get("code")) or "st", SHORT_MAX, element, notes)
    if unit.casefold() in _PACK_UNITS:
        if value > _PACKS_MAX:
            raise wrong(element, f"more than {_PACKS_MAX} packs")
        if pack_size is None:
            notes.add(element, "in packs, whose size the source does not tell")
        return value, pack_size or 1, "st" if pack_size else "förp"
    if value > _QUANTITY_MAX:
        raise wrong(element, f"more than {_QUANTITY_MAX} units")
    if pack_size and value % pack_size == 0 and value // pack_size <= _PACKS_MAX:
        return value // pack_size, pack_size, unit
    return 1, value, unit


class Supply(Struct, frozen=True):
    """A product and how many packs of it one fill holds."""

    product: Product
    packs: int


def supply_of(place: Place, dispense: Json, notes: Notes) -> Supply:
    """Product and packs per fill.

    Raises:
        RequestRefused: no medicine is named, or the quantity is not a whole number within bounds.
    """
    medicine = _medicine(place, notes)
    packs, size, unit = _amounts(dispense, medicine.pack_size, notes)
    product = Product(
        pack=medicine.code,
        name=medicine.name,
        atc=medicine.atc,
        form=medicine.form,
        strength=medicine.strength,
        pack_quantity=size,
        unit=unit,
    )
    return Supply(product, packs)
