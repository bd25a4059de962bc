"""How many bytes may lie below us on a connection: enough to keep it busy, so few that an urgent message is soon out.

A socket takes megabytes and a modem's queue seconds of them. What has been handed down can no longer be overtaken: on
9,600 bit/s, 14 kB (the ten packets that TCP sends unasked) are twelve seconds. So everything between `send` and the
far end's acknowledgement is counted, and its sum bounded by what the path is seen to carry:

    bound = bytes acknowledged per second of busy time x (shortest round trip + `QUEUE_SECONDS`)

Both come from the kernel (TCP_INFO), which measures them anyway, idle time and our own pauses left out. On a thin link
the bound is its floor, `QUEUE_BYTES_MIN`; on a fast or far one it doubles with every bound's worth acknowledged.
Small socket buffers (SO_SNDBUF, TCP_NOTSENT_LOWAT) would not do: they bound what is unsent, not what lies in a modem,
and they would slow fast links for good.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

__all__ = ["QUEUE_BYTES_MAX", "QUEUE_BYTES_MIN", "QUEUE_SECONDS", "Outflow"]

QUEUE_BYTES_MIN = 2048
"""Two packets: fewer would leave a thin link idle between them. 1.7 s at 9,600 bit/s."""
QUEUE_BYTES_MAX = 1024 * 1024
"""Keeps 1 Gbit/s busy over 8 ms. What a link may lose when it breaks, and what it may cost in memory."""
QUEUE_SECONDS = 0.25
"""How long an urgent message may wait behind others, where the floor does not make it longer."""
_TICK_US = 4000
"""The kernel counts busy time in ticks of up to 4 ms; a shorter time counts as one."""

# struct tcp_info of linux/tcp.h: fields are only ever appended.
_BYTES_ACKED, _MIN_RTT_US, _BUSY_US, _INFO_BYTES = 120, 148, 168, 176


class Outflow:
    """What lies unacknowledged on one TCP connection, and the bound on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._bound = QUEUE_BYTES_MIN
        self._proven = 0
        """Bytes acknowledged at a rate that allows more than the bound, since it was last changed."""
        self._acked, self._busy_us, _ = self._measure()

    def unacknowledged(self) -> int:
        """Bytes that the kernel took and the far end has not acknowledged; 0 if the socket is closed."""
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0
        return max(0, int.from_bytes(answer, "little", signed=True))

    def bound(self) -> int:
        """How many bytes may lie below us now; looks at what was acknowledged since the last time it was asked."""
        acked, busy_us, shortest_us = self._measure()
        count = acked - self._acked
        if count >= QUEUE_BYTES_MIN:
            rate = count / max(busy_us - self._busy_us, _TICK_US) * 1_000_000
            wanted = max(int(rate * (shortest_us / 1_000_000 + QUEUE_SECONDS)), QUEUE_BYTES_MIN)
            self._acked, self._busy_us = acked, busy_us
            self._proven += count
            if wanted < self._bound:
                self._bound, self._proven = wanted, 0
            elif self._proven >= self._bound:
                # Doubled at most, and only after a bound's worth: the first bytes may have met an empty queue half-way.
                self._bound, self._proven = min(wanted, 2 * self._bound, QUEUE_BYTES_MAX), 0
        return self._bound

    def _measure(self) -> tuple[int, int, int]:
        """Bytes acknowledged, busy time (µs), shortest round trip (µs); zeros if the kernel does not tell."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return 0, 0, 0
        if len(info) < _INFO_BYTES:
            return 0, 0, 0
        acked, busy = (
            struct.unpack_from("=Q", info, _BYTES_ACKED)[0],
            struct.unpack_from("=Q", info, _BUSY_US)[0],
        )
        return acked, busy, struct.unpack_from("=I", info, _MIN_RTT_US)[0]
