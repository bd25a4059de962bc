"""Commands of prescribers and pharmacists."""

from __future__ import annotations

import argparse

from ledger import (
    Basis,
    Coded,
    ControlledClass,
    Criticality,
    IssuePrescription,
    Link,
    Origin,
    Patient,
    Product,
    Receipt,
    ReversalKind,
    Supply,
)
from ledger.errors import InvalidInput
from ledger.ids import NodeId
from ledger.persons import NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from nodes.cli.common import add_command, command_of, document_of, link_of, node_named, open_ledger, person_of
from nodes.cli.output import Output
from nodes.cli.words import prescription_lines

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add prescribe, amend, cancel, assess, dispense, reverse, correct, list, show."""
    c = add_command(commands, "prescribe", _prescribe, "Issue a prescription.", person=True)
    _add_patient(c)
    c.add_argument("--pack", required=True, metavar="CODE", help="NPL pack id, or SYSTEM|CODE")
    c.add_argument("--product-name", required=True)
    c.add_argument("--atc", default="")
    c.add_argument("--form", default="")
    c.add_argument("--strength", default="")
    c.add_argument("--pack-quantity", type=int, default=1, help="units in a pack")
    c.add_argument("--unit", default="st")
    c.add_argument("--dosage", required=True, help="dosage text")
    c.add_argument("--fills", type=int, default=1)
    c.add_argument("--packs-per-fill", type=int, default=1)
    c.add_argument("--interval-days", type=int, default=0)
    c.add_argument("--valid-until", default="", metavar="YYYY-MM-DD")
    c.add_argument("--controlled", choices=[k.value for k in ControlledClass], default="none")
    c.add_argument("--criticality", choices=[k.value for k in Criticality], default="ordinary")
    c.add_argument("--origin", choices=[o.value for o in Origin], default="electronic")
    c.add_argument("--order-serial", default="", help="serial printed on the paper")
    c.add_argument("--prescriber", help="prescriber's code, if another than the acting person")
    c.add_argument("--workplace", default="")
    c.add_argument("--pharmacy", metavar="NODE", help="the pharmacy that the patient chose (name or id)")
    c.add_argument("--bearer", action="store_true", help="the fills belong to whoever carries the paper")
    c.add_argument("--district", help="home district (default: the node's)")

    c = add_command(commands, "amend", _amend, "Change dosage or instructions.", person=True)
    c.add_argument("prescription")
    c.add_argument("--dosage")
    c.add_argument("--instructions")

    c = add_command(commands, "cancel", _cancel, "Cancel a prescription for good.", person=True)
    c.add_argument("prescription")
    c.add_argument("--reason", type=int, choices=[1, 2, 3, 4], default=4,
                   help="1 wrong patient, 2 wrong medicine, 3 discontinued, 4 other")  # fmt: skip
    c.add_argument("--comment", default="")

    for name, run, text in (
        ("assess", _assess, "What the guard says to a supply; writes nothing."),
        ("dispense", _dispense, "Record a supply that the guard permits."),
    ):
        c = add_command(commands, name, run, text, person=name == "dispense")
        c.add_argument("prescription")
        c.add_argument("--fill", type=int, required=True)
        c.add_argument("--quantity", type=int, help="units (default: what the guard allows)")
        c.add_argument("--basis", choices=[b.value for b in Basis])
        c.add_argument("--reason", default="", help="required beyond custody and bearer")
        c.add_argument("--part", action="store_true", help="more of this fill is owed")
        c.add_argument("--seed", metavar="HEX", help="the fill's seed from the paper")

    c = add_command(commands, "reverse", _reverse, "Take a supply of this node back.", person=True)
    c.add_argument("prescription")
    c.add_argument("supply")
    c.add_argument("--kind", choices=[k.value for k in ReversalKind], required=True)
    c.add_argument("--reason", default="")

    c = add_command(commands, "correct", _correct, "Correct the quantity deducted by a supply.", person=True)
    c.add_argument("prescription")
    c.add_argument("supply")
    c.add_argument("--quantity", type=int, required=True)
    c.add_argument("--reason", default="")

    c = add_command(commands, "list", _list, "A patient's prescriptions. The lookup is logged.", person=True)
    _add_patient(c)
    c.add_argument("--purpose", default="dispensing")

    c = add_command(
        commands, "show", _show, "State, history, anomalies, balance and horizon of a prescription."
    )
    c.add_argument("prescription")


def _add_patient(command: argparse.ArgumentParser) -> None:
    command.add_argument("--patient", metavar="NUMBER", help="identity number, or SYSTEM|CODE")
    command.add_argument("--patient-name", default="-")
    command.add_argument("--birth-date", metavar="YYYY-MM-DD")
    command.add_argument("--sex", choices=["male", "female", "other", "unknown"])


def coded(text: str, system: str) -> Coded:
    """A code, with its system before a bar if it is another than usual."""
    before, bar, after = text.rpartition("|")
    return Coded(before, after) if bar else Coded(system, text)


def _patient(options: argparse.Namespace) -> Patient:
    identifier = coded(options.patient, PERSONAL_NUMBER) if options.patient else None
    return Patient(
        name=options.patient_name, identifier=identifier, birth_date=options.birth_date, sex=options.sex
    )


def _receipt(output: Output, receipt: Receipt) -> None:
    output.result(
        receipt,
        f"{'already done' if receipt.repeated else 'done'}: prescription {receipt.document.hex()}, "
        f"event {receipt.link.hex()}",
    )


def _prescribe(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        person = person_of(options, ledger)
        pharmacy: NodeId | None = node_named(ledger, options.pharmacy) if options.pharmacy else None
        order = IssuePrescription(
            patient=_patient(options),
            product=Product(
                pack=coded(options.pack, NPL_PACK_ID), name=options.product_name, atc=options.atc,
                form=options.form, strength=options.strength, pack_quantity=options.pack_quantity, unit=options.unit,
            ),
            dosage=options.dosage, fills=options.fills, packs_per_fill=options.packs_per_fill,
            interval_days=options.interval_days, valid_until=options.valid_until,
            controlled=ControlledClass(options.controlled), criticality=Criticality(options.criticality),
            origin=Origin(options.origin), order_serial=options.order_serial, workplace=options.workplace,
            prescriber=coded(options.prescriber, PRESCRIBER_CODE) if options.prescriber else person.code,
            chosen_pharmacy=pharmacy, bearer=options.bearer,
        )  # fmt: skip
        _receipt(
            output,
            ledger.prescribe(order, person=person, district=options.district, command=command_of(options)),
        )


def _amend(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        _receipt(
            output,
            ledger.amend(
                document_of(options.prescription), person=person_of(options, ledger), dosage=options.dosage,
                instructions=options.instructions, command=command_of(options),
            ),
        )  # fmt: skip


def _cancel(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        _receipt(
            output,
            ledger.cancel(
                document_of(options.prescription), person=person_of(options, ledger), reason=options.reason,
                comment=options.comment, command=command_of(options),
            ),
        )  # fmt: skip


def _supply(options: argparse.Namespace) -> Supply:
    try:
        seed = bytes.fromhex(options.seed) if options.seed else None
    except ValueError as error:
        raise InvalidInput("the seed is not hexadecimal") from error
    return Supply(
        fill=options.fill, quantity=options.quantity, basis=Basis(options.basis) if options.basis else None,
        reason=options.reason, part=options.part, bearer_seed=seed,
    )  # fmt: skip


def _assess(options: argparse.Namespace, output: Output) -> int:
    with open_ledger(options, writable=False) as ledger:
        decision = ledger.assess(document_of(options.prescription), _supply(options))
    output.result(
        decision,
        [
            f"{decision.verdict.value}" + (f" on {decision.basis.value}" if decision.basis else ""),
            *(f"  {reason.code}: {reason.message}" for reason in decision.reasons),
            f"  at most {decision.quantity_max} units",
        ],
    )
    return 1 if decision.verdict.value == "refuse" else 0


def _dispense(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        _receipt(
            output,
            ledger.dispense(
                document_of(options.prescription), _supply(options), person=person_of(options, ledger),
                command=command_of(options),
            ),
        )  # fmt: skip


def _reverse(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        supply: Link = link_of(options.supply)
        _receipt(
            output,
            ledger.reverse(
                document_of(options.prescription), supply, ReversalKind(options.kind),
                person=person_of(options, ledger), reason=options.reason, command=command_of(options),
            ),
        )  # fmt: skip


def _correct(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        _receipt(
            output,
            ledger.correct(
                document_of(options.prescription), link_of(options.supply), options.quantity,
                person=person_of(options, ledger), reason=options.reason, command=command_of(options),
            ),
        )  # fmt: skip


def _list(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options) as ledger:
        found = ledger.patient(_patient(options), person=person_of(options, ledger), purpose=options.purpose)
        output.result(
            {
                "prescriptions": found.prescriptions,
                "anomalies": found.patient.anomalies,
                "unread": found.unread,
            },
            [
                line
                for document, prescription in found.prescriptions.items()
                for line in prescription_lines(document, prescription, ledger.today(), brief=True)
            ]
            or ["no prescription of that patient is held here; others may hold some"],
        )


def _show(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        document = document_of(options.prescription)
        answer = ledger.show(document)
        history = ledger.inquiry.history(document)
        output.result(
            {"answer": answer, "history": history},
            [
                *prescription_lines(document, answer.prescription, ledger.today()),
                "history (canonical order):",
                *(f"  {h['when']} {h['kind']} by {h['author']}" for h in history),
                "known up to:",
                *(f"  {u.node.hex()[:8]} heard {u.heard_ms} ms" for u in answer.horizon.unheard),
                f"  unread entries: {answer.horizon.unread}",
            ],
        )
