"""What reconciliation promises, on real feeds in memory (R2, R4, R6, R15)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.feed import Run
from ledger.ids import GOVERNANCE, FeedId, Link
from nodes import messages, ports, reconciliation
from nodes.inprocess import BadLink, synchronise
from nodes.messages import (
    MESSAGE_BYTES_MAX,
    Detached,
    Digest,
    Entries,
    Frontier,
    InStep,
    Message,
    Refusal,
    decode_message,
    encode_message,
)
from nodes.reconciliation import PROBLEMS_MAX, Session
from tests.ledger.realm_for_tests import STOCKHOLM, UPPSALA, RealmForTests
from tests.nodes.replica_for_tests import Author, MemoryReplica

REALM = RealmForTests()
AUTHORS = [Author(REALM, seed) for seed in range(4)]
AFAR = Author(REALM, 50, UPPSALA)
GOVERNOR = Author(REALM, 51, GOVERNANCE)


def replica(*runs: Run, districts: tuple[str, ...] = (STOCKHOLM,)) -> MemoryReplica:
    made = MemoryReplica(REALM.realm, districts)
    made.import_openings(
        [a.signed for a in (*AUTHORS, AFAR, GOVERNOR) if any(r.feed == a.feed for r in runs)]
    )
    report = made.import_runs(runs)
    assert not report.gaps
    assert not report.refused
    return made


def told(replies: list[bytes]) -> list[Message]:
    return [decode_message(reply) for reply in replies]


def carried(replies: list[bytes]) -> int:
    return sum(len(r.entries) for m in told(replies) if isinstance(m, Entries) for r in m.runs)


def exchange(one: MemoryReplica, other: MemoryReplica) -> tuple[int, list[bytes]]:
    """One round over a good link; entries on the wire, and all messages."""
    sent: list[bytes] = []

    def link(message: bytes) -> list[bytes]:
        sent.append(message)
        return [message]

    synchronise(one, other, link=link, rounds=1)
    return carried(sent), sent


# --- convergence ---------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Run], list[list[int]]]:
    """Runs of several feeds, some on branches, and which of three replicas begins with which (parents first)."""
    runs: list[Run] = []
    parents: list[int | None] = []
    for author in draw(st.lists(st.sampled_from(AUTHORS), min_size=1, max_size=4, unique=True)):
        mine: list[int] = []
        for mark in range(draw(st.integers(1, 4))):
            parent = draw(st.sampled_from([None, *mine]))
            after = (
                draw(st.sampled_from(list(author.positions(runs[parent])))) if parent is not None else None
            )
            if after is not None and all(e.signature is None for e in runs[parent].entries[: after[0]]):
                after = author.end(runs[parent])
            every = draw(st.sampled_from([1, 3]))
            runs.append(author.chain(draw(st.integers(1, 8)), after, mark=mark, every=every))
            parents.append(parent)
            mine.append(len(runs) - 1)
    holders = []
    for _ in range(3):
        wanted = draw(st.sets(st.integers(0, len(runs) - 1)))
        for at in sorted(wanted, reverse=True):
            up = parents[at]
            while up is not None:
                wanted.add(up)
                up = parents[up]
        holders.append(sorted(wanted))
    return runs, holders


@given(histories(), st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.4]))
def test_replicas_of_any_histories_become_equal_over_links_that_drop_repeat_and_reorder(
    history: tuple[list[Run], list[list[int]]], seed: int, rate: float
) -> None:
    runs, holders = history
    replicas = [replica(*(runs[at] for at in held)) for held in holders]
    whole = replica(*(runs[at] for at in sorted({at for held in holders for at in held})))
    pairs = [(0, 1), (1, 2), (0, 2)]
    for turn in range(12):
        for n, (a, b) in enumerate(pairs):
            bad = tuple(
                BadLink(seed + turn * 10 + n * 2 + way, drop=rate, duplicate=rate, reorder=rate)
                for way in (0, 1)
            )
            synchronise(replicas[a], replicas[b], link=(bad[0], bad[1]), rounds=2)
    for a, b in pairs * 2:
        synchronise(replicas[a], replicas[b])
    assert [r.held() for r in replicas] == [whole.held()] * 3
    assert len({r.district_digest(STOCKHOLM) for r in replicas}) == 1


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20))
def test_two_branches_of_any_length_and_place_reach_both_sides(
    left: int, right: int, common: int, every: int
) -> None:
    author = AUTHORS[0]
    stem = author.chain(common)
    end = author.end(stem)
    mine, theirs = (
        replica(stem, *([author.chain(n, end, mark=mark, every=every)] if n else []))
        for mark, n in ((1, left), (2, right))
    )
    synchronise(mine, theirs)
    assert mine.held() == theirs.held()
    assert mine.entries() == common + left + right


@given(st.integers(0, 30), st.integers(0, 2**32))
def test_a_conversation_cut_anywhere_goes_on_where_it_broke_off(after: int, seed: int) -> None:
    one = replica(*(a.chain(12) for a in AUTHORS))
    other = replica(AUTHORS[0].chain(3))
    synchronise(one, other, link=BadLink(seed, cut_after=after), rounds=1)
    held = other.entries()
    crossing, _ = exchange(one, other)
    assert crossing == one.entries() - held
    assert one.held() == other.held()


def test_a_round_keeps_to_its_budget_and_the_next_ones_bring_the_rest() -> None:
    one, other = replica(*(a.chain(40, size=100) for a in AUTHORS)), replica()
    synchronise(one, other, rounds=1, budget_bytes=4000)
    # The openings are charged too; a run that has begun goes through.
    assert 0 < other.entries() < 60
    synchronise(one, other, rounds=100, budget_bytes=4000)
    assert one.held() == other.held()


def test_the_receiver_says_how_much_it_will_take() -> None:
    one = replica(*(a.chain(40, size=100) for a in AUTHORS))
    other = replica(*(a.chain(1, size=100) for a in AUTHORS))
    asking = Session(other, credit_bytes=1000).receive(Session(one).open()[0])
    sent = [reply for message in asking for reply in Session(one).receive(message)]
    assert 0 < carried(sent) <= 10


def test_a_feed_longer_than_what_is_asked_for_at_once_crosses_whole_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "CHUNK_BYTES", 1000)
    stem = AUTHORS[0].chain(30)
    one = replica(stem, *(AUTHORS[0].chain(20, AUTHORS[0].end(stem), mark=mark) for mark in (1, 2)))
    other = replica(AUTHORS[0].chain(10))
    entries, _ = exchange(one, other)
    assert one.held() == other.held()
    assert entries == 60


def test_what_came_in_meanwhile_is_passed_on_in_the_same_round() -> None:
    relay = MemoryReplica(REALM.realm)
    relay.import_openings([AUTHORS[0].signed])
    session = Session(relay)
    nothing = encode_message(Frontier({STOCKHOLM: {}}))
    assert carried(session.receive(nothing)) == 0
    session.receive(encode_message(Entries(openings=(AUTHORS[1].signed,), runs=(AUTHORS[1].chain(5),))))
    assert carried(session.receive(nothing)) == 5


# --- economy ---------------------------------------------------------------------------------------------------------


def test_replicas_in_step_say_one_digest_each_and_that_they_are() -> None:
    one, other = (replica(*(a.chain(5) for a in AUTHORS)) for _ in range(2))
    entries, sent = exchange(one, other)
    assert entries == 0
    assert [type(m) for m in told(sent)] == [Digest, Digest, InStep, InStep]
    assert sum(map(len, sent)) < 300


def test_replicas_that_know_each_other_say_one_digest_and_its_answer_however_many_districts() -> None:
    names = tuple(f"SE-AB-{n:04}" for n in range(300))
    one, other = (replica(*(a.chain(5) for a in AUTHORS), districts=(STOCKHOLM, *names)) for _ in range(2))
    asking, answering = (Session(r, common=frozenset(other.districts())) for r in (one, other))
    (question,) = asking.open()
    (answer,) = answering.receive(question)
    assert asking.receive(answer) == []
    assert asking.in_step
    assert answering.in_step
    assert len(question) + len(answer) < 60


@given(st.integers(0, 3), st.booleans())
def test_a_summary_never_hides_a_difference(lacking: int, new_district: bool) -> None:
    one = replica(*(a.chain(5) for a in AUTHORS), *([AFAR.chain(2)] if new_district else []))
    other = replica(
        *(a.chain(5 - (n == lacking)) for n, a in enumerate(AUTHORS)), districts=(STOCKHOLM, UPPSALA)
    )
    # Each remembers what the other told earlier, when it did not hold the far district.
    asking = Session(one, common=frozenset({GOVERNANCE, STOCKHOLM, UPPSALA}))
    answering = Session(other, common=frozenset({GOVERNANCE, STOCKHOLM}))
    to_other, to_one = asking.open(), list[bytes]()
    for _ in range(6):
        to_one = [reply for message in to_other for reply in answering.receive(message)]
        to_other = [reply for message in to_one for reply in asking.receive(message)]
    assert other.held() == one.held()


def test_a_feed_is_never_sent_back_to_a_peer_that_is_ahead_in_it() -> None:
    author = AUTHORS[0]
    ahead, behind = replica(author.chain(50)), replica(author.chain(20))
    entries, _ = exchange(ahead, behind)
    assert entries == 30


def test_nodes_that_share_only_governance_are_in_step_when_that_is_equal() -> None:
    governance = GOVERNOR.chain(2)
    here = replica(governance, AUTHORS[0].chain(3))
    there = replica(governance, AFAR.chain(3), districts=(UPPSALA,))
    session = Session(here)
    replies = told(session.receive(Session(there).open()[0]))
    assert [type(m) for m in replies] == [Digest, InStep]
    assert session.in_step


def test_a_node_that_takes_every_district_is_given_those_it_has_never_heard_of() -> None:
    relay = MemoryReplica(REALM.realm, (), takes_all=True)
    synchronise(relay, replica(AUTHORS[0].chain(3)))
    synchronise(relay, replica(AFAR.chain(4), districts=(UPPSALA,)))
    assert relay.entries() == 7


def test_governance_travels_before_everything_else() -> None:
    one = replica(*(a.chain(3) for a in AUTHORS), GOVERNOR.chain(3))
    order: list[bytes] = []
    for question in Session(MemoryReplica(REALM.realm)).receive(Session(one).open()[0]):
        order += [
            r.feed for m in told(Session(one).receive(question)) if isinstance(m, Entries) for r in m.runs
        ]
    assert order[0] == GOVERNOR.feed
    assert len(set(order)) == 5


def test_many_small_runs_share_a_message() -> None:
    one = replica(*(a.chain(1) for a in AUTHORS))
    asking = Session(MemoryReplica(REALM.realm)).receive(Session(one).open()[0])
    sent = told([reply for message in asking for reply in Session(one).receive(message)])
    assert sum(1 for m in sent if isinstance(m, Entries) and m.runs) == 1


# --- forks and entries ahead of their feeds ------------------------------------------------------------------------


def test_the_proof_of_a_fork_travels_before_the_branches() -> None:
    author = AUTHORS[0]
    stem = author.chain(3)
    forked = replica(stem, *(author.chain(4, author.end(stem), mark=mark) for mark in (1, 2)))
    knows_one = replica(stem, author.chain(4, author.end(stem), mark=1))
    replies = told(
        [
            reply
            for message in Session(knows_one).receive(Session(forked).open()[0])
            for reply in Session(forked).receive(message)
        ]
    )
    entries = [m for m in replies if isinstance(m, Entries)]
    assert entries[0].proofs
    assert not entries[0].runs


def test_an_entry_ahead_of_its_feed_reaches_those_who_never_meet_its_author() -> None:
    author = AUTHORS[0]
    run = author.chain(5)
    pharmacy, neighbour = replica(AUTHORS[1].chain(1)), replica(AUTHORS[1].chain(1))
    for each in (pharmacy, neighbour):
        each.import_openings([author.signed])
    before = list(author.positions(run))[3][1]
    pharmacy.import_detached(author.feed, before, run.entries[4])
    assert pharmacy.district_digest(STOCKHOLM) != neighbour.district_digest(STOCKHOLM)
    assert synchronise(pharmacy, neighbour) == 1
    assert pharmacy.held() == neighbour.held()
    synchronise(neighbour, replica(run))
    assert neighbour.ahead == {}


def test_an_entry_ahead_of_its_feed_is_told_of_and_not_sent_twice() -> None:
    author = AUTHORS[0]
    run = author.chain(2)
    here, there = replica(author.chain(1), AUTHORS[1].chain(1)), replica(author.chain(1))
    for each in (here, there):
        each.import_detached(author.feed, next(iter(author.positions(run)))[1], run.entries[1])
    _, sent = exchange(here, there)
    assert not any(isinstance(m, Detached) for m in told(sent))


# --- limits ------------------------------------------------------------------------------------------------------------


def test_a_feed_with_more_branches_than_are_told_still_reaches_everybody() -> None:
    author = AUTHORS[0]
    branches = [author.chain(1 + mark % 5, mark=mark) for mark in range(messages.HEADS_PER_FEED_MAX + 40)]
    one, other = replica(*branches[:80]), replica(*branches[30:])
    replies = told(Session(one).receive(Session(other).open()[0]))
    (told_of,) = [m for m in replies if isinstance(m, Frontier)]
    heads = told_of.districts[STOCKHOLM][author.feed]
    assert heads == one.frontier(STOCKHOLM)[author.feed][-messages.HEADS_PER_FEED_MAX :]
    synchronise(one, other)
    assert one.held() == other.held()
    assert one.entries() == sum(len(run.entries) for run in branches)


def test_a_frontier_larger_than_a_message_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "PART_BYTES", 100)
    one, other = replica(*(a.chain(5) for a in AUTHORS)), replica(*(a.chain(2) for a in AUTHORS[:3]))
    asked = Session(other).receive(Session(one).open()[0])
    parts = [part for part in told(asked) if isinstance(part, Frontier)]
    assert len(parts) > 1
    ranges = [(int.from_bytes(p.lowest, "big"), int.from_bytes(p.highest, "big")) for p in parts]
    assert [low for low, _ in ranges] == [0, *(high + 1 for _, high in ranges[:-1])]
    assert ranges[-1][1] == 2**128 - 1
    synchronise(one, other)
    assert one.held() == other.held()


def test_a_feed_that_a_peer_keeps_refusing_does_not_hold_up_the_others() -> None:
    one, other = replica(*(a.chain(60, size=200) for a in AUTHORS)), MemoryReplica(REALM.realm)

    class Stubborn(MemoryReplica):
        def import_openings(self, openings):  # type: ignore[no-untyped-def]
            return super().import_openings([o for o in openings if o != AUTHORS[0].signed])

    other = Stubborn(REALM.realm)
    synchronise(one, other, rounds=60, link=lambda message: [message], budget_bytes=6000)
    assert {feed: len(chain) for feed, chain in other.chains.items()} == {a.feed: 60 for a in AUTHORS[1:]}


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_more_than_be_refused(data: bytes) -> None:
    session = Session(replica(AUTHORS[0].chain(2)))
    for reply in told(session.receive(data)):
        assert isinstance(reply, Refusal | Frontier | Entries) or reply == messages.Done()


@given(st.data())
def test_a_damaged_message_changes_nothing_but_what_it_proves(data: st.DataObject) -> None:
    run = AUTHORS[0].chain(3)
    whole = bytearray(encode_message(Entries(openings=(AUTHORS[0].signed,), runs=(run,))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    other = MemoryReplica(REALM.realm)
    Session(other).receive(bytes(whole))
    true = {link for _, link in AUTHORS[0].positions(run)}
    assert all(set(chain) <= true for chain in other.chains.values())


BOMBS: dict[str, bytes] = {
    "empty": b"",
    "nested": b"\x92\x01" + b"\x91" * 100_000 + b"\xc0",
    "nested in a field": b"\x92\x01\x93\x05\xa1x" + b"\x91" * 100_000 + b"\xc0",
    "array of four thousand million": b"\x92\x01\xdd\xff\xff\xff\xff",
    "map of four thousand million": b"\x92\x01\x92\x01\xdf\xff\xff\xff\xff",
    "text of four thousand million": b"\x92\x01\x92\x05\xdb\xff\xff\xff\xff",
    "too large": b"\x92\x01\xc6" + b"\0" * MESSAGE_BYTES_MAX,
    "too many heads": msgspec.msgpack.encode((1, (2, {"d": {b"f" * 16: [(1, b"l" * 32)] * 65}}))),
    "negative sequence": msgspec.msgpack.encode((1, (2, {"d": {b"f" * 16: [(-1, b"l" * 32)]}}))),
    "overflowing sequence": msgspec.msgpack.encode((1, (2, {"d": {b"f" * 16: [(2**64 - 1, b"l" * 32)]}}))),
    "other tag": msgspec.msgpack.encode((1, (99,))),
    "trailing bytes": encode_message(messages.Done()) + b"\0",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_message_ends_in_a_refusal(name: str) -> None:
    session = Session(replica(AUTHORS[0].chain(2)))
    (answer,) = told(session.receive(BOMBS[name]))
    assert isinstance(answer, Refusal)
    assert session.problems == [answer.code]


def test_a_newer_version_is_named_on_both_sides() -> None:
    newer = msgspec.msgpack.encode((2, {"anything": "new"}))
    old, new = Session(replica()), Session(replica())
    (refusal,) = old.receive(newer)
    assert old.problems == ["version-unknown"]
    assert decode_message(refusal) == Refusal("version-unknown", 1)
    assert new.receive(refusal) == []
    assert new.problems == ["peer: version-unknown"]


def test_two_sides_that_cannot_read_each_other_fall_silent() -> None:
    session = Session(replica())
    answers = [session.receive(msgspec.msgpack.encode((2, n))) for n in range(100)]
    assert sum(map(len, answers)) == reconciliation.REFUSALS_MAX


def test_another_realm_is_refused() -> None:
    other = MemoryReplica(RealmForTests(seed=2).realm)
    session = Session(replica())
    (answer,) = told(session.receive(Session(other).open()[0]))
    assert answer == Refusal("other-realm")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"rubbish %d" % n,
        lambda _: encode_message(Frontier({STOCKHOLM: {}})),
        lambda n: encode_message(Digest(REALM.realm.id, {STOCKHOLM: n.to_bytes(32, "big")})),
        lambda n: encode_message(Refusal(f"code {n}")),
        lambda _: encode_message(Entries(runs=(Run(b"f" * 16, b"p" * 32, AUTHORS[0].chain(1).entries),))),
    ],
    ids=["rubbish", "frontiers", "digests", "refusals", "runs of nobody"],
)
def test_a_flood_is_answered_within_limits(make: Callable[[int], bytes]) -> None:
    one = replica(*(a.chain(5) for a in AUTHORS))
    session = Session(one, budget_bytes=1000)
    answers = [reply for n in range(reconciliation.MESSAGES_MAX + 10) for reply in session.receive(make(n))]
    assert len(answers) <= reconciliation.FRONTIERS_MAX + reconciliation.REFUSALS_MAX + 10
    assert sum(map(len, answers)) < 10_000
    assert len(session.problems) <= PROBLEMS_MAX


def test_a_peer_that_claims_to_be_ahead_and_serves_nothing_harms_only_itself() -> None:
    one = replica(*(a.chain(5) for a in AUTHORS))
    liar = encode_message(Frontier({STOCKHOLM: {AUTHORS[0].feed: ((2**53 - 1, Link(b"x" * 32)),)}}))
    before = one.held()
    replies = told(Session(one).receive(liar))
    assert {r.feed for m in replies if isinstance(m, Entries) for r in m.runs} == {
        a.feed for a in AUTHORS[1:]
    }
    assert one.held() == before


def test_many_frontiers_cost_one_look_at_what_is_held() -> None:
    class Counting(MemoryReplica):
        looks = 0

        def frontier(self, district: str) -> dict[FeedId, tuple[tuple[int, Link], ...]]:
            self.looks += 1
            return super().frontier(district)

    counting = Counting(REALM.realm)
    counting.import_openings([AUTHORS[0].signed])
    session = Session(counting)
    for _ in range(200):
        session.receive(encode_message(Frontier({STOCKHOLM: {}})))
    assert counting.looks == 1


def test_received_counts_each_new_entry_once() -> None:
    run = AUTHORS[0].chain(5)
    message = encode_message(Entries(openings=(AUTHORS[0].signed,), runs=(run,)))
    session = Session(MemoryReplica(REALM.realm))
    for _ in range(2):
        session.receive(message)
    assert session.received == 5
    assert session.moved


def test_of_many_feeds_only_the_buckets_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "BUCKETED_FEEDS", 3)
    one, other = replica(*(a.chain(5) for a in AUTHORS)), replica(*(a.chain(5) for a in AUTHORS[:3]))
    other.import_openings([AUTHORS[3].signed])
    _, sent = exchange(one, other)
    messages_sent = told(sent)
    assert any(isinstance(m, messages.Buckets) for m in messages_sent)
    told_feeds = {feed for m in messages_sent if isinstance(m, Frontier) for feed in m.districts[STOCKHOLM]}
    bucket = AUTHORS[3].feed[0] >> 2
    assert told_feeds == {a.feed for a in AUTHORS if a.feed[0] >> 2 == bucket}
    assert one.held() == other.held()


def test_on_a_thin_link_what_is_urgent_goes_ahead_of_its_feed_and_is_chained_later() -> None:
    author = AUTHORS[0]
    one, other = replica(author.chain(40, size=300, lane=lambda n: 1 if n == 40 else 2)), replica()
    asking = Session(other)
    (question,) = [
        m for m in asking.receive(Session(one).open()[0]) if isinstance(decode_message(m), Frontier)
    ]
    answering = Session(one, urgent_ahead=True)
    answering.take(question)
    first = answering.more(500)
    assert first is not None
    asking.take(first)
    second = answering.more(500)
    assert second is not None
    asking.take(second)
    assert isinstance(decode_message(second), Detached)
    assert [entry.sequence for _, _, entry in other.ahead.values()] == [40]
    while (rest := answering.more(500)) is not None:
        asking.take(rest)
    assert other.held() == one.held()
    assert other.ahead == {}


def test_a_piece_is_about_as_large_as_there_is_room_for() -> None:
    one, other = replica(AUTHORS[0].chain(60, size=200)), replica(AUTHORS[0].chain(1, size=200))
    (question,) = [
        m for m in Session(other).receive(Session(one).open()[0]) if isinstance(decode_message(m), Frontier)
    ]
    session = Session(one)
    session.take(question)
    pieces = list(iter(lambda: session.more(1500), None))
    assert len(pieces) > 8
    assert max(map(len, pieces)) <= 1500


def test_a_frontier_that_is_repeated_in_a_round_is_answered_once() -> None:
    """Else whoever repeats one small message makes the whole feed travel again each time."""
    one, other = Session(replica(AUTHORS[0].chain(50))), Session(replica())
    answers = [a for m in other.open() for a in one.take(m)]
    frontiers = [m for a in answers for m in other.take(a) if isinstance(decode_message(m), Frontier)]
    for message in frontiers * 5:
        one.take(message)
    assert carried(list(iter(one.more, None))) == 50
