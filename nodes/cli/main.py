"""The parser, exit codes, and what all commands share."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import structlog

from ledger.errors import LedgerBug, RxLedgerError, StoreDamaged
from nodes.cli import care, custody, daemon, exchange, nats, network, realm
from nodes.cli.output import Output

__all__ = ["EXIT_DAMAGED", "EXIT_DONE", "EXIT_REFUSED", "EXIT_USAGE", "main"]

EXIT_DONE, EXIT_REFUSED, EXIT_USAGE, EXIT_DAMAGED = 0, 1, 2, 3
SIMULATIONS = "simulations"
"""The package that adds the commands of the national model."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="rxledger", description="The prescription ledger that goes on when the network is gone."
    )
    root.add_argument("--version", action="version", version=f"rxledger {version('rxledger')}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (realm, care, custody, exchange, daemon, nats, network):
        module.add_commands(commands)
    # By name, where it is installed: what is above us may be left out, and imports never point upwards.
    if importlib.util.find_spec(SIMULATIONS) is not None:
        importlib.import_module(f"{SIMULATIONS}.cli").add_commands(commands)
    return root


def configure_logs(verbose: bool) -> None:
    """Logs go to standard error, and only from warnings on unless asked for more."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = parser().parse_args(arguments)
    configure_logs(bool(getattr(options, "verbose", False)))
    output = Output(as_json=options.json)
    try:
        code = options.run(options, output)
    except StoreDamaged as error:
        output.error(error.code, error.message, error.advice)
        return EXIT_DAMAGED
    except LedgerBug:
        raise
    except RxLedgerError as error:
        output.error(error.code, error.message, error.advice)
        return EXIT_REFUSED
    except UnicodeDecodeError:
        output.error("malformed", "a file that was named is not text")
        return EXIT_REFUSED
    except OSError as error:
        output.error("os", f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))
        return EXIT_REFUSED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more may be written to it, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    except KeyboardInterrupt:
        output.error("interrupted", "stopped; what was acknowledged is kept")
        return EXIT_REFUSED
    return EXIT_DONE if code is None else int(code)


if __name__ == "__main__":
    raise SystemExit(main())
