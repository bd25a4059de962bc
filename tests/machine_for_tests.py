"""A realm of real ledgers on disk, driven by whole numbers, for state machines and for runs from a seed.

Everything that happens is a method that takes numbers and names only, so that Hypothesis and a seeded
generator drive the same code; this module has the machines and what connects them, `tests.machine_acts_for_tests` what people
do at them. What is acknowledged goes into `tests.machine_model_for_tests.Model`.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from ledger import (
    Coded,
    CommandRefused,
    DocumentId,
    Ledger,
    Level,
    Link,
    NodeId,
    NodeRole,
    Patient,
    Person,
    PersonRole,
    RealmKind,
    Receipt,
    SeededEntropy,
    UnlockFile,
)
from ledger.enrolment import make_request, open_package
from ledger.errors import PeerFault, Unreadable
from ledger.feed import Run
from ledger.identity import NodeKeys
from ledger.persons import LICENCE_CODE, PERSONAL_NUMBER, PRESCRIBER_CODE
from ledger.stewardship import Issuer
from ledger.store import restore_store
from nodes.bundle import export_bundle, import_bundle
from nodes.founding import enrol, found_realm
from nodes.inprocess import BadLink, synchronise
from tests.machine_model_for_tests import Act, Model

HOME, AWAY = "SE-AB-0180", "SE-C-0380"
AGENCY, PRESCRIBER, RELAY = "agency", "prescriber", "relay"
PHARMACIES = ("north", "south", "west")
NAMES = (AGENCY, PRESCRIBER, *PHARMACIES, RELAY)
WRITERS = NAMES[:-1]
START_MS = 1_795_500_000_000
MINUTE_MS = 60_000
JUMPS_MS = tuple(m * MINUTE_MS for m in (1, 59, 26 * 60, 40 * 24 * 60, -1, -90, -26 * 60))
PACK, FILLS = 10, 2
ROUNDS_MAX = 12
"""Within which every link healed brings all in step: two for what is there, one for each branch of a fork."""
NUMBERS = ("189002029800", "196101182803", "199002222397", "200001252386")
PRESCRIBED_BY = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
PHARMACIST = Person(Coded(LICENCE_CODE, "001234"), PersonRole.PHARMACIST)
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
LEVELS = (Level.NORMAL, Level.CRISIS, Level.MINIMUM)

T = TypeVar("T")


def pick(among: Sequence[T], number: int) -> T:
    """One of them, whatever the number."""
    return among[number % len(among)]


def patient(number: int) -> Patient:
    """One of the four official test persons."""
    which = number % len(NUMBERS)
    return Patient(name=f"Test Testsson {which}", identifier=Coded(PERSONAL_NUMBER, NUMBERS[which]))


class SettableClock:
    """One machine's clock, which jumps when it is told."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


class Template:
    """A founded realm with every node enrolled and acquainted, closed; made once and copied for every example."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        founded = found_realm(
            directory / "realm", "Övningsriket", RealmKind.EXERCISE, self.unlock, clock=SettableClock(),
            entropy=SeededEntropy(7),
        )  # fmt: skip
        self.issuer: Issuer = founded.issuer
        ledgers = {AGENCY: founded.agency}
        for name, role, district, others in (
            (PRESCRIBER, NodeRole.PRESCRIBER, HOME, (AWAY,)),
            ("north", NodeRole.PHARMACY, HOME, ()),
            ("south", NodeRole.PHARMACY, HOME, ()),
            ("west", NodeRole.PHARMACY, AWAY, (HOME,)),
            (RELAY, NodeRole.RELAY, "", ()),
        ):
            ledgers[name] = enrol(
                founded, directory / "nodes" / name, role=role, district=district, name=name, unlock=self.unlock,
                person=OFFICER, districts=others,
            )  # fmt: skip
        for name in ("west", PRESCRIBER):  # So that each can be named as holder in both districts.
            for district in (HOME, AWAY):
                ledgers[name].node.own_feed(district)
        for _ in range(2):
            for one, other in combinations(ledgers.values(), 2):
                synchronise(one.exchange, other.exchange)
        for ledger in ledgers.values():
            ledger.close()
        (directory / "realm" / AGENCY).replace(directory / "nodes" / AGENCY)


@dataclass
class Site:
    """One running store: a node, or an old image of one that runs beside it."""

    name: str
    node: str
    directory: Path
    ledger: Ledger
    clock: SettableClock
    written: set[Link] = field(default_factory=set)
    """What this store acknowledged, and must never lose."""


@dataclass(frozen=True)
class Command:
    """A command as a host would repeat it."""

    site: str
    id: bytes
    call: Callable[[Ledger, bytes], Receipt]
    facts: dict[str, object]
    asked_by: str = ""
    """Of an answer to a claim: who claimed. A claimant that was revoked since gets no answer, also not the old one."""


class Realm:
    """The realm of one example."""

    def __init__(self, template: Template, directory: Path) -> None:
        self.template, self.directory = template, directory
        self.model = Model(PACK, FILLS)
        self.sites: dict[str, Site] = {}
        self.cut: set[frozenset[str]] = set()
        self.commands: list[Command] = []
        self.documents: list[DocumentId] = []
        self.papers: list[bytes] = []
        self.bundles: list[bytes] = []
        self.backups: dict[str, tuple[Path, set[Link]]] = {}
        self.images: dict[str, tuple[Path, set[Link]]] = {}
        self.delegations: list[tuple[str, str, Link]] = []
        self.revoked: set[str] = set()
        self.openings = self.serial = 0
        self.tally: dict[str, int] = {}
        """How often each act was carried out: a run that never did what it checks says nothing."""
        self.touched: DocumentId | None = None
        for name in NAMES:
            shutil.copytree(template.directory / "nodes" / name, directory / name)
            clock = SettableClock()
            self.sites[name] = Site(name, name, directory / name, self._open(directory / name, clock), clock)

    def _open(self, directory: Path, clock: SettableClock) -> Ledger:
        self.openings += 1
        return Ledger.open(
            directory, self.template.unlock, clock=clock, entropy=SeededEntropy(b"opening %d" % self.openings)
        )

    def close(self) -> None:
        for site in self.sites.values():
            site.ledger.close()

    def node_id(self, name: str) -> NodeId:
        return self.sites[name].ledger.node.identity.node

    def count(self, what: str) -> None:
        self.tally[what] = self.tally.get(what, 0) + 1

    # --- commands -----------------------------------------------------------------------------------------------

    def command(
        self,
        site: str,
        kind: str,
        call: Callable[[Ledger, bytes], Receipt],
        *,
        asked_by: str = "",
        **facts: object,
    ) -> Receipt | None:
        """Give a command; None if it is refused. What is acknowledged goes to the model."""
        self.serial += 1
        command = Command(site, self.serial.to_bytes(16, "big"), call, {"kind": kind, **facts}, asked_by)
        receipt = self.carry_out(command)
        if receipt is not None:
            self.commands.append(command)
        return receipt

    def carry_out(self, command: Command) -> Receipt | None:
        site = self.sites[command.site]
        try:
            receipt = command.call(site.ledger, command.id)
        except (CommandRefused, Unreadable):
            self.count(f"{command.facts['kind']} refused")
            return None
        self.touched = receipt.document
        site.written.add(receipt.link)
        if receipt.link not in self.model.acts:
            self.count(str(command.facts["kind"]))
            knew = self.model.readable(site.ledger, receipt.document) - {receipt.link}
            self.model.acknowledge(
                Act(
                    link=receipt.link, document=receipt.document, author=site.node, site=site.name, command=command.id,
                    knew=frozenset(knew), aware=self.model.told(site.ledger, receipt.document), **command.facts,  # type: ignore[arg-type]
                )
            )  # fmt: skip
        return receipt

    def repeat(self, number: int) -> None:
        """R17: a store that carried a command out returns its first result and writes nothing."""
        if not self.commands:
            return
        command = pick(self.commands, number)
        site = self.sites[command.site]
        first = self.model.by_command(site.node, command.id)
        known = [link for link in first if link in site.written]
        before = site.ledger.inquiry.frontier_digest()
        if command.asked_by in self.revoked:
            return
        if not known and command.facts["kind"] == "issue":
            return  # Another incarnation cannot know; it would prescribe again.
        receipt = self.carry_out(command)
        if known:
            assert receipt is not None, f"a repeated {command.facts['kind']} was refused"
            assert receipt.link == known[0]
            assert receipt.repeated
            assert site.ledger.inquiry.frontier_digest() == before, "a repeated command wrote something"
            self.count("repeat")
        elif receipt is not None:
            self.count("repeat elsewhere")

    def note(self, name: str, receipt: Receipt, kind: str) -> None:
        """Acknowledge what was written under a command id that the library chose itself."""
        site = self.sites[name]
        site.written.add(receipt.link)
        self.count(kind)
        knew = self.model.readable(site.ledger, receipt.document) - {receipt.link}
        self.model.acknowledge(
            Act(
                link=receipt.link, document=receipt.document, author=site.node, site=name, command=receipt.command,
                knew=frozenset(knew), aware=self.model.told(site.ledger, receipt.document), kind=kind,
            )
        )  # fmt: skip

    # --- links --------------------------------------------------------------------------------------------------

    def can_talk(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cut

    def partition(self, mask: int) -> None:
        """Two islands; bit n of the mask says in which the n-th site lies."""
        side = {name: mask >> n & 1 for n, name in enumerate(self.sites)}
        self.cut = {frozenset(pair) for pair in combinations(self.sites, 2) if side[pair[0]] != side[pair[1]]}
        self.count("partition")

    def heal(self) -> None:
        self.cut.clear()

    def synchronise(self, one: str, other: str, *, bad: int | None = None) -> int:
        """Let two sites talk over a good link, or over one whose faults the number makes."""
        if one == other or not self.can_talk(one, other):
            return 0
        a, b = self.sites[one].ledger, self.sites[other].ledger
        if bad is not None:
            link = tuple(
                BadLink(bad + way, drop=0.2, duplicate=0.3, reorder=0.3, cut_after=bad % 13 or None)
                for way in range(2)
            )
            self.count("bad link")
            return synchronise(a.exchange, b.exchange, link=(link[0], link[1]), rounds=1 + bad % 3)
        moved = synchronise(a.exchange, b.exchange)
        a.exchange.heard_from(b.node.identity.node)
        b.exchange.heard_from(a.node.identity.node)
        self.count("synchronise")
        return moved

    def urgent(self, one: str, other: str, number: int) -> None:
        """One entry travels ahead of its feed."""
        if not self.can_talk(one, other):
            return
        source, target = (self.sites[name].ledger for name in (one, other))
        lacking = [link for link in self.model.acts if target.node.store.by_link(link) is None]
        held = [stored for link in lacking if (stored := source.node.store.by_link(link)) is not None]
        signed = [stored for stored in held if stored.signature is not None]
        if not signed:
            return
        stored = pick(signed, number)
        target.exchange.import_openings([source.exchange.opening(stored.feed)])
        if target.exchange.import_detached(stored.feed, stored.previous, stored.entry()):
            self.count("urgent")

    def some_runs(self, one: str, other: str, mask: int, budget: int) -> None:
        """Beginnings of some feeds, in no order, twice."""
        if not self.can_talk(one, other):
            return
        source, target = self.sites[one].ledger.exchange, self.sites[other].ledger.exchange
        feeds = [
            feed for district in sorted(source.districts()) for feed in sorted(source.frontier(district))
        ]
        chosen = [feed for n, feed in enumerate(feeds) if mask >> (n % 16) & 1]
        target.import_openings([source.opening(feed) for feed in chosen])
        runs: list[Run] = [
            run for feed in reversed(chosen) for run in source.runs(feed, (), 200 + budget * 300)
        ]
        target.import_runs(runs + runs[::-2])
        self.count("some runs")

    # --- bundles ------------------------------------------------------------------------------------------------

    def export(self, one: str, other: str, how: int) -> None:
        """Write a bundle: of everything, for a peer as it is now, or of one district; whole or cut off."""
        ledger, peer = self.sites[one].ledger, self.sites[other].ledger.exchange
        since = {d: peer.frontier(d) for d in peer.districts()} if how % 2 else None
        districts = {HOME} if how % 3 == 2 else None
        file = io.BytesIO()
        node = ledger.node
        export_bundle(
            ledger.exchange, node.keys.signing, node.identity.certificates, file, since=since, districts=districts,
            now_ms=node.now_ms(),
        )  # fmt: skip
        data = file.getvalue()
        self.bundles.append(data[: len(data) * (1 + how % 4) // 4])
        self.count("export")

    def take_bundle(self, site: str, number: int) -> None:
        """Take a bundle in; one may come again, anywhere, however old."""
        if not self.bundles:
            return
        data = pick(self.bundles, number)
        try:
            import_bundle(self.sites[site].ledger.exchange, io.BytesIO(data))
        except PeerFault:
            self.count("bundle refused")  # Cut off within its header.
        else:
            self.count("import")

    # --- disks --------------------------------------------------------------------------------------------------

    def reopen(self, name: str) -> None:
        """R1, R2: what was held is held, and what was acknowledged is there."""
        site = self.sites[name]
        held = site.ledger.inquiry.frontier_digest()
        site.ledger.close()
        site.ledger = self._open(site.directory, site.clock)
        assert site.ledger.inquiry.frontier_digest() == held
        self.assert_nothing_lost(site)
        self.count("reopen")

    def settle(self, name: str) -> None:
        """Snapshots go to disk: from here on an old one could be believed."""
        while self.sites[name].ledger.inquiry.settle():
            self.count("settle")

    def assert_nothing_lost(self, site: Site) -> None:
        for link in site.written:
            assert site.ledger.node.store.by_link(link) is not None, "something acknowledged is lost"

    def back_up(self, name: str) -> None:
        site = self.sites[name]
        self.openings += 1
        path = self.directory / f"backup-{self.openings}"
        site.ledger.node.store.backup(path)
        self.backups[name] = path, set(site.written)
        self.count("backup")

    def restore(self, name: str) -> None:
        """The disk is lost; the backup takes its place, and writes in a new incarnation."""
        if name not in self.backups:
            return
        site, (backup, written) = self.sites[name], self.backups[name]
        before = site.ledger.node.writer.incarnation
        site.ledger.close()
        self.openings += 1
        restore_store(backup, site.directory / "store.db", aside=self.directory / f"lost-{self.openings}")
        site.ledger, site.written = self._open(site.directory, site.clock), set(written)
        assert site.ledger.node.writer.incarnation > 1 or before == 0
        self.assert_nothing_lost(site)
        self.count("restore")

    def take_image(self, name: str) -> None:
        """A copy of the whole disk, token and all, as a snapshot of a virtual machine is."""
        if name in self.revoked or name in self.images:
            return
        site = self.sites[name]
        site.ledger.close()
        path = self.directory / f"image of {name}"
        shutil.copytree(site.directory, path)
        site.ledger = self._open(site.directory, site.clock)
        self.images[name] = path, set(site.written)
        self.count("image")

    def run_image(self, name: str) -> None:
        """The old image runs beside the node: a fork, as soon as both write."""
        if name not in self.images or f"old {name}" in self.sites or name in self.revoked:
            return
        path, written = self.images[name]
        clock = SettableClock()
        self.sites[f"old {name}"] = Site(f"old {name}", name, path, self._open(path, clock), clock, written)
        self.model.rolled_back.add(name)
        self.count("run image")

    @property
    def rolled_back(self) -> set[str]:
        """Nodes of which an old image ran."""
        return {site.node for site in self.sites.values() if site.name != site.node}

    def jump(self, name: str, number: int) -> None:
        self.sites[name].clock.ms += pick(JUMPS_MS, number)
        self.count("jump")

    def enrol_late(self) -> None:
        """A pharmacy that has seen nothing of all this."""
        keys = NodeKeys.generate(SeededEntropy(b"late"))
        package = self.sites[AGENCY].ledger.stewardship.admit(
            make_request(keys, NodeRole.PHARMACY, HOME, "late"), person=OFFICER, issuer=self.template.issuer
        )
        clock = SettableClock()
        ledger = Ledger.create(
            self.directory / "late", open_package(package, keys), keys, self.template.unlock, clock=clock,
            entropy=SeededEntropy(b"late opening"),
        )  # fmt: skip
        self.sites["late"] = Site("late", "late", self.directory / "late", ledger, clock)
