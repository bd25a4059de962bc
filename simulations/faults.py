"""What goes wrong, and what the agency does about it: each fault takes its choices from its own seed and counts its hits.

A hit is counted where the fault has had its effect (a message dropped, a process killed in mid-transaction), not where it
was planned: a run that never exercised what it checks proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from ledger import Level, NodeRole, SeededEntropy
from ledger.errors import RxLedgerError
from ledger.identity import NodeKeys
from ledger.store import restore_store
from nodes.nats.subjects import here, live, mailbox
from nodes.wire import Kind, Speech, encode_speech
from simulations.acts import act
from simulations.machines import DISTRICTS, EPOCH_MS, Machine
from simulations.network import Quality
from simulations.world import BUSES, Acknowledged, Finding, World

__all__ = ["fault"]

PAUSE_MS = (1_000, 3_600_000)
YEAR_MS = 365 * 86_400_000
STATEMENTS_MAX = 40
"""SQL statements of one append are some thirty: a process is killed at one of them."""


def fault(world: World, kind: str, random: Random) -> None:
    """Let something go wrong; what has nothing to befall is passed over."""
    try:
        _FAULTS[kind](world, random)
    except RxLedgerError as error:
        world.tell("-", kind, error.code)


def _some(
    world: World, random: Random, *, up: bool | None = True, role: NodeRole | None = None
) -> Machine | None:
    among = [
        m for _, m in sorted(world.machines.items())
        if (up is None or m.up is up) and (role is None or m.role is role) and not m.broken
    ]  # fmt: skip
    return random.choice(among) if among else None


# --- network -----------------------------------------------------------------------------------------------------------


def _cut(world: World, random: Random) -> None:
    """N1: two groups, or a ring in which each hears its neighbours only."""
    names = sorted(world.machines)
    random.shuffle(names)
    if random.random() < 0.2 and len(names) > 3:
        near = {(a, b) for i, a in enumerate(names) for b in (names[i - 1], names[(i + 1) % len(names)])}
        world.network.cut |= {(a, b) for a in names for b in names if a != b and (a, b) not in near}
        world.tell("-", "cut", "ring")
        return
    half = set(names[: random.randint(1, len(names) - 1)])
    world.network.cut |= {(a, b) for a in names for b in names if (a in half) != (b in half)}
    world.tell("-", "cut", " ".join(sorted(half)))


def _one_way_cut(world: World, random: Random) -> None:
    names = sorted(world.machines)
    one = random.choice(names)
    others = [n for n in names if n != one]
    pairs = {(one, n) for n in others} if random.random() < 0.5 else {(n, one) for n in others}
    world.network.cut |= pairs
    world.tell(one, "one-way-cut", "deaf" if (others[0], one) in pairs else "dumb")


def _isolate(world: World, random: Random) -> None:
    one = random.choice(sorted(world.machines))
    world.network.cut |= {p for n in world.machines if n != one for p in ((one, n), (n, one))}
    world.tell(one, "isolate", "alone")


def _swizzle(world: World, random: Random) -> None:
    """N3: cut off one by one, restored in another order."""
    names = [n for n in sorted(world.machines) if random.random() < 0.5]
    for order, name in enumerate(names):
        world.later(order * 20_000, partial(_edge, name=name, cut=True))
    random.shuffle(names)
    for order, name in enumerate(names):
        world.later(600_000 + order * 20_000, partial(_edge, name=name, cut=False))
    world.hits["N3 swizzle"] += bool(names)


def _edge(world: World, name: str, *, cut: bool) -> None:
    pairs = {p for n in world.machines if n != name for p in ((name, n), (n, name))}
    if cut:
        world.network.cut |= pairs
    else:
        world.network.cut -= pairs


def _heal(world: World, _random: Random) -> None:
    world.network.cut.clear()
    world.tell("-", "heal", "all links")


def _flap(world: World, random: Random) -> None:
    """N9: a link that goes up and down, and drops its connections each time."""
    machine = _some(world, random)
    if machine is None:
        return
    period = random.choice([100, 1_000, 30_000])
    for turn in range(10):
        world.later(turn * period, partial(_link, machine=machine, up=bool(turn % 2)))
    world.later(10 * period, partial(_link, machine=machine, up=True))
    world.hits["N9 flapping link"] += 1


def _link(world: World, machine: Machine, *, up: bool) -> None:
    if machine.peering is None:
        return
    for bus in world.buses(machine):
        if up and bus not in world.network.down:
            machine.peering.link_up(bus, world.now)
        elif not up:
            machine.peering.link_down(bus)
    if not up:
        world.network.forget(machine.name)
    world.stir(machine)


def _bus_down(world: World, random: Random) -> None:
    """N11: a hub is killed; it forgets everything."""
    bus = random.choice(BUSES)
    world.network.down.add(bus)
    world.hits["N11 hub killed"] += 1
    world.tell("-", "bus-down", bus)
    for machine in list(world.machines.values()):
        if machine.peering is not None and bus in world.buses(machine):
            machine.peering.link_down(bus)


def _bus_up(world: World, _random: Random) -> None:
    for bus in sorted(world.network.down):
        world.network.down.discard(bus)
        world.hits["N11 hub restarted empty"] += 1
        for machine in list(world.machines.values()):
            if machine.peering is not None and bus in world.buses(machine):
                machine.peering.link_up(bus, world.now)
                world.stir(machine)


def _quality(world: World, random: Random) -> None:
    pick = random.choice
    world.network.quality = Quality(
        delay_ms=pick([1.0, 20.0, 300.0, 3_000.0]), jitter=pick([0.2, 1.0, 3.0]), drop=pick([0.0, 0.05, 0.3]),
        repeat=pick([0.0, 0.1, 0.5]), flip=pick([0.0, 0.0, 0.02, 0.2]), replay=pick([0.0, 0.0, 0.1]),
        swap=pick([0.0, 0.0, 0.05]),
    )  # fmt: skip
    world.tell("-", "quality", f"drop {world.network.quality.drop} repeat {world.network.quality.repeat}")


def _calm(world: World, _random: Random) -> None:
    world.network.quality = Quality(delay_ms=world.plan.delay_ms)
    world.tell("-", "calm", "good links")


def _thin(world: World, random: Random) -> None:
    """N8: a machine's line is slow from its next start on, and its process is restarted for it."""
    machine = _some(world, random)
    if machine is not None:
        world.network.thin[machine.name] = random.choice([9_600, 64_000])
        _restart(world, machine)
        world.tell(machine.name, "thin", str(world.network.thin[machine.name]))


# --- processes and disks -----------------------------------------------------------------------------------------------


def _restart(world: World, machine: Machine) -> None:
    world.remember(machine)
    machine.stop()
    world.network.forget(machine.name)
    world.start(machine)


def _kill(world: World, random: Random) -> None:
    """P1: kill -9 between two things; it comes back after a while."""
    machine = _some(world, random)
    if machine is None:
        return
    world.kill(machine)
    world.hits["P1 kill -9"] += 1
    world.tell(machine.name, "kill", "dead")
    _come_back(world, machine, random)


def _power_cut(world: World, random: Random) -> None:
    """D3: the power fails; what was not synced is lost, torn or rubbish."""
    machine = _some(world, random)
    if machine is None:
        return
    world.kill(machine, random)
    world.hits["D3 power cut"] += 1
    world.tell(machine.name, "power-cut", "dark")
    _come_back(world, machine, random)


def _come_back(world: World, machine: Machine, random: Random) -> None:
    def back(w: World) -> None:
        if w.machines.get(machine.name) is machine and not machine.up:
            w.start(machine)

    world.later(random.choice([1_000, 60_000, 3_600_000]), back)


def _kill_in_write(world: World, random: Random) -> None:
    """D1: killed at some SQL statement of an act; what the files are then is what is found."""
    machine = _some(world, random, role=random.choice([NodeRole.PHARMACY, NodeRole.PRESCRIBER]))
    if machine is None or machine.ledger is None:
        return
    left = random.randint(1, STATEMENTS_MAX)

    def die(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            # From here on nothing reaches the disk: the copy is taken at once.
            machine.freeze()

    connection = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
    connection.set_trace_callback(die)
    before = len(world.acknowledged)
    act(world, "prescribe" if machine.role is NodeRole.PRESCRIBER else "dispense", random)
    if machine.up:
        connection.set_trace_callback(None)
    if machine.frozen:
        # Nobody was told: the process died before it could say anything.
        del world.acknowledged[before:]
        world.commands = [c for c in world.commands if c[2] in world.acknowledged]
        world.hits["D1 killed in mid-write"] += 1
        world.tell(machine.name, "kill-in-write", "dead")
        cut = random.random() < 0.5
        world.hits["D2 torn write"] += cut
        machine.kill(random if cut else None)
        world.network.forget(machine.name)
        _come_back(world, machine, random)


def _kill_in_recovery(world: World, random: Random) -> None:
    machine = _some(world, random)
    if machine is None:
        return
    world.kill(machine)
    if world.start(machine):
        world.kill(machine)
        world.hits["P1 killed again right after recovery"] += 1
    _come_back(world, machine, random)


def _pause(world: World, random: Random) -> None:
    """P2: SIGSTOP; it goes on with stale timers."""
    machine = _some(world, random)
    if machine is not None:
        world.paused[machine.name] = world.now + random.randint(*PAUSE_MS)
        world.hits["P2 paused"] += 1
        world.tell(machine.name, "pause", "stands still")


def _backup(world: World, random: Random) -> None:
    machine = _some(world, random)
    if machine is not None:
        world.backups[machine.name] = machine.backup()
        world.tell(machine.name, "backup", "made")


def _restore(world: World, random: Random) -> None:
    """I1: a backup is put back as the manual says; the node goes on in its next incarnation."""
    names = sorted(n for n in world.backups if n in world.machines)
    if not names:
        return
    machine = world.machines[random.choice(names)]
    world.kill(machine)
    machine.rolled_back = True
    restore_store(
        world.backups[machine.name], machine.store_file(), aside=machine.directory / f"aside-{machine.lives}"
    )
    world.hits["I1 restored from backup"] += 1
    world.tell(machine.name, "restore", "put back")
    machine.broken = ""
    world.start(machine)


def _snapshot(world: World, random: Random) -> None:
    machine = _some(world, random)
    if machine is not None:
        world.images[machine.name] = machine.disk_image()
        world.tell(machine.name, "snapshot", "taken")


def _roll_back(world: World, random: Random) -> None:
    """I1: a machine's whole disk is set back, tokens and all, and nobody tells it."""
    names = sorted(n for n in world.images if n in world.machines)
    if not names:
        return
    machine = world.machines[random.choice(names)]
    world.kill(machine)
    machine.roll_back(world.images[machine.name])
    world.hits["I1 disk rolled back"] += 1
    world.tell(machine.name, "roll-back", "set back")
    machine.broken = ""
    world.start(machine)


def _twin(world: World, random: Random) -> None:
    """I2: two copies of one node run at once."""
    machine = _some(world, random, role=NodeRole.PHARMACY)
    if machine is None or machine.name.endswith("'") or f"{machine.name}'" in world.machines:
        return
    twin = machine.image(f"{machine.name}'", random.getrandbits(30))
    world.machines[twin.name] = twin
    world.start(twin)
    world.hits["I2 two copies at once"] += 1
    world.tell(twin.name, "twin", "runs too")


def _disk_full(world: World, random: Random) -> None:
    machine = _some(world, random)
    if machine is not None and machine.ledger is not None:
        database = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count=1")
        world.hits["D4 disk full"] += 1
        world.tell(machine.name, "disk-full", "no room")
        world.later(random.choice([60_000, 3_600_000]), partial(_room, machine=machine))


def _room(world: World, machine: Machine) -> None:
    if machine.ledger is not None:
        database = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count=1073741823")
        world.stir(machine)


def _disk_room(world: World, _random: Random) -> None:
    for machine in world.machines.values():
        _room(world, machine)


def _damage(world: World, random: Random, change: Callable[[bytearray, Random], None], what: str) -> None:
    """D6: while down, the file is changed; it must open to what was there, or say what is damaged."""
    machine = _some(world, random)
    if machine is None:
        return
    world.kill(machine)
    file = random.choice([p for p in sorted(machine.directory.iterdir()) if p.name.startswith("store.db")])
    data = bytearray(file.read_bytes())
    if data:
        change(data, random)
        file.write_bytes(bytes(data))
        machine.damaged = True
        world.hits[f"D6 {what}"] += 1
        world.tell(machine.name, what, file.name)
    _come_back(world, machine, random)


def _flip(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.choice([0, len(data) // 2, max(0, len(data) - 4096), len(data) - 1]) :]


# --- clocks ------------------------------------------------------------------------------------------------------------


def _clock(world: World, random: Random, change: Callable[[Machine], None], what: str, hit: str) -> None:
    machine = _some(world, random, up=None)
    if machine is not None:
        change(machine)
        world.hits[hit] += 1
        world.tell(machine.name, what, str(machine.clock.now_ms() - world.now))


def _clock_step(world: World, random: Random) -> None:
    far = random.choice([300_000, 86_400_000, 5 * YEAR_MS])
    _clock(world, random, lambda m: m.clock.step(far), "clock-step", "C1 clock ahead")


def _clock_back(world: World, random: Random) -> None:
    far = random.choice([1_000, 3_600_000, 86_400_000, EPOCH_MS])
    _clock(world, random, lambda m: m.clock.step(-far), "clock-back", "C2 clock stepped back")


def _clock_drift(world: World, random: Random) -> None:
    rate = random.choice([0.5, 0.99, 1.01, 2.0])
    _clock(world, random, lambda m: m.clock.drift(rate), "clock-drift", "C3 clock drifts")


def _clock_right(world: World, _random: Random) -> None:
    for machine in world.machines.values():
        machine.clock.right()


# --- hostile -----------------------------------------------------------------------------------------------------------


def _to(world: World, random: Random) -> Machine | None:
    machine = _some(world, random)
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
    machine, other = _to(world, random), _some(world, random, up=None)
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


def _heard(machine: Machine) -> dict[bytes, int | None]:
    """When each peer was last heard."""
    return {} if machine.peering is None else {peer.node: peer.heard_ms for peer in machine.peering.peers}


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
    machine, other = _to(world, random), _some(world, random)
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


# --- what the agency does ------------------------------------------------------------------------------------------------


def _agency(world: World) -> Machine | None:
    machine = world.machines.get("agency")
    return (
        machine if machine is not None and machine.up and world.paused.get("agency", 0) <= world.now else None
    )


def _revoke(world: World, random: Random) -> None:
    agency = _agency(world)
    victim = _some(world, random, up=None, role=NodeRole.PHARMACY)
    others = [
        m for m in world.machines.values() if m.role is NodeRole.PHARMACY and m.kind not in world.revoked
    ]
    if agency is None or victim is None or agency.ledger is None or len({m.kind for m in others}) < 3:
        return
    receipt = agency.ledger.stewardship.revoke(victim.node, person=agency.person, reason="stulen")
    world.revoked[victim.kind] = receipt.link
    world.hits["B7 revoked"] += 1
    world.tell("agency", "revoke", victim.name)
    world.stir(agency)


def _recover(world: World, random: Random) -> None:
    agency = _agency(world)
    if agency is None or agency.ledger is None or not world.documents:
        return
    document = random.choice(world.documents)
    receipt = agency.ledger.recover(document, [random.randint(1, 2)], person=agency.person, reason="brand")
    world.acknowledge(Acknowledged("agency", receipt.link, "recover", document))
    world.recovered = True
    world.tell("agency", "recover", "done")
    world.stir(agency)


def _declare(world: World, random: Random) -> None:
    agency = _agency(world)
    if agency is None or agency.ledger is None:
        return
    level = random.choice(list(Level))
    agency.ledger.stewardship.declare(level, person=agency.person)
    world.tell("agency", "declare", level.value)
    world.stir(agency)


def _epoch(world: World, random: Random) -> None:
    agency = _agency(world)
    if agency is None or agency.ledger is None:
        return
    agency.ledger.stewardship.start_epoch(random.choice(DISTRICTS), person=agency.person)
    world.tell("agency", "epoch", "begun")
    world.stir(agency)


_FAULTS: dict[str, Callable[[World, Random], None]] = {
    "cut": _cut, "one-way-cut": _one_way_cut, "isolate": _isolate, "swizzle": _swizzle, "heal": _heal, "flap": _flap,
    "bus-down": _bus_down, "bus-up": _bus_up, "quality": _quality, "calm": _calm, "thin": _thin, "kill": _kill,
    "power-cut": _power_cut,
    "kill-in-write": _kill_in_write, "kill-in-recovery": _kill_in_recovery, "pause": _pause, "backup": _backup,
    "restore": _restore, "snapshot": _snapshot, "roll-back": _roll_back, "twin": _twin, "clock-step": _clock_step,
    "clock-back": _clock_back, "clock-drift": _clock_drift, "clock-right": _clock_right, "disk-full": _disk_full,
    "disk-room": _disk_room, "flip-at-rest": lambda w, r: _damage(w, r, _flip, "flip-at-rest"),
    "truncate": lambda w, r: _damage(w, r, _truncate, "truncate"), "garbage": _garbage, "forged-letter": _forged_letter,
    "forged-live": _forged_live, "forged-here": _forged_here, "stranger": _stranger, "newer-version": _newer_version,
    "revoke": _revoke, "recover": _recover, "declare": _declare, "epoch": _epoch,
}  # fmt: skip
