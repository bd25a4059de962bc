"""What goes wrong, and what the agency does about it: each fault takes its choices from its own seed and counts its hits.

A hit is counted where the fault has had its effect (a message dropped, a process killed in mid-transaction), not where it
was planned: a run that never exercised what it checks proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from ledger import Level, NodeRole
from ledger.errors import RxLedgerError
from simulations.failures import FAILURES, restart, some_machine
from simulations.hostile import HOSTILE
from simulations.machines import DISTRICTS, Machine
from simulations.network import Quality
from simulations.races import RACES
from simulations.world import BUSES, Acknowledged, World

__all__ = ["fault"]


def fault(world: World, kind: str, random: Random) -> None:
    """Let something go wrong; what has nothing to befall is passed over."""
    try:
        _FAULTS[kind](world, random)
    except RxLedgerError as error:
        world.tell("-", kind, error.code)


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
    machine = some_machine(world, random)
    if machine is None:
        return
    period = random.choice([100, 1_000, 30_000])
    for turn in range(10):
        world.later(turn * period, partial(_link, machine=machine, up=bool(turn % 2)))
    world.later(10 * period, partial(_link, machine=machine, up=True))
    world.hits["N9 flapping link"] += 1


def _reset(world: World, random: Random) -> None:
    """N9: connections are reset while messages are under way: these are gone, and the link is there again at once."""
    waiting = [m for _, m in sorted(world.machines.items()) if m.up and world.network.waits_for(m.name)]
    if waiting:
        machine = random.choice(waiting)
        _link(world, machine, up=False)
        _link(world, machine, up=True)
        world.hits["N9 connection reset in mid-message"] += 1
        world.tell(machine.name, "reset", "messages lost")


def _link(world: World, machine: Machine, *, up: bool) -> None:
    if machine.peering is None:
        return
    for bus in world.buses(machine):
        if up and bus not in world.network.down:
            machine.peering.link_up(bus, machine.monotonic())
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
                machine.peering.link_up(bus, machine.monotonic())
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
    machine = some_machine(world, random)
    if machine is not None:
        world.network.thin[machine.name] = random.choice([9_600, 64_000])
        restart(world, machine)
        world.tell(machine.name, "thin", str(world.network.thin[machine.name]))


# --- what the agency does ------------------------------------------------------------------------------------------------


def _agency(world: World) -> Machine | None:
    machine = world.machines.get("agency")
    return (
        machine if machine is not None and machine.up and world.paused.get("agency", 0) <= world.now else None
    )


def _revoke(world: World, random: Random) -> None:
    agency = _agency(world)
    victim = some_machine(world, random, up=None, role=NodeRole.PHARMACY)
    others = [
        m for m in world.machines.values() if m.role is NodeRole.PHARMACY and m.kind not in world.revoked
    ]
    if agency is None or victim is None or agency.ledger is None or len({m.kind for m in others}) < 3:
        return
    receipt = agency.ledger.stewardship.revoke(victim.node, person=agency.person, reason="stulen")
    world.revoked[victim.kind] = receipt.link
    world.hits["B7 revoked"] += 1
    world.hits["a revocation under a partition"] += bool(world.network.cut)
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
    **FAILURES,
    **HOSTILE,
    **RACES,
    "cut": _cut,
    "one-way-cut": _one_way_cut,
    "isolate": _isolate,
    "swizzle": _swizzle,
    "heal": _heal,
    "flap": _flap,
    "reset": _reset,
    "bus-down": _bus_down,
    "bus-up": _bus_up,
    "quality": _quality,
    "calm": _calm,
    "thin": _thin,
    "revoke": _revoke,
    "recover": _recover,
    "declare": _declare,
    "epoch": _epoch,
}
