"""One run: a safety phase in which anything goes wrong, then a liveness phase in which a core is healed for good.

The verdict is *valid*, *invalid*, or *unknown* when something that was planned was never exercised (Jepsen's Maelstrom).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import structlog
from msgspec import Struct

from ledger.errors import RxLedgerError
from simulations.acts import act
from simulations.faults import fault
from simulations.invariants import check_core, in_step
from simulations.machines import EPOCH_MS, Machine, scratch
from simulations.network import Quality
from simulations.plan import ACTS, Plan
from simulations.signatures import remembered_signatures
from simulations.world import Finding, World

__all__ = ["Result", "run_plan"]

CONVERGE_SIGNS = 12
"""Budget of the liveness phase (E1), in intervals between signs of life: a few of them, a round each way, and back-off."""
LOOK_MS = 30_000


class Result(Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    verdict: str
    finding: str = ""
    trace: str
    hits: dict[str, int]
    outcomes: dict[str, int]
    simulated_ms: int
    seconds: float
    messages: int
    busiest: int = 0
    """Messages of the busiest minute."""
    lines: tuple[tuple[int, str, str, str], ...] = ()


def run_plan(plan: Plan, *, keep_lines: bool = False) -> Result:
    """Run one plan in a directory of its own, which is removed."""
    started = time.perf_counter()
    directory = Path(tempfile.mkdtemp(prefix="rxledger-run-", dir=scratch()))
    finding = ""
    world: World | None = None
    try:
        with remembered_signatures():
            world = World(plan, directory)
            _safety(world, plan)
            _liveness(world, plan)
    except Finding as error:
        finding = str(error)
    except RxLedgerError as error:
        finding = f"A16: {error.code} reached nobody who would have handled it: {error.message}"
    except Exception as error:
        finding = f"A16: {type(error).__name__}: {error}"
        structlog.get_logger("rxledger").exception("simulation.fault")
    finally:
        if world is not None:
            for machine in world.machines.values():
                machine.stop()
        shutil.rmtree(directory, ignore_errors=True)
    hits, outcomes = (world.hits, world.outcomes) if world is not None else (Counter(), Counter())
    acted = world is not None and world.acknowledged and outcomes["prescribe: done"]
    verdict = "invalid" if finding else "valid" if acted else "unknown"
    return Result(
        seed=plan.seed, verdict=verdict, finding=finding, trace=world.trace if world is not None else "",
        hits=dict(sorted(hits.items())), outcomes=dict(sorted(outcomes.items())),
        simulated_ms=0 if world is None else world.now - EPOCH_MS, seconds=time.perf_counter() - started,
        messages=0 if world is None else world.network.carried, busiest=0 if world is None else world.busiest,
        lines=tuple(world.lines) if keep_lines and world is not None else (),
    )  # fmt: skip


def _safety(world: World, plan: Plan) -> None:
    for step in plan.steps:
        world.run_until(EPOCH_MS + step.at_ms)
        random = Random(step.seed)
        if step.kind in ACTS:
            act(world, step.kind, random)
        else:
            fault(world, step.kind, random)
    world.run_until(EPOCH_MS + plan.length_ms)


def _liveness(world: World, plan: Plan) -> None:
    """Heal a core for good, leave the rest as it is, and see the core agree."""
    random = Random(f"core {plan.seed}")
    able = [
        m for n, m in sorted(world.machines.items()) if not n.endswith("'") and m.kind not in world.revoked
    ]
    random.shuffle(able)
    core = able[: max(2, random.randint(len(able) // 2, len(able)))]
    _heal(world, core)
    core = [machine for machine in core if machine.up]
    if len(core) < 2:
        world.hits["the core was too small"] += 1
        return
    budget_ms = CONVERGE_SIGNS * world.settings.sign_ms
    deadline = world.now + budget_ms
    for settled in range(2):
        while not in_step(core):
            if world.now > deadline:
                raise Finding(
                    f"E1: {', '.join(m.name for m in core)} did not agree within {budget_ms // 60_000} minutes"
                )
            world.run_until(world.now + max(LOOK_MS, world.settings.sign_ms // 20))
            core = [machine for machine in core if machine.up]
        if not settled:
            for machine in core:
                if machine.ledger is not None:
                    machine.ledger.stewardship.take_epochs()
    world.tell("-", "converge", f"{len(core)} machines")
    check_core(world, core)


def _heal(world: World, core: list[Machine]) -> None:
    names = {machine.name for machine in core}
    world.network.cut = {(a, b) for a, b in world.network.cut if not (a in names and b in names)}
    world.network.quality = Quality(delay_ms=world.plan.delay_ms)
    world.paused = {name: until for name, until in world.paused.items() if name not in names}
    world.forget_later()
    for name, machine in list(world.machines.items()):
        if name.endswith("'"):  # Somebody found the second copy and put it out.
            world.kill(machine)
            del world.machines[name]
    for bus in sorted(world.network.down):
        world.network.down.discard(bus)
        for machine in world.machines.values():
            if machine.peering is not None and bus in world.buses(machine):
                machine.peering.link_up(bus, machine.monotonic())
    for machine in core:
        machine.clock.right()
        world.network.thin.pop(machine.name, None)
        if machine.up:
            world.remember(machine)
            machine.stop()
        if not machine.broken:
            world.start(machine)
