"""Enrolment: keys reach the node they were wrapped to and no other; damaged packages end in typed errors."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.enrolment import (
    BUNDLE_BYTES_MAX,
    PACKAGE_BYTES_MAX,
    REQUEST_BYTES_MAX,
    DistrictKey,
    EnrolmentPackage,
    EnrolmentRequest,
    check_request,
    decode_package,
    decode_request,
    encode_package,
    encode_request,
    make_package,
    make_request,
    open_package,
    unwrap_key,
    wrap_key,
)
from ledger.entropy import SeededEntropy
from ledger.errors import (
    InvalidInput,
    LimitExceeded,
    Malformed,
    NotAuthentic,
    OtherRealm,
    PeerFault,
    VersionUnknown,
)
from ledger.identity import Certified, NodeKeys, NodeRole, verify_chain
from tests.ledger.realm_for_tests import STOCKHOLM, UPPSALA, RealmForTests

KEY, INDEX = bytes(range(32)), bytes(range(100, 132))
ALICE = NodeKeys.generate(SeededEntropy(11))
BOB = NodeKeys.generate(SeededEntropy(12))


@pytest.fixture(scope="module")
def world() -> RealmForTests:
    return RealmForTests()


def package_for(world: RealmForTests, keys: NodeKeys, certified: Certified, **other) -> EnrolmentPackage:
    given = {
        "district_keys": [DistrictKey(STOCKHOLM, 1, KEY), DistrictKey(STOCKHOLM, 2, INDEX)],
        "index_keys": {STOCKHOLM: INDEX},
        "entropy": SeededEntropy(5),
        **other,
    }
    issuer = given.pop("issuer", world.issuing)
    return make_package(world.realm, certified.certificates, certified, issuer.signing, **given)


# --- wrapping -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=100), st.binary(max_size=40))
@settings(max_examples=50, deadline=None)
def test_what_is_wrapped_is_unwrapped(plain, context):
    sealed = wrap_key(ALICE.wrapping_key, plain, context, SeededEntropy(1))
    assert unwrap_key(ALICE.wrapping, sealed, context) == plain


def test_a_wrapped_key_fits_its_event():
    assert len(wrap_key(ALICE.wrapping_key, KEY, b"context", SeededEntropy(1))) <= 128


def test_wrapping_repeats_under_the_same_entropy_and_only_then():
    first = wrap_key(ALICE.wrapping_key, KEY, b"c", SeededEntropy(1))
    assert first == wrap_key(ALICE.wrapping_key, KEY, b"c", SeededEntropy(1))
    assert first[:32] != wrap_key(ALICE.wrapping_key, KEY, b"c", SeededEntropy(2))[:32]


def test_another_node_or_context_does_not_unwrap():
    sealed = wrap_key(ALICE.wrapping_key, KEY, b"epoch 1", SeededEntropy(1))
    for key, context in ((BOB, b"epoch 1"), (ALICE, b"epoch 2"), (ALICE, b"")):
        with pytest.raises(NotAuthentic):
            unwrap_key(key.wrapping, sealed, context)


def test_every_changed_byte_and_every_cut_of_a_wrapped_key_is_refused():
    sealed = wrap_key(ALICE.wrapping_key, KEY, b"c", SeededEntropy(1))
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        # The highest bit of byte 31 is one that the curve ignores: the context binds it all the same.
        high = sealed[:index] + bytes([sealed[index] ^ 0x80]) + sealed[index + 1 :]
        for bad in (changed, high, sealed[:index]):
            with pytest.raises(NotAuthentic):
                unwrap_key(ALICE.wrapping, bad, b"c")


def test_nothing_is_wrapped_to_or_from_a_low_order_key():
    for low in (bytes(32), b"\x01" + bytes(31), b"short"):
        with pytest.raises(NotAuthentic):
            wrap_key(low, KEY, b"c", SeededEntropy(1))
        with pytest.raises(NotAuthentic):
            unwrap_key(ALICE.wrapping, low + bytes(48), b"c")


# --- requests -------------------------------------------------------------------------------------------------


def test_a_request_survives_its_bytes():
    request = make_request(ALICE, NodeRole.PHARMACY, STOCKHOLM, "Apoteket Björken")
    assert decode_request(encode_request(request)) == request
    assert (request.public_key, request.wrapping_key) == (ALICE.public_key, ALICE.wrapping_key)


def test_a_request_for_keys_that_another_holds_is_refused():
    """Whoever asks must hold the signing key, and has signed everything that it asks for."""
    request = make_request(ALICE, NodeRole.PHARMACY, STOCKHOLM, "Apotek")
    for changed in (
        {"public_key": BOB.public_key},
        {"wrapping_key": BOB.wrapping_key},
        {"role": NodeRole.AGENCY},
        {"district": UPPSALA},
        {"name": "Apotek 2"},
    ):
        with pytest.raises(NotAuthentic):
            check_request(msgspec.structs.replace(request, **changed))


def test_a_request_of_unprintable_name_is_refused():
    with pytest.raises(Malformed):
        check_request(make_request(ALICE, NodeRole.PHARMACY, STOCKHOLM, "a\nb"))


def test_every_changed_byte_and_every_cut_of_a_request_is_refused():
    data = encode_request(make_request(ALICE, NodeRole.PHARMACY, STOCKHOLM, "Apotek"))
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        for bad in (changed, data[:index], data + b"\0"):
            with pytest.raises(PeerFault):
                decode_request(bad)


def test_a_request_beyond_the_limit_is_refused():
    with pytest.raises(LimitExceeded):
        decode_request(bytes(REQUEST_BYTES_MAX + 1))


# --- packages -------------------------------------------------------------------------------------------------


def test_a_package_gives_its_node_everything(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    data = encode_package(package_for(world, keys, certified, bundle=b"governance"))
    enrolment = open_package(decode_package(data), keys, realm=world.realm)
    assert enrolment.realm == world.realm
    assert enrolment.certificates == certified.certificates
    assert enrolment.district_keys == (DistrictKey(STOCKHOLM, 1, KEY), DistrictKey(STOCKHOLM, 2, INDEX))
    assert enrolment.index_keys == {STOCKHOLM: INDEX}
    assert enrolment.bundle == b"governance"


def test_an_authority_makes_a_package_offline(world):
    authority, above = world.authority()
    keys = world.keys()
    chain = world.chain(keys, NodeRole.PHARMACY, STOCKHOLM, by=(authority, above))
    package = package_for(world, keys, verify_chain(world.realm, chain), issuer=authority)
    assert open_package(package, keys, realm=world.realm).index_keys == {STOCKHOLM: INDEX}


def test_keys_are_never_shown(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    package = package_for(world, keys, certified)
    shown = repr(open_package(package, keys)) + repr(DistrictKey(STOCKHOLM, 1, KEY)) + repr(package)
    for secret in (KEY, INDEX):
        assert repr(secret)[2:20] not in shown
        assert secret.hex() not in shown


def test_another_nodes_package_is_refused(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    package = package_for(world, keys, certified)
    half = NodeKeys(keys.signing, X25519PrivateKey.from_private_bytes(bytes(range(32))))
    empty = package_for(world, keys, certified, district_keys=[], index_keys={})
    for other in (ALICE, half):
        for each in (package, empty):
            with pytest.raises(NotAuthentic):
                open_package(each, other)


def test_another_realms_package_is_refused_where_the_realm_is_known(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    package = package_for(world, keys, certified)
    with pytest.raises(OtherRealm):
        open_package(package, keys, realm=RealmForTests(2).realm)


def test_only_who_certified_the_node_signs_its_package(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    with pytest.raises(InvalidInput):
        package_for(world, keys, certified, issuer=ALICE)
    package = package_for(world, keys, certified)
    for changed in (
        {"bundle": b"x"},
        {"keys": package.keys[:1]},
        {"signature": bytes(64)},
        {"certificates": world.chain(keys, NodeRole.PHARMACY, STOCKHOLM)},
    ):
        with pytest.raises(NotAuthentic):
            open_package(msgspec.structs.replace(package, **changed), keys)


def test_every_changed_byte_and_every_cut_of_a_package_is_refused(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    data = encode_package(package_for(world, keys, certified))
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ (1 << index % 8)]) + data[index + 1 :]
        for bad in (changed, data[:index]):
            with pytest.raises(PeerFault):
                open_package(decode_package(bad), keys, realm=world.realm)


@pytest.mark.parametrize(
    "shape", [[2], [2, "another", {"form": 1}], [2, b"", [b"", b""], [], b"", bytes(64)]]
)
def test_a_package_of_a_newer_version_says_so(shape):
    with pytest.raises(VersionUnknown):
        open_package(decode_package(msgspec.msgpack.encode(shape)), ALICE)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_is_neither_package_nor_request(data):
    for decode in (decode_package, decode_request):
        with pytest.raises(PeerFault):
            decode(data)


def test_packages_beyond_the_limits_are_refused(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    with pytest.raises(LimitExceeded):
        decode_package(bytes(PACKAGE_BYTES_MAX + 1))
    with pytest.raises(InvalidInput):
        package_for(world, keys, certified, bundle=bytes(BUNDLE_BYTES_MAX + 1))
    with pytest.raises(InvalidInput):
        package_for(world, keys, certified, district_keys=[DistrictKey(STOCKHOLM, 0, KEY)])


def test_two_keys_for_one_epoch_are_refused(world):
    """Whatever came first or last would win: nobody may choose by order."""
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    twice = [DistrictKey(STOCKHOLM, 1, KEY), DistrictKey(STOCKHOLM, 1, INDEX)]
    with pytest.raises(Malformed):
        open_package(package_for(world, keys, certified, district_keys=twice), keys)


def test_a_key_of_another_length_is_refused(world):
    keys, certified = world.certified(NodeRole.PHARMACY, STOCKHOLM)
    with pytest.raises(Malformed):
        open_package(package_for(world, keys, certified, index_keys={STOCKHOLM: b"short"}), keys)


def test_requests_and_packages_sign_different_things():
    """A signature made for one purpose means nothing for another."""
    assert isinstance(make_request(ALICE, NodeRole.RELAY, "", "Relä"), EnrolmentRequest)
    request = make_request(ALICE, NodeRole.RELAY, "", "Relä")
    with pytest.raises(PeerFault):
        decode_package(encode_request(request))
