"""`make bench`: the figures that the project promises, each beside its floor, in one run.

Medians; ratios within one run; versions and machine stated. Nothing here passes or fails a test: it prints what it
measured and whether that meets the goal. ``--full`` also fills a store with a million entries, ``--only`` measures one
part; the *swarm* of 1,400 nodes is measured only so.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from benchmarks import network, network_swarm
from benchmarks.figures import Bench, percentile, timed
from benchmarks.large import fill_large
from benchmarks.world import DISTRICT, PHARMACIST, PHARMACY, PRESCRIBER, SmallRealm, fill, order
from ledger import Ledger, NodeRole, Supply
from ledger.events import Dispensed, event_json
from ledger.feed import Run
from nodes.bundle import export_bundle, import_bundle
from nodes.inprocess import synchronise

__all__ = ["main"]

BUNDLE_ENTRIES = 20_000
LARGE_ENTRIES = 1_000_000


def append_against_floor(bench: Bench, realm: SmallRealm) -> None:
    """A durable append beside what it cannot do without: one commit, one signature, one seal."""
    database = sqlite3.connect(realm.directory / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)")
    key, cipher, body = Ed25519PrivateKey.generate(), AESGCMSIV(os.urandom(32)), os.urandom(300)

    def floor(_: int) -> None:
        sealed = cipher.encrypt(bytes(12), body, b"")
        signature = key.sign(sealed[:32])
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO t VALUES(NULL,?)", (sealed + signature,))
        database.execute("COMMIT")

    holder = realm.pharmacy.node.identity.node
    receipts = [
        realm.prescriber.prescribe(order(n % 4, holder=holder), person=PRESCRIBER) for n in range(400)
    ]

    def append(number: int) -> None:
        realm.prescriber.amend(
            receipts[number % 400].document, person=PRESCRIBER, dosage=f"{number} tabletter"
        )

    timed(floor, 50)
    timed(append, 50)
    floors, appends = [], []
    for turn in range(8):  # In turns, so that the machine's drift meets both alike.
        floors += timed(floor, 40)
        appends += timed(lambda n, t=turn: append(50 + t * 40 + n), 40)  # type: ignore[misc]
    low, ours = statistics.median(floors), statistics.median(appends)
    bench.add("durable append, floor (commit + sign + seal)", 1 / low, "/s")
    bench.add("durable append", 1 / ours, "/s", ">= 60 % of the floor", met=low / ours >= 0.6)
    bench.add("durable append, share of the floor", 100 * low / ours, "%")


def sizes(bench: Bench, realm: SmallRealm) -> None:
    """Bytes of a realistic dispensing: in a run, alone, on disk."""
    holder = realm.pharmacy.node.identity.node
    receipts = [
        realm.prescriber.prescribe(order(n % 4, holder=holder), person=PRESCRIBER) for n in range(500)
    ]
    realm.replicate()
    store = realm.pharmacy.node.store
    links = [
        realm.pharmacy.dispense(
            r.document, Supply(fill=1, quantity=100, pharmacy=PHARMACY), person=PHARMACIST
        ).link
        for r in receipts
    ]
    feed = realm.pharmacy.node.own_feed(DISTRICT)
    runs: list[Run] = list(realm.pharmacy.exchange.runs(feed, (), 1 << 30))
    entries = sum(len(run.entries) for run in runs)
    bench.add(
        "dispensing in a run",
        len(msgspec.msgpack.encode(runs)) / entries,
        "B",
        "<= 260",
        met=len(msgspec.msgpack.encode(runs)) / entries <= 260,
    )
    stored = store.by_link(links[-1])
    if stored is None:
        raise RuntimeError("the last dispensing has gone")
    alone = len(msgspec.msgpack.encode(Run(feed, stored.previous, (stored.entry(),))))
    bench.add("dispensing sent alone", alone, "B", "<= 330", met=alone <= 330)
    opened = realm.pharmacy.node.reader.open(stored).fact
    if opened is None or not isinstance(opened.event, Dispensed):
        raise RuntimeError("the last dispensing cannot be read")
    bench.add("its event as JSON", len(event_json(opened.event_bytes)), "B", "about 300")


def disk_size(bench: Bench, path: Path, entries: int) -> None:
    """Bytes on disk of a store that holds a bundle's entries, all in."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    size = path.stat().st_size / entries
    bench.add("on disk, an entry, all in", size, "B", "<= 450", met=size <= 450)


def bulk_import(bench: Bench, realm: SmallRealm, *, full: bool) -> None:
    """Import of a bundle, verified and durable; into an empty store, and into one with a million entries."""
    start = time.perf_counter()
    fill(realm.pharmacy.node, BUNDLE_ENTRIES)
    bench.add("written in batches of 1,000", BUNDLE_ENTRIES / (time.perf_counter() - start), "/s")
    node = realm.pharmacy.node
    bundle = io.BytesIO()
    report = export_bundle(
        realm.pharmacy.exchange, node.keys.signing, node.identity.certificates, bundle, now_ms=node.now_ms()
    )
    bench.add(
        "bundle, an entry",
        len(bundle.getvalue()) / report.entries,
        "B",
        "<= 260",
        met=len(bundle.getvalue()) / report.entries <= 260,
    )
    rates = []
    for turn in range(5):
        empty = realm.enrol(f"empty-{turn}", NodeRole.RELAY)
        bundle.seek(0)
        cpu, start = time.process_time(), time.perf_counter()
        taken = import_bundle(empty.exchange, bundle)
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        rates.append((taken.new / wall, taken.new / used))
        empty.close()
    rate = statistics.median(r for r, _ in rates)
    bench.add(
        f"import of {report.entries:,} entries, verified and durable",
        rate,
        "/s",
        ">= 60,000",
        met=rate >= 60_000,
    )
    disk_size(bench, realm.directory / "empty-0" / "store.db", report.entries)
    if full:
        into_large(bench, realm, bundle, rate)


def into_large(bench: Bench, realm: SmallRealm, bundle: io.BytesIO, rate: float) -> None:
    """The same bundle into a store that holds a million other entries."""
    large = realm.enrol("large", NodeRole.RELAY)
    seconds = fill_large(large, realm, LARGE_ENTRIES)
    bench.add("filling a store to a million entries", LARGE_ENTRIES / seconds, "/s")
    bundle.seek(0)
    start = time.perf_counter()
    taken = import_bundle(large.exchange, bundle)
    slow = taken.new / (time.perf_counter() - start)
    bench.add("import into a million entries", slow, "/s", "<= 2 x slower", met=rate / slow <= 2)
    bench.add("import into a million entries, slower by", rate / slow, "x")
    large.close()


def states(bench: Bench, realm: SmallRealm) -> None:
    """State of a prescription of ten events, cold and warm; a decision; a patient's list."""
    holder = realm.pharmacy.node.identity.node
    documents = []
    for number in range(300):
        receipt = realm.prescriber.prescribe(order(number % 4, holder=holder, fills=9), person=PRESCRIBER)
        for change in range(9):
            realm.prescriber.amend(receipt.document, person=PRESCRIBER, dosage=f"{change} tabletter dagligen")
        documents.append(receipt.document)
    realm.replicate()
    ledger = realm.pharmacy
    while ledger.inquiry.settle():
        pass
    reopened = _reopened(ledger, realm, "pharmacy")
    cold = timed(lambda n: reopened.node.reader.state(documents[n]), 300)
    warm = timed(lambda n: reopened.node.reader.state(documents[n]), 300)
    folded = timed(lambda n: reopened.node.reader.fold_anew(documents[n]), 300)
    bench.add(
        "state of ten events, cold (sealed snapshot), p50",
        1e3 * statistics.median(cold),
        "ms",
        "<= 0.3",
        met=statistics.median(cold) <= 3e-4,
    )
    bench.add(
        "state of ten events, cold (sealed snapshot), p99",
        1e3 * percentile(cold, 0.99),
        "ms",
        "<= 1",
        met=percentile(cold, 0.99) <= 1e-3,
    )
    bench.add(
        "state of ten events, warm, p50",
        1e3 * statistics.median(warm),
        "ms",
        "<= 0.3",
        met=statistics.median(warm) <= 3e-4,
    )
    bench.add(
        "state of ten events, warm, p99",
        1e3 * percentile(warm, 0.99),
        "ms",
        "<= 1",
        met=percentile(warm, 0.99) <= 1e-3,
    )
    bench.add("state of ten events, folded from its entries, p50", 1e3 * statistics.median(folded), "ms")
    decisions = timed(lambda n: reopened.assess(documents[n], Supply(fill=1)), 300)
    bench.add(
        "a decision, p99",
        1e3 * percentile(decisions, 0.99),
        "ms",
        "<= 2",
        met=percentile(decisions, 0.99) <= 2e-3,
    )
    patients(bench, realm, reopened)
    reopened.close()


def _reopened(ledger: Ledger, realm: SmallRealm, name: str) -> Ledger:
    ledger.close()
    realm.pharmacy = Ledger.open(realm.directory / name, realm.unlock)
    return realm.pharmacy


def patients(bench: Bench, realm: SmallRealm, ledger: Ledger) -> None:
    """The list of a patient with ten prescriptions, lookup logged durably."""
    holder = ledger.node.identity.node
    patient = order(77, holder=holder).patient
    for _ in range(10):
        realm.prescriber.prescribe(order(77, holder=holder), person=PRESCRIBER)
    synchronise(realm.prescriber.exchange, ledger.exchange)
    times = timed(lambda _: ledger.patient(patient, person=PHARMACIST, purpose="dispensing"), 100)
    found = len(ledger.patient(patient, person=PHARMACIST, purpose="dispensing").prescriptions)
    bench.add(
        f"a patient's list of {found} prescriptions, p50",
        1e3 * statistics.median(times),
        "ms",
        "<= 5",
        met=found == 10 and statistics.median(times) <= 5e-3,
    )


def start_up(bench: Bench) -> None:
    """`import ledger` beside importing what it depends on."""
    third = (
        "import automerge.core, cryptography.x509, msgspec, structlog, zstandard; "
        "from cryptography.hazmat.primitives.asymmetric import ed25519, x25519; "
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV; "
        "from cryptography.hazmat.primitives.kdf import hkdf, scrypt; import sqlite3, hashlib, hmac, datetime"
    )
    # Compiled modules are kept, as on every installed system.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    codes = ("pass", third, "import ledger")
    times: dict[str, list[float]] = {code: [] for code in codes}
    for turn in range(12):
        for code in codes:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            if turn:
                times[code].append(time.perf_counter() - begin)
    bare, theirs, ours = (statistics.median(times[code]) for code in codes)
    ratio = (ours - bare) / (theirs - bare)
    bench.add("import ledger", 1e3 * (ours - bare), "ms")
    bench.add("import ledger, of its dependencies' import", ratio, "x", "<= 1.3", met=ratio <= 1.3)


Part = Callable[[Bench, Path], None]


def on_realm(part: Callable[[Bench, SmallRealm], None]) -> Part:
    """A part that measures on a small realm of its own."""

    def measured(bench: Bench, directory: Path) -> None:
        realm = SmallRealm(directory)
        part(bench, realm)
        realm.close()

    return measured


def parts(*, full: bool) -> dict[str, Part]:
    """What can be measured, by name."""
    return {
        "start": lambda bench, _: start_up(bench),
        "append": on_realm(append_against_floor),
        "sizes": on_realm(sizes),
        "states": on_realm(states),
        "import": on_realm(partial(bulk_import, full=full)),
        "network": network.measure,
        "swarm": network_swarm.measure,
    }


SEPARATE = frozenset({"swarm"})
"""Parts that take many minutes: only when named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything; print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also a store of a million entries (minutes)")
    parser.add_argument(
        "--only", action="append", choices=sorted(parts(full=False)), help="one part; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, {os.cpu_count()} cores"
    )
    bench = Bench()
    for name, part in parts(full=options.full).items():
        if name in options.only if options.only else name not in SEPARATE:
            with tempfile.TemporaryDirectory(prefix="rxledger-bench-") as directory:
                part(bench, Path(directory))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bench.add("peak memory of this process", peak, "MiB")
    if options.json:
        figures = [
            {"name": f.name, "value": f.value, "unit": f.unit, "goal": f.goal, "met": f.met}
            for f in bench.figures
        ]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    missed = [f.name for f in bench.figures if f.met is False]
    print(f"{len(missed)} goals missed" + (": " + "; ".join(missed) if missed else ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
