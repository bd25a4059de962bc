"""Commands that found a realm, enrol nodes, and steer."""

from __future__ import annotations

import argparse
from pathlib import Path

from ledger import Coded, Level, NodeRole, Person, PersonRole, RealmKind
from ledger.persons import LICENCE_CODE
from ledger.policy import default_policy
from nodes.cli.common import (
    add_command,
    add_unlock,
    command_of,
    node_named,
    open_ledger,
    person_of,
    unlock_of,
)
from nodes.cli.output import Output
from nodes.founding import Founded, enrol, found_realm, open_founded
from nodes.inprocess import synchronise

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add realm, node, governance and demo."""
    group = commands.add_parser("realm", help="Found a realm.")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    c = add_command(
        verbs, "create", _create, "Found a realm: root, issuing authority and the agency's node.", node=False
    )
    c.add_argument("directory", type=Path)
    c.add_argument("--name", required=True)
    c.add_argument("--kind", choices=[k.value for k in RealmKind], default="exercise")
    add_unlock(c)

    group = commands.add_parser("node", help="Enrol a node.")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    c = add_command(verbs, "enrol", _enrol, "Certify a node, hand it its keys, make its directory.")
    c.add_argument("--realm", type=Path, required=True, metavar="DIR", help="as made by `realm create`")
    c.add_argument("--role", choices=[r.value for r in NodeRole if r is not NodeRole.AGENCY], required=True)
    c.add_argument("--district", default="")
    c.add_argument("--name", required=True)
    c.add_argument("--person", default="000000", metavar="CODE", help="the officer who enrols")

    c = add_command(commands, "declare", _declare, "Agency: declare a readiness level.", person=True)
    c.add_argument("level", choices=[level.value for level in Level])
    c.add_argument("--district", action="append", default=[])

    c = add_command(
        commands, "revoke", _revoke, "Agency: revoke a node and give its districts new keys.", person=True
    )
    c.add_argument("revoked", metavar="NODE")
    c.add_argument("--reason", required=True)

    c = add_command(commands, "policy", _policy, "Agency: put a policy in force.", person=True)
    c.add_argument("--preset", choices=["exercise", "production"], required=True)
    c.add_argument("--legal-basis", default="")

    c = add_command(
        commands, "demo", _demo, "A partition, told: issue, dispense, cut, merge, find.", node=False
    )
    c.add_argument("--input", type=Path, metavar="PATH", help="FHIR files to prescribe from")
    c.add_argument("--directory", type=Path, help="keep the stores here (default: a temporary directory)")
    c.add_argument("--seed", type=int, default=2026)


def _create(options: argparse.Namespace, output: Output) -> None:
    founded = found_realm(options.directory, options.name, RealmKind(options.kind), unlock_of(options))
    with founded.agency as agency:
        output.result(
            {
                "realm": agency.node.realm.id,
                "agency": agency.node.identity.node,
                "directory": str(options.directory),
            },
            [
                f"realm {options.name} ({options.kind}) founded in {options.directory}",
                f"  agency's node: {options.directory / 'agency'}",
                f"  keep {options.directory / 'root'} off line: it replaces everything else",
            ],
        )


def _enrol(options: argparse.Namespace, output: Output) -> None:
    unlock = unlock_of(options)
    founded: Founded = open_founded(options.realm, unlock)
    with founded.agency as agency:
        person = Person(Coded(LICENCE_CODE, options.person), PersonRole.OFFICER)
        with enrol(
            founded, options.node, role=NodeRole(options.role), district=options.district, name=options.name,
            unlock=unlock, person=person,
        ) as ledger:  # fmt: skip
            synchronise(agency.exchange, ledger.exchange)
            output.result(
                {"node": ledger.node.identity.node, "role": options.role, "district": options.district},
                f"node {ledger.node.identity.node.hex()} ({options.role} {options.name}) enrolled in {options.node}",
            )


def _declare(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = ledger.stewardship.declare(
            Level(options.level), person=person_of(options, ledger), districts=options.district,
            command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"level {options.level} declared by event {receipt.link.hex()}")


def _revoke(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = ledger.stewardship.revoke(
            node_named(ledger, options.revoked), person=person_of(options, ledger), reason=options.reason,
            command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"revoked by event {receipt.link.hex()}")


def _policy(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        receipt = ledger.stewardship.set_policy(
            default_policy(options.preset), person=person_of(options, ledger), legal_basis=options.legal_basis,
            command=command_of(options),
        )  # fmt: skip
    output.result(receipt, f"policy set by event {receipt.link.hex()}")


def _demo(options: argparse.Namespace, output: Output) -> int:
    from nodes.demo import run_demo  # Loads FHIR and content, which no other command needs.

    return run_demo(output, source=options.input, directory=options.directory, seed=options.seed)
