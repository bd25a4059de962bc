"""Vectors of what goes over links: letters, introductions, signs of life, live entries.

Letters are sealed and signs signed here anew, from what the protocol says, not by `nodes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger.clock import pack_stamp
from ledger.identity import NodeRole
from ledger.ids import tagged_hash
from nodes.nats.subjects import here, live, mailbox
from nodes.wire import FRAME_BYTES_MAX
from scripts.vectors.craft import NOW_MS, STOCKHOLM, UPPSALA, Feed, Member, World, message
from scripts.vectors.forging import forged_chain
from scripts.vectors.shelf import Shelf
from scripts.vectors.travels import three

__all__ = ["letters"]

LETTER, INTRODUCTION, WHO, LIVE, HERE = (bytes([kind]) for kind in range(1, 6))
ROUND = b"a round."
STAMP = pack_stamp(NOW_MS + 86_400_000)
_replace = msgspec.structs.replace
_pack = msgspec.msgpack.encode


def letters(shelf: Shelf, world: World) -> None:
    """Write them."""
    _letters(shelf, world)
    _rounds(shelf, world)
    _introductions(shelf, world)
    _signs(shelf, world)
    _live(shelf, world)


def introduction(member: Member) -> bytes:
    """A member's certificates."""
    return _pack(member.chain)


def sealed(
    world: World, sender: Member, receiver: Member, content: bytes, *, realm: bytes | None = None,
    says: Member | None = None, turned: bool = False,
) -> bytes:  # fmt: skip
    """A letter's frame.

    Args:
        world: whose realm, unless `realm` is given.
        sender: whose key seals it.
        receiver: whom it is sealed to.
        content: round, number and message.
        realm: another realm's id.
        says: another sender than the one that sealed it.
        turned: sealed with the key of the other direction.
    """
    shared = sender.keys.wrapping.exchange(X25519PublicKey.from_public_bytes(receiver.keys.wrapping_key))
    pair = (sender.certified.node, receiver.certified.node)
    first, second = reversed(pair) if turned else pair
    info = b"rxledger/1 letter\0" + (world.realm.id if realm is None else realm) + first + second
    key = HKDF(SHA256(), 32, None, info).derive(shared)
    nonce = hashlib.sha256(b"nonce" + content).digest()[:12]
    named = (says or sender).certified.node
    return LETTER + named + nonce + AESGCMSIV(key).encrypt(nonce, content, None)


def content(body: list[Any], *, round_: bytes = ROUND, number: int = 0, version: int = 1) -> bytes:
    """What stands in a letter."""
    return round_ + number.to_bytes(4, "big") + _pack([version, body])


def digest(world: World) -> list[Any]:
    """A digest of a node that holds governance and nothing in it: 64 empty buckets."""
    return [1, world.realm.id, {"governance": tagged_hash("frontier of a district", *[bytes(16)] * 64)}]


class _Table:
    """Adds vectors of one check and one listener."""

    def __init__(self, shelf: Shelf, world: World, rules: str) -> None:
        self.shelf, self.world, self.rules = shelf, world, rules
        self.mailbox = mailbox(world.realm.id, world["reader"].certified.node)

    def add(
        self, name: str, title: str, frames: Sequence[bytes | tuple[str, bytes]], error: str = "", *,
        known: Sequence[str] = ("eken",), held: Sequence[bytes] = (), says: dict[str, Any] | None = None,
        rules: str = "",
    ) -> None:  # fmt: skip
        """Frames to the reader's mailbox, or to the subject named."""
        given = [
            {"subject": self.mailbox, "payload": each}
            if isinstance(each, bytes)
            else {"subject": each[0], "payload": each[1]}
            for each in frames
        ]
        inputs = {
            "introductions": [introduction(self.world[n]) for n in known],
            "held": list(held),
            "frames": given,
        }
        self.shelf.add(name, "frames", title, rules or self.rules, inputs, error=error, says=says)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _letters(shelf: Shelf, world: World) -> None:
    table = _Table(shelf, world, "R3 R15")
    eken, bjorken, reader = world["eken"], world["bjorken"], world["reader"]
    said = content(digest(world))
    good = sealed(world, eken, reader, said)
    node = eken.certified.node.hex()
    table.add("letter_good", "A digest in a letter, and the answer.", [good], says={"heard": [node]})
    table.add(
        "letter_of_somebody_unknown", "It cannot be opened: the sender is asked who it is.", [good], known=(),
        says={"answers": [["WHO"]], "heard": []},
    )  # fmt: skip
    table.add(
        "letter_empty_round", "A claim belongs to no round; a document that is not held is not granted.",
        [sealed(world, eken, reader, content([10, bytes(16), bytes(16), bytes(16), [1]], round_=bytes(8)))],
        says={"answers": [["ClaimTold"]]},
    )  # fmt: skip
    oversize = LETTER + eken.certified.node + bytes(FRAME_BYTES_MAX - 16)
    for name, title, frame, error in (
        ("letter_forged_sender", "Sealed by one node in the name of another.", sealed(world, bjorken, reader, said, says=eken), "not-authentic"),
        ("letter_to_another", "Sealed to another node.", sealed(world, eken, bjorken, said), "not-authentic"),
        ("letter_turned_round", "What the receiver itself would have sealed to the sender.", sealed(world, eken, reader, said, turned=True), "not-authentic"),
        ("letter_other_realm", "Sealed in another realm between the same keys.", sealed(world, eken, reader, said, realm=bytes(16)), "not-authentic"),
        ("letter_flipped_nonce", "One bit of the nonce is another.", _flipped(good, 20), "not-authentic"),
        ("letter_flipped_byte", "One bit of what is sealed is another.", _flipped(good, 40), "not-authentic"),
        ("letter_flipped_tag", "One bit of the tag is another.", _flipped(good, len(good) - 1), "not-authentic"),
        ("letter_cut_short", "Shorter than a sender, a nonce and a tag.", good[:44], "malformed"),
        ("letter_without_content", "Nothing is sealed in it.", sealed(world, eken, reader, b""), "malformed"),
        ("letter_without_message", "A round and a number, no message.", sealed(world, eken, reader, said[:12]), "malformed"),
        ("letter_oversize", "One byte more than a frame may have.", oversize, "malformed"),
        ("letter_newer_version", "A message of version 2.", sealed(world, eken, reader, content(digest(world), version=2)), "version-unknown"),
        ("letter_unknown_tag", "A message that this version does not have.", sealed(world, eken, reader, content([99])), "malformed"),
        ("letter_code_of_another_kind", "A refusal whose code would write on an operator's screen.", sealed(world, eken, reader, content([5, "\x1b[31m"])), "malformed"),
        ("frame_newer_kind", "A kind of frame that this version does not have.", bytes([6]) + good[1:], "version-unknown"),
        ("frame_empty", "Nothing at all.", b"", "malformed"),
        ("frame_kind_zero", "Kind 0 is none.", b"\0" + good[1:], "version-unknown"),
    ):  # fmt: skip
        table.add(name, title, [frame], error)


def _rounds(shelf: Shelf, world: World) -> None:
    """What a hub keeps and repeats."""
    table = _Table(shelf, world, "R11 R15")
    eken, reader = world["eken"], world["reader"]
    opening = sealed(world, eken, reader, content(digest(world)))
    in_step = sealed(world, eken, reader, content([7, STAMP]))
    table.add(
        "letter_round_repeated", "The opening of a round that is over begins no other: only the first is answered.",
        [opening, opening, opening], says={"answers": [["Digest", "InStep"], [], []]},
    )  # fmt: skip
    other = content([1, world.realm.id, {"governance": bytes(32)}], round_=b"another.")
    table.add(
        "letter_in_step_repeated",
        "That a peer is in step counts only in a round that the receiver began: elsewhere it may be of yesterday.",
        [sealed(world, eken, reader, other), sealed(world, eken, reader, content([7, STAMP], round_=b"another."))],
        says={"in_step": []},
    )  # fmt: skip
    table.add(
        "letter_in_step_unasked", "Told out of nothing, it is nothing.", [in_step],
        says={"answers": [[]], "in_step": []},
    )  # fmt: skip


def _introductions(shelf: Shelf, world: World) -> None:
    table = _Table(shelf, world, "R3 R14 R15")
    eken = world["eken"]
    node = eken.certified.node.hex()
    good = INTRODUCTION + introduction(eken)
    table.add("introduction_good", "A node's certificates.", [good], known=(), says={"known": [node]})
    table.add(
        "who", "Who asks who one is, is told.", [WHO + eken.certified.node], known=(),
        says={"answers": [["INTRODUCTION"]]},
    )  # fmt: skip
    foreign = World(b"another realm")["eken"]
    weak = forged_chain(world, None, NodeRole.PHARMACY, STOCKHOLM, wrapping_key=bytes(32))
    for name, title, frame, error in (
        ("introduction_other_realm", "Of a node of another realm.", INTRODUCTION + introduction(foreign), "not-authentic"),
        ("introduction_small_order_key", "A certificate, well signed, whose wrapping key is of small order.", INTRODUCTION + _pack(weak), "not-authentic"),
        ("introduction_flipped_byte", "One bit of a certificate is another.", _flipped(good, len(good) - 10), "not-authentic"),
        ("introduction_too_many", "Four certificates.", INTRODUCTION + _pack([*eken.chain, *eken.chain]), "limit-exceeded"),
        ("introduction_too_large", "More bytes than three certificates can have.", INTRODUCTION + _pack([bytes(9000)]), "limit-exceeded"),
        ("introduction_of_nobody", "No certificate.", INTRODUCTION + _pack([]), "limit-exceeded"),
        ("introduction_no_array", "Something else.", INTRODUCTION + _pack({"a": 1}), "malformed"),
    ):  # fmt: skip
        table.add(name, title, [frame], error, known=())


def sign(
    world: World, member: Member, district: str, *, realm: bytes | None = None, by: Member | None = None,
    stamp: int = STAMP, digest: bytes = bytes(8),
) -> bytes:  # fmt: skip
    """A sign of life's frame; `by`: who signs it, if not the one that it names."""
    body = [member.certified.node, stamp, digest]
    said = tagged_hash("here", world.realm.id if realm is None else realm, district.encode(), _pack(body))
    return HERE + _pack([body, (by or member).keys.signing.sign(said)])


def _signs(shelf: Shelf, world: World) -> None:
    table = _Table(shelf, world, "R3 R11")
    eken, bjorken = world["eken"], world["bjorken"]
    subject, node = here(world.realm.id, STOCKHOLM), eken.certified.node.hex()
    good = sign(world, eken, STOCKHOLM)
    table.add("here_good", "A sign of life in a district.", [(subject, good)], says={"heard": [node]})
    table.add(
        "here_of_somebody_unknown", "Nobody is heard: the sender is asked who it is.", [(subject, good)], known=(),
        says={"answers": [["WHO"]], "heard": []},
    )  # fmt: skip
    for name, title, frame, error in (
        ("here_signed_by_another", "Signed by another node than it names.", sign(world, eken, STOCKHOLM, by=bjorken), "not-authentic"),
        ("here_other_realm", "Given in another realm.", sign(world, eken, STOCKHOLM, realm=bytes(16)), "not-authentic"),
        ("here_other_district", "Given in another district, and moved here.", sign(world, eken, UPPSALA), "not-authentic"),
        ("here_flipped_byte", "One bit of the digest is another.", _flipped(good, len(good) - 70), "not-authentic"),
        ("here_digest_short", "Seven bytes of digest.", sign(world, eken, STOCKHOLM, digest=bytes(7)), "malformed"),
        ("here_stamp_negative", "A time before all time.", sign(world, eken, STOCKHOLM, stamp=-1), "malformed"),
        ("here_unsigned", "No signature.", HERE + _pack([[eken.certified.node, STAMP, bytes(8)], b""]), "malformed"),
        ("here_cut_short", "The last byte is missing.", good[:-1], "malformed"),
    ):  # fmt: skip
        table.add(name, title, [(subject, frame)], error)


def _told(feed: Feed, sequence: int, *, version: int = 1, previous: bytes = b"", **changed: object) -> bytes:
    """A live entry's frame."""
    entry = _replace(feed.entries[sequence - 1], **changed)
    return LIVE + _pack([version, feed.id, entry, previous])


def _live(shelf: Shelf, world: World) -> None:
    feed, document = three(world)
    table = _Table(shelf, world, "R3 R4 R15")
    subject = live(world.realm.id, STOCKHOLM)
    held = [message(feed, runs=[feed.run(1, 1)])]

    def add(name: str, title: str, frame: bytes, error: str = "", new: Sequence[int] = ()) -> None:
        says = None if error else {"entries": sorted(feed.links[n - 1].hex() for n in new)}
        table.add(name, title, [(subject, frame)], error, known=(), held=held, says=says)

    add("live_good", "The entry after the last one that is held.", _told(feed, 2), new=[2])
    add("live_held", "An entry that is held: nothing is new.", _told(feed, 1))
    add(
        "live_gap",
        "An entry whose predecessor is not held: nothing is kept, and whoever is there is asked.",
        _told(feed, 3),
    )
    add(
        "live_named_predecessor",
        "The entry after the last one, which it names.",
        _told(feed, 2, previous=feed.links[0]),
        new=[2],
    )
    for name, title, frame, error in (
        ("live_newer_version", "Version 2.", _told(feed, 2, version=2), "version-unknown"),
        ("live_unsigned", "No signature.", _told(feed, 2, signature=None), "not-authentic"),
        ("live_signature_of_another", "The signature of another entry.", _told(feed, 2, signature=feed.entries[0].signature), "not-authentic"),
        ("live_stamp_changed", "At another time than was signed.", _told(feed, 2, stamp=feed.entries[1].stamp + 1), "not-authentic"),
        ("live_document_changed", "In another document than was signed.", _told(feed, 2, document=bytes([document[0] ^ 1]) + document[1:]), "not-authentic"),
        ("live_oversize", "More sealed bytes than an entry may have.", _told(feed, 2, sealed=bytes(20481)), "malformed"),
        ("live_no_entry", "Something else.", LIVE + _pack([1, feed.id, 7]), "malformed"),
    ):  # fmt: skip
        add(name, title, frame, error)
