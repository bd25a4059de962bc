"""Schedules from a seed: long, dense runs of the same acts that the state machines try (R4).

Run as a program, it plays one schedule to its end and prints a digest of all that every node says: to be compared
between hash seeds.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ledger import Basis
from tests.machine_acts_for_tests import World
from tests.machine_for_tests import AGENCY, NAMES, PHARMACIES, PRESCRIBER, WRITERS, Template

Act = Callable[[World, random.Random], object]


def _number(rng: random.Random) -> int:
    return rng.randrange(64)


def _quantity(rng: random.Random) -> int:
    return rng.choice((10, 3, 7))


def _pharmacy(world: World, rng: random.Random) -> str:
    return rng.choice([name for name in world.sites if name.removeprefix("old ") in PHARMACIES])


def _site(world: World, rng: random.Random) -> str:
    return rng.choice(list(world.sites))


def _delegate(world: World, rng: random.Random) -> None:
    one, other = rng.sample(PHARMACIES, 2)
    world.delegate(one, other)


def _carry(world: World, rng: random.Random) -> None:
    world.export(_site(world, rng), _site(world, rng), _number(rng))
    world.take_bundle(_site(world, rng), _number(rng))


def _care(world: World, rng: random.Random) -> None:
    rng.choice(
        (
            lambda: world.amend(_number(rng), rng.randrange(4)),
            lambda: world.hold(rng.choice(WRITERS), _number(rng)),
            lambda: world.resume(PRESCRIBER, _number(rng)),
            lambda: world.resume(AGENCY, _number(rng)),
        )
    )()


HONEST: dict[str, tuple[int, Act]] = {
    "prescribe": (3, lambda w, r: w.prescribe(_number(r), _number(r), _number(r))),
    "dispense": (
        8,
        lambda w, r: w.supply(_pharmacy(w, r), _number(r), _number(r), _quantity(r), Basis.CUSTODY),
    ),
    "claim": (
        5,
        lambda w, r: w.claim(
            r.choice(PHARMACIES), r.choice(WRITERS), _number(r), _number(r), answered=r.random() < 0.7
        ),
    ),
    "transfer": (5, lambda w, r: w.transfer(r.choice(WRITERS), _number(r), _number(r), r.choice(PHARMACIES))),
    "plan": (1, lambda w, r: w.plan(r.choice(WRITERS))),
    "reverse": (2, lambda w, r: w.reverse(_pharmacy(w, r), _number(r))),
    "correct downwards": (1, lambda w, r: w.correct(_pharmacy(w, r), _number(r), r.choice((1, 3)))),
    "delegate": (1, _delegate),
    "end delegation": (1, lambda w, r: w.end_delegation(_number(r))),
    "care": (3, _care),
    "mark": (2, lambda w, r: w.mark(r.choice(PHARMACIES), _number(r), _number(r))),
    "settle": (1, lambda w, r: w.settle(_site(w, r))),
    "partition": (1, lambda w, r: w.partition(r.randrange(64))),
    "heal": (1, lambda w, r: w.heal()),
    "synchronise": (8, lambda w, r: w.synchronise(_site(w, r), _site(w, r))),
    "bad link": (2, lambda w, r: w.synchronise(_site(w, r), _site(w, r), bad=_number(r))),
    "urgent": (2, lambda w, r: w.urgent(_site(w, r), _site(w, r), _number(r))),
    "some runs": (2, lambda w, r: w.some_runs(_site(w, r), _site(w, r), r.randrange(65536), _number(r))),
    "carry": (2, _carry),
    "reopen": (1, lambda w, r: w.reopen(_site(w, r))),
    "jump": (1, lambda w, r: w.jump(_site(w, r), _number(r))),
    "repeat": (2, lambda w, r: w.repeat(r.randrange(1024))),
    "take epochs": (2, lambda w, r: w.take_epochs(_site(w, r))),
    "start epoch": (1, lambda w, r: w.start_epoch(_number(r))),
}
"""Each with its weight."""

BEYOND: dict[str, tuple[int, Act]] = {
    "cancel": (1, lambda w, r: w.cancel(r.choice((AGENCY, PRESCRIBER)), _number(r))),
    "prescribe on paper": (2, lambda w, r: w.prescribe(_number(r), 0, _number(r), bearer=True)),
    "spend paper": (5, lambda w, r: w.spend_paper(_pharmacy(w, r), _number(r), _number(r), _quantity(r))),
    "to bearer": (1, lambda w, r: w.transfer(r.choice(WRITERS), _number(r), _number(r), "", bearer=True)),
    "register": (1, lambda w, r: w.register_paper(_number(r), _number(r))),
    "emergency": (
        4,
        lambda w, r: w.supply(_pharmacy(w, r), _number(r), _number(r), _quantity(r), Basis.EMERGENCY),
    ),
    "correct": (1, lambda w, r: w.correct(_pharmacy(w, r), _number(r), r.choice((5, 14)))),
    "recover": (1, lambda w, r: w.recover(_number(r), _number(r))),
    "declare": (1, lambda w, r: w.declare(_number(r))),
    "back up": (2, lambda w, r: w.back_up(r.choice((*PHARMACIES, PRESCRIBER)))),
    "restore": (1, lambda w, r: w.restore(r.choice((*PHARMACIES, PRESCRIBER)))),
}
DISASTER: dict[str, tuple[int, Act]] = {
    "close feed": (1, lambda w, r: w.close_feed(r.choice(PHARMACIES), r.choice(PHARMACIES))),
    "revoke": (1, lambda w, r: w.revoke(r.choice(PHARMACIES))),
    "take image": (1, lambda w, r: w.take_image(r.choice((*PHARMACIES, PRESCRIBER)))),
    "run image": (2, lambda w, r: w.run_image(r.choice((*PHARMACIES, PRESCRIBER)))),
}
KINDS = {"honest": HONEST, "beyond": {**HONEST, **BEYOND}, "disaster": {**HONEST, **BEYOND, **DISASTER}}


def play(world: World, kind: str, seed: int, steps: int, after: Callable[[str], None]) -> None:
    """Act `steps` times as the seed says; `after` is called after each, with its name."""
    rng = random.Random(f"{kind} {seed}")
    acts = KINDS[kind]
    for number in range(3):
        world.prescribe(number, number, number)
    for name in NAMES:
        world.synchronise(PRESCRIBER, name)
    weights = [weight for weight, _ in acts.values()]
    for name in rng.choices(list(acts), weights, k=steps):
        acts[name][1](world, rng)
        after(name)
        world.touched = None


def everything_said(world: World) -> str:
    """A digest of entry sets, states, anomalies, balances and exports of every site."""
    parts = []
    for name, site in sorted(world.sites.items()):
        inquiry = site.ledger.inquiry
        parts += [name, inquiry.frontier_digest().hex(), inquiry.state_digest().hex()]
        for document, state in inquiry.states():
            parts += [repr(state.prescription.anomalies), repr(state.prescription.balance)]
            if state.prescription.issued is not None:
                parts.append(hashlib.sha256(site.ledger.automerge(document)).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    kind, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        world = World(Template(Path(directory) / "template"), Path(directory) / "world")
        try:
            play(world, kind, seed, steps, lambda _: None)
            print(everything_said(world))
        finally:
            world.close()


if __name__ == "__main__":
    main()
