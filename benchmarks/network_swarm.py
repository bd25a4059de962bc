"""1,400 nodes on one hub that comes back after an outage of a day: how long until all hold all that they are to hold.

A pharmacy each: its own store, key, conversations and connection (TLS, login), in as many processes as the machine has
cores; an agency and a relay beside them, each in a process of its own, take all districts. Districts are of the sizes
that the country's municipalities have: one with a tenth of all pharmacies, a few large ones, most with five. Each
pharmacy wrote 170 dispensings while apart, and *none has ever heard of another* but by the register of nodes. All try
to connect when the hub starts, with the back-off that the outage taught them; time counts from then.

Files lie in memory where the machine allows it: 1,400 nodes have 1,400 disks, this machine one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.figures import Bench
from benchmarks.network_child import Child, Options, Told
from benchmarks.network_servers import Servers
from benchmarks.network_swarm_child import Many, Part, start_many
from benchmarks.world import SmallRealm, fill
from ledger import Ledger, NodeRole
from ledger.ids import GOVERNANCE

__all__ = ["NODES", "Outcome", "measure", "return_of"]

NODES = 1_400
DAY = 170
WITHIN_SECONDS = 15 * 60
MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it.
NODE_BYTES = 2_500_000
"""Of file each, on average over the districts; most of it of the large ones."""
REFUSED_SECONDS = 20.0
"""That the nodes try in vain before the hub starts."""
LARGE = (0.10, 0.05, 0.03, 0.02, 0.02)
"""Shares of the largest districts."""
COMMON = 5
"""Pharmacies of all others."""
POLL_SECONDS = 0.5


class Outcome(Struct, kw_only=True):
    """What became of a swarm."""

    nodes: int
    seconds: list[float]
    """From the hub's start until each node was whole, ascending."""
    connected: list[float]
    """And until it was connected."""
    agency_s: float
    """Until the agency held all; the relay the same."""
    relay_s: float
    peak_bytes: int
    """All processes together, the hub left out."""
    hub_bytes: int
    bytes: int
    entries: int
    again: int
    """Entries that came to a pharmacy although it held them."""
    rounds: int
    cpu_s: float
    equal: bool
    """Every district has one digest, on all its nodes, the agency and the relay."""
    problems: dict[str, int]


def measure(bench: Bench, directory: Path, nodes: int = NODES) -> None:
    """Let a swarm return, and state how it went."""
    with ExitStack() as stack:
        if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * nodes * NODE_BYTES:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rxledger-", dir=MEMORY)))
        begun = time.monotonic()
        outcome = return_of(nodes, directory)
        bench.add(f"swarm of {nodes:,}: making and running it", time.monotonic() - begun, "s")
    whole = outcome.seconds[-1]
    median = statistics.median(outcome.seconds)
    met = whole <= WITHIN_SECONDS and outcome.equal
    bench.add(f"swarm of {nodes:,}: last node whole", whole, "s", f"<= {WITHIN_SECONDS}", met=met)
    bench.add("  median node whole", median, "s")
    bench.add("  slowest of the median", whole / median, "x")
    bench.add("  last node connected", outcome.connected[-1], "s")
    bench.add("  agency, relay whole", outcome.agency_s, "s", f"/ {outcome.relay_s:.1f}")
    bench.add("  entries fetched", outcome.entries, "")
    bench.add("  bytes an entry fetched, both ways, all links", outcome.bytes / outcome.entries, "B")
    bench.add("  entries that came in vain, to pharmacies", outcome.again, "")
    bench.add("  rounds a node", outcome.rounds / nodes, "")
    bench.add("  peak memory a node, in its process", outcome.peak_bytes / nodes / 1e6, "MB")
    bench.add("  memory of the hub", outcome.hub_bytes / 1e6, "MB")
    bench.add("  processor time of all nodes", outcome.cpu_s, "s")
    print("  refused or given up:", dict(sorted(outcome.problems.items())) or "nothing", flush=True)


def return_of(nodes: int, directory: Path, *, vain_s: float = REFUSED_SECONDS, day: int = DAY) -> Outcome:
    """Make a swarm, let its hub come back, and wait until every node is whole."""
    parts, hubs, realm = _made(nodes, directory, day)
    with ExitStack() as stack:
        servers = Servers(realm.founded, directory / "servers", {"hub": "hub"})
        urls = [servers.url("hub")]
        realm.close()
        cores = os.cpu_count() or 1
        swarms = [
            stack.enter_context(Told(start_many(Many(realm.unlock.path, urls, parts[core::cores]))))
            for core in range(cores)
        ]
        wide = [
            stack.enter_context(Child(Options(directory=path, unlock=realm.unlock.path, urls=urls)))
            for path in hubs
        ]
        for one in (*swarms, *wide):
            one.ask("connect")
        time.sleep(vain_s)
        start_ns = time.monotonic_ns()
        stack.enter_context(servers)
        _wait(swarms, wide, nodes * day, time.monotonic() + WITHIN_SECONDS)
        # In step once more, so that late openings do not count as a difference.
        told: list[dict[str, Any]] = [swarm.ask("result") for swarm in swarms]
        digests = {(district, digest) for one in told for district, digest in one["digests"]}
        for one in wide:
            theirs = one.ask("digests")
            digests |= {(district, theirs.get(district, "")) for district, _ in list(digests)}
        problems: dict[str, int] = {}
        for one in told:
            for code, count in one["problems"].items():
                problems[code] = problems.get(code, 0) + count
        arrived = [one.ask("happened")["arrived"][-1][0] for one in wide]

        def seconds(name: str) -> list[float]:
            return sorted((at - start_ns) / 1e9 for one in told for at in one[name])

        return Outcome(
            nodes=nodes, seconds=seconds("whole_ns"), connected=seconds("up_ns"),
            agency_s=(arrived[0] - start_ns) / 1e9, relay_s=(arrived[1] - start_ns) / 1e9,
            peak_bytes=sum(one["peak_bytes"] for one in told), hub_bytes=servers.memory_bytes("hub"),
            bytes=sum(one["bytes"] for one in told) + sum(one.ask("status")["bytes"] for one in wide),
            entries=sum(part.lacks for part in parts) + 2 * nodes * day,
            again=sum(one["again"] for one in told),
            rounds=sum(one["rounds"] for one in told), cpu_s=sum(one["cpu_s"] for one in told),
            equal=len(digests) == len({district for district, _ in digests}), problems=problems,
        )  # fmt: skip


def _wait(swarms: Sequence[Told], wide: Sequence[Child], entries: int, deadline: float) -> None:
    """Until all are whole, or it takes too long."""
    while True:
        stand = [swarm.ask("status") for swarm in swarms]
        failed = [what for one in stand for what in one["failed"]]
        if failed:
            raise RuntimeError(f"parts of nodes ended: {failed[:3]}")
        new = [one.ask("status")["new"] for one in wide]
        if not any(one["missing"] for one in stand) and all(count >= entries for count in new):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not whole in time: {stand}, {new} of {entries}")
        time.sleep(POLL_SECONDS)


def districts(nodes: int) -> Iterator[int]:
    """Sizes of the districts of so many pharmacies."""
    left = nodes
    for share in LARGE:
        size = min(left, max(COMMON, int(nodes * share)))
        if size:
            yield size
        left -= size
    while left > 0:
        yield min(left, COMMON)
        left -= COMMON


def _made(nodes: int, directory: Path, day: int) -> tuple[list[Part], list[Path], SmallRealm]:
    """Enrol and let write; everybody knows the register of nodes, nobody anything else."""
    realm = SmallRealm(directory)
    relay = realm.enrol("relay", NodeRole.RELAY)
    parts, paths = [], []
    for place, size in enumerate(districts(nodes)):
        district = f"SE-X-{place:04}"
        for number in range(size):
            name = f"ph-{place}-{number}"
            with realm.enrol(name, NodeRole.PHARMACY, district) as ledger:
                fill(ledger.node, day, of=name, district=district)
            parts.append(Part(directory / name, (size - 1) * day))
            paths.append(directory / name)
    for path in paths:
        with Ledger.open(path, realm.unlock) as ledger:
            _learn_register(ledger, realm.agency)
    _learn_register(relay, realm.agency)
    relay.close()
    return parts, [directory / "realm" / "agency", directory / "relay"], realm


def _learn_register(ledger: Ledger, agency: Ledger) -> None:
    ours = ledger.exchange.frontier(GOVERNANCE)
    for feed in agency.exchange.frontier(GOVERNANCE):
        ledger.exchange.import_runs(agency.exchange.runs(feed, ours.get(feed, ()), 1 << 30))
