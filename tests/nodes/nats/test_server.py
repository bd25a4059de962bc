"""A local nats-server: ready when it says so, reloaded when it reports so, gone when its starter is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ledger.errors import InvalidInput, NotFound
from nodes.nats import server as module
from nodes.nats.server import LocalServer, ServerFailed, check_config, free_ports

ANY = 'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\n'


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def greeting(url: str) -> bytes:
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=5) as client:
        return client.recv(64)


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_listens_as_soon_as_it_has_started(tmp_path: Path) -> None:
    with LocalServer(ANY, tmp_path / "one") as one, LocalServer(ANY, tmp_path / "two") as two:
        assert one.urls != two.urls
        assert greeting(one.urls[0]).startswith(b"INFO ")
        assert greeting(two.urls[0]).startswith(b"INFO ")
        assert one.running
        pid = one.pid
    assert not one.running
    assert not is_there(pid)


def test_a_killed_server_comes_back_on_its_port(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with LocalServer(f'listen: "127.0.0.1:{port}"', tmp_path) as server:
        first = server.pid
        server.kill()
        with pytest.raises(ServerFailed, match="does not run"):
            _ = server.pid
        server.start()
        assert server.pid != first
        assert server.urls == [f"nats://127.0.0.1:{port}"]
        assert greeting(server.urls[0]).startswith(b"INFO ")
        with pytest.raises(ServerFailed, match="runs already"):
            server.start()
    server.stop()


def test_a_stopped_process_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    with LocalServer(ANY, tmp_path) as server:
        server.signal(signal.SIGSTOP)
    assert not server.running


def test_a_refused_configuration_names_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r'unknown field "nonsense"(.|\n)*nats-server -t'):
        LocalServer("nonsense: 1", tmp_path).start()
    with pytest.raises(InvalidInput, match="unknown field"):
        check_config(tmp_path / "nats.conf")


def test_a_taken_port_names_the_reason(tmp_path: Path) -> None:
    with LocalServer(ANY, tmp_path / "one") as one:
        taken = urlsplit(one.urls[0]).port
        with pytest.raises(ServerFailed, match="address already in use"):
            LocalServer(f'listen: "127.0.0.1:{taken}"', tmp_path / "two").start()


def test_a_server_that_is_not_ready_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "nats-server"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o700)
    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    monkeypatch.setattr(module, "find_server", lambda: slow)
    server = LocalServer(ANY, tmp_path / "one")
    with pytest.raises(ServerFailed, match="did not start within"):
        server.start()
    assert not server.running


def test_a_reload_is_seen_to_be_taken_includes_too(tmp_path: Path) -> None:
    (tmp_path / "limits.conf").write_text("max_payload: 128KB")
    with LocalServer(ANY + "include limits.conf", tmp_path) as server:
        server.reload()
        assert server.monitor("/varz")["max_payload"] == 128 * 1024
        (tmp_path / "limits.conf").write_text("max_payload: 64KB")
        server.reload()
        assert server.monitor("/varz")["max_payload"] == 64 * 1024


def test_a_reload_that_the_server_cannot_take_is_an_error(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with LocalServer(ANY, tmp_path) as server:
        with pytest.raises(InvalidInput, match="unknown field"):
            server.reload(ANY + "nonsense: 1")
        # A good file, but a monitoring port cannot be moved while running.
        with pytest.raises(ServerFailed, match=r"did not take(.|\n)*HTTP"):
            server.reload(f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:{port}"\n')
        server.reload(ANY)


def test_without_monitoring_a_reload_says_what_is_missing(tmp_path: Path) -> None:
    with (
        LocalServer('listen: "127.0.0.1:-1"', tmp_path) as server,
        pytest.raises(ServerFailed, match="give `http`"),
    ):
        server.reload()


def test_it_dies_with_its_starter(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom nodes.nats.server import LocalServer\n"
        f"server = LocalServer({ANY!r}, Path(sys.argv[1]))\nserver.start()\n"
        "print(server.pid, flush=True)\nsys.stdin.read()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert is_there(pid)
        starter.kill()
    until(lambda: not is_there(pid))


def test_no_server_on_the_machine_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match=r"rxledger\[server\]"):
        LocalServer(ANY, tmp_path / "one").start()
    other = tmp_path / "nats-server"
    other.symlink_to("/bin/true")
    assert module.find_server() == other
    assert os.access(other, os.X_OK)


def test_a_server_that_is_gone_does_not_answer(tmp_path: Path) -> None:
    with LocalServer(ANY, tmp_path) as server:
        assert server.monitor("/varz")["max_payload"] == 1024 * 1024
        with pytest.raises(ServerFailed, match="does not answer to /nothing"):
            server.monitor("/nothing")
        server.kill()
        with pytest.raises(ServerFailed, match="does not answer to /varz"):
            server.monitor("/varz")
        with pytest.raises(ServerFailed):
            server.reload()


def test_an_answer_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MONITOR_BYTES_MAX", 100)
    with LocalServer(ANY, tmp_path) as server, pytest.raises(ServerFailed, match="larger than 100"):
        server.monitor("/varz")


def test_a_server_that_stands_still_does_not_hold_up_a_reload_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MONITOR_SECONDS", 0.2)
    with LocalServer(ANY, tmp_path) as server:
        server.signal(signal.SIGSTOP)
        with pytest.raises(ServerFailed, match="does not answer"):
            server.reload()
        server.signal(signal.SIGCONT)
        server.reload()


def test_free_ports_are_free_and_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [port for _ in range(20) for port in free_ports(3)]
    assert len(set(given)) == 60
    assert all(10_000 <= port < 32_768 for port in given)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", given[0]))
        taken.listen()
        monkeypatch.setattr(module, "_PORTS", range(given[0], given[0] + 1))
        with pytest.raises(ServerFailed, match="no 1 free ports"):
            free_ports(1)
    assert free_ports(1) == given[:1]
