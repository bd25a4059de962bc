"""Commands that ask another node through this one's daemon, and the demonstration of the whole network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ledger import Basis, Decision, Ledger, Patient, Supply, SystemEntropy
from ledger.errors import InvalidInput, NotFound
from ledger.events import FILLS_MAX
from ledger.ids import DocumentId, NodeId
from ledger.node import STORE_FILE
from ledger.persons import PERSONAL_NUMBER
from nodes.cli.care import coded
from nodes.cli.common import add_command, command_of, document_of, node_named, open_ledger, person_of
from nodes.cli.output import Output
from nodes.cli.words import prescription_lines
from nodes.daemon.status import STATUS_METHOD, NodeStatus
from nodes.local.addresses import is_locked
from nodes.local.client import OwnerClient
from nodes.local.faults import OutcomeUnknown, OwnerGone
from nodes.local.opening import owner_of
from nodes.requests import UNREACHABLE, Told

__all__ = ["add_commands"]

WAIT_SECONDS_MAX = 600.0
"""As long as a daemon waits at most."""
ASSUMED_REASON = "the holder cannot be reached"
"""For the guard's word on what may be done instead; who supplies gives a reason of their own."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add claim, fetch, demo-nats."""
    c = add_command(
        commands, "claim", _claim, "Ask the holder of fills for them, over the network, through the node's daemon."
    )  # fmt: skip
    c.add_argument("prescription")
    c.add_argument("--fills", type=int, nargs="+", required=True)
    c.add_argument(
        "--from", dest="holder", metavar="NODE", help="name or id (default: who holds them, as known here)"
    )
    c.add_argument("--wait", type=float, default=15.0, metavar="SECONDS", help="for the answer (default: 15)")
    c.add_argument("--command-id", metavar="HEX", help="16 bytes; asking again with the same is one claim")

    c = add_command(
        commands, "fetch", _fetch,
        "Ask a node of another district for a prescription, or for a patient's. The lookup is logged there.",
        person=True,
    )  # fmt: skip
    c.add_argument("prescription", nargs="?", help="its id; or give --patient")
    c.add_argument("--patient", metavar="NUMBER", help="identity number, or SYSTEM|CODE")
    c.add_argument("--from", dest="holder", metavar="NODE", help="name or id (default: the agency)")
    c.add_argument("--purpose", default="dispensing")
    c.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for the answer (default: 60)")

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


# --- the daemon ---------------------------------------------------------------------------------------------------------


class _Daemon(Struct):
    """The node's daemon, and how it stands."""

    client: OwnerClient
    status: NodeStatus

    def ask(self, name: str, repeatable: bytes, /, **given: object) -> Told:
        """Have it ask, and wait for what it was told.

        Raises:
            OutcomeUnknown: it ended meanwhile; repeat with the same command id.
        """
        try:
            return self.client.ask(name, Told, **given)
        except OwnerGone as error:
            raise OutcomeUnknown("the daemon ended before it had an answer", command=repeatable) from error

    def name_of(self, node: bytes) -> str:
        """A node for people: its name, if the daemon knows it."""
        known = next((peer.name for peer in self.status.peers if peer.node == node.hex()), "")
        return f"{known} ({node.hex()})" if known else node.hex()

    def reach(self, node: bytes) -> str:
        """How a node can be reached, as the daemon knows."""
        peer = next((peer for peer in self.status.peers if peer.node == node.hex()), None)
        if peer is None or not peer.heard_ms:
            return "never heard here"
        heard = f"heard {max(0, self.status.at_ms - peer.heard_ms) // 1000} s ago"
        return f"{heard} over {peer.link}" if peer.link else f"{heard}; it is out of reach now"


@contextmanager
def _daemon_of(directory: Path) -> Iterator[_Daemon]:
    """The daemon that owns a node.

    Raises:
        NotFound: there is no node in that directory.
        OwnerGone: no daemon runs for it.
    """
    if not (directory / STORE_FILE).exists():
        raise NotFound(f"no node in {directory}", advice="make one with `rxledger node enrol`")
    client = owner_of(directory)
    if client is None:
        busy = is_locked(directory / f"{STORE_FILE}.lock")
        raise OwnerGone(
            "another process owns the store and is no daemon that listens"
            if busy
            else "no daemon runs for this node",
            advice="start one with `rxledger daemon --config node.toml`; without a network carry a request in a file: "
            "`rxledger custody request`",
        )
    try:
        try:
            status = client.ask(STATUS_METHOD, NodeStatus)
        except InvalidInput as error:  # It knows no such method.
            raise OwnerGone(
                "the process that owns the store is no daemon", advice="end it, and start `rxledger daemon`"
            ) from error
        yield _Daemon(client, status)
    finally:
        client.close()


def _named(text: str, daemon: _Daemon, ledger: Ledger) -> NodeId:
    """A node that the daemon has met, or that has a feed here, by name or id."""
    met = {peer.node for peer in daemon.status.peers if text in (peer.node, peer.name)}
    return NodeId(bytes.fromhex(met.pop())) if len(met) == 1 else node_named(ledger, text)


def _wait_ms(options: argparse.Namespace) -> int:
    if not 0 < options.wait <= WAIT_SECONDS_MAX:  # Not a number is neither.
        raise InvalidInput(f"--wait is seconds, more than 0 and at most {WAIT_SECONDS_MAX:.0f}")
    return max(1, int(options.wait * 1000))


# --- claims -------------------------------------------------------------------------------------------------------------


def _claim(options: argparse.Namespace, output: Output) -> int:
    from nodes.daemon.service import (
        CLAIM_METHOD,
    )  # Loads all that a daemon runs, which no other command needs.

    document, fills = document_of(options.prescription), sorted(set(options.fills))
    if not all(1 <= fill <= FILLS_MAX for fill in fills):
        raise InvalidInput(f"--fills: numbers from 1 to {FILLS_MAX}")
    command, wait_ms = command_of(options) or SystemEntropy().bytes(16), _wait_ms(options)
    with _daemon_of(options.node) as daemon, open_ledger(options, writable=False) as ledger:
        holder = _named(options.holder, daemon, ledger) if options.holder else NodeId(b"")
        told = daemon.ask(
            CLAIM_METHOD,
            command,
            document=document,
            fills=fills,
            command=command,
            holder=holder,
            wait_ms=wait_ms,
        )
        instead = _instead(ledger, document, fills) if told.code == UNREACHABLE else {}
        value = {
            "granted": not told.code, "code": told.code, "command": command, "transfer": told.link,
            "holder": told.holder, "reach": daemon.reach(told.holder) if told.holder else "", "instead": instead,
        }  # fmt: skip
        output.result(value, list(_claim_lines(told, command, daemon, instead)))
    return 1 if told.code else 0


def _instead(ledger: Ledger, document: DocumentId, fills: list[int]) -> dict[int, Decision]:
    """What the guard says to supplying the fills beyond custody."""
    return {
        fill: ledger.assess(document, Supply(fill=fill, basis=Basis.EMERGENCY, reason=ASSUMED_REASON))
        for fill in fills
    }


def _claim_lines(told: Told, command: bytes, daemon: _Daemon, instead: dict[int, Decision]) -> Iterator[str]:
    if not told.code:
        yield f"granted: the fills are held here, by event {told.link.hex()}"
        return
    if told.code != UNREACHABLE:
        yield f"refused: {told.code}"
        if told.holder:
            yield f"  held by {daemon.name_of(told.holder)}, {daemon.reach(told.holder)}"
        return
    yield "the holder did not answer in time"
    if told.link:
        yield f"  it has granted them by event {told.link.hex()}, which will come with the next link"
    yield f"  ask again with --command-id {command.hex()}: it is one claim"
    for fill, decision in instead.items():
        reasons = "; ".join(reason.message for reason in decision.reasons)
        yield f"  instead, fill {fill} beyond custody: {decision.verdict.value}, at most {decision.quantity_max} units"
        yield f"    {reasons}"


# --- fetches ------------------------------------------------------------------------------------------------------------


def _fetch(options: argparse.Namespace, output: Output) -> int:
    from nodes.daemon.service import FETCH_METHOD  # As for a claim.

    if (options.prescription is None) == (options.patient is None):
        raise InvalidInput("fetch takes the id of a prescription, or --patient, and not both")
    document = document_of(options.prescription) if options.prescription else b""
    patient = (
        Patient(name="-", identifier=coded(options.patient, PERSONAL_NUMBER)) if options.patient else None
    )
    command, wait_ms = command_of(options) or SystemEntropy().bytes(16), _wait_ms(options)
    with _daemon_of(options.node) as daemon:
        with open_ledger(options, writable=False) as ledger:
            person = person_of(options, ledger)
            holder = _named(options.holder, daemon, ledger) if options.holder else _agency(daemon)
        told = daemon.ask(
            FETCH_METHOD, command, holder=holder, person=person, purpose=options.purpose, document=document,
            patient=patient, request=command, wait_ms=wait_ms,
        )  # fmt: skip
        who = daemon.name_of(holder)
    output.result(
        {"code": told.code, "command": command, "from": holder, "prescriptions": told.documents},
        [*_fetch_lines(told, who), *_fetched_lines(options, told)],
    )
    return 1 if told.code else 0


def _agency(daemon: _Daemon) -> NodeId:
    """The agency that was heard last: it holds the keys of every district."""
    met = [peer for peer in daemon.status.peers if peer.role == "agency"]
    if not met:
        raise NotFound(
            "the agency has not been met yet", advice="name with --from a node of the prescription's district"
        )
    return NodeId(bytes.fromhex(max(met, key=lambda peer: peer.heard_ms).node))


def _fetch_lines(told: Told, who: str) -> Iterator[str]:
    if told.code == UNREACHABLE:
        yield f"{who} did not answer in time; ask again, or another node with --from"
    elif told.code:
        yield f"refused by {who}: {told.code}"
    elif not told.documents:
        yield f"{who} holds no prescription of that patient"
    else:
        yield f"{len(told.documents)} prescriptions from {who}, to be read here now"


def _fetched_lines(options: argparse.Namespace, told: Told) -> list[str]:
    if not told.documents or options.json:
        return []
    # Opened anew: the keys have come since.
    with open_ledger(options, writable=False) as ledger:
        today = ledger.today()
        return [
            line
            for document in told.documents
            for line in prescription_lines(document, ledger.show(document).prescription, today, brief=True)
        ]


def _demo_nats(options: argparse.Namespace, output: Output) -> int:
    from nodes.demo_nats import (
        run_demo_nats,
    )  # Loads servers, daemon and content, which no other command needs.

    return run_demo_nats(output, directory=options.directory, seed=options.seed)
