"""Vectors of what travels in messages: openings, runs, proofs of fork, detached entries."""

from __future__ import annotations

import msgspec

from ledger.clock import STAMP_MAX
from ledger.events import PrescriptionAmended, PrescriptionHeld
from ledger.feed import Entry, ForkProof, Run, sign_opening
from ledger.ids import DocumentId
from nodes.messages import Entries, encode_message
from scripts.vectors.craft import STOCKHOLM, UPPSALA, Feed, World, message
from scripts.vectors.shelf import Shelf

__all__ = ["three", "travels"]

_replace = msgspec.structs.replace


def travels(shelf: Shelf, world: World) -> None:
    """Write them."""
    _openings(shelf, world)
    _runs(shelf, world)
    _positions(shelf, world)
    _forks(shelf, world)
    _messages(shelf, world)


def three(world: World) -> tuple[Feed, DocumentId]:
    """A prescriber's feed with three entries of one document."""
    world.restart()
    feed = world.feed("prescriber")
    document, link = world.issue(feed, holder=feed)
    link = feed.append(document, world.act(PrescriptionAmended, feed, dosage="2 tabletter"), [link])
    feed.append(document, world.act(PrescriptionHeld, feed, reason="paus"), [link])
    return feed, document


def _openings(shelf: Shelf, world: World) -> None:
    feed, _ = three(world)
    opening = feed.opening.opening()
    keys = feed.member.keys.signing
    shelf.add(
        "opening_and_run",
        "message",
        "A feed's opening and its three entries, one signature at the end.",
        "R3",
        {"message": message(feed)},
    )
    other = World(b"another realm").feed("prescriber")
    for name, title, signed, error in (
        ("opening_signed_by_another", "An opening that names one node and is signed by another.", sign_opening(opening, world["eken"].keys.signing), "not-authentic"),
        ("opening_other_realm", "An opening of another realm.", other.opening, "other-realm"),
        ("opening_foreign_node", "An opening that names this realm; its author was certified in another.", sign_opening(_replace(opening, certificates=other.member.chain), other.member.keys.signing), "not-authentic"),
        ("opening_extra_element", "An opening that is not in canonical form.", _raw_opening(feed, extra=True), "malformed"),
        ("opening_district_name", "A district whose name would write on an operator's screen.", sign_opening(_replace(opening, district="SE-AB\x1b[31m"), keys), "malformed"),
        ("opening_district_line_feed", "A line feed after a good name.", sign_opening(_replace(opening, district="SE-AB-0180\n"), keys), "malformed"),
        ("opening_incarnation_zero", "Incarnation 0.", sign_opening(_replace(opening, incarnation=0), keys), "malformed"),
    ):  # fmt: skip
        data = encode_message(Entries(openings=(signed,)))
        shelf.add(name, "message", title, "R3", {"message": data}, error=error)


def _raw_opening(feed: Feed, *, extra: bool):  # noqa: ANN202
    array = msgspec.msgpack.decode(feed.opening.body)
    body = msgspec.msgpack.encode([*array, *([1] if extra else [])])
    return _replace(
        feed.opening, body=body, signature=feed.member.keys.signing.sign(b"rxledger/1 sign opening\0" + body)
    )


def _runs(shelf: Shelf, world: World) -> None:
    feed, _ = three(world)
    opened = message(feed, runs=[])
    bare = [_replace(e, signature=None) for e in feed.entries]

    def add(
        name: str, title: str, run: Run, error: str, held: list[bytes] | None = None, rules: str = "R3"
    ) -> None:
        inputs = {"held": held or [opened], "message": encode_message(Entries(runs=(run,)))}
        shelf.add(name, "message", title, rules, inputs, error=error)

    add(
        "run_second_part",
        "What follows what is held joins it.",
        feed.run(2),
        "",
        [message(feed, runs=[feed.run(1, 1)])],
    )
    add(
        "run_overlapping",
        "What is held already does no harm.",
        feed.run(1),
        "",
        [message(feed, runs=[feed.run(1, 2)])],
    )
    shelf.add(
        "run_dropped_content",
        "message",
        "Sealed bytes that retention has dropped: the chain still verifies.",
        "R2",
        {"held": [opened], "message": encode_message(Entries(runs=(_dropped(feed),)))},
    )
    add(
        "run_forged_author",
        "Entries signed by another node than the feed's.",
        _signed_by(feed, world, "eken"),
        "not-authentic",
    )
    add(
        "run_unsigned_end",
        "No signature at the end.",
        Run(feed.id, feed.genesis, tuple(bare)),
        "not-authentic",
    )
    add(
        "run_signature_moved",
        "The signature of the first entry at the end.",
        Run(feed.id, feed.genesis, (*bare[:-1], _replace(bare[-1], signature=feed.entries[0].signature))),
        "not-authentic",
    )
    add(
        "run_unknown_feed",
        "A run of a feed whose opening is not held.",
        world.feed("eken").id and _of(world, "eken"),
        "not-authentic",
    )
    add(
        "run_in_another_feed",
        "A run replayed under another feed's id.",
        _replace(feed.run(), feed=_aspen(world).id),
        "not-authentic",
        [message(feed, _aspen(world), runs=[])],
    )
    add(
        "run_document_swapped",
        "The header names another document than was signed.",
        _changed(feed, 1, document=b"\x5f" * 16),
        "not-authentic",
    )
    add(
        "run_stamp_changed",
        "Another stamp than was signed.",
        _changed(feed, 0, stamp=feed.entries[0].stamp + 1),
        "not-authentic",
    )
    add("run_lane_changed", "Another lane than was signed.", _changed(feed, 1, lane=0), "not-authentic")
    add(
        "run_epoch_changed", "Another key epoch than was signed.", _changed(feed, 1, epoch=2), "not-authentic"
    )
    add(
        "run_commitment_changed",
        "Another key commitment than was signed.",
        _changed(feed, 1, commitment=bytes(16)),
        "not-authentic",
    )
    add(
        "run_content_flipped",
        "One bit of sealed bytes in the middle is another.",
        _changed(feed, 1, sealed=_flip(feed.entries[1].sealed)),
        "not-authentic",
    )
    add(
        "run_headers_swapped",
        "Two entries have changed their headers.",
        _headers_swapped(feed),
        "not-authentic",
    )
    add(
        "run_wrong_previous",
        "A run chained to something else.",
        _replace(feed.run(), previous=bytes(32)),
        "not-authentic",
    )
    add(
        "run_gap_inside",
        "The second of three entries is missing.",
        Run(feed.id, feed.genesis, (bare[0], feed.entries[2])),
        "malformed",
    )
    add(
        "run_order_reversed",
        "Entries in the opposite order.",
        Run(feed.id, feed.genesis, (*reversed(bare[1:]), feed.entries[0])),
        "malformed",
    )
    add(
        "run_without_content",
        "Neither sealed bytes nor their hash.",
        _changed(feed, 1, sealed=None),
        "malformed",
    )
    add(
        "run_gap_before",
        "A run whose predecessor is not held: nothing of it is kept.",
        feed.run(3),
        "gap",
        rules="R3 R15",
    )
    add(
        "run_genesis_as_second", "A second entry that claims to follow the opening.", _misplaced(world), "gap"
    )
    add(
        "run_other_realm",
        "Entries whose links were made for another realm.",
        _other_realm(world),
        "not-authentic",
    )
    add(
        "run_link_signed_as_opening",
        "A signature made over the link for another purpose.",
        _other_purpose(feed),
        "not-authentic",
        rules="R3",
    )


def _of(world: World, name: str) -> Run:
    feed = world.feed(name)
    feed.append(b"\x5f" * 16, world.act(PrescriptionHeld, feed))
    return feed.run()


def _aspen(world: World) -> Feed:
    return world.feed("aspen", UPPSALA)


def _flip(sealed: bytes | None) -> bytes:
    assert sealed is not None
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def _changed(feed: Feed, at: int, **fields: object) -> Run:
    run = feed.run()
    return _replace(
        run, entries=tuple(_replace(e, **fields) if n == at else e for n, e in enumerate(run.entries))
    )


def _dropped(feed: Feed) -> Run:
    import hashlib

    sealed = feed.entries[1].sealed
    assert sealed is not None
    return _changed(feed, 1, sealed=None, sealed_hash=hashlib.sha256(sealed).digest())


def _headers_swapped(feed: Feed) -> Run:
    first, second, third = feed.run().entries
    return Run(
        feed.id,
        feed.genesis,
        (_replace(first, sealed=second.sealed), _replace(second, sealed=first.sealed), third),
    )


def _signed_by(feed: Feed, world: World, name: str) -> Run:
    world.restart()
    other = world.feed("prescriber")
    document, link = world.issue(other, holder=other)
    other.append(document, world.act(PrescriptionHeld, other), [link], signed_by=world[name])
    assert other.id == feed.id
    return other.run()


def _misplaced(world: World) -> Run:
    feed = world.feed("prescriber")
    feed.append(b"\x5f" * 16, world.act(PrescriptionHeld, feed), sequence=2)
    return feed.run()


def _other_realm(world: World) -> Run:
    world.restart()
    feed, other = world.feed("prescriber"), World(b"another realm")
    entry = Entry(1, world.next_stamp(), b"\x5f" * 16, 2, 1, bytes(16), b"sealed elsewhere")
    from ledger.feed import entry_link, sign_link

    link = entry_link(other.realm.id, feed.id, feed.genesis, entry)
    return Run(feed.id, feed.genesis, (_replace(entry, signature=sign_link(link, feed.member.keys.signing)),))


def _other_purpose(feed: Feed) -> Run:
    run = feed.run()
    signature = feed.member.keys.signing.sign(b"rxledger/1 sign opening\0" + feed.links[-1])
    return _replace(run, entries=(*run.entries[:-1], _replace(run.entries[-1], signature=signature)))


def _positions(shelf: Shelf, world: World) -> None:
    """Numbers at and beyond their bounds, signed by their author all the same."""
    for name, title, error, fields in (
        ("entry_last_stamp", "The largest stamp there is: counts, and moves no clock.", "", {"stamp": STAMP_MAX}),
        ("entry_stamp_zero", "1 January 1970: counts like any other.", "", {"stamp": 0}),
        ("entry_stamp_overflow", "One more than the largest stamp.", "malformed", {"stamp": STAMP_MAX + 1}),
        ("entry_stamp_negative", "A stamp before 1970.", "malformed", {"stamp": -1}),
        ("entry_sequence_zero", "Sequence number 0.", "malformed", {"sequence": 0}),
        ("entry_sequence_2_53", "Sequence number 2^53.", "malformed", {"sequence": 1 << 53}),
        ("entry_sequence_2_64", "Sequence number 2^64 - 1.", "malformed", {"sequence": (1 << 64) - 1}),
        ("entry_lane_three", "Lane 3.", "malformed", {"lane": 3}),
        ("entry_epoch_overflow", "Key epoch 2^31.", "malformed", {"epoch": 1 << 31, "sealed": b"x", "commitment": bytes(16)}),
        ("entry_document_short", "A document id of 15 bytes.", "malformed", {"document": bytes(15), "sealed": b"x"}),
        ("entry_commitment_short", "A commitment of 15 bytes.", "malformed", {"commitment": bytes(15)}),
        ("entry_oversize", "Sealed bytes beyond what an entry may have.", "malformed", {"sealed": bytes(20 * 1024 + 1)}),
    ):  # fmt: skip
        world.restart()
        feed = world.feed("eken")
        document = fields.pop("document", b"\x5f" * 16)
        if "epoch" in fields:
            world.district_keys[STOCKHOLM, fields["epoch"]] = bytes(32)
        feed.append(document, world.act(PrescriptionHeld, feed), **fields)
        world.district_keys.pop((STOCKHOLM, 1 << 31), None)
        shelf.add(
            name,
            "message",
            title,
            "R5" if "stamp" in fields else "R15",
            {"message": message(feed)},
            error=error,
        )


def _forks(shelf: Shelf, world: World) -> None:
    feed, document = three(world)
    twin = feed.branch(2)
    twin.append(document, world.act(PrescriptionAmended, twin, dosage="3 tabletter"), [feed.links[0]])
    proof = ForkProof(feed.run(2, 2), twin.run(2))
    held = [message(feed, runs=[feed.run(1, 1)])]

    def add(name: str, title: str, forged: ForkProof, error: str) -> None:
        shelf.add(
            name,
            "message",
            title,
            "R6",
            {"held": held, "message": encode_message(Entries(proofs=(forged,)))},
            error=error,
        )

    add(
        "fork_proof",
        "Two signed entries at one position: both branches are kept, the feed is forked.",
        proof,
        "",
    )
    shelf.add(
        "fork_by_runs",
        "message",
        "The same fork, seen without a proof.",
        "R6",
        {"held": [message(feed)], "message": message(twin)},
    )
    add("fork_proof_same_run", "The same run twice.", ForkProof(proof.left, proof.left), "not-authentic")
    add(
        "fork_proof_forged",
        "The second branch is signed by another node.",
        _forged_branch(feed, document, world),
        "not-authentic",
    )
    add(
        "fork_proof_two_positions",
        "Two runs that begin at different positions.",
        ForkProof(feed.run(2, 2), feed.run(3)),
        "not-authentic",
    )
    add(
        "fork_proof_common_start",
        "Two runs that part only at their second entry.",
        ForkProof(feed.run(1, 2), twin.run(1)),
        "not-authentic",
    )
    other = _aspen(world)
    other.append(document, world.act(PrescriptionHeld, other))
    shelf.add(
        "fork_proof_two_feeds",
        "message",
        "Runs of two feeds.",
        "R6",
        {
            "held": [*held, message(other, runs=[])],
            "message": encode_message(Entries(proofs=(ForkProof(feed.run(1, 1), other.run()),))),
        },
        error="not-authentic",
    )
    lone = Entries(runs=(feed.run(3),))
    opened = message(feed, runs=[])
    shelf.add(
        "detached_urgent",
        "detached",
        "One signed entry ahead of its feed.",
        "R9",
        {"held": [opened], "message": encode_message(lone)},
        says={"new": True},
    )
    entry = feed.entries[2]
    for name, title, run in (
        ("detached_unsigned", "Without a signature.", _replace(feed.run(3), entries=(_replace(entry, signature=None),))),
        ("detached_other_previous", "Chained to something else.", _replace(feed.run(3), previous=bytes(32))),
        ("detached_content_flipped", "One bit of the sealed bytes is another.", _replace(feed.run(3), entries=(_replace(entry, sealed=_flip(entry.sealed)),))),
    ):  # fmt: skip
        shelf.add(
            name,
            "detached",
            title,
            "R3",
            {"held": [opened], "message": encode_message(Entries(runs=(run,)))},
            error="not-authentic",
        )


def _forged_branch(feed: Feed, document: DocumentId, world: World) -> ForkProof:
    twin = feed.branch(2)
    twin.append(document, world.act(PrescriptionAmended, twin, dosage="4 tabletter"), signed_by=world["eken"])
    return ForkProof(feed.run(2, 2), twin.run(2))


def _messages(shelf: Shelf, world: World) -> None:
    feed, _ = three(world)
    good = message(feed)
    deep = b"\x92\x01" + b"\x91" * 5000 + b"\xc0"
    for name, title, data, error in (
        ("message_newer_version", "Version 2 of the protocol.", b"\x92\x02" + good[2:], "version-unknown"),
        ("message_cut_short", "The last byte is missing.", good[:-1], "malformed"),
        ("message_trailing_byte", "A byte after the end.", good + b"\0", "malformed"),
        ("message_unknown_tag", "A message of an unknown kind.", msgspec.msgpack.encode([1, [99]]), "malformed"),
        ("message_nested", "Five thousand lists in lists.", deep, "malformed"),
        ("message_empty_run", "A run without entries.", encode_message(Entries(runs=(Run(feed.id, feed.genesis, ()),))), "malformed"),
    ):  # fmt: skip
        shelf.add(name, "message", title, "R15", {"message": data}, error=error)
