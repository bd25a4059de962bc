"""Vectors of what is carried by hand or sent to one: bundles, papers, claims."""

from __future__ import annotations

import io
import tempfile
import zlib
from pathlib import Path

import msgspec
import zstandard

from ledger import SeededEntropy
from ledger.ids import tagged_hash
from ledger.paper import Paper, encode_paper, to_text
from ledger.vault import document_key
from nodes.bundle import export_bundle
from scripts.vectors.craft import NOW_MS, STOCKHOLM, UPPSALA, Feed, World, message
from scripts.vectors.judge import open_reader, take
from scripts.vectors.shelf import Shelf, realm_of
from scripts.vectors.travels import three

__all__ = ["carriers"]

_replace = msgspec.structs.replace


def carriers(shelf: Shelf, world: World) -> None:
    """Write them."""
    _bundles(shelf, world)
    _papers(shelf, world)
    _claims(shelf, world)


def _bundles(shelf: Shelf, world: World) -> None:
    feed, _ = three(world)
    eken = world["eken"]
    with tempfile.TemporaryDirectory() as directory:
        data = _exported(world, Path(directory), feed)
    kinds = _frames(data)
    head = 8
    first_end = kinds[0]
    shelf.add(
        "bundle_good",
        "bundle",
        "A bundle of one feed, sealed by its exporter.",
        "R4",
        {"bundle": data},
        says={"new": 3, "exporter": "eken"},
    )
    other = World(b"another realm")
    with tempfile.TemporaryDirectory() as directory:
        foreign = _exported(other, Path(directory), three(other)[0])
    for name, title, changed, error in (
        ("bundle_wrong_magic", "A file of another kind.", b"RXBUNDLF" + data[8:], "malformed"),
        ("bundle_empty", "An empty file.", b"", "malformed"),
        ("bundle_cut_in_header", "Cut short in its first frame.", data[: first_end - 3], "malformed"),
        ("bundle_cut_before_seal", "Everything but the seal: taken in, and said to be incomplete.", data[: kinds[-2]], "incomplete"),
        ("bundle_cut_in_frame", "Cut short in a frame: taken in up to there.", data[: kinds[-2] - 5], "incomplete"),
        ("bundle_flipped_bit", "One bit of the last frame but one is another.", _flip_at(data, kinds[-2] - 1), "incomplete"),
        ("bundle_newer_version", "Version 2.", _bundle([(1, [2, world.realm.id, NOW_MS, list(eken.chain)])]), "version-unknown"),
        ("bundle_other_realm", "Of another realm.", foreign, "other-realm"),
        ("bundle_without_header", "Runs first.", _bundle([(3, [feed.run()])]), "malformed"),
        ("bundle_frame_too_large", "A frame that claims 4 GiB.", data[:head] + b"\xff\xff\xff\xff" + data[head + 4 :], "limit-exceeded"),
        ("bundle_bomb", "A header that inflates to 64 MiB.", _bundle([(1, bytes(64 << 20))]), "limit-exceeded"),
        ("bundle_frames_reordered", "Two frames have changed places.", data[:first_end] + data[kinds[1] : kinds[2]] + data[first_end : kinds[1]] + data[kinds[2] :], "incomplete"),
    ):  # fmt: skip
        shelf.add(name, "bundle", title, "R15 R16", {"bundle": changed}, error=error)


def _flip_at(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _frames(data: bytes) -> list[int]:
    """Where each frame of a bundle ends."""
    ends, at = [], 8
    while at < len(data):
        at += 21 + int.from_bytes(data[at : at + 4], "big")
        ends.append(at)
    return ends


def _bundle(frames: list[tuple[int, object]]) -> bytes:
    """A bundle with these frames, chained as they should be."""
    out, chain = b"RXBUNDLE", tagged_hash("bundle", b"RXBUNDLE")[:16]
    for kind, value in frames:
        body = zstandard.ZstdCompressor(level=1).compress(
            value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
        )
        chain = tagged_hash("bundle frame", chain, bytes([kind]), body)[:16]
        out += len(body).to_bytes(4, "big") + bytes([kind]) + chain + body
    return out


def _exported(world: World, directory: Path, feed: Feed) -> bytes:
    """What `export_bundle` makes of a store that holds this feed."""
    eken, out = world["eken"], io.BytesIO()
    with open_reader(directory, realm_of(world)) as ledger:
        assert take(ledger, message(feed)) == []
        export_bundle(
            ledger.exchange, eken.keys.signing, eken.chain, out, districts={STOCKHOLM}, now_ms=NOW_MS
        )
    return out.getvalue()


def _papers(shelf: Shelf, world: World) -> None:
    def paper(world: World, **changes: object) -> Paper:
        world.restart()
        feed = world.feed("prescriber")
        seeds = {fill: SeededEntropy(fill).bytes(32) for fill in (1, 2)}
        document, _ = world.issue(feed, seeds=seeds)
        key = document_key(world.district_keys[STOCKHOLM, 1], document)
        made = Paper(feed.opening, feed.genesis, feed.entries[0], key, tuple(sorted(seeds.items())))
        return _replace(made, **changes)

    good = paper(world)
    data = encode_paper(good)
    text = to_text(data)
    shelf.add(
        "paper_good",
        "paper",
        "A paper scanned at a pharmacy that has never heard of it.",
        "R8",
        {"text": text},
        says={"district": STOCKHOLM},
    )
    shelf.add(
        "paper_misread",
        "paper",
        "One character was misread.",
        "R15",
        {"text": text[:200] + ("A" if text[200] != "A" else "B") + text[201:]},
        error="malformed",
    )
    for name, title, changed, error in (
        ("paper_newer_version", "Version 2.", b"\x02" + data[1:], "version-unknown"),
        ("paper_too_long", "Longer than one code holds.", data + bytes(2861 - len(data)), "limit-exceeded"),
        ("paper_too_short", "Five bytes.", data[:5], "malformed"),
        ("paper_forged_entry", "An entry whose signature is of another.", encode_paper(_replace(good, entry=_replace(good.entry, signature=bytes(64)))), "not-authentic"),
        ("paper_unsigned_entry", "An entry without its own signature.", encode_paper(_replace(good, entry=_replace(good.entry, signature=None))), "not-authentic"),
        ("paper_changed_document", "The entry under another document's id.", encode_paper(_replace(good, entry=_replace(good.entry, document=b"\x5f" * 16))), "not-authentic"),
        ("paper_other_realm", "A paper of another realm.", encode_paper(paper(World(b"another realm"))), "other-realm"),
        ("paper_bomb", "A body that inflates to 64 MiB.", _paper_of(bytes(64 << 20)), "limit-exceeded"),
        ("paper_not_one", "A body that is something else.", _paper_of(b"\xc0"), "malformed"),
    ):  # fmt: skip
        shelf.add(name, "paper", title, "R3 R15", {"paper": changed}, error=error)


def _paper_of(plain: bytes) -> bytes:
    body = zstandard.ZstdCompressor(level=19).compress(plain)
    return b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body


def _claims(shelf: Shelf, world: World) -> None:
    world.restart()
    feed, eken = world.feed("prescriber"), world.feed("eken")
    document, _ = world.issue(feed, holder=feed)
    held = [message(feed)]

    def claim(
        *,
        version: int = 1,
        realm: bytes = world.realm.id,
        opening: object = eken.opening,
        by: str = "eken",
        fills: tuple[int, ...] = (1,),
    ) -> bytes:
        body = msgspec.msgpack.encode([version, realm, document, fills, bytes(range(16)), opening])
        signature = world[by].keys.signing.sign(b"rxledger/1 sign claim\0" + body)
        return msgspec.msgpack.encode([body, signature])

    for name, title, data, error in (
        ("claim_forged", "Signed by another node than it names.", claim(by="bjorken"), "not-authentic"),
        ("claim_other_realm", "Of another realm.", claim(realm=bytes(16)), "other-realm"),
        ("claim_newer_version", "Version 2.", claim(version=2), "version-unknown"),
        ("claim_of_no_fill", "For no fill at all.", claim(fills=()), "malformed"),
        ("claim_other_district", "From a feed of another district.", claim(opening=world.feed("aspen", UPPSALA).opening, by="aspen"), "not-permitted"),
        ("claim_not_the_holder", "To a node that does not hold the fill.", claim(), "not-permitted"),
        ("claim_too_large", "Larger than a claim may be.", msgspec.msgpack.encode([bytes(16 * 1024), bytes(64)]), "limit-exceeded"),
    ):  # fmt: skip
        shelf.add(name, "claim", title, "R7", {"held": held, "claim": data}, error=error)
