# ruff: noqa: ANN401 - what a process is told has no types.
"""A pharmacy's day on the wire: 170 dispensings, and ten hours of being there.

What each thing costs is measured over a real server, both ways at the pharmacy; the day is the sum. *Entries* are what
the pharmacy tells of its dispensings and, with claims, what it asks, is answered and is told of transfers. *Being
there* are signs of life, idle rounds and the server's pings at their usual intervals: it does not depend on the work,
and is stated beside it, for a good link and for a thin one.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.figures import Bench
from benchmarks.network_child import Child, Options
from benchmarks.network_servers import Servers
from benchmarks.world import DISTRICT, PRESCRIBER, SmallRealm, order
from nodes.acquaintances import THIN_SLOWER, PeeringSettings
from nodes.requests import ANSWERS_PER_MINUTE_MAX

__all__ = ["day"]

DISPENSINGS = 170
DAY_SECONDS = 10 * 3600
PING_SECONDS, PING_BYTES = 10, 12
"""Of the link's own pings; those of the server are answered by them."""
NEVER_MS = 10**9
CLAIMS_AT_ONCE = ANSWERS_PER_MINUTE_MAX - 5


def day(bench: Bench, directory: Path, *, claims: bool) -> None:
    """Dispense 170 times, each after a claim or where custody stood there."""
    realm = SmallRealm(directory)
    realm.agency.node.own_feed(DISTRICT)
    realm.replicate()
    holder = (realm.agency if claims else realm.pharmacy).node.identity.node
    documents = [
        realm.prescriber.prescribe(order(n % 40, holder=holder), person=PRESCRIBER).document.hex()
        for n in range(DISPENSINGS)
    ]
    realm.replicate()
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(realm.founded, directory / "servers", {"hub": "hub"}))
        realm.close()

        def child(name: str, **more: Any) -> Child:
            options = Options(
                directory=directory / name,
                unlock=realm.unlock.path,
                urls=[servers.url("hub")],
                ping_s=600,
                **more,
            )
            return stack.enter_context(Child(options))

        agency, pharmacy = (
            child(n, sign_ms=NEVER_MS, idle_ms=NEVER_MS) for n in ("realm/agency", "pharmacy")
        )
        for one in (agency, pharmacy):
            one.ask("connect")
            one.wait(lambda status: bool(status["up"]))
        idle_bytes = _round(pharmacy, agency)
        before, rounds = pharmacy.ask("status"), agency.ask("status")["rounds"]
        for number, document in enumerate(documents, 1):
            if claims:
                if number % CLAIMS_AT_ONCE == 0:
                    time.sleep(60)  # A holder answers so many a minute, and these all come at once.
                told = pharmacy.ask("claim", document=document, number=1)
                assert told["code"] == "", told
            pharmacy.ask("dispense", document=document, number=1)
        agency.wait(lambda status: status["new"] >= DISPENSINGS)
        pharmacy.wait(lambda status: not status["busy"])
        after = pharmacy.ask("status")
        rounds = agency.ask("status")["rounds"] - rounds + after["rounds"] - before["rounds"]
        spent = after["bytes"] - before["bytes"]
        sign_bytes = pharmacy.ask("sign_bytes")
    what = f"a pharmacy's day, {DISPENSINGS} dispensings" + (
        ", a claim each" if claims else ", custody there"
    )
    limit = 130 if claims else 60
    bench.add(f"{what}: entries", spent / 1000, "kB", f"<= {limit}", met=spent <= limit * 1000)
    bench.add(f"{what}: rounds in it", rounds, "")
    if not claims:
        for slower, link in ((1, "good"), (THIN_SLOWER, "thin")):
            usual = PeeringSettings()
            signs = DAY_SECONDS * 1000 // (usual.sign_ms * slower) * sign_bytes
            idle = DAY_SECONDS * 1000 // (usual.idle_ms * slower) * idle_bytes
            pings = DAY_SECONDS // PING_SECONDS * PING_BYTES
            total = (signs + idle + pings) / 1000
            bench.add(f"ten hours of being there on a {link} link, one partner", total, "kB")
            bench.add(
                "  of it: own signs of life / idle rounds / pings",
                signs / 1000,
                "kB",
                f"/ {idle / 1000:.0f} / {pings / 1000:.0f}",
            )


def _round(one: Child, other: Child) -> int:
    """Bytes of an idle round once the two know each other."""
    spent = 0
    for _ in range(3):
        before = one.ask("status")
        one.ask("round", node=other.node)
        deadline = time.monotonic() + 30
        while (status := one.ask("status"))["rounds"] == before["rounds"] or status["busy"]:
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        spent = status["bytes"] - before["bytes"]
    return spent
