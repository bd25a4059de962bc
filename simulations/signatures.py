"""Ed25519 checks of one run, each made once: every machine checks the same bytes under the same key, and pays for it.

A check is a function of key, signature and message; remembering what it said changes no outcome. Without this, a third of a
run is spent on the same signs of life at each of those who hear them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest.mock import patch

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["remembered_signatures"]

CHECKS_MAX = 1 << 16
"""Remembered: some 20 MB."""
WHERE = ("ledger.feed", "nodes.wire")
"""Modules of which each check is made by many machines."""


@lru_cache(maxsize=CHECKS_MAX)
def _holds(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class _Key:
    """What the code under test uses of `Ed25519PublicKey`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_public_bytes(cls, data: bytes) -> _Key:
        """A key; one that is none shows when it is used."""
        return cls(data)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            InvalidSignature: it does not hold.
        """
        if not _holds(self._key, signature, data):
            raise InvalidSignature


@contextmanager
def remembered_signatures() -> Iterator[None]:
    """Within, checks that were made before are not made again."""
    with patch(f"{WHERE[0]}.Ed25519PublicKey", _Key), patch(f"{WHERE[1]}.Ed25519PublicKey", _Key):
        yield
