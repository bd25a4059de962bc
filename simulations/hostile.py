"""What hostile and faulty peers do: frames of strangers, and of nodes that are certified and lie."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from ledger import Basis, NodeRole, SeededEntropy
from ledger.errors import RxLedgerError
from ledger.events import Dispensed
from ledger.identity import NodeKeys
from ledger.ids import NodeId, RealmId
from nodes.acquaintances import PEERS_MAX, STRANGERS_MAX
from nodes.lines import QUEUE_MAX
from nodes.messages import Ack, Digest, Done, Frontier, InStep, Message, Summary, encode_message
from nodes.nats.subjects import here, live, mailbox
from nodes.wire import LIVE_VERSION, Kind, Live, Speech, decode_live, encode_live, encode_speech
from simulations.failures import some_machine
from simulations.machines import DISTRICTS, Machine
from simulations.world import Finding, World

__all__ = ["HOSTILE", "check_bounds"]

FLOOD = 400
"""Frames at one moment: enough to empty every purse."""


def _to(world: World, random: Random) -> Machine | None:
    machine = some_machine(world, random)
    return machine if machine is not None and machine.peering is not None else None


def _garbage(world: World, random: Random) -> None:
    machine = _to(world, random)
    if machine is None or machine.ledger is None:
        return
    realm = machine.ledger.node.realm.id
    for _ in range(30):
        frame = bytes([random.choice([*range(8), 255])]) + random.randbytes(random.randint(0, 300))
        subject = random.choice(
            [live(realm, DISTRICTS[0]), here(realm, DISTRICTS[0]), mailbox(realm, machine.node)]
        )
        world.receive(machine, "hub", subject, frame)
        if not machine.up:
            return
    world.hits["B9 rubbish in frames"] += 1
    world.stir(machine)


def _forged_letter(world: World, random: Random) -> None:
    machine, other = _to(world, random), some_machine(world, random, up=None)
    if machine is None or other is None:
        return
    for _ in range(20):
        forged = bytes([Kind.LETTER]) + other.node + random.randbytes(random.randint(28, 200))
        world.receive(machine, "hub", "x", forged)
    world.hits["B1 forged sender"] += 1
    world.stir(machine)


def _past(world: World, kind: Kind, random: Random) -> bytes | None:
    frames = [e.payload for e in world.network.past() if e.payload and e.payload[0] == kind]
    return random.choice(frames) if frames else None


def _forged_live(world: World, random: Random) -> None:
    _mutated(world, random, Kind.LIVE, "B1 forged entry")


def _forged_here(world: World, random: Random) -> None:
    _mutated(world, random, Kind.HERE, "B1 forged sign of life")


def _heard(machine: Machine) -> dict[bytes, int]:
    """When each peer was last heard."""
    if machine.peering is None:
        return {}
    return {peer.node: peer.heard_ms for peer in machine.peering.peers if peer.heard_ms is not None}


def _mutated(world: World, random: Random, kind: Kind, hit: str) -> None:
    machine, frame = _to(world, random), _past(world, kind, random)
    if machine is None or frame is None or machine.ledger is None:
        return
    realm = machine.ledger.node.realm.id
    heard = _heard(machine)
    for _ in range(20):
        forged = bytearray(frame)
        for at in random.sample(range(1, len(forged)), random.randint(1, 3)):
            forged[at] ^= 1 << random.randrange(8)
        subject = random.choice([live, here])(realm, random.choice(DISTRICTS))
        world.receive(machine, "hub", subject, bytes(forged))
        if not machine.up:
            return
        if _heard(machine) != heard:
            raise Finding(f"A3: {machine.name} takes a forged frame for a sign of life")
    world.hits[hit] += 1
    world.stir(machine)


def _stranger(world: World, random: Random) -> None:
    """B8: somebody who is certified in another realm, or by nobody."""
    machine = _to(world, random)
    if machine is None:
        return
    keys = NodeKeys.generate(SeededEntropy(random.getrandbits(32)))
    introduction = (
        bytes([Kind.INTRODUCTION, 0x92, 0xC4, 0x20]) + keys.public_key + b"\xc4\x20" + keys.wrapping_key
    )
    for frame in (
        introduction,
        bytes([Kind.WHO]) + keys.public_key[:16],
        bytes([Kind.LETTER]) + keys.public_key * 3,
    ):
        world.receive(machine, "hub", "x", frame)
    world.hits["B8 stranger"] += 1
    world.stir(machine)


def _newer_version(world: World, random: Random) -> None:
    """P4: an honest peer that speaks a later version."""
    machine, other = _to(world, random), some_machine(world, random)
    if (
        machine is None
        or other is None
        or other is machine
        or other.peering is None
        or machine.peering is None
    ):
        return
    if other.peering.peers.known(machine.node) is None:
        return
    newer = b"\x92\x63\x91\x01" + random.randbytes(20)
    letter = other.peering.peers.postbox.seal(
        machine.node, encode_speech(Speech(random.randbytes(8), 0, newer))
    )
    world.receive(machine, "hub", "x", bytes([Kind.LETTER]) + letter)
    world.receive(machine, "hub", "x", bytes([99]) + letter)
    world.hits["P4 newer version"] += 1
    world.stir(machine)


def _wrong_role(world: World, random: Random) -> None:
    """B2: a prescriber's node signs a supply, past its own guard: it counts nowhere as one, and everybody agrees on that."""
    machine = some_machine(world, random, role=NodeRole.PRESCRIBER)
    near = [d for d in world.documents if machine is not None and world.homes[d] == machine.district]
    if machine is None or machine.ledger is None or not near:
        return
    node, document = machine.ledger.node, random.choice(near)
    event = Dispensed(
        person=machine.person,
        command=node.new_command(),
        fill=1,
        quantity=7,
        basis=Basis.EMERGENCY,
        reason="utan rätt",
    )
    with node.lock:
        node.write(machine.district, document, event)
    world.lawless.add(document)
    world.hits["B2 supplied without the role"] += 1
    world.tell(machine.name, "wrong-role", "supplied")
    world.stir(machine)


def _withheld(world: World, random: Random) -> None:
    """B4: an entry is told whose predecessors are not."""
    machine, other = _to(world, random), some_machine(world, random)
    if machine is None or other is None or other.ledger is None or machine is other or machine.ledger is None:
        return
    theirs, ours = other.ledger.exchange, machine.ledger.exchange
    for district in sorted(theirs.districts()):
        for feed in sorted(theirs.frontier(district)):
            held = ours.frontier_of(feed) if ours.written_by(feed) is not None else ()
            ahead = theirs.urgent(feed, held[-1][0] + 1, 4) if len(held) == 1 else []
            if ahead:
                previous, entry = ahead[-1]
                before = len(ours.detached_links(district))
                if entry.sealed:
                    sealed = entry.sealed[:-1] + bytes([entry.sealed[-1] ^ 1])
                    forged = Live(LIVE_VERSION, feed, msgspec.structs.replace(entry, sealed=sealed), previous)
                    where = live(machine.ledger.node.realm.id, district)
                    world.receive(machine, "hub", where, encode_live(forged))
                    if machine.up and len(ours.detached_links(district)) > before:
                        raise Finding(f"A3: {machine.name} holds a forged entry ahead of its feed")
                    if not machine.up:
                        return
                frame = encode_live(Live(LIVE_VERSION, feed, entry, previous))
                world.receive(machine, "hub", live(machine.ledger.node.realm.id, district), frame)
                world.hits["B4 entry ahead of what it follows"] += (
                    machine.up and len(ours.detached_links(district)) > before
                )
                world.hits["B4 withheld predecessor"] += 1
                world.stir(machine)
                return


def _misplaced(world: World, random: Random) -> None:
    """B6: a good entry told as one of another feed, at another place, of another document; a sign of life elsewhere."""
    machine, frame = _to(world, random), _past(world, Kind.LIVE, random)
    if machine is None or machine.ledger is None or frame is None:
        return
    realm, feeds = machine.ledger.node.realm.id, [
        feed for d in sorted(machine.ledger.exchange.districts()) for feed in sorted(machine.ledger.exchange.frontier(d))
    ]  # fmt: skip
    try:
        told = decode_live(frame[1:])
    except RxLedgerError:
        return  # One that was flipped on its way.
    others = [feed for feed in feeds if feed != told.feed]
    if not others:
        return
    feed = random.choice(others)
    heads = machine.ledger.exchange.frontier_of(feed)
    moved = Live(LIVE_VERSION, feed, told.entry, random.choice([b"", heads[-1][1]]))
    world.receive(machine, "hub", live(realm, random.choice(DISTRICTS)), encode_live(moved))
    sign = _past(world, Kind.HERE, random)
    if sign is not None and machine.up:
        world.receive(machine, "hub", here(RealmId(b"\x01" * 16), DISTRICTS[0]), sign)
    world.hits["B6 replayed elsewhere"] += 1
    world.stir(machine)


def _flood(world: World, random: Random) -> None:
    """B10: thousands of frames that cost their sender nothing."""
    machine = _to(world, random)
    if machine is None or machine.ledger is None or machine.peering is None:
        return
    realm, node = machine.ledger.node.realm.id, machine.node
    frame = _past(world, Kind.LIVE, random)
    for _ in range(FLOOD):
        stranger = random.randbytes(16)
        kind = random.choice([Kind.WHO, Kind.LETTER, Kind.HERE, Kind.LIVE])
        body = (
            frame[1:] if kind is Kind.LIVE and frame else stranger + random.randbytes(random.choice([0, 40]))
        )
        world.receive(
            machine, random.choice(sorted(world.buses(machine))), mailbox(realm, node), bytes([kind]) + body
        )
        if not machine.up:
            return
    world.hits["B10 flood"] += 1
    check_bounds(machine)
    world.stir(machine)


def check_bounds(machine: Machine) -> None:
    """A14: what a machine keeps for others stays within its stated limits.

    Raises:
        Finding: it does not.
    """
    peering = machine.peering
    if peering is None:
        return
    waiting = [len(q) for line in peering.lines._lines.values() for q in (line.urgent, line.rest)]
    if (
        len(peering.peers.peers) > PEERS_MAX
        or len(peering.peers._asked) > STRANGERS_MAX
        or max(waiting) > QUEUE_MAX
    ):
        raise Finding(f"A14: {machine.name} keeps more than its limits say")


def _lies(world: World, random: Random) -> None:
    """B12: a certified peer claims to hold everything, or the same, or more than there is, and serves nothing."""
    machine, other = _to(world, random), some_machine(world, random)
    if (
        machine is None or other is None or other is machine or other.peering is None or machine.peering is None
        or machine.ledger is None or other.peering.peers.known(machine.node) is None
    ):  # fmt: skip
        return
    exchange, realm = machine.ledger.exchange, machine.ledger.node.realm.id
    feeds: dict[bytes, tuple[tuple[int, bytes], ...]] = {
        bytes(feed): (((1 << 40) + random.randrange(1000), random.randbytes(32)),)
        for feed in exchange.frontier(machine.district or DISTRICTS[0])
    }
    lies: list[tuple[str, Message]] = [
        ("B12 lying digest", Digest(realm, {machine.district or DISTRICTS[0]: random.randbytes(32)})),
        (
            "B12 claims to hold all",
            Frontier({machine.district or DISTRICTS[0]: feeds}, bytes(16), b"\xff" * 16),
        ),
        ("B12 says that both are in step", InStep(random.getrandbits(50))),
        ("B12 says that it is done", Done(more=random.random() < 0.5)),
        ("B12 lying acknowledgement", Ack(random.randint(1, 1000))),
        ("B12 lying digest", Summary(random.randbytes(32))),
    ]
    seal = other.peering.peers.postbox.seal
    name = random.randbytes(8)
    for _ in range(6):
        what, message = random.choice(lies)
        speech = encode_speech(Speech(name, random.choice([0, 1]), encode_message(message)))
        world.receive(
            machine,
            "hub",
            mailbox(realm, machine.node),
            bytes([Kind.LETTER]) + seal(NodeId(machine.node), speech),
        )
        world.hits[what] += 1
        if not machine.up:
            return
    world.stir(machine)


HOSTILE: dict[str, Callable[[World, Random], None]] = {
    "garbage": _garbage,
    "forged-letter": _forged_letter,
    "forged-live": _forged_live,
    "forged-here": _forged_here,
    "stranger": _stranger,
    "wrong-role": _wrong_role,
    "withheld": _withheld,
    "misplaced": _misplaced,
    "flood": _flood,
    "lies": _lies,
    "newer-version": _newer_version,
}
