"""One simulated world: machines, network and time, and the record of what was acknowledged, beside the code under test.

Everything is driven by one loop over virtual time; nothing asks the real machine for time or chance, so a plan and a commit
say what happens, bit for bit.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from msgspec import Struct

from ledger.errors import CommandRefused, PeerFault, RxLedgerError, StoreDamaged, StoreFull
from ledger.feed import run_links
from ledger.ids import DocumentId, FeedId, Link, NodeId
from ledger.node import Node
from ledger.writing import Written
from nodes.acquaintances import PeeringSettings
from nodes.wire import Kind
from simulations.machines import DISTRICTS, EPOCH_MS, Machine, template
from simulations.network import Network
from simulations.plan import Plan

__all__ = ["Acknowledged", "Finding", "World"]

SIGNS = 60
"""Signs of life of each machine in a run, however long: seldom enough that a week is quickly told."""
SIGN_MS_MIN = 60_000
BUSES = ("hub", "site")
PLANTED = (b"189002029800", b"196101182803", b"199002222397", b"200001252386", b"Testsson")
"""Of which no byte may ever be on a wire (A15)."""
CATCH_UP_EVENTS_MAX = 2_000_000
"""Of one run: more is a storm, which is a finding."""


class Acknowledged(Struct, frozen=True):
    """An act of which somebody was told that it is durable."""

    machine: str
    link: Link
    act: str
    document: DocumentId
    fill: int = 0
    quantity: int = 0
    custody: bool = False


class Finding(Exception):
    """An invariant does not hold; the message names it."""


class World:
    """What there is, and what happens next."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self.home = plan, directory
        self.now = EPOCH_MS
        sign_ms = max(SIGN_MS_MIN, plan.length_ms // SIGNS)
        self.settings = PeeringSettings(
            sign_ms=sign_ms, idle_ms=2 * sign_ms, give_up_ms=30_000, budget_bytes=1 << 20
        )
        self.hits: Counter[str] = Counter()
        self.network = Network(Random(f"network {plan.seed}"), lambda: self.now, self.hits)
        self.network.quality.delay_ms = plan.delay_ms
        self.machines: dict[str, Machine] = {}
        self.acknowledged: list[Acknowledged] = []
        self.attempted: set[bytes] = set()
        self.commands: list[tuple[str, bytes, Acknowledged]] = []
        self.documents: list[DocumentId] = []
        self.homes: dict[DocumentId, str] = {}
        self.papers: dict[DocumentId, bytes] = {}
        self.outcomes: Counter[str] = Counter()
        self.lines: list[tuple[int, str, str, str]] = []
        """Time, machine, what, outcome: one line an event, for people."""
        self._trace = hashlib.sha256()
        self._wakes: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        self.paused: dict[str, int] = {}
        """Machine → until when its process stands still."""
        self.frontiers: dict[str, dict[bytes, int]] = {}
        self.backups: dict[str, Path] = {}
        self.images: dict[str, Path] = {}
        self.revoked: dict[str, Link] = {}
        """Kind of machine → the entry that revoked it."""
        self._minute = self._of_minute = self.busiest = 0
        """Messages delivered in the busiest minute."""
        self.lawless: set[DocumentId] = set()
        """Documents on which somebody acted without right, and nobody was to be told that it was done."""
        self.recovered = False
        self._later: list[tuple[int, int, Callable[[World], None]]] = []
        self._numbers = 0
        for index, name in enumerate(plan.machines):
            machine = Machine(name, name, directory, lambda: self.now, plan.seed * 100 + index)
            machine.place()
            self.machines[name] = machine
            self.start(machine)

    # --- telling -------------------------------------------------------------------------------------------------------

    def tell(self, machine: str, what: str, outcome: str) -> None:
        """One line of the trace."""
        self.lines.append((self.now - EPOCH_MS, machine, what, outcome))
        self.outcomes[f"{what}: {outcome}"] += 1
        self.note(f"{self.now} {machine} {what} {outcome}".encode())

    def note(self, data: bytes) -> None:
        """Bytes that the same plan must give again."""
        self._trace.update(len(data).to_bytes(4, "big") + data)

    @property
    def trace(self) -> str:
        """Equal for equal plans on the same code."""
        return self._trace.hexdigest()

    # --- life of machines ----------------------------------------------------------------------------------------------

    def buses(self, machine: Machine) -> tuple[str, ...]:
        """On which buses a machine is: all are on the hub, those of the first district share a site's server too."""
        return BUSES if machine.district == DISTRICTS[0] else BUSES[:1]

    def start(self, machine: Machine) -> bool:
        """Start a machine's process; whether it came up."""
        thin = self.network.thin.get(machine.name)
        if not machine.start(self.buses(machine), self.settings, thin):
            self.tell(machine.name, "start", machine.broken)
            if machine.broken not in ("store-damaged", "store-full"):
                raise Finding(f"A12: {machine.name} does not open, and says {machine.broken}")
            return False
        ledger, peering = machine.ledger, machine.peering
        assert ledger is not None
        assert peering is not None

        def written(_district: str, entry: Written) -> None:
            self.attempted.add(entry.link)

        ledger.node.on_written.append(written)
        self._check_restart(machine)
        machine.listening = peering.subjects()
        for bus in self.buses(machine):
            if bus not in self.network.down:
                peering.link_up(bus, machine.monotonic())
        self._wake(machine, self.now)
        return True

    def _check_restart(self, machine: Machine) -> None:
        """A4: heads never go backwards across a restart; A2: what its own feeds hold beyond what was told was attempted."""
        assert machine.ledger is not None
        node, before = machine.ledger.node, self.frontiers.get(machine.name, {})
        with node.lock:
            if before and not list(node.store.feeds()):
                raise Finding(f"A12: {machine.name} opens an empty ledger in place of a damaged one")
            for row in node.store.feeds():
                heads = node.store.heads(row.feed)
                highest = max(head.sequence for head in heads)
                if highest < before.get(row.feed, 0) and not (machine.rolled_back or machine.damaged):
                    raise Finding(
                        f"A4: a feed went back at {machine.name}: {highest} after {before[row.feed]}"
                    )
                if row.author == machine.node:
                    self.attempted.update(_own_links(node, row.feed))

    def remember(self, machine: Machine) -> None:
        """What a machine holds durably before it goes down."""
        if machine.ledger is None:
            return
        node = machine.ledger.node
        with node.lock:
            self.frontiers[machine.name] = {
                row.feed: max(head.sequence for head in node.store.heads(row.feed))
                for row in node.store.feeds()
            }

    def kill(self, machine: Machine, power_cut: Random | None = None) -> None:
        """Its process dies at once; with the power, if chances for that are given."""
        if machine.up:
            self.remember(machine)
            machine.kill(power_cut)
            self.network.forget(machine.name)

    def fail(self, machine: Machine, error: RxLedgerError) -> None:
        """A typed error of its own disk: the process ends, as a daemon's does."""
        self.tell(machine.name, "failed", error.code)
        machine.kill()
        machine.rolled_back = True
        machine.broken = error.code
        self.network.forget(machine.name)

    # --- the loop ------------------------------------------------------------------------------------------------------

    def _wake(self, machine: Machine, at: int) -> None:
        """Wake a machine at a time, and at no other that was meant before."""
        self._due[machine.name] = at
        heapq.heappush(self._wakes, (at, machine.name))

    def run_until(self, end: int) -> None:
        """Let everything happen up to a moment."""
        for _ in range(CATCH_UP_EVENTS_MAX):
            arrival = self.network.next_ms()
            wake = self._wakes[0][0] if self._wakes else None
            later = self._later[0][0] if self._later else None
            following = min((at for at in (arrival, wake, later) if at is not None), default=None)
            if following is None or following > end:
                self.now = max(self.now, end)
                return
            self.now = max(self.now, int(following))
            if later is not None and later <= following:
                heapq.heappop(self._later)[2](self)
            elif arrival is not None and (wake is None or arrival <= wake):
                self._deliver()
            else:
                at, name = heapq.heappop(self._wakes)
                machine = self.machines.get(name)
                if machine is not None and machine.up and self._due.get(name) == at:
                    self._turn(machine)
        raise Finding("A14: the network does not come to rest")

    def _deliver(self) -> None:
        envelope = self.network.pop()
        minute = self.now // 60_000
        self._of_minute = self._of_minute + 1 if minute == self._minute else 1
        self._minute = minute
        self.busiest = max(self.busiest, self._of_minute)
        machine = self.machines.get(envelope.to)
        if machine is None or machine.peering is None:
            return
        until = self.paused.get(machine.name, 0)
        if until > self.now:
            self.network.put_off(envelope, until)
            return
        self.receive(machine, envelope.bus, envelope.subject, envelope.payload)
        self._turn(machine)
        if machine.slow_ms:
            self.hits["D8 slow disk"] += 1
            self.paused[machine.name] = self.now + machine.slow_ms

    def receive(self, machine: Machine, bus: str, subject: str, payload: bytes) -> None:
        """Give a machine bytes; nothing but its own disk may raise (A16)."""
        assert machine.peering is not None
        try:
            with self._not_listening_to_revoked(machine, payload):
                machine.peering.received(bus, subject, payload, machine.monotonic())
        except StoreFull:
            self.hits["D4 refused for want of room"] += 1
        except StoreDamaged as error:
            self.fail(machine, error)

    @contextmanager
    def _not_listening_to_revoked(self, machine: Machine, payload: bytes) -> Iterator[None]:
        """A11: a letter of a node that is revoked, as the machine knows, counts for nothing."""
        ledger, peering = machine.ledger, machine.peering
        if not self.revoked or ledger is None or peering is None or payload[:1] != bytes([Kind.LETTER]):
            yield
            return
        links = [link for kind, link in self.revoked.items() if template().nodes[kind] == payload[1:17]]
        peer = peering.peers.peers.get(NodeId(payload[1:17])) if links else None
        known = peer is not None and any(
            held is not None and not held.detached for held in map(ledger.node.store.by_link, links)
        )
        before = 0 if peer is None else peer.bytes_in
        yield
        if peer is not None and known:
            self.hits["B7 revoked node writes on"] += 1
            if peer.bytes_in != before and not machine.damaged:
                raise Finding(f"A11: {machine.name} listens to a node that it knows to be revoked")

    def _turn(self, machine: Machine) -> None:
        """Let a machine speak, and wake it again when it is due."""
        peering = machine.peering
        if peering is None:
            return
        until = self.paused.get(machine.name, 0)
        if until > self.now:
            self._wake(machine, until)
            return
        try:
            out = peering.poll(machine.monotonic())
        except StoreFull:
            self.hits["D4 refused for want of room"] += 1
            out = []
        except StoreDamaged as error:
            self.fail(machine, error)
            return
        machine.listening = peering.subjects()
        for message in out:
            if any(word in message.payload for word in PLANTED):
                raise Finding(f"A15: a name or number went over the wire from {machine.name}")
            self.network.post(machine.name, message, self._listeners(machine, message.link, message.subject))
        self._wake(machine, max(self.now + 1, peering.next_ms(machine.monotonic()) + machine.asleep_ms))

    def _listeners(self, sender: Machine, bus: str, subject: str) -> list[str]:
        wild = subject.rpartition(".")[0] + ".*"
        return [
            name
            for name, other in self.machines.items()
            if other is not sender
            and other.peering is not None
            and bus in self.buses(other)
            and (subject in other.listening or wild in other.listening)
        ]

    def forget_later(self) -> None:
        """What was still to go wrong does not."""
        self._later.clear()

    def later(self, ms: int, happens: Callable[[World], None]) -> None:
        """Let something happen after a while."""
        self._numbers += 1
        heapq.heappush(self._later, (self.now + ms, self._numbers, happens))

    def stir(self, machine: Machine) -> None:
        """Something happened at a machine: let it speak now."""
        if machine.up:
            self._turn(machine)

    # --- acts ----------------------------------------------------------------------------------------------------------

    def acknowledge(self, done: Acknowledged, command: bytes | None = None) -> None:
        """Somebody was told that an act is durable (A1)."""
        self.acknowledged.append(done)
        machine = self.machines[done.machine]
        believed = machine.clock.now_ms()
        self.hits["the clock went back between two acts"] += believed < machine.last_act_ms
        machine.last_act_ms = believed
        if command is not None:
            self.commands.append((done.machine, command, done))
        self.note(done.link)

    def refuse(self, machine: Machine, act: str, error: RxLedgerError) -> None:
        """An act ended in a typed error."""
        if isinstance(error, StoreDamaged):
            self.fail(machine, error)
            return
        if not isinstance(error, CommandRefused | PeerFault | StoreFull):
            raise Finding(f"A16: {act} at {machine.name} ends in {error.code}") from error
        self.tell(machine.name, act, error.code)


def _own_links(node: Node, feed: FeedId) -> list[Link]:
    return [
        link for run in node.store.runs_after(feed, (), 1 << 40) for link in run_links(node.realm.id, run)
    ]
