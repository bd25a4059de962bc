"""Frames: what was said comes out, what was not is refused with a code, and a sign of life belongs to one place (R3, R15)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.clock import STAMP_MAX
from ledger.errors import LimitExceeded, Malformed, NotAuthentic, PeerFault, VersionUnknown
from ledger.ids import NodeId, RealmId
from nodes.envelope import LETTER_OVERHEAD_BYTES
from nodes.messages import MESSAGE_BYTES_MAX
from nodes.wire import (
    FRAME_BYTES_MAX,
    LIVE_VERSION,
    Here,
    Kind,
    Live,
    Speech,
    check_here,
    decode_here,
    decode_live,
    decode_speech,
    encode_here,
    encode_live,
    encode_speech,
)
from scripts.vectors.craft import STOCKHOLM, UPPSALA, World
from scripts.vectors.travels import three

WORLD = World()
EKEN, BJORKEN = WORLD["eken"], WORLD["bjorken"]
FEED, _ = three(WORLD)
REALM = WORLD.realm.id


@given(st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1), st.binary(max_size=200))
def test_a_speech_comes_out_as_it_went_in(round_: bytes, number: int, message: bytes) -> None:
    speech = Speech(round_, number, message)
    assert decode_speech(encode_speech(speech)) == speech


@pytest.mark.parametrize("size", [0, 7, 11])
def test_less_than_a_round_and_a_number_is_no_speech(size: int) -> None:
    with pytest.raises(Malformed):
        decode_speech(bytes(size))


def test_the_largest_message_fits_a_letter_in_a_frame() -> None:
    assert (
        1 + LETTER_OVERHEAD_BYTES + len(encode_speech(Speech(bytes(8), 1, b""))) + MESSAGE_BYTES_MAX
        <= FRAME_BYTES_MAX
    )


@pytest.mark.parametrize("previous", [b"", FEED.genesis])
def test_a_live_entry_comes_out_as_it_went_in(previous: bytes) -> None:
    for entry in FEED.entries:
        live = Live(LIVE_VERSION, FEED.id, entry, previous)
        frame = encode_live(live)
        assert frame[0] == Kind.LIVE
        assert decode_live(frame[1:]) == live


def test_a_live_entry_of_a_later_version_is_named_as_such() -> None:
    frame = encode_live(Live(LIVE_VERSION + 1, FEED.id, FEED.entries[0]))
    with pytest.raises(
        VersionUnknown, match=f"version {LIVE_VERSION + 1}; this node reads version {LIVE_VERSION}"
    ):
        decode_live(frame[1:])


@given(st.binary(max_size=300))
def test_no_bytes_at_all_do_more_than_be_refused(data: bytes) -> None:
    for decode in (decode_live, decode_here):
        with pytest.raises(PeerFault):
            decode(data)


@pytest.mark.parametrize(
    "data", [b"\x91" * 5_000, b"\xc7\x00\x01", b"\xdd\xff\xff\xff\xff", b"\x93" + b"\xc0" * 3]
)
def test_nested_and_lying_bytes_are_refused_alike(data: bytes) -> None:
    for decode in (decode_live, decode_here):
        with pytest.raises(Malformed):
            decode(data)


def test_what_is_larger_than_a_frame_is_not_looked_at() -> None:
    for decode in (decode_live, decode_here):
        with pytest.raises(LimitExceeded, match="at most"):
            decode(bytes(FRAME_BYTES_MAX + 1))


def sign(stamp: int = 1, digest: bytes = bytes(8), node: bytes = EKEN.certified.node) -> Here:
    return Here(node, stamp, digest)


@given(st.integers(0, STAMP_MAX), st.binary(min_size=8, max_size=8))
def test_a_sign_of_life_proves_who_gave_it(stamp: int, digest: bytes) -> None:
    frame = encode_here(REALM, STOCKHOLM, sign(stamp, digest), EKEN.keys.signing)
    here, signature = decode_here(frame[1:])
    assert here == sign(stamp, digest)
    assert check_here(REALM, STOCKHOLM, here, signature, EKEN.certified.public_key) == EKEN.certified.node


@pytest.mark.parametrize(
    ("realm", "district", "here", "key"),
    [
        (RealmId(bytes(16)), STOCKHOLM, sign(), EKEN),
        (REALM, UPPSALA, sign(), EKEN),
        (REALM, "", sign(), EKEN),
        (REALM, STOCKHOLM, sign(2), EKEN),
        (REALM, STOCKHOLM, sign(digest=b"other..."), EKEN),
        (REALM, STOCKHOLM, sign(node=BJORKEN.certified.node), EKEN),
        (REALM, STOCKHOLM, sign(), BJORKEN),
    ],
    ids=["realm", "district", "no district", "stamp", "digest", "node", "key"],
)
def test_a_sign_of_life_moved_elsewhere_is_none(
    realm: RealmId, district: str, here: Here, key: object
) -> None:
    frame = encode_here(REALM, STOCKHOLM, sign(), EKEN.keys.signing)
    _, signature = decode_here(frame[1:])
    with pytest.raises(NotAuthentic):
        check_here(realm, district, here, signature, key.certified.public_key)  # type: ignore[attr-defined]


def test_a_public_key_that_is_none_is_a_peers_fault() -> None:
    with pytest.raises(NotAuthentic):
        check_here(REALM, STOCKHOLM, sign(), bytes(64), b"short")


@pytest.mark.parametrize(
    "here",
    [
        [b"", 1, bytes(8)],
        [bytes(16), -1, bytes(8)],
        [bytes(16), STAMP_MAX + 1, bytes(8)],
        [bytes(16), 1, bytes(9)],
    ],
)
def test_a_sign_of_life_out_of_bounds_is_malformed(here: list[object]) -> None:
    with pytest.raises(Malformed):
        decode_here(msgspec.msgpack.encode([here, bytes(64)]))


def test_kinds_keep_their_numbers() -> None:
    """Once published, for ever."""
    assert {kind.name: kind.value for kind in Kind} == {
        "LETTER": 1, "INTRODUCTION": 2, "WHO": 3, "LIVE": 4, "HERE": 5,
    }  # fmt: skip
    assert NodeId(EKEN.certified.node) == EKEN.certified.node
