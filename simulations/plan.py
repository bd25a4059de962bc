"""What is to happen in a run, drawn from a seed before it begins: acts and faults at times, each with a seed of its own.

Drawn beforehand, so that a step can be taken out (`simulations.shrink`) without changing what the others do. In each run
every kind of fault is on or off by chance (swarm testing: Groce et al., ISSTA 2012), and the realm has another size.
"""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.errors import InvalidInput

__all__ = ["ACTS", "FAULTS", "Plan", "Step", "decode_plan", "draw_plan", "encode_plan"]

ACTS = (
    "prescribe", "prescribe", "prescribe", "dispense", "dispense", "dispense", "dispense", "part", "emergency", "bearer",
    "cancel", "amend", "hold", "resume", "transfer", "claim", "claim", "reverse", "correct", "repeat", "delegate", "fetch",
    "close-feed", "resolve",
)  # fmt: skip
"""What people do, as often as it stands here."""
FAULTS = (
    "cut", "one-way-cut", "isolate", "swizzle", "heal", "heal", "flap", "bus-down", "bus-up", "quality", "calm", "thin",
    "kill", "power-cut", "kill-in-write", "kill-in-write", "kill-in-recovery", "pause", "backup", "restore", "snapshot", "roll-back", "twin",
    "clock-step", "clock-back", "clock-drift", "clock-right", "disk-full", "disk-room", "flip-at-rest", "truncate",
    "garbage", "garbage", "forged-letter", "forged-live", "forged-here", "stranger", "newer-version",
    "double", "double", "cancelled", "superseded", "edge", "courier", "courier", "reset", "suspend", "slow-disk", "io-error", "io-error", "other-key", "wrong-role", "withheld", "withheld", "misplaced", "flood", "lies", "revoke", "recover",
    "declare", "epoch",
)  # fmt: skip
"""What goes wrong, and what the agency does about it."""
MACHINES_MAX = 9
STEPS_MAX = 5000

Millis = Annotated[int, Meta(ge=0, le=10 * 365 * 86_400_000)]


class Step(Struct, frozen=True, array_like=True):
    """One thing that happens."""

    at_ms: Millis
    kind: Annotated[str, Meta(max_length=32)]
    seed: int
    """Of its own choices: who, which prescription, how much."""


class Plan(Struct, frozen=True, kw_only=True):
    """A whole run, before its healing."""

    seed: int
    machines: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MACHINES_MAX)]
    """Nodes of the roster that take part."""
    length_ms: Millis
    delay_ms: float
    steps: Annotated[tuple[Step, ...], Meta(max_length=STEPS_MAX)]
    note: str = ""
    """Why this one was kept."""


def draw_plan(seed: int, *, acts: int = 60, days: float | None = None) -> Plan:
    """The plan of a seed."""
    random = Random(f"plan {seed}")
    pharmacies = ["ap-1", "ap-2", "ap-3"][: random.randint(2, 3)]
    machines = ["agency", "vc-a", *pharmacies]
    if random.random() < 0.4:
        machines += ["vc-b", "ap-4", "ap-5"][: random.randint(2, 3)]
    if random.random() < 0.4:
        machines.append("relay")
    length = int((days or random.choice([0.02, 0.05, 0.05, 0.2, 0.2, 1, 7])) * 86_400_000)
    # Nothing goes wrong in one run of ten: what fails there fails without help.
    enabled = [] if random.random() < 0.1 else [k for k in dict.fromkeys(FAULTS) if random.random() < 0.4]
    steps = [Step(random.randrange(length), random.choice(ACTS), random.getrandbits(48)) for _ in range(acts)]
    weighted = [kind for kind in FAULTS if kind in enabled]
    steps += [
        Step(random.randrange(length), random.choice(weighted), random.getrandbits(48))
        for _ in range(random.randint(5, 40) if weighted else 0)
    ]
    # Somebody has something to dispense from the beginning.
    steps += [Step(n, "prescribe", random.getrandbits(48)) for n in range(5)]
    return Plan(
        seed=seed,
        machines=tuple(machines),
        length_ms=length,
        delay_ms=random.choice([1.0, 20.0, 300.0]),
        steps=tuple(sorted(steps, key=lambda step: (step.at_ms, step.kind, step.seed))),
    )


def encode_plan(plan: Plan) -> bytes:
    """As a file that people can read."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def decode_plan(data: bytes) -> Plan:
    """From `encode_plan`.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Plan)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"that is no plan of a simulation: {error}") from error
