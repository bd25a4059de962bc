"""What the FHIR edge hands out: prescriptions as `issue` needs them, and why a request is not one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from ledger.errors import InvalidInput
from ledger.events import (
    Coded,
    ControlledClass,
    Criticality,
    Day,
    Fill,
    Origin,
    Patient,
    Product,
    Short,
    Text,
)
from nodes.fhir_values import Notes

__all__ = [
    "FHIR_ID",
    "MEDICINE_NAME",
    "NAME_MAX",
    "SHORT_MAX",
    "TEXT_MAX",
    "UNKNOWN_PRESCRIBER",
    "UNNAMED_SYSTEM",
    "ImportedPrescription",
    "Options",
    "RefusalKind",
    "RequestRefused",
    "Standing",
    "missing",
    "short",
    "wrong",
]

UNNAMED_SYSTEM: Final = "urn:rxledger:unnamed"
"""System of an identifier whose source names none."""
FHIR_ID: Final = "urn:rxledger:fhir-id"
"""System of a resource's own id, used where the request has no business identifier."""
MEDICINE_NAME: Final = "urn:rxledger:medicine-name"
"""System of a product that its source gives by name only."""
UNKNOWN_PRESCRIBER: Final = Coded("urn:rxledger:unknown-prescriber", "okänd")

SHORT_MAX: Final = 128
"""`ledger.events.Short`."""
NAME_MAX: Final = 200
"""Names in `ledger.events.Patient` and `Product`."""
TEXT_MAX: Final = 2000
"""`ledger.events.Text`."""


class Standing(StrEnum):
    """What its source still allows, hence what an importer must do besides issuing."""

    DISPENSABLE = "dispensable"
    """Issue it."""
    ON_HOLD = "on-hold"
    """Issue and hold it: parked at the source, status unknown, or supplies in the file not yet registered."""
    HISTORY = "history"
    """Issue and cancel it at once, or only show it: completed or stopped. Nothing may be supplied on it."""


class RefusalKind(StrEnum):
    """Why something was not taken, for counting."""

    NOT_FOR_DISPENSING = "not-for-dispensing"
    """The request itself says so: cancelled, draft, entered in error, a mere proposal."""
    INCOMPLETE = "incomplete"
    """An element that a prescription cannot do without is missing, or cannot be resolved."""
    INVALID = "invalid"
    """An element is there, but wrong or out of bounds."""
    UNREADABLE = "unreadable"
    """The file is no JSON, too large, too deep, or cannot be opened."""


class RequestRefused(InvalidInput):
    """A request cannot be taken. Stays inside this package: `nodes.fhir` turns it into a `Refusal`."""

    def __init__(self, element: str, reason: str, kind: RefusalKind) -> None:
        super().__init__(f"{element}: {reason}")
        self.element = element
        self.reason = reason
        self.kind = kind


class Options(Struct, frozen=True, kw_only=True):
    """What an importer decides where FHIR is silent."""

    prescriber: Coded = UNKNOWN_PRESCRIBER
    """Used, with a note, when the request names nobody."""


class ImportedPrescription(Struct, frozen=True, kw_only=True):
    """What the command `issue` needs, from another system's prescription.

    Fields are those of `ledger.events.PrescriptionIssued`, then what an importer must know besides.
    """

    patient: Patient
    product: Product
    dosage: Text
    fills: Fill
    packs_per_fill: int = 1
    interval_days: int = 0
    issued: Day
    valid_from: Day | None = None
    valid_until: Day
    substitution: bool = True
    controlled: ControlledClass = ControlledClass.NONE
    criticality: Criticality = Criticality.ORDINARY
    prescriber: Coded
    workplace: Short = ""
    order_serial: Short = ""
    external_id: Coded | None = None
    origin: Origin = Origin.ELECTRONIC
    comment: Text = ""
    standing: Standing = Standing.DISPENSABLE
    resource_id: str = ""
    source: str = ""
    """File and position. A file name is the operator's and may name a patient: do not log it."""
    notes: tuple[str, ...] = ()
    """Elements that were assumed or are not held."""

    def __repr__(self) -> str:
        """Without patient, dosage and source (R13)."""
        return f"ImportedPrescription({self.product.name!r}, {self.fills} fills, {self.standing})"


def missing(element: str, reason: str) -> RequestRefused:
    """A refusal for want of an element."""
    return RequestRefused(element, reason, RefusalKind.INCOMPLETE)


def wrong(element: str, reason: str) -> RequestRefused:
    """A refusal of an element that is there."""
    return RequestRefused(element, reason, RefusalKind.INVALID)


def short(value: str, limit: int, element: str, notes: Notes) -> str:
    """The text within its limit; shortening is noted. Never for a dosage."""
    if len(value) > limit:
        notes.add(element, f"shortened to {limit} characters")
    return value[:limit]
