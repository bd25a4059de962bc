"""Commands that carry entries between nodes, and that look after a store."""

from __future__ import annotations

import argparse
import json
from itertools import count
from pathlib import Path

from ledger import Ledger
from ledger.errors import InvalidInput, NotFound
from ledger.store import restore_store
from ledger.store.connection import WriterLock
from nodes.bundle import decode_frontier, encode_frontier, export_bundle, import_bundle
from nodes.cli.common import add_command, document_of, open_ledger, person_of, unlock_of
from nodes.cli.output import Output
from nodes.fhir import ImportedPrescription, read_path
from nodes.fhir_types import Options
from nodes.prescribing import issue_imported

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add bundle, paper, import-fhir, verify, digest, frontier, backup, restore."""
    group = commands.add_parser("bundle", help="Carry entries in a file: USB, mail, courier.")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    c = add_command(verbs, "export", _export, "Write entries to a bundle file.")
    c.add_argument("file", type=Path)
    c.add_argument(
        "--for-frontier", type=Path, metavar="FILE", help="only what that peer lacks (see `frontier --out`)"
    )
    c.add_argument("--district", action="append", help="default: all that this node holds")
    c = add_command(
        verbs, "import", _import, "Take in bundle files; twice, in any order or cut short does no harm."
    )
    c.add_argument("files", type=Path, nargs="+")

    c = add_command(commands, "paper", _paper, "The code of a bearer prescription's paper, as text or SVG.")
    c.add_argument("prescription")
    c.add_argument("--svg", type=Path, metavar="FILE")
    c = add_command(commands, "scan", _scan, "Take in the code of a paper or a slip.")
    c.add_argument("code", help="the text of the code, or @FILE")

    c = add_command(
        commands,
        "import-fhir",
        _import_fhir,
        "Issue prescriptions from FHIR MedicationRequests.",
        person=True,
    )
    c.add_argument("path", type=Path)

    add_command(commands, "verify", _verify, "Check the whole store: chains, signatures, roles, documents.")
    c = add_command(commands, "digest", _digest, "One line; equal on nodes that hold the same.")
    c.add_argument("--district", action="append")
    c = add_command(commands, "frontier", _frontier, "What this node holds: feed by feed, its heads.")
    c.add_argument(
        "--out", type=Path, metavar="FILE", help="write it to a file for `bundle export --for-frontier`"
    )
    c = add_command(
        commands, "backup", _backup, "Copy the store while it is in use; without keys or continuity token."
    )
    c.add_argument("file", type=Path)
    c = add_command(
        commands, "restore", _restore, "Put a backup in the place of a lost store; a new incarnation follows."
    )
    c.add_argument("file", type=Path)
    c.add_argument("--replace", action="store_true", help="the present store is moved aside, not deleted")


def _export(options: argparse.Namespace, output: Output) -> None:
    since = decode_frontier(options.for_frontier.read_text()) if options.for_frontier else None
    with open_ledger(options, writable=False) as ledger, options.file.open("xb") as destination:
        report = export_bundle(
            ledger.exchange,
            ledger.node.keys.signing,
            ledger.node.identity.certificates,
            destination,
            since=since,
            districts=set(options.district) if options.district else None,
            now_ms=ledger.node.now_ms(),
        )
    output.result(report, f"{report.entries} entries of {report.feeds} feeds written to {options.file}")


def _import(options: argparse.Namespace, output: Output) -> int:
    reports = {}
    failed = 0
    with open_ledger(options) as ledger:
        for path in options.files:
            with path.open("rb") as source:
                report = import_bundle(ledger.exchange, source, realm=ledger.node.realm)
            reports[str(path)] = report
            failed += not report.complete
            output.note(
                f"{path}: {report.new} new, {report.known} known"
                + ("" if report.complete else f"; {report.problem}")
            )
        ledger.stewardship.take_epochs()
        ledger.inquiry.index_arrivals()
    output.result(reports, f"{sum(r.new for r in reports.values())} new entries")
    return 1 if failed else 0


def _paper(options: argparse.Namespace, output: Output) -> None:
    from ledger.paper import to_text

    with open_ledger(options, writable=False) as ledger:
        text = to_text(ledger.papers.print(document_of(options.prescription)))
    if options.svg:
        import segno

        segno.make(text, error="l", micro=False).save(str(options.svg), kind="svg", scale=4)
    output.result({"code": text}, text)


def _scan(options: argparse.Namespace, output: Output) -> None:
    from ledger.paper import from_text

    text = Path(options.code[1:]).read_text().strip() if options.code.startswith("@") else options.code
    with open_ledger(options) as ledger:
        scanned = ledger.papers.scan(from_text(text))
    output.result(
        {"prescription": scanned.document, "district": scanned.district, "seeds": scanned.seeds},
        [
            f"prescription {scanned.document.hex()} of {scanned.district}",
            *(f"  fill {fill}: --seed {seed.hex()}" for fill, seed in scanned.seeds.items()),
        ],
    )


def _import_fhir(options: argparse.Namespace, output: Output) -> int:
    if not options.path.exists():
        raise NotFound(f"{options.path} does not exist")
    taken, refused = [], []
    with open_ledger(options) as ledger:
        person = person_of(options, ledger)
        for found in read_path(options.path, Options(prescriber=person.code)):
            if not isinstance(found, ImportedPrescription):
                refused.append({"element": found.element, "reason": found.reason})
                continue
            try:
                taken.append(issue_imported(ledger, found, person=person))
            except InvalidInput as error:
                refused.append({"element": "MedicationRequest", "reason": error.message})
    output.result(
        {"taken": taken, "refused": refused},
        [
            f"{len(taken)} prescriptions issued, {len(refused)} refused",
            *(f"  refused at {r['element']}: {r['reason']}" for r in refused),
        ],
    )
    return 0 if taken or not refused else 1


def _verify(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        checked = 0
        for checked in ledger.inquiry.verify():
            if checked % 10_000 == 0:
                output.note(f"{checked} entries verified")
        documents = sum(1 for _ in ledger.inquiry.rebuild())
    output.result(
        {"entries": checked, "documents": documents}, f"{checked} entries, {documents} documents: all hold"
    )


def _digest(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        entries = ledger.inquiry.frontier_digest(options.district)
        states = ledger.inquiry.state_digest(options.district)
    output.result({"entries": entries, "states": states}, f"entries {entries.hex()} states {states.hex()}")


def _frontier(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        districts = sorted(ledger.exchange.districts())
        frontier = {d: ledger.exchange.frontier(d) for d in districts}
    text = encode_frontier(frontier)
    if options.out:
        options.out.write_text(text)
    output.result(
        json.loads(text),
        [
            f"{district} {feed.hex()} "
            + " ".join(f"{sequence}:{link.hex()[:16]}" for sequence, link in heads)
            for district, feeds in frontier.items()
            for feed, heads in sorted(feeds.items())
        ],
    )


def _backup(options: argparse.Namespace, output: Output) -> None:
    with open_ledger(options, writable=False) as ledger:
        ledger.node.store.backup(options.file)
    output.result({"file": str(options.file)}, f"backup written to {options.file}")


def _restore(options: argparse.Namespace, output: Output) -> None:
    target = options.node / "store.db"
    if target.exists() and not options.replace:
        raise InvalidInput("there is a store already", advice="give --replace to move it aside")
    kept = (options.node / ("replaced" if not n else f"replaced-{n}") for n in count())
    # Never under a process that has the store open: it would go on writing into the file that was moved aside.
    lock = WriterLock(target.with_name(target.name + ".lock"))
    try:
        restore_store(
            options.file, target, aside=next(directory for directory in kept if not directory.exists())
        )
    finally:
        lock.release()
    with Ledger.open(options.node, unlock_of(options)) as ledger:
        incarnation = ledger.node.writer.incarnation
    output.result({"incarnation": incarnation}, f"restored; the node goes on in incarnation {incarnation}")
