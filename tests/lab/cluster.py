"""A realm on this machine: real servers and daemons, a process each, and ways between them that can be broken.

Everything is what an operator would run: the servers' folders are written by the topology generator (TLS, a key for each
node), servers and daemons are started by the command. A test breaks ways, kills processes, and works at the nodes
meanwhile through the owner's socket, as any host system does.

Each node has one way to the hub (`tests.lab.ways`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ledger import (
    Clock,
    Coded,
    Ledger,
    NodeId,
    NodeRole,
    Person,
    PersonRole,
    RealmKind,
    SystemClock,
    SystemEntropy,
)
from ledger.errors import RxLedgerError
from ledger.keystore import UnlockFile
from ledger.persons import LICENCE_CODE, PRESCRIBER_CODE
from nodes.daemon.status import STATUS_METHOD, NodeStatus
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise
from nodes.local.client import OwnerClient
from nodes.local.opening import SOCKET_FILE, connect_or_open
from nodes.nats.description import read_description
from nodes.nats.folders import write_folder
from nodes.nats.roster import read_roster
from nodes.nats.server import free_ports
from tests.lab.clocked import FileClock
from tests.lab.lab import FAR_KINDS, KINDS
from tests.lab.ways import HUB, Cables, Relays

__all__ = [
    "DISTRICT",
    "FAR_HERE",
    "HERE",
    "Cluster",
    "Member",
    "Process",
    "open_cluster",
    "until",
]

ROOT = Path(__file__).resolve().parents[2]
DISTRICT = "SE-AB-0180"
ROLES: Mapping[str, NodeRole] = {
    "clinic": NodeRole.PRESCRIBER,
    "eken": NodeRole.PHARMACY,
    "linden": NodeRole.PHARMACY,
}
"""Who there is besides the agency, unless a test says otherwise."""
READY_SECONDS = 30.0
"""For a process to be ready: under a second, on a machine with nothing else to do."""
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
HERE = [KINDS[0], *(pytest.param(kind, marks=pytest.mark.nightly) for kind in KINDS[1:])]
"""For `pytest.mark.parametrize`: one way to build it each time, the other at night."""
FAR_HERE = [FAR_KINDS[0], *(pytest.param(kind, marks=pytest.mark.nightly) for kind in FAR_KINDS[1:])]
_COMMAND: list[str | Path] = [Path(sys.executable).with_name("rxledger")]


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for a condition; returns how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


class Process:
    """A process of the cluster: started, stopped, killed and started again; its output in a file."""

    def __init__(self, command: Sequence[str | Path], directory: Path, log: Path) -> None:
        self._command, self._directory, self.log = [str(word) for word in command], directory, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        assert not self.running
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )  # fmt: skip

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """End it by a signal and wait; SIGKILL if that takes too long. Returns its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def pause(self) -> None:
        """Freeze it: it answers nothing, and nobody is told."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """What it has resident now, or had at most (``VmHWM``)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")


# --- nodes ------------------------------------------------------------------------------------------------------------


class Member:
    """One node: its directory, its daemon, and whoever works there."""

    def __init__(
        self, name: str, node: NodeId, role: NodeRole, directory: Path, unlock: UnlockFile, cluster: Cluster
    ) -> None:
        self.name, self.node, self.role, self.directory, self.unlock = name, node, role, directory, unlock
        self._cluster = cluster
        self.clock: Clock = SystemClock()
        self.config = cluster.directory / f"{name}.toml"
        self.process = Process([], cluster.directory, cluster.directory / f"{name}.log")
        doctor = role is NodeRole.PRESCRIBER
        self.person = Person(
            Coded(PRESCRIBER_CODE if doctor else LICENCE_CODE, "0012345"),
            {NodeRole.PRESCRIBER: PersonRole.PRESCRIBER, NodeRole.PHARMACY: PersonRole.PHARMACIST}.get(
                role, PersonRole.OFFICER
            ),
        )

    def configure(
        self,
        more: str = "",
        *,
        link: str = "",
        url: str = "",
        clock: Path | None = None,
        nightly: bool = False,
    ) -> None:
        """Write ``node.toml``.

        Args:
            more: sections to add.
            link: lines to add to its link.
            url: of the hub, where it is not the cluster's.
            clock: a file that says how far the daemon's clock is ahead (`tests.lab.clocked`), for whoever opens it too.
        nightly: one night's work, then it stops.
        """
        url = url or f"tls://{self._cluster.ways.url(self.name)}"
        link += "\ntls = false" if url.startswith("nats://") else ""
        self.config.write_text(
            f'node = "{self.directory}"\nunlock = "{self.unlock.path}"\n'
            f'[[links]]\nname = "hub"\nurls = ["{url}"]\n{link}\n{more}\n'
        )
        command = [*_COMMAND, "daemon", "--config", self.config]
        self.clock = SystemClock() if clock is None else FileClock(clock)
        if clock is not None:
            command = [sys.executable, "-m", "tests.lab.clocked", self.config, clock]
        command += ["--nightly"] if nightly else []
        self.process = Process(
            self._cluster.ways.at(self.name, command), self._cluster.directory, self.process.log
        )

    def start(self) -> None:
        """Start the daemon and wait until it answers; again and again, as systemd would, if it ends at once."""
        began = time.monotonic()
        self.process.start()
        while self.asked() is None:
            assert time.monotonic() - began < READY_SECONDS, self.process.log.read_text()[-2000:]
            if not self.process.running:
                self.process.start()
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """As a power cut would, but for the page cache."""
        self.process.end(signal.SIGKILL)

    def stop(self) -> None:
        """In good order."""
        code = self.process.end(signal.SIGTERM)
        assert code == 0, self.process.log.read_text()[-2000:]

    def asked(self) -> NodeStatus | None:
        """The daemon's status; None if none answers."""
        client = OwnerClient(self.directory / SOCKET_FILE)
        try:
            return client.ask(STATUS_METHOD, NodeStatus) if client.connect() else None
        except RxLedgerError:
            return None
        finally:
            client.close()

    def status(self) -> NodeStatus:
        """The daemon's status."""
        found = self.asked()
        assert found is not None, f"{self.name}: no daemon answers"
        return found

    def ledger(self) -> Ledger:
        """The ledger for writing: through the daemon while it runs."""
        return connect_or_open(self.directory, self.unlock, clock=self.clock)

    def command(self, *words: str | Path) -> None:
        """A command of ``rxledger`` at this node, as an operator gives it."""
        options: list[str | Path] = ["--node", self.directory, "--unlock", self.unlock.path]
        done = subprocess.run(
            [*_COMMAND, *words, *options], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr

    def reading(self) -> Ledger:
        """The store as it lies on disk, for reading."""
        return Ledger.open(self.directory, self.unlock, writable=False, clock=self.clock)

    def up(self) -> bool:
        """Whether its link is up."""
        status = self.asked()
        return status is not None and any(link.state.value == "up" for link in status.links)


# --- the whole --------------------------------------------------------------------------------------------------------


class Cluster:
    """A realm, its hub and its nodes. Made by `open_cluster`."""

    def __init__(self, directory: Path, ways: Cables | Relays, roles: Mapping[str, NodeRole]) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.ways = directory, ways
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.members: dict[str, Member] = {}
        founded = found_realm(directory / "realm", "Övning", RealmKind.EXERCISE, self.unlock)
        officer = Person(Coded(LICENCE_CODE, "001234"), PersonRole.OFFICER)
        with founded.agency as agency:
            self.realm = agency.node.realm
            self._add("agency", agency, directory / "realm" / "agency")
            enrolled = {}
            for name, role in roles.items():
                enrolled[name] = enrol(
                    founded, directory / name, role=role, district=DISTRICT if role is not NodeRole.RELAY else "",
                    name=name, unlock=self.unlock, person=officer,
                )  # fmt: skip
            for name, ledger in enrolled.items():
                synchronise(agency.exchange, ledger.exchange)
                self._add(name, ledger, directory / name)
            self.hub = self._hub(founded)
            for ledger in enrolled.values():
                ledger.close()

    def _add(self, name: str, ledger: Ledger, directory: Path) -> None:
        identity = ledger.node.identity
        self.members[name] = Member(name, identity.node, identity.role, directory, self.unlock, self)
        self.members[name].configure()

    def _hub(self, founded: Founded) -> Process:
        leaf, monitor = free_ports(2)
        table = {
            "name": HUB, "address": "127.0.0.1", "also": list(self.ways.hub_names), "bind": self.ways.hub_address,
            "port": self.ways.port(), "leaf_port": leaf, "monitor_port": monitor,
        }  # fmt: skip
        # Strings, numbers and lists of them are written alike in JSON and TOML.
        source = (
            "[[hub]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        ).encode()
        path = self.directory / "network.toml"
        path.write_bytes(source)
        now_ms = SystemClock().now_ms()
        folder = write_folder(
            self.directory / "servers", read_description(path), source, HUB, read_roster(founded.agency, now_ms),
            founded.agency.node.realm.id, founded.issuer, now_ms, SystemEntropy(),
        )  # fmt: skip
        command = self.ways.at(HUB, [*_COMMAND, "nats", "serve", folder.path])
        return Process(command, self.directory, self.directory / "hub.log")

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def copy(self, name: str, twin: str) -> Member:
        """The directory of a node whose daemon does not run, copied with all that is in it, as a disk image would be."""
        original, directory = self.members[name], self.directory / twin
        shutil.copytree(original.directory, directory, ignore=shutil.ignore_patterns("*.sock"))
        self.members[twin] = Member(twin, original.node, original.role, directory, self.unlock, self)
        self.members[twin].configure()
        return self.members[twin]

    def start(self, *names: str) -> None:
        """Start the hub, and these nodes (all unless given); returns when their links are up."""
        if not self.hub.running:
            self.hub.start()
        started = [self.members[name] for name in names] or list(self)
        for member in started:
            member.process.start()
        for member in started:
            until(member.up, READY_SECONDS, f"the link of {member.name}")

    def close(self) -> None:
        """Kill everything that runs."""
        for member in self:
            member.process.end()
        self.hub.end()


@contextmanager
def open_cluster(
    kind: str,
    directory: Path,
    roles: Mapping[str, NodeRole] = ROLES,
    *,
    spare: Sequence[str] = (),
    far: bool = False,
    seed: int = 0,
) -> Iterator[Cluster]:
    """A cluster for a block, not yet started; everything in it is gone after it.

    Args:
        kind: of `tests.lab.lab.KINDS` (with `far`, `FAR_KINDS`).
        directory: empty.
        roles: the nodes besides the agency.
        spare: hosts without a node, for what comes later.
        far: cables can be made long and lossy.
        seed: of what they lose.
    """
    with ExitStack() as stack:
        hosts = ["agency", *roles, *spare]
        ways: Cables | Relays = (
            Cables(hosts, stack, far=far, seed=seed) if kind == Cables.kind else Relays(hosts, stack)
        )
        cluster = Cluster(directory, ways, roles)
        stack.callback(cluster.close)
        try:
            yield cluster
        except BaseException:
            _tell(cluster)
            raise


def _tell(cluster: Cluster) -> None:
    """What the processes last said, for whoever looks at a failed run."""
    for log in [member.process.log for member in cluster] + [cluster.hub.log]:
        with contextlib.suppress(OSError):
            print(f"--- {log.name}", "\n".join(log.read_text(errors="replace").splitlines()[-15:]), sep="\n")
