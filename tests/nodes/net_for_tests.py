"""Nodes on buses in virtual time: the real peering over real ledgers, and links as bad as a test makes them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path
from random import Random

from ledger import Coded, Ledger, Person, PersonRole
from ledger.ids import NodeId
from ledger.persons import LICENCE_CODE
from nodes.acquaintances import PeeringSettings
from nodes.lines import LinkSettings, Outgoing
from nodes.peering import Peering

NOW_MS = 1_795_500_000_000
OPERATOR = Person(Coded(LICENCE_CODE, "000000"), PersonRole.OPERATOR)


class VirtualClock:
    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.time = now_ms

    def now_ms(self) -> int:
        return self.time


class Member:
    """A node on the net."""

    def __init__(self, name: str, ledger: Ledger, peering: Peering, buses: tuple[str, ...]) -> None:
        self.name, self.ledger, self.peering, self.buses = name, ledger, peering, buses
        self.sent_bytes = self.got_bytes = 0
        self.free_ms = dict.fromkeys(buses, 0.0)

    @property
    def node(self) -> NodeId:
        return self.ledger.node.identity.node


def matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


class Net:
    """Buses that carry messages from each member to those that listen, late, lost or twice."""

    OVERHEAD = 14
    """Of NATS beside subject and payload, each way."""

    def __init__(self, clock: VirtualClock, seed: int = 1) -> None:
        self.clock, self.random = clock, Random(seed)
        self.members: dict[str, Member] = {}
        self._queue: list[tuple[int, int, str, str, str, bytes]] = []
        self._count = 0
        self.latency_ms = 1
        self.drop = self.repeat = 0.0
        self.swap = False
        self.cuts: set[frozenset[str]] = set()
        self.seen: list[tuple[str, bytes]] = []
        """Every subject and payload that crossed."""

    def join(
        self,
        name: str,
        ledger: Ledger,
        *,
        buses: tuple[str, ...] = ("hub",),
        peers: tuple[NodeId, ...] = (),
        thin_bits: int | None = None,
        settings: PeeringSettings | None = None,
    ) -> Member:
        peering = Peering(
            ledger,
            [LinkSettings(name=bus, bits_per_second=thin_bits, thin=thin_bits is not None) for bus in buses],
            settings or PeeringSettings(peers=peers, sign_ms=5_000, idle_ms=10_000, give_up_ms=5_000),
            person=OPERATOR,
            random=Random(f"{self.random.random()}"),
        )
        ledger.node.on_written.append(peering.written)
        member = Member(name, ledger, peering, buses)
        self.members[name] = member
        for bus in buses:
            peering.link_up(bus, self.clock.time)
        return member

    def leave(self, name: str) -> None:
        member = self.members.pop(name)
        member.ledger.node.on_written.remove(member.peering.written)

    def send(self, member: Member, out: Outgoing) -> None:
        self.seen.append((out.subject, out.payload))
        size = len(out.subject) + len(out.payload) + self.OVERHEAD
        member.sent_bytes += size
        at = float(self.clock.time)
        bits = member.peering.lines._lines[out.link].settings.bits_per_second
        if bits is not None:
            at = max(at, member.free_ms[out.link]) + size * 8000 / bits
            member.free_ms[out.link] = at
        for name, other in self.members.items():
            if (
                name == member.name
                or out.link not in other.buses
                or frozenset((name, member.name)) in self.cuts
            ):
                continue
            if not any(matches(pattern, out.subject) for pattern in other.peering.subjects()):
                continue
            copies = 0 if self.random.random() < self.drop else 1 + (self.random.random() < self.repeat)
            for _ in range(copies):
                late = self.random.randint(0, 200) if self.swap else 0
                self._count += 1
                heapq.heappush(
                    self._queue,
                    (int(at) + self.latency_ms + late, self._count, name, out.link, out.subject, out.payload),
                )

    def step(self) -> None:
        """Deliver what is next, and let everybody who is due speak."""
        moments = [m.peering.next_ms(self.clock.time) for m in self.members.values()]
        if self._queue:
            moments.append(self._queue[0][0])
        self.clock.time = max(self.clock.time, min(moments))
        touched = set()
        while self._queue and self._queue[0][0] <= self.clock.time:
            _, _, name, bus, subject, payload = heapq.heappop(self._queue)
            member = self.members.get(name)
            if member is not None:
                member.got_bytes += len(subject) + len(payload) + self.OVERHEAD
                member.peering.received(bus, subject, payload, self.clock.time)
                touched.add(name)
        for name, member in self.members.items():
            if name in touched or member.peering.next_ms(self.clock.time) <= self.clock.time:
                for out in member.peering.poll(self.clock.time):
                    self.send(member, out)

    def speak(self) -> None:
        """Everybody says what they have to say now."""
        for member in self.members.values():
            for out in member.peering.poll(self.clock.time):
                self.send(member, out)

    def run(self, ms: int) -> None:
        """Let time pass."""
        end = self.clock.time + ms
        self.speak()
        while True:
            moments = [m.peering.next_ms(self.clock.time) for m in self.members.values()]
            moments += [self._queue[0][0]] if self._queue else []
            if min(moments) > end:
                self.clock.time = end
                return
            before = self.clock.time
            self.step()
            if self.clock.time == before:
                self.clock.time += 1

    def run_until(self, condition: Callable[[], bool], limit_ms: int) -> int:
        """Let time pass until something is so; returns how long that took."""
        start = self.clock.time
        self.speak()
        while not condition():
            assert self.clock.time - start <= limit_ms, f"not so after {limit_ms} ms"
            before = self.clock.time
            self.step()
            if self.clock.time == before:
                self.clock.time += 1
        return self.clock.time - start


def in_step(*ledgers: Ledger, districts: list[str]) -> bool:
    return all(len({ledger.exchange.district_digest(d) for ledger in ledgers}) == 1 for d in districts)


__all__ = ["NOW_MS", "OPERATOR", "Member", "Net", "Path", "VirtualClock", "in_step"]
