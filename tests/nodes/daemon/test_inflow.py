"""What came in waits by sender: a flood delays whoever made it, and nobody else."""

from __future__ import annotations

from nodes.daemon.inflow import Inflow, Received, sender_of
from nodes.wire import Kind


def letter(sender: bytes, size: int = 100) -> Received:
    return Received("hub", "rx.to.me", bytes([Kind.LETTER]) + sender.ljust(16, b"\0") + bytes(size))


def test_letters_are_told_apart_by_sender_entries_by_feed_the_rest_by_kind() -> None:
    assert sender_of(letter(b"a").payload) != sender_of(letter(b"b").payload)
    assert sender_of(letter(b"a", 5).payload) == sender_of(letter(b"a", 50).payload)
    live = bytes([Kind.LIVE]) + b"\x94\x01\xc4\x10" + b"f" * 16
    assert sender_of(live + b"one") == sender_of(live + b"other")
    assert sender_of(bytes([Kind.WHO]) + b"a" * 16) == sender_of(bytes([Kind.WHO]) + b"b" * 16)
    assert sender_of(b"") == b""


def test_who_says_little_has_its_turn_at_once() -> None:
    inflow = Inflow()
    for _ in range(1000):
        inflow.put(letter(b"flood"))
    inflow.put(letter(b"good"))
    first = inflow.take(64, 16)
    assert letter(b"good") in first[:2]
    assert len(first) == 17
    assert len(inflow) == 1001 - 17


def test_one_sender_keeps_its_order_and_loses_nothing_where_there_is_room() -> None:
    inflow = Inflow()
    sent = [letter(b"a", size) for size in range(100)]
    for one in sent:
        inflow.put(one)
    taken = []
    while len(inflow):
        taken += inflow.take(64, 16)
    assert taken == sent
    assert inflow.lost == 0


def test_with_no_room_left_the_flood_loses_its_newest() -> None:
    inflow = Inflow(messages_max=100, bytes_max=1 << 20)
    for _ in range(150):
        inflow.put(letter(b"flood"))
    assert len(inflow) == 100
    assert inflow.lost == 50
    inflow.put(letter(b"good"))
    assert len(inflow) == 100
    assert letter(b"good") in inflow.take(10, 5)


def test_bytes_are_bounded_too() -> None:
    inflow = Inflow(messages_max=1000, bytes_max=10_000)
    for _ in range(50):
        inflow.put(letter(b"flood", 1000))
    assert len(inflow) == 9
    inflow.put(letter(b"good", 1000))
    assert len(inflow) == 9
    assert letter(b"good", 1000) in inflow.take(10, 5)
    inflow.put(letter(b"huge", 20_000))
    assert letter(b"huge", 20_000) not in inflow.take(100, 100)
