"""Ways from nodes to a hub that can be broken: cables between namespaces where those work, else relays on loopback.

Faults of a byte stream (breaking off in the middle of a message) need relays, faults of packets need cables.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nodes.nats.server import free_ports
from tests.lab.loops import LoopThread
from tests.lab.netlab import Netlab
from tests.lab.proxy import DOWN, UP, Proxy
from tests.lab.wan import Wan, Way

__all__ = ["HUB", "Cables", "Relays"]

HUB = "hub"


class Cables:
    """How nodes reach the hub: network namespaces; with `far`, over a router that delays, loses and repeats packets."""

    kind = "namespaces"

    def __init__(self, hosts: Sequence[str], stack: ExitStack, *, far: bool = False, seed: int = 0) -> None:
        self.net = stack.enter_context(Netlab([HUB, *hosts]))
        self.wan = stack.enter_context(Wan(self.net, seed)) if far else None
        self.hub_address = "0.0.0.0"
        self._address = (self.net if self.wan is None else self.wan).address(HUB)
        self.hub_names = [self._address]
        self._slow: set[str] = set()

    def port(self) -> int:
        """On which the hub listens."""
        return 4222

    def at(self, host: str, command: Sequence[str | Path]) -> list[str]:
        """The command that runs a command on a host, and dies with this process."""
        return self.net.command(host, *command)

    def url(self, host: str) -> str:
        """Host and port by which a host knows the hub."""
        return f"{self._address}:{self.port()}"

    def cut(self, host: str, *ways: int) -> None:
        """Let nothing through: from the host (`UP`), to it (`DOWN`); both unless given. Nobody is told."""
        for way in ways or (UP, DOWN):
            self.net.cut(*((host, HUB) if way == UP else (HUB, host)), one_way=True)

    def rate(self, host: str, bits_per_s: int) -> None:
        """Slow a host's way, both directions."""
        self.net.rate(host, bits_per_s)
        self._slow.add(host)

    def shape(self, host: str, way: Way) -> None:
        """What the way between a host and the hub is like, both directions."""
        assert self.wan is not None
        self.wan.shape(host, HUB, way)

    def heal(self) -> None:
        """Undo everything."""
        self.net.heal()
        while self._slow:
            self.net.unrate(self._slow.pop())
        if self.wan is not None:
            for host in self.net.hosts[1:]:
                self.shape(host, Way())


class Relays:
    """The same with a relay on loopback for each node."""

    kind = "relays"

    def __init__(self, hosts: Sequence[str], stack: ExitStack) -> None:
        self._loop = stack.enter_context(LoopThread())
        self.hub_address, self.hub_names = "127.0.0.1", ["localhost"]
        (self._port,) = free_ports(1)
        self._relays: dict[str, Proxy] = {}
        for host in hosts:
            self._relays[host] = self._loop.call(Proxy(self.hub_address, self._port).start())
            stack.callback(lambda proxy: self._loop.call(proxy.stop()), self._relays[host])

    def port(self) -> int:
        return self._port

    def at(self, host: str, command: Sequence[str | Path]) -> list[str]:
        return ["setpriv", "--pdeathsig", "KILL", *map(str, command)]

    def url(self, host: str) -> str:
        return self._relays[host].address

    def cut(self, host: str, *ways: int) -> None:
        self._loop.do(self._relays[host].hold, *ways)

    def rate(self, host: str, bits_per_s: int) -> None:
        self._loop.do(self._relays[host].slow, bits_per_s)

    def slow(self, host: str, bits_per_s: int, delay_s: float) -> None:
        """Slow a way and make it long."""
        self._loop.do(self._relays[host].slow, bits_per_s, delay_s)

    def reset(self, host: str, after_bytes: int = 0, way: int = UP) -> None:
        """Break a host's connection off, now or in the midst of what is said after so many bytes."""
        relay = self._relays[host]
        self._loop.do(*((relay.reset_after, after_bytes, way) if after_bytes else (relay.reset,)))

    def refuse(self, host: str) -> None:
        """Break a host's connection off, and every new one at once."""
        self._loop.do(self._relays[host].refuse)

    def release(self, host: str) -> None:
        """Undo what was done to one host's way."""
        self._loop.do(self._relays[host].heal)

    def passed(self, host: str) -> int:
        """Bytes that came through on a host's way, both directions."""
        return sum(way.passed for way in self._relays[host].ways)

    def connections(self, host: str) -> int:
        """How often the host has connected."""
        return self._relays[host].accepted

    def heal(self) -> None:
        for relay in self._relays.values():
            self._loop.do(relay.heal)
