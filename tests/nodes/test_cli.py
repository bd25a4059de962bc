"""The command line: every command there, exit codes, JSON, a whole story through processes, one effect a command id."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from nodes.cli import main
from nodes.cli.main import parser

ROOT = Path(__file__).resolve().parents[2]
PATIENT = "189002029800"
COMMANDS = {
    "realm create", "node enrol", "prescribe", "amend", "cancel", "custody request", "custody transfer",
    "custody recover", "custody plan", "custody delegate", "assess", "dispense", "reverse", "correct", "list", "show",
    "anomalies", "resolve", "bundle export", "bundle import", "import-fhir", "verify", "digest", "frontier", "backup",
    "restore", "demo", "daemon", "status",
}  # fmt: skip
WITHOUT_NODE = {
    "demo",
    "demo-nats",
    "daemon",
    "nats config",
    "nats serve",
    "realm create",
    "report",
    "simulate",
}
"""These make a node's directory, or are told where it is by a file; servers have none."""
ORDER = (
    "prescribe", "--patient", PATIENT, "--patient-name", "Tolvan Tolvansson", "--pack", "20991231100001",
    "--product-name", "Metformin", "--pack-quantity", "100", "--dosage", "1 tablett", "--fills", "3",
)  # fmt: skip


def leaves(
    root: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [a for a in root._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield " ".join(path), root
    for action in below:
        for name, inner in action.choices.items():
            yield from leaves(inner, (*path, name))


def test_every_command_of_the_list_is_there() -> None:
    assert set(dict(leaves(parser()))) >= COMMANDS


@pytest.mark.parametrize("command", sorted(dict(leaves(parser()))))
def test_every_command_has_help_and_json_and_works_on_a_named_node(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert ("--node DIR" in text) == (command not in WITHOUT_NODE)


@pytest.mark.parametrize("wrong", [[], ["nothing"], ["prescribe"], ["realm"], ["digest", "--node"]])
def test_wrong_usage_is_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(wrong)
    assert done.value.code == 2


# --- a story ------------------------------------------------------------------------------------------------------------


class Site:
    """A realm in a directory, and the command as a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "RXLEDGER_UNLOCK_FILE": str(directory / "unlock" / "secret"),
            "PYTHONPATH": str(ROOT),
        }

    def process(self, *arguments: str, node: str = "", code: int = 0) -> Any:
        """One command as a process of its own."""
        where = ("--node", str(self.directory / node)) if node else ()
        done = subprocess.run(
            [sys.executable, "-c", "from nodes.cli import main; raise SystemExit(main())", *arguments, *where, "--json"],
            capture_output=True, text=True, env=self.environment, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        # Discreet, also when it fails (R13).
        assert PATIENT not in done.stderr
        return json.loads(done.stdout)

    def run(self, *arguments: str, node: str = "", code: int = 0) -> Any:
        """The same within this process, which takes a tenth of the time."""
        where = ("--node", str(self.directory / node)) if node else ()
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("RXLEDGER_UNLOCK_FILE", self.environment["RXLEDGER_UNLOCK_FILE"])
            done = main([*arguments, *where, "--json"])
        assert done == code, (arguments, done, out.getvalue(), err.getvalue())
        assert PATIENT not in err.getvalue()
        return json.loads(out.getvalue())

    def carry(self, giver: str, taker: str) -> None:
        """Everything of one node to another, by file."""
        path = self.directory / f"{giver}-{taker}-{len(list(self.directory.iterdir()))}.rxb".replace("/", "-")
        self.run("bundle", "export", str(path), node=giver)
        self.run("bundle", "import", str(path), node=taker)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("site"))
    realm = str(site.directory / "realm")
    site.run("realm", "create", realm, "--name", "Övningsriket")
    for name, role in (("doctor", "prescriber"), ("eken", "pharmacy"), ("bjorken", "pharmacy")):
        site.run(
            "node", "enrol", "--realm", realm, "--role", role, "--district", "SE-AB-0180", "--name", name, node=name
        )  # fmt: skip
    for name in ("eken", "bjorken"):
        site.carry("doctor", name)
        site.carry(name, "doctor")
    site.carry("eken", "bjorken")
    return site


def test_a_prescription_from_issue_to_a_digest_that_all_share(site: Site) -> None:
    directory = site.directory
    once = ("--person", "1234561", "--command-id", "11" * 16)
    first = site.process(*ORDER, *once, "--pharmacy", "eken", node="doctor")
    again = site.process(*ORDER, *once, "--pharmacy", "eken", node="doctor")
    assert not first["repeated"]
    assert again["repeated"]
    assert again["link"] == first["link"]
    document = first["document"]
    site.run("amend", document, "--dosage", "2 tabletter", "--person", "1234561", node="doctor")
    site.carry("doctor", "eken")

    assert site.run("assess", document, "--fill", "1", node="eken")["verdict"] == "permit"
    supply = ("dispense", document, "--fill", "1", "--person", "300001", "--command-id", "22" * 16)
    given = site.process(*supply, node="eken")
    assert site.process(*supply, node="eken")["link"] == given["link"]
    shown = site.run("show", document, node="eken")["answer"]["prescription"]
    assert shown["balance"]["dispensed"] == 100
    assert shown["dosage"] == ["2 tabletter"]
    site.run("correct", document, given["link"], "--quantity", "90", "--person", "300001", node="eken")

    site.carry("eken", "bjorken")
    site.carry("doctor", "bjorken")
    refused = site.run("assess", document, "--fill", "2", "--basis", "custody", node="bjorken", code=1)
    assert refused["verdict"] == "refuse"
    error = site.process(
        "dispense", document, "--fill", "2", "--basis", "custody", "--person", "300002", node="bjorken", code=1
    )  # fmt: skip
    assert error["error"]["code"] == "not-permitted"

    request = str(directory / "request")
    site.run("custody", "request", document, "--fills", "2", "--out", request, node="bjorken")
    site.carry("bjorken", "eken")
    site.run("custody", "answer", request, "--person", "300001", node="eken")
    site.run(
        "custody", "transfer", document, "--fills", "3", "--to", "bjorken", "--person", "300001", node="eken"
    )
    site.carry("eken", "bjorken")
    site.run("dispense", document, "--fill", "2", "--person", "300002", node="bjorken")
    site.run("custody", "plan", "--person", "300002", node="bjorken")

    site.process("cancel", document, "--reason", "3", "--person", "1234561", node="doctor")
    for _ in range(2):
        for giver, taker in (
            ("doctor", "eken"),
            ("bjorken", "eken"),
            ("eken", "doctor"),
            ("eken", "bjorken"),
        ):
            site.carry(giver, taker)
    digests = [site.run("digest", "--district", "SE-AB-0180", node=n) for n in ("doctor", "eken", "bjorken")]
    assert digests[0] == digests[1] == digests[2]
    found = site.run("list", "--patient", PATIENT, "--person", "300001", node="eken")
    assert document in found["prescriptions"]
    assert isinstance(site.run("anomalies", node="eken"), list)
    assert site.process("verify", node="eken")["documents"] >= 1


def test_a_bundle_for_a_frontier_brings_nothing_to_who_has_it_all(site: Site) -> None:
    frontier, bundle = site.directory / "frontier.json", site.directory / "rest.rxb"
    site.run("frontier", "--out", str(frontier), node="eken")
    assert (
        site.run("bundle", "export", str(bundle), "--for-frontier", str(frontier), node="eken")["entries"]
        == 0
    )


def test_a_backup_is_restored_as_the_next_incarnation(site: Site) -> None:
    backup = site.directory / "bjorken.backup"
    site.run("backup", str(backup), node="bjorken")
    error = site.run("restore", str(backup), node="bjorken", code=1)
    assert error["error"]["code"] == "invalid-input"
    before = site.run("digest", node="bjorken")
    assert site.run("restore", str(backup), "--replace", node="bjorken")["incarnation"] == 2
    assert site.run("digest", node="bjorken")["states"] == before["states"]


def test_fhir_is_taken_in_and_refusals_name_element_and_reason(site: Site, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"resourceType":"MedicationRequest","status":"active"}')
    found = site.run("import-fhir", str(tmp_path), "--person", "1234561", node="doctor", code=1)
    assert found["taken"] == []
    assert found["refused"][0]["element"]
    assert found["refused"][0]["reason"]


# --- refusals -----------------------------------------------------------------------------------------------------------

NO_DOCUMENT = "00" * 16


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", NO_DOCUMENT),
        ("show", "not-hex"),
        ("show", "00"),
        ("assess", NO_DOCUMENT, "--fill", "1"),
        ("dispense", NO_DOCUMENT, "--fill", "1", "--person", "1"),
        ("dispense", NO_DOCUMENT, "--fill", "-1", "--person", "1"),
        ("dispense", NO_DOCUMENT, "--fill", "1", "--person", "1", "--seed", "zz"),
        ("dispense", NO_DOCUMENT, "--fill", "1", "--person", "1", "--command-id", "00"),
        ("resolve", NO_DOCUMENT, "zz", "--decision", "x", "--person", "1"),
        ("resolve", NO_DOCUMENT, "00", "--decision", "x", "--person", "1"),
        ("reverse", NO_DOCUMENT, "00" * 32, "--kind", "backa", "--person", "1"),
        ("correct", NO_DOCUMENT, "00" * 32, "--quantity", "1", "--person", "1"),
        ("custody", "transfer", NO_DOCUMENT, "--fills", "1", "--bearer", "--person", "1"),
        ("custody", "transfer", NO_DOCUMENT, "--fills", "1", "--to", "nobody", "--person", "1"),
        ("custody", "recover", NO_DOCUMENT, "--fills", "1", "--reason", "x", "--person", "1"),
        ("custody", "plan", "--custodian", "x", "--person", "1"),
        ("custody", "answer", "/nowhere", "--person", "1"),
        ("custody", "answer", "@EMPTY", "--person", "1"),
        ("custody", "request", NO_DOCUMENT, "--fills", "0", "100", "--out", "@NEW"),
        ("bundle", "import", "/nowhere"),
        ("bundle", "import", "@EMPTY"),
        ("bundle", "import", "@RUBBISH"),
        ("bundle", "export", "@RUBBISH"),
        ("bundle", "export", "@NEW", "--for-frontier", "@RUBBISH"),
        ("bundle", "export", "@NEW", "--for-frontier", "@EMPTY"),
        ("scan", "rubbish"),
        ("scan", "@@RUBBISH"),
        ("paper", NO_DOCUMENT),
        ("import-fhir", "/nowhere", "--person", "1"),
        ("declare", "crisis", "--person", "1"),
        ("policy", "--preset", "exercise", "--person", "1"),
        ("list", "--patient", "189002029801", "--person", "1"),
        ("list", "--person", "1"),
        (*ORDER[:1], "--pack", "1", "--product-name", "x", "--dosage", "x", "--person", "1"),
        (*ORDER, "--fills", "-1", "--person", "1", "--origin", "paper"),
        (*ORDER, "--valid-until", "2026-02-31", "--person", "1", "--origin", "paper"),
        (*ORDER, "--dosage", "x" * 20000, "--person", "1", "--origin", "paper"),
        (*ORDER, "--pack-quantity", str(1 << 70), "--person", "1", "--origin", "paper"),
        (*ORDER, "--person", "", "--origin", "paper"),
        (*ORDER, "--district", "not a district", "--person", "1", "--origin", "paper"),
    ],
)  # fmt: skip
def test_a_refusal_is_1_with_a_code_and_writes_nothing(
    site: Site, arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RXLEDGER_UNLOCK_FILE", site.environment["RXLEDGER_UNLOCK_FILE"])
    (tmp_path / "EMPTY").touch()
    (tmp_path / "RUBBISH").write_bytes(bytes(range(256)))
    node = ["--node", str(site.directory / "eken"), "--json"]
    given = [a.replace("@", str(tmp_path) + "/", 1) if a[:2] in {"@E", "@R", "@N"} else a for a in arguments]
    given = [a.replace("@@", f"@{tmp_path}/", 1) if a.startswith("@@") else a for a in given]
    main(["digest", *node])
    before = json.loads(capsys.readouterr().out)
    code = main([*given, *node])
    out, err = capsys.readouterr()
    assert code == 1, out
    said = json.loads(out)
    assert said.get("error", {}).get("code") or not all(r["complete"] for r in said.values())
    assert PATIENT not in out + err
    main(["digest", *node])
    assert json.loads(capsys.readouterr().out) == before


def test_no_node_and_no_key_are_refusals(site: Site, tmp_path: Path) -> None:
    assert site.run("digest", node="nowhere", code=1)["error"]["code"] == "not-found"
    other = Site(site.directory)
    other.environment["RXLEDGER_UNLOCK_FILE"] = str(tmp_path / "none")
    assert other.run("digest", node="eken", code=1)["error"]["code"] == "keys-locked"


def test_a_damaged_store_is_3(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RXLEDGER_UNLOCK_FILE", site.environment["RXLEDGER_UNLOCK_FILE"])
    whole = (site.directory / "eken" / "store.db").read_bytes()
    keys = (site.directory / "eken" / "keys.sealed").read_bytes()
    broken = {
        "empty": b"",
        "zeroed": bytes(len(whole)),
        "rubbish": b"x" * 5000,
        "short": whole[: len(whole) // 2],
    }
    for name, data in broken.items():
        node = tmp_path / name
        node.mkdir(mode=0o700)
        (node / "keys.sealed").write_bytes(keys)
        (node / "store.db").write_bytes(data)
        assert main(["verify", "--node", str(node), "--json"]) == 3, name
    backup = tmp_path / "empty" / "store.db"
    assert main(["restore", str(backup), "--node", str(tmp_path / "new"), "--json"]) == 3
