"""Simulated machines: a directory with a real store on it, and a process that owns it, dies, comes back, is copied.

The realm is founded once a process and its directories are copied for every run: enrolling nodes takes longer than what
is then simulated.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from ledger import Coded, Ledger, NodeRole, Person, PersonRole, RealmKind, SeededEntropy
from ledger.errors import RxLedgerError
from ledger.ids import NodeId
from ledger.keystore import UnlockFile
from ledger.node import STORE_FILE
from ledger.persons import LICENCE_CODE, PRESCRIBER_CODE
from nodes.acquaintances import PeeringSettings
from nodes.founding import enrol, found_realm
from nodes.inprocess import synchronise
from nodes.lines import LinkSettings
from nodes.peering import Peering
from simulations.clocks import SimClock
from simulations.disks import lose_unsynced

__all__ = ["DISTRICTS", "EPOCH_MS", "ROSTER", "Machine", "Template", "template"]

EPOCH_MS = 1_795_500_000_000
"""When every simulation begins: a day in 2026."""
DISTRICTS = ("SE-AB-0180", "SE-C-0380")
SYNCED_AT_COMMIT = 2
"""`PRAGMA synchronous` from which on SQLite syncs its log at every commit; below, at checkpoints at most."""
OPERATOR = Person(Coded(LICENCE_CODE, "000000"), PersonRole.OPERATOR)

_AB, _C = DISTRICTS
ROSTER: dict[str, tuple[NodeRole, str, str]] = {
    "agency": (NodeRole.AGENCY, "", "900001"),
    "vc-a": (NodeRole.PRESCRIBER, _AB, "1234561"),
    "vc-b": (NodeRole.PRESCRIBER, _C, "2345671"),
    "ap-1": (NodeRole.PHARMACY, _AB, "300001"),
    "ap-2": (NodeRole.PHARMACY, _AB, "300002"),
    "ap-3": (NodeRole.PHARMACY, _AB, "300003"),
    "ap-4": (NodeRole.PHARMACY, _C, "300004"),
    "ap-5": (NodeRole.PHARMACY, _C, "300005"),
    "relay": (NodeRole.RELAY, "", ""),
}
"""Name → role, home district, code of the person who acts there."""


def scratch() -> Path | None:
    """Where runs lie: in memory if there is such a place, since a simulated power cut asks nothing of a real disk."""
    memory = Path("/dev/shm")  # noqa: S108 - each run makes its own directory there.
    return memory if memory.is_dir() else None


class _Fixed:
    def now_ms(self) -> int:
        """The epoch."""
        return EPOCH_MS


class Template:
    """A founded realm with every node of the roster, closed, to be copied."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="rxledger-sim-", dir=scratch())
        self.directory = Path(self._temporary.name)
        self.unlock = UnlockFile(self.directory / "unlock" / "secret")
        clock, officer = _Fixed(), _person("agency")
        founded = found_realm(
            self.directory / "realm", "Simulation", RealmKind.EXERCISE, self.unlock,
            clock=clock, entropy=SeededEntropy(0),
        )  # fmt: skip
        ledgers = {"agency": founded.agency}
        for name, (role, district, _) in ROSTER.items():
            if name != "agency":
                ledgers[name] = enrol(
                    founded, self.directory / name, role=role, district=district, name=name, unlock=self.unlock,
                    person=officer,
                )  # fmt: skip
        for district in DISTRICTS:
            founded.agency.node.own_feed(district)
        for _ in range(2):
            for name, ledger in ledgers.items():
                if name != "agency":
                    synchronise(founded.agency.exchange, ledger.exchange)
        self.nodes: dict[str, NodeId] = {name: ledger.node.identity.node for name, ledger in ledgers.items()}
        self.known = {link for ledger in ledgers.values() for link in links_of(ledger)}
        """Everything that was written before a run begins."""
        for ledger in ledgers.values():
            ledger.close()

    def copy(self, name: str, to: Path) -> None:
        """Put a node's directory where a run wants it."""
        shutil.copytree(self.directory / ("realm/agency" if name == "agency" else name), to)


_made: list[Template] = []


def template() -> Template:
    """The template of this process."""
    if not _made:
        _made.append(Template())
    return _made[0]


def _person(name: str) -> Person:
    role, _, code = ROSTER[name]
    if role is NodeRole.PRESCRIBER:
        return Person(Coded(PRESCRIBER_CODE, code), PersonRole.PRESCRIBER)
    kind = PersonRole.PHARMACIST if role is NodeRole.PHARMACY else PersonRole.OFFICER
    return Person(Coded(LICENCE_CODE, code or "000000"), kind)


def links_of(ledger: Ledger) -> set[bytes]:
    """The link of every entry held."""
    with ledger.node.lock:
        return {stored.link for stored in ledger.node.store.verify()}


class Machine:
    """One machine: what survives on its disk, and the process on it while one runs."""

    def __init__(self, name: str, kind: str, home: Path, true_ms: Callable[[], int], seed: int) -> None:
        """Set up, not yet running.

        Args:
            name: of this machine.
            kind: its entry in the roster: two machines of one kind are copies of one node.
            home: where its directories lie.
            true_ms: the simulation's time.
            seed: of its entropy and choices.
        """
        self.name, self.kind, self._home, self._seed = name, kind, home, seed
        self.role, self.district, _ = ROSTER[kind]
        self.person = _person(kind)
        self.clock = SimClock(true_ms)
        self._true_ms = true_ms
        self.directory = home / f"{name}-0"
        self.lives = 0
        self.ledger: Ledger | None = None
        self.peering: Peering | None = None
        self.last_act_ms = 0
        """When, as it believed, somebody last did something at it."""
        self.asleep_ms = 0
        """How long it has slept: by so much the time that its processes measure is behind."""
        self.slow_ms = 0
        """How long its disk takes over each message."""
        self.listening: tuple[str, ...] = ()
        """Subjects: each as it is, or all that differ in the last word only (`*`)."""
        self.broken = ""
        """Why it does not come up again: the code of the error that opening its store ended in."""
        self.frozen: Path | None = None
        """A copy of its disk at the moment it died, while the program goes on to where it can be stopped."""
        self.damaged = False
        """Its disk was changed by nobody's program."""
        self.rolled_back = False
        """Its disk was set back or damaged: what it alone had written may be lost."""

    @property
    def up(self) -> bool:
        """A process runs."""
        return self.ledger is not None

    @property
    def node(self) -> NodeId:
        """The node's id."""
        return template().nodes[self.kind]

    def monotonic(self) -> int:
        """The time by which its process waits."""
        return self._true_ms() - self.asleep_ms

    def place(self) -> None:
        """Put the node's first directory here."""
        template().copy(self.kind, self.directory)

    def start(self, buses: tuple[str, ...], settings: PeeringSettings, thin_bits: int | None) -> bool:
        """Start a process on what lies on the disk; False if that ends in a typed error.

        Raises:
            Exception: anything but a typed error, which is a finding.
        """
        self.lives += 1
        try:
            self.ledger = Ledger.open(
                self.directory, template().unlock, clock=self.clock,
                entropy=SeededEntropy(self._seed * 1000 + self.lives),
            )  # fmt: skip
        except RxLedgerError as error:
            self.broken = error.code
            return False
        self.broken = ""
        links = [
            LinkSettings(name=bus, bits_per_second=thin_bits, thin=thin_bits is not None) for bus in buses
        ]
        self.peering = Peering(
            self.ledger, links, settings, person=OPERATOR, random=Random(self._seed * 1000 + self.lives)
        )
        self.ledger.node.on_written.append(self.peering.written)
        return True

    def kill(self, power_cut: Random | None = None) -> None:
        """The process is gone, in the midst of whatever it did: what lies on the disk is what it had written.

        Args:
            power_cut: given, what was not synced is lost, torn or rubbish too (`simulations.disks`).
        """
        if self.ledger is None:
            return
        left = self.frozen or self._copied(self._home / f"{self.name}-{self.lives}")
        if power_cut is not None:
            lose_unsynced(left / STORE_FILE, synced=self._syncs(), random=power_cut)
        self.frozen = None
        self.ledger.close()
        self.ledger = self.peering = None
        shutil.rmtree(self.directory)
        self.directory = left

    def _syncs(self) -> bool:
        """Whether the process had each transaction synced before it said that it was durable: what it told SQLite."""
        assert self.ledger is not None
        database = self.ledger.node.store._c._db  # type: ignore[attr-defined]
        return bool(database.execute("PRAGMA synchronous").fetchone()[0] >= SYNCED_AT_COMMIT)

    def _copied(self, to: Path) -> Path:
        """The disk as it is now."""
        to.mkdir()
        for file in sorted(self.directory.iterdir()):
            # The shared index of the log is memory, not disk; the lock is the process's.
            if file.is_file() and not file.name.endswith(("-shm", ".lock")):
                shutil.copyfile(file, to / file.name)
                (to / file.name).chmod(0o600)
        return to

    def freeze(self) -> None:
        """The process dies at this very moment; `kill` follows once the program can be stopped."""
        if self.frozen is None:
            self.frozen = self._copied(self._home / f"{self.name}-{self.lives}")

    def disk_image(self) -> Path:
        """A copy of the whole disk, as a snapshot of a running machine."""
        target = self._home / f"{self.name}-image"
        if target.exists():
            shutil.rmtree(target)
        return self._copied(target)

    def stop(self) -> None:
        """The process ends as it should."""
        if self.ledger is not None:
            self.ledger.close()
            self.ledger = self.peering = None

    def backup(self) -> Path:
        """Copy the store as its owner would (`Store.backup`)."""
        assert self.ledger is not None
        target = self._home / f"{self.name}-backup.db"
        target.unlink(missing_ok=True)
        with self.ledger.node.lock:
            self.ledger.node.store.backup(target)
        return target

    def image(self, name: str, seed: int) -> Machine:
        """A second machine with a copy of this one's disk, as somebody cloned it while it ran."""
        twin = Machine(name, self.kind, self._home, self._true_ms, seed)
        self._copied(twin.directory)
        twin.rolled_back = self.rolled_back = True
        return twin

    def roll_back(self, image: Path) -> None:
        """While down: put an earlier copy of the whole disk back, tokens and all: what a snapshot of a machine does."""
        shutil.rmtree(self.directory)
        shutil.copytree(image, self.directory)
        self.rolled_back = True

    def store_file(self) -> Path:
        """The database."""
        return self.directory / STORE_FILE
