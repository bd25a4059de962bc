"""A small seeded simulation: real ledgers in one process, random islands, random care, then healing.

It runs the real code of `ledger` and `nodes` with injected clock and entropy and checks at the end that all nodes of
the district agree (R4), that every prescription balances (R10), and that over-supply and its anomaly come together
(R9). It does not yet simulate disk faults, message faults or process death; the full simulator is to come.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sys
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import structlog

from ledger import Basis, CommandRefused, Ledger, SeededEntropy, Supply
from ledger.ids import GOVERNANCE, DocumentId
from nodes.content import prescriptions
from nodes.demo_world import STOCKHOLM, World
from nodes.inprocess import synchronise
from nodes.prescribing import order_of

__all__ = ["Outcome", "main", "simulate"]

STEPS = 120


class Outcome:
    """What a run came to: the trace's hash, what was found, what does not hold."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._trace = hashlib.sha256()
        self.acts: dict[str, int] = {}
        self.problems: list[str] = []
        self.anomalies: dict[str, int] = {}

    def note(self, act: str, result: str) -> None:
        """One line of the trace."""
        self.acts[f"{act}: {result}"] = self.acts.get(f"{act}: {result}", 0) + 1
        self._trace.update(f"{act} {result}\n".encode())

    def add(self, digest: bytes) -> None:
        """A digest that the same seed must give again."""
        self._trace.update(digest)

    @property
    def trace(self) -> str:
        """Equal for equal seeds."""
        return self._trace.hexdigest()


def simulate(seed: int, steps: int, directory: Path) -> Outcome:
    """Run one seed."""
    rng, outcome = random.Random(seed), Outcome(seed)  # noqa: S311  a schedule, not a secret
    world = World(directory, seed)
    try:
        world.replicate()
        sites = [s for s in world.sites.values() if s.district == STOCKHOLM]
        prescriber = sites[0]
        pharmacies = sites[1:]
        documents: list[DocumentId] = []
        orders = prescriptions(SeededEntropy(seed), prescriber.ledger.today())
        for _ in range(steps):
            world.clock.advance(minutes=rng.randrange(1, 240))
            site = rng.choice(pharmacies)
            act = rng.choice(
                ("prescribe", "dispense", "dispense", "emergency", "talk", "talk", "cancel", "transfer")
            )
            try:
                if act == "prescribe" or not documents:
                    order = order_of(next(orders), chosen_pharmacy=site.node)
                    documents.append(prescriber.ledger.prescribe(order, person=prescriber.person).document)
                elif act == "dispense":
                    supply = Supply(fill=rng.randrange(1, 4))
                    site.ledger.dispense(rng.choice(documents), supply, person=site.person)
                elif act == "emergency":
                    supply = Supply(fill=1, basis=Basis.EMERGENCY, reason="simulated")
                    site.ledger.dispense(rng.choice(documents), supply, person=site.person)
                elif act == "cancel":
                    prescriber.ledger.cancel(rng.choice(documents), person=prescriber.person)
                elif act == "transfer":
                    other = rng.choice(pharmacies)
                    site.ledger.transfer(
                        rng.choice(documents), [rng.randrange(1, 4)], other.node, person=site.person
                    )
                else:
                    one, two = rng.sample(sites, 2)
                    synchronise(one.ledger.exchange, two.ledger.exchange)
                outcome.note(act, "done")
            except CommandRefused as error:
                outcome.note(act, error.code)
        world.replicate(rounds=6)
        _check(outcome, [s.ledger for s in sites])
        for one, two in combinations(sites, 2):
            outcome.add(one.ledger.inquiry.frontier_digest([GOVERNANCE, STOCKHOLM]))
            outcome.add(two.ledger.inquiry.state_digest([GOVERNANCE, STOCKHOLM]))
    finally:
        world.close()
    return outcome


def _check(outcome: Outcome, ledgers: list[Ledger]) -> None:
    states = {ledger.inquiry.state_digest([GOVERNANCE, STOCKHOLM]) for ledger in ledgers}
    entries = {ledger.inquiry.frontier_digest([GOVERNANCE, STOCKHOLM]) for ledger in ledgers}
    if len(states) != 1 or len(entries) != 1:
        outcome.problems.append("R4: nodes that talked do not agree")
    for document, state in ledgers[0].inquiry.states(STOCKHOLM):
        b = state.prescription.balance
        kinds = [a.kind for a in state.prescription.anomalies]
        for kind in kinds:
            outcome.anomalies[kind] = outcome.anomalies.get(kind, 0) + 1
        if b.authorised != b.dispensed + b.remaining + b.forfeited:
            outcome.problems.append(f"R10: {document.hex()} does not balance")
        if bool(b.over_supply) != bool({"double_dispensing", "over_quantity"} & set(kinds)):
            outcome.problems.append(
                f"R9: {document.hex()} is over-supplied and not named, or named and not over-supplied"
            )
        if "custody_breach" in kinds:
            outcome.problems.append(f"R7: {document.hex()} names a breach, and all nodes are honest")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed and say what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="rxledger-sim-") as directory:
        outcome = simulate(options.seed, options.steps, Path(directory))
    verdict = "invalid" if outcome.problems else "valid"
    result = {
        "seed": outcome.seed, "steps": options.steps, "trace": outcome.trace, "acts": outcome.acts,
        "anomalies": outcome.anomalies, "problems": outcome.problems, "verdict": verdict,
    }  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
    else:
        for name, value in result.items():
            sys.stdout.write(f"{name}: {value}\n")
    return 1 if outcome.problems else 0
