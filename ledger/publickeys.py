"""Which public keys are refused: under them one signature fits many messages, or many keys give one secret.

Neither OpenSSL nor the RFCs (8032, 7748) refuse them. A small-order Ed25519 key verifies forged signatures; a
point with two encodings gives one node two ids; a small-order X25519 key makes every shared secret the same.
"""

from __future__ import annotations

from functools import lru_cache

from ledger.errors import NotAuthentic

__all__ = ["check_public_key", "check_signing_key"]

CHECKED_KEYS_MAX = 1024
"""Good keys remembered, 100 kB: issuers stand in every chain, and a check costs a tenth of a millisecond."""
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1})
_ORDER_8_Y = frozenset(
    int.from_bytes(bytes.fromhex(h), "little")
    for h in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
_LOW_ORDER_U = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


@lru_cache(maxsize=CHECKED_KEYS_MAX)
def check_signing_key(raw: bytes) -> None:
    """Refuse an Ed25519 public key of small order, off the curve, or not in its one encoding.

    Raises:
        NotAuthentic: it is such a one.
    """
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if len(raw) != 32 or y >= _P:
        raise NotAuthentic("a signing key is not in canonical form")
    if y in _SMALL_ORDER_Y or y in _ORDER_8_Y:
        raise NotAuthentic("a signing key is of small order")
    # x² = (y² - 1) / (dy² + 1) must have a root; whether it has tells Euler's criterion without a division.
    if pow((y * y - 1) * (_D * y * y + 1), (_P - 1) // 2, _P) != 1:
        raise NotAuthentic("a signing key is not a point of the curve")


def check_public_key(signing: bytes, wrapping: bytes) -> None:
    """Refuse a node's public keys (32 raw bytes each) of small order or not in their one encoding.

    Raises:
        NotAuthentic: one of the keys is such a one.
    """
    check_signing_key(signing)
    u = int.from_bytes(wrapping, "little")
    if len(wrapping) != 32 or u >= _P:
        raise NotAuthentic("a wrapping key is not in canonical form")
    if u in _LOW_ORDER_U:
        raise NotAuthentic("a wrapping key is of small order")
