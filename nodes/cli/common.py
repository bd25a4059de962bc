"""Options and parsing that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from ledger import Coded, Ledger, Person, PersonRole
from ledger.errors import InvalidInput, NotFound
from ledger.ids import DocumentId, Link, NodeId
from ledger.keystore import Unlock, UnlockFile
from ledger.persons import LICENCE_CODE, PRESCRIBER_CODE
from nodes.cli.output import Output
from nodes.local.opening import connect_or_open

__all__ = [
    "Run",
    "add_command",
    "command_of",
    "document_of",
    "link_of",
    "node_named",
    "open_ledger",
    "person_of",
    "unlock_of",
]

Run = Callable[[argparse.Namespace, Output], "int | None"]
UNLOCK_VARIABLE = "RXLEDGER_UNLOCK_FILE"
OWNER_SECONDS = 3.0
"""How long a command waits for another to end, or for a daemon that starts to listen."""


def default_unlock_file() -> Path:
    """Where the unlock secret lies unless told otherwise: systemd's credential, else the user's configuration."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        return Path(credentials) / "rxledger-unlock"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rxledger" / "unlock"


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Run,
    help_text: str,
    *,
    node: bool = True,
    person: bool = False,
) -> argparse.ArgumentParser:
    """One command with the options that all have."""
    command = commands.add_parser(name, help=help_text, description=help_text)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print the result as one JSON value")
    command.add_argument("--verbose", action="store_true", help="log to standard error")
    if node:
        command.add_argument("--node", type=Path, required=True, metavar="DIR", help="the node's directory")
        add_unlock(command)
    if person:
        command.add_argument("--person", required=True, metavar="CODE", help="code of the acting person")
        command.add_argument(
            "--person-role", choices=[r.value for r in PersonRole], help="default: by the node's role"
        )
        command.add_argument(
            "--command-id", metavar="HEX", help="16 bytes; repeating a command has one effect"
        )
    return command


def add_unlock(command: argparse.ArgumentParser) -> None:
    """The option that says where the unlock secret lies."""
    command.add_argument(
        "--unlock", type=Path, metavar="FILE",
        help=f"unlock file (default: ${UNLOCK_VARIABLE}, systemd's credential, or ~/.config/rxledger/unlock)",
    )  # fmt: skip


def unlock_of(options: argparse.Namespace) -> Unlock:
    """The unlock secret named by option, environment or default."""
    path = options.unlock or os.environ.get(UNLOCK_VARIABLE)
    return UnlockFile(Path(path) if path else default_unlock_file())


def open_ledger(options: argparse.Namespace, *, writable: bool = True) -> Ledger:
    """Open the node that the command names; for writing through the process that owns it, if one does.

    Raises:
        NotFound: there is no node in that directory.
        StoreBusy: another process owns it and lets nobody write through it.
    """
    if not (options.node / "store.db").exists():
        raise NotFound(f"no node in {options.node}", advice="make one with `rxledger node enrol`")
    if writable:
        return connect_or_open(options.node, unlock_of(options), wait_s=OWNER_SECONDS)
    return Ledger.open(options.node, unlock_of(options), writable=False)


_ROLE_OF_NODE = {
    "prescriber": PersonRole.PRESCRIBER,
    "pharmacy": PersonRole.PHARMACIST,
    "agency": PersonRole.OFFICER,
    "authority": PersonRole.OFFICER,
    "relay": PersonRole.OPERATOR,
}


def person_of(options: argparse.Namespace, ledger: Ledger) -> Person:
    """The acting person: code as given, in the register's system for the role."""
    role = (
        PersonRole(options.person_role)
        if options.person_role
        else _ROLE_OF_NODE[ledger.node.identity.role.value]
    )
    system = PRESCRIBER_CODE if role is PersonRole.PRESCRIBER else LICENCE_CODE
    return Person(Coded(system, options.person), role)


def _hex(text: str, length: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is not hexadecimal") from error
    if len(value) != length:
        raise InvalidInput(f"{what} has {length} bytes, not {len(value)}")
    return value


def document_of(text: str) -> DocumentId:
    """A prescription's id from hexadecimal."""
    return DocumentId(_hex(text, 16, "the prescription's id"))


def link_of(text: str) -> Link:
    """An event's id from hexadecimal."""
    return Link(_hex(text, 32, "the event's id"))


def command_of(options: argparse.Namespace) -> bytes | None:
    """The caller's command id, if given."""
    return _hex(options.command_id, 16, "the command id") if options.command_id else None


def node_named(ledger: Ledger, text: str) -> NodeId:
    """A node by its id in hexadecimal or by the name in its certificate.

    Raises:
        NotFound: no known node is called that, or several are.
    """
    with ledger.node.lock:
        known = {
            certified.node: certified.name
            for row in ledger.node.store.feeds()
            for certified, _ in [ledger.node.reader.author(row.feed)]
        }
    known[ledger.node.identity.node] = ledger.node.identity.name
    found = [n for n, name in known.items() if text in (name, n.hex())]
    if len(found) != 1:
        raise NotFound(f"{len(found)} known nodes are called {text!r}", advice="give the id; replicate first")
    return NodeId(found[0])
