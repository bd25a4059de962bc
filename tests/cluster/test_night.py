"""The nightly window with a settable clock: on schedule, one peer down, one slow; within its bytes; on the next night."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from nodes.daemon.report import NightReport, last_report
from tests.cluster.book import AGREE_SECONDS, Book, agree
from tests.cluster.work import dispense, issue
from tests.lab.clocked import FileClock
from tests.lab.cluster import Cluster, Member, open_cluster, until
from tests.lab.ways import Relays

NIGHT_SECONDS = 150
"""A peer that is down is waited for 45 s; the slow one takes some ten."""
SLOW_BITS_PER_S = 64_000
BUDGET_BYTES = 40_000
OVER_BYTES = 16_000
"""What is under way when the last byte of a share is counted: the smallest pieces that rounds send, of each peer."""
BESIDES_BYTES = 16_000
"""TLS, logging in, signs of life: not exchanged with peers, and not counted by the budget."""
ISSUED = 250


def nightly(directory: Path, budget: int) -> str:
    return (
        f'[nightly]\nstart = "02:30"\ntime_zone = "UTC"\nduration_minutes = 60\nbudget_bytes = {budget}\n'
        f'catch_up = false\nbackup_directory = "{directory}"\nbackups_kept = 2\n'
    )


def at(day: date, clock: str) -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}+00:00").astimezone(UTC).timestamp() * 1000)


def entries(member: Member) -> int:
    """How many entries of others a node holds: counted in its store, one by one."""
    with member.reading() as ledger:
        store, own = ledger.node.store, member.node
        return sum(1 for stored in store.verify() if ledger.node.reader.author(stored.feed)[0].node != own)


def report_of(member: Member, night: date) -> NightReport | None:
    found = last_report(member.directory)
    return found if found is not None and found.night == night and found.ended_ms else None


class World:
    """The cluster of the story, its clock, and what was counted."""

    def __init__(self, cluster: Cluster, clock: FileClock, file: Path, backups: Path) -> None:
        self.cluster, self.clock, self.file, self.backups = cluster, clock, file, backups
        assert isinstance(cluster.ways, Relays)
        self.ways = cluster.ways
        self.book = Book()
        self.eken, self.linden, self.clinic = (cluster[name] for name in ("eken", "linden", "clinic"))
        self.others = [member for member in cluster if member is not self.eken]
        today = datetime.now(UTC).date()
        self.nights = [today + timedelta(days=1 + number) for number in range(3)]
        clock.set(at(today, "20:00:00"))
        for member in cluster:
            member.configure(clock=file)

    def configure(self, budget: int, *, alone: bool) -> None:
        """Eken's night; `alone`: run by a timer for the night only."""
        peers = json.dumps([member.node.hex() for member in self.others])
        more = nightly(self.backups, budget) + f"[peers]\nnodes = {peers}\n"
        self.eken.configure(more, clock=self.file, nightly=alone)

    def slow(self) -> None:
        self.ways.slow("linden", SLOW_BITS_PER_S, 0.05)

    def report(self, number: int) -> NightReport:
        found = report_of(self.eken, self.nights[number])
        assert found is not None
        turns = [
            f"{turn.entries_in} in, {turn.entries_out} out, {turn.bytes_in}+{turn.bytes_out} bytes, "
            f"{'in step' if turn.in_step else turn.why}"
            for turn in found.peers
        ]
        missed = [why for _, why in found.not_reached]
        print(f"night {number + 1}: {found.spent_bytes} of {found.budget_bytes} bytes; {turns}; {missed}")
        return found


def first_night(world: World) -> None:
    """It begins when the clock says so, not before; one peer is down, one is slow; it scrubs and backs up."""
    eken, night = world.eken, world.nights[0]
    before = entries(eken)
    world.clock.set(at(night, "02:29:55"))
    world.ways.refuse("eken")
    world.configure(10_000_000, alone=False)
    eken.start()
    assert not eken.status().night.running
    assert eken.status().night.next_ms == at(night, "02:30:00")
    until(lambda: eken.status().night.running, 20, "the window opens")
    assert 0 <= world.clock.now_ms() - at(night, "02:30:00") < 5_000
    world.ways.release("eken")
    until(lambda: report_of(eken, night), NIGHT_SECONDS, "the first night")
    report = world.report(0)
    turns = {turn.node: turn for turn in report.peers}
    assert sum(turn.entries_in for turn in report.peers) == entries(eken) - before == 20
    for member in (world.cluster["agency"], world.linden):
        assert turns[member.node.hex()].in_step
    # All of eken's went to one of them, which may have passed them on before eken came to speak with the other.
    assert sum(turn.entries_out for turn in report.peers) in range(4, 9)
    assert report.not_reached == ((world.clinic.node.hex(), "it does not answer"),)
    assert not report.whole
    check_keeping(world, report)
    eken.stop()


def check_keeping(world: World, report: NightReport) -> None:
    """Scrub and backup went over what is held, counted here entry by entry."""
    with world.eken.reading() as ledger:
        held = sum(1 for _ in ledger.node.store.verify())
    assert report.scrub is not None
    assert report.scrub.complete
    assert report.scrub.checked_entries == held
    assert report.backup is not None
    assert report.backup.verified
    assert report.backup.entries == held
    assert (world.backups / report.backup.file).stat().st_size == report.backup.size_bytes


def second_night(world: World) -> int:
    """There is more than its bytes allow; returns how much came."""
    eken = world.eken
    before, passed = entries(eken), world.ways.passed("eken")
    world.clock.set(at(world.nights[1], "02:31:00"))
    world.configure(BUDGET_BYTES, alone=True)
    assert one_night(eken) == 1, "what is left over is told by the exit code"
    report = world.report(1)
    wire = world.ways.passed("eken") - passed
    print(f"on the wire, with TLS and logging in: {wire} bytes")
    came = entries(eken) - before
    assert 0 < came < ISSUED
    assert sum(turn.entries_in for turn in report.peers) == came
    assert report.spent_bytes <= BUDGET_BYTES + OVER_BYTES
    assert wire <= BUDGET_BYTES + OVER_BYTES + BESIDES_BYTES
    assert not report.whole
    assert report.peers[0].node == world.clinic.node.hex(), "whom the first night did not reach comes first"
    check_keeping(world, report)
    return came


def third_night(world: World, came: int) -> None:
    """It goes on where the second stopped."""
    before = entries(world.eken)
    world.clock.set(at(world.nights[2], "02:31:00"))
    world.configure(10_000_000, alone=True)
    assert one_night(world.eken) == 0
    report = world.report(2)
    assert report.whole
    assert sum(turn.entries_in for turn in report.peers) == entries(world.eken) - before == ISSUED - came
    check_keeping(world, report)
    assert len(list(world.backups.glob("*.db"))) == 2, "three were made, two are kept"


def test_a_night_keeps_its_hour_and_its_bytes_and_the_next_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    with open_cluster(Relays.kind, tmp_path / "realm") as cluster:
        world = World(cluster, FileClock(file), file, tmp_path / "backups")
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        mine = issue(cluster, world.book, 6)
        world.eken.stop()
        # The evening: the others go on, and so does eken by itself; then the clinic goes down, and linden is slow.
        issue(cluster, world.book, 20, to=world.linden, among=world.others)
        for document in mine[:4]:
            dispense(world.book, world.eken, document, 1)
        world.clinic.kill()
        world.slow()
        first_night(world)

        world.clinic.start()
        until(world.clinic.up, AGREE_SECONDS, "the clinic is back")
        world.ways.heal()
        issue(cluster, world.book, ISSUED, to=world.linden, among=world.others)
        world.slow()
        third_night(world, second_night(world))

        world.eken.configure(clock=file)
        world.eken.start()
        agree(cluster, AGREE_SECONDS)
        world.book.check(cluster)


def one_night(member: Member) -> int:
    """Run a night's work to its end; returns the exit code."""
    member.process.start()
    until(lambda: not member.process.running, NIGHT_SECONDS, "the night's end")
    return member.process.end()
