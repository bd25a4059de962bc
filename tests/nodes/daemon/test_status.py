"""What a node says of itself: status, report, metrics; to people, to machines, with and without a daemon."""

from __future__ import annotations

import io
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledger import InvalidInput, Ledger, Level
from ledger.policy import HOUR_MS
from nodes.cli.main import main
from nodes.daemon import metrics, report
from nodes.daemon.config import ReadinessConfig
from nodes.daemon.metrics import MetricsServer, metrics_text
from nodes.daemon.report import (
    BackupResult,
    NightReport,
    PeerTurn,
    ScrubResult,
    keep_report,
    last_report,
    report_lines,
)
from nodes.daemon.status import (
    STATUS_METHOD,
    LaneCounts,
    LaneTimes,
    NodeStatus,
    PeerStatus,
    known_peers,
    node_status,
    status_lines,
)
from nodes.links import LinkState, LinkStatus
from nodes.local import OwnerSocket
from tests.nodes.daemon.test_readiness import LaterClock
from tests.nodes.local.site_for_tests import NUMBER, Site

NIGHT = NightReport(
    night=date(2026, 1, 11), began_ms=1_768_095_000_000, ended_ms=1_768_095_900_000, budget_bytes=1000, spent_bytes=750,
    peers=(
        PeerTurn(node="aa" * 16, link="hub", entries_in=3, entries_out=4, bytes_in=300, bytes_out=400, in_step=True),
        PeerTurn(node="bb" * 16, bytes_in=50, why="the budget was spent"),
    ),
    not_reached=(("cc" * 16, "no link is up"),),
    scrub=ScrubResult(checked_entries=70, complete=True),
    backup=BackupResult(file="x.db", entries=70, verified=True, removed=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def pharmacy(site: Site) -> Iterator[Ledger]:
    with site.open("pharmacy") as ledger:
        yield ledger


def live(ledger: Ledger, where: Site, **fields: Any) -> NodeStatus:
    """As a daemon with one link up and one peer behind would tell it."""
    now = ledger.node.now_ms()
    (first, *rest) = known_peers(ledger)
    behind = msgspec.structs.replace(
        first, link="hub", heard_ms=now - 5000, in_step=False, they_lack=LaneCounts(1, 2, 3), we_lack=LaneCounts(),
        oldest_unsent_ms=LaneTimes(now - 60_000, 0, now - 7_200_000), refused=2, last_refusal="malformed",
    )  # fmt: skip
    stated: dict[str, Any] = {
        "running": True,
        "peers": [behind, *rest],
        "links": [
            LinkStatus(
                name="hub", state=LinkState.UP, server="hub.example:4222", sent_bytes=10, received_bytes=20
            ),
            LinkStatus(name="radio", state=LinkState.DOWN, reason="no answer"),
        ],
        "started_ms": now - 1000,
        "refusals": {"malformed": 2, "not-authentic": 1},
    }
    return node_status(ledger, where.node("pharmacy"), **(stated | fields))


# --- status -----------------------------------------------------------------------------------------------------------


def test_the_store_alone_says_that_no_daemon_runs_and_what_is_not_known(site: Site, pharmacy: Ledger) -> None:
    status = node_status(pharmacy, site.node("pharmacy"), running=False, owned=False)
    assert status.store.entries > 0
    assert status.store.size_bytes > 0
    assert {peer.name for peer in status.peers} >= {"Övningsriket agency"}
    assert all(peer.they_lack is None for peer in status.peers)
    text = "\n".join(status_lines(status))
    assert "daemon: NOT running" in text
    assert "it lacks unknown" in text
    assert "! the daemon is not running: nothing is replicated" in text
    owned = "\n".join(status_lines(node_status(pharmacy, site.node("pharmacy"), running=False)))
    assert "another process owns the store" in owned


def test_a_daemon_tells_links_peers_lanes_and_ages(site: Site, pharmacy: Ledger) -> None:
    text = "\n".join(status_lines(live(pharmacy, site)))
    for said in (
        "hub up hub.example:4222", "radio down", "no answer", "heard 5 s ago over hub", "not in step", "it lacks at most 1+2+3",
        "oldest not known to be there: lane 0 60 s ago, lane 2 2 h ago", "2 refused (malformed)", "refused: 2 malformed, 1 not-authentic",
        "level: normal (declared)",
    ):  # fmt: skip
        assert said in text, said
    assert "ok" not in re.findall(r"[a-z]+", text.lower())


def test_what_needs_a_look_is_said(site: Site) -> None:
    with Ledger.open(
        site.node("pharmacy"), site.unlock, writable=False, clock=LaterClock(30 * HOUR_MS)
    ) as ledger:
        status = live(
            ledger, site, links=(), site=ReadinessConfig(crisis_after_hours=1), peers=known_peers(ledger)
        )
        notes = "\n".join(status.notes)
        assert status.readiness.level is Level.CRISIS
        for said in (
            "no link is up",
            "has risen to crisis",
            "is not obeyed",
            "have not been heard for 24 hours",
        ):
            assert said in notes, said


def test_peers_silent_longest_come_first_and_more_than_there_is_room_for_are_counted(
    site: Site, pharmacy: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nodes.daemon import status as module

    monkeypatch.setattr(module, "PEERS_SHOWN_MAX", 50)
    peers = [PeerStatus(node=f"{n:032x}", heard_ms=1_000_000 - n) for n in range(60)]
    status = live(pharmacy, site, peers=peers)
    assert status.peers[0].node == f"{59:032x}"
    assert (len(status.peers), status.peers_not_shown) == (50, 10)
    assert "and 20 more" in "\n".join(status_lines(status))


def run(*arguments: str, site: Site) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("RXLEDGER_UNLOCK_FILE", str(site.unlock.path))
        patch.setenv("COLUMNS", "200")
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_the_command_asks_the_daemon_and_without_one_the_store(site: Site, pharmacy: Ledger) -> None:
    where = str(site.node("pharmacy"))
    with OwnerSocket(pharmacy, site.node("pharmacy")) as owner:
        # An owner that is no daemon says nothing of itself.
        code, out, _ = run("status", "--node", where, "--json", site=site)
        assert (code, json.loads(out)["running"], json.loads(out)["owned"]) == (0, False, True)
        owner.register(STATUS_METHOD, lambda: live(pharmacy, site))
        code, out, _ = run("status", "--node", where, "--json", site=site)
        said = json.loads(out)
        assert (code, said["running"]) == (0, True)
        assert {"stop": 1, "supplies": 2, "rest": 3} in [peer["they_lack"] for peer in said["peers"]]
        assert said["links"][0]["name"] == "hub"
        code, out, _ = run("status", "--node", where, site=site)
        assert "daemon: running since" in out
    pharmacy.close()
    code, out, _ = run("status", "--node", where, "--json", site=site)
    assert (code, json.loads(out)["running"], json.loads(out)["owned"]) == (0, False, False)
    assert run("status", "--node", where + "x", site=site)[0] == 1


def test_commands_write_through_a_running_owner(site: Site) -> None:
    where = str(site.node("clinic"))
    order = (
        "prescribe", "--patient", NUMBER, "--pack", "20991231100001", "--product-name", "Metformin", "--dosage", "1",
        "--person", "1234561", "--command-id", "31" * 16, "--node", where, "--json",
    )  # fmt: skip
    with site.open("clinic") as ledger, OwnerSocket(ledger, site.node("clinic")):
        code, out, err = run(*order, site=site)
        assert code == 0, out + err
        assert not json.loads(out)["repeated"]
        code, shown, _ = run("show", json.loads(out)["document"], "--node", where, "--json", site=site)
        assert code == 0
        assert json.loads(shown)["answer"]["prescription"]["status"] == "active"
        code, refused, _ = run(
            "restore", str(site.unlock.path), "--replace", "--node", where, "--json", site=site
        )
        assert (code, json.loads(refused)["error"]["code"]) == (1, "store-busy")
    code, out, _ = run(*order, site=site)
    assert json.loads(out)["repeated"]


def test_where_the_owner_lets_nobody_write_the_command_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nodes.cli import common

    monkeypatch.setattr(common, "OWNER_SECONDS", 0.1)
    with site.open("clinic"):
        code, out, _ = run(
            "amend", "00" * 16, "--dosage", "x", "--person", "1", "--node", str(site.node("clinic")), "--json", site=site
        )  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "store-busy")


# --- the report of a night ---------------------------------------------------------------------------------------------


def test_a_report_says_what_moved_and_what_did_not_and_why() -> None:
    text = "\n".join(report_lines(NIGHT))
    for said in (
        "750 of 1000 bytes", "over hub: 3 entries in, 4 out, 300 bytes in, 400 out; in step",
        "NOT in step: the budget was spent", "NOT reached: no link is up", "70 entries verified, the whole store",
        "70 entries read back",
    ):  # fmt: skip
        assert said in text, said
    assert not NIGHT.whole


@pytest.mark.parametrize(
    ("change", "whole", "said"),
    [
        ({}, True, ""),
        ({"ended_ms": 0}, False, "not ended"),
        ({"not_reached": (("cc" * 16, "why"),)}, False, "NOT reached"),
        ({"scrub": ScrubResult(checked_entries=5)}, False, "NOT the whole store yet"),
        ({"scrub": ScrubResult(checked_entries=5, damage="page 3")}, False, "DAMAGE after 5 entries: page 3"),
        ({"scrub": None}, True, "scrub: not asked for"),
        ({"backup": BackupResult(why="no room")}, False, "backup: NONE: no room"),
        ({"backup": None}, True, "backup: not asked for"),
        ({"peers": (), "not_reached": ()}, True, "no peer is known"),
    ],
)
def test_a_night_is_whole_only_if_nothing_was_left_undone(
    change: dict[str, Any], whole: bool, said: str
) -> None:
    night = msgspec.structs.replace(NIGHT, **({"peers": NIGHT.peers[:1], "not_reached": ()} | change))
    assert night.whole == whole
    assert said in "\n".join(report_lines(night))


def test_reports_are_kept_whole_and_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REPORTS_KEPT", 2)
    assert last_report(tmp_path) is None
    for day in (11, 12, 13):
        keep_report(tmp_path, msgspec.structs.replace(NIGHT, night=date(2026, 1, day)))
    assert [p.name for p in sorted((tmp_path / "reports").iterdir())] == [
        "night-2026-01-12.json",
        "night-2026-01-13.json",
    ]
    # Written again when the run goes on.
    keep_report(tmp_path, msgspec.structs.replace(NIGHT, night=date(2026, 1, 13), resumed=True))
    last = last_report(tmp_path)
    assert last == msgspec.structs.replace(NIGHT, night=date(2026, 1, 13), resumed=True)
    (tmp_path / "reports" / "night-2026-01-13.json").write_text("{")
    assert last_report(tmp_path) == msgspec.structs.replace(NIGHT, night=date(2026, 1, 12))


# --- metrics ------------------------------------------------------------------------------------------------------------


def values(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[f"rxledger_{name}", frozenset(labels.items())]


def test_metrics_say_what_the_status_says(site: Site, pharmacy: Ledger) -> None:
    status = live(pharmacy, site)
    status = msgspec.structs.replace(
        status, night=msgspec.structs.replace(status.night, last=NIGHT, next_ms=5000)
    )
    found = values(metrics_text(lambda: status).decode())
    assert value(found, "link_up", link="hub") == 1
    assert value(found, "link_up", link="radio") == 0
    assert value(found, "link_bytes_total", link="hub", direction="in") == 20
    assert value(found, "entries") == status.store.entries
    assert value(found, "lag_entries", side="they", lane="1") == 2
    assert value(found, "oldest_unsent_seconds", lane="0") == pytest.approx(60, abs=1)
    assert value(found, "oldest_unsent_seconds", lane="1") == 0
    assert value(found, "refusals_total", code="malformed") == 2
    assert value(found, "window_next_seconds") == 5
    assert value(found, "window_last_whole") == 0
    assert value(found, "scrub_last_complete") == 1
    assert value(found, "backup_last_verified") == 1
    assert value(found, "readiness_level") == 0
    peer = next(p for p in status.peers if p.they_lack is not None)
    assert value(found, "peer_lag_entries", node=peer.node, lane="2") == 3


def test_metrics_have_few_labels_and_no_names(site: Site, pharmacy: Ledger) -> None:
    peers = [PeerStatus(node=f"{n:032x}", name="Apoteket Eken", they_lack=LaneCounts(1)) for n in range(500)]
    refusals = {f"code-{n}": 1 for n in range(500)}
    text = metrics_text(lambda: live(pharmacy, site, peers=peers, refusals=refusals)).decode()
    found = values(text)
    labelled = {dict(labels)["node"] for _, labels in found if "node" in dict(labels)}
    assert len(labelled) == metrics.PEERS_LABELLED_MAX
    assert sum(name == "rxledger_refusals_total" for name, _ in found) == metrics.CODES_MAX
    assert value(found, "lag_entries", side="they", lane="0") == 500
    assert "Apoteket" not in text
    assert len(text) < 200_000


def fetched(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served_on_loopback(site: Site, pharmacy: Ledger) -> None:
    with MetricsServer(("127.0.0.1", 0), lambda: live(pharmacy, site)) as server:
        code, text = fetched(server.port)
        assert code == 200
        assert value(values(text), "link_up", link="hub") == 1
        assert fetched(server.port, "/")[0] == 404
        assert fetched(server.port, method="POST")[0] == 405
        with pytest.raises(InvalidInput, match="cannot be listened on"):
            MetricsServer(("127.0.0.1", server.port), lambda: live(pharmacy, site))


def test_a_status_that_fails_is_told_without_its_words(site: Site) -> None:
    def broken() -> NodeStatus:
        raise RuntimeError(NUMBER)

    with MetricsServer(("127.0.0.1", 0), broken) as server:
        code, text = fetched(server.port)
        assert (code, NUMBER in text) == (500, False)


def test_who_holds_a_connection_open_keeps_the_metrics_from_nobody_for_long(
    site: Site, pharmacy: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CONNECTION_SECONDS", 1.0)
    with MetricsServer(("127.0.0.1", 0), lambda: live(pharmacy, site)) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        try:
            for sock in idle:
                sock.sendall(b"GET /metr")
            assert fetched(server.port)[0] == 200
            with socket.create_connection(("127.0.0.1", server.port)) as flood:
                flood.settimeout(5)
                deadline = time.monotonic() + 5
                try:
                    while flood.send(b"x" * 4096) and time.monotonic() < deadline:
                        pass
                except OSError:
                    pass
            assert fetched(server.port)[0] == 200
        finally:
            for sock in idle:
                sock.close()
