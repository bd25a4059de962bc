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

from simulations.plan import decode_plan, draw_plan
from simulations.run import Result, run_plan

__all__ = ["main"]

REPEATED = 20
"""One run of so many is made twice and compared."""
EXPECTED_HITS = 30
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
    parser.add_argument("--swarm", type=int, metavar="N", help="N runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed of a swarm")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    _quiet()
    if options.swarm:
        return _many(options)
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


def _many(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    hits: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    simulated = 0
    for result in swarm(options.first, options.swarm, options.jobs):
        hits.update(result.hits)
        verdicts[result.verdict] += 1
        simulated += result.simulated_ms
        if result.finding:
            findings.append((result.seed, result.finding))
            sys.stderr.write(f"seed {result.seed}: {result.finding}\n")
    seconds = time.perf_counter() - started
    value = {
        "seeds": options.swarm, "first": options.first, "verdicts": dict(verdicts), "findings": findings,
        "hits": dict(sorted(hits.items())), "seconds": round(seconds, 1),
        "times_real_time": round(simulated / 1000 / seconds),
    }  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")
    else:
        for name, count in sorted(hits.items()):
            sys.stdout.write(f"{count:>9}  {name}\n")
        sys.stdout.write(
            f"{options.swarm} runs in {seconds:.1f} s ({value['times_real_time']} times real time): "
            + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
            + "\n"
        )
    return EXIT["invalid" if findings else "valid"]
