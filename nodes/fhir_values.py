"""Reading JSON of unknown quality: every helper takes anything and answers with a known type, or nothing.

FHIR in the wild has lists where one value belongs, numbers where text belongs, and dates of every precision.
Nothing here raises for the shape of its input (R15). Days come out in the Swedish calendar.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeAlias

__all__ = [
    "Json",
    "Notes",
    "codings",
    "concept_text",
    "day_of",
    "items",
    "last_day_of",
    "number",
    "one",
    "plus_year",
    "quantity_text",
    "text",
    "whole",
]

Json: TypeAlias = dict[str, object]

_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}", re.ASCII)
_WHOLE_MAX: Final = 10**9
"""No quantity, count or period that we read is larger; keeps arithmetic on hostile exponents small."""
_NOTES_MAX = 64
"""Elements listed as not held, for one prescription: the fullest example seen has 14."""
_NOTE_LENGTH_MAX = 200


class Notes:
    """What an import could not hold or had to assume: the element and why, never a value of a patient."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, element: str, what: str) -> None:
        """Remember one; repeated ones count once."""
        line = f"{element}: {what}"[:_NOTE_LENGTH_MAX]
        if line not in self._lines and len(self._lines) <= _NOTES_MAX:
            full = len(self._lines) == _NOTES_MAX
            self._lines.append("more elements are not held" if full else line)

    def unheld(self, prefix: str, resource: Json, held: frozenset[str]) -> None:
        """Add every element of the resource that is not among those read."""
        for key, value in resource.items():
            name = key.removeprefix("_")
            if name in held or name in _SILENT:
                continue
            if name == "extension":
                for extension in items(value):
                    url = text(extension.get("url")).rsplit("/", 1)[-1]
                    self.add(f"{prefix}extension({url or 'unnamed'})", "not held")
            else:
                self.add(f"{prefix}{name}", "not held")

    def lines(self) -> tuple[str, ...]:
        """All of them, in the order of their finding."""
        return tuple(self._lines)


_SILENT: Final = frozenset({"resourceType", "id", "implicitRules", "language", "text", "contained", "meta"})
"""Carry no clinical content of their own; a generated narrative repeats what the elements say."""


def items(value: object) -> list[Json]:
    """The objects in a list, or the one object that stands where a list belongs."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def one(value: object) -> Json:
    """The object, or the first where a list stands; empty if there is none."""
    found = items(value)
    return found[0] if found else {}


def text(value: object) -> str:
    """Text without control characters and outer space; numbers as text; everything else is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return ""
    plain = str(value)
    return "".join(sign if sign.isprintable() else " " for sign in plain).strip()


def number(value: object) -> Decimal | None:
    """A finite number of sensible size, also where it is written as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        found = Decimal(value.strip() if isinstance(value, str) else value)
    except ArithmeticError:
        return None
    return found if found.is_finite() and -10 < found.adjusted() < len(str(_WHOLE_MAX)) else None


def whole(value: object) -> int | None:
    """A whole number, also when written 30.0; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found == found.to_integral_value() else None


def _decimal_text(value: Decimal) -> str:
    plain = f"{value:f}"
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain).replace(".", ",")


def quantity_text(value: object) -> str:
    """``0,5 mg``: number with Swedish decimal comma, and unit."""
    quantity = one(value)
    amount = number(quantity.get("value"))
    if amount is None:
        return ""
    comparator = text(quantity.get("comparator"))
    unit = text(quantity.get("unit")) or text(quantity.get("code"))
    return f"{comparator}{_decimal_text(amount)} {unit}".strip()


def codings(value: object) -> list[tuple[str, str, str]]:
    """System, code and display of every coding of a concept."""
    concept = one(value)
    return [
        (text(coding.get("system")), text(coding.get("code")), text(coding.get("display")))
        for coding in items(concept.get("coding"))
    ]


def concept_text(value: object) -> str:
    """What a person would read: the text, else the first display, else the first code."""
    concept = one(value)
    plain = text(concept.get("text"))
    listed = codings(concept)
    return plain or next((d for _, _, d in listed if d), "") or next((c for _, c, _ in listed if c), "")


def _last_sunday(year: int, month: int) -> date:
    last = date(year, month, 31)
    return last - timedelta(days=(last.weekday() + 1) % 7)


def _swedish_day(moment: datetime) -> date:
    """The day in Sweden: UTC+1, in summer +2 by the rule in force since 1996. Needs no time zone files."""
    utc = moment.astimezone(UTC)
    change = timedelta(hours=1)
    midnight = datetime.min.time()
    begin = datetime.combine(_last_sunday(utc.year, 3), midnight, UTC) + change
    end = datetime.combine(_last_sunday(utc.year, 10), midnight, UTC) + change
    return (utc + timedelta(hours=2 if begin <= utc < end else 1)).date()


def _parse(value: object) -> tuple[date, int] | None:
    """The first day that a FHIR date or dateTime covers, and its precision: 1 year, 2 month, 3 day."""
    written = text(value)
    if not written.isascii():
        return None
    try:
        if _DATETIME.match(written):
            moment = datetime.fromisoformat(written)
            return (moment.date() if moment.tzinfo is None else _swedish_day(moment)), 3
        match = _DATE.fullmatch(written)
        if match is None:
            return None
        parts = [int(part) for part in match.groups() if part]
        year, month, day = (*parts, 1, 1)[:3]
        return date(year, month, day), len(parts)
    except (ValueError, OverflowError):
        return None


def day_of(value: object) -> date | None:
    """The day, if the value is precise to the day."""
    parsed = _parse(value)
    return parsed[0] if parsed is not None and parsed[1] == 3 else None


def last_day_of(value: object) -> date | None:
    """The last day that the value covers: ``2026-02`` ends on the 28th."""
    parsed = _parse(value)
    if parsed is None:
        return None
    day, precision = parsed
    if precision == 1:
        return day.replace(month=12, day=31)
    if precision == 2:
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    return day


def plus_year(day: date) -> date:
    """The same day a year later; 28 February for a leap day."""
    try:
        return day.replace(year=day.year + 1)
    except ValueError:
        return day.replace(year=min(day.year + 1, 9999), day=min(day.day, 28))
