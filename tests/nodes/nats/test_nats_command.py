"""What an operator types: folders written, servers run, users kept."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import Ledger, NodeRole
from nodes.cli.main import EXIT_DONE, EXIT_REFUSED, main
from nodes.nats.control import apply_folders
from tests.nodes.nats.network_on_disk import eventually, ported
from tests.nodes.nats.realm_on_disk import STOCKHOLM, RealmOnDisk, connected, login_of


class Operator:
    """A realm with a pharmacy, a description of one hub, and the command."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.realm = RealmOnDisk(directory)
        self.pharmacy = self.realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "apotek")
        self.description = directory / "network.toml"
        self.description.write_text(ported("hub", "hub") + ported("spare", "hub"))
        self.output = directory / "servers"
        [self.port] = [
            int(line.split()[2])
            for line in self.description.read_text().splitlines()
            if line.startswith("port")
        ][:1]

    def __call__(self, *arguments: object) -> tuple[int, dict[str, object]]:
        """Run ``rxledger nats …``; exit code and result."""
        unlock = [] if arguments[0] == "serve" else ["--unlock", self.realm.unlock.path]
        code = main(["nats", *map(str, [*arguments, *unlock, "--json"])])
        out = self._capsys.readouterr().out.strip().splitlines()
        return code, json.loads(out[-1]) if out and out[-1].startswith("{") else {}

    def config(self) -> tuple[int, dict[str, object]]:
        realm = self.realm.directory / "realm"
        return self("config", self.description, "--output", self.output, "--realm", realm)

    def users(self, *more: str) -> tuple[int, dict[str, object]]:
        return self("users", self.output, "--node", self.realm.directory / "realm" / "agency", *more)


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Operator]:
    made = Operator(tmp_path / "realm", capsys)
    yield made
    made.realm.close()


def test_folders_are_written_while_the_agencys_node_runs(operator: Operator) -> None:
    """Its store is open for writing in this process."""
    code, result = operator.config()
    assert code == EXIT_DONE
    assert [(s["name"], s["users"], s["changed"]) for s in result["servers"]] == [
        ("hub", 2, True),
        ("spare", 2, True),
    ]
    assert result["revoked"] == result["lapsed"] == result["expired"] == []
    assert not any(s["changed"] for s in operator.config()[1]["servers"])


def test_a_server_is_run_and_takes_a_revocation(operator: Operator) -> None:
    operator.config()
    command = [sys.executable, "-m", "nodes.cli.main", "nats", "serve", str(operator.output / "hub")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as serving:
        try:
            url = f"tls://127.0.0.1:{operator.port}"

            async def log_in(ledger: Ledger) -> bool:
                try:
                    async with connected(url, operator.realm.realm, login_of(ledger)):
                        return True
                except Exception:
                    return False

            asyncio.run(_until(lambda: log_in(operator.pharmacy)))
            # The process is the server itself: what stops it, stops it.
            assert b"nats-server" in Path(f"/proc/{serving.pid}/cmdline").read_bytes()
            code, result = operator.users()
            assert code == EXIT_REFUSED
            assert [(a["name"], a["done"]) for a in result["applied"]] == [("hub", True), ("spare", False)]
            operator.realm.revoke(operator.pharmacy)
            code, result = operator.users("--offline")
            assert (code, result["applied"]) == (EXIT_DONE, [])
            assert result["revoked"] == [operator.pharmacy.node.identity.node.hex()]
            assert asyncio.run(log_in(operator.pharmacy))
            operator.users()
            assert not asyncio.run(log_in(operator.pharmacy))
        finally:
            serving.send_signal(signal.SIGTERM)
            _, logged = serving.communicate(timeout=20)
    assert serving.returncode in (0, 1), logged[-2000:]
    assert operator.pharmacy.node.identity.name.encode() not in logged


async def _until(condition: object) -> None:
    await eventually(condition, "the server lets a node in")


def test_what_cannot_be_done_is_said(operator: Operator, tmp_path: Path) -> None:
    assert operator("serve", tmp_path)[0] == EXIT_REFUSED
    assert operator("users", tmp_path, "--node", operator.realm.directory / "apotek")[0] == EXIT_REFUSED
    operator.description.write_text("[[hub]]\nname = 1\n")
    assert operator.config()[0] == EXIT_REFUSED
    assert not operator.output.exists()
    assert asyncio.run(apply_folders([], operator.realm.realm)) == []
