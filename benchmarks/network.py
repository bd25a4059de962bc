# ruff: noqa: ANN401 - what a process is told has no types.
"""What replication costs over real servers, between nodes in processes of their own.

Servers are made by the generator, with TLS and logins; nodes run what the daemon runs (`benchmarks.network_child`).
Bytes are those of the NATS protocol at one node, sent and received together, subjects and pings included, TLS and TCP
not. Entries are counted as the runs that hold them, encoded.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Bench, percentile
from benchmarks.large import fill_large, fill_wide
from benchmarks.network_child import Child, Options
from benchmarks.network_day import day
from benchmarks.network_servers import Servers
from benchmarks.network_thin import thin
from benchmarks.world import DISTRICT, SmallRealm, fill
from ledger import Ledger, NodeRole

__all__ = ["measure"]

SHARED, APART = 20_000, 500
ROUNDS = 9
WIDE_FEEDS = 5_000
LARGE_ENTRIES = 1_000_000
LIVE_ENTRIES = 300
NEVER_MS = 10**9
"""For signs of life and rounds that a measurement begins itself."""
TURNS = 5


def measure(bench: Bench, directory: Path) -> None:
    """All figures but those of the swarm."""
    idle(bench, directory / "idle-small", 1_000, feeds=0)
    idle(bench, directory / "idle-wide", 1_000, feeds=WIDE_FEEDS)
    healing(bench, directory / "healing")
    bootstrap(bench, directory / "bootstrap")
    across_hubs(bench, directory / "hubs")
    thin(bench, directory / "thin")
    day(bench, directory / "day", claims=False)
    day(bench, directory / "day-claims", claims=True)
    idle(bench, directory / "idle-large", LARGE_ENTRIES, feeds=0)


class Stage:
    """A small realm whose nodes run as processes on servers."""

    def __init__(self, directory: Path, servers: Mapping[str, str] | None = None) -> None:
        self.directory, self._names = directory, servers or {"hub": "hub"}
        self.realm = SmallRealm(directory)
        self._stack = ExitStack()
        self.servers: Servers

    @contextmanager
    def open(self) -> Iterator[Stage]:
        """Run the servers; whoever is to log in is enrolled by now."""
        with self._stack as stack:
            self.servers = Servers(self.realm.founded, self.directory / "servers", self._names)
            stack.enter_context(self.servers)
            self.realm.close()
            yield self

    def child(self, name: str, hub: str = "hub", **more: Any) -> Child:
        """Run a node, connected; one that was closed before."""
        options = Options(
            directory=self.directory / name,
            unlock=self.realm.unlock.path,
            urls=[self.servers.url(hub)],
            **more,
        )
        return self._stack.enter_context(Child(options))


def connect(*children: Child) -> None:
    """Connect them all, and wait until they are."""
    for child in children:
        child.ask("connect")
    for child in children:
        child.wait(lambda status: bool(status["up"]))


def in_step(one: Child, other: Child, *, seconds: float = 60.0) -> None:
    """Wait until both hold the same, and nothing is under way."""
    for child in (one, other, one):
        child.wait(lambda status: not status["busy"], seconds)
    ours, theirs = one.ask("digests"), other.ask("digests")
    if any(ours[d] != theirs[d] for d in ours.keys() & theirs.keys()):
        raise RuntimeError("the two do not hold the same")


# --- idle rounds ------------------------------------------------------------------------------------------------------


def idle(bench: Bench, directory: Path, entries: int, *, feeds: int) -> None:
    """Bytes of a round of two that hold the same."""
    stage = Stage(directory)
    pair = [stage.realm.enrol(name, NodeRole.RELAY) for name in ("one", "other")]
    if feeds:
        fill_wide(pair, stage.realm, feeds)
    else:
        fill_large(pair, stage.realm, entries)
    for ledger in pair:
        ledger.close()
    with stage.open():
        one, other = (
            stage.child(n, sign_ms=NEVER_MS, idle_ms=NEVER_MS, ping_s=600) for n in ("one", "other")
        )
        connect(one, other)
        bytes_, times = [], []
        for number in range(ROUNDS + 2):
            before = one.ask("status")
            one.ask("round", node=other.node)
            one.wait(lambda s, n=before["rounds"]: s["rounds"] > n and not s["busy"])  # type: ignore[misc]
            other.wait(lambda s: not s["busy"])
            if number >= 2:  # The first introduce the two.
                bytes_.append(one.ask("status")["bytes"] - before["bytes"])
                times.append(0)
        in_step(one, other)
    limit = 600 if feeds else 300
    what = f"{feeds:,} feeds" if feeds else f"{entries:,} entries"
    size = statistics.median(bytes_)
    bench.add(f"idle round, {what}", size, "B", f"<= {limit}", met=size <= limit)


# --- healing ----------------------------------------------------------------------------------------------------------


def healing(bench: Bench, directory: Path) -> None:
    """Two that shared 20,000 entries and wrote 500 each while apart."""
    stage = Stage(directory)
    realm = stage.realm
    fill(realm.pharmacy.node, SHARED)
    realm.replicate()
    marks = {name: getattr(realm, name).exchange.frontier(DISTRICT) for name in ("prescriber", "pharmacy")}
    ratios, times, ups = [], [], []
    with stage.open():
        for turn in range(TURNS):
            one, other = (stage.child(name, idle_ms=NEVER_MS) for name in ("prescriber", "pharmacy"))
            for child in (one, other):
                child.ask("write", count=APART, of=f"apart {turn} {child.node}")
                child.ask("forget")
            connect(one, other)
            for child in (one, other):
                child.wait(lambda status: bool(status["new"] >= APART))
            in_step(one, other)
            happened = [child.ask("happened") for child in (one, other)]
            crossed = one.ask("status")["bytes"] - happened[0]["up_bytes"]
            for child in (one, other):
                child.close()
            ledgers = [Ledger.open(stage.directory / n, realm.unlock) for n in ("prescriber", "pharmacy")]
            size = sum(_size_since(ledger, marks[name]) for name, ledger in zip(marks, ledgers, strict=True))
            marks = {n: led.exchange.frontier(DISTRICT) for n, led in zip(marks, ledgers, strict=True)}
            for ledger in ledgers:
                ledger.close()
            durable = max(told["arrived"][-1][0] for told in happened)
            ratios.append(crossed / size)
            times.append((durable - min(told["spoke_ns"] for told in happened)) / 1e9)
            ups.append((durable - max(told["up_ns"] for told in happened)) / 1e9)
    ratio, rounds, up = (statistics.median(values) for values in (ratios, times, ups))
    bench.add(
        "healing 2 x 500 on 20,000, bytes of the entries' own", ratio, "x", "<= 1.15", met=ratio <= 1.15
    )
    bench.add("healing, from its first word until durable", rounds, "s", "<= 0.5", met=rounds <= 0.5)
    bench.add("healing, from when both are connected", up, "s", "<= 0.5", met=up <= 0.5)


def _size_since(ledger: Ledger, mark: Mapping[Any, Any]) -> int:
    """Bytes of what a node wrote itself since it had these heads."""
    feed = ledger.node.own_feed(DISTRICT)
    return len(msgspec.msgpack.encode(list(ledger.exchange.runs(feed, mark.get(feed, ()), 1 << 30))))


# --- bootstrap --------------------------------------------------------------------------------------------------------


def bootstrap(bench: Bench, directory: Path) -> None:
    """Nodes with empty stores that fetch 20,000 entries."""
    stage = Stage(directory)
    names = [f"empty-{turn}" for turn in range(TURNS)]
    for name in names:
        stage.realm.enrol(name, NodeRole.PHARMACY).close()
    fill(stage.realm.pharmacy.node, SHARED)
    rates, sizes, ups, efforts = [], [], [], []
    with stage.open():
        full = stage.child("pharmacy", idle_ms=NEVER_MS)
        connect(full)
        for name in names:
            empty = stage.child(name, idle_ms=NEVER_MS)
            before = [child.ask("status")["cpu_s"] for child in (empty, full)]
            connect(empty)
            count = empty.wait(lambda status: bool(status["new"] >= SHARED))["new"]
            in_step(empty, full)
            told = empty.ask("happened")
            took = (told["arrived"][-1][0] - told["spoke_ns"]) / 1e9
            rates.append(count / took)
            ups.append((told["arrived"][-1][0] - told["up_ns"]) / 1e9)
            after = [child.ask("status")["cpu_s"] for child in (empty, full)]
            efforts.append(count / max(b - a for a, b in zip(before, after, strict=True)))
            sizes.append((empty.ask("status")["bytes"] - told["up_bytes"]) / count)
            empty.close()
    rate, size = statistics.median(rates), statistics.median(sizes)
    bench.add(f"bootstrap of {SHARED:,}, from its first word", rate, "/s", ">= 30,000", met=rate >= 30_000)
    effort = statistics.median(efforts)
    bench.add("bootstrap, of a second's processor time, the busier side", effort, "/s")
    bench.add("bootstrap, from connected until durable", statistics.median(ups), "s")
    bench.add("bootstrap, an entry", size, "B", "<= 270", met=size <= 270)


# --- live -------------------------------------------------------------------------------------------------------------


def across_hubs(bench: Bench, directory: Path) -> None:
    """From an entry's being durable at its author's until it is at a node behind another hub."""
    stage = Stage(directory, {"n1": "national", "hub-a": "hub", "hub-b": "hub"})
    with stage.open():
        one, other = stage.child("prescriber", "hub-a"), stage.child("pharmacy", "hub-b")
        connect(one, other)
        one.ask("prescribe", count=1, holder=other.node)
        other.wait(lambda status: bool(status["new"]))
        in_step(one, other)
        for child in (one, other):
            child.ask("forget")
        one.ask("prescribe", count=LIVE_ENTRIES, holder=other.node, gap_ms=15)
        other.wait(lambda status: bool(status["new"] >= LIVE_ENTRIES))
        wrote, came = (child.ask("happened")["entries"] for child in (one, other))
    times = [(came[name] - at) / 1e6 for name, at in wrote.items() if name in came]
    p50, p99 = statistics.median(times), percentile(times, 0.99)
    bench.add(f"new entry across two hubs, p50 of {len(times)}", p50, "ms", "<= 10", met=p50 <= 10)
    bench.add(
        "new entry across two hubs, p99", p99, "ms", "<= 50", met=p99 <= 50 and len(times) == LIVE_ENTRIES
    )
