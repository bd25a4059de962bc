"""Vectors of who is certified for what: chains, enrolment requests and packages, wrapped keys."""

from __future__ import annotations

import msgspec

from ledger import SeededEntropy
from ledger.enrolment import (
    DistrictKey,
    EnrolmentPackage,
    encode_package,
    encode_request,
    make_package,
    make_request,
    wrap_key,
)
from ledger.identity import NodeRole
from scripts.vectors.craft import STOCKHOLM, UPPSALA, World
from scripts.vectors.forging import forged_chain
from scripts.vectors.shelf import Shelf

__all__ = ["certified"]


def certified(shelf: Shelf, world: World) -> None:
    """Write them."""
    _chains(shelf, world)
    _enrolment(shelf, world)


def _chains(shelf: Shelf, world: World) -> None:
    def add(
        name: str, title: str, certificates: tuple[bytes, ...], error: str = "", rules: str = "R3 R14"
    ) -> None:
        shelf.add(name, "chain", title, rules, {"certificates": list(certificates)}, error=error)

    eken, aspen, authority = world["eken"], world["aspen"], world["authority"]
    local = world.new_keys()
    replaced = world.certify(local, NodeRole.PHARMACY, STOCKHOLM, "eken 2", by=authority)
    add("chain_pharmacy", "A pharmacy certified by the agency.", eken.chain)
    add(
        "chain_by_authority",
        "A pharmacy certified by its district's authority, with the agency out of reach.",
        replaced,
    )
    add(
        "chain_authority_other_district",
        "A pharmacy certified by the authority of another district.",
        forged_chain(world, authority, NodeRole.PHARMACY, UPPSALA),
        "not-authentic",
    )
    add(
        "chain_authority_certifies_agency",
        "An agency node certified by a district authority.",
        forged_chain(world, authority, NodeRole.AGENCY, ""),
        "not-authentic",
    )
    add(
        "chain_authority_certifies_authority",
        "An authority certified by another authority.",
        forged_chain(world, authority, NodeRole.AUTHORITY, STOCKHOLM),
        "not-authentic",
    )
    add(
        "chain_pharmacy_certifies",
        "A pharmacy that certifies another one.",
        forged_chain(world, eken, NodeRole.PHARMACY, STOCKHOLM),
        "not-authentic",
    )
    add(
        "chain_other_realm",
        "A chain that ends in another realm's root.",
        World(b"another realm")["eken"].chain,
        "not-authentic",
    )
    add(
        "chain_issuer_swapped",
        "The issuer's certificate is another node's.",
        (eken.chain[0], aspen.chain[0]),
        "not-authentic",
    )
    add("chain_without_issuer", "The node's certificate alone.", eken.chain[:1], "limit-exceeded")
    add("chain_too_long", "Four certificates.", (*replaced, replaced[-1]), "limit-exceeded")
    add(
        "chain_bit_flipped",
        "One bit of the signature is another.",
        (eken.chain[0][:-1] + bytes([eken.chain[0][-1] ^ 1]), *eken.chain[1:]),
        "not-authentic",
    )
    add(
        "chain_trailing_byte",
        "A byte after the certificate.",
        (eken.chain[0] + b"\0", *eken.chain[1:]),
        "malformed",
    )
    add(
        "chain_small_order_key",
        "A certificate, well signed, for a key of order 4.",
        forged_chain(world, None, NodeRole.PHARMACY, STOCKHOLM, public_key=bytes(32)),
        "not-authentic",
    )
    add(
        "chain_unknown_role",
        "A role that does not exist.",
        forged_chain(world, None, "emperor", STOCKHOLM),
        "malformed",
    )


def _enrolment(shelf: Shelf, world: World) -> None:
    entropy = SeededEntropy(b"enrolment")
    eken, aspen = world["eken"], world["aspen"]
    request = make_request(eken.keys, NodeRole.PHARMACY, STOCKHOLM, "eken")
    shelf.add(
        "request_good", "request", "A node asks to be enrolled.", "R14", {"request": encode_request(request)}
    )
    forged = msgspec.structs.replace(request, public_key=aspen.keys.public_key)
    shelf.add(
        "request_for_a_key_of_another",
        "request",
        "Somebody asks for a certificate for another node's key.",
        "R14",
        {"request": encode_request(forged)},
        error="not-authentic",
    )
    upgraded = msgspec.structs.replace(request, role=NodeRole.AGENCY)
    shelf.add(
        "request_role_changed",
        "request",
        "The role was changed on the way.",
        "R14",
        {"request": encode_request(upgraded)},
        error="not-authentic",
    )
    package = make_package(
        world.realm, eken.chain, eken.certified, world.issuing.signing,
        district_keys=[DistrictKey(STOCKHOLM, 1, world.district_keys[STOCKHOLM, 1])],
        index_keys={STOCKHOLM: world.index_keys[STOCKHOLM]}, entropy=entropy,
    )  # fmt: skip
    data = encode_package(package)
    shelf.add(
        "package_good",
        "package",
        "An enrolment package opened by the node it was made for.",
        "R12",
        {"node": "eken", "package": data},
    )
    other = World(b"another realm")
    theirs = make_package(
        other.realm, other["eken"].chain, other["eken"].certified, other.issuing.signing, district_keys=[],
        index_keys={}, entropy=other.entropy,
    )  # fmt: skip
    for name, title, node, changed, error in (
        ("package_for_another_node", "Opened by another node.", "aspen", package, "not-authentic"),
        ("package_other_realm", "Of another realm.", "eken", theirs, "other-realm"),
        ("package_newer_version", "Version 2.", "eken", msgspec.structs.replace(package, version=2), "version-unknown"),
        ("package_bundle_added", "Something was added after it was signed.", "eken", msgspec.structs.replace(package, bundle=b"more"), "not-authentic"),
        ("package_key_moved", "A wrapped key was moved to another epoch, and the package signed anew.", "eken", _moved(package, world), "not-authentic"),
        ("package_two_keys_one_epoch", "Two keys for one epoch.", "eken", _doubled(package, world), "malformed"),
    ):  # fmt: skip
        shelf.add(
            name, "package", title, "R12 R14", {"node": node, "package": encode_package(changed)}, error=error
        )
    wrapped = wrap_key(eken.keys.wrapping_key, bytes(range(32)), b"context", entropy)
    shelf.add(
        "wrapped_key",
        "unwrap",
        "A key wrapped to one node.",
        "R12",
        {"node": "eken", "wrapped": wrapped, "context": b"context"},
        says={"key": bytes(range(32)).hex()},
    )
    for name, title, node, sealed, context in (
        ("wrapped_key_other_node", "Unwrapped by another node.", "aspen", wrapped, b"context"),
        ("wrapped_key_other_context", "Taken for another purpose.", "eken", wrapped, b"other"),
        ("wrapped_key_flipped", "One bit of the tag is another.", "eken", wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"context"),
        ("wrapped_key_low_order", "A low-order ephemeral key.", "eken", bytes(32) + wrapped[32:], b"context"),
    ):  # fmt: skip
        shelf.add(
            name,
            "unwrap",
            title,
            "R12",
            {"node": node, "wrapped": sealed, "context": context},
            error="not-authentic",
        )


def _moved(package: EnrolmentPackage, world: World) -> EnrolmentPackage:
    first, *rest = package.keys
    return _resigned(
        msgspec.structs.replace(package, keys=(msgspec.structs.replace(first, epoch=2), *rest)), world
    )


def _doubled(package: EnrolmentPackage, world: World) -> EnrolmentPackage:
    return _resigned(msgspec.structs.replace(package, keys=(package.keys[0], *package.keys)), world)


def _resigned(package: EnrolmentPackage, world: World) -> EnrolmentPackage:
    body = b"rxledger/1 sign enrolment package\0" + msgspec.msgpack.encode(
        (package.version, package.root_certificate, package.certificates, package.keys, package.bundle)
    )
    return msgspec.structs.replace(package, signature=world.issuing.signing.sign(body))
