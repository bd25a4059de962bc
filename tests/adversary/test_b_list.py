"""What malicious peers with valid certificates try, against real nodes: faults B1–B11 and B13, and the replication list.

Two nodes take everything in, in opposite orders and twice, unless a test says otherwise; they must end alike (R4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import Coded, Ledger, Level, Person, PersonRole
from ledger import events as e
from ledger.clock import DRIFT_MAX_MS, STAMP_MAX, stamp_ms
from ledger.codec import encode_content
from ledger.custody import sign_bearer
from ledger.errors import LimitExceeded, Malformed, NotAuthentic, OtherRealm, PeerFault, VersionUnknown
from ledger.events import Basis, decode_event, encode_event
from ledger.exchange import FEEDS_PER_NODE_AND_DISTRICT_MAX
from ledger.feed import (
    RUN_ENTRIES_MAX,
    Entry,
    ForkProof,
    Run,
    SignedOpening,
    check_fork_proof,
    sign_opening,
    verify_link,
)
from ledger.identity import is_expired, verify_chain
from ledger.ids import GOVERNANCE, DocumentId, Link
from ledger.store.runs import DETACHED_PER_FEED_MAX
from nodes.bundle import export_bundle, import_bundle
from nodes.inprocess import synchronise
from nodes.messages import decode_message
from nodes.reconciliation import Session
from scripts.vectors.craft import NOW_MS, STOCKHOLM, UPPSALA, Feed, World, message, right
from scripts.vectors.forging import forged_chain
from scripts.vectors.judge import described, open_reader, take
from scripts.vectors.shelf import realm_of
from scripts.vectors.stage import Stage

CUSTODY, BEARER, EMERGENCY = Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY
OFFICER = Person(Coded("urn:rxledger:test", "1"), PersonRole.OFFICER)
ORDER_OF_ED25519 = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


@pytest.fixture
def nodes(world: World, tmp_path: Path) -> Iterator[list[Ledger]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_reader(tmp_path / str(n), realm_of(world))) for n in range(2)]


def alike(nodes: Sequence[Ledger], messages: Sequence[bytes]) -> dict[str, object]:
    """Both take everything, in opposite orders and twice; what both then say."""
    for node, order in zip(nodes, (messages, messages[::-1]), strict=True):
        for data in (*order, *order):
            take(node, data)
    first, second = (described(node) for node in nodes)
    assert first == second
    for node in nodes:
        assert sum(1 for _ in node.inquiry.verify()) == node_entries(node)
    return first


def node_entries(node: Ledger) -> int:
    return sum(1 for _ in node.node.store.arrivals(0, 1 << 20))


def anomalies(found: dict[str, object], document: DocumentId) -> list[str]:
    return [a["kind"] for a in found["documents"][document.hex()]["anomalies"]]


def against(found: dict[str, object], link: Link) -> list[str]:
    return [
        a["detail"] if a["kind"] == "void_event" else a["kind"]
        for state in found["documents"].values()
        for a in state["anomalies"]
        if link.hex() in a["involved"]
    ]


# --- B1, B2 -----------------------------------------------------------------------------------------------------------


def test_b1_an_entry_signed_by_another_than_the_feeds_author_is_not_kept(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    alike(nodes, stage.messages())
    before = described(nodes[0])
    supply = stage.world.supply(stage.eken, 1, CUSTODY, issued)
    stage.eken.append(document, supply, [issued], signed_by=stage.world["bjorken"])
    assert take(nodes[0], message(stage.eken)) == ["not-authentic"]
    assert described(nodes[0]) == before


def test_b1_an_opening_in_anothers_name_is_not_kept(stage: Stage, nodes: list[Ledger]) -> None:
    forged = sign_opening(stage.eken.opening.opening(), stage.world["bjorken"].keys.signing)
    with pytest.raises(NotAuthentic):
        nodes[0].exchange.import_openings([forged])
    assert nodes[0].node.store.feed(stage.eken.id) is None


def test_b2_acts_out_of_role_and_out_of_scope_have_no_effect_and_are_named(
    stage: Stage, nodes: list[Ledger]
) -> None:
    world = stage.world
    document, issued = stage.issue()
    relay = world.feed("relay")
    cancelled = stage.act(e.PrescriptionCancelled, relay, document, (issued,), reason=3)
    issued_by_relay = world.issue(relay, holder=stage.eken)
    governing = world.feed("eken", GOVERNANCE)
    usurped = stage.govern(e.ReadinessDeclared, governing, declared=Level.CRISIS)
    found = alike(nodes, [*stage.messages(relay, governing)])
    assert found["documents"][document.hex()]["status"] == "active"
    assert against(found, cancelled)
    assert found["documents"][issued_by_relay[0].hex()]["status"] == "unknown"
    view = nodes[0].node.reader.governance()
    assert usurped in view.refused
    assert view.level(STOCKHOLM) is Level.NORMAL


# --- B3 and the replication list's 1, 2, 12, 13 ---------------------------------------------------------------------------


def test_b3_equivocation_to_different_peers_gets_one_verdict_and_a_proof_for_anyone_and_stops_nothing_else(
    stage: Stage, nodes: list[Ledger], tmp_path: Path
) -> None:
    world = stage.world
    document, issued = stage.issue()
    for node in nodes:
        for data in stage.messages():
            take(node, data)
    twin = stage.eken.branch(1)
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    stage.act(e.CustodyTransferred, twin, document, (issued,), fills=(right(1, issued),), to=stage.bjorken.id)
    take(nodes[0], message(stage.eken))
    take(nodes[1], message(twin))
    synchronise(nodes[0].exchange, nodes[1].exchange)
    assert described(nodes[0]) == described(nodes[1])
    for node in nodes:
        assert node.node.store.forks(STOCKHOLM)
        (proof,) = node.exchange.fork_proofs()
        # A third party needs the author's public key, and nothing of ours.
        assert check_fork_proof(world.realm.id, proof, world["eken"].certified.public_key) == 1
    later, _ = world.issue(stage.doctor, holder=stage.bjorken)
    take(nodes[0], message(stage.doctor))
    assert synchronise(nodes[0].exchange, nodes[1].exchange) == 1
    assert nodes[1].show(later).prescription.issued is not None
    with open_reader(tmp_path / "third", realm_of(world)) as third:
        synchronise(third.exchange, nodes[1].exchange)
        assert described(third) == described(nodes[0])
        assert third.exchange.fork_proofs()


def test_b3_a_fork_before_or_after_what_rests_on_it_gives_the_same(stage: Stage, nodes: list[Ledger]) -> None:
    document, issued = stage.issue()
    twin = stage.eken.branch(1)
    moved = stage.act(
        e.CustodyTransferred, stage.eken, document, (issued,), fills=(right(1, issued),), to=stage.bjorken.id
    )
    stage.supply(stage.bjorken, document, 1, CUSTODY, moved)
    stage.supply(twin, document, 1, CUSTODY, issued)
    found = alike(nodes, [*stage.messages(), message(twin)])
    assert "double_dispensing" in anomalies(found, document)
    assert found["documents"][document.hex()]["balance"]["over_supply"] == 100


def test_b3_a_proof_that_proves_nothing_is_refused(stage: Stage, nodes: list[Ledger]) -> None:
    document, issued = stage.issue()
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    stage.supply(stage.eken, document, 2, CUSTODY, issued)
    take(nodes[0], message(stage.doctor, stage.eken))
    before = described(nodes[0])
    for left, right_ in (
        (stage.eken.run(1, 1), stage.eken.run(1, 1)),
        (stage.eken.run(1, 1), stage.eken.run(2, 2)),
        (stage.eken.run(1, 1), stage.doctor.run(1, 1)),
    ):
        with pytest.raises(NotAuthentic):
            nodes[0].exchange.import_fork_proof(ForkProof(left, right_))
    assert described(nodes[0]) == before
    assert not nodes[0].exchange.fork_proofs()


def test_h12_copies_of_a_paper_and_a_holder_that_spends_what_it_gave_away_are_found_alike(
    stage: Stage, nodes: list[Ledger]
) -> None:
    seed = hashlib.sha256(b"seed").digest()
    document, issued = stage.issue(holder=None, seeds={1: seed, 2: seed[::-1]})
    for feed in (stage.eken, stage.bjorken):
        signature = sign_bearer(seed, document, 1, feed.id)
        stage.supply(feed, document, 1, BEARER, issued, bearer_signature=signature)
    other, second = stage.issue()
    stage.act(
        e.CustodyTransferred, stage.eken, other, (second,), fills=(right(1, second),), to=stage.bjorken.id
    )
    greedy = stage.supply(stage.eken, other, 1, CUSTODY, second)
    found = alike(nodes, stage.messages())
    assert "double_dispensing" in anomalies(found, document)
    assert against(found, greedy)


def test_h13_more_supplied_than_authorised_leaves_nothing_and_drops_no_event(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue(fills=1)
    supplies = [
        stage.supply(stage.eken, document, 1, CUSTODY, issued),
        stage.supply(stage.bjorken, document, 1, EMERGENCY, None, parents=(issued,)),
    ]
    found = alike(nodes, stage.messages())["documents"][document.hex()]
    assert found["balance"]["remaining"] == 0
    assert found["balance"]["over_supply"] == 100
    assert {s["event"] for s in found["supplies"]} == {link.hex() for link in supplies}


# --- B4, B5 -----------------------------------------------------------------------------------------------------------


def test_b4_a_withheld_predecessor_leaves_a_gap_that_closes_when_it_comes(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    last = stage.supply(stage.eken, document, 2, CUSTODY, issued)
    take(nodes[0], message(stage.doctor))
    assert take(nodes[0], message(stage.eken, runs=[stage.eken.run(2)])) == ["gap"]
    assert nodes[0].node.store.by_link(last) is None
    assert take(nodes[0], message(stage.eken, runs=[stage.eken.run(1, 1)])) == []
    assert take(nodes[0], message(stage.eken, runs=[stage.eken.run(2)])) == []
    take(nodes[1], message(stage.doctor, stage.eken))
    assert described(nodes[0]) == described(nodes[1])


def test_b4_an_event_whose_ground_is_withheld_waits_and_says_what_is_missing(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    moved = stage.act(
        e.CustodyTransferred, stage.eken, document, (issued,), fills=(right(1, issued),), to=stage.bjorken.id
    )
    stage.supply(stage.bjorken, document, 1, CUSTODY, moved)
    take(nodes[0], message(stage.doctor, stage.bjorken))
    state = nodes[0].node.reader.state(document)
    assert state is not None
    assert moved in state.prescription.missing
    take(nodes[0], message(stage.eken))
    state = nodes[0].node.reader.state(document)
    assert state is not None
    assert not state.prescription.missing


@pytest.mark.parametrize("stamp", [0, NOW_MS << 16, STAMP_MAX])
def test_b5_no_stamp_drags_a_clock_along_or_decides_anything(
    stage: Stage, nodes: list[Ledger], stamp: int
) -> None:
    document, issued = stage.issue()
    supply = stage.world.supply(stage.eken, 1, CUSTODY, issued)
    stage.eken.append(document, supply, [issued], stamp=stamp)
    found = alike(nodes, stage.messages())
    assert found["documents"][document.hex()]["balance"]["dispensed"] == 100
    receipt = nodes[0].stewardship.declare(Level.STRAINED, person=OFFICER)
    written = nodes[0].node.store.by_link(receipt.link)
    assert written is not None
    assert stamp_ms(written.stamp) <= nodes[0].node.now_ms() + DRIFT_MAX_MS


def test_h4_sequence_numbers_out_of_bounds_are_refused_as_they_are_decoded(stage: Stage) -> None:
    document, issued = stage.issue()
    for sequence in (0, 1 << 53, (1 << 64) - 1):
        feed = stage.world.feed("eken")
        feed.append(document, stage.world.supply(feed, 1, CUSTODY, issued), [issued], sequence=sequence)
        with pytest.raises(Malformed):
            decode_message(message(feed))


@pytest.mark.parametrize("sequence", [2, 1 << 32, (1 << 53) - 1])
def test_h4_sequence_numbers_that_skip_join_nothing(stage: Stage, nodes: list[Ledger], sequence: int) -> None:
    document, issued = stage.issue()
    stage.eken.append(
        document, stage.world.supply(stage.eken, 1, CUSTODY, issued), [issued], sequence=sequence
    )
    assert take(nodes[0], message(stage.eken)) == ["gap"]
    assert node_entries(nodes[0]) == 0


# --- B6 ---------------------------------------------------------------------------------------------------------------


def test_b6_sealed_bytes_replayed_elsewhere_are_void_there(stage: Stage, nodes: list[Ledger]) -> None:
    first, issued = stage.issue()
    second, also = stage.issue()
    supply = stage.supply(stage.eken, first, 1, CUSTODY, issued)
    sealed = stage.eken.entries[-1].sealed
    elsewhere = stage.eken.append(second, b"", [also], sealed=sealed)
    anothers = stage.bjorken.append(first, b"", [issued], sealed=sealed)
    found = alike(nodes, stage.messages())
    assert not against(found, supply)
    for link in (elsewhere, anothers):
        assert against(found, link) == ["sealed-badly"]
    for document, units in ((first, 100), (second, 0)):
        assert found["documents"][document.hex()]["balance"]["dispensed"] == units


def test_b6_nothing_of_another_realm_is_kept(nodes: list[Ledger]) -> None:
    other = Stage(World(b"another realm"))
    other.issue()
    with pytest.raises(OtherRealm):
        nodes[0].exchange.import_openings([other.doctor.opening])
    for data in other.messages():
        Session(nodes[0].exchange).receive(data)
    assert node_entries(nodes[0]) == 0
    assert not nodes[0].node.store.feeds()


def test_b6_an_entry_moved_to_another_feed_or_place_does_not_verify(
    stage: Stage, nodes: list[Ledger]
) -> None:
    stage.issue()
    stage.issue()
    run = stage.doctor.run(1, 1)
    take(nodes[0], message(stage.doctor, stage.eken, runs=[]))
    for moved in (
        Run(stage.eken.id, stage.eken.genesis, run.entries),
        Run(run.feed, bytes(32), run.entries),
        Run(run.feed, run.previous, (msgspec.structs.replace(run.entries[0], document=bytes(16)),)),
        Run(run.feed, run.previous, (msgspec.structs.replace(run.entries[0], lane=0),)),
        Run(run.feed, run.previous, (msgspec.structs.replace(run.entries[0], stamp=5),)),
    ):
        report = nodes[0].exchange.import_runs([moved])
        assert [code for _, code in report.refused] == ["not-authentic"]
    assert node_entries(nodes[0]) == 0


# --- B7 ---------------------------------------------------------------------------------------------------------------


def _revoke(stage: Stage, name: str, *good: tuple[Feed, int]) -> None:
    stage.govern(
        e.NodeRevoked,
        node=stage.world[name].certified.node,
        good=tuple(e.FeedEnd(feed.id, upto, feed.links[upto - 1]) for feed, upto in good),
        reason="stulen",
    )


def test_b7_h11_what_a_revoked_node_writes_later_has_no_authority_whenever_the_revocation_arrives(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    good = stage.act(
        e.CustodyTransferred, stage.eken, document, (issued,), fills=(right(1, issued),), to=stage.bjorken.id
    )
    _revoke(stage, "eken", (stage.eken, 1))
    # Backdated, as if it had been written before.
    supply = stage.world.supply(stage.eken, 2, CUSTODY, issued)
    late = stage.eken.append(document, supply, [issued], stamp=1)
    stage.supply(stage.bjorken, document, 1, CUSTODY, good)
    found = alike(nodes, stage.messages())
    assert not against(found, good)
    assert against(found, late)
    assert found["documents"][document.hex()]["fills"][0]["status"] == "dispensed"


def test_b7_two_agency_nodes_that_revoke_each_other_leave_one_view_everywhere(
    stage: Stage, nodes: list[Ledger]
) -> None:
    world = stage.world
    other = world.feed("reader", GOVERNANCE)
    _revoke(stage, "reader")
    stage.govern(e.NodeRevoked, other, node=world["agency"].certified.node, good=(), reason="stulen")
    stage.govern(e.ReadinessDeclared, declared=Level.CRISIS)
    stage.govern(e.ReadinessDeclared, other, declared=Level.STRAINED)
    alike(nodes, stage.messages(other))
    views = [node.node.reader.governance() for node in nodes]
    assert views[0] == views[1]
    assert any(views[0].revocation(world[name].certified.node) for name in ("agency", "reader"))


# --- B8 ---------------------------------------------------------------------------------------------------------------


def test_b8_certificates_of_another_issuer_or_another_use_open_no_feed(
    stage: Stage, nodes: list[Ledger]
) -> None:
    world = stage.world
    opening = stage.eken.opening.opening()
    stranger = World(b"another realm")
    chains = [
        stranger["eken"].chain,
        (world["eken"].chain[0], *stranger["eken"].chain[1:]),
        world["eken"].chain[:1],
        world["eken"].chain[1:],
        forged_chain(world, world["linden"], "pharmacy", STOCKHOLM),
        forged_chain(world, world["authority"], "pharmacy", UPPSALA),
        forged_chain(world, world["authority"], "agency", ""),
    ]
    for chain in chains:
        for signer in ("eken", "linden"):
            forged = sign_opening(
                msgspec.structs.replace(opening, certificates=chain), world[signer].keys.signing
            )
            with pytest.raises(PeerFault):
                nodes[0].exchange.import_openings([forged])
    assert not nodes[0].node.store.feeds()


def test_b8_an_expired_certificate_is_marked_and_goes_on_working(stage: Stage, nodes: list[Ledger]) -> None:
    certified = verify_chain(stage.world.realm, stage.world["eken"].chain)
    assert is_expired(certified, certified.not_after_ms + 1)
    assert is_expired(certified, certified.not_before_ms - 1)
    document, issued = stage.issue()
    supply = stage.world.supply(stage.eken, 1, CUSTODY, issued)
    stage.eken.append(document, supply, [issued], stamp=(certified.not_after_ms + 86_400_000) << 16)
    found = alike(nodes, stage.messages())
    assert found["documents"][document.hex()]["balance"]["dispensed"] == 100


# --- B9 ---------------------------------------------------------------------------------------------------------------

_HELD = encode_event(e.PrescriptionHeld(person=OFFICER, command=bytes(16)))


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"\x82\xa4type\xa1x\xa4type\xa1x", Malformed),
        (b"\x81\xa4type\xd9\x01x", Malformed),
        (b"\xde\x00\x01\xa4type\xa1x", Malformed),
        (b"\x82\xa1a" + b"\x91" * 3000 + b"\xc0\xa4type\xa1x", Malformed),
        (b"\x82\xa1a" + b"\x91" * 9 + b"\xc0\xa4type\xa1x", LimitExceeded),
        (b"\x81\xa4type\xa1x" + b"\0", Malformed),
        (b"\x82\xa4type\xa1x\xa1y\xcb" + bytes(8), Malformed),
        (b"\x82\xa4type\xa1x\x01\x01", Malformed),
        (_HELD + bytes(16 * 1024), LimitExceeded),
        (_HELD[:-1], Malformed),
        (b"", Malformed),
    ],
)
def test_b9_events_not_in_their_one_form_are_refused(data: bytes, refused: type[PeerFault]) -> None:
    with pytest.raises(refused):
        decode_event(data)


def test_b9_an_event_of_a_kind_to_come_is_kept_and_named_and_stops_nothing(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    future = stage.eken.append(document, msgspec.msgpack.encode({"type": "FromTheFuture", "x": 1}), [issued])
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    found = alike(nodes, stage.messages())["documents"][document.hex()]
    assert found["not_understood"] == [future.hex()]
    assert found["balance"]["dispensed"] == 100


def test_b9_newer_messages_and_deep_openings_end_a_session_with_a_code(nodes: list[Ledger]) -> None:
    session = Session(nodes[0].exchange)
    with pytest.raises(VersionUnknown):
        decode_message(msgspec.msgpack.encode((2, [4])))
    deep = SignedOpening(b"\x98" + b"\x91" * 3000 + b"\xc0", bytes(64))
    for data in (msgspec.msgpack.encode((2, [4])), msgspec.msgpack.encode((1, [3, [], [deep], []]))):
        session.receive(data)
    assert session.problems == ["version-unknown", "malformed"]


def test_b9_a_deep_field_to_come_in_an_opening_ends_in_a_code(stage: Stage, nodes: list[Ledger]) -> None:
    body = stage.eken.opening.body
    deep = SignedOpening(bytes([body[0] + 1]) + body[1:] + b"\x91" * 3000 + b"\xc0", bytes(64))
    session = Session(nodes[0].exchange)
    session.receive(msgspec.msgpack.encode((1, [3, [], [deep], []])))
    assert session.problems == ["malformed"]


# --- B10 --------------------------------------------------------------------------------------------------------------


def test_b10_a_flood_of_feeds_is_cut_off_for_its_author_and_for_nobody_else(
    stage: Stage, nodes: list[Ledger]
) -> None:
    plain = stage.eken.opening.opening()
    key = stage.world["eken"].keys.signing
    flood = [
        sign_opening(msgspec.structs.replace(plain, nonce=n.to_bytes(16, "big")), key)
        for n in range(FEEDS_PER_NODE_AND_DISTRICT_MAX + 5)
    ]
    with pytest.raises(LimitExceeded):
        nodes[0].exchange.import_openings(flood)
    assert len(nodes[0].node.store.feeds(STOCKHOLM)) == FEEDS_PER_NODE_AND_DISTRICT_MAX
    assert nodes[0].exchange.import_openings([stage.bjorken.opening]) == 1


def test_b10_a_flood_of_entries_ahead_of_their_feed_is_cut_off(stage: Stage, nodes: list[Ledger]) -> None:
    document, _ = stage.issue()
    node = nodes[0]
    node.exchange.import_openings([stage.eken.opening, stage.bjorken.opening])
    for _ in range(DETACHED_PER_FEED_MAX + 2):
        stage.eken.append(document, b"x", sealed=b"x")
    places = [stage.eken.genesis, *stage.eken.links]
    pairs = list(zip(places, stage.eken.entries, strict=False))
    with node.node.lock, node.node.transaction():
        for previous, entry in pairs[2 : DETACHED_PER_FEED_MAX + 2]:
            node.exchange.import_detached(stage.eken.id, previous, entry)
    with pytest.raises(LimitExceeded):
        node.exchange.import_detached(stage.eken.id, *pairs[1])
    assert len(node.exchange.detached_links(STOCKHOLM)) == DETACHED_PER_FEED_MAX
    other = stage.bjorken
    other.append(document, b"x", sealed=b"x")
    assert node.exchange.import_detached(other.id, other.genesis, other.entries[0])


def test_b10_runs_of_unknown_feeds_and_runs_that_join_nothing_leave_nothing_behind(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    for fill in (1, 2, 1, 2):
        stage.supply(stage.eken, document, fill, CUSTODY, issued)
    assert take(nodes[0], message(stage.eken, runs=[])) == []
    orphan = stage.eken.run(3)
    for _ in range(50):
        report = nodes[0].exchange.import_runs([orphan, stage.doctor.run()])
        assert (report.new, len(report.gaps), len(report.refused)) == (0, 1, 1)
    assert node_entries(nodes[0]) == 0


def test_b10_more_tiny_entries_than_a_run_holds_are_refused_as_they_are_decoded(stage: Stage) -> None:
    entry = Entry(1, 0, bytes(16), 0, 0, bytes(16), b"")
    run = Run(stage.eken.id, bytes(32), (entry,) * (RUN_ENTRIES_MAX + 1))
    with pytest.raises(Malformed):
        decode_message(message(runs=[run]))


# --- B11, and the replication list's 5, 9, 14, 17, 18 -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01rubbish", b"\x01" * 4000])
def test_b11_h17_rubbish_in_a_valid_envelope_is_a_void_event_and_the_feed_goes_on(
    stage: Stage, nodes: list[Ledger], content: bytes
) -> None:
    document, issued = stage.issue()
    void = stage.eken.append(document, b"", [issued], content=content)
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    found = alike(nodes, stage.messages())
    (reason,) = against(found, void)
    assert reason.startswith("undecodable")
    assert found["documents"][document.hex()]["balance"]["dispensed"] == 100
    for node in nodes:
        assert document in set(node.inquiry.rebuild())


@pytest.mark.parametrize("content", [b"\x02", bytes(4000)])
def test_b11_content_of_a_format_to_come_is_ignorance_and_never_nothing(
    stage: Stage, nodes: list[Ledger], content: bytes
) -> None:
    document, issued = stage.issue()
    future = stage.eken.append(document, b"", [issued], content=content)
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    found = alike(nodes, stage.messages())["documents"][document.hex()]
    state = nodes[0].node.reader.state(document)
    assert state is not None
    assert state.unread or found["not_understood"] == [future.hex()]
    assert found["balance"]["dispensed"] == 100


def test_b11_content_of_another_document_or_no_day_of_the_calendar_is_void(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    event = encode_event(stage.world.supply(stage.eken, 1, CUSTODY, issued))
    swapped = stage.eken.append(document, b"", content=encode_content(DocumentId(b"\x11" * 16), [], event))
    bad_day, no_day = stage.issue(valid_until="2026-02-31")
    found = alike(nodes, stage.messages())
    assert against(found, swapped) == ["document-mismatch"]
    assert against(found, no_day) == ["no-such-day"]
    assert found["documents"][bad_day.hex()]["status"] == "unknown"


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(order=st.permutations(range(7)), again=st.lists(st.integers(0, 6), max_size=3))
def test_h14_any_order_and_repetition_of_the_same_messages_folds_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, world: World, order: list[int], again: list[int]
) -> None:
    s = Stage(world)
    document, issued = s.issue()
    twin = s.eken.branch(1)
    s.supply(s.eken, document, 1, CUSTODY, issued)
    s.supply(twin, document, 2, CUSTODY, issued)
    s.supply(s.bjorken, document, 1, EMERGENCY, None, parents=(issued,))
    s.act(e.PrescriptionCancelled, s.doctor, document, (issued,), reason=3)
    _revoke(s, "bjorken")
    messages = [*s.messages(), message(twin)]
    openings, rest = messages[0], [*messages, messages[2]][:7]
    wanted = _said(tmp_path_factory.mktemp("a"), world, messages)
    chosen = [rest[at % len(rest)] for at in (*order, *again)]
    assert _said(tmp_path_factory.mktemp("b"), world, [openings, *chosen]) == wanted


def _said(directory: Path, world: World, messages: Sequence[bytes]) -> dict[str, object]:
    with open_reader(directory, realm_of(world)) as node:
        for data in messages:
            assert not [code for code in take(node, data) if code != "gap"]
        return described(node)


def test_h18_bundles_twice_cut_short_and_in_any_order_end_in_the_same_store(
    stage: Stage, nodes: list[Ledger], tmp_path: Path
) -> None:
    document, issued = stage.issue()
    first = _bundle(nodes[0], stage.messages())
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    second = _bundle(nodes[0], [message(stage.eken)])
    cut = second[: len(second) * 2 // 3]
    for data in (cut, second, first, cut, first, second):
        import_bundle(nodes[1].exchange, BytesIO(data))
    assert described(nodes[0]) == described(nodes[1])


def _bundle(node: Ledger, messages: Sequence[bytes]) -> bytes:
    for data in messages:
        take(node, data)
    out = BytesIO()
    export_bundle(node.exchange, node.node.keys.signing, node.node.identity.certificates, out, now_ms=NOW_MS)
    return out.getvalue()


# --- B13 --------------------------------------------------------------------------------------------------------------


def _clamped(seed: bytes) -> int:
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


def _signed_again(feed: Feed, at: int) -> Entry:
    """The same entry with another valid signature: Ed25519 with a nonce of the author's choice."""
    signing, nonce = feed.member.keys, feed.world["linden"].keys.signing
    text = b"rxledger/1 sign link\0" + feed.links[at]
    point = nonce.public_key().public_bytes_raw()  # The nonce times the base point, without curve arithmetic.
    hashed = int.from_bytes(hashlib.sha512(point + signing.public_key + text).digest(), "little")
    scalar = _clamped(nonce.private_bytes_raw()) + hashed * _clamped(signing.signing.private_bytes_raw())
    signature = point + (scalar % ORDER_OF_ED25519).to_bytes(32, "little")
    verify_link(feed.links[at], signature, signing.public_key)
    assert signature != feed.entries[at].signature
    return msgspec.structs.replace(feed.entries[at], signature=signature)


def test_b13_a_second_valid_signature_of_the_same_entry_changes_nothing(
    stage: Stage, nodes: list[Ledger]
) -> None:
    document, issued = stage.issue()
    stage.supply(stage.eken, document, 1, CUSTODY, issued)
    again = Run(stage.eken.id, stage.eken.genesis, (_signed_again(stage.eken, 0),))
    for data in stage.messages():
        take(nodes[0], data)
    before, bundle = described(nodes[0]), _bundle(nodes[0], [])
    report = nodes[0].exchange.import_runs([again])
    assert (report.new, report.known, report.forks) == (0, 1, ())
    assert described(nodes[0]) == before
    assert _bundle(nodes[0], []) == bundle
    # Who meets the other signature first ends in the same state, and agrees with who did not.
    take(nodes[1], message(stage.doctor, stage.eken, stage.bjorken, stage.governance, runs=[again]))
    take(nodes[1], message(stage.doctor))
    assert described(nodes[1]) == before
    assert synchronise(nodes[0].exchange, nodes[1].exchange) == 0


def test_b13_a_malleable_signature_is_refused(stage: Stage, nodes: list[Ledger]) -> None:
    stage.issue()
    (entry,) = stage.doctor.entries
    assert entry.signature is not None
    scalar = int.from_bytes(entry.signature[32:], "little") + ORDER_OF_ED25519
    moved = msgspec.structs.replace(entry, signature=entry.signature[:32] + scalar.to_bytes(32, "little"))
    take(nodes[0], message(stage.doctor, runs=[]))
    report = nodes[0].exchange.import_runs([Run(stage.doctor.id, stage.doctor.genesis, (moved,))])
    assert [code for _, code in report.refused] == ["not-authentic"]
