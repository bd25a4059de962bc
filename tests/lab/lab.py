"""One laboratory, two ways to build it: hosts in network namespaces, or relays on loopback where those do not work.

A test names hosts, servers on them and who is cut from whom; it runs either way, and `KINDS` says which ways this
machine allows. Both ways are tried where both work.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from nodes.nats.server import find_server, free_ports
from nodes.nats.settings import LinkSettings
from tests.lab import talker
from tests.lab.loops import LoopThread
from tests.lab.netlab import Netlab, why_not
from tests.lab.proxy import DOWN, UP, Proxy
from tests.lab.talker import Talker
from tests.lab.wan import Wan, Way, why_no_wan

__all__ = ["FAR_KINDS", "KINDS", "Lab", "LabServer", "open_lab"]

KINDS: tuple[str, ...] = ("relays",) if why_not() else ("namespaces", "relays")
"""Ways that work here."""
FAR_KINDS: tuple[str, ...] = ("relays",) if why_not() or why_no_wan() else ("namespaces", "relays")
"""Ways that can be made long here: that takes /dev/net/tun besides."""
PORT = 4222
READY_SECONDS = 20.0
CONFIG = 'listen: "{host}:{port}"\nserver_name: {name}\n'


class LabServer:
    """A nats-server on a host, with the least configuration; may be killed, paused and started again, empty."""

    def __init__(self, prefix: Sequence[str], directory: Path, config: str) -> None:
        self._prefix, self._directory = list(prefix), directory
        directory.mkdir(parents=True)
        (directory / "nats.conf").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        options = ["-c", self._directory / "nats.conf", "--ports_file_dir", self._directory]
        options += ["--log", self._directory / "nats.log"]
        self._process = subprocess.Popen([*self._prefix, find_server(), *options], stdin=subprocess.DEVNULL)
        end = time.monotonic() + READY_SECONDS
        while not list(self._directory.glob("*.ports")):
            assert self._process.poll() is None, (self._directory / "nats.log").read_text()
            assert time.monotonic() < end, "the server was not ready in time"
            time.sleep(0.01)

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Lab(Protocol):
    """What both ways offer."""

    kind: str
    hosts: tuple[str, ...]

    def server(self, host: str, more: str = "") -> LabServer:
        """Start a nats-server on a host; `more` is added to its configuration."""
        ...

    def url(self, source: str, target: str) -> str:
        """Where a process on one host finds the server of another."""
        ...

    def talk(
        self, host: str, servers: Sequence[str], subjects: Sequence[str], settings: LinkSettings
    ) -> Talker:
        """Start a process with a link on a host, to the servers of these hosts in turn."""
        ...

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Let nothing through from one to the other, nor back unless `one_way`. Nobody is told."""
        ...

    def heal(self) -> None:
        """Undo all cuts, losses and limits."""
        ...

    def rate(self, host: str, bits_per_s: int) -> None:
        """Slow everything from and to a host."""
        ...

    def shape(self, one: str, other: str, way: Way) -> None:
        """In a laboratory opened as `far`: what the way between two is like. Relays only delay, slow and hold."""
        ...


class NamespaceLab:
    """Hosts in network namespaces."""

    kind = "namespaces"

    def __init__(self, net: Netlab, wan: Wan | None, directory: Path, stack: ExitStack) -> None:
        self.net, self.wan, self.hosts = net, wan, net.hosts
        self._directory, self._stack = directory, stack
        self._slowed: set[str] = set()

    def server(self, host: str, more: str = "") -> LabServer:
        config = CONFIG.format(host=self._address(host), port=PORT, name=host) + more
        one = LabServer(self.net.command(host), self._directory / host, config)
        self._stack.callback(one.kill)
        one.start()
        return one

    def url(self, source: str, target: str) -> str:
        return f"nats://{self._address(target)}:{PORT}"

    def _address(self, host: str) -> str:
        return self.net.address(host) if self.wan is None else self.wan.address(host)

    def talk(
        self, host: str, servers: Sequence[str], subjects: Sequence[str], settings: LinkSettings
    ) -> Talker:
        told = talker.arguments(host, [self.url(host, server) for server in servers], subjects, settings)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        one = Talker(host, self.net.python(host, talker.MODULE, *told, **pipes))
        self._stack.callback(one.close)
        return one

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        self.net.cut(one, other, one_way=one_way)

    def heal(self) -> None:
        self.net.heal()
        while self._slowed:
            self.net.unrate(self._slowed.pop())

    def rate(self, host: str, bits_per_s: int) -> None:
        self.net.rate(host, bits_per_s)
        self._slowed.add(host)

    def shape(self, one: str, other: str, way: Way) -> None:
        assert self.wan is not None
        self.wan.shape(one, other, way)


class RelayLab:
    """Processes on loopback; each pair of hosts speaks through a relay of its own."""

    kind = "relays"

    def __init__(self, hosts: Sequence[str], directory: Path, stack: ExitStack) -> None:
        self.hosts = tuple(hosts)
        self._directory, self._stack = directory, stack
        self._ports = dict(zip(self.hosts, free_ports(len(self.hosts)), strict=True))
        self._loop = stack.enter_context(LoopThread())
        self._relays: dict[tuple[str, str], Proxy] = {}

    def server(self, host: str, more: str = "") -> LabServer:
        config = CONFIG.format(host="127.0.0.1", port=self._ports[host], name=host) + more
        one = LabServer(["setpriv", "--pdeathsig", "KILL"], self._directory / host, config)
        self._stack.callback(one.kill)
        one.start()
        return one

    def relay(self, source: str, target: str) -> Proxy:
        """Between a process on one host and the server of another; made when first asked for."""
        if (source, target) not in self._relays:
            one = self._loop.call(Proxy("127.0.0.1", self._ports[target]).start())
            self._stack.callback(lambda: self._loop.call(one.stop()))
            self._relays[source, target] = one
        return self._relays[source, target]

    def url(self, source: str, target: str) -> str:
        return f"nats://{self.relay(source, target).address}"

    def talk(
        self, host: str, servers: Sequence[str], subjects: Sequence[str], settings: LinkSettings
    ) -> Talker:
        told = talker.arguments(host, [self.url(host, server) for server in servers], subjects, settings)
        root = Path(__file__).resolve().parents[2]
        process = subprocess.Popen(
            [sys.executable, "-m", talker.MODULE, *told],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        one = Talker(host, process)
        self._stack.callback(_end, process)
        self._stack.callback(one.close)
        return one

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        for (source, target), relay in self._relays.items():
            if (source, target) == (one, other):
                self._loop.do(relay.hold, *([UP] if one_way else [UP, DOWN]))
            elif (source, target) == (other, one):
                self._loop.do(relay.hold, *([DOWN] if one_way else [UP, DOWN]))

    def heal(self) -> None:
        for relay in self._relays.values():
            self._loop.do(relay.heal)

    def rate(self, host: str, bits_per_s: int) -> None:
        for pair, relay in self._relays.items():
            if host in pair:
                self._loop.do(relay.slow, bits_per_s)

    def shape(self, one: str, other: str, way: Way) -> None:
        for pair, relay in self._relays.items():
            if set(pair) == {one, other}:
                self._loop.do(relay.slow, way.bits_per_s, way.delay_s + way.jitter_s / 2)
                self._loop.do(relay.hold if way.cut else relay.release)


@contextmanager
def open_lab(kind: str, hosts: Sequence[str], directory: Path, *, far: bool = False) -> Iterator[Lab]:
    """The laboratory of a kind out of `KINDS` (`FAR_KINDS`), for a block; everything in it is gone after it."""
    with ExitStack() as stack:
        if kind == NamespaceLab.kind:
            net = stack.enter_context(Netlab(hosts))
            yield NamespaceLab(net, stack.enter_context(Wan(net)) if far else None, directory, stack)
        else:
            yield RelayLab(hosts, directory, stack)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
