"""Every public command as a case: who gives it, what must be so before, and the command itself (R17).

A case's arguments are bytes, so that another process can give the same command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from msgspec import Struct

from ledger import (
    Basis,
    Coded,
    Criticality,
    DocumentId,
    IssuePrescription,
    Ledger,
    Level,
    Link,
    NodeId,
    NodeRole,
    Origin,
    Product,
    Receipt,
    ReversalKind,
    Supply,
)
from ledger.ids import month_number
from ledger.persons import NPL_PACK_ID
from ledger.policy import Policy
from nodes.claims import answer_claim, make_claim
from tests.machine_acts_for_tests import PHARMACIST, PRESCRIBED_BY, World, patient
from tests.machine_for_tests import AGENCY, HOME, OFFICER, PACK, PRESCRIBER

NORTH, SOUTH = "north", "south"
COMMAND = bytes(range(16))
"""The id under which every case is carried out."""


class Args(Struct, frozen=True, kw_only=True):
    """What a command names."""

    document: bytes = b""
    link: bytes = b""
    node: bytes = b""
    claim: bytes = b""
    anomaly: bytes = b""


Run = Callable[[Ledger, bytes, Args], Receipt]


@dataclass(frozen=True)
class Case:
    """One command."""

    site: str
    run: Run
    prepare: Callable[[World], Args]


def order(**fields: object) -> IssuePrescription:
    stated: dict[str, object] = {
        "patient": patient(1), "dosage": "1 tablett", "fills": 2, "prescriber": PRESCRIBED_BY.code,
        "product": Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", pack_quantity=PACK),
        "criticality": Criticality.LIFE_SUSTAINING,
    }  # fmt: skip
    return IssuePrescription(**(stated | fields))  # type: ignore[arg-type]


def everybody_hears(world: World) -> None:
    names = list(world.sites)
    for _ in range(2):
        for n, one in enumerate(names):
            for other in names[n + 1 :]:
                world.synchronise(one, other)


# --- what must be so before -------------------------------------------------------------------------------------------


def nothing(world: World) -> Args:
    return Args(node=world.node_id(NORTH))


def issued(world: World) -> Args:
    """A prescription that the northern pharmacy holds and everybody knows."""
    receipt = world.sites[PRESCRIBER].ledger.prescribe(
        order(holder=world.node_id(NORTH)), person=PRESCRIBED_BY
    )
    everybody_hears(world)
    return Args(document=receipt.document, node=world.node_id(SOUTH))


def supplied(world: World) -> Args:
    document = issued(world).document
    receipt = world.sites[NORTH].ledger.dispense(
        DocumentId(document), Supply(fill=1, quantity=3, part=True), person=PHARMACIST
    )
    everybody_hears(world)
    return Args(document=document, link=receipt.link)


def held(world: World) -> Args:
    made = issued(world)
    world.sites[PRESCRIBER].ledger.hold(DocumentId(made.document), person=PRESCRIBED_BY)
    return made


def supplied_on_another(world: World) -> Args:
    """The pharmacy registered the paper itself and supplied on it; the electronic prescription came later."""
    ledger = world.sites[NORTH].ledger
    paper = ledger.prescribe(order(origin=Origin.PAPER), person=PHARMACIST, district=HOME)
    supply = ledger.dispense(paper.document, Supply(fill=1), person=PHARMACIST)
    return Args(document=issued(world).document, link=supply.link)


def delegated(world: World) -> Args:
    receipt = world.sites[SOUTH].ledger.delegate(HOME, world.node_id(NORTH), person=PHARMACIST)
    everybody_hears(world)
    return Args(link=receipt.link)


def claimed(world: World) -> Args:
    document = issued(world).document
    return Args(
        document=document,
        claim=make_claim(world.sites[SOUTH].ledger, DocumentId(document), (1,), HOME, COMMAND),
    )


def odd(world: World) -> Args:
    """A double dispensing, known to all."""
    made = issued(world)
    document = DocumentId(made.document)
    world.sites[NORTH].ledger.dispense(document, Supply(fill=1), person=PHARMACIST)
    world.sites[SOUTH].ledger.dispense(
        document, Supply(fill=1, basis=Basis.EMERGENCY, reason="innehavaren nås inte"), person=PHARMACIST
    )
    everybody_hears(world)
    anomaly = world.sites[NORTH].ledger.show(document).prescription.anomalies[0]
    return Args(document=document, anomaly=anomaly.id)


# --- the commands -----------------------------------------------------------------------------------------------------


def _care(kind: str, **fields: object) -> Run:
    """A command of the façade on a prescription."""

    def run(ledger: Ledger, command: bytes, args: Args) -> Receipt:
        person = PRESCRIBED_BY if ledger.node.identity.role is NodeRole.PRESCRIBER else PHARMACIST
        done = getattr(ledger, kind)(DocumentId(args.document), person=person, command=command, **fields)
        assert isinstance(done, Receipt)
        return done

    return run


def _supply(**fields: object) -> Run:
    return _care("dispense", supply=Supply(fill=1, **fields))  # type: ignore[arg-type]


_steward = {
    "revoke": lambda s, c, a: s.revoke(NodeId(a.node), person=OFFICER, reason="stulen", command=c),
    "start_epoch": lambda s, c, a: s.start_epoch(HOME, person=OFFICER, command=c),
    "declare": lambda s, c, a: s.declare(Level.CRISIS, person=OFFICER, command=c),
    "set_policy": lambda s, c, a: s.set_policy(Policy(early_refill_days=3), person=OFFICER, command=c),
    "retire": lambda s, c, a: s.retire(month_number(date(2020, 1, 1)), person=OFFICER, command=c),
}


def _governing(kind: str) -> Run:
    return lambda ledger, command, args: _steward[kind](ledger.stewardship, command, args)


CASES: dict[str, Case] = {
    "prescribe": Case(PRESCRIBER, lambda led, c, a: led.prescribe(order(holder=NodeId(a.node)), person=PRESCRIBED_BY, command=c), nothing),
    "prescribe for oneself": Case(PRESCRIBER, lambda led, c, a: led.prescribe(order(), person=PRESCRIBED_BY, command=c), nothing),
    "prescribe on paper": Case(PRESCRIBER, lambda led, c, a: led.prescribe(order(bearer=True), person=PRESCRIBED_BY, command=c), nothing),
    "register": Case(NORTH, lambda led, c, a: led.prescribe(order(origin=Origin.PAPER), person=PHARMACIST, command=c), nothing),
    "amend": Case(PRESCRIBER, _care("amend", dosage="2 tabletter"), issued),
    "hold": Case(PRESCRIBER, _care("hold"), issued),
    "resume": Case(PRESCRIBER, _care("resume"), held),
    "cancel": Case(PRESCRIBER, _care("cancel"), issued),
    "dispense": Case(NORTH, _supply(), issued),
    "dispense a part": Case(NORTH, _supply(quantity=3, part=True), issued),
    "dispense beyond custody": Case(SOUTH, _supply(basis=Basis.EMERGENCY, reason="nöd"), issued),
    "not dispensed": Case(NORTH, _care("not_dispensed", fill=1, reason="slut"), issued),
    "reverse": Case(NORTH, lambda led, c, a: led.reverse(DocumentId(a.document), Link(a.link), ReversalKind.BEFORE_HANDOVER, person=PHARMACIST, command=c), supplied),
    "correct": Case(NORTH, lambda led, c, a: led.correct(DocumentId(a.document), Link(a.link), 2, person=PHARMACIST, command=c), supplied),
    "link supply": Case(NORTH, lambda led, c, a: led.link_supply(DocumentId(a.document), Link(a.link), 1, 4, person=PHARMACIST, command=c), supplied_on_another),
    "attach external id": Case(PRESCRIBER, _care("attach_external_id", external_id=Coded("urn:example", "1")), issued),
    "block access": Case(PRESCRIBER, _care("block_access", purposes=("research",)), issued),
    "give consent": Case(PRESCRIBER, _care("give_consent", purposes=("research",)), issued),
    "resolve": Case(NORTH, lambda led, c, a: led.resolve(DocumentId(a.document), a.anomaly, "utrett", person=PHARMACIST, command=c), odd),
    "transfer": Case(NORTH, lambda led, c, a: led.transfer(DocumentId(a.document), [1], NodeId(a.node), person=PHARMACIST, command=c), issued),
    "transfer to the bearer": Case(NORTH, lambda led, c, a: led.transfer(DocumentId(a.document), [2], None, person=PHARMACIST, command=c), issued),
    "answer a claim": Case(NORTH, lambda led, c, a: answer_claim(led, a.claim, person=PHARMACIST), claimed),
    "recover": Case(AGENCY, lambda led, c, a: led.recover(DocumentId(a.document), [1], person=OFFICER, reason="brand", command=c), issued),
    "delegate": Case(SOUTH, lambda led, c, a: led.delegate(HOME, NodeId(a.node), person=PHARMACIST, command=c), nothing),
    "end delegation": Case(NORTH, lambda led, c, a: led.end_delegation(HOME, Link(a.link), person=PHARMACIST, command=c), delegated),
    "close feed": Case(SOUTH, lambda led, c, a: led.close_feed(HOME, NodeId(a.node), person=PHARMACIST, command=c), nothing),
    **{kind.replace("_", " "): Case(AGENCY, _governing(kind), nothing) for kind in _steward},
}  # fmt: skip
