"""Commands that move fills, and those that weigh what went wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

from ledger.errors import InvalidInput
from ledger.placement import CustodyPlan
from nodes.claims import answer_claim, make_claim
from nodes.cli.common import add_command, command_of, document_of, link_of, node_named, open_ledger, person_of
from nodes.cli.output import Output

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add custody (with its verbs), anomalies, resolve."""
    group = commands.add_parser("custody", help="Ask for, pass on, recover, plan and delegate fills.")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")

    c = add_command(verbs, "request", _request, "Write a request for fills, to carry to their holder.")
    c.add_argument("prescription")
    c.add_argument("--fills", type=int, nargs="+", required=True)
    c.add_argument("--district", help="the prescription's district (default: the node's)")
    c.add_argument(
        "--command-id", metavar="HEX", help="16 bytes; asking again with the same id is one request"
    )
    c.add_argument("--out", type=Path, required=True, metavar="FILE")

    c = add_command(
        verbs, "answer", _answer, "Answer a request: transfer the fills if this node holds them.", person=True
    )
    c.add_argument("request", type=Path)

    c = add_command(
        verbs, "transfer", _transfer, "Pass fills that this node holds to another node.", person=True
    )
    c.add_argument("prescription")
    c.add_argument("--fills", type=int, nargs="+", required=True)
    target = c.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", metavar="NODE")
    target.add_argument("--bearer", action="store_true", help="to whoever carries the paper")

    c = add_command(
        verbs,
        "recover",
        _recover,
        "Agency: the holder is dead; fills may be supplied with risk.",
        person=True,
    )
    c.add_argument("prescription")
    c.add_argument("--fills", type=int, nargs="+", required=True)
    c.add_argument("--reason", required=True)

    c = add_command(
        verbs,
        "plan",
        _plan,
        "Nightly: pass on fills that fall due to where they can be dispensed.",
        person=True,
    )
    c.add_argument("--days", type=int, default=30)
    c.add_argument("--custodian", action="append", default=[], metavar="DISTRICT=NODE")

    c = add_command(
        verbs,
        "delegate",
        _delegate,
        "Move everything this node holds in a district to another node.",
        person=True,
    )
    c.add_argument("--district", help="default: the node's")
    target = c.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", metavar="NODE")
    target.add_argument(
        "--end", metavar="EVENT", help="end the delegation made by this event (delegate only)"
    )

    c = add_command(commands, "anomalies", _anomalies, "Everything that went wrong, as known here.")
    c.add_argument("--open", action="store_true", help="only those that no one has resolved")

    c = add_command(
        commands, "resolve", _resolve, "Record what a human decided about an anomaly.", person=True
    )
    c.add_argument("prescription")
    c.add_argument("anomaly")
    c.add_argument("--decision", required=True)


def _request(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        command = command_of(options) or ledger.node.new_command()
        district = options.district or ledger.node.identity.district
        data = make_claim(ledger, document_of(options.prescription), tuple(options.fills), district, command)
    options.out.write_bytes(data)
    output.result(
        {"file": str(options.out), "command": command}, f"request {command.hex()} written to {options.out}"
    )


def _answer(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = answer_claim(ledger, options.request.read_bytes(), person=person_of(options, ledger))
    output.result(
        receipt, f"transferred by event {receipt.link.hex()}; replicate so that the claimant learns of it"
    )


def _transfer(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = ledger.transfer(
            document_of(options.prescription), options.fills, node_named(ledger, options.to) if options.to else None,
            person=person_of(options, ledger), command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"transferred by event {receipt.link.hex()}")


def _recover(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = ledger.recover(
            document_of(options.prescription), options.fills, person=person_of(options, ledger),
            reason=options.reason, command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"recovered by event {receipt.link.hex()}")


def _plan(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        custodians = {}
        for text in options.custodian:
            district, equals, name = text.partition("=")
            if not equals:
                raise InvalidInput("--custodian is DISTRICT=NODE")
            custodians[district] = node_named(ledger, name)
        plan = CustodyPlan(days=options.days, custodians=custodians)
        receipts = ledger.plan_custody(plan, person=person_of(options, ledger))
    output.result(receipts, f"fills of {len(receipts)} prescriptions passed on")


def _delegate(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        district = options.district or ledger.node.identity.district
        person, command = person_of(options, ledger), command_of(options)
        if options.to:
            receipt = ledger.delegate(
                district, node_named(ledger, options.to), person=person, command=command
            )
        else:
            receipt = ledger.end_delegation(district, link_of(options.end), person=person, command=command)
    output.result(receipt, f"event {receipt.link.hex()}")


def _anomalies(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        found = [a for a in ledger.anomalies() if not (options.open and a.resolutions)]
    output.result(
        found,
        [
            f"{a.document.hex()} {a.id.hex()} {a.kind}"
            + (f" fill {a.fill}" if a.fill else "")
            + (f" ({a.detail})" if a.detail else "")
            + (" resolved" if a.resolutions else " OPEN")
            for a in found
        ]
        or ["no anomaly among what is held here"],
    )


def _resolve(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        try:
            anomaly = bytes.fromhex(options.anomaly)
        except ValueError as error:
            raise InvalidInput("the anomaly's id is not hexadecimal") from error
        receipt = ledger.resolve(
            document_of(options.prescription), anomaly, options.decision, person=person_of(options, ledger),
            command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"resolved by event {receipt.link.hex()}")
