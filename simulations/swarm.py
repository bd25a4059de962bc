"""Many runs, in as many processes as there are cores; what they hit, what they found, whether they can be repeated."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import structlog

from simulations.coverage import SWARM_MIN, never_hit
from simulations.plan import decode_plan, draw_plan, encode_plan
from simulations.run import Result, run_plan
from simulations.shrink import shrink_plan

__all__ = ["main"]

PLANS = Path(__file__).resolve().parent / "plans"
"""What was found once: tried again in every test run."""
REPEATED = 20
"""One run of so many is made twice and compared."""
EXIT = {"valid": 0, "invalid": 1, "unknown": 2}


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _one(seed: int) -> Result:
    _quiet()
    result = run_plan(draw_plan(seed))
    if seed % REPEATED == 0:
        again = run_plan(draw_plan(seed))
        if again.trace != result.trace:
            return Result(
                seed=seed, verdict="invalid", finding="the same plan told another story", trace=result.trace,
                hits=result.hits, outcomes=result.outcomes, simulated_ms=result.simulated_ms,
                seconds=result.seconds, messages=result.messages,
            )  # fmt: skip
    return result


def swarm(first: int, count: int, jobs: int) -> Iterator[Result]:
    """Results of seeds, as they come."""
    seeds = range(first, first + count)
    if jobs == 1:
        yield from map(_one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_one, seeds, chunksize=max(1, count // (jobs * 16)))


def _table(result: Result) -> Iterator[str]:
    """One line an event, one column a machine."""
    names = sorted({machine for _, machine, _, _ in result.lines} - {"-"})
    width = 16
    yield " " * 14 + "".join(name.ljust(width) for name in names)
    for at, machine, what, outcome in result.lines:
        text = f"{what}: {outcome}"
        left = f"{at / 1000:>12.1f}  "
        if machine == "-":
            yield f"{left}--- {text}"
        else:
            yield left + " " * width * names.index(machine) + text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed, a saved plan, or many seeds; 0 valid, 1 invalid, 2 unknown."""
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="a saved plan")
    parser.add_argument(
        "--shrink", type=int, metavar="SEED", help="make a failing seed short, and keep it as a plan"
    )
    parser.add_argument("--name", default="", help="of the file that --shrink writes in simulations/plans")
    parser.add_argument("--swarm", type=int, metavar="N", help="N runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed of a swarm")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until-found", action="store_true", help="end a swarm with its first finding")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "canaries", nargs="*", metavar="canaries [WORD ...]", help="try deliberate faults, or those so named"
    )
    options = parser.parse_args(arguments)
    if options.canaries:
        from simulations import canaries  # Not what a run needs.

        return canaries.main(options.canaries[1:], options.jobs)
    _quiet()
    if options.swarm:
        return _many(options)
    if options.shrink is not None:
        return _shrink(options.shrink, options.name)
    plan = decode_plan(options.plan.read_bytes()) if options.plan else draw_plan(options.seed or 1)
    result = run_plan(plan, keep_lines=True)
    if options.json:
        shown = {
            name: getattr(result, name)
            for name in result.__struct_fields__
            if name not in ("lines", "seconds")
        }
        sys.stdout.write(json.dumps(shown, sort_keys=True) + "\n")
    else:
        for line in _table(result):
            sys.stdout.write(line + "\n")
        days = result.simulated_ms / 86_400_000
        sys.stdout.write(
            f"{result.verdict}{': ' + result.finding if result.finding else ''}; {days:.2f} days in {result.seconds:.2f} s, "
            f"{result.messages} messages, trace {result.trace[:16]}\n"
        )
    return EXIT[result.verdict]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _shrink(seed: int, name: str) -> int:
    plan = shrink_plan(draw_plan(seed), _tell)
    if plan is None:
        sys.stdout.write(f"seed {seed} finds nothing\n")
        return EXIT["valid"]
    path = PLANS / f"{name or f'seed-{seed}'}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_plan(plan))
    sys.stdout.write(f"{path}: {plan.note}\n")
    return EXIT["invalid"]


def _many(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    hits: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    outcomes: Counter[str] = Counter()
    simulated = busiest = 0
    ran = 0
    for result in swarm(options.first, options.swarm, options.jobs):
        ran += 1
        hits.update(result.hits)
        outcomes.update(result.outcomes)
        busiest = max(busiest, result.busiest)
        verdicts[result.verdict] += 1
        simulated += result.simulated_ms
        if result.finding:
            findings.append((result.seed, result.finding))
            sys.stderr.write(f"seed {result.seed}: {result.finding}\n")
            if options.until_found:
                break
    seconds = time.perf_counter() - started
    value = {
        "seeds": ran, "first": options.first, "verdicts": dict(verdicts), "findings": findings,
        "hits": dict(sorted(hits.items())), "outcomes": dict(sorted(outcomes.items())), "busiest_minute": busiest, "seconds": round(seconds, 1),
        "times_real_time": round(simulated / 1000 / seconds),
    }  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")
    else:
        for name, count in sorted(hits.items()):
            sys.stdout.write(f"{count:>9}  {name}\n")
        sys.stdout.write(
            f"{ran} runs in {seconds:.1f} s ({value['times_real_time']} times real time): "
            + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
            + "\n"
        )
    missing = never_hit(hits, outcomes) if ran >= SWARM_MIN else []
    if missing:
        sys.stderr.write("never exercised: " + ", ".join(missing) + "\n")
    return EXIT["invalid" if findings else "unknown" if missing or verdicts["unknown"] else "valid"]
