"""Vectors of single values: keys, identifiers, events, content, Automerge, base45."""

from __future__ import annotations

import hashlib
from datetime import date

import msgspec
import zstandard

from ledger.codec import _dictionary, encode_content
from ledger.document import DocumentEvent, build
from ledger.events import EVENT_BYTES_MAX, PrescriptionHeld, encode_event
from ledger.ids import Link, document_id
from ledger.paper import to_text
from ledger.persons import COORDINATION_NUMBER, PERSONAL_NUMBER, RESERVE_NUMBER
from scripts.vectors.craft import World
from scripts.vectors.shelf import Shelf

__all__ = ["values"]

_P = 2**255 - 19


def values(shelf: Shelf, world: World) -> None:
    """Write them."""
    _public_keys(shelf, world)
    _identifiers(shelf)
    _events(shelf, world)
    _contents(shelf, world)
    _automerge(shelf)
    _base45(shelf)


def _public_keys(shelf: Shelf, world: World) -> None:
    good = world["eken"].keys
    sign, wrap = good.public_key, good.wrapping_key
    order8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    low8 = (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(
        32, "little"
    )
    shelf.add(
        "keys_good",
        "public-keys",
        "A signing and a wrapping key that are what they should be.",
        "R3",
        {"signing": sign, "wrapping": wrap},
    )
    for name, title, signing, wrapping in (
        ("keys_signing_identity", "The neutral element as signing key: any signature could fit.", (1).to_bytes(32, "little"), wrap),
        ("keys_signing_order_2", "A signing key of order 2.", (_P - 1).to_bytes(32, "little"), wrap),
        ("keys_signing_order_4", "A signing key of order 4.", bytes(32), wrap),
        ("keys_signing_order_8", "A signing key of order 8.", order8, wrap),
        ("keys_signing_order_8_signed", "The same, with the sign bit set.", order8[:31] + bytes([order8[31] | 128]), wrap),
        ("keys_signing_not_canonical", "y + p instead of y: a second encoding of one point.", (_P + 3).to_bytes(32, "little"), wrap),
        ("keys_signing_off_curve", "A y for which the curve has no x.", (2).to_bytes(32, "little"), wrap),
        ("keys_wrapping_zero", "Wrapping key 0: every shared secret would be the same.", sign, bytes(32)),
        ("keys_wrapping_order_8", "A wrapping key of order 8.", sign, low8),
        ("keys_wrapping_not_canonical", "u + p instead of u.", sign, (_P + 9).to_bytes(32, "little")),
    ):  # fmt: skip
        shelf.add(
            name,
            "public-keys",
            title,
            "R3",
            {"signing": signing, "wrapping": wrapping},
            error="not-authentic",
        )


def _identifiers(shelf: Shelf) -> None:
    today = "2026-11-24"
    for name, title, system, code, canonical in (
        ("identifier_personal", "A personal number with a hyphen gets its one form.", PERSONAL_NUMBER, "18900202-9800", "189002029800"),
        ("identifier_short_plus", "Ten digits with a plus: born more than a hundred years ago.", PERSONAL_NUMBER, "900202+9800", "189002029800"),
        ("identifier_reserve", "A national reserve number.", RESERVE_NUMBER, "19901230BX12", "19901230BX12"),
        ("identifier_foreign", "A number of another country passes untouched.", "urn:oid:2.16.578.1.12.4.1.4.1", "13116900216", "13116900216"),
    ):  # fmt: skip
        shelf.add(
            name,
            "identifier",
            title,
            "R4",
            {"system": system, "code": code, "today": today},
            says={"code": canonical},
        )
    for name, title, system, code in (
        ("identifier_check_digit", "A wrong check digit.", PERSONAL_NUMBER, "189002029801"),
        ("identifier_no_such_day", "30 February.", PERSONAL_NUMBER, "189002309800"),
        ("identifier_coordination_day", "A coordination number whose day minus 60 is no day.", COORDINATION_NUMBER, "189002929800"),
        ("identifier_ten_digits_bare", "Letters in a personal number.", PERSONAL_NUMBER, "18900202A800"),
        ("identifier_future", "Born tomorrow.", PERSONAL_NUMBER, "202611259800"),
        ("identifier_reserve_short", "A reserve number with three places instead of four.", RESERVE_NUMBER, "19901230BX1"),
        ("identifier_empty", "No code at all.", PERSONAL_NUMBER, " "),
    ):  # fmt: skip
        shelf.add(
            name,
            "identifier",
            title,
            "R15",
            {"system": system, "code": code, "today": today},
            error="invalid-input",
        )


def _events(shelf: Shelf, world: World) -> None:
    world.restart()
    feed = world.feed("prescriber")
    issued = encode_event(world.issuing_event(feed, holder=feed))
    held = encode_event(world.act(PrescriptionHeld, feed, reason="paus"))
    generic = msgspec.msgpack.decode(held)
    pack = msgspec.msgpack.encode
    shelf.add(
        "event_issued",
        "event",
        "An issuing event in its canonical form.",
        "R4",
        {"event": issued},
        says={"kind": "PrescriptionIssued", "whole": True},
    )
    shelf.add(
        "event_unknown_kind",
        "event",
        "A kind of a newer version is kept, not understood.",
        "R2 R11",
        {"event": pack({**generic, "type": "FromTheFuture"})},
        says={"known": False, "whole": False},
    )
    shelf.add(
        "event_unknown_field",
        "event",
        "An unknown field in a known kind: kept, partly understood.",
        "R2 R11",
        {"event": pack({**generic, "urgency": 2})},
        says={"known": True, "whole": False},
    )
    nested: object = "deep"
    for _ in range(8):
        nested = [nested]
    flat = held[1:]  # The pairs, without the map's header.
    # One pair more than the map that `held` is, each time.
    more = bytes([held[0] + 1])
    for name, title, data, error in (
        ("event_overlong_integer", "The number 3 in two bytes.", more + flat + pack("urgency") + b"\xcc\x03", "malformed"),
        ("event_overlong_text", "A text of four bytes with a two-byte length.", more + flat + pack("urgency") + b"\xd9\x04slow", "malformed"),
        ("event_overlong_map", "A small map with a wide header.", b"\xde\x00" + bytes([held[0] & 15]) + flat, "malformed"),
        ("event_duplicate_key", "One key twice: two readers could take different values.", more + flat + pack("reason") + pack("annan"), "malformed"),
        ("event_float", "A floating-point number.", pack({**generic, "urgency": 1.5}), "malformed"),
        ("event_trailing_byte", "A byte after the end.", held + b"\xc0", "malformed"),
        ("event_cut_short", "The last byte is missing.", held[:-1], "malformed"),
        ("event_deeply_nested", "Lists in lists, nine levels in all.", pack({**generic, "urgency": nested}), "limit-exceeded"),
        ("event_number_as_key", "A key that is no text.", more + flat + b"\x07" + pack("seven"), "malformed"),
        ("event_extension_type", "A timestamp extension.", more + flat + pack("urgency") + b"\xd6\xff" + bytes(4), "malformed"),
        ("event_not_a_map", "A list instead of a map.", pack(["PrescriptionHeld"]), "malformed"),
        ("event_without_type", "A map that does not say what it is.", pack({"reason": "paus"}), "malformed"),
        ("event_missing_field", "A supply without a quantity.", pack({**generic, "type": "Dispensed", "fill": 1, "basis": "custody"}), "malformed"),
        ("event_negative_quantity", "A supply of minus one unit.", pack({**generic, "type": "Dispensed", "fill": 1, "quantity": -1, "basis": "custody"}), "malformed"),
        ("event_quantity_overflow", "A supply of 2^64 - 1 units.", pack({**generic, "type": "Dispensed", "fill": 1, "quantity": (1 << 64) - 1, "basis": "custody"}), "malformed"),
        ("event_bad_utf8", "Text that is not UTF-8.", more + flat + pack("urgency") + b"\xa2\xc3\x28", "malformed"),
        ("event_oversize", "One byte more than an event may have.", _sized(generic, EVENT_BYTES_MAX + 1), "limit-exceeded"),
        ("event_depth_bomb", "Ten thousand lists in lists.", b"\x91" * 10_000 + b"\xc0", "malformed"),
    ):  # fmt: skip
        shelf.add(name, "event", title, "R15", {"event": data}, error=error)


def _sized(generic: dict[str, object], size: int) -> bytes:
    pack = msgspec.msgpack.encode
    rest = size - len(pack({**generic, "note": "x" * 1000})) + 1000
    return pack({**generic, "note": "x" * rest})


def frame(plain: bytes, **options: object) -> bytes:
    """Content of format 1 around any plain bytes."""
    compressor = zstandard.ZstdCompressor(
        level=3, dict_data=_dictionary(), **{"write_dict_id": False, "write_content_size": True, **options}
    )
    return b"\x01" + compressor.compress(plain)


def _contents(shelf: Shelf, world: World) -> None:
    world.restart()
    feed = world.feed("prescriber")
    event = world.issuing_event(feed, holder=feed)
    data = encode_event(event)
    document = document_id(date.fromisoformat(event.issued), data)
    parents = [Link(hashlib.sha256(bytes([n])).digest()) for n in range(3)]
    pack = msgspec.msgpack.encode
    up, down = sorted(parents), sorted(parents, reverse=True)
    shelf.add(
        "content_good",
        "content",
        "An event with three parents.",
        "R4",
        {"content": encode_content(document, up, data)},
    )
    shelf.add(
        "content_other_compressor",
        "content",
        "Another compression level: what was written is what counts.",
        "R2",
        {"content": b"\x01" + _level(pack([document, up, data]), 19)},
    )
    shelf.add(
        "content_wide_window",
        "content",
        "A window of 128 MiB: nothing is reserved for it, since the size of the content is known.",
        "R15",
        {"content": b"\x01" + _wide_window(pack([document, up, data]))},
    )
    good = frame(pack([document, up, data]))
    many = sorted(hashlib.sha256(bytes([n])).digest() for n in range(65))
    plain_zstd = zstandard.ZstdCompressor(level=3).compress(pack([document, up, data]))
    for name, title, content, error in (
        ("content_empty", "No bytes at all.", b"", "malformed"),
        ("content_newer_format", "Format number 2.", b"\x02" + good[1:], "version-unknown"),
        ("content_without_dictionary", "A frame made with another dictionary that it names.", b"\x01" + _other_dictionary(pack([document, up, data])), "malformed"),
        ("content_second_frame", "A second frame after the first.", good + plain_zstd, "malformed"),
        ("content_trailing_byte", "A byte after the frame.", good + b"\0", "malformed"),
        ("content_no_size", "A frame that does not state its size.", frame(pack([document, up, data]), write_content_size=False), "malformed"),
        ("content_bomb", "A frame of some bytes that claims 64 MiB.", frame(bytes(64 << 20)), "limit-exceeded"),
        ("content_understated_size", "A frame that claims less than it holds.", _understated(), "malformed"),
        ("content_cut_short", "The last byte is missing.", good[:-1], "malformed"),
        ("content_parents_descending", "Parents that are not ascending.", frame(pack([document, down, data])), "malformed"),
        ("content_parents_repeated", "One parent twice.", frame(pack([document, [up[0], up[0]], data])), "malformed"),
        ("content_parents_too_many", "Sixty-five parents.", frame(pack([document, many, data])), "malformed"),
        ("content_parent_short", "A parent of 31 bytes.", frame(pack([document, [up[0][:31]], data])), "malformed"),
        ("content_extra_element", "A fourth element in the array.", frame(pack([document, up, data, 1])), "malformed"),
        ("content_not_canonical", "The array with a wide header.", frame(b"\xdc\x00\x03" + pack([document, up, data])[1:]), "malformed"),
        ("content_skippable_frame", "A frame that holds nothing by definition.", b"\x01" + bytes.fromhex("502a4d18 04000000 00000000"), "malformed"),
        ("content_checksum_wrong", "A frame with a checksum that does not fit.", _bad_checksum(pack([document, up, data])), "malformed"),
    ):  # fmt: skip
        shelf.add(name, "content", title, "R15", {"content": content}, error=error)


def _level(plain: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level, dict_data=_dictionary(), write_dict_id=False).compress(plain)


def _other_dictionary(plain: bytes) -> bytes:
    samples = [
        b"prescription %d of product %d in district %d" % (n, n * 7 % 31, n * 3 % 17) for n in range(2000)
    ]
    other = zstandard.train_dictionary(1024, samples, dict_id=77)
    return zstandard.ZstdCompressor(level=3, dict_data=other, write_dict_id=True).compress(plain)


def _understated() -> bytes:
    """Single-segment frame, content size 1, one raw last block of three bytes."""
    return b"\x01" + bytes.fromhex("28b52ffd2001190000616263")


def _bad_checksum(plain: bytes) -> bytes:
    good = frame(plain, write_checksum=True)
    return good[:-1] + bytes([good[-1] ^ 1])


def _wide_window(plain: bytes) -> bytes:
    """No single segment: window descriptor for 128 MiB, two-byte content size, one raw last block."""
    size = (len(plain) - 256).to_bytes(2, "little")
    block = (len(plain) << 3 | 1).to_bytes(3, "little")
    return bytes.fromhex("28b52ffd4088") + size + block + plain


def _automerge(shelf: Shelf) -> None:
    def link(text: str) -> Link:
        return Link(hashlib.sha256(text.encode()).digest())

    a, b, c, d, e, lost = (link(name) for name in ("a", "b", "c", "d", "e", "lost"))
    for name, title, shape in (
        ("automerge_line", "Five events in a row.", ((a, ()), (b, (a,)), (c, (b,)), (d, (c,)), (e, (d,)))),
        ("automerge_branches", "Two branches that meet, and a third that does not.", ((a, ()), (b, (a,)), (c, (a,)), (d, (b, c)), (e, (a,)))),
        ("automerge_roots", "Two events without parents, joined by a third.", ((a, ()), (b, ()), (c, (a, b)))),
        ("automerge_waiting", "An event whose parent is missing waits, with what follows it.", ((a, ()), (b, (lost,)), (c, (b,)), (d, (a,)))),
    ):  # fmt: skip
        events = [
            DocumentEvent(i, tuple(sorted(p)), f'{{"type":"Example","note":"åäö {n}"}}')
            for n, (i, p) in enumerate(shape)
        ]
        shelf.add(
            name, "automerge", title, "R4",
            {
                "events": [{"id": v.id.hex(), "parents": [p.hex() for p in v.parents], "json": v.text} for v in events],
                "saved": build(events),
            },
        )  # fmt: skip


def _base45(shelf: Shelf) -> None:
    shelf.add(
        "base45_good",
        "base45",
        "Bytes as the text of a bar code.",
        "R15",
        {"text": to_text(b"\0\1Hello!!\xff")},
    )
    for name, title, text, error in (
        ("base45_other_prefix", "A code of something else.", "HC1:6BF", "malformed"),
        ("base45_wrong_alphabet", "A small letter.", "RXL1:aBF", "malformed"),
        ("base45_overflow", "Three characters that stand for more than two bytes.", "RXL1::::", "malformed"),
        ("base45_one_left_over", "A single character at the end.", "RXL1:0000", "malformed"),
        ("base45_too_long", "Longer than any paper.", "RXL1:" + "0" * 4299, "limit-exceeded"),
    ):  # fmt: skip
        shelf.add(name, "base45", title, "R15", {"text": text}, error=error)
