"""From an imported prescription to the command that issues it."""

from __future__ import annotations

from ledger import Coded, IssuePrescription, NodeId
from nodes.fhir import ImportedPrescription

__all__ = ["order_of"]


def order_of(
    found: ImportedPrescription, prescriber: Coded, *, chosen_pharmacy: NodeId | None = None, bearer: bool = False
) -> IssuePrescription:
    """The command; `prescriber` where the source names none."""
    return IssuePrescription(
        patient=found.patient, product=found.product, dosage=found.dosage, fills=found.fills,
        packs_per_fill=found.packs_per_fill, interval_days=found.interval_days, issued=found.issued,
        valid_from=found.valid_from, valid_until=found.valid_until, substitution=found.substitution,
        controlled=found.controlled, criticality=found.criticality, prescriber=found.prescriber or prescriber,
        order_serial=found.order_serial, external_id=found.external_id, chosen_pharmacy=chosen_pharmacy,
        bearer=bearer,
    )  # fmt: skip
