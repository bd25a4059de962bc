"""Acts of two people that meet: at two counters at once, across a cut, at the edge of a day; and bundles carried by hand."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from random import Random

from ledger import Basis, NodeRole, Supply
from ledger.errors import RxLedgerError
from ledger.ids import DocumentId
from nodes.bundle import export_bundle, import_bundle
from simulations.acts import dispense_at
from simulations.machines import Machine
from simulations.world import Acknowledged, World

__all__ = ["RACES"]

DAY_MS = 86_400_000


def _ready(world: World, role: NodeRole, district: str = "") -> list[Machine]:
    return [
        m for name, m in sorted(world.machines.items())
        if m.up and m.role is role and world.paused.get(name, 0) <= world.now and (not district or m.district == district)
    ]  # fmt: skip


def _place(world: World, random: Random) -> tuple[DocumentId, list[Machine]] | None:
    """A prescription, and two pharmacies of its district."""
    document = random.choice(world.documents[-8:]) if world.documents else None
    if document is None:
        return None
    pharmacies = _ready(world, NodeRole.PHARMACY, world.homes[document])
    random.shuffle(pharmacies)
    return (document, pharmacies[:2]) if len(pharmacies) > 1 else None


def _supply(
    world: World, machine: Machine, document: DocumentId, random: Random, basis: Basis | None
) -> bool:
    supply = Supply(fill=1) if basis is None else Supply(fill=1, basis=basis, reason="simulerad nöd")
    try:
        dispense_at(world, machine, random, supply, "race", document)
    except RxLedgerError as error:
        world.refuse(machine, "race", error)
        return False
    return True


def _on_paper(world: World, machine: Machine, document: DocumentId, random: Random) -> bool:
    """The same paper, copied: its first fill at each."""
    assert machine.ledger is not None
    try:
        seed = machine.ledger.papers.scan(world.papers[document]).seeds[1]
        dispense_at(
            world, machine, random, Supply(fill=1, basis=Basis.BEARER, bearer_seed=seed), "bearer", document
        )
    except RxLedgerError as error:
        world.refuse(machine, "race", error)
        return False
    return True


def _double(world: World, random: Random) -> None:
    """W2: the same fill at two counters; where custody forbids it, in an emergency: both count, and both are found."""
    found = _place(world, random)
    if found is None:
        return
    document, pharmacies = found
    papers = sorted(d for d in world.papers if world.homes[d] == world.homes[document])
    if papers and random.random() < 0.6:
        document = random.choice(papers[-4:])
        done = [_on_paper(world, machine, document, random) for machine in pharmacies if machine.up]
    else:
        basis = Basis.EMERGENCY if random.random() < 0.5 else None
        done = [_supply(world, machine, document, random, basis) for machine in pharmacies if machine.up]
    world.hits["W2 one fill at two counters"] += 1
    world.hits["W2 supplied at both"] += len(done) > 1 and all(done)
    for machine in pharmacies:
        world.stir(machine)


def _cancelled(world: World, random: Random) -> None:
    """W1, W3: cancelled at the surgery and supplied at the counter at the same moment, in either order."""
    found = _place(world, random)
    prescribers = [] if found is None else _ready(world, NodeRole.PRESCRIBER, world.homes[found[0]])
    if found is None or not prescribers:
        return
    (document, pharmacies), prescriber = found, random.choice(prescribers)
    first = random.random() < 0.5
    if first:
        _supply(world, pharmacies[0], document, random, None)
    try:
        assert prescriber.ledger is not None
        receipt = prescriber.ledger.cancel(document, person=prescriber.person)
        world.acknowledge(Acknowledged(prescriber.name, receipt.link, "cancel", document), receipt.command)
        world.hits[
            "W3 cancelled after it was supplied" if first else "W1 cancelled while it is supplied"
        ] += 1
    except RxLedgerError as error:
        world.refuse(prescriber, "race", error)
    if not first and pharmacies[0].up:
        _supply(world, pharmacies[0], document, random, None)
    world.stir(prescriber)
    world.stir(pharmacies[0])


def _superseded(world: World, random: Random) -> None:
    """W4: what one has just amended another supplies as it was."""
    found = _place(world, random)
    prescribers = [] if found is None else _ready(world, NodeRole.PRESCRIBER, world.homes[found[0]])
    if found is None or not prescribers:
        return
    (document, pharmacies), prescriber = found, random.choice(prescribers)
    try:
        assert prescriber.ledger is not None
        receipt = prescriber.ledger.amend(document, person=prescriber.person, dosage="2 tabletter vid behov")
        world.acknowledge(Acknowledged(prescriber.name, receipt.link, "amend", document), receipt.command)
    except RxLedgerError as error:
        world.refuse(prescriber, "race", error)
        return
    if _supply(world, pharmacies[0], document, random, None):
        world.hits["W4 supplied what was superseded"] += 1
    world.stir(prescriber)
    world.stir(pharmacies[0])


def _edge(world: World, random: Random) -> None:
    """W6: at the end of its validity, one machine believes that it is still today, the other that it is tomorrow."""
    found = _place(world, random)
    if found is None:
        return
    document, pharmacies = found
    for machine, year in zip(pharmacies, (364, 366), strict=False):
        machine.clock.right()
        machine.clock.step(year * DAY_MS)
        _supply(world, machine, document, random, None)
        machine.clock.right()
    world.hits["W6 at the edge of validity"] += 1


def _courier(world: World, random: Random) -> None:
    """A bundle is carried from one machine to another, whatever is cut between them."""
    up = [m for _, m in sorted(world.machines.items()) if m.up and m.ledger is not None]
    if len(up) < 2:
        return
    sender, receiver = random.sample(up, 2)
    assert sender.ledger is not None
    assert receiver.ledger is not None
    node, bundle = sender.ledger.node, BytesIO()
    export_bundle(
        sender.ledger.exchange,
        node.keys.signing,
        node.identity.certificates,
        bundle,
        now_ms=sender.clock.now_ms(),
    )
    data = bytearray(bundle.getvalue())
    if random.random() < 0.3:  # It got wet.
        data[random.randrange(len(data))] ^= 1
        world.hits["a bundle was damaged on its way"] += 1
    try:
        report = import_bundle(receiver.ledger.exchange, BytesIO(bytes(data)))
    except RxLedgerError as error:
        world.refuse(receiver, "courier", error)
        return
    world.hits["a bundle was carried"] += 1
    world.hits["a bundle brought something"] += report.new > 0
    world.tell(receiver.name, "courier", "taken in")
    world.stir(receiver)


RACES: dict[str, Callable[[World, Random], None]] = {
    "double": _double,
    "cancelled": _cancelled,
    "superseded": _superseded,
    "edge": _edge,
    "courier": _courier,
}
