"""Public keys that are refused. The points are computed here from the curve, not copied from the code."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ledger.certificates import issue_node
from ledger.entropy import SeededEntropy
from ledger.errors import NotAuthentic
from ledger.identity import NodeKeys, NodeRole
from ledger.publickeys import check_public_key, check_signing_key
from tests.ledger.realm_for_tests import NOW_MS, STOCKHOLM, RealmForTests

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def times(n: int, a: Point) -> Point:
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, a)
        a, n = add(a, a), n >> 1
    return result


def root(square: int) -> int | None:
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square % P else None


def torsion() -> set[Point]:
    """All eight points of small order: L times any point lies among them."""
    for y in range(2, 100):
        x = root((y * y - 1) * pow(D * y * y + 1, -1, P))
        if x is not None:
            point = times(L, (x, y))
            found = {times(n, point) for n in range(8)}
            if len(found) == 8:
                return found
    raise AssertionError("no generator of the torsion found")


SMALL = sorted({y | sign << 255 for _, y in torsion() for sign in (0, 1)})
BASE = bytes([9]) + bytes(31)
GOOD = NodeKeys.generate(SeededEntropy(1))


def test_there_are_eight_points_of_small_order():
    assert len(torsion()) == 8
    assert len(SMALL) == 10, "five ordinates, each with both signs; two of those are not canonical either"


@pytest.mark.parametrize("encoded", SMALL)
def test_signing_keys_of_small_order_are_refused(encoded):
    with pytest.raises(NotAuthentic):
        check_signing_key(encoded.to_bytes(32, "little"))


@pytest.mark.parametrize("y", range(P, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_signing_keys_in_a_second_encoding_are_refused(y, sign):
    with pytest.raises(NotAuthentic):
        check_signing_key((y | sign << 255).to_bytes(32, "little"))


def test_signing_keys_off_the_curve_are_refused():
    off = [y for y in range(2, 60) if root((y * y - 1) * pow(D * y * y + 1, -1, P)) is None]
    on = [y for y in range(2, 60) if y not in off]
    assert off
    assert on
    for y in off:
        with pytest.raises(NotAuthentic):
            check_signing_key(y.to_bytes(32, "little"))
    for y in on:
        check_signing_key(y.to_bytes(32, "little"))


def test_honest_keys_pass():
    for seed in range(50):
        keys = NodeKeys.generate(SeededEntropy(seed))
        check_public_key(keys.public_key, keys.wrapping_key)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length):
    with pytest.raises(NotAuthentic):
        check_signing_key(GOOD.public_key.ljust(33, b"\0")[:length])
    with pytest.raises(NotAuthentic):
        check_public_key(GOOD.public_key, GOOD.wrapping_key.ljust(33, b"\0")[:length])


def low_order_u() -> set[int]:
    """By the birational map u = (1 + y) / (1 - y), and the twist's point of order four, u = -1."""
    return {(1 + y) * pow(1 - y, -1, P) % P for _, y in torsion() if y != 1} | {P - 1, 0}


@pytest.mark.parametrize("u", sorted(low_order_u()))
@pytest.mark.parametrize("top", [0, 1])
def test_wrapping_keys_of_low_order_are_refused(u, top):
    encoded = (u | top << 255).to_bytes(32, "little")
    with pytest.raises(NotAuthentic):
        check_public_key(GOOD.public_key, encoded)
    # The library agrees: the shared secret would be all zero.
    with pytest.raises(ValueError, match=r".*"):
        X25519PrivateKey.from_private_bytes(bytes(range(32))).exchange(
            X25519PublicKey.from_public_bytes(encoded)
        )


def test_wrapping_keys_in_a_second_encoding_are_refused():
    second = [(P + n).to_bytes(32, "little") for n in range(19)]
    for encoded in [
        *second,
        BASE[:31] + b"\x80",
        GOOD.wrapping_key[:31] + bytes([GOOD.wrapping_key[31] | 0x80]),
    ]:
        with pytest.raises(NotAuthentic):
            check_public_key(GOOD.public_key, encoded)
    check_public_key(GOOD.public_key, BASE)


def test_nobody_is_certified_for_a_refused_key():
    world = RealmForTests()
    for signing, wrapping in (
        (SMALL[0].to_bytes(32, "little"), GOOD.wrapping_key),
        (GOOD.public_key, bytes(32)),
    ):
        with pytest.raises(NotAuthentic):
            issue_node(
                world.issuing.signing, world.issuing_chain, signing, wrapping, NodeRole.PHARMACY, STOCKHOLM,
                "Apotek", NOW_MS, entropy=world.entropy,
            )  # fmt: skip
