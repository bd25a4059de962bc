"""Makes a failing plan short: the fewest steps that still end in the same kind of finding (delta debugging, `ddmin`).

Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002. Every step has a seed of its own, so one
that is taken out leaves the others as they were. The finding must stay of its kind (what stands before the colon), else a
search for one fault ends at another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from simulations.plan import Plan, Step
from simulations.run import run_plan

__all__ = ["kind_of", "shrink_plan"]

RUNS_MAX = 600
"""Of one search: some ten minutes."""


def kind_of(finding: str) -> str:
    """What a finding is of: its invariant."""
    return finding.split(":", 1)[0]


def shrink_plan(plan: Plan, told: Callable[[str], None] = lambda _: None) -> Plan | None:
    """The plan with as few steps as still fail in the same way, and no more machines than these need; None: it does not fail.

    Args:
        plan: a failing one.
        told: is given a line now and then.
    """
    wanted = run_plan(plan).finding
    if not wanted:
        return None
    runs = 0

    def fails(candidate: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs <= RUNS_MAX and kind_of(run_plan(candidate).finding) == kind_of(wanted)

    def with_steps(steps: Sequence[Step]) -> Plan:
        return msgspec.structs.replace(plan, steps=tuple(steps))

    steps = _fewest(plan.steps, lambda some: fails(with_steps(some)), told)
    plan = with_steps(steps)
    for machine in plan.machines:
        fewer = msgspec.structs.replace(plan, machines=tuple(m for m in plan.machines if m != machine))
        if len(fewer.machines) > 1 and fails(fewer):
            plan = fewer
    last = max((step.at_ms for step in plan.steps), default=0) + 1
    shorter = msgspec.structs.replace(plan, length_ms=last)
    if last < plan.length_ms and fails(shorter):
        plan = shorter
    told(f"{len(plan.steps)} steps, {len(plan.machines)} machines after {runs} runs")
    return msgspec.structs.replace(plan, note=plan.note or wanted)


def _fewest(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], told: Callable[[str], None]
) -> Sequence[Step]:
    parts = 2
    while len(steps) >= 2:
        size = max(1, len(steps) // parts)
        for begin in range(0, len(steps), size):
            rest = [*steps[:begin], *steps[begin + size :]]
            if fails(rest):
                steps, parts = rest, max(2, parts - 1)
                told(f"{len(steps)} steps")
                break
        else:
            if size == 1:
                break
            parts = min(len(steps), parts * 2)
    return steps if steps and not fails([]) else []
