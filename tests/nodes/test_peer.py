"""What a peer's words begin, end and prove, when a hub repeats, delays and keeps them (R11, R15, B12)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.world import DISTRICT, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger.ids import GOVERNANCE, DocumentId
from nodes.acquaintances import PeeringSettings
from nodes.daemon.standing import peer_statuses
from nodes.messages import VERSION, ClaimAsk, ClaimTold, Digest, Refusal, encode_message
from nodes.nats.subjects import here, live, mailbox
from nodes.peer import CONTROL_MAX, MESSAGES_PER_SECOND_MAX, PROBLEMS_MAX, ROUNDS_PER_MINUTE_MAX
from nodes.wire import Kind, Speech, decode_speech, encode_speech
from tests.nodes.net_for_tests import Member, Net, VirtualClock, in_step

BOTH = [GOVERNANCE, DISTRICT]
QUIET = PeeringSettings(sign_ms=10**9, idle_ms=10**9, give_up_ms=5_000)


class Pair:
    """A prescriber and a pharmacy on a hub that keeps everything."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.realm = SmallRealm(directory, clock=self.clock)
        self.net = Net(self.clock)
        self.prescriber = self.net.join("prescriber", self.realm.prescriber)
        self.pharmacy = self.net.join("pharmacy", self.realm.pharmacy)

    def settle(self) -> None:
        """Let them find that they hold the same."""
        ledgers = (self.realm.prescriber, self.realm.pharmacy)
        self.net.run_until(lambda: in_step(*ledgers, districts=BOTH), 60_000)
        self.net.run(30_000)

    def letters(self, to: Member) -> list[bytes]:
        """All letters that went to a member so far."""
        box = mailbox(to.ledger.node.realm.id, to.node)
        return [p for subject, p in self.net.seen if subject == box and p[0] == Kind.LETTER]

    def said(self, to: Member, letters: list[bytes]) -> list[tuple[Speech, int]]:
        """What stands in letters, and the tag of each message."""
        speeches = [decode_speech(to.peering.peers.postbox.open(p[1:])[1]) for p in letters]
        return [(s, msgspec.msgpack.decode(s.message)[1][0]) for s in speeches]

    def deliver(self, to: Member, frame: bytes, subject: str = "") -> None:
        """Hand a frame to a member as its hub would; in its mailbox unless told otherwise."""
        box = mailbox(to.ledger.node.realm.id, to.node)
        to.peering.received("hub", subject or box, frame, self.clock.time)

    def prescribe(self) -> DocumentId:
        """An entry more at the prescriber."""
        holder = self.pharmacy.node
        return self.realm.prescriber.prescribe(order(0, holder=holder), person=PRESCRIBER).document


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.realm.close()


def test_a_repeated_letter_begins_no_exchange_without_end(pair: Pair) -> None:
    """The answer to a digest is a digest: repeated, it must not be answered for ever, back and forth."""
    pair.settle()
    for member in (pair.prescriber, pair.pharmacy):
        for letter in pair.letters(member):
            before = len(pair.net.seen)
            pair.deliver(member, letter)
            pair.net.run(500)
            assert len(pair.net.seen) - before <= 20


@pytest.mark.parametrize("name", ["prescriber", "pharmacy"])
def test_letters_of_a_former_round_make_nobody_believe_that_the_peer_holds_what_is_new(
    pair: Pair, name: str
) -> None:
    """A hub that drops everything and repeats how the two were in step yesterday brings about no false certainty."""
    document = pair.prescribe()
    pair.settle()
    victim, other = pair.net.members[name], pair.prescriber if name == "pharmacy" else pair.pharmacy
    old = pair.letters(victim)
    known = victim.peering.peers.peers[other.node]
    pair.net.cuts.add(frozenset(("prescriber", "pharmacy")))
    if name == "prescriber":
        pair.prescribe()
    else:
        pair.realm.pharmacy.not_dispensed(document, 1, "väntar", person=PHARMACIST)
    pair.net.run(60_000)
    mark, in_step_ms = known.mark, known.in_step_ms
    for _ in range(2):
        for letter in old:
            pair.deliver(victim, letter)
            pair.net.run(1)
    assert known.mark == mark
    assert known.in_step_ms == in_step_ms


def test_a_repeated_sign_of_life_makes_nobody_alive(pair: Pair) -> None:
    pair.settle()
    signs = [(s, p) for s, p in pair.net.seen if p[0] == Kind.HERE]
    pair.net.leave("pharmacy")
    known = pair.prescriber.peering.peers.peers[pair.pharmacy.node]
    pair.net.run(60_000)
    heard = known.heard_ms
    for subject, frame in signs:
        pair.deliver(pair.prescriber, frame, subject)
    assert known.heard_ms == heard
    assert not pair.prescriber.peering.peers.is_present(known, pair.clock.time)


# --- versions ---------------------------------------------------------------------------------------------------------


def later(pair: Pair, sender: Member, to: Member, message: bytes, round_: bytes = bytes(8)) -> None:
    """A member says something that no code of this version would."""
    box = sender.peering.peers.postbox
    letter = box.seal(to.node, encode_speech(Speech(round_, 0, message)))
    pair.deliver(to, bytes([Kind.LETTER]) + letter)


def last_refusal(member: Member, of: Member) -> str:
    """What an operator of one reads in its status of the other."""
    (status,) = (s for s in peer_statuses(member.peering) if s.node == of.node.hex())
    assert status.refused
    return status.last_refusal


@pytest.mark.parametrize("round_", [bytes(8), b"elsewise"])
def test_a_message_of_a_later_version_is_refused_and_both_sides_name_it(pair: Pair, round_: bytes) -> None:
    pair.settle()
    later(pair, pair.prescriber, pair.pharmacy, msgspec.msgpack.encode([VERSION + 1, [1]]), round_)
    pair.net.run(1_000)
    assert last_refusal(pair.pharmacy, pair.prescriber) == "version-unknown"
    assert last_refusal(pair.prescriber, pair.pharmacy) == "peer: version-unknown"


def test_a_frame_of_a_later_kind_is_refused_and_both_sides_name_it(pair: Pair) -> None:
    pair.settle()
    before = len(pair.net.seen)
    for _ in range(100):
        pair.deliver(pair.pharmacy, bytes([max(Kind) + 1]) + pair.prescriber.node + b"from the future")
    pair.net.run(1_000)
    assert pair.pharmacy.peering.refused["version-unknown"] == 100
    assert last_refusal(pair.prescriber, pair.pharmacy) == "peer: version-unknown"
    # Anybody can send such a frame in anybody's name: the answers are few.
    assert len(pair.net.seen) - before <= 3


@pytest.mark.parametrize("channel", [here, live])
def test_a_frame_of_a_later_kind_to_everybody_is_answered_by_nobody(pair: Pair, channel: object) -> None:
    pair.settle()
    before = len(pair.net.seen)
    subject = channel(pair.realm.agency.node.realm.id, DISTRICT)  # type: ignore[operator]
    pair.deliver(pair.pharmacy, bytes([max(Kind) + 1]) + pair.prescriber.node + b"from the future", subject)
    pair.net.run(500)
    assert pair.pharmacy.peering.refused["version-unknown"] == 1
    assert len(pair.net.seen) == before


def test_a_live_entry_of_a_later_version_is_counted_and_comes_with_the_next_round(pair: Pair) -> None:
    pair.settle()
    told = len(pair.net.seen)
    pair.net.drop = 1.0
    pair.prescribe()
    pair.net.run(1)
    subject, frame = next((s, p) for s, p in pair.net.seen[told:] if p[0] == Kind.LIVE)
    value = msgspec.msgpack.decode(frame[1:])
    pair.deliver(pair.pharmacy, bytes([Kind.LIVE]) + msgspec.msgpack.encode([2, *value[1:]]), subject)
    assert pair.pharmacy.peering.refused["version-unknown"] == 1
    pair.net.drop = 0.0
    ledgers = (pair.realm.prescriber, pair.realm.pharmacy)
    pair.net.run_until(lambda: in_step(*ledgers, districts=BOTH), 60_000)


@pytest.mark.parametrize("code", ["\x1b[31m", "en text", "x\n", "X", "x" * 65])
def test_a_code_that_would_write_on_an_operators_screen_is_no_code(pair: Pair, code: str) -> None:
    pair.settle()
    later(pair, pair.prescriber, pair.pharmacy, encode_message(Refusal(code)))
    assert pair.pharmacy.peering.peers.peers[pair.prescriber.node].problems[-1] == "malformed"


def test_a_refusal_is_not_answered(pair: Pair) -> None:
    pair.settle()
    before = len(pair.net.seen)
    later(pair, pair.prescriber, pair.pharmacy, encode_message(Refusal("not-permitted")))
    pair.net.run(500)
    assert len(pair.net.seen) == before


def test_a_claim_with_trailing_bytes_is_refused_and_the_claimant_is_told(pair: Pair) -> None:
    pair.settle()
    ask = encode_message(ClaimAsk(bytes(16), bytes(16), bytes(16), (1,)))
    later(pair, pair.prescriber, pair.pharmacy, ask + b"\0")
    pair.net.run(500)
    assert pair.prescriber.peering.peers.peers[pair.pharmacy.node].problems[-1] == "peer: malformed"


# --- limits -----------------------------------------------------------------------------------------------------------


def test_so_many_messages_of_a_peer_are_looked_at_and_after_a_second_more(pair: Pair) -> None:
    pair.settle()
    message = encode_message(ClaimTold(bytes(16)))
    for _ in range(3 * MESSAGES_PER_SECOND_MAX):
        later(pair, pair.prescriber, pair.pharmacy, message)
    assert pair.pharmacy.peering.refused["too-many"] == MESSAGES_PER_SECOND_MAX
    pair.clock.time += 1_000
    for _ in range(MESSAGES_PER_SECOND_MAX + 1):
        later(pair, pair.prescriber, pair.pharmacy, message)
    assert pair.pharmacy.peering.refused["too-many"] == MESSAGES_PER_SECOND_MAX + 1


def test_so_many_rounds_of_a_peer_are_begun_and_after_a_minute_more(pair: Pair) -> None:
    pair.settle()
    realm = pair.realm.agency.node.realm.id
    digest = encode_message(Digest(realm, {GOVERNANCE: bytes(32)}))
    pair.clock.time += 60_001

    def begun(first: int, count: int) -> int:
        names = [n.to_bytes(8, "big") for n in range(first, first + count)]
        for name in names:
            later(pair, pair.prescriber, pair.pharmacy, digest, name)
            if name == names[len(names) // 2]:
                pair.clock.time += 1_000  # Or there would be too many messages.
        answers = [
            out for out in pair.pharmacy.peering.poll(pair.clock.time) if out.payload[0] == Kind.LETTER
        ]
        known = pair.pharmacy.peering.peers.peers[pair.prescriber.node]
        assert len(known._begun) <= ROUNDS_PER_MINUTE_MAX
        return len(answers)

    assert begun(1, ROUNDS_PER_MINUTE_MAX) > 0
    pair.net.run(10_000)
    assert begun(1_000, 50) == 0
    pair.clock.time += 60_000
    assert begun(2_000, 1) > 0


def test_what_waits_to_be_said_and_is_remembered_of_a_peer_is_bounded(pair: Pair) -> None:
    pair.settle()
    for _ in range(2 * CONTROL_MAX):
        later(pair, pair.prescriber, pair.pharmacy, b"rubbish")
    known = pair.pharmacy.peering.peers.peers[pair.prescriber.node]
    assert len(known.problems) == PROBLEMS_MAX
    answers = [out for out in pair.pharmacy.peering.poll(pair.clock.time) if out.payload[0] == Kind.LETTER]
    assert len(answers) == CONTROL_MAX


def test_what_is_missed_during_a_round_is_asked_for_after_it(pair: Pair) -> None:
    """A round may have begun before the entry was written: being found in step by it says nothing of that entry."""
    pair.settle()
    peer = pair.pharmacy.peering.peers.known(pair.prescriber.node)
    assert peer is not None
    peer.soon(pair.clock.time)
    pair.net.run_until(lambda: peer.busy, 5_000)
    # Told while a round is under way that had begun without it, and lost: only that it is missing is known.
    pair.pharmacy.peering._gap(pair.prescriber.node, DISTRICT, pair.clock.time)
    pair.net.run_until(lambda: not peer.busy, 10_000)
    assert peer.next_ms is not None
    assert peer.next_ms - pair.clock.time <= 1_000


def test_a_round_that_is_asked_for_while_another_is_under_way_is_had_after_it(pair: Pair) -> None:
    pair.settle()
    peer = pair.pharmacy.peering.peers.known(pair.prescriber.node)
    assert peer is not None
    peer.soon(pair.clock.time)
    pair.net.run_until(lambda: peer.busy, 5_000)
    rounds = peer.rounds
    pair.pharmacy.peering.converse(pair.prescriber.node, pair.clock.time, 1_000_000)
    pair.net.run_until(lambda: peer.rounds > rounds, 5_000)


def test_with_who_is_no_partner_no_rounds_are_kept_up_and_its_signs_move_the_horizon(pair: Pair) -> None:
    for member in (pair.pharmacy, pair.prescriber):
        member.peering.peers._choose = lambda _: []  # type: ignore[method-assign]
    pair.settle()
    peer = pair.pharmacy.peering.peers.known(pair.prescriber.node)
    assert peer is not None
    pair.pharmacy.peering.converse(pair.prescriber.node, pair.clock.time, 1_000_000)
    pair.net.run_until(lambda: peer.in_step_ms is not None and not peer.busy, 10_000)

    def heard() -> int:
        store = pair.realm.pharmacy.node.store
        return next(at for node, _, at in store.horizon() if node == pair.prescriber.node)

    rounds, before = peer.rounds, heard()
    pair.net.run(600_000)
    assert peer.rounds == rounds
    assert heard() - before > 500_000
