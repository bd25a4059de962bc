"""The keys of single documents, lent to a node outside their district: an evacuated patient's prescription (section 7).

- Who holds a district's keys lends a document's; each loan is logged like a lookup of the patient, with who asked and why.
- Who borrows checks each key against the commitments in the entries that it holds: a wrong key would make good entries
  look badly sealed. A loan opens one document, in the epochs lent, and nothing else of its district.
"""

from __future__ import annotations

from msgspec import Struct

from ledger.errors import NotAuthentic, NotFound, Unreadable
from ledger.events import Patient, Person, PrescriptionIssued
from ledger.ids import DocumentId
from ledger.inquiry import Inquiry
from ledger.node import Node
from ledger.vault import entry_key

__all__ = ["Lending", "Loan"]


class Loan(Struct, frozen=True):
    """A document, its home district, and its keys by epoch."""

    document: DocumentId
    district: str
    keys: dict[int, bytes]

    def __repr__(self) -> str:
        """Shows no key."""
        return f"Loan({self.document.hex()})"


class Lending:
    """Lends and borrows. Thread-safe."""

    def __init__(self, node: Node, inquiry: Inquiry) -> None:
        self._node, self._inquiry = node, inquiry

    def lend(self, document: DocumentId, *, person: Person, purpose: str) -> Loan:
        """The keys of a document, logged as a lookup of its patient.

        Raises:
            NotFound: no entry of it is held.
            Unreadable: this node cannot read it either.
        """
        node = self._node
        with node.lock:
            state = node.reader.state(document)
            district = node.reader.district(document)
            if state is None or district is None:
                raise NotFound("no such prescription is held here", advice="ask a node of its home district")
            issued = state.prescription.issued
            if not isinstance(issued, PrescriptionIssued):
                raise Unreadable("the prescription cannot be read here")
            self._inquiry.patient(issued.patient, person=person, purpose=purpose)
            return self._loan(document, district)

    def find(self, patient: Patient, *, person: Person, purpose: str) -> list[Loan]:
        """The keys of all of a patient's documents that are held and readable here; logged."""
        node = self._node
        with node.lock:
            found = self._inquiry.patient(patient, person=person, purpose=purpose).prescriptions
            districts = {document: node.reader.district(document) for document in found}
            return [
                self._loan(document, home) for document, home in sorted(districts.items()) if home is not None
            ]

    def borrow(self, loan: Loan) -> None:
        """Keep the keys of a document, once its entries are held.

        Raises:
            NotFound: no entry of it is held yet.
            NotAuthentic: a key does not fit any of its entries.
        """
        node = self._node
        with node.lock:
            held = node.store.entries_of(loan.document, loan.district)
            if not held:
                raise NotFound(
                    "no entry of that prescription is held yet", advice="replicate its district first"
                )
            fitting = {
                entry.epoch
                for entry in held
                if entry.epoch in loan.keys
                and entry_key(loan.keys[entry.epoch], entry.feed, entry.sequence).commitment
                == entry.commitment
            }
            if not fitting:
                raise NotAuthentic("the keys lent do not fit the entries of the prescription")
            with node.transaction():
                for epoch in sorted(fitting):
                    node.keyring.add_document(loan.document, epoch, loan.keys[epoch])
                node.save_keyring()

    def _loan(self, document: DocumentId, district: str) -> Loan:
        node = self._node
        epochs = {entry.epoch for entry in node.store.entries_of(document, district)}
        keys: dict[int, bytes] = {}
        for epoch in sorted(epochs):
            try:
                keys[epoch] = node.keyring.document_key(district, epoch, document)
            except Unreadable:
                continue  # An epoch that this node missed: the borrower learns of it from the unread entries.
        return Loan(document, district, keys)
