"""The servers that a network is measured on: made by the generator as an operator's are, with TLS and logins, on loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger import SystemClock, SystemEntropy
from nodes.founding import Founded
from nodes.nats.description import read_description
from nodes.nats.folders import prepare_run, write_folder
from nodes.nats.roster import read_roster
from nodes.nats.server import LocalServer, free_ports

__all__ = ["Servers"]

PORTS = {"national": ("leaf_port", "route_port"), "hub": ("leaf_port",)}
READY_SECONDS = 20.0
JOINED_SECONDS = 20.0
"""For leaf nodes to find their server; they take one."""


class Servers:
    """Running servers; a context manager that stops them. Everybody enrolled by now may log in."""

    def __init__(
        self, founded: Founded, directory: Path, names: Mapping[str, str], *, address: str = "127.0.0.1",
        command: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Make their folders.

        Args:
            founded: whose nodes may log in: all that are enrolled by now.
            directory: for the folders.
            names: what each is, ``hub`` or ``national``.
            address: where all of them listen.
            command: goes before the server's own: what enters a namespace, where no monitoring port is reached.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._kinds = dict(names)
        file = directory / "network.toml"
        file.write_text("\n".join(_table(name, kind, address) for name, kind in names.items()))
        description = read_description(file)
        now_ms = SystemClock().now_ms()
        roster = read_roster(founded.agency, now_ms)
        for name in names:
            write_folder(
                directory, description, file.read_bytes(), name, roster, founded.agency.node.realm.id,
                founded.issuer, now_ms, SystemEntropy(),
            )  # fmt: skip
        self._command, self._ended = list(command), ExitStack()
        self._urls = {server.name: f"tls://{address}:{server.port}" for server in description.servers}
        self.folders = {name: directory / name for name in names}
        self._servers = {name: LocalServer(path / "nats.conf", path) for name, path in self.folders.items()}

    def __enter__(self) -> Self:
        try:
            for name, server in self._servers.items():
                run = prepare_run(self.folders[name])
                if self._command:
                    self._start_there(self.folders[name], run)
                else:
                    server.start()
            if not self._command:
                self._wait_for_leafs()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop them."""
        self._ended.close()
        for server in self._servers.values():
            server.stop()

    def url(self, name: str) -> str:
        """Where nodes connect."""
        return self._urls[name]

    def memory_bytes(self, name: str) -> int:
        """What a server says that it takes."""
        told = self._servers[name].monitor("/varz").get("mem", 0)
        return told if isinstance(told, int) else 0

    def _start_there(self, folder: Path, run: Sequence[str]) -> None:
        there = [*self._command, "env", "-C", str(folder), *run, "--ports_file_dir", str(folder)]
        process = subprocess.Popen(there, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._ended.callback(process.wait)
        self._ended.callback(process.kill)
        deadline = time.monotonic() + READY_SECONDS
        while not list(folder.glob("*.ports")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start in its namespace")
            time.sleep(0.01)

    def _wait_for_leafs(self) -> None:
        hubs = sum(kind == "hub" for kind in self._kinds.values())
        nationals = [name for name, kind in self._kinds.items() if kind == "national"]
        deadline = time.monotonic() + JOINED_SECONDS
        while nationals:
            leafs = [self._servers[name].monitor("/leafz").get("leafnodes", 0) for name in nationals]
            if sum(count for count in leafs if isinstance(count, int)) == hubs:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{leafs} of {hubs} hubs found the national server")
            time.sleep(0.02)


def _table(name: str, kind: str, address: str) -> str:
    ports = dict(zip(("port", "monitor_port", *PORTS[kind]), free_ports(2 + len(PORTS[kind])), strict=True))
    lines = [f"[[{kind}]]", f'name = "{name}"', f'address = "{address}"', f'bind = "{address}"']
    return "\n".join([*lines, *(f"{key} = {port}" for key, port in ports.items()), ""])
