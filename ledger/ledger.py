"""The façade: what a pharmacy or prescriber system embeds. Synchronous and thread-safe.

Promise of stability: the public names of the package `ledger` keep their meaning within a major version; fields may be
added, never removed or given another meaning. What is written is durable when a method returns (R1); what a method
refuses has written nothing. Every command takes an id chosen by the caller and may be repeated (R17).

Reading never writes content; a lookup by patient writes the audit log (section 8 of the design).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from ledger.clock import Clock
from ledger.commands import IssuePrescription, Supply, checked_patient
from ledger.custody import bearer_public_key, sign_bearer
from ledger.enrolment import Enrolment
from ledger.entropy import Entropy
from ledger.errors import InvalidInput, NotFound, NotPermitted
from ledger.events import (
    AccessBlocked,
    AnomalyResolved,
    Basis,
    Coded,
    ConsentGiven,
    Criticality,
    Dispensed,
    DispensingCorrected,
    DispensingReversed,
    ExternalIdAttached,
    FillKey,
    NotDispensed,
    Origin,
    Patient,
    Person,
    PrescriptionAmended,
    PrescriptionCancelled,
    PrescriptionHeld,
    PrescriptionIssued,
    PrescriptionResumed,
    ReversalKind,
    SupplyLinked,
    encode_own,
)
from ledger.guard import Decision, Horizon, SupplyRequest, Verdict, decide
from ledger.history import Anomaly, Prescription, View, view
from ledger.holding import CustodyActs
from ledger.identity import NodeKeys, NodeRole, RealmKind
from ledger.ids import DocumentId, FeedId, Link, document_id
from ledger.inquiry import PatientList
from ledger.keystore import Unlock
from ledger.node import Node, Receipt

__all__ = ["Answer", "Ledger"]


class Answer(Struct, frozen=True):
    """A prescription as known here, and how much that is worth (R11)."""

    prescription: Prescription
    view: View
    horizon: Horizon
    district: str


class Ledger(CustodyActs):
    """One node's ledger. Open it with `Ledger.open`, use it as a context manager, close it."""

    # --- life -----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: Path,
        enrolment: Enrolment,
        keys: NodeKeys,
        unlock: Unlock,
        *,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> Self:
        """Make a node's directory from its enrolment package and open it.

        Raises:
            InvalidInput: the directory holds a node already, or the package is for another key.
        """
        return cls(Node.create(directory, enrolment, keys, unlock, clock, entropy))

    @classmethod
    def open(
        cls,
        directory: Path,
        unlock: Unlock,
        *,
        writable: bool = True,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> Self:
        """Open a node's directory; one process at a time for writing, any number read-only.

        Raises:
            KeysLocked, StoreBusy, StoreDamaged: as their names say.
        """
        return cls(Node.open(directory, unlock, writable=writable, clock=clock, entropy=entropy))

    def close(self) -> None:
        """Release store and lock."""
        self.node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- prescribing ------------------------------------------------------------------------------------------

    def prescribe(
        self,
        order: IssuePrescription,
        *,
        person: Person,
        district: str | None = None,
        command: bytes | None = None,
    ) -> Receipt:
        """Issue a prescription in its home district (default: this node's own).

        Raises:
            InvalidInput: a field is malformed.
            NotPermitted: this node's role may not issue it.
        """
        node = self.node
        with node.lock:
            command = self._command(command)
            done = node.first_result(command)
            if done is not None:
                return done
            role = node.identity.role
            paper = order.origin in (Origin.PAPER, Origin.TELEPHONE)
            if role is NodeRole.PHARMACY and not paper:
                raise NotPermitted("a pharmacy registers prescriptions from paper or telephone only")
            if role not in (NodeRole.PRESCRIBER, NodeRole.PHARMACY, NodeRole.AGENCY):
                raise NotPermitted("this node's role may not issue prescriptions")
            home = district or node.identity.district
            if not node.keyring.newest_epoch(home):
                raise NotPermitted("this node holds no key of that district", reasons=("district",))
            issued = order.issued or self.today().isoformat()
            for field in ("valid_until", "valid_from", "first_fill_before"):
                _day(getattr(order, field) or issued, field)
            holder: FeedId | None = None
            if not order.bearer:
                holder = self._first_holder(order, home)
            seeds = self.papers.seeds(command, order.fills) if order.bearer else ()
            event = PrescriptionIssued(
                person=person, command=command, **self._ground(home), happened=order.happened, origin=order.origin,
                nonce=node.nonce_for(command), district=home, issued=issued, patient=checked_patient(order.patient),
                product=order.product, dosage=order.dosage, fills=order.fills, packs_per_fill=order.packs_per_fill,
                interval_days=order.interval_days, valid_from=order.valid_from,
                valid_until=order.valid_until or _default_end(issued, order.origin),
                first_fill_before=order.first_fill_before, substitution=order.substitution,
                controlled=order.controlled, criticality=order.criticality, prescriber=order.prescriber,
                workplace=order.workplace, holder=holder,
                bearer_keys=tuple(FillKey(fill, bearer_public_key(seed)) for fill, seed in seeds),
                chosen_pharmacy=order.chosen_pharmacy, order_serial=order.order_serial, replaces=order.replaces,
                replaced_heads=self._heads(order.replaces), external_id=order.external_id,
            )  # fmt: skip
            document = document_id(_day(issued, "issued"), encode_own(event))
            lane = 1 if order.criticality is Criticality.LIFE_SUSTAINING else 2
            return node.write(
                home,
                document,
                event,
                lane=lane,
                parents=(),
                also=lambda w: self.inquiry.index_event(event, document),
            )

    def amend(
        self, document: DocumentId, *, person: Person, dosage: str | None = None, instructions: str | None = None,
        command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Change dosage or instructions; anything else is cancel and reissue."""
        if dosage is None and instructions is None:
            raise InvalidInput("an amendment changes dosage or instructions; neither was given")
        return self._write(
            document, PrescriptionAmended, person, command, dosage=dosage, instructions=instructions
        )

    def hold(
        self, document: DocumentId, *, person: Person, reason: str = "", command: bytes | None = None
    ) -> Receipt:
        """Park a prescription: nothing may be supplied on it until it is resumed."""
        return self._write(document, PrescriptionHeld, person, command, reason=reason)

    def resume(self, document: DocumentId, *, person: Person, command: bytes | None = None) -> Receipt:
        """End the holds known here."""
        return self._write(document, PrescriptionResumed, person, command)

    def cancel(
        self,
        document: DocumentId,
        *,
        person: Person,
        reason: int = 4,
        comment: str = "",
        command: bytes | None = None,
    ) -> Receipt:
        """Cancel for good. Reason 1 wrong patient, 2 wrong medicine, 3 discontinued, 4 other.

        The prescription need not be held: a cancellation may overtake it. Then name the district in which it stands.
        """
        return self._write(document, PrescriptionCancelled, person, command, reason=reason, comment=comment)

    # --- dispensing --------------------------------------------------------------------------------------------

    def assess(self, document: DocumentId, supply: Supply) -> Decision:
        """What the guard says to a supply, with reasons, limits and what the answer rests on. Writes nothing."""
        with self.node.lock:
            answer = self.show(document)
            policy, legal_basis = self.policy()
            own = self._holding_feed(answer.district) or FeedId(b"")
            return decide(
                answer.prescription,
                SupplyRequest(
                    fill=supply.fill, quantity=supply.quantity, basis=supply.basis, reason=supply.reason,
                    bearer_public_key=bearer_public_key(supply.bearer_seed) if supply.bearer_seed else None, own_feed=own,
                ),
                policy,
                legal_basis,
                production=self.node.realm.kind is RealmKind.PRODUCTION,
                level=self.level(answer.district),
                horizon=answer.horizon,
                now_ms=self.node.now_ms(),
            )  # fmt: skip

    def dispense(
        self, document: DocumentId, supply: Supply, *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """Record a supply that the guard permits. Hand nothing over before this returns (R1).

        Raises:
            NotPermitted: the guard refuses; `reasons` says why and who holds the fill.
        """
        node = self.node
        with node.lock:
            command = self._command(command)
            done = node.first_result(command) or self._supplied_before(document, command)
            if done is not None:
                return done
            if node.identity.role is not NodeRole.PHARMACY:
                raise NotPermitted("only a pharmacy dispenses")
            district = self._district(document)
            feed = node.own_feed(district)
            decision = self.assess(document, supply)
            if decision.verdict is Verdict.REFUSE or decision.basis is None:
                raise NotPermitted(
                    "; ".join(r.message for r in decision.reasons),
                    reasons=tuple(r.code for r in decision.reasons),
                )
            quantity = supply.quantity or decision.quantity_max
            signature = None
            if decision.basis is Basis.BEARER and supply.bearer_seed is not None:
                signature = sign_bearer(supply.bearer_seed, document, supply.fill, feed)
            event = Dispensed(
                person=person, command=command, **self._ground(district), happened=supply.happened,
                origin=supply.origin, comment=supply.comment, fill=supply.fill, quantity=quantity,
                product=supply.product, basis=decision.basis, rests_on=decision.rests_on,
                bearer_signature=signature, part=supply.part, pharmacy=supply.pharmacy, reason=supply.reason,
            )  # fmt: skip
            return node.write(district, document, event)

    def not_dispensed(
        self, document: DocumentId, fill: int, reason: str, *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """Record that the pharmacist refused or could not supply."""
        return self._write(document, NotDispensed, person, command, fill=fill, reason=reason)

    def reverse(
        self, document: DocumentId, supply: Link, kind: ReversalKind, *, person: Person, reason: str = "",
        command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Take a supply of this node back: *backa* before hand-over, *kreditera* after it.

        Raises:
            NotPermitted: another node registered the supply.
        """
        with self.node.lock:
            if (done := self._before(command)) is not None:
                return done
            self._own_supply(document, supply)
            return self._write(
                document, DispensingReversed, person, command, supply=supply, kind=kind, reason=reason
            )

    def correct(
        self, document: DocumentId, supply: Link, quantity: int, *, person: Person, reason: str = "",
        command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Correct the quantity deducted by a supply of this node."""
        with self.node.lock:
            if (done := self._before(command)) is not None:
                return done
            self._own_supply(document, supply)
            return self._write(
                document,
                DispensingCorrected,
                person,
                command,
                supply=supply,
                quantity=quantity,
                reason=reason,
            )

    def link_supply(
        self, document: DocumentId, supply: Link, fill: int, quantity: int, *, person: Person,
        command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Join a supply made without known prescription to the prescription found later."""
        with self.node.lock:
            if (done := self._before(command)) is not None:
                return done
            found = self.node.store.by_link(supply)
            if found is None:
                raise NotFound("that supply is not held here")
            key = self.node.reader.entry_key_of(found).key
            return self._write(
                document, SupplyLinked, person, command,
                supply=supply, document=found.document, entry_key=key, fill=fill, quantity=quantity,
            )  # fmt: skip

    # --- marks -----------------------------------------------------------------------------------------------------

    def attach_external_id(
        self, document: DocumentId, external_id: Coded, *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """Note the id that the national register gave."""
        return self._write(document, ExternalIdAttached, person, command, external_id=external_id)

    def block_access(
        self, document: DocumentId, purposes: Sequence[str], *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """*Spärr*: filters reads by purpose, never what dispensing needs."""
        return self._write(document, AccessBlocked, person, command, purposes=tuple(purposes))

    def give_consent(
        self, document: DocumentId, purposes: Sequence[str], *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """The patient consents, which lifts the blocks known here."""
        return self._write(document, ConsentGiven, person, command, purposes=tuple(purposes))

    def resolve(
        self,
        document: DocumentId,
        anomaly: bytes,
        decision: str,
        *,
        person: Person,
        command: bytes | None = None,
    ) -> Receipt:
        """Record what a human decided about an anomaly."""
        return self._write(document, AnomalyResolved, person, command, anomaly=anomaly, decision=decision)

    # --- reading -----------------------------------------------------------------------------------------------------

    def show(self, document: DocumentId) -> Answer:
        """A prescription as known here.

        Raises:
            NotFound: nothing of it is held.
        """
        with self.node.lock:
            state = self.node.reader.state(document)
            if state is None:
                raise NotFound("that prescription is not held here", advice="it may exist at nodes not heard")
            district = self._district(document)
            horizon = self.inquiry.horizon(district, state)
            return Answer(state.prescription, view(state.prescription, self.node.now_ms()), horizon, district)

    def patient(self, patient: Patient, *, person: Person, purpose: str) -> PatientList:
        """A patient's prescriptions and what is odd between them. The lookup is logged."""
        return self.inquiry.patient(checked_patient(patient), person=person, purpose=purpose)

    def anomalies(self) -> Iterator[Anomaly]:
        """Every anomaly of every document held, open and resolved."""
        return self.inquiry.anomalies()

    def automerge(self, document: DocumentId) -> bytes:
        """The prescription as an Automerge document, the same bytes on every node with the same entries."""
        with self.node.lock:
            return self.node.reader.automerge(document)

    # --- within ----------------------------------------------------------------------------------------------------

    def _first_holder(self, order: IssuePrescription, district: str) -> FeedId:
        wanted = order.holder or order.chosen_pharmacy
        if wanted is not None:
            return self._feed(wanted, district)
        return self.node.own_feed(district)

    def _supplied_before(self, document: DocumentId, command: bytes) -> Receipt | None:
        state = self.node.reader.state(document)
        for supply in () if state is None else state.prescription.supplies:
            if supply.author == self.node.identity.node and supply.command == command:
                return Receipt(command, document, supply.id, repeated=True)
        return None

    def _own_supply(self, document: DocumentId, supply: Link) -> None:
        with self.node.lock:
            for known in self.show(document).prescription.supplies:
                if supply in known.ids and known.author == self.node.identity.node:
                    return
        raise NotPermitted("only the node that registered a supply may take it back", reasons=("not-author",))


def _day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"{field} is not a day in the form YYYY-MM-DD") from error


def _default_end(issued: str, origin: Origin) -> str:
    """A year; two weeks by telephone (the register's rule Auto03)."""
    first = _day(issued, "issued")
    days = 14 if origin is Origin.TELEPHONE else 365
    return (first + timedelta(days=days)).isoformat()
