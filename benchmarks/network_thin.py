"""A link of 9,600 bit/s with a megabyte of lower lanes queued: how long a new dispensing takes to the other side.

The limit: its own bytes, a round trip, and two kilobytes in flight, packets' own bytes counted, at the link's speed.

In network namespaces, the pharmacy's cable slowed by the kernel (a token bucket of one packet); where those do not work,
through a relay that forwards at that pace.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Bench
from benchmarks.network_child import Child, Options
from benchmarks.network_servers import Servers
from benchmarks.world import PHARMACIST, PRESCRIBER, SmallRealm, order
from tests.lab.loops import LoopThread
from tests.lab.netlab import Netlab, why_not
from tests.lab.proxy import Proxy

__all__ = ["thin"]

BITS_PER_S = 9_600
WAITING_BYTES = 1_000_000
NOTE_BYTES = 300
DISPENSINGS = 5
PAUSE_SECONDS = 8.0
"""Between dispensings: the link is to be full of other things again."""
IN_FLIGHT_BYTES = 2_048
FRAMING_BYTES = 52 + 14 + 22
"""TCP/IP with timestamps, Ethernet (which the token bucket counts), a TLS record: of each packet."""
SMALLEST_BYTES = 52 + 14
"""A packet with nothing in it: a round trip takes two of them."""


def thin(bench: Bench, directory: Path) -> None:
    """Dispense in the midst of a long catching up."""
    realm = SmallRealm(directory)
    holder = realm.pharmacy.node.identity.node
    documents = [
        realm.prescriber.prescribe(order(n % 4, holder=holder), person=PRESCRIBER).document for n in range(40)
    ]
    realm.replicate()
    noise = random.Random(1)
    waiting = 0
    while waiting < WAITING_BYTES:
        text = noise.randbytes(NOTE_BYTES // 2).hex()
        receipt = realm.pharmacy.not_dispensed(documents[waiting % 40], 1, text, person=PHARMACIST)
        stored = realm.pharmacy.node.store.by_link(receipt.link)
        assert stored is not None
        assert stored.lane > 1
        waiting += len(stored.sealed or b"")
    with ExitStack() as stack:
        servers = stack.enter_context(_place(realm, directory))
        realm.close()
        place, command, urls = servers
        far = stack.enter_context(
            Child(_options(directory, "prescriber", realm, urls[0], slow=False), command=command[0])
        )
        near = stack.enter_context(
            Child(_options(directory, "pharmacy", realm, urls[1], slow=True), command=command[1])
        )
        for child in (far, near):
            child.ask("connect")
            child.wait(lambda status: bool(status["up"]))
        round_trip_s = near.ask("round_trip")
        near.wait(lambda status: bool(status["sending"]), 120)
        far.wait(lambda status: status["new"] >= 20, 120)
        times, sizes = [], []
        begun_s, sent = time.monotonic(), near.ask("status")["sent"]
        for number in range(DISPENSINGS):
            time.sleep(PAUSE_SECONDS)
            name, size = near.ask("dispense", document=documents[number].hex(), number=1)
            far.wait(lambda _, n=name: n in far.ask("happened")["entries"], 120)  # type: ignore[misc]
            times.append((far.ask("happened")["entries"][name] - near.ask("happened")["entries"][name]) / 1e9)
            sizes.append(size)
        status = near.ask("status")
        left = status["sending"]
        used = (status["sent"] - sent) * 8 / BITS_PER_S / (time.monotonic() - begun_s)
    byte_s = 8 / BITS_PER_S
    own_s = (statistics.median(sizes) + FRAMING_BYTES) * byte_s
    round_trip_s += 2 * SMALLEST_BYTES * byte_s
    limit = own_s + round_trip_s + (IN_FLIGHT_BYTES + 2 * FRAMING_BYTES) * byte_s
    median, worst = statistics.median(times), max(times)
    goal = f"<= {limit:.2f}"
    bench.add(
        f"dispensing over 9,600 bit/s, 1 MB waiting ({place})",
        median,
        "s",
        goal,
        met=left and median <= limit,
    )
    bench.add(f"the same, worst of {DISPENSINGS}", worst, "s", goal, met=left and worst <= limit)
    bench.add("the link's round trip", 1e3 * round_trip_s, "ms")
    bench.add("of the link used meanwhile, by the words of NATS alone", 100 * used, "%")


def _options(directory: Path, name: str, realm: SmallRealm, url: str, *, slow: bool) -> Options:
    return Options(directory=directory / name, unlock=realm.unlock.path, urls=[url], thin=slow)


@contextmanager
def _place(realm: SmallRealm, directory: Path) -> Iterator[tuple[str, list[list[str]], list[str]]]:
    """What the place is, the commands that enter it, and where each of the two finds the server."""
    with ExitStack() as stack:
        if why_not():
            servers = stack.enter_context(Servers(realm.founded, directory / "servers", {"hub": "hub"}))
            loop = stack.enter_context(LoopThread())
            relay = loop.call(Proxy("127.0.0.1", int(servers.url("hub").rsplit(":", 1)[1])).start())
            stack.callback(lambda: loop.call(relay.stop()))
            loop.do(relay.slow, BITS_PER_S)
            yield "relay", [[], []], [servers.url("hub"), f"tls://{relay.address}"]
        else:
            lab = stack.enter_context(Netlab(["hub", "far", "near"]))
            servers = Servers(
                realm.founded, directory / "servers", {"hub": "hub"}, address=lab.address("hub"),
                command=lab.command("hub"),
            )  # fmt: skip
            stack.enter_context(servers)
            lab.rate("near", BITS_PER_S)
            yield "namespace", [lab.command("far"), lab.command("near")], [servers.url("hub")] * 2
