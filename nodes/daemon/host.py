"""What the machine asks of a daemon and is told by it: systemd's notifications, signals to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

__all__ = ["notify", "stop_signals", "watchdog_s"]

WATCHDOG_SHARE = 3
"""A sign of life three times in the time that systemd waits for one."""


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell systemd a state (``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=…``); False if nobody listens.

    The protocol of sd_notify(3): one datagram to the socket that the environment names. No name of a person goes in.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode())
        return True
    return False


def watchdog_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between signs of life that systemd is to get; None: it waits for none."""
    try:
        us = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    if us <= 0 or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return us / 1_000_000 / WATCHDOG_SHARE


@contextmanager
def stop_signals(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Event]:
    """An event that is set when SIGTERM or SIGINT comes, within this context."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        yield stop
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
