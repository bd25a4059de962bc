"""R17: every command repeated under its id returns its first result and has one effect.

At once, after reopening, after a kill at any statement, and in the incarnation that follows a backup restored: whatever
became of the first answer, the host may ask again.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import structlog

from ledger import CommandRefused, DocumentId, Ledger, Link, NodeRole, SeededEntropy
from ledger.enrolment import make_request
from ledger.identity import NodeKeys
from tests.machine_acts_for_tests import World, patient
from tests.machine_for_tests import AGENCY, HOME, OFFICER, PRESCRIBER, Template
from tests.repeats_for_tests import CASES, COMMAND, NORTH, SOUTH, Args, delegated, everybody_hears, nothing

ROOT = Path(__file__).parents[1]
KILLS = 6
"""Places at which a command is killed in a normal run; the nightly run takes every statement."""
KILLS_NIGHTLY = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    silence()
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    silence()


def silence() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture
def world(template: Template, tmp_path: Path) -> Iterator[World]:
    made = World(template, tmp_path / "world")
    yield made
    made.close()


def written_under(ledger: Ledger, command: bytes) -> list[Link]:
    """Every entry held, whoever wrote it, that names the command."""
    found = []
    for _, stored in ledger.node.store.arrivals(0, 100_000):
        fact = ledger.node.reader.open(stored).fact
        if fact is not None and fact.event is not None and fact.event.command == command:
            found.append(stored.link)
    return found


def assert_repeated(ledger: Ledger, case: str, args: Args, first: Link) -> None:
    """The first result comes back, and nothing is written."""
    before = ledger.inquiry.frontier_digest()
    again = CASES[case].run(ledger, COMMAND, args)
    assert again.link == first
    assert again.repeated
    assert ledger.inquiry.frontier_digest() == before
    assert len(written_under(ledger, COMMAND)) == 1


@pytest.mark.parametrize("case", CASES)
def test_a_command_repeated_at_once_and_after_reopening_returns_its_first_result(
    world: World, case: str
) -> None:
    site = world.sites[CASES[case].site]
    args = CASES[case].prepare(world)
    first = CASES[case].run(site.ledger, COMMAND, args)
    assert not first.repeated
    assert_repeated(site.ledger, case, args, first.link)
    world.reopen(site.name)
    assert_repeated(site.ledger, case, args, first.link)


@pytest.mark.parametrize("case", CASES)
def test_a_command_repeated_when_the_world_has_gone_on_returns_its_first_result(
    world: World, case: str
) -> None:
    """What it named is revoked, forked, spent or retired by now: the first result stands all the same."""
    site = world.sites[CASES[case].site]
    args = CASES[case].prepare(world)
    first = CASES[case].run(site.ledger, COMMAND, args)
    everybody_hears(world)
    other = SOUTH if site.name == NORTH else NORTH
    world.take_image(other)
    world.run_image(other)
    for name in (other, f"old {other}"):
        world.sites[name].ledger.delegate(HOME, world.node_id(PRESCRIBER), person=OFFICER)
    everybody_hears(world)
    assert_repeated(site.ledger, case, args, first.link)


@pytest.mark.parametrize("case", CASES)
def test_a_restored_node_that_has_heard_of_its_command_returns_its_first_result(
    world: World, case: str
) -> None:
    """The backup was taken before; the entry comes back from those who had received it."""
    site = world.sites[CASES[case].site]
    args = CASES[case].prepare(world)
    world.back_up(site.name)
    first = CASES[case].run(site.ledger, COMMAND, args)
    everybody_hears(world)
    world.restore(site.name)
    assert not written_under(site.ledger, COMMAND)
    everybody_hears(world)
    for name in world.sites:
        world.take_epochs(name)
    assert_repeated(site.ledger, case, args, first.link)
    world.reopen(site.name)
    assert_repeated(site.ledger, case, args, first.link)


def killed(world: World, case: str, args: Args, scratch: Path, kills: int) -> Iterator[tuple[Path, str]]:
    """Copies of the node's directory, in each of which the command was killed at another statement; what it had said."""
    site = world.sites[CASES[case].site]
    site.ledger.close()
    copies = [shutil.copytree(site.directory, scratch / f"copy-{n}") for n in range(kills + 1)]
    site.ledger = Ledger.open(site.directory, world.template.unlock, clock=site.clock)
    job = {
        "case": case, "args": base64.b64encode(msgspec.msgpack.encode(args)).decode(), "now_ms": site.clock.ms,
        "unlock": str(world.template.unlock.path), "copies": [str(copy) for copy in copies],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.repeats_child"], input=json.dumps(job), capture_output=True, text=True,
        timeout=120, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        directory, said = line.split()
        yield Path(directory), said


def kill_and_repeat(world: World, case: str, scratch: Path, kills: int) -> None:
    args = CASES[case].prepare(world)
    acknowledged = durable = 0
    for directory, said in killed(world, case, args, scratch, kills):
        with Ledger.open(
            directory, world.template.unlock, clock=world.sites[CASES[case].site].clock
        ) as ledger:
            there = written_under(ledger, COMMAND)
            assert said in {"-", *(link.hex() for link in there)}, "something acknowledged is lost"
            receipt = CASES[case].run(ledger, COMMAND, args)
            assert [receipt.link] == (there or written_under(ledger, COMMAND))
            assert_repeated(ledger, case, args, receipt.link)
            assert sum(1 for _ in ledger.inquiry.verify()) > 0
            if case in ("revoke", "start epoch"):
                assert ledger.node.keyring.newest_epoch(HOME) == 2, "half of the command was done"
                assert ledger.node.reader.governance().epoch(HOME) == 2
            acknowledged += said != "-"
            durable += bool(there)
        shutil.rmtree(directory)
    assert acknowledged >= 1, "never killed after everything"
    assert durable < kills, "never killed before it was durable"


@pytest.mark.parametrize("case", CASES)
def test_a_command_repeated_after_a_kill_has_one_effect(world: World, case: str, tmp_path: Path) -> None:
    kill_and_repeat(world, case, tmp_path, KILLS)


@pytest.mark.nightly
@pytest.mark.parametrize("case", CASES)
def test_a_command_killed_anywhere_has_one_effect(world: World, case: str, tmp_path: Path) -> None:
    kill_and_repeat(world, case, tmp_path, KILLS_NIGHTLY)


def seen(ledger: Ledger, document: bytes) -> tuple[object, ...]:
    """What a host sees of a prescription, whatever entries say it."""
    p = ledger.show(DocumentId(document)).prescription
    return (
        p.status, p.dosage, p.balance, p.external_ids, p.blocked,
        sorted((s.fill, s.net, s.basis) for s in p.supplies),
        [(f.number, f.dispensed, f.remaining) for f in p.fills],
        sorted(a.kind for a in p.anomalies),
    )  # fmt: skip


@pytest.mark.parametrize(
    "case", [name for name, case in CASES.items() if case.prepare not in (nothing, delegated)]
)
def test_a_restored_node_that_has_not_heard_of_its_command_does_nothing_twice(
    world: World, case: str
) -> None:
    """It cannot know, and may write again; when the two meet, they are seen to be one."""
    site = world.sites[CASES[case].site]
    args = CASES[case].prepare(world)
    world.back_up(site.name)
    CASES[case].run(site.ledger, COMMAND, args)
    everybody_hears(world)
    witness = world.sites[AGENCY if site.name != AGENCY else NORTH].ledger
    once = seen(witness, args.document)
    world.restore(site.name)
    with suppress(CommandRefused):
        CASES[case].run(site.ledger, COMMAND, args)
    everybody_hears(world)
    assert seen(witness, args.document) == once
    assert seen(site.ledger, args.document) == once


def test_a_prescription_written_again_by_a_restored_node_is_found_as_a_duplicate(world: World) -> None:
    """On another day, before it has heard of the first, a restored node cannot write the same document."""
    site = world.sites[PRESCRIBER]
    run = CASES["prescribe for oneself"].run
    world.back_up(site.name)
    first = run(site.ledger, COMMAND, Args())
    everybody_hears(world)
    world.restore(site.name)
    site.clock.ms += 86_400_000
    second = run(site.ledger, COMMAND, Args())
    assert second.document != first.document
    everybody_hears(world)
    for name in (AGENCY, NORTH):
        found = world.sites[name].ledger.patient(patient(1), person=OFFICER, purpose="test").patient
        assert {a.kind for a in found.anomalies} == {"possible_duplicate"}


def test_an_admission_repeated_is_announced_once(world: World) -> None:
    """The package is wrapped and certified anew; governance names the node once."""
    agency = world.sites[AGENCY].ledger
    request = make_request(NodeKeys.generate(SeededEntropy(5)), NodeRole.PHARMACY, HOME, "ny")
    for _ in range(2):
        agency.stewardship.admit(request, person=OFFICER, issuer=world.template.issuer, command=COMMAND)
        world.reopen(AGENCY)
        agency = world.sites[AGENCY].ledger
    assert len(written_under(agency, COMMAND)) == 1
