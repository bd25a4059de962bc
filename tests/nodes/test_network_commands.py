"""`rxledger claim` and `rxledger fetch`, through real daemons and servers: what they say, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.cli import main
from nodes.cli.output import Output
from nodes.content import PATIENTS
from nodes.demo import Story
from nodes.demo_nats_processes import until
from nodes.demo_nats_tale import Tale
from nodes.demo_nats_world import AGENCY, ASPEN, EKEN, LINDEN, SODER, NatsWorld

WAIT_SECONDS = 60.0
Command = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tale]:
    """Servers and daemons, all linked, all holding the same."""
    with NatsWorld(tmp_path_factory.mktemp("world"), 7) as world:
        world.start_servers()
        world.start_daemons()
        made = Tale(Story(Output(as_json=True)), world)
        made.converge("all hold the same")
        yield made


@pytest.fixture
def run(tale: Tale, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command at a node; its exit code and what it says as JSON."""

    def command(name: str, site: str, *arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        node = ["--node", str(tale.world[site].directory), "--unlock", str(tale.world.unlock.path)]
        code = main([name, *arguments, *node, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


def prescribed(tale: Tale, label: str, *seen: str, **changes: object) -> str:
    """A prescription of the clinic, once it is known at these nodes."""
    receipt = tale.prescribe(tale.world[SODER], label, tale.order("A10BA02", fills=2, **changes))
    for name in seen:
        tale.seen_after_ms(tale.world[name], receipt)
    return receipt.document.hex()


def test_a_claim_is_granted_once_and_the_second_claimant_is_told_who_holds_it_and_how_to_reach_it(
    tale: Tale, run: Command
) -> None:
    document = prescribed(tale, "claimed", EKEN, LINDEN)
    identity = ["--command-id", "ab" * 16]
    code, told = run("claim", EKEN, document, "--fills", "1", "2", *identity)
    assert (code, told["granted"], told["command"]) == (0, True, "ab" * 16)
    again, same = run("claim", EKEN, document, "--fills", "1", "2", "--from", SODER, *identity)
    assert (again, same["transfer"]) == (0, told["transfer"])
    until(
        lambda: tale.world[LINDEN].peer(tale.world[EKEN]) is not None, "the pharmacies have met", WAIT_SECONDS
    )
    code, told = run("claim", LINDEN, document, "--fills", "2", "--from", SODER)
    assert (code, told["granted"], told["code"]) == (1, False, "not-permitted")
    assert told["holder"] == tale.world[EKEN].node.hex()
    assert "over hub" in told["reach"]


def test_who_claims_of_a_holder_that_is_away_is_told_what_may_be_done_instead(
    tale: Tale, run: Command
) -> None:
    document = prescribed(tale, "away", EKEN, chosen_pharmacy=tale.world[LINDEN].node)
    tale.world[LINDEN].stop()
    try:
        code, told = run("claim", EKEN, document, "--fills", "1", "--wait", "0.5")
    finally:
        tale.world[LINDEN].start()
        tale.world[LINDEN].attach(tale.world.unlock)
    assert (code, told["code"]) == (1, "unreachable")
    assert told["instead"]["1"]["verdict"] == "refuse"
    assert {reason["code"] for reason in told["instead"]["1"]["reasons"]} >= {"level", "beyond-custody"}


def test_a_patients_prescriptions_are_fetched_from_the_agency_or_one_from_whoever_is_named(
    tale: Tale, run: Command
) -> None:
    document = prescribed(
        tale, "far", EKEN, AGENCY, patient=PATIENTS[1], chosen_pharmacy=tale.world[EKEN].node
    )
    person = ["--person", "000903"]
    code, told = run("fetch", ASPEN, "--patient", "196101182803", *person)
    assert code == 0
    assert document in told["prescriptions"]
    assert told["from"] == tale.world[AGENCY].node.hex()
    assert tale.world[ASPEN].ledger.show(bytes.fromhex(document)).prescription.issued is not None  # type: ignore[arg-type]
    code, told = run("fetch", ASPEN, document, "--from", tale.world[EKEN].node.hex(), *person)
    assert (code, told["prescriptions"]) == (0, [document])
    code, told = run("fetch", ASPEN, "0" * 32, *person)
    assert (code, told["code"]) == (1, "not-found")
    code, told = run("fetch", ASPEN, "--patient", "200001252386", *person)
    assert (code, told["prescriptions"]) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["claim", "00" * 16, "--fills", "0"], "invalid-input"),
        (["claim", "00" * 16, "--fills", "100"], "invalid-input"),
        (["claim", "00" * 15, "--fills", "1"], "invalid-input"),
        (["claim", "00" * 16, "--fills", "1", "--wait", "nan"], "invalid-input"),
        (["claim", "00" * 16, "--fills", "1", "--wait", "601"], "invalid-input"),
        (["claim", "00" * 16, "--fills", "1"], "not-found"),
        (["claim", "00" * 16, "--fills", "1", "--from", "nobody"], "not-found"),
        (["fetch", "--person", "1"], "invalid-input"),
        (["fetch", "00" * 16, "--patient", "196101182803", "--person", "1"], "invalid-input"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_words(run: Command, arguments: list[str], code: str) -> None:
    exit_code, told = run(arguments[0], ASPEN, *arguments[1:])
    assert (exit_code, told["error"]["code"]) == (1, code)
    assert told["error"]["message"]


@pytest.mark.parametrize(
    "command", [["claim", "00" * 16, "--fills", "1"], ["fetch", "00" * 16, "--person", "1"]]
)
def test_without_a_daemon_both_say_so_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    unlock = ["--unlock", str(tmp_path / "unlock")]
    assert main(["realm", "create", str(tmp_path / "realm"), "--name", "X", "--json", *unlock]) == 0
    capsys.readouterr()
    assert main([*command, "--node", str(tmp_path / "realm" / "agency"), "--json", *unlock]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "owner-gone"
    assert "rxledger daemon" in error["advice"]
    assert main([*command, "--node", str(tmp_path / "nowhere"), "--json", *unlock]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-found"


def test_a_process_that_owns_the_store_and_is_no_daemon_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ledger import Ledger, UnlockFile
    from nodes.local.server import OwnerSocket

    unlock, node = tmp_path / "unlock", tmp_path / "realm" / "agency"
    assert main(["realm", "create", str(tmp_path / "realm"), "--name", "X", "--unlock", str(unlock)]) == 0
    with Ledger.open(node, UnlockFile(unlock)) as owner:
        command = ["claim", "00" * 16, "--fills", "1", "--node", str(node), "--unlock", str(unlock), "--json"]
        for listening in (False, True):
            capsys.readouterr()
            if listening:
                with OwnerSocket(owner, node):
                    assert main(command) == 1
            else:
                assert main(command) == 1
            error = json.loads(capsys.readouterr().out)["error"]
            assert error["code"] == "owner-gone"
            assert "no daemon" in error["message"]
