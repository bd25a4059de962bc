"""Nodes among peers, in virtual time: what is promised of links that lose, repeat, reorder and end (R4, R6, R7, R15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.world import DISTRICT, OFFICER, PHARMACIST, PHARMACY, PRESCRIBER, SmallRealm, order
from ledger import Ledger, NodeRole, Supply, Verdict
from ledger.ids import GOVERNANCE
from nodes.acquaintances import PeeringSettings
from nodes.lines import Outgoing
from nodes.messages import ClaimTold
from nodes.requests import Told
from nodes.rounds import AT_ONCE_AGAIN_MS
from nodes.wire import Kind, decode_live, encode_live
from tests.nodes.net_for_tests import Net, VirtualClock, in_step

BOTH = [GOVERNANCE, DISTRICT]


class Small:
    """The small realm on one hub."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.realm = SmallRealm(directory, clock=self.clock)
        self.net = Net(self.clock)
        self.agency, self.prescriber, self.pharmacy = (
            self.realm.agency, self.realm.prescriber, self.realm.pharmacy,
        )  # fmt: skip
        self.agency.node.own_feed(DISTRICT)
        self.realm.replicate()

    def prescribe(self, count: int, *, holder: Ledger | None = None) -> list[bytes]:
        held = (holder or self.pharmacy).node.identity.node
        return [
            self.prescriber.prescribe(order(n % 4, holder=held), person=PRESCRIBER).document
            for n in range(count)
        ]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path)
    yield made
    made.realm.close()


def test_what_was_written_apart_is_everywhere_soon_after_the_link_comes_up(small: Small) -> None:
    small.prescribe(20)
    for name in ("agency", "prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    took = small.net.run_until(
        lambda: in_step(small.agency, small.prescriber, small.pharmacy, districts=BOTH), 30_000
    )
    assert took < 15_000


def test_a_new_entry_is_there_a_moment_later_without_a_round(small: Small) -> None:
    a, b = (small.net.join(name, getattr(small, name)) for name in ("prescriber", "pharmacy"))
    small.net.run(20_000)
    rounds = a.peering.peers.peers[b.node].rounds + b.peering.peers.peers[a.node].rounds
    small.prescribe(1)
    took = small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, districts=BOTH), 1_000)
    assert took <= 2 * small.net.latency_ms
    assert a.peering.peers.peers[b.node].rounds + b.peering.peers.peers[a.node].rounds == rounds


@pytest.mark.parametrize("seed", range(4))
def test_links_that_lose_repeat_and_reorder_only_cost_time(small: Small, seed: int) -> None:
    small.net.random.seed(seed)
    small.net.drop, small.net.repeat, small.net.swap = 0.25, 0.25, True
    for name in ("agency", "prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    for document in small.prescribe(10):
        small.net.run(200)
        if small.pharmacy.node.reader.state(document) is not None:
            small.pharmacy.dispense(
                document, Supply(fill=1, quantity=100, pharmacy=PHARMACY), person=PHARMACIST
            )
    small.net.run_until(
        lambda: in_step(small.agency, small.prescriber, small.pharmacy, districts=BOTH), 300_000
    )


def test_a_cut_in_the_midst_goes_on_where_it_broke_off(small: Small) -> None:
    small.prescribe(300)
    settings = PeeringSettings(sign_ms=5_000, idle_ms=10_000, give_up_ms=5_000, budget_bytes=1 << 20)
    small.net.latency_ms = 50
    a = small.net.join("prescriber", small.prescriber, settings=settings)
    b = small.net.join("pharmacy", small.pharmacy, settings=settings)
    feed = small.prescriber.node.own_feed(DISTRICT)

    def held() -> int:
        heads = small.pharmacy.exchange.frontier_of(feed)
        return heads[-1][0] if heads else 0

    before = held()
    small.net.run_until(lambda: held() > before + 20, 60_000)
    half = held()
    small.net.cuts.add(frozenset((a.name, b.name)))
    small.net.run(30_000)
    assert half <= held() < 300
    small.net.cuts.clear()
    small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, districts=BOTH), 60_000)


def test_two_in_step_spend_at_most_300_bytes_a_round_both_ways(small: Small) -> None:
    small.prescribe(50)
    quiet = PeeringSettings(sign_ms=10**9, idle_ms=10_000, give_up_ms=5_000)
    a = small.net.join("prescriber", small.prescriber, settings=quiet)
    b = small.net.join("pharmacy", small.pharmacy, settings=quiet)
    small.net.run(20_000)
    before = a.sent_bytes + a.got_bytes
    rounds = a.peering.peers.peers[b.node].rounds + b.peering.peers.peers[a.node].rounds
    small.net.run(100_000)
    made = a.peering.peers.peers[b.node].rounds + b.peering.peers.peers[a.node].rounds - rounds
    assert made >= 5
    assert (a.sent_bytes + a.got_bytes - before) / made <= 300


def test_on_a_thin_link_an_urgent_entry_overtakes_a_megabyte_of_lower_lanes(small: Small) -> None:
    documents = small.prescribe(40)
    small.realm.replicate()
    random = small.net.random
    for n in range(1500):
        small.pharmacy.not_dispensed(
            documents[n % 40], 1, "väntar " + random.randbytes(300).hex(), person=PHARMACIST
        )
    small.net.latency_ms = 300
    small.net.join("prescriber", small.prescriber, thin_bits=9600)
    member = small.net.join("pharmacy", small.pharmacy, thin_bits=9600)
    small.net.run_until(lambda: any(p.sending for p in member.peering.peers), 60_000)
    small.net.run(60_000)
    assert not in_step(small.prescriber, small.pharmacy, districts=BOTH)
    receipt = small.pharmacy.dispense(
        documents[0], Supply(fill=1, quantity=100, pharmacy=PHARMACY), person=PHARMACIST
    )
    took = small.net.run_until(lambda: small.prescriber.node.store.by_link(receipt.link) is not None, 60_000)
    # Its own 450 bytes, two kilobytes before it, there and back.
    assert took <= (450 + 2048 + 200) * 8000 / 9600 + 2 * 300
    assert not in_step(small.prescriber, small.pharmacy, districts=BOTH)


# --- claims -----------------------------------------------------------------------------------------------------------


def claim(small: Small, asker: str, holder: str, document: bytes, *, deadline_ms: int = 20_000) -> list[Told]:
    told: list[Told] = []
    member = small.net.members[asker]
    member.peering.requests.claim(
        small.net.members[holder].node, document, (1,), command=bytes(15) + bytes([len(asker)]),  # type: ignore[arg-type]
        now_ms=small.clock.time, deadline_ms=small.clock.time + deadline_ms, done=told.append,
    )  # fmt: skip
    return told


def test_a_claim_moves_the_fill_and_the_second_claimant_learns_who_holds_it(small: Small) -> None:
    second = small.realm.enrol("second", NodeRole.PHARMACY)
    for name in ("agency", "prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    small.net.join("second", second)
    small.net.run(20_000)
    (document,) = small.prescribe(1, holder=small.agency)
    small.net.run(1_000)
    told = claim(small, "pharmacy", "agency", document)
    took = small.net.run_until(lambda: bool(told), 30_000)
    assert told[0].code == ""
    assert took < 500
    supply = Supply(fill=1, quantity=100, pharmacy=PHARMACY)
    assert small.pharmacy.assess(document, supply).verdict is Verdict.PERMIT  # type: ignore[arg-type]
    late = claim(small, "second", "agency", document)
    small.net.run_until(lambda: bool(late), 30_000)
    assert late[0].code == "not-permitted"
    assert late[0].holder == small.pharmacy.node.identity.node
    second.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_claim_whose_answers_get_lost_is_one_claim(small: Small, seed: int) -> None:
    for name in ("agency", "pharmacy", "prescriber"):
        small.net.join(name, getattr(small, name))
    small.net.run(20_000)
    (document,) = small.prescribe(1, holder=small.agency)
    small.net.run_until(
        lambda: in_step(small.agency, small.prescriber, small.pharmacy, districts=BOTH), 60_000
    )
    small.net.random.seed(seed)
    small.net.drop = 0.4
    told = claim(small, "pharmacy", "agency", document, deadline_ms=600_000)
    small.net.run_until(lambda: bool(told), 700_000)
    assert told[0].code == ""
    history = small.agency.inquiry.history(document)  # type: ignore[arg-type]
    assert [h["kind"] for h in history].count("CustodyTransferred") == 1


def test_a_holder_that_cannot_be_reached_is_said_to_be_so_and_nothing_moves(small: Small) -> None:
    for name in ("agency", "pharmacy", "prescriber"):
        small.net.join(name, getattr(small, name))
    (document,) = small.prescribe(1, holder=small.agency)
    small.net.run(30_000)
    small.net.leave("agency")
    told = claim(small, "pharmacy", "pharmacy", document)
    small.net.run_until(lambda: bool(told), 30_000)
    assert told == [Told(code="unreachable")]
    decision = small.pharmacy.assess(document, Supply(fill=1, quantity=100, pharmacy=PHARMACY))  # type: ignore[arg-type]
    assert decision.verdict is not Verdict.PERMIT


def test_an_evacuated_patients_prescription_is_fetched_opened_and_dispensed(small: Small) -> None:
    far = small.realm.enrol("far", NodeRole.PHARMACY, "SE-C-0380")
    for name in ("agency", "pharmacy", "prescriber"):
        small.net.join(name, getattr(small, name))
    member = small.net.join("far", far)
    (document,) = small.prescribe(1)
    small.net.run(20_000)
    assert far.node.reader.state(document) is None  # type: ignore[arg-type]
    told: list[Told] = []
    member.peering.requests.fetch(
        small.pharmacy.node.identity.node, request=bytes(16), person=PHARMACIST, purpose="evakuerad patient",
        patient=order(0, holder=None).patient, now_ms=small.clock.time, deadline_ms=small.clock.time + 60_000,
        done=told.append,
    )  # fmt: skip
    looked = sum(1 for _ in small.pharmacy.node.store.audit())
    small.net.run_until(lambda: bool(told), 70_000)
    assert told[0].code == ""
    assert document in told[0].documents
    assert sum(1 for _ in small.pharmacy.node.store.audit()) == looked + 1
    answer = far.show(document)  # type: ignore[arg-type]
    assert answer.prescription.issued is not None
    asked: list[Told] = []
    member.peering.requests.claim(
        small.pharmacy.node.identity.node, document, (1,), command=b"c" * 16, now_ms=small.clock.time,  # type: ignore[arg-type]
        deadline_ms=small.clock.time + 60_000, done=asked.append,
    )  # fmt: skip
    small.net.run_until(lambda: bool(asked), 70_000)
    assert asked[0].code == ""
    far.dispense(document, Supply(fill=1, quantity=100, pharmacy=PHARMACY), person=PHARMACIST)  # type: ignore[arg-type]
    small.net.run_until(lambda: in_step(far, small.pharmacy, districts=[DISTRICT]), 60_000)
    assert not list(small.pharmacy.anomalies())
    # Of all else of that district it can read nothing.
    others = small.prescribe(1)
    small.net.run(5_000)
    assert far.show(others[0]).prescription.issued is None  # type: ignore[arg-type]
    far.close()


# --- trust -------------------------------------------------------------------------------------------------------------


def test_a_revoked_node_is_neither_told_nor_heard(small: Small) -> None:
    for name in ("agency", "prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    small.net.run(20_000)
    small.agency.stewardship.revoke(small.pharmacy.node.identity.node, person=OFFICER, reason="stulen")
    small.net.run(10_000)
    small.prescribe(3, holder=small.agency)
    small.net.run(60_000)
    feed = small.prescriber.node.own_feed(DISTRICT)
    assert small.agency.exchange.frontier_of(feed)[-1][0] >= 3
    # The hub's permissions keep live entries from it; letters are ours to refuse.
    assert small.net.members["prescriber"].peering.refused.get("revoked", 0) > 0


def test_nothing_that_anybody_sends_raises_or_is_answered_at_length(small: Small) -> None:
    member = small.net.join("pharmacy", small.pharmacy)
    small.net.run(5_000)
    random = small.net.random
    sent = member.sent_bytes
    for _ in range(3_000):
        kind = random.choice([*range(8), 255])
        member.peering.received(
            "hub",
            "rx.x.here.SE-AB-0180",
            bytes([kind]) + random.randbytes(random.randint(0, 200)),
            small.clock.time,
        )
    out: list[Outgoing] = member.peering.poll(small.clock.time)
    assert sum(len(o.payload) for o in out) <= 1500 * 50
    assert sent == member.sent_bytes
    assert sum(member.peering.refused.values()) > 1_000


def test_no_letter_shows_what_it_says_and_none_is_taken_twice_for_two(small: Small) -> None:
    for name in ("prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    small.prescribe(5)
    small.net.run(20_000)
    wire = b"".join(payload for _, payload in small.net.seen)
    for word in (b"189002029800", b"Testsson", b"Metformin", b"20991231100"):
        assert word not in wire
    letters = [p for _, p in small.net.seen if p[0] == Kind.LETTER]
    member = small.net.members["pharmacy"]
    before = small.pharmacy.inquiry.frontier_digest(BOTH)
    for letter in letters:
        member.peering.received("hub", "x", letter, small.clock.time)
        member.peering.received("hub", "x", letter[:-1] + bytes([letter[-1] ^ 1]), small.clock.time)
    assert small.pharmacy.inquiry.frontier_digest(BOTH) == before


# --- ways ---------------------------------------------------------------------------------------------------------------


def test_a_relay_without_keys_carries_between_nodes_that_are_never_up_together(small: Small) -> None:
    relay = small.realm.enrol("relay", NodeRole.RELAY)
    small.net.join("relay", relay)
    small.net.join("prescriber", small.prescriber)
    small.net.run(5_000)
    documents = small.prescribe(5)
    small.net.run(20_000)
    small.net.leave("prescriber")
    assert relay.node.keyring.districts() == []
    small.net.join("pharmacy", small.pharmacy)
    small.net.run_until(lambda: in_step(relay, small.pharmacy, districts=BOTH), 60_000)
    for document in documents:
        assert small.pharmacy.assess(document, Supply(fill=1, quantity=100, pharmacy=PHARMACY)).verdict is (  # type: ignore[arg-type]
            Verdict.PERMIT
        )
        state = relay.node.reader.state(document)  # type: ignore[arg-type]
        assert state is not None
        assert state.prescription.issued is None
    relay.close()


def test_a_node_with_two_links_passes_on_what_it_hears_on_one(small: Small) -> None:
    neighbour = small.realm.enrol("neighbour", NodeRole.PHARMACY)
    small.net.join("prescriber", small.prescriber, buses=("hub",))
    small.net.join("pharmacy", small.pharmacy, buses=("hub", "site"))
    small.net.join("neighbour", neighbour, buses=("site",))
    small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, neighbour, districts=BOTH), 60_000)
    small.prescribe(1)
    took = small.net.run_until(
        lambda: in_step(small.prescriber, small.pharmacy, neighbour, districts=BOTH), 5_000
    )
    assert took <= 4 * small.net.latency_ms
    neighbour.close()


def test_two_links_between_the_same_two_carry_each_entry_in_full_once_and_survive_the_loss_of_one(
    small: Small,
) -> None:
    a = small.net.join("prescriber", small.prescriber, buses=("hub", "radio"))
    small.net.join("pharmacy", small.pharmacy, buses=("hub", "radio"))
    small.net.run(20_000)
    for member in small.net.members.values():
        member.peering.link_down("hub")
    small.net.members["pharmacy"].buses = small.net.members["prescriber"].buses = ("radio",)
    small.prescribe(3)
    small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, districts=BOTH), 30_000)
    assert {peer.link for peer in a.peering.peers} == {"radio"}


# --- hostile -----------------------------------------------------------------------------------------------------------


def test_who_only_claims_to_be_a_peer_cannot_silence_it(small: Small) -> None:
    member = small.net.join("pharmacy", small.pharmacy)
    small.net.join("prescriber", small.prescriber)
    small.net.run(20_000)
    sender = small.prescriber.node.identity.node
    for n in range(5_000):
        forged = bytes([Kind.LETTER]) + sender + n.to_bytes(60, "big")
        member.peering.received("hub", "x", forged, small.clock.time)
    small.prescribe(1)
    took = small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, districts=BOTH), 5_000)
    assert took <= 10
    assert member.peering.refused["not-authentic"] == 5_000


def test_forged_entries_and_claimed_gaps_cost_a_bounded_number_of_verifications_and_rounds(
    small: Small,
) -> None:
    member = small.net.join("pharmacy", small.pharmacy)
    other = small.net.join("prescriber", small.prescriber)
    small.net.run(20_000)
    small.prescribe(1)
    small.net.run(20_000)
    peer = member.peering.peers.peers[other.node]
    rounds = peer.rounds
    (true,) = [p for _, p in small.net.seen if p[0] == Kind.LIVE][-1:]
    told = decode_live(true[1:])
    for n in range(2_000):
        entry = msgspec.structs.replace(told.entry, sequence=told.entry.sequence + 1 + n)
        frame = encode_live(msgspec.structs.replace(told, entry=entry))
        member.peering.received("hub", "rx.x.live.SE-AB-0180", frame, small.clock.time)
        small.net.run(1)
    assert peer.rounds - rounds <= 2_000 / AT_ONCE_AGAIN_MS + 4
    small.prescribe(1)
    small.net.run_until(lambda: in_step(small.prescriber, small.pharmacy, districts=BOTH), 5_000)


def test_a_holder_that_grants_what_it_never_wrote_costs_no_storm_of_rounds(small: Small) -> None:
    for name in ("agency", "prescriber", "pharmacy"):
        small.net.join(name, getattr(small, name))
    (document,) = small.prescribe(1, holder=small.agency)
    small.net.run(20_000)
    member, agency = small.net.members["pharmacy"], small.net.members["agency"]
    told = claim(small, "pharmacy", "agency", document, deadline_ms=20_000)
    member.peering.poll(small.clock.time)
    command = next(iter(member.peering.requests._pending))
    member.peering.requests.told(agency.node, ClaimTold(command, b"l" * 32))
    for name in ("agency",):
        small.net.members[name].peering.requests.answer = lambda *_: ClaimTold(command, b"l" * 32)  # type: ignore[method-assign]
    rounds = member.peering.peers.peers[agency.node].rounds
    small.net.run_until(lambda: bool(told), 30_000)
    assert told[0].code == "unreachable"
    assert member.peering.peers.peers[agency.node].rounds - rounds <= 20_000 / AT_ONCE_AGAIN_MS + 10


def test_a_request_to_somebody_unknown_outlives_a_flood_of_forgeries(small: Small) -> None:
    member = small.net.join("pharmacy", small.pharmacy)
    small.net.run(5_000)
    told: list[Told] = []
    member.peering.requests.fetch(
        b"u" * 16, request=b"r" * 16, person=PHARMACIST, purpose="vård", document=b"d" * 16,  # type: ignore[arg-type]
        now_ms=small.clock.time, deadline_ms=small.clock.time + 5_000, done=told.append,
    )  # fmt: skip
    for n in range(500):
        member.peering.received(
            "hub", "x", bytes([Kind.INTRODUCTION]) + n.to_bytes(8, "big"), small.clock.time
        )
    member.peering.poll(small.clock.time)
    member.peering.converse(b"w" * 16, small.clock.time, 1000)  # type: ignore[arg-type]
    small.net.run_until(lambda: bool(told), 10_000)
    assert told[0].code == "unreachable"
