"""How much may be under way to a peer: enough to fill the link, little enough that an urgent entry is never far behind.

A window from two measurements, in the manner of BBR (Cardwell and others, 2016): the most that was taken in per
millisecond lately, and the shortest time that an answer took. Their product fills the link; half as much again is
allowed, so that a faster link shows, and no more, so that what is sent does not wait in somebody's queue. The time of an
answer alone would not do: on a slow link a larger piece takes longer by itself. An answer is given when a message has
been taken in durably, so a slow disk at the far end slows the sender as a slow line does.
"""

from __future__ import annotations

from collections import OrderedDict, deque

__all__ = ["WINDOW_BYTES_MAX", "WINDOW_BYTES_MIN", "Pace", "Window"]

WINDOW_BYTES_MIN = 2048
"""At 9,600 bit/s under two seconds of line: what an urgent entry waits for at most."""
WINDOW_BYTES_MAX = 2 * 1024 * 1024
"""A hundred megabit at a tenth of a second, and half as much again: more fills memories, not links."""
DELAY_MS = 50
"""How much longer than the quickest answer the window reaches, at least: less is noise."""
MESSAGES_MAX = 1024
"""Messages under way at once, whatever their size."""
PIECES = 4
"""A window goes in so many pieces, so that the link does not idle while an answer travels."""
ANSWERS_KEPT = 16
"""Of which the most that was taken in per millisecond counts: one slow answer is no slow link, four windows of them are."""


class Window:
    """What is under way to one peer. Times in milliseconds, of any clock that does not step back."""

    def __init__(self, ceiling: int = WINDOW_BYTES_MAX) -> None:
        self.size = WINDOW_BYTES_MIN
        """Bytes that may be under way, give or take half a piece."""
        self.ceiling = max(ceiling, WINDOW_BYTES_MIN)
        self._under_way: OrderedDict[int, tuple[int, int, int]] = OrderedDict()
        """Number → bytes, when sent, how many bytes had been taken in by then."""
        self._bytes = self._taken = 0
        self._quickest: int | None = None
        self._rates: deque[float] = deque(maxlen=ANSWERS_KEPT)
        """Bytes taken in per millisecond, while each of the latest messages that were answered was under way."""
        self.last_ms: int | None = None
        """When an answer last came; None: never yet."""

    def room(self) -> int:
        """Bytes that may be sent now: a whole piece, or none. Something may always be under way."""
        piece = max(WINDOW_BYTES_MIN // 2, self.size // PIECES)
        if not self._under_way:
            return piece
        # Half a piece beyond, or a window of three pieces and a half would never be full, and so never grow.
        if len(self._under_way) >= MESSAGES_MAX or self.size - self._bytes < piece // 2:
            return 0
        return min(piece, self.ceiling - self._bytes)

    def sent(self, number: int, size: int, now_ms: int) -> None:
        """A numbered message went out."""
        self._under_way[number] = (size, now_ms, self._taken)
        self._bytes += size

    def answered(self, number: int, now_ms: int) -> None:
        """The peer has taken in, or will never see, every message up to this one."""
        gone, newest = 0, None
        while self._under_way:
            first = next(iter(self._under_way))
            if first > number:
                break
            size, *newest = self._under_way.pop(first)
            gone += size
        if newest is None:
            return
        sent_ms, taken = newest
        self._bytes -= gone
        self._taken += gone
        self.last_ms = now_ms
        took = max(1, now_ms - sent_ms)
        self._quickest = took if self._quickest is None else min(self._quickest, took)
        self._rates.append((self._taken - taken) / took)
        reach = self._quickest + max(DELAY_MS, self._quickest // 2)
        # Doubled with each window that was answered at most: one odd answer floods nobody.
        self.size = min(self.ceiling, self.size + gone, int(max(self._rates) * reach))
        self.size = max(WINDOW_BYTES_MIN, self.size)

    def oldest_ms(self) -> int | None:
        """When the oldest message under way was sent; None: nothing is."""
        return next(iter(self._under_way.values()))[1] if self._under_way else None


class Pace:
    """What an operator lets one link carry: bits a second, over any two seconds (a token bucket)."""

    BURST_MS = 2000

    def __init__(self, bits_per_second: int | None) -> None:
        self._rate = None if bits_per_second is None else bits_per_second / 8000
        self._left = 0.0 if self._rate is None else self._rate * self.BURST_MS
        self._at: int | None = None

    def ready(self, now_ms: int) -> bool:
        """Whether something may be sent now."""
        if self._rate is None:
            return True
        if self._at is not None:
            gained = self._rate * max(0, now_ms - self._at)
            self._left = min(self._rate * self.BURST_MS, self._left + gained)
        self._at = now_ms
        return self._left > 0

    def spent(self, size: int) -> None:
        """So many bytes were sent; urgent ones are never held back and may leave a debt."""
        if self._rate is not None:
            self._left -= size

    def wait_ms(self) -> int:
        """Milliseconds until `ready` can be true again."""
        return 0 if self._rate is None or self._left > 0 else int(-self._left / self._rate) + 1
