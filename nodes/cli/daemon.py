"""Commands for the node that runs by itself: the daemon, and what it says of itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from ledger import Ledger
from ledger.errors import InvalidInput, NotFound
from ledger.keystore import Unlock, UnlockFile
from ledger.node import STORE_FILE
from nodes.cli.common import add_command, unlock_of
from nodes.cli.output import Output
from nodes.daemon.check import checked
from nodes.daemon.config import load_config
from nodes.daemon.logs import configure_logs
from nodes.daemon.status import STATUS_METHOD, NodeStatus, node_status, status_lines
from nodes.local.addresses import is_locked
from nodes.local.opening import owner_of

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add daemon and status."""
    c = add_command(commands, "daemon", _daemon, "Run a node: replicate, watch, keep.", node=False)
    c.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml, see docs/daemon.md")
    what = c.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check the configuration, start nothing")
    what.add_argument("--nightly", action="store_true", help="do one night's work now, then stop")
    add_command(
        commands,
        "status",
        _status,
        "How the node stands: peers, links, what is unsent, how old what it knows is.",
    )


def _daemon(options: argparse.Namespace, output: Output) -> int:
    config = load_config(options.config)
    unlock: Unlock = UnlockFile(config.unlock) if config.unlock is not None else _default_unlock()
    if options.check:
        lines = list(checked(config, unlock))
        output.result({"checked": lines}, lines)
        return 0
    configure_logs(config.log_level)
    # Whoever only asks for a status need not load all that a daemon runs.
    from nodes.daemon.service import run

    return run(config, unlock, nightly_only=options.nightly)


def _default_unlock() -> Unlock:
    return unlock_of(argparse.Namespace(unlock=None))


def _status(options: argparse.Namespace, output: Output) -> None:
    if not (options.node / STORE_FILE).exists():
        raise NotFound(f"no node in {options.node}", advice="make one with `rxledger node enrol`")
    status = _of_owner(options.node)
    if status is None:
        with Ledger.open(options.node, unlock_of(options), writable=False) as ledger:
            status = node_status(
                ledger, options.node, running=False, owned=is_locked(options.node / f"{STORE_FILE}.lock")
            )
    output.result(status, status_lines(status))


def _of_owner(directory: Path) -> NodeStatus | None:
    """The status that the owner gives; None if there is no owner, or it is no daemon."""
    owner = owner_of(directory)
    if owner is None:
        return None
    try:
        return owner.ask(STATUS_METHOD, NodeStatus)
    except InvalidInput:
        return None
    finally:
        owner.close()
