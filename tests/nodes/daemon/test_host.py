"""What the machine asks of a daemon: notifications, signals, logs, units, a check before the start."""

from __future__ import annotations

import asyncio
import configparser
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ledger import InvalidInput
from ledger.errors import KeysLocked, NotFound
from nodes.cli.main import main
from nodes.daemon.check import checked
from nodes.daemon.config import parse_config
from nodes.daemon.host import notify, stop_signals, watchdog_s
from nodes.daemon.logs import configure_logs
from tests.nodes.local.site_for_tests import Site

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "packaging" / "systemd"


# --- systemd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_where_it_listens(tmp_path: Path, abstract: bool) -> None:
    address = f"@rxledger-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(5)
        assert notify("READY=1", {"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": address})
    assert not notify("READY=1", {})


def test_signs_of_life_come_three_times_in_the_time_that_is_waited() -> None:
    assert watchdog_s({"WATCHDOG_USEC": "30000000"}) == 10
    assert watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 10
    for none in (
        {},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "3", "WATCHDOG_PID": "1"},
    ):
        assert watchdog_s(none) is None


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop(name: signal.Signals) -> None:
    async def wait() -> None:
        with stop_signals(asyncio.get_running_loop()) as stop:
            os.kill(os.getpid(), name)
            await asyncio.wait_for(stop.wait(), 10)

    before = signal.getsignal(name)
    asyncio.run(wait())
    assert signal.getsignal(name) == before


def units() -> list[Path]:
    return sorted(UNITS.iterdir())


@pytest.mark.parametrize("path", units(), ids=lambda p: p.name)
def test_units_say_what_they_must(path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    if path.suffix == ".timer":
        assert unit["Timer"]["Persistent"] == "yes"
        assert unit["Timer"]["RandomizedDelaySec"]
        return
    service = unit["Service"]
    assert service["LoadCredential"] == "rxledger-unlock:/etc/rxledger/%i.unlock"
    assert service["User"] == "rxledger"
    for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces"):
        assert service[key] == "yes", key
    assert service["ProtectSystem"] == "strict"
    assert service["UMask"] == "0077"
    # The options that it starts are those that there are.
    words = service["ExecStart"].split()
    assert words[0].endswith("/rxledger")
    with pytest.raises(SystemExit):
        main([*words[1:2], "--help"])
    shown = subprocess.run(
        [sys.executable, "-c", "from nodes.cli import main; raise SystemExit(main())", words[1], "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    ).stdout  # fmt: skip
    for option in (word for word in words if word.startswith("--")):
        assert option in shown


def test_systemd_itself_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Where the machine has systemd: with a program and a user that exist."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    for path in units():
        text = re.sub(r"/opt/rxledger/bin/rxledger", "/bin/true", path.read_text())
        (tmp_path / path.name).write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE))
    for name in ("rxledger@eken.service", "rxledger-nightly@eken.timer", "rxledger-nightly@eken.service"):
        done = subprocess.run(
            [analyze, "verify", "--man=no", name], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )  # fmt: skip
        ours = [line for line in done.stderr.splitlines() if "rxledger" in line]
        assert ours == []


# --- logs ---------------------------------------------------------------------------------------------------------------


def test_logs_are_one_object_a_line_from_a_level_on() -> None:
    file = io.StringIO()
    configure_logs("warning", file)
    log = structlog.get_logger("rxledger")
    log.info("event.written")
    log.warning("link.down", link="hub")
    (line,) = file.getvalue().splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["link"]) == ("link.down", "warning", "hub")
    assert said["timestamp"].endswith("Z")


# --- check ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


LINK = '[[links]]\nname = "hub"\nurls = ["nats://127.0.0.1:4222"]\ntls = false\n'


def check(site: Site, text: str) -> Iterator[str]:
    return checked(parse_config(f'node = "clinic"\n{text}', base=site.directory), site.unlock)


def test_a_good_configuration_is_told_line_by_line(site: Site) -> None:
    text = f'{LINK}[spool]\ndirectory = "spool"\n[nightly]\nstart = "02:30"\nbackup_directory = "backups"\n'
    said = "\n".join(check(site, text))
    for part in (
        "prescriber clinic, unlocked",
        "link hub: 1 servers, NO TLS",
        "spool ",
        "nightly window at 02:30",
        "lost with it",
    ):
        assert part in said
    assert not (site.directory / "spool").exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "links: "),
        (f"{LINK}[readiness]\ncrisis_after_hours = 2\n", "readiness.crisis_after_hours: "),
        (f'{LINK}[spool]\ndirectory = "unlock/secret/spool"\n', "spool.directory: "),
        (f'{LINK}[nightly]\nstart = "02:30"\nbackup_directory = "clinic/b"\n', "nightly.backup_directory: "),
        (f'socket = "unlock/secret/owner.sock"\n{LINK}', "socket: "),
    ],
)
def test_what_a_daemon_would_trip_over_is_found_before(site: Site, text: str, key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        list(check(site, text))
    assert refused.value.message.startswith(key)
    assert refused.value.advice


def test_a_node_among_its_own_peers_is_found(site: Site) -> None:
    with site.open("clinic") as ledger:
        me = ledger.node.identity.node.hex()
    with pytest.raises(InvalidInput, match="among its peers"):
        list(check(site, f'{LINK}[peers]\nnodes = ["{me}"]\n'))


def test_a_node_that_is_not_there_or_locked_is_found(site: Site, tmp_path: Path) -> None:
    config = parse_config(f'node = "nowhere"\n{LINK}', base=site.directory)
    with pytest.raises(NotFound, match="node: "):
        list(checked(config, site.unlock))
    from ledger import UnlockFile

    (tmp_path / "other").write_bytes(bytes(32))
    (tmp_path / "other").chmod(0o600)
    with pytest.raises(KeysLocked):
        list(
            checked(
                parse_config(f'node = "clinic"\n{LINK}', base=site.directory), UnlockFile(tmp_path / "other")
            )
        )


def test_the_command_checks_and_starts_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = site.directory / "node.toml"
    path.write_text(f'node = "clinic"\nunlock = "{site.unlock.path}"\n{LINK}')
    assert main(["daemon", "--config", str(path), "--check", "--json"]) == 0
    assert "unlocked" in json.loads(capsys.readouterr().out)["checked"][0]
    path.write_text('node = "clinic"\nspeed = 1')
    assert main(["daemon", "--config", str(path), "--check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"].startswith("speed: ")
    with pytest.raises(SystemExit):
        main(["daemon", "--config", str(path), "--check", "--nightly"])
