"""One FHIR R4 MedicationRequest, with what it refers to, as the values that the command `issue` needs.

- Taken or refused as a whole; a refusal names the element and the reason, never a patient's data (R13).
- What is assumed or cannot be held stands in `ImportedPrescription.notes`; nothing is dropped in silence.
- A request that its source no longer allows to be dispensed never becomes dispensable here: see `Standing`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Final

import msgspec

from ledger.events import FILLS_MAX, Coded
from nodes.fhir_classes import guess_controlled, guess_criticality
from nodes.fhir_dosage import dosage_text
from nodes.fhir_medicine import supply_of
from nodes.fhir_parties import identifiers, patient_of, prescriber_of
from nodes.fhir_references import Place
from nodes.fhir_types import (
    FHIR_ID,
    SHORT_MAX,
    TEXT_MAX,
    ImportedPrescription,
    Options,
    RefusalKind,
    RequestRefused,
    Standing,
    missing,
    short,
    wrong,
)
from nodes.fhir_values import (
    Json,
    Notes,
    codings,
    day_of,
    items,
    last_day_of,
    number,
    one,
    plus_year,
    text,
    whole,
)

__all__ = ["take_request"]

_STANDING: Final = {
    "active": Standing.DISPENSABLE,
    "on-hold": Standing.ON_HOLD,
    "unknown": Standing.ON_HOLD,
    "completed": Standing.HISTORY,
    "stopped": Standing.HISTORY,
}
_DEAD: Final = frozenset({"cancelled", "draft", "entered-in-error"})
_ORDERS: Final = frozenset({"order", "original-order", "reflex-order", "filler-order", "instance-order"})
_DAYS: Final = {
    "d": 1, "day": 1, "days": 1, "wk": 7, "week": 7, "weeks": 7, "mo": 30, "month": 30, "months": 30,
    "a": 365, "year": 365, "years": 365,
}  # fmt: skip
_INTERVAL_MAX: Final = 3660
"""As `ledger.events.PrescriptionIssued.interval_days` allows."""
_HELD: Final = frozenset(
    {"identifier", "status", "intent", "medicationCodeableConcept", "medicationReference", "subject",
     "authoredOn", "requester", "groupIdentifier", "note", "dosageInstruction", "dispenseRequest",
     "substitution", "doNotPerform"}
)  # fmt: skip


_NO_SUPPLY: Final = frozenset({"preparation", "cancelled", "declined", "entered-in-error"})


def _supplied(place: Place) -> bool:
    """Whether the file holds a dispensing on this request, which importing the request alone would forget."""
    dispensings = place.siblings("MedicationDispense")
    if place.container.get("resourceType") == "MedicationDispense":
        dispensings.append(place.container)
    for dispensing in dispensings:
        # A quantity of nought proves nothing: senders repeat "fully dispensed" with 0 in later messages.
        if text(dispensing.get("status")) in _NO_SUPPLY:
            continue
        around = replace(place, resource=dispensing, container=dispensing)
        prescriptions = items(dispensing.get("authorizingPrescription"))
        if any(around.follow(p, "MedicationRequest") is place.resource for p in prescriptions):
            return True
    return False


def _standing(place: Place, notes: Notes) -> Standing:
    request = place.resource
    status, intent = text(request.get("status")), text(request.get("intent"))
    if request.get("modifierExtension"):
        raise wrong("modifierExtension", "changes the meaning of the request in a way that is not known here")
    if request.get("doNotPerform") is True:
        raise RequestRefused("doNotPerform", "a prohibition, no prescription", RefusalKind.NOT_FOR_DISPENSING)
    if status in _DEAD:
        raise RequestRefused("status", f"{status}: not for dispensing", RefusalKind.NOT_FOR_DISPENSING)
    if status not in _STANDING:
        raise missing("status", "missing" if not status else "not a status of FHIR R4")
    if intent not in _ORDERS:
        if intent in ("proposal", "plan", "option"):
            raise RequestRefused(
                "intent", f"{intent}: no authorisation to dispense", RefusalKind.NOT_FOR_DISPENSING
            )
        raise missing("intent", "missing" if not intent else "not an intent of FHIR R4")
    if status != "active":
        notes.add("status", f"{status} at the source")
    if status == "active" and _supplied(place):
        notes.add("MedicationDispense", "not held: register the supplies in the file before any other")
        return Standing.ON_HOLD
    return _STANDING[status]


def _issued(place: Place, notes: Notes) -> date:
    """The day of issue; where the request does not say, the nearest thing that does."""
    request = place.resource
    if text(request.get("authoredOn")):
        own = day_of(request.get("authoredOn"))
        if own is None:
            raise wrong("authoredOn", "not a date precise to the day")
        return own
    groups = place.siblings("RequestGroup")
    signatures = place.siblings("Provenance")
    sources: list[tuple[str, object]] = []
    if len(groups) == 1:
        sources.append(("RequestGroup.authoredOn", groups[0].get("authoredOn")))
    if len(signatures) == 1:
        sources.append(("Provenance.recorded", signatures[0].get("recorded")))
    period = one(one(request.get("dispenseRequest")).get("validityPeriod"))
    sources.append(("dispenseRequest.validityPeriod.start", period.get("start")))
    sources.append(("Bundle.timestamp", place.bundle.get("timestamp")))
    for name, value in sources:
        day = day_of(value)
        if day is not None:
            notes.add("authoredOn", f"missing; day of issue taken from {name}")
            return day
    raise missing("authoredOn", "no day of issue, and nothing near the request tells it")


def _fills(dispense: Json, notes: Notes) -> int:
    repeats = dispense.get("numberOfRepeatsAllowed")
    if repeats is None:
        return 1
    count = whole(repeats)
    if count is None or not 0 <= count < FILLS_MAX:
        raise wrong("dispenseRequest.numberOfRepeatsAllowed", f"not a whole number from 0 to {FILLS_MAX - 1}")
    return 1 + count


def _interval(dispense: Json, notes: Notes) -> int:
    element = "dispenseRequest.dispenseInterval"
    duration = one(dispense.get("dispenseInterval"))
    if not duration:
        return 0
    value = number(duration.get("value"))
    days = _DAYS.get(text(duration.get("code")) or text(duration.get("unit")).casefold())
    if value is None or days is None or not 0 < value * days <= _INTERVAL_MAX:
        raise wrong(element, f"not a length of at most {_INTERVAL_MAX} days")
    exact = value * days
    if exact != exact.to_integral_value():
        notes.add(element, "rounded up to whole days")
    return int(-(-exact // 1))


def _validity(dispense: Json, issued: date, notes: Notes) -> tuple[date | None, date]:
    period = one(dispense.get("validityPeriod"))
    start, end = day_of(period.get("start")), last_day_of(period.get("end"))
    if period.get("start") is not None and start is None:
        raise wrong("dispenseRequest.validityPeriod.start", "not a date precise to the day")
    if period.get("end") is not None and end is None:
        raise wrong("dispenseRequest.validityPeriod.end", "not a date")
    if end is None:
        notes.add("dispenseRequest.validityPeriod.end", "missing; valid for one year")
        end = plus_year(max(issued, start or issued))
    if end < issued or (start is not None and end < start):
        raise wrong("dispenseRequest.validityPeriod.end", "before the day of issue or the start of validity")
    return start, end


def _substitution(request: Json) -> bool:
    wish = one(request.get("substitution"))
    if wish.get("allowedBoolean") is False:
        return False
    return not any(code == "N" for _, code, _ in codings(wish.get("allowedCodeableConcept")))


def _external_id(place: Place, notes: Notes) -> Coded | None:
    found = identifiers(place.resource.get("identifier"))
    if len(found) > 1:
        notes.add("identifier", "more than one; only one is held")
    if not found and place.bundle.get("type") == "document":
        found = identifiers(place.bundle.get("identifier"))
    if not found and text(place.resource.get("id")):
        found = [Coded(FHIR_ID, text(place.resource.get("id"))[:SHORT_MAX])]
    return found[0] if found else None


def take_request(place: Place, source: str, options: Options) -> ImportedPrescription:
    """The prescription that a MedicationRequest states.

    Raises:
        RequestRefused: an element is missing, wrong, or says that this is not for dispensing.
    """
    request, notes = place.resource, Notes()
    standing = _standing(place, notes)
    issued = _issued(place, notes)
    patient = patient_of(place, issued, notes)
    dispense = one(request.get("dispenseRequest"))
    supply = supply_of(place, dispense, notes)
    product = supply.product
    start, end = _validity(dispense, issued, notes)
    dosage = dosage_text(request.get("dosageInstruction"), notes)
    if len(dosage) > TEXT_MAX:
        raise wrong("dosageInstruction", f"longer than {TEXT_MAX} characters; a dosage is never shortened")
    prescriber, workplace = prescriber_of(place, options, notes)
    comment = " ".join(filter(None, (text(note.get("text")) for note in items(request.get("note")))))
    controlled = guess_controlled(product.atc, product.name)
    criticality = guess_criticality(product.atc, product.name)
    by = "ATC code and name" if product.atc else "name"
    notes.add("controlled", f"{controlled.value}: guessed by {by}")
    notes.add("criticality", f"{criticality.value}: guessed by {by}")
    notes.unheld("", request, _HELD)
    notes.unheld(
        "dispenseRequest.", dispense,
        frozenset({"quantity", "numberOfRepeatsAllowed", "dispenseInterval", "validityPeriod"}),
    )  # fmt: skip
    serial = text(one(request.get("groupIdentifier")).get("value"))
    taken = ImportedPrescription(
        patient=patient,
        product=product,
        dosage=dosage,
        fills=_fills(dispense, notes),
        packs_per_fill=supply.packs,
        interval_days=_interval(dispense, notes),
        issued=issued.isoformat(),
        valid_from=start.isoformat() if start else None,
        valid_until=end.isoformat(),
        substitution=_substitution(request),
        controlled=controlled,
        criticality=criticality,
        prescriber=prescriber,
        workplace=workplace,
        order_serial=short(serial, SHORT_MAX, "groupIdentifier", notes),
        external_id=_external_id(place, notes),
        comment=short(comment, TEXT_MAX, "note", notes),
        standing=standing,
        resource_id=text(request.get("id"))[:SHORT_MAX],
        source=source,
        notes=notes.lines(),
    )  # fmt: skip
    try:
        # The bounds of `ledger.events` are the last word: what slipped through is refused before `issue`.
        msgspec.convert(msgspec.to_builtins(taken), ImportedPrescription)
    except msgspec.ValidationError as error:
        element = str(error).rpartition("`$")[2].strip("`. ") or "MedicationRequest"
        raise wrong(element, "outside the bounds of a prescription") from None
    return taken
