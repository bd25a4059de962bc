"""From an imported prescription to what is written: issued, and held or cancelled where its source says so."""

from __future__ import annotations

from ledger import IssuePrescription, Ledger, NodeId, Person, Receipt
from nodes.fhir import ImportedPrescription
from nodes.fhir_types import Standing

__all__ = ["issue_imported", "order_of"]


def order_of(
    found: ImportedPrescription, *, chosen_pharmacy: NodeId | None = None, bearer: bool = False
) -> IssuePrescription:
    """The command that issues it."""
    return IssuePrescription(
        patient=found.patient, product=found.product, dosage=found.dosage, fills=found.fills,
        packs_per_fill=found.packs_per_fill, interval_days=found.interval_days, issued=found.issued,
        valid_from=found.valid_from, valid_until=found.valid_until, substitution=found.substitution,
        controlled=found.controlled, criticality=found.criticality, prescriber=found.prescriber,
        order_serial=found.order_serial, workplace=found.workplace, origin=found.origin,
        external_id=found.external_id, chosen_pharmacy=chosen_pharmacy, bearer=bearer,
    )  # fmt: skip


def issue_imported(
    ledger: Ledger, found: ImportedPrescription, *, person: Person, chosen_pharmacy: NodeId | None = None
) -> Receipt:
    """Issue it; hold it if its source may not be dispensed on now, cancel it if its source is history.

    Raises:
        InvalidInput, NotPermitted: as `Ledger.prescribe`.
    """
    receipt = ledger.prescribe(order_of(found, chosen_pharmacy=chosen_pharmacy), person=person)
    if found.standing is Standing.ON_HOLD:
        ledger.hold(receipt.document, person=person, reason="parked at its source, or partly supplied there")
    elif found.standing is Standing.HISTORY:
        ledger.cancel(receipt.document, person=person, reason=3, comment="completed or stopped at its source")
    return receipt
