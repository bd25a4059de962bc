"""Where randomness comes from: injected, so that a simulated world runs the same code and runs again."""

from __future__ import annotations

import hashlib
import os
from typing import Protocol

__all__ = ["Entropy", "SeededEntropy", "SystemEntropy"]


class Entropy(Protocol):
    """A source of bytes that nobody can guess."""

    def bytes(self, count: int) -> bytes:
        """`count` fresh bytes."""
        ...


class SystemEntropy:
    """The operating system's. The only one for production."""

    def bytes(self, count: int) -> bytes:
        """`count` fresh bytes."""
        return os.urandom(count)


class SeededEntropy:
    """SHA-256 in counter mode under a seed: repeatable, for simulations, tests and demonstrations only."""

    def __init__(self, seed: bytes | int) -> None:
        text = seed if isinstance(seed, bytes) else b"%d" % seed
        self._key = hashlib.sha256(b"rxledger/1 seeded entropy\0" + text).digest()
        self._counter = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes of the stream."""
        made = b""
        while len(made) < count:
            made += hashlib.sha256(self._key + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        return made[:count]
