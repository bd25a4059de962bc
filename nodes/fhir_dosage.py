"""FHIR dosage instructions as one text in Swedish, as it stands on the label.

The prescriber's own text is kept word for word. Only where there is none is one built from the structured
dose; what could not be said in words is listed, never dropped.
"""

from __future__ import annotations

from typing import Final

from nodes.fhir_values import Json, Notes, concept_text, items, number, one, quantity_text, text, whole

__all__ = ["NOT_STATED", "dosage_text"]

NOT_STATED: Final = "Dosering ej angiven"
"""Stands as dosage where the source has none; the pharmacist asks the prescriber."""

_UNITS: Final = {
    "s": ("sekund", "sekunder"), "min": ("minut", "minuter"), "h": ("timme", "timmar"), "d": ("dag", "dagar"),
    "wk": ("vecka", "veckor"), "mo": ("månad", "månader"), "a": ("år", "år"),
}  # fmt: skip
_WHEN: Final = {
    "MORN": "på morgonen", "MORN.early": "tidigt på morgonen", "MORN.late": "sent på förmiddagen",
    "NOON": "mitt på dagen", "AFT": "på eftermiddagen", "EVE": "på kvällen", "EVE.early": "tidigt på kvällen",
    "EVE.late": "sent på kvällen", "NIGHT": "på natten", "PHS": "efter insomnandet", "HS": "till natten",
    "WAKE": "vid uppvaknandet", "C": "vid måltid", "CM": "vid frukost", "CD": "vid lunch", "CV": "vid middag",
    "AC": "före måltid", "ACM": "före frukost", "ACD": "före lunch", "ACV": "före middag",
    "PC": "efter måltid", "PCM": "efter frukost", "PCD": "efter lunch", "PCV": "efter middag",
}  # fmt: skip
_DAYS: Final = {
    "mon": "måndag", "tue": "tisdag", "wed": "onsdag", "thu": "torsdag", "fri": "fredag", "sat": "lördag",
    "sun": "söndag",
}  # fmt: skip
_SAID_DOSAGE: Final = frozenset(
    {"sequence", "text", "additionalInstruction", "patientInstruction", "timing", "asNeededBoolean",
     "asNeededCodeableConcept", "site", "route", "method", "doseAndRate", "maxDosePerPeriod"}
)  # fmt: skip
_SAID_REPEAT: Final = frozenset(
    {"boundsDuration", "boundsPeriod", "boundsRange", "count", "frequency", "frequencyMax", "period",
     "periodMax", "periodUnit", "dayOfWeek", "timeOfDay", "when", "offset", "duration", "durationUnit"}
)  # fmt: skip


def _range(value: object) -> str:
    both = one(value)
    low, high = quantity_text(both.get("low")), quantity_text(both.get("high"))
    return (
        f"{low} till {high}" if low and high else f"minst {low}" if low else f"högst {high}" if high else ""
    )


def _ratio(value: object) -> str:
    both = one(value)
    top, bottom = quantity_text(both.get("numerator")), quantity_text(both.get("denominator"))
    return f"{top} per {bottom}" if top and bottom else top


def _span(value: object, unit: str) -> str:
    amount = number(value)
    if amount is None:
        return ""
    singular, plural = _UNITS.get(unit, (unit, unit))
    return f"{quantity_text({'value': value})} {singular if amount == 1 else plural}"


def _texts(value: object) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [plain for plain in (text(item) for item in listed) if plain]


def _frequency(repeat: Json) -> str:
    times, most = whole(repeat.get("frequency")), whole(repeat.get("frequencyMax"))
    unit = text(repeat.get("periodUnit"))
    if times is None and number(repeat.get("period")) is None:
        return ""
    often = f"{times or 1}-{most}" if most else str(times or 1)
    word = "gång" if often == "1" else "gånger"
    period = number(repeat.get("period"))
    if period is None or not unit:
        return f"{often} {word}"
    if period == 1:
        return f"{often} {word} per {_UNITS.get(unit, (unit,))[0]}"
    longest = f" till {_span(repeat.get('periodMax'), unit)}" if number(repeat.get("periodMax")) else ""
    return f"{often} {word} på {_span(repeat.get('period'), unit)}{longest}"


def _bounds(repeat: Json) -> list[str]:
    said: list[str] = []
    duration = one(repeat.get("boundsDuration"))
    unit = text(duration.get("code"))
    length = _span(duration.get("value"), unit if unit in _UNITS else text(duration.get("unit")))
    if length:
        said.append(f"i {length}")
    between = _range(repeat.get("boundsRange"))
    if between:
        said.append(f"i {between}")
    period = one(repeat.get("boundsPeriod"))
    start, end = text(period.get("start")), text(period.get("end"))
    said += [f"från {start}"] * bool(start) + [f"till och med {end}"] * bool(end)
    count = whole(repeat.get("count"))
    if count:
        said.append(f"sammanlagt {count} gånger")
    return said


def _timing(timing: Json, notes: Notes, place: str) -> list[str]:
    repeat = one(timing.get("repeat"))
    notes.unheld(f"{place}.timing.", timing, frozenset({"repeat", "code", "event"}))
    notes.unheld(f"{place}.timing.repeat.", repeat, _SAID_REPEAT)
    said = [_frequency(repeat)]
    said += [_WHEN.get(code, code) for code in _texts(repeat.get("when"))]
    offset = whole(repeat.get("offset"))
    if offset:
        said.append(f"({offset} minuter)")
    said += [f"kl {clock}" for clock in _texts(repeat.get("timeOfDay"))]
    said += [_DAYS.get(day, day) for day in _texts(repeat.get("dayOfWeek"))]
    if number(repeat.get("duration")) is not None:
        said.append(f"under {_span(repeat.get('duration'), text(repeat.get('durationUnit')))}")
    said += _bounds(repeat)
    if not said[0]:
        said.append(concept_text(timing.get("code")))
    said += [f"den {moment}" for moment in _texts(timing.get("event"))]
    return said


def _doses(dosage: Json, notes: Notes, place: str) -> list[str]:
    said: list[str] = []
    for dose in items(dosage.get("doseAndRate")):
        notes.unheld(
            f"{place}.doseAndRate.", dose,
            frozenset({"type", "doseQuantity", "doseRange", "rateQuantity", "rateRange", "rateRatio"}),
        )  # fmt: skip
        said += [quantity_text(dose.get("doseQuantity")), _range(dose.get("doseRange"))]
        rate = (
            quantity_text(dose.get("rateQuantity"))
            or _range(dose.get("rateRange"))
            or _ratio(dose.get("rateRatio"))
        )
        said.append(f"med hastigheten {rate}" if rate else "")
    return said


def _built(dosage: Json, notes: Notes, place: str) -> str:
    said = [concept_text(dosage.get("method")), *_doses(dosage, notes, place)]
    said += _timing(one(dosage.get("timing")), notes, place)
    reason = concept_text(dosage.get("asNeededCodeableConcept"))
    if dosage.get("asNeededBoolean") is True or reason:
        said.append(f"vid behov ({reason})" if reason else "vid behov")
    said += [concept_text(dosage.get("route")), concept_text(dosage.get("site"))]
    most = _ratio(dosage.get("maxDosePerPeriod"))
    said.append(f"högst {most}" if most else "")
    return " ".join(part for part in said if part)


_STRUCTURE: Final = (
    "timing", "asNeededBoolean", "asNeededCodeableConcept", "site", "route", "method", "doseAndRate",
    "maxDosePerPeriod", "maxDosePerAdministration", "maxDosePerLifetime",
)  # fmt: skip


def _sentence(dosage: Json, notes: Notes, place: str) -> str:
    own = text(dosage.get("text"))
    if own:
        structured = [name for name in _STRUCTURE if name in dosage]
        if structured:
            notes.add(place, f"the text is held, its structure ({', '.join(structured)}) is not")
        notes.unheld(f"{place}.", dosage, _SAID_DOSAGE | set(_STRUCTURE))
    else:
        notes.unheld(f"{place}.", dosage, _SAID_DOSAGE)
        own = _built(dosage, notes, place)
        if own:
            notes.add(place, "the text is built from the structured dose")
    more = [concept_text(extra) for extra in items(dosage.get("additionalInstruction"))]
    more.append(text(dosage.get("patientInstruction")))
    sentence = own
    for addition in more:
        if addition and addition.casefold() not in sentence.casefold():
            sentence = f"{sentence}. {addition}" if sentence else addition
    return sentence


def dosage_text(instructions: object, notes: Notes) -> str:
    """All instructions in their order, one text; `NOT_STATED` if the source says nothing."""
    listed = items(instructions)
    order = sorted(range(len(listed)), key=lambda place: (whole(listed[place].get("sequence")) or 0, place))
    sentences = [_sentence(listed[place], notes, f"dosageInstruction[{place}]") for place in order]
    told = "; ".join(sentence for sentence in sentences if sentence)
    if not told:
        notes.add("dosageInstruction", "no dosage in the source")
    return told or NOT_STATED
