"""Commands that ask another node through this one's daemon, and the demonstration of the whole network."""

from __future__ import annotations

import argparse
from pathlib import Path

from nodes.cli.common import add_command
from nodes.cli.output import Output

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add demo-nats."""
    c = add_command(
        commands, "demo-nats", _demo_nats,
        "An outage told on real message servers and processes: cut, work in islands, heal, converge.", node=False,
    )  # fmt: skip
    c.add_argument(
        "--directory",
        type=Path,
        help="keep realm, nodes and logs in this (empty) directory (default: a temporary one)",
    )
    c.add_argument("--seed", type=int, default=2026)


def _demo_nats(options: argparse.Namespace, output: Output) -> int:
    from nodes.demo_nats import (
        run_demo_nats,
    )  # Loads servers, daemon and content, which no other command needs.

    return run_demo_nats(output, directory=options.directory, seed=options.seed)
