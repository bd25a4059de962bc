"""Daemons as processes of their own, without any network: a courier between them, commands beside them, nights, stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ledger import Ledger, StoreBusy, SystemClock
from ledger.identity import verify_chain
from nodes.daemon import service
from nodes.daemon.config import parse_config
from nodes.daemon.report import last_report
from nodes.daemon.status import STATUS_METHOD, NodeStatus
from nodes.local import OwnerGone, connect_or_open
from nodes.local.client import SharedLedger
from nodes.local.opening import owner_of
from tests.nodes.local.site_for_tests import DISTRICT, DOCTOR, NUMBER, OFFICER, Site, order

ROOT = Path(__file__).resolve().parents[3]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def configured(site: Site, name: str, more: str = "") -> Path:
    path = site.directory / f"{name}.toml"
    path.write_text(
        f'node = "{name}"\nunlock = "{site.unlock.path}"\n'
        f'[spool]\ndirectory = "{name}-spool"\noutbox = "broadcast"\ninterval_s = 1\n{more}'
    )
    return path


class Daemon:
    """A daemon's process, and what it said."""

    def __init__(self, site: Site, name: str, config: Path, *more: str) -> None:
        self.site, self.name = site, name
        self.log = (site.directory / f"{name}.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from nodes.cli import main; raise SystemExit(main())", "daemon", "--config", str(config), *more],
            stderr=self.log, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def said(self) -> str:
        return (self.site.directory / f"{self.name}.log").read_text()

    def status(self) -> NodeStatus:
        owner = owner_of(self.site.node(self.name))
        assert owner is not None, self.said()
        try:
            return owner.ask(STATUS_METHOD, NodeStatus)
        finally:
            owner.close()

    def listens(self) -> bool:
        assert self.process.poll() is None, self.said()
        owner = owner_of(self.site.node(self.name))
        if owner is None:
            return False
        owner.close()
        return True

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(site: Site, name: str, more: str = "") -> Iterator[Daemon]:
    daemon = Daemon(site, name, configured(site, name, more))
    try:
        until(daemon.listens)
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(60)
        daemon.log.close()


def carried(site: Site, giver: str, taker: str) -> None:
    """A courier: whatever lies in one outbox goes into the other's inbox."""
    for path in (site.directory / f"{giver}-spool/outbox").glob("[!.]*.rxb"):
        with suppress(FileNotFoundError):  # The daemon has just put a newer one in its place.
            shutil.move(path, site.directory / f"{taker}-spool/inbox" / path.name)


def test_a_courier_alone_brings_two_daemons_into_step_and_hosts_write_beside(site: Site) -> None:
    with running(site, "clinic") as clinic, running(site, "pharmacy") as pharmacy:
        with connect_or_open(site.node("clinic"), site.unlock) as host:
            assert isinstance(host, SharedLedger)
            document = host.prescribe(order(), person=DOCTOR).document

        def arrived() -> bool:
            carried(site, "clinic", "pharmacy")
            with connect_or_open(site.node("pharmacy"), site.unlock) as till:
                return document in till.patient(order().patient, person=OFFICER, purpose="test").prescriptions

        until(arrived)
        status = pharmacy.status()
        assert status.running
        assert not status.links
        assert any("no link is up" in note for note in status.notes)
        assert clinic.stop() == 0
        assert pharmacy.stop() == 0
        for daemon in (clinic, pharmacy):
            lines = [json.loads(line) for line in daemon.said().splitlines()]
            assert {"daemon.started", "daemon.stopped"} <= {line["event"] for line in lines}
            assert NUMBER not in daemon.said()
    for name in ("clinic", "pharmacy"):
        assert not (site.node(name) / "owner.sock").exists()


def test_a_daemon_that_was_killed_goes_on_where_it_was(site: Site) -> None:
    command = b"\x21" * 16
    with running(site, "clinic") as daemon, connect_or_open(site.node("clinic"), site.unlock) as host:
        first = host.prescribe(order(), person=DOCTOR, command=command)
        daemon.process.kill()
        daemon.process.wait(60)
        with pytest.raises(OwnerGone):
            host.today()
    with running(site, "clinic") as daemon, connect_or_open(site.node("clinic"), site.unlock) as host:
        again = host.prescribe(order(), person=DOCTOR, command=command)
        assert (again.link, again.repeated) == (first.link, True)
        assert daemon.status().store.incarnation == 1


def test_a_second_daemon_of_one_node_is_turned_away(site: Site) -> None:
    with running(site, "clinic"):
        second = Daemon(site, "clinic", configured(site, "clinic"))
        assert second.process.wait(120) == 1
        second.log.close()
        assert "store-busy" in second.said()
        with pytest.raises(StoreBusy):
            Ledger.open(site.node("clinic"), site.unlock)


def test_a_node_is_enrolled_while_the_agencys_daemon_runs(site: Site) -> None:
    (site.directory / "agency").symlink_to(site.agency)
    with running(site, "agency") as agency:
        enrol = "from nodes.cli import main; raise SystemExit(main())"
        done = subprocess.run(
            [sys.executable, "-c", enrol, "node", "enrol", "--realm", str(site.agency.parent), "--role", "pharmacy",
             "--district", "SE-C-0380", "--name", "nytt apotek", "--node", str(site.node("late")), "--unlock",
             str(site.unlock.path), "--json"],
            check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        who = json.loads(done.stdout)["node"]
        with connect_or_open(site.agency, site.unlock) as shared:
            assert isinstance(shared, SharedLedger)
            view = shared.node.reader.governance()
            assert who in {verify_chain(shared.node.realm, (der, *shared.node.identity.certificates[1:])).node.hex() for der in view.admitted}  # fmt: skip
        assert agency.stop() == 0
    with site.open("late") as late, Ledger.open(site.agency, site.unlock) as agency_ledger:
        assert late.node.identity.node.hex() == who
        # The key of a district that the running daemon made for it.
        assert late.node.keyring.epochs("SE-C-0380") == agency_ledger.node.keyring.epochs("SE-C-0380") != []
        assert late.inquiry.frontier_digest(["governance"]) == agency_ledger.inquiry.frontier_digest(
            ["governance"]
        )


def test_one_nights_work_is_done_on_demand_and_reported(site: Site) -> None:
    nightly = '[nightly]\nstart = "02:30"\nbackup_directory = "backups"\nbackups_kept = 2\n'
    config = configured(site, "clinic", nightly)
    with site.open("clinic") as ledger:
        ledger.prescribe(order(), person=DOCTOR)
        entries = sum(1 for _ in ledger.inquiry.verify())
    codes: list[Any] = []
    for _ in range(3):
        night = Daemon(site, "clinic", config, "--nightly")
        codes.append(night.process.wait(120))
        night.log.close()
    report = last_report(site.node("clinic"))
    assert report is not None
    assert report.scrub is not None
    assert report.backup is not None
    assert (report.scrub.complete, report.scrub.checked_entries) == (True, entries)
    assert (report.backup.verified, report.backup.entries, report.backup.removed) == (True, entries, 1)
    assert len(list((site.directory / "backups").iterdir())) == 2
    assert codes == [0, 0, 0]
    with site.open("clinic") as ledger:
        assert ledger.inquiry.frontier_digest([DISTRICT])


def test_a_daemon_waits_for_a_command_that_has_the_store_at_that_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config('node = "clinic"', base=site.directory)
    holding = site.open("clinic")
    waits = []

    def ended(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holding.close()

    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=time.monotonic, sleep=ended))
    with service._opened(config, site.unlock, SystemClock()) as ledger:
        assert ledger.node.store.writable
        assert len(waits) == 3
        monkeypatch.setattr(service, "OPEN_SECONDS", 0.0)
        with pytest.raises(StoreBusy):
            service._opened(config, site.unlock, SystemClock())
