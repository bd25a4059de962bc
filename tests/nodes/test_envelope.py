"""A letter is from whom it says, to whom it was sealed, in its realm, or it is nothing (R12, R14, R15)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.entropy import SeededEntropy
from ledger.errors import LimitExceeded, Malformed, NotAuthentic, PeerFault
from ledger.ids import NodeId
from nodes import envelope
from nodes.envelope import INTRODUCTION_BYTES_MAX, LETTER_OVERHEAD_BYTES, Postbox
from scripts.vectors.craft import World

WORLD, ELSEWHERE = World(), World(b"another realm")
NAMES = ("eken", "bjorken", "linden")


def postbox(name: str, *knows: str, world: World = WORLD) -> Postbox:
    member = world[name]
    box = Postbox(world.realm, member.certified, member.keys, SeededEntropy(f"box {name}".encode()))
    for other in knows:
        box.know(world[other].certified)
    return box


EKEN, BJORKEN, LINDEN = (postbox(name, *NAMES) for name in NAMES)
NODE = {name: WORLD[name].certified.node for name in NAMES}


@given(st.binary(max_size=4_000))
def test_a_letter_opens_at_its_receiver_to_what_was_said(message: bytes) -> None:
    letter = EKEN.seal(NODE["bjorken"], message)
    assert len(letter) == len(message) + LETTER_OVERHEAD_BYTES
    assert BJORKEN.open(letter) == (NODE["eken"], message)
    assert message not in letter or len(message) < 3


@given(st.binary(max_size=200), st.data())
def test_a_letter_with_any_bit_changed_opens_nowhere(message: bytes, data: st.DataObject) -> None:
    letter = EKEN.seal(NODE["bjorken"], message)
    at = data.draw(st.integers(0, len(letter) * 8 - 1))
    changed = bytearray(letter)
    changed[at // 8] ^= 1 << at % 8
    for box in (EKEN, BJORKEN, LINDEN):
        with pytest.raises(NotAuthentic):
            box.open(bytes(changed))


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_more_than_be_refused(data: bytes) -> None:
    for take in (BJORKEN.open, BJORKEN.learn):
        with pytest.raises(PeerFault):
            take(NODE["eken"] + data)


def test_a_letter_is_shown_to_no_third_node_and_not_turned_round() -> None:
    letter = EKEN.seal(NODE["bjorken"], b"said")
    for reader in (EKEN, LINDEN):
        with pytest.raises(NotAuthentic):
            reader.open(letter)
    # In the other's name, to the one who sealed it.
    with pytest.raises(NotAuthentic):
        EKEN.open(NODE["bjorken"] + letter[16:])


def test_the_same_keys_in_another_realm_are_another_pair() -> None:
    there = Postbox(ELSEWHERE.realm, WORLD["eken"].certified, WORLD["eken"].keys, SeededEntropy(b"elsewhere"))
    there.know(WORLD["bjorken"].certified)
    with pytest.raises(NotAuthentic):
        BJORKEN.open(there.seal(NODE["bjorken"], b"said"))


def test_two_letters_that_say_the_same_have_nothing_in_common_but_their_sender() -> None:
    one, other = (EKEN.seal(NODE["bjorken"], b"the same" * 10) for _ in range(2))
    assert one[:16] == other[:16]
    assert one[16:28] != other[16:28]
    assert sum(a == b for a, b in zip(one[28:], other[28:], strict=True)) < 10


def test_who_is_unknown_is_named_but_neither_written_to_nor_read() -> None:
    stranger = postbox("linden")
    letter = EKEN.seal(NODE["linden"], b"said")
    assert stranger.sender(letter) == NODE["eken"]
    with pytest.raises(NotAuthentic, match="not known"):
        stranger.open(letter)
    with pytest.raises(NotAuthentic, match="not known"):
        stranger.seal(NODE["eken"], b"said")
    assert stranger.learn(EKEN.introduction()).node == NODE["eken"]
    assert stranger.open(letter) == (NODE["eken"], b"said")


@pytest.mark.parametrize("size", [0, 15, 16, LETTER_OVERHEAD_BYTES - 1])
def test_what_is_too_short_is_no_letter(size: int) -> None:
    with pytest.raises(Malformed):
        EKEN.sender(bytes(size))


def test_an_introduction_has_its_limits_and_its_realm() -> None:
    box = postbox("eken")
    good = BJORKEN.introduction()
    assert len(good) <= INTRODUCTION_BYTES_MAX
    with pytest.raises(LimitExceeded):
        box.learn(bytes(INTRODUCTION_BYTES_MAX + 1))
    with pytest.raises(LimitExceeded):
        box.learn(msgspec.msgpack.encode([b""] * 4))
    with pytest.raises(Malformed):
        box.learn(good[:-1])
    with pytest.raises(NotAuthentic):
        box.learn(postbox("eken", world=ELSEWHERE).introduction())
    assert box.knows(NODE["bjorken"]) is None


def test_a_node_that_is_certified_anew_with_another_key_is_written_to_under_that() -> None:
    box = postbox("eken", "bjorken")
    keys = msgspec.structs.replace(
        WORLD["bjorken"].certified, wrapping_key=WORLD["linden"].certified.wrapping_key
    )
    BJORKEN.open(box.seal(NODE["bjorken"], b"said"))
    box.know(keys)
    with pytest.raises(NotAuthentic):
        BJORKEN.open(box.seal(NODE["bjorken"], b"said"))


def test_as_many_nodes_are_known_as_there_is_room_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "PEERS_KNOWN_MAX", 3)
    box = postbox("eken")
    made = [
        msgspec.structs.replace(WORLD["bjorken"].certified, node=NodeId(bytes([n]) * 16)) for n in range(6)
    ]
    for certified in made:
        box.know(certified)
        box.seal(certified.node, b"")
    assert [box.knows(c.node) is not None for c in made] == [False] * 3 + [True] * 3
    assert len(box._ciphers) == 3
