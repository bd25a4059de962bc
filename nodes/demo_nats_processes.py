"""What the demonstration on real servers starts and breaks: daemons as processes of their own, and a cable to cut.

- Daemons die with the thread that started them, as its servers do (`nodes.nats.server`): none outlives a demonstration,
  however that ends.
- A cable is a forwarder on loopback. Cut, it resets what runs through it and takes no calls, as a dug-up fibre does with
  a router that says so; it never looks into what it carries (TLS).
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodes.nats.server import die_with, end_child

__all__ = ["Cable", "DaemonProcess", "Overdue", "stopped_by_signals", "until"]

LOOK_SECONDS = 0.02
"""Between two looks at a condition that nothing announces."""
STOP_SECONDS = 15.0
"""A daemon ends in half a second; on a machine that is busy, some more. Whoever does not end then is killed."""
LOG_TAIL_BYTES = 4096
"""Of a daemon's log, in the words of a failure."""
CHUNK_BYTES = 64 * 1024
"""Carried through the cable at once."""
CALLS_MAX = 8
"""Connections that wait to be taken by a cable: one hub dials."""
_COMMAND = "from nodes.cli import main; raise SystemExit(main())"
"""The command `rxledger` by this Python, whether or not its directory of programs is on the path."""


class Overdue(Exception):
    """A condition did not come about within its time; the message says which."""


_stopping = threading.Event()
"""Set by a signal. Signals are the process's, and so is this."""


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Let SIGINT and SIGTERM end what waits in `until`; gives what says whether one came.

    No exception out of a signal's handler: one that strikes while a process is being made, or in a destructor, is lost,
    and one that strikes while things are put away leaves the rest of them lying about.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _stopping  # Signals are the main thread's.
        return
    former = {
        number: signal.signal(number, lambda *_: _stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield _stopping
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _stopping.clear()


def until(condition: Callable[[], bool], what: str, seconds: float, look_s: float = LOOK_SECONDS) -> float:
    """Wait for a condition; returns the seconds that it took.

    Args:
        condition: looked at again and again.
        what: it says, in words.
        seconds: after which it is overdue.
        look_s: between two looks.

    Raises:
        Overdue: it did not come about in time.
        KeyboardInterrupt: a signal came (`stopped_by_signals`).
    """
    started = time.monotonic()
    while True:
        if _stopping.is_set():
            raise KeyboardInterrupt
        if condition():
            return time.monotonic() - started
        if time.monotonic() - started > seconds:
            raise Overdue(f"{what}: not within {seconds:.0f} s")
        time.sleep(look_s)


class DaemonProcess:
    """`rxledger daemon` in a process of its own. May be started again after `stop` or `kill`."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it is ready when it listens on its node's socket."""
        command = [sys.executable, "-c", _COMMAND, "daemon", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (one prctl; nothing is allocated or locked)
            )  # fmt: skip

    def terminate(self) -> None:
        """Ask it to end in good order (SIGTERM), without waiting."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it in good order. Repeatable."""
        if self._process is not None:
            end_child(self._process, STOP_SECONDS)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash or a power cut would. Repeatable."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """The last lines that it logged."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


class Cable:
    """A way from a port of loopback to another, that can be cut and mended. Its threads end with `close`."""

    def __init__(self, port: int, to_port: int) -> None:
        """Lay it; it carries at once.

        Args:
            port: where it is entered.
            to_port: where it leads.
        """
        self.port, self._to = port, to_port
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.mend()

    def mend(self) -> None:
        """Carry again; what was connected before has to call again."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=CALLS_MAX)
        with self._lock:
            self._listener = listener
        self._run(self._take_calls, listener)

    def cut(self) -> None:
        """Reset every connection through it, and take no more."""
        with self._lock:
            listener, self._listener = self._listener, None
            ends, self._ends = self._ends, set()
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # Wakes the thread that waits in accept.
            listener.close()
        for end in ends:
            with suppress(OSError):
                # No farewell: a reset, as both sides get it from a router whose line is gone.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
        self._join()

    def close(self) -> None:
        """Cut it for good. Repeatable."""
        self.cut()

    def _run(self, work: Callable[..., None], *given: socket.socket) -> None:
        thread = threading.Thread(target=work, args=given, name="cable", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _join(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(STOP_SECONDS)

    def _take_calls(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # Cut.
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=1)
            except OSError:
                near.close()  # Nobody is there: so is told who called.
                continue
            far.settimeout(None)
            with self._lock:
                whole = self._listener is listener
                if whole:
                    self._ends |= {near, far}
            if not whole:
                near.close()
                far.close()
                return
            self._run(self._carry, near, far)
            self._run(self._carry, far, near)

    def _carry(self, source: socket.socket, destination: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                destination.sendall(data)
        for end in (source, destination):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # Each end is closed by the thread that reads from it: a number is not given away while it is in use.
        source.close()
        with self._lock:
            self._ends.discard(source)
