"""What people do at the counter, the surgery and the agency: each act takes its choices from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ledger import Basis, Ledger, NodeRole, Receipt, SeededEntropy, Supply
from ledger.errors import RxLedgerError
from ledger.events import Dispensed, ReversalKind
from ledger.ids import DocumentId, Link, NodeId
from nodes.content import prescriptions
from nodes.prescribing import order_of
from nodes.requests import Told
from simulations.machines import Machine
from simulations.world import Acknowledged, Finding, World

__all__ = ["act", "dispense_at"]

WAIT_MS = 120_000
"""For the answer to a claim or fetch."""
FILLS_TRIED = 3


def act(world: World, kind: str, random: Random) -> None:
    """Let somebody do something; what cannot be done here is passed over, what is refused is told."""
    machine = _who(world, kind, random)
    if machine is None:
        return
    try:
        _ACTS[kind](world, machine, random)
    except RxLedgerError as error:
        world.refuse(machine, kind, error)
    world.stir(machine)


def _up(world: World, roles: Sequence[NodeRole]) -> list[Machine]:
    return [
        m for name, m in sorted(world.machines.items())
        if m.up and m.role in roles and world.paused.get(name, 0) <= world.now
    ]  # fmt: skip


def _who(world: World, kind: str, random: Random) -> Machine | None:
    roles = {
        "prescribe": (NodeRole.PRESCRIBER,),
        "amend": (NodeRole.PRESCRIBER,),
        "cancel": (NodeRole.PRESCRIBER,),
        "hold": (NodeRole.PRESCRIBER,),
        "resume": (NodeRole.PRESCRIBER,),
        "transfer": (NodeRole.PHARMACY, NodeRole.AGENCY),
        "resolve": (NodeRole.AGENCY, NodeRole.PHARMACY),
        "repeat": (NodeRole.PHARMACY, NodeRole.PRESCRIBER),
    }.get(kind, (NodeRole.PHARMACY,))
    up = _up(world, roles)
    return random.choice(up) if up else None


def _ledger(machine: Machine) -> Ledger:
    assert machine.ledger is not None
    return machine.ledger


def _document(world: World, machine: Machine, random: Random) -> DocumentId | None:
    """Some prescription, rather one of this machine's district."""
    near = [d for d in world.documents if not machine.district or world.homes[d] == machine.district]
    among = near or world.documents
    return random.choice(among[-12:]) if among else None


def _done(
    world: World, machine: Machine, kind: str, receipt: Receipt, *, fill: int = 0, quantity: int = 0, custody: bool = False
) -> None:  # fmt: skip
    world.acknowledge(
        Acknowledged(machine.name, receipt.link, kind, receipt.document, fill, quantity, custody),
        receipt.command,
    )
    world.tell(machine.name, kind, "done")


def _prescribe(world: World, machine: Machine, random: Random) -> None:
    ledger = _ledger(machine)
    found = next(prescriptions(SeededEntropy(random.getrandbits(32)), ledger.today()))
    holders = [
        m for m in world.machines.values() if m.district == machine.district and m.role is NodeRole.PHARMACY
    ]
    chosen: NodeId | None = random.choice(holders).node if holders else None
    if random.random() < 0.2 and "agency" in world.machines:
        chosen = world.machines["agency"].node
    bearer = random.random() < 0.25
    receipt = ledger.prescribe(order_of(found, chosen_pharmacy=chosen, bearer=bearer), person=machine.person)
    world.documents.append(receipt.document)
    world.homes[receipt.document] = machine.district
    if bearer:
        world.papers[receipt.document] = ledger.papers.print(receipt.document)
    _done(world, machine, "prescribe", receipt)


def dispense_at(
    world: World, machine: Machine, random: Random, supply: Supply, kind: str, document: DocumentId
) -> None:
    """Supply, and note what was said to be done.

    Raises:
        RxLedgerError: it was refused.
    """
    ledger = _ledger(machine)
    receipt = ledger.dispense(document, supply, person=machine.person)
    event = _event(ledger, receipt)
    _done(
        world,
        machine,
        kind,
        receipt,
        fill=supply.fill,
        quantity=event.quantity,
        custody=event.basis is Basis.CUSTODY,
    )


def _event(ledger: Ledger, receipt: Receipt) -> Dispensed:
    node = ledger.node
    with node.lock:
        stored = node.store.by_link(receipt.link)
        assert stored is not None
        fact = node.reader.open(stored).fact
    assert fact is not None
    assert isinstance(fact.event, Dispensed)
    return fact.event


def _dispense(world: World, machine: Machine, random: Random) -> None:
    document = _document(world, machine, random)
    if document is not None:
        dispense_at(world, machine, random, Supply(fill=random.randint(1, FILLS_TRIED)), "dispense", document)


def _part(world: World, machine: Machine, random: Random) -> None:
    document = _document(world, machine, random)
    if document is not None:
        supply = Supply(fill=random.randint(1, 2), quantity=random.randint(1, 40), part=True)
        dispense_at(world, machine, random, supply, "part", document)


def _emergency(world: World, machine: Machine, random: Random) -> None:
    document = _document(world, machine, random)
    if document is not None:
        supply = Supply(fill=random.randint(1, FILLS_TRIED), basis=Basis.EMERGENCY, reason="simulerad nöd")
        dispense_at(world, machine, random, supply, "emergency", document)


def _bearer(world: World, machine: Machine, random: Random) -> None:
    """A patient comes with the paper: perhaps for the second time, to another pharmacy."""
    if not world.papers:
        return
    document = random.choice(sorted(world.papers))
    scanned = _ledger(machine).papers.scan(world.papers[document])
    fill = random.choice(sorted(scanned.seeds))
    supply = Supply(fill=fill, basis=Basis.BEARER, bearer_seed=scanned.seeds[fill])
    dispense_at(world, machine, random, supply, "bearer", document)


def _simple(
    name: str, call: Callable[[Ledger, DocumentId, Machine, Random], Receipt]
) -> Callable[[World, Machine, Random], None]:
    def run(world: World, machine: Machine, random: Random) -> None:
        document = _document(world, machine, random)
        if document is not None:
            _done(world, machine, name, call(_ledger(machine), document, machine, random))

    return run


def _transfer(world: World, machine: Machine, random: Random) -> None:
    document = _document(world, machine, random)
    others = [
        m.node for m in world.machines.values() if m.role is NodeRole.PHARMACY and m.node != machine.node
    ]
    if document is None or not others:
        return
    to = None if random.random() < 0.1 else random.choice(sorted(others))
    receipt = _ledger(machine).transfer(document, [random.randint(1, FILLS_TRIED)], to, person=machine.person)
    _done(world, machine, "transfer", receipt)


def _claim(world: World, machine: Machine, random: Random) -> None:
    document = _document(world, machine, random)
    if document is None or machine.peering is None:
        return
    fills = (random.randint(1, FILLS_TRIED),)

    def told(answer: Told) -> None:
        world.tell(machine.name, "claim", answer.code or "granted")
        node = None if machine.ledger is None else machine.ledger.node
        if not answer.code and node is not None:
            held = node.store.by_link(Link(answer.link))
            if held is None or held.detached:
                raise Finding(f"R11: {machine.name} is told that it holds a fill whose transfer is not here")

    machine.peering.requests.claim(
        None,
        document,
        fills,
        command=random.randbytes(16),
        now_ms=machine.monotonic(),
        deadline_ms=machine.monotonic() + WAIT_MS,
        done=told,
    )


def _fetch(world: World, machine: Machine, random: Random) -> None:
    far = [d for d in world.documents if world.homes[d] != machine.district]
    holders = [
        m.node
        for m in world.machines.values()
        if m.district != machine.district and m.role is NodeRole.PHARMACY
    ]
    if not far or not holders or machine.peering is None:
        return

    def told(answer: Told) -> None:
        world.tell(machine.name, "fetch", answer.code or "fetched")

    machine.peering.requests.fetch(
        random.choice(sorted(holders)), request=random.randbytes(16), person=machine.person, purpose="evakuerad",
        document=random.choice(far), now_ms=machine.monotonic(), deadline_ms=machine.monotonic() + WAIT_MS, done=told,
    )  # fmt: skip


def _owndispense_at(world: World, machine: Machine, random: Random) -> Acknowledged | None:
    mine = [a for a in world.acknowledged if a.machine == machine.name and a.quantity and a.act != "correct"]
    return random.choice(mine) if mine else None


def _reverse(world: World, machine: Machine, random: Random) -> None:
    supply = _owndispense_at(world, machine, random)
    if supply is None:
        return
    kind = random.choice(list(ReversalKind))
    receipt = _ledger(machine).reverse(
        supply.document, supply.link, kind, person=machine.person, reason="åter"
    )
    _done(world, machine, "reverse", receipt)


def _correct(world: World, machine: Machine, random: Random) -> None:
    supply = _owndispense_at(world, machine, random)
    if supply is None:
        return
    receipt = _ledger(machine).correct(
        supply.document, supply.link, max(1, supply.quantity - 1), person=machine.person, reason="felräknat"
    )
    _done(world, machine, "correct", receipt)


def _repeat(world: World, machine: Machine, random: Random) -> None:
    """The same command once more: by somebody who never got the answer (R17)."""
    mine = [(command, done) for name, command, done in world.commands if name == machine.name]
    mine = [(command, done) for command, done in mine if done.act in ("dispense", "part", "cancel", "amend")]
    if not mine:
        return
    command, done = random.choice(mine)
    ledger = _ledger(machine)
    if done.act == "cancel":
        again = ledger.cancel(done.document, person=machine.person, command=command)
    elif done.act == "amend":
        again = ledger.amend(done.document, person=machine.person, dosage="1 tablett", command=command)
    else:
        supply = Supply(fill=done.fill, quantity=done.quantity, part=done.act == "part")
        again = ledger.dispense(done.document, supply, person=machine.person, command=command)
    world.tell(machine.name, "repeat", "same" if again.link == done.link else "another")
    if again.link != done.link and not (machine.rolled_back or machine.damaged):
        raise Finding(f"R17: {done.act} once more at {machine.name} is another")
    if again.link != done.link:
        # Only a machine whose disk was set back can have forgotten it; both are one supply (R17).
        world.acknowledge(Acknowledged(machine.name, again.link, "repeat", done.document), None)


def _delegate(world: World, machine: Machine, random: Random) -> None:
    others = [
        m.node for m in world.machines.values()
        if m.role is NodeRole.PHARMACY and m.district == machine.district and m.node != machine.node
    ]  # fmt: skip
    if others:
        ledger = _ledger(machine)
        receipt = ledger.delegate(machine.district, random.choice(sorted(others)), person=machine.person)
        _done(world, machine, "delegate", receipt)


def _close_feed(world: World, machine: Machine, random: Random) -> None:
    if random.random() < 0.5:  # A change of computer is rare.
        return
    others = [
        m.node for m in world.machines.values()
        if m.role is NodeRole.PHARMACY and m.district == machine.district and m.node != machine.node
    ]  # fmt: skip
    if others:
        ledger = _ledger(machine)
        receipt = ledger.close_feed(machine.district, random.choice(sorted(others)), person=machine.person)
        _done(world, machine, "close-feed", receipt)


def _resolve(world: World, machine: Machine, random: Random) -> None:
    open_ones = [a for a in _ledger(machine).anomalies() if not a.resolutions]
    if open_ones:
        anomaly = random.choice(open_ones)
        receipt = _ledger(machine).resolve(
            DocumentId(anomaly.document), anomaly.id, "granskad", person=machine.person
        )
        _done(world, machine, "resolve", receipt)


_ACTS: dict[str, Callable[[World, Machine, Random], None]] = {
    "prescribe": _prescribe,
    "dispense": _dispense,
    "part": _part,
    "emergency": _emergency,
    "bearer": _bearer,
    "cancel": _simple("cancel", lambda ledger, d, m, _: ledger.cancel(d, person=m.person)),
    "amend": _simple(
        "amend",
        lambda ledger, d, m, r: ledger.amend(d, person=m.person, dosage=f"{r.randint(1, 4)} tabletter"),
    ),
    "hold": _simple("hold", lambda ledger, d, m, _: ledger.hold(d, person=m.person, reason="utreds")),
    "resume": _simple("resume", lambda ledger, d, m, _: ledger.resume(d, person=m.person)),
    "transfer": _transfer,
    "claim": _claim,
    "fetch": _fetch,
    "reverse": _reverse,
    "correct": _correct,
    "repeat": _repeat,
    "delegate": _delegate,
    "close-feed": _close_feed,
    "resolve": _resolve,
}
