"""`rxledger simulate` and `rxledger report`: the national model. `nodes.cli` finds these commands by this module's name."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ledger.errors import InvalidInput, NotFound
from nodes.cli.common import add_command
from nodes.cli.output import Output
from simulations.scenario import Scenario, library, load_scenario

if TYPE_CHECKING:
    from simulations.national.comparison import Comparison
    from simulations.national.measures import Counts

__all__ = ["add_commands"]

EXIT_UNMET = 1
SCALE_MIN = 0.05
"""Less leaves a region with one pharmacy only."""
COLUMNS = {
    "had": "supplied before the outage was over, of rows whose prescription existed before it",
    "all": "the same, of all rows",
    "day": "served on the day, of all rows",
    "late": "served on another day",
    "not": "refused: gave up, or still waiting",
    "life": "most patients at once without life-sustaining medicine",
    "2×": "double dispensings",
    "found": "median hours until found",
    "staff": "extra staff hours",
    "reg.": "days of late registration",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add simulate and report."""
    c = add_command(
        commands, "simulate", _simulate,
        "What an outage costs at the country's size, under each arrangement.", node=False,
    )  # fmt: skip
    _common(c)
    c = add_command(
        commands, "report", _report, "The consequence report of a scenario, as one HTML page or as text.", node=False
    )  # fmt: skip
    _common(c)
    c.add_argument(
        "--output", type=Path, required=True, action="append",
        help="the file to write: .html for the page, .md for a document; may be repeated",
    )  # fmt: skip


def _common(c: argparse.ArgumentParser) -> None:
    c.add_argument("scenario", help="a .toml file, or one of: " + ", ".join(library()))
    c.add_argument("--scale", type=float, help="share of the country, 0.05 to 1 (default: the scenario's)")
    c.add_argument("--seed", type=int, help="another seed than the scenario's")


def _scenario(options: argparse.Namespace) -> Scenario:
    if importlib.util.find_spec("numpy") is None:
        raise NotFound("the national model needs numpy", advice="install rxledger[simulations]")
    scenario = load_scenario(options.scenario)
    if options.scale is not None:
        if not SCALE_MIN <= options.scale <= 1:
            raise InvalidInput(
                f"--scale is {options.scale}", advice="give a share of the country from 0.05 to 1"
            )
        scenario = msgspec.structs.replace(scenario, scale=options.scale)
    if options.seed is not None:
        if not 0 <= options.seed < 1 << 32:
            raise InvalidInput(f"--seed is {options.seed}", advice="give a whole number from 0 to 4294967295")
        scenario = msgspec.structs.replace(scenario, seed=options.seed)
    return scenario


def _simulate(options: argparse.Namespace, output: Output) -> int:
    from simulations.national.comparison import compare, unmet  # Loads numpy, which no other command needs.

    scenario = _scenario(options)
    comparison = compare(scenario)
    _print(scenario, comparison, output)
    found = unmet(scenario, comparison)
    for line in found:
        output.note(f"not as expected: {line}")
    return EXIT_UNMET if found else 0


def _of(part: int, counts: Counts) -> float:
    return part / max(counts.demand, 1)


def _print(scenario: Scenario, comparison: Comparison, output: Output) -> None:
    rows = [
        (
            m.arrangement, f"{_of(m.existing_in_outage, m.existing):.0%}", f"{_of(m.in_outage, m.total):.0%}",
            f"{m.total.share:.0%}", f"{_of(m.total.delayed, m.total):.0%}", f"{_of(m.total.refused, m.total):.0%}", max(m.overdue_by_day, default=0), m.doubles.permitted,
            f"{m.doubles.median_hours_to_find:.0f}", f"{m.extra_staff_hours:.0f}", f"{m.late_days:.1f}",
        )
        for m in comparison.measures
    ]  # fmt: skip
    output.table(
        f"{scenario.title.en}: {comparison.pharmacies} pharmacies, {comparison.rows:,} rows",
        ("arrangement", *COLUMNS),
        rows,
    )
    for column, meaning in COLUMNS.items():
        output.note(f"{column}: {meaning}")
    output.result(msgspec.to_builtins(comparison), f"scenario {comparison.digest}, model {comparison.model}")


def _report(options: argparse.Namespace, output: Output) -> int:
    from simulations.report.page import write_report  # Loads numpy, which no other command needs.

    scenario = _scenario(options)
    write_report(scenario, options.output)
    written = [str(path) for path in options.output]
    output.result({"output": written, "scenario": scenario.digest}, [f"wrote {path}" for path in written])
    return 0
