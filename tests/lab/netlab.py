"""Hosts in network namespaces of this machine, joined by a switch whose cables can be cut, pulled, slowed and spoiled.

Everything lives in namespaces that one keeper process holds, names of them included: when it ends, by whatever means,
the kernel clears everything away, and nothing outside was ever touched. As root the keeper takes a network and a mount
namespace; otherwise also a user namespace, in which it is root.

::

    host a ──veth── p-a ┐
    host b ──veth── p-b ┤ br0, in the switch's namespace; nft (bridge family) cuts between two ports
    host c ──veth── p-c ┘ tbf on both ends of a cable slows it
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["SEARCH_PATH", "Netlab", "NetlabFailed", "why_not"]

NETWORK = "10.77.0"
HOSTS_MAX = 200
"""Addresses of one network."""
SETUP_SECONDS = 20.0
"""One command; they take milliseconds."""
BURST_BYTES = 1600
"""What a slowed cable lets through at once: one packet."""
QUEUE_MS = 20_000
"""What waits before a slowed cable: a modem with too large a queue, as they are."""

SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
"""Where Debian keeps them, whoever calls."""


class NetlabFailed(RuntimeError):
    """A command of the laboratory failed."""


def _unshare() -> list[str]:
    inside = ["--net", "--mount", "--kill-child", "--fork"]
    return ["unshare", *inside] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", *inside]


@functools.cache
def why_not() -> str:
    """Why namespaces do not work here; empty if they do. `RXLEDGER_LAB=relays` says that they shall not be used."""
    if os.environ.get("RXLEDGER_LAB") == "relays":
        return "RXLEDGER_LAB says so"
    missing = [
        tool for tool in ("unshare", "nsenter", "setpriv", "ip", "nft", "tc") if shutil.which(tool) is None
    ]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Netlab(["a", "b"]) as lab:
            lab.cut("a", "b")
            lab.rate("a", 1_000_000)
    except (NetlabFailed, OSError) as error:
        return str(error)
    return ""


class Netlab:
    """A context manager: the hosts exist inside it."""

    def __init__(self, hosts: Sequence[str]) -> None:
        assert 1 <= len(hosts) <= HOSTS_MAX
        self.hosts = tuple(hosts)
        self._keeper: subprocess.Popen[str] | None = None
        self._inside = ""
        """Process id of the keeper's child, which holds the namespaces; `unshare --fork` itself stays outside."""
        self._started = ExitStack()

    def __enter__(self) -> Self:
        # A tmpfs on /run, in a mount namespace of its own, so that names of namespaces are ours alone.
        script = "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && echo $$ && exec cat"
        self._keeper = subprocess.Popen(
            [*_unshare(), "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert self._keeper.stdout is not None
            self._inside = self._keeper.stdout.readline().strip()
            if not self._inside.isdecimal():
                raise NetlabFailed(f"no namespaces: {self._keeper.communicate()[1].strip()}")
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the hosts, then the hosts."""
        self._started.close()
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.kill()
        keeper.wait()
        for stream in (keeper.stdin, keeper.stdout, keeper.stderr):
            if stream is not None:
                stream.close()

    def _build(self) -> None:
        lines = ["netns add switch", "-n switch link set lo up", "-n switch link add br0 type bridge",
                 "-n switch link set br0 up"]  # fmt: skip
        for host in self.hosts:
            lines += [
                f"netns add {host}",
                f"-n {host} link set lo up",
                f"-n switch link add p-{host} type veth peer name eth0 netns {host}",
                f"-n switch link set p-{host} master br0 up",
                f"-n {host} addr add {self.address(host)}/24 dev eth0",
                f"-n {host} link set eth0 up",
            ]
        for line in lines:
            self._do("ip", *line.split())
        self._nft("add table bridge lab; add chain bridge lab cuts { type filter hook forward priority 0; }")

    # --- hosts ------------------------------------------------------------------------------------------------------

    def address(self, host: str) -> str:
        """Of a host."""
        return f"{NETWORK}.{self.hosts.index(host) + 1}"

    def command(self, host: str, *command: str | Path) -> list[str]:
        """The command that runs a command in a host, and kills it when we end.

        It keeps its environment, not its working directory.
        """
        last = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        return [*self._enter(), "env", f"PATH={SEARCH_PATH}", "ip", "netns", "exec", host, *last]

    def beside(self, *command: str | Path) -> list[str]:
        """The command that runs a command beside the hosts, where their names are known; killed when we end."""
        return [*self._enter(), "setpriv", "--pdeathsig", "KILL", *map(str, command)]

    def start(self, host: str, *command: str | Path, **more: Any) -> subprocess.Popen[Any]:
        """Start a process in a host; killed at the end if it still runs."""
        process = subprocess.Popen(self.command(host, *command), **more)
        self._started.callback(_end, process)
        return process

    def python(self, host: str, module: str, *arguments: str, **more: Any) -> subprocess.Popen[Any]:
        """Start a Python module of this tree in a host."""
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return self.start(host, sys.executable, "-m", module, *arguments, env=environment, **more)

    # --- faults -----------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Let no packet through from one to the other, nor back unless `one_way`. Nobody is told."""
        for source, target in [(one, other)] if one_way else [(one, other), (other, one)]:
            self._nft(f"add rule bridge lab cuts iifname p-{source} oifname p-{target} counter drop")

    def lose(self, one: str, other: str, percent: int) -> None:
        """Drop that share of the packets between two, both ways."""
        for source, target in ((one, other), (other, one)):
            chance = f"numgen random mod 100 < {percent}"
            self._nft(f"add rule bridge lab cuts iifname p-{source} oifname p-{target} {chance} counter drop")

    def dropped(self) -> int:
        """Packets that cuts and losses have eaten since the last `heal`: a test must see that its fault happened."""
        told = self._do(*self._in("switch"), "nft", "list", "chain", "bridge", "lab", "cuts").split()
        return sum(int(told[at + 1]) for at, word in enumerate(told) if word == "packets")

    def heal(self) -> None:
        """Undo all cuts and losses."""
        self._nft("flush chain bridge lab cuts")

    def unplug(self, host: str) -> None:
        """Pull a host's cable at the switch."""
        self._do("ip", "-n", "switch", "link", "set", f"p-{host}", "down")

    def plug(self, host: str) -> None:
        """Put it back."""
        self._do("ip", "-n", "switch", "link", "set", f"p-{host}", "up")

    def rate(self, host: str, bits_per_s: int) -> None:
        """Slow a host's cable, both ways."""
        limit = f"tbf rate {bits_per_s}bit burst {BURST_BYTES} latency {QUEUE_MS}ms".split()
        for namespace, device in (("switch", f"p-{host}"), (host, "eth0")):
            self._do("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *limit)

    def unrate(self, host: str) -> None:
        """Undo `rate`."""
        for namespace, device in (("switch", f"p-{host}"), (host, "eth0")):
            self._do("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")

    # --- commands ---------------------------------------------------------------------------------------------------

    def _enter(self) -> list[str]:
        assert self._keeper is not None, "outside its block"
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", self._inside, *user, "--net", "--mount"]

    @staticmethod
    def _in(namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]

    def _nft(self, commands: str) -> None:
        self._do(*self._in("switch"), "nft", commands)

    def _do(self, *command: str) -> str:
        done = subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, timeout=SETUP_SECONDS, check=False,
            env={**os.environ, "PATH": SEARCH_PATH},
        )  # fmt: skip
        if done.returncode:
            raise NetlabFailed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
