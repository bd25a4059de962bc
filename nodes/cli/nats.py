"""Commands for whoever runs message servers: write their folders, keep their users, run one."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from ledger import Ledger, SystemClock, SystemEntropy
from ledger.ids import NodeId
from nodes.cli.common import add_command, add_unlock, open_ledger, unlock_of
from nodes.cli.output import Output
from nodes.founding import open_issuer

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``nats config``, ``nats users`` and ``nats serve``."""
    group = commands.add_parser("nats", help="Message servers: write their folders, keep their users.")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")

    c = add_command(
        verbs, "config", _config, "Agency: write a folder for each server of a description, ready to run.", node=False
    )  # fmt: skip
    c.add_argument("description", type=Path, metavar="DESCRIPTION", help="TOML; see docs/nats.md")
    c.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets one folder a server")
    c.add_argument("--realm", type=Path, required=True, metavar="DIR", help="as made by `realm create`")
    add_unlock(c)

    c = add_command(
        verbs, "users", _users,
        "Write again who may log in, from a node's ledger; make running servers take it and let go of the rest.",
    )  # fmt: skip
    c.add_argument("directory", type=Path, metavar="DIR", help="a server's folder, or one that holds several")
    c.add_argument("--offline", action="store_true", help="only write; do not speak to the servers")

    c = add_command(verbs, "serve", _serve, "Run the server of a folder until stopped.", node=False)
    c.add_argument("directory", type=Path, metavar="DIR")


def _config(options: argparse.Namespace, output: Output) -> None:
    from nodes.nats.description import read_description
    from nodes.nats.folders import write_folder
    from nodes.nats.roster import read_roster

    unlock, now_ms = unlock_of(options), SystemClock().now_ms()
    description = read_description(options.description)
    source = options.description.read_bytes()
    issuer = open_issuer(options.realm, unlock)
    with Ledger.open(options.realm / "agency", unlock, writable=False) as agency:
        roster, realm = read_roster(agency, now_ms), agency.node.realm.id
    options.output.mkdir(parents=True, exist_ok=True, mode=0o700)
    folders = [
        write_folder(
            options.output, description, source, server.name, roster, realm, issuer, now_ms, SystemEntropy()
        )
        for server in description.servers
    ]
    output.table(
        "",
        ["server", "may log in", "certificate until", "changed"],
        [(f.name, f.users, _day(f.certificate_until_ms), "yes" if f.changed else "no") for f in folders],
    )
    marked = _marked(roster.revoked, roster.lapsed, tuple(m.node for m in roster.members if m.expired))
    output.result(
        {
            "servers": [
                {
                    "name": f.name,
                    "folder": str(f.path),
                    "users": f.users,
                    "certificate_until_ms": f.certificate_until_ms,
                    "changed": f.changed,
                }
                for f in folders
            ],
            **marked,
        },
        [*_words(marked), f"run each with: rxledger nats serve {options.output}/NAME"],
    )


def _users(options: argparse.Namespace, output: Output) -> int:
    from nodes.nats.control import Applied, apply_folders
    from nodes.nats.folders import find_folders, write_users
    from nodes.nats.roster import read_roster

    folders = find_folders(options.directory)
    with open_ledger(options, writable=False) as ledger:
        roster, realm = read_roster(ledger, ledger.node.now_ms()), ledger.node.realm
    written = [write_users(folder, roster, realm) for folder in folders]
    applied: list[Applied] = []
    if not options.offline:
        applied = asyncio.run(apply_folders([folder.path for folder in written], realm))
    marked = _marked(roster.revoked, roster.lapsed, tuple(m.node for m in roster.members if m.expired))
    output.result(
        {"servers": [{"name": f.name, "users": f.users} for f in written], "applied": applied, **marked},
        [
            *(f"{f.name}: {f.users} may log in" for f in written),
            *(
                f"{a.name}: applied, {a.kicked} connections ended" if a.done else f"{a.name}: NOT applied: {a.reason}"
                for a in applied
            ),
            *_words(marked),
        ],
    )  # fmt: skip
    return 0 if all(a.done for a in applied) else 1


def _serve(options: argparse.Namespace, output: Output) -> None:
    from nodes.nats.folders import prepare_run

    del output
    command = prepare_run(options.directory)
    os.chdir(options.directory)
    os.execv(command[0], command)  # noqa: S606 (the server takes our place: signals and exit code are its own)


def _marked(
    revoked: tuple[NodeId, ...], lapsed: tuple[NodeId, ...], expired: tuple[NodeId, ...]
) -> dict[str, list[str]]:
    """Nodes that an operator should know of, by id."""
    return {
        "revoked": [node.hex() for node in revoked],
        "lapsed": [node.hex() for node in lapsed],
        "expired": [node.hex() for node in expired],
    }


def _words(marked: dict[str, list[str]]) -> list[str]:
    meaning = {
        "revoked": "revoked, may not log in",
        "lapsed": "expired for longer than the policy's grace period, may not log in: renew",
        "expired": "expired, may still log in: renew soon",
    }
    return [f"{node} {meaning[kind]}" for kind, nodes in marked.items() for node in nodes]


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
