"""A long, thin and unreliable way between hosts in namespaces: delay, jitter, loss, repetition, rate, cut; seeded.

For kernels without netem. Every host gets a second interface (TUN); what it sends there a router in user space takes,
holds for as long as the way is long, and hands on, or not. Real TCP on top meets all of it as packets.

Run as a module it is the router, beside the hosts; `Wan` is its handle in a test.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import functools
import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.netlab import SEARCH_PATH, Netlab, NetlabFailed

__all__ = ["Wan", "Way", "why_no_wan"]

NETWORK = "10.78.0"
DEVICE = "wan0"
MTU = 1400
QUEUE_S = 20.0
"""A modem's: longer than it should be, as they are."""
ANSWER_BYTES_MAX = 4096
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Way:
    """One direction between two hosts."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added, anything up to it, for each packet alone: they overtake each other."""
    loss: float = 0.0
    repeat: float = 0.0
    bits_per_s: float = 0.0
    """0: no limit."""
    cut: bool = False


class Wan:
    """A context manager over a laboratory: hosts have a second address while it lasts."""

    def __init__(self, net: Netlab, seed: int = 0) -> None:
        self._net, self._seed = net, seed
        self._router: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        root = str(Path(__file__).resolve().parents[2])
        self._router = subprocess.Popen(
            self._net.beside("env", f"PATH={SEARCH_PATH}", f"PYTHONPATH={root}", sys.executable, "-m", "tests.lab.wan",
                             str(self._seed), *self._net.hosts),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert self._router.stdout is not None
            if not self._router.stdout.readline():
                raise NetlabFailed(
                    f"no router: {self._router.communicate()[1].strip().rpartition(chr(10))[2]}"
                )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the second interfaces away."""
        if self._router is None:
            return
        self._router.kill()
        self._router.wait()
        for stream in (self._router.stdin, self._router.stdout, self._router.stderr):
            if stream is not None:
                stream.close()
        self._router = None

    def address(self, host: str) -> str:
        """Of a host, on this network."""
        return f"{NETWORK}.{self._net.hosts.index(host) + 1}"

    def shape(self, one: str, other: str, there: Way, back: Way | None = None) -> None:
        """What the way from one to the other is like, and the way back (the same, unless given)."""
        self._ask("shape", one, other, asdict(there))
        self._ask("shape", other, one, asdict(there if back is None else back))

    def counts(self) -> dict[str, int]:
        """Packets passed, lost and repeated."""
        found: dict[str, int] = self._ask("counts")
        return found

    def _ask(self, *command: Any) -> Any:
        assert self._router is not None
        assert self._router.stdin is not None
        assert self._router.stdout is not None
        self._router.stdin.write(json.dumps(command) + "\n")
        self._router.stdin.flush()
        return json.loads(self._router.stdout.readline())


@functools.cache
def why_no_wan() -> str:
    """Why this does not work here; empty if it does."""
    try:
        with Netlab(["a", "b"]) as net, Wan(net) as wan:
            wan.shape("a", "b", Way())
    except (NetlabFailed, OSError) as error:
        return str(error)
    return ""


class Router:
    """Reads packets from every host's device, and writes them to the device of the host that they are for."""

    def __init__(self, seed: int, hosts: list[str]) -> None:
        self._hosts = hosts
        # One generator each way: what happens on one does not hang on what is said on another.
        self._chances = {(one, two): random.Random(f"{seed} {one} {two}") for one in hosts for two in hosts}
        self._devices = {host: open_device(host) for host in hosts}
        self._ways: dict[tuple[str, str], Way] = {}
        self._busy_until: dict[tuple[str, str], float] = {}
        self.counts = dict.fromkeys(("passed", "lost", "repeated"), 0)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for host, device in self._devices.items():
            loop.add_reader(device, self._read, loop, host, device)
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        print("ready", flush=True)
        while line := await commands.readline():
            match json.loads(line):
                case ["shape", source, target, way]:
                    self._ways[source, target] = Way(**way)
                    print("true", flush=True)
                case ["counts"]:
                    print(json.dumps(self.counts), flush=True)

    def _read(self, loop: asyncio.AbstractEventLoop, source: str, device: int) -> None:
        while True:
            try:
                packet = os.read(device, 65536)
            except BlockingIOError:
                return
            number = packet[19] - 1 if len(packet) >= 20 and packet[0] >> 4 == 4 else -1
            if 0 <= number < len(self._hosts):
                self._carry(loop, (source, self._hosts[number]), packet)

    def _carry(self, loop: asyncio.AbstractEventLoop, pair: tuple[str, str], packet: bytes) -> None:
        way, chance = self._ways.get(pair, Way()), self._chances[pair]
        now = loop.time()
        begins = max(now, self._busy_until.get(pair, 0.0))
        if way.cut or chance.random() < way.loss or (way.bits_per_s and begins - now > QUEUE_S):
            self.counts["lost"] += 1
            return
        ends = begins
        if way.bits_per_s:
            ends = self._busy_until[pair] = begins + len(packet) * 8 / way.bits_per_s
        copies = 1
        if chance.random() < way.repeat:
            copies = 2
            self.counts["repeated"] += 1
        self.counts["passed"] += 1
        for _ in range(copies):
            due = ends + way.delay_s + chance.random() * way.jitter_s
            loop.call_at(due, self._write, self._devices[pair[1]], packet)

    @staticmethod
    def _write(device: int, packet: bytes) -> None:
        try:
            os.write(device, packet)
        except OSError:
            # A full device: a packet more that is lost.
            return


def open_device(host: str) -> int:
    """A TUN device in a host's namespace; this thread comes back to its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path(f"/run/netns/{host}").open() as theirs:
        if libc.setns(theirs.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        finally:
            libc.setns(own.fileno(), _CLONE_NEWNET)
    return device


def main() -> None:
    seed, *hosts = sys.argv[1:]
    router = Router(int(seed), hosts)
    for number, host in enumerate(hosts, 1):
        for line in (f"addr add {NETWORK}.{number}/24 dev {DEVICE}", f"link set {DEVICE} mtu {MTU} up"):
            subprocess.run(["ip", "-n", host, *line.split()], check=True)
    asyncio.run(router.run())


if __name__ == "__main__":
    main()
