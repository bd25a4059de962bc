"""Vectors of what must not hold: events that are void, breaches of custody, acts out of role, usurped governance.

The entries are authentic; what they claim is not true. Supplies count all the same (R9).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import msgspec

from ledger import SeededEntropy
from ledger import events as e
from ledger.codec import encode_content
from ledger.custody import sign_bearer
from ledger.events import Basis, encode_event
from ledger.feed import FormerFeed
from ledger.ids import GOVERNANCE, DocumentId, Link, document_id
from scripts.vectors.craft import ISSUED, STOCKHOLM, Feed, World, right
from scripts.vectors.shelf import Shelf
from scripts.vectors.stage import Stage, fold_vector, must_not
from scripts.vectors.values import frame

__all__ = ["mustnot"]

CUSTODY, BEARER, EMERGENCY = Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY
Act = Callable[[Stage, Feed, DocumentId, Link], Link]


def mustnot(shelf: Shelf, world: World) -> None:
    """Write them."""
    for write in (_void, _breaches, _supplied_wrongly, _roles, _governance):
        write(shelf, world)


def _void(shelf: Shelf, world: World) -> None:
    """Entries that their author signed, whose content cannot be believed."""

    def add(name: str, title: str, error: str, **how: object) -> None:
        s = Stage(world)
        document, issued = s.issue()
        event = world.act(e.PrescriptionCancelled, s.doctor, reason=3)
        given = {key: value(s, document, event) if callable(value) else value for key, value in how.items()}
        data = given.pop("event", event)
        link = s.doctor.append(document, data, [issued], **given)
        must_not(shelf, f"void_{name}", title, "R3 R15", s, link, error, status=["active"])

    pack = msgspec.msgpack.encode
    encoded = encode_event
    add(
        "document_swapped",
        "The document inside is another than in the header.",
        "document-mismatch",
        content=lambda s, d, x: encode_content(DocumentId(b"\x5f" * 16), [], encoded(x)),
    )
    add(
        "header_swapped",
        "Sealed under another header than it travels with, and signed.",
        "sealed-badly",
        sealed_under=lambda s, d, x: b"another header",
    )
    add("commitment_wrong", "The commitment is of another key.", "sealed-badly", commitment=bytes(16))
    add("tag_flipped", "One bit of the seal is another, and signed.", "sealed-badly", sealed=_sealed_badly)
    add(
        "replayed_from_another_feed",
        "Sealed bytes of another feed's entry, signed anew.",
        "sealed-badly",
        sealed=_sealed_elsewhere,
    )
    add(
        "replayed_from_another_document",
        "Sealed bytes of another document's entry, signed anew.",
        "sealed-badly",
        sealed=lambda s, d, x: _sealed_in_document(s, x),
    )
    add(
        "bomb",
        "Content that inflates to 64 MiB.",
        "undecodable-limit-exceeded",
        content=frame(bytes(64 << 20)),
    )
    add("not_zstandard", "Content that is no zstandard frame.", "undecodable-malformed", content=b"\x01plain")
    add(
        "event_not_canonical",
        "A floating-point number in the event.",
        "undecodable-malformed",
        content=lambda s, d, x: frame(pack([d, [], pack({**msgspec.msgpack.decode(encoded(x)), "x": 1.5})])),
    )
    add(
        "event_too_deep",
        "An event nested too deeply.",
        "undecodable-limit-exceeded",
        content=lambda s, d, x: frame(
            pack([d, [], pack({**msgspec.msgpack.decode(encoded(x)), "x": [[[[[[[[[1]]]]]]]]]})])
        ),
    )

    s = Stage(world)
    event = world.issuing_event(s.doctor, holder=s.eken)
    wrong = document_id(date.fromisoformat(ISSUED), b"something else")
    link = s.doctor.append(wrong, event)
    must_not(
        shelf,
        "void_document_id",
        "An issuing event in a document whose id is not its hash.",
        "R3",
        s,
        link,
        "id-mismatch",
        status=["unknown"],
    )
    s = Stage(world)
    event = world.issuing_event(s.doctor, holder=s.eken)
    real = document_id(date.fromisoformat(ISSUED), encode_event(event))
    moved = DocumentId((int.from_bytes(real[:2], "big") - 12).to_bytes(2, "big") + real[2:])
    link = s.doctor.append(moved, event)
    must_not(
        shelf,
        "void_document_month",
        "The month in the document's id is another than the event's: it would retire too early.",
        "R3",
        s,
        link,
        "id-mismatch",
        status=["unknown"],
    )
    s = Stage(world)
    event = world.issuing_event(s.doctor, holder=s.eken, issued="2026-02-30")
    link = s.doctor.append(document_id(date(2026, 2, 1), encode_event(event)), event)
    must_not(
        shelf, "void_no_such_day", "Issued on 30 February.", "R15", s, link, "no-such-day", status=["unknown"]
    )
    s = Stage(world)
    event = world.issuing_event(s.doctor, holder=s.eken, issued="9999-01-01")
    link = s.doctor.append(b"\x5f" * 16, event)
    must_not(
        shelf,
        "void_year_9999",
        "Issued in a year whose months no document id can hold.",
        "R15",
        s,
        link,
        "no-such-day",
        status=["unknown"],
    )
    s = Stage(world)
    document, _ = s.issue()
    other = s.issue()
    event = world.issuing_event(s.doctor, holder=s.bjorken)
    link = s.doctor.append(document, event, [other[1]])
    must_not(
        shelf,
        "void_second_issuing",
        "A second issuing event in a document: no one can found what is founded.",
        "R3",
        s,
        link,
        "id-mismatch",
    )


def _sealed_badly(s: Stage, document: DocumentId, event: e.Event) -> bytes:
    sealed = _spare(s, s.doctor.branch(len(s.doctor.entries) + 1), document, event)
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def _sealed_elsewhere(s: Stage, document: DocumentId, event: e.Event) -> bytes:
    return _spare(s, s.world.feed("prescriber", incarnation=9), document, event)


def _sealed_in_document(s: Stage, event: e.Event) -> bytes:
    return _spare(s, s.doctor.branch(len(s.doctor.entries) + 1), DocumentId(b"\x5f" * 16), event)


def _spare(s: Stage, feed: Feed, document: DocumentId, event: e.Event) -> bytes:
    feed.append(document, event)
    sealed = feed.entries[-1].sealed
    assert sealed is not None
    return sealed


def _breaches(shelf: Shelf, world: World) -> None:
    def add(
        name: str,
        title: str,
        s: Stage,
        link: Link,
        *more: Feed,
        error: str = "custody_breach",
        **says: object,
    ) -> None:
        must_not(shelf, name, title, "R7 R9", s, link, error, *more, **says)

    s = Stage(world)
    document, issued = s.issue()
    link = s.supply(s.bjorken, document, 1, CUSTODY, issued)
    add(
        "not_the_holder",
        "A pharmacy dispenses on custody that another feed holds; the supply counts.",
        s,
        link,
        dispensed=100,
    )
    s = Stage(world)
    document, issued = s.issue()
    s.act(e.CustodyTransferred, s.eken, document, (issued,), fills=(right(1, issued),), to=s.bjorken.id)
    link = s.supply(s.eken, document, 1, CUSTODY, issued)
    add("former_holder", "A holder dispenses what it has passed on.", s, link)
    s = Stage(world)
    document, issued = s.issue()
    linden = world.feed("linden")
    s.act(e.CustodyTransferred, s.eken, document, (issued,), fills=(right(1, issued),), to=s.bjorken.id)
    link = s.act(e.CustodyTransferred, s.eken, document, (issued,), fills=(right(1, issued),), to=linden.id)
    add("passed_on_twice", "One fill is passed on to two feeds.", s, link, linden)
    s = Stage(world)
    document, issued = s.issue()
    link = s.act(
        e.CustodyTransferred, s.bjorken, document, (issued,), fills=(right(2, issued),), to=s.bjorken.id
    )
    add(
        "helps_itself",
        "A feed passes another's fill to itself: it gets nothing.",
        s,
        link,
        fills=["in-custody", "in-custody"],
    )
    s.supply(s.eken, document, 2, CUSTODY, issued, parents=(link,))
    fold_vector(
        shelf,
        "holder_after_theft",
        "What somebody without right passed on is still its holder's, who dispenses without blame.",
        "R7",
        s,
        dispensed=100,
        anomalies=["custody_breach"],
        fills=["in-custody", "dispensed"],
    )
    s = Stage(world)
    document, issued = s.issue()
    again = world.feed("eken", incarnation=2, former=[FormerFeed(s.eken.id, 0, s.eken.genesis)])
    link = s.supply(again, document, 1, CUSTODY, issued)
    add("next_incarnation", "A node's next incarnation inherits no custody.", s, link, again)
    s = Stage(world)
    document, issued = s.issue()
    agency = world.feed("agency", STOCKHOLM)
    recovered = s.act(e.CustodyRecovered, agency, document, (issued,), fills=(1,), reason="brand")
    link = s.supply(s.eken, document, 1, CUSTODY, issued, parents=(recovered,))
    add(
        "after_recovery",
        "A holder dispenses although it knew that its custody had been recovered.",
        s,
        link,
        agency,
    )
    s = Stage(world)
    document, issued = s.issue()
    held = s.act(e.PrescriptionHeld, s.doctor, document, (issued,))
    link = s.supply(s.eken, document, 1, CUSTODY, held)
    add("rests_on_nothing", "A supply that rests on an act which grants no custody.", s, link)


def _supplied_wrongly(shelf: Shelf, world: World) -> None:
    def add(
        name: str, title: str, s: Stage, link: Link, *, error: str = "custody_breach", **says: object
    ) -> None:
        must_not(shelf, name, title, "R7 R9", s, link, error, **says)

    seeds = {fill: SeededEntropy(fill).bytes(32) for fill in (1, 2)}
    for name, title, signature in (
        ("bearer_other_key", "Signed with another fill's key.", lambda s, d: sign_bearer(seeds[2], d, 1, s.eken.id)),
        ("bearer_other_feed", "A signature made for another pharmacy's feed.", lambda s, d: sign_bearer(seeds[1], d, 1, s.bjorken.id)),
        ("bearer_other_document", "A signature made for another prescription.", lambda s, d: sign_bearer(seeds[1], b"\x5f" * 16, 1, s.eken.id)),
        ("bearer_unsigned", "No signature at all.", lambda s, d: None),
    ):  # fmt: skip
        s = Stage(world)
        document, issued = s.issue(holder=None, seeds=seeds)
        link = s.supply(s.eken, document, 1, BEARER, issued, bearer_signature=signature(s, document))
        add(name, f"Bearer proof: {title[0].lower()}{title[1:]}", s, link, dispensed=100)

    s = Stage(world)
    document, issued = s.issue()
    link = s.supply(s.eken, document, 1, CUSTODY, issued, quantity=101)
    add("over_quantity", "One unit more than a fill holds.", s, link, error="over_quantity", over_supply=1)
    s = Stage(world)
    document, issued = s.issue()
    link = s.supply(s.eken, document, 3, EMERGENCY, None, parents=(issued,))
    add("fill_beyond_last", "The third of two fills.", s, link, error="over_quantity", over_supply=100)
    s = Stage(world)
    document, issued = s.issue(valid_until="2026-11-23")
    link = s.supply(s.eken, document, 1, CUSTODY, issued)
    add("expired", "Supplied after the last day.", s, link, error="supplied_after_expiry")
    s = Stage(world)
    document, issued = s.issue()
    cancelled = s.act(e.PrescriptionCancelled, s.doctor, document, (issued,))
    link = s.supply(s.eken, document, 1, CUSTODY, issued, parents=(cancelled,))
    add(
        "cancelled_knowingly",
        "Supplied although the cancellation was known.",
        s,
        link,
        error="supplied_after_cancellation",
    )


def _roles(shelf: Shelf, world: World) -> None:
    def add(name: str, title: str, author: str, event_of, **says: object) -> None:  # noqa: ANN001
        s = Stage(world)
        document, issued = s.issue()
        feed = world.feed(author, incarnation=2)
        link = event_of(s, feed, document, issued)
        must_not(shelf, f"role_{name}", title, "R14", s, link, "out_of_role", feed, **says)

    def other(kind: type[e.Event], **fields: object):  # noqa: ANN202
        return lambda s, feed, document, issued: s.act(kind, feed, document, (issued,), **fields)

    def issue(s: Stage, feed: Feed, document: DocumentId, issued: Link) -> Link:
        return world.issue(feed, holder=feed)[1]

    def supply(s: Stage, feed: Feed, document: DocumentId, issued: Link) -> Link:
        return s.supply(feed, document, 1, EMERGENCY, None, parents=(issued,))

    add(
        "relay_cancels",
        "A relay writes nothing, even with a good certificate.",
        "relay",
        other(e.PrescriptionCancelled),
        status=["active"],
    )
    add(
        "relay_transfers",
        "A relay passes custody on.",
        "relay",
        lambda s, f, d, i: s.act(e.CustodyTransferred, f, d, (i,), fills=(right(1, i),), to=f.id),
        fills=["in-custody", "in-custody"],
    )
    add(
        "pharmacy_issues",
        "A pharmacy issues without paper or telephone.",
        "bjorken",
        issue,
        status=["active", "unknown"],
    )
    add(
        "pharmacy_cancels",
        "A pharmacy cancels a prescription.",
        "bjorken",
        other(e.PrescriptionCancelled),
        status=["active"],
    )
    add(
        "pharmacy_amends",
        "A pharmacy changes the dosage.",
        "bjorken",
        other(e.PrescriptionAmended, dosage="10 tabletter"),
        dosage=["1 tablett dagligen"],
    )
    add(
        "pharmacy_recovers",
        "A pharmacy recovers custody.",
        "bjorken",
        other(e.CustodyRecovered, fills=(1,), reason="brand"),
        fills=["in-custody", "in-custody"],
    )
    add(
        "prescriber_dispenses",
        "A prescriber's node dispenses: out of its role, and a physical fact.",
        "prescriber",
        supply,
        dispensed=100,
    )
    add("authority_issues", "A district authority issues.", "authority", issue)
    add(
        "governance_event_in_document",
        "A revocation written into a prescription's document.",
        "bjorken",
        other(e.NodeRevoked, node=bytes(16)),
    )

    s = Stage(world)
    paper = world.issuing_event(s.bjorken, holder=s.bjorken, origin=e.Origin.PAPER)
    s.bjorken.append(document_id(date.fromisoformat(ISSUED), encode_event(paper)), paper)
    fold_vector(
        shelf,
        "pharmacy_registers_paper",
        "A pharmacy registers a prescription from paper.",
        "R14",
        s,
        status=["active"],
        anomalies=[],
    )


def _governance(shelf: Shelf, world: World) -> None:
    def add(
        name: str,
        title: str,
        s: Stage,
        *more: Feed,
        error: str = "",
        event: Link | None = None,
        node: str = "eken",
        **says: object,
    ) -> None:
        inputs = {
            "messages": s.messages(*more),
            "district": STOCKHOLM,
            "node": bytes(world[node].certified.node),
        }
        if event is not None:
            inputs["event"] = event.hex()
        shelf.add(f"governance_{name}", "governance", title, "R14", inputs, error=error, says=says)

    s = Stage(world)
    s.govern(e.ReadinessDeclared, declared=e.Level.CRISIS, districts=(STOCKHOLM,))
    s.govern(e.NodeRevoked, node=world["eken"].certified.node, reason="stulen dator")
    add("in_force", "A level for one district, and a revocation.", s, level="crisis", revoked=True)
    s.govern(e.ReadinessDeclared, declared=e.Level.STRAINED)
    add("level_for_all", "A later level for all districts replaces the one for one.", s, level="strained")
    twin = s.governance.branch(3)
    s.govern(e.ReadinessDeclared, twin, declared=e.Level.NORMAL)
    add(
        "forked",
        "The chain is forked: what was in force before the fork stays.",
        s,
        twin,
        level="crisis",
        revoked=True,
    )
    s.govern(e.NodeRevoked, twin, node=world["bjorken"].certified.node)
    add("forked_revocation", "Revocations of every branch apply.", s, twin, node="bjorken", revoked=True)
    for role in ("bjorken", "authority", "relay"):
        s = Stage(world)
        usurper = world.feed(role, GOVERNANCE)
        link = s.govern(e.NodeRevoked, usurper, node=world["eken"].certified.node)
        add(
            f"by_{role}",
            "Governance is the agency's: an event of another role is listed, without effect.",
            s,
            usurper,
            error="refused",
            event=link,
        )
