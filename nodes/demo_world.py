"""The demonstration's world: real stores on disk, real keys, a settable clock, links that can be cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from ledger import Coded, Ledger, NodeId, NodeRole, Person, PersonRole, RealmKind, SeededEntropy
from ledger.keystore import UnlockFile
from ledger.persons import LICENCE_CODE, PRESCRIBER_CODE
from ledger.store import restore_store
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise

__all__ = ["DemoClock", "Site", "World"]

STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"


class DemoClock:
    """A clock that moves when the story says so."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC in the story."""
        return self._now_ms

    def advance(self, *, minutes: int = 0, hours: int = 0, days: int = 0) -> None:
        """Let time pass."""
        self._now_ms += ((days * 24 + hours) * 60 + minutes) * 60_000


class Site:
    """One node of the story and the person who acts there."""

    def __init__(self, name: str, ledger: Ledger, directory: Path, person: Person) -> None:
        self.name, self.ledger, self.directory, self.person = name, ledger, directory, person

    @property
    def node(self) -> NodeId:
        """The node's id."""
        return self.ledger.node.identity.node

    @property
    def district(self) -> str:
        """The node's home district."""
        return self.ledger.node.identity.district


class World:
    """Agency, two prescribers and four pharmacies in two districts, and which of them can talk."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.seed = directory, seed
        self.clock = DemoClock(1_795_500_000_000)
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.founded: Founded = found_realm(
            directory / "realm", "Övningsriket", RealmKind.EXERCISE, self.unlock, clock=self.clock,
            entropy=SeededEntropy(seed),
        )  # fmt: skip
        officer = Person(Coded(LICENCE_CODE, "900001"), PersonRole.OFFICER)
        self.sites: dict[str, Site] = {
            "agency": Site("agency", self.founded.agency, directory / "realm" / "agency", officer)
        }
        self._enrol("Vårdcentral Söder", NodeRole.PRESCRIBER, STOCKHOLM, "1234561")
        self._enrol("Vårdcentral Fyris", NodeRole.PRESCRIBER, UPPSALA, "2345671")
        self._enrol("Apotek Eken", NodeRole.PHARMACY, STOCKHOLM, "300001")
        self._enrol("Apotek Björken", NodeRole.PHARMACY, STOCKHOLM, "300002")
        self._enrol("Apotek Linden", NodeRole.PHARMACY, STOCKHOLM, "300003")
        self._enrol("Apotek Aspen", NodeRole.PHARMACY, UPPSALA, "300004")
        self.islands: list[set[str]] = [set(self.sites)]

    def _enrol(self, name: str, role: NodeRole, district: str, code: str) -> None:
        directory = self.directory / "nodes" / f"node-{len(self.sites)}"
        ledger = enrol(
            self.founded, directory, role=role, district=district, name=name, unlock=self.unlock,
            person=self.sites["agency"].person,
        )  # fmt: skip
        prescriber = role is NodeRole.PRESCRIBER
        person = Person(
            Coded(PRESCRIBER_CODE if prescriber else LICENCE_CODE, code),
            PersonRole.PRESCRIBER if prescriber else PersonRole.PHARMACIST,
        )
        self.sites[name] = Site(name, ledger, directory, person)

    def __getitem__(self, name: str) -> Site:
        return self.sites[name]

    def name_of(self, node: bytes) -> str:
        """The name of a node, for the reader of the story."""
        return next((s.name for s in self.sites.values() if s.node == node), node.hex()[:8])

    def cut(self, *islands: Iterable[str]) -> None:
        """From now on only the nodes of one island reach each other."""
        self.islands = [set(island) for island in islands]

    def heal(self) -> None:
        """Every link is back."""
        self.islands = [set(self.sites)]

    def replicate(self, rounds: int = 3) -> int:
        """Let neighbours synchronise until a round moves nothing; returns entries moved."""
        moved = 0
        for _ in range(rounds):
            before = moved
            for island in self.islands:
                names = [n for n in self.sites if n in island]
                for first, second in combinations(names, 2):
                    a, b = self.sites[first].ledger, self.sites[second].ledger
                    moved += synchronise(a.exchange, b.exchange)
                    a.exchange.heard_from(b.node.identity.node)
                    b.exchange.heard_from(a.node.identity.node)
                    a.stewardship.take_epochs()
                    b.stewardship.take_epochs()
            if moved == before:
                break
        return moved

    def restore(self, name: str, backup: Path) -> None:
        """The disk of a node is lost; yesterday's backup takes its place."""
        site = self.sites[name]
        site.ledger.close()
        for path in site.directory.glob("store.db*"):
            path.unlink()
        restore_store(backup, site.directory / "store.db")
        site.ledger = Ledger.open(
            site.directory,
            self.unlock,
            clock=self.clock,
            entropy=SeededEntropy(int.from_bytes(site.node[:6], "big")),
        )

    def close(self) -> None:
        """Close every ledger."""
        for site in self.sites.values():
            site.ledger.close()
