"""What a host asks for, as values: imperative names, no ids that the ledger makes itself."""

from __future__ import annotations

from datetime import date

from msgspec import Struct

from ledger.errors import InvalidInput
from ledger.events import Basis, Coded, ControlledClass, Criticality, Origin, Patient, Product
from ledger.ids import DocumentId, NodeId
from ledger.persons import validate_identifier

__all__ = ["IssuePrescription", "Supply", "checked_patient"]


class IssuePrescription(Struct, frozen=True, kw_only=True):
    """A prescription to be issued. Days are ISO dates; quantities whole units of the product."""

    patient: Patient
    product: Product
    dosage: str
    fills: int
    packs_per_fill: int = 1
    interval_days: int = 0
    issued: str = ""
    """Empty: today (UTC)."""
    valid_from: str | None = None
    valid_until: str = ""
    """Empty: issue date and a year; two weeks for a prescription by telephone."""
    first_fill_before: str | None = None
    substitution: bool = True
    controlled: ControlledClass = ControlledClass.NONE
    criticality: Criticality = Criticality.ORDINARY
    prescriber: Coded
    workplace: str = ""
    origin: Origin = Origin.ELECTRONIC
    happened: int | None = None
    """Milliseconds since 1970 UTC, if it is registered later than it happened."""
    order_serial: str = ""
    chosen_pharmacy: NodeId | None = None
    holder: NodeId | None = None
    """Who first holds the fills; None: the chosen pharmacy, else the district's custodian, else this node."""
    bearer: bool = False
    """The fills belong to whoever carries the paper; see `Ledger.paper`."""
    replaces: DocumentId | None = None
    external_id: Coded | None = None


class Supply(Struct, frozen=True, kw_only=True):
    """A supply to be decided on or recorded."""

    fill: int
    quantity: int | None = None
    """Units; None: what the guard allows, at most what is left of the fill."""
    basis: Basis | None = None
    """None: the strongest that there is."""
    product: Product | None = None
    """What is handed over, if it is not the prescribed product."""
    part: bool = False
    pharmacy: Coded | None = None
    reason: str = ""
    happened: int | None = None
    origin: Origin = Origin.ELECTRONIC
    bearer_seed: bytes | None = None
    """The fill's seed from the paper (32 bytes)."""
    comment: str = ""


def checked_patient(patient: Patient) -> Patient:
    """The patient with the identity number in its one form.

    Raises:
        InvalidInput: a malformed number or birth date, or neither. The message holds no value (R13).
    """
    if patient.birth_date is not None:
        try:
            if date.fromisoformat(patient.birth_date).isoformat() != patient.birth_date:
                raise ValueError
        except ValueError:
            raise InvalidInput("patient: the birth date is not YYYY-MM-DD") from None
    if patient.identifier is None:
        if patient.birth_date is None:
            raise InvalidInput("patient: give an identity number, or a birth date (and sex)")
        return patient
    identifier = validate_identifier(patient.identifier.system, patient.identifier.code)
    return Patient(name=patient.name, identifier=identifier, birth_date=patient.birth_date, sex=patient.sex)
