"""A model for property tests: nodes that write facts from what they hold, with no keys, disk or network between."""

from __future__ import annotations

import hashlib
from datetime import date

from msgspec.structs import replace

from ledger.clock import pack_stamp
from ledger.custody import bearer_public_key, sign_bearer
from ledger.events import (
    Basis,
    Coded,
    CustodyDelegated,
    CustodyDelegationEnded,
    CustodyRecovered,
    CustodyTransferred,
    Dispensed,
    DispensingReversed,
    Event,
    FillKey,
    FillRight,
    Level,
    Patient,
    Person,
    PersonRole,
    PrescriptionCancelled,
    PrescriptionIssued,
    Product,
    ReversalKind,
    encode_event,
)
from ledger.facts import Branches, Fact
from ledger.governance import GovernanceView, fold_governance
from ledger.guard import Decision, Horizon, SupplyRequest, decide
from ledger.history import Prescription, fold, holdings
from ledger.identity import NodeRole
from ledger.ids import DocumentId, FeedId, Link, NodeId, district_document, document_id
from ledger.policy import default_policy

DISTRICT = "SE-X-1"
NOW_MS = 1_800_000_000_000
SIZE = 10
FILLS = 3
SEEDS = {fill: hashlib.sha256(b"seed %d" % fill).digest() for fill in range(1, FILLS + 1)}
PERSON = Person(Coded("code", "1"), PersonRole.PHARMACIST)


def governance() -> GovernanceView:
    return fold_governance([], {})


class ModelNode:
    """One node: what it holds, and its feed."""

    def __init__(self, realm: ModelRealm, name: str, role: NodeRole, feed: str | None = None) -> None:
        self.realm, self.name, self.role = realm, name, role
        self.author = NodeId(hashlib.sha256(name.encode()).digest()[:16])
        self.feed = FeedId(hashlib.sha256((feed or name).encode()).digest()[:16])
        self.sequence = 0
        self.branch = 0
        self.held: dict[Link, Fact] = {}

    def state(self) -> Prescription:
        return self.realm.fold(self.held)

    def write(self, event: Event, document: DocumentId | None = None) -> Fact:
        document = document or self.realm.document
        held = [f for f in self.held.values() if f.document == document]
        named = {parent for fact in held for parent in fact.parents}
        parents = tuple(sorted(fact.id for fact in held if fact.id not in named))
        self.sequence += 1
        self.realm.clock += 1
        data = encode_event(event)
        position = b"%s %d %d" % (self.feed, self.branch, self.sequence)
        fact = Fact(
            id=Link(hashlib.sha256(position + data + b"".join(parents)).digest()),
            feed=self.feed, branch=self.branch, sequence=self.sequence, stamp=pack_stamp(NOW_MS + self.realm.clock),
            document=document, author=self.author, role=self.role, parents=parents, kind=type(event).__name__,
            event=event, event_bytes=data,
        )  # fmt: skip
        self.held[fact.id] = fact
        self.realm.written[fact.id] = fact
        return fact

    def command(self) -> bytes:
        self.realm.commands += 1
        return self.realm.commands.to_bytes(16, "big")

    def decide(self, fill: int, basis: Basis | None = None, seed: bytes | None = None) -> Decision:
        request = SupplyRequest(
            fill=fill, own_feed=self.feed, basis=basis, reason="x",
            bearer_public_key=bearer_public_key(seed) if seed else None,
        )  # fmt: skip
        return decide(
            self.state(), request, default_policy("exercise"), "", production=False, level=Level.CRISIS,
            horizon=Horizon(), now_ms=NOW_MS,
        )  # fmt: skip

    # --- what an honest node does -----------------------------------------------------------------------------

    def dispense(self, fill: int, *, part: bool = False) -> bool:
        """On custody, if the guard permits it."""
        decision = self.decide(fill, Basis.CUSTODY)
        if decision.basis is not Basis.CUSTODY or decision.verdict.value == "refuse":
            return False
        quantity = 1 if part and decision.quantity_max > 1 else decision.quantity_max
        self.write(
            Dispensed(
                person=PERSON, command=self.command(), fill=fill, quantity=quantity, basis=Basis.CUSTODY,
                rests_on=decision.rests_on, part=quantity < decision.quantity_max,
            )
        )  # fmt: skip
        return True

    def emergency(self, fill: int, quantity: int) -> None:
        """Whatever the guard says: medicine was handed over."""
        self.write(
            Dispensed(
                person=PERSON, command=self.command(), fill=fill, quantity=quantity, basis=Basis.EMERGENCY, reason="x"
            )
        )  # fmt: skip

    def spend_bearer(self, fill: int) -> bool:
        decision = self.decide(fill, Basis.BEARER, SEEDS[fill])
        if decision.basis is not Basis.BEARER or decision.verdict.value == "refuse":
            return False
        self.write(
            Dispensed(
                person=PERSON, command=self.command(), fill=fill, quantity=decision.quantity_max, basis=Basis.BEARER,
                rests_on=decision.rests_on,
                bearer_signature=sign_bearer(SEEDS[fill], self.realm.document, fill, self.feed),
            )
        )  # fmt: skip
        return True

    def transfer(self, fill: int, to: ModelNode | None) -> bool:
        rights = [r for r in holdings(self.state(), self.feed) if r.fill == fill]
        if not rights:
            return False
        keys = () if to is not None else (FillKey(fill, bearer_public_key(SEEDS[fill])),)
        self.write(
            CustodyTransferred(
                person=PERSON, command=self.command(), fills=(FillRight(fill, rights[0].rests_on),),
                to=to.feed if to else None, bearer_keys=keys,
            )
        )  # fmt: skip
        return True

    def reverse(self) -> bool:
        mine = [s for s in self.state().supplies if s.author == self.author and s.feed == self.feed and s.net]
        if not mine:
            return False
        self.write(
            DispensingReversed(
                person=PERSON, command=self.command(), supply=mine[-1].id, kind=ReversalKind.BEFORE_HANDOVER
            )
        )  # fmt: skip
        return True

    def delegate(self, to: ModelNode) -> Fact:
        return self.write(
            CustodyDelegated(person=PERSON, command=self.command(), to=to.feed), district_document(DISTRICT)
        )

    def end_delegation(self, delegation: Link) -> Fact:
        return self.write(
            CustodyDelegationEnded(person=PERSON, command=self.command(), delegation=delegation),
            district_document(DISTRICT),
        )

    def cancel(self) -> Fact:
        return self.write(PrescriptionCancelled(person=PERSON, command=self.command()))

    def recover(self, fill: int) -> Fact:
        return self.write(
            CustodyRecovered(person=PERSON, command=self.command(), fills=(fill,), reason="dead")
        )

    def take(self, facts: list[Fact]) -> None:
        self.held.update({fact.id: fact for fact in facts})


class ModelRealm:
    """A prescriber, pharmacies, the agency, and one prescription whose fills the first pharmacy holds."""

    def __init__(self, pharmacies: int = 3, *, bearer: bool = False) -> None:
        self.clock = self.commands = 0
        self.written: dict[Link, Fact] = {}
        self.parts: dict[FeedId, list[object]] = {}
        self.prescriber = ModelNode(self, "prescriber", NodeRole.PRESCRIBER)
        self.agency = ModelNode(self, "agency", NodeRole.AGENCY)
        self.pharmacies = [ModelNode(self, f"pharmacy {n}", NodeRole.PHARMACY) for n in range(pharmacies)]
        event = PrescriptionIssued(
            person=PERSON, command=bytes(16), nonce=bytes(16), district=DISTRICT, issued="2027-01-01",
            patient=Patient(name="Test", birth_date="1950-01-01"),
            product=Product(pack=Coded("pack", "1"), name="Metformin", pack_quantity=SIZE), dosage="1", fills=FILLS,
            valid_until="2027-12-31", prescriber=Coded("code", "1"),
            holder=None if bearer else self.pharmacies[0].feed,
            bearer_keys=tuple(FillKey(f, bearer_public_key(s)) for f, s in SEEDS.items()) if bearer else (),
        )  # fmt: skip
        self.document = document_id(date(2027, 1, 1), encode_event(event))
        self.issued = self.prescriber.write(event)
        for node in self.nodes:
            node.take([self.issued])

    @property
    def nodes(self) -> list[ModelNode]:
        return [self.prescriber, self.agency, *self.pharmacies]

    def fold(self, facts: dict[Link, Fact]) -> Prescription:
        """As a store would hand them over: what came ahead of its feed is detached until the gap is filled."""
        places: dict[FeedId, set[int]] = {}
        for fact in facts.values():
            places.setdefault(fact.feed, set()).add(fact.sequence)
        unbroken = {
            feed: next(n for n in range(1, len(held) + 2) if n not in held) for feed, held in places.items()
        }
        placed = [replace(f, detached=f.sequence > unbroken[f.feed]) for f in facts.values()]
        own = [f for f in placed if f.document == self.document]
        district = [f for f in placed if f.document != self.document]
        return fold(self.document, own, district, Branches(self.parts), governance())  # type: ignore[arg-type]
