"""Of several peers that hold the same, one sends it; and who promises without sending delays nothing for long (R15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, SmallRealm, fill
from ledger import Ledger, NodeRole
from ledger.ids import FeedId, Link, NodeId
from nodes.promises import AGAIN_MS, ASK_MS, PROMISE_MS, PROMISES_MAX, Promises
from tests.nodes.net_for_tests import Net, VirtualClock, in_step

ONE, OTHER = NodeId(b"1" * 16), NodeId(b"2" * 16)
FEED = FeedId(b"f" * 16)
FIVE, NINE = ((5, Link(b"5" * 32)),), ((9, Link(b"9" * 32)),)


def test_what_one_is_about_to_send_is_named_to_the_others_only() -> None:
    promises = Promises()
    promises.make(ONE, DISTRICT, FEED, FIVE, NINE, 0)
    assert promises.by_others(OTHER, DISTRICT, 1) == {FEED: NINE[0]}
    assert promises.by_others(ONE, DISTRICT, 1) == {}
    assert promises.by_others(OTHER, "SE-C-0380", 1) == {}


def test_of_its_own_feed_an_author_is_believed_whatever_others_promise_of_it() -> None:
    promises = Promises(lambda feed: OTHER if feed == FEED else None)
    promises.make(ONE, DISTRICT, FEED, FIVE, NINE, 0)
    assert promises.by_others(OTHER, DISTRICT, 1) == {}
    assert promises.by_others(NodeId(b"3" * 16), DISTRICT, 1) == {FEED: NINE[0]}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(NINE, FIVE), (NINE, NINE), ((*FIVE, *NINE), NINE), (FIVE, (*FIVE, *NINE)), (FIVE, ())],
)
def test_who_holds_no_more_or_tells_of_a_fork_promises_nothing(
    ours: tuple[tuple[int, Link], ...], theirs: tuple[tuple[int, Link], ...]
) -> None:
    promises = Promises()
    promises.make(ONE, DISTRICT, FEED, ours, theirs, 0)
    assert promises.by_others(OTHER, DISTRICT, 0) == {}


def test_a_promise_ends_with_its_round_and_by_itself() -> None:
    promises = Promises()
    promises.make(ONE, DISTRICT, FEED, FIVE, NINE, 0)
    assert promises.by_others(OTHER, DISTRICT, PROMISE_MS) != {}
    assert promises.by_others(OTHER, DISTRICT, PROMISE_MS + 1) == {}
    promises.make(ONE, DISTRICT, FEED, FIVE, NINE, AGAIN_MS)
    promises.end(ONE)
    assert promises.by_others(OTHER, DISTRICT, AGAIN_MS) == {}


def test_a_feed_promised_in_vain_is_not_believed_of_anybody_for_a_while() -> None:
    promises = Promises()
    promises.make(ONE, DISTRICT, FEED, FIVE, NINE, 0)
    promises.end(ONE)
    for now_ms in range(0, AGAIN_MS, 1_000):
        promises.make(ONE, DISTRICT, FEED, FIVE, NINE, now_ms)
        assert promises.by_others(OTHER, DISTRICT, now_ms) == {}
    # One that was kept is followed by the next at once.
    further = ((12, Link(b"c" * 32)),)
    promises.make(ONE, DISTRICT, FEED, NINE, further, 2)
    assert promises.by_others(OTHER, DISTRICT, 2) == {FEED: further[0]}


def test_while_one_is_asked_the_others_wait_for_what_it_tells_and_not_for_long() -> None:
    promises = Promises()
    assert promises.may_ask(ONE, 0)
    assert promises.may_ask(ONE, 1)
    assert not promises.may_ask(OTHER, ASK_MS)
    promises.heard(ONE)
    assert promises.may_ask(OTHER, ASK_MS)
    assert not promises.may_ask(ONE, ASK_MS + 1)
    promises.end(OTHER)
    assert promises.may_ask(ONE, ASK_MS + 1)


def test_one_that_keeps_others_waiting_in_vain_does_so_once() -> None:
    promises = Promises()
    assert promises.may_ask(ONE, 0)
    assert promises.may_ask(OTHER, ASK_MS + 1)
    promises.heard(OTHER)
    for now_ms in range(ASK_MS + 2, AGAIN_MS, 100):
        assert promises.may_ask(ONE, now_ms)
        assert promises.may_ask(OTHER, now_ms)
        promises.heard(OTHER)


def test_promises_of_more_feeds_than_there_are_fill_no_memory() -> None:
    promises = Promises()
    for number in range(3 * PROMISES_MAX):
        promises.make(ONE, f"d{number % 7}", FeedId(number.to_bytes(16, "big")), (), NINE, number // 1000)
        assert promises._count <= PROMISES_MAX
    assert sum(map(len, promises._of.values())) <= PROMISES_MAX


# --- among nodes -------------------------------------------------------------------------------------------------------


class Crowd:
    """A node that lacks what four others hold."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.realm = SmallRealm(directory, clock=self.clock)
        self.net = Net(self.clock)
        self.lacking = self.realm.enrol("lacking", NodeRole.PHARMACY)
        relays = [self.realm.enrol(f"relay-{n}", NodeRole.RELAY) for n in range(2)]
        fill(self.realm.pharmacy.node, 400)
        self.holding: list[Ledger] = [self.realm.prescriber, self.realm.pharmacy, *relays]
        for ledger in [*relays, self.realm.prescriber]:
            self._copy(ledger)
        self.ledgers = [self.lacking, *relays]

    def _copy(self, ledger: Ledger) -> None:
        source = self.realm.pharmacy.exchange
        feed = self.realm.pharmacy.node.own_feed(DISTRICT)
        ledger.exchange.import_openings([source.opening(feed)])
        ledger.exchange.import_runs(source.runs(feed, ledger.exchange.frontier_of(feed), 1 << 30))

    def join(self) -> None:
        for number, ledger in enumerate([*self.holding, self.lacking]):
            self.net.join(str(number), ledger)

    def whole(self) -> bool:
        return in_step(self.lacking, self.realm.pharmacy, districts=[DISTRICT])

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()
        self.realm.close()


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    made = Crowd(tmp_path)
    yield made
    made.close()


def test_of_four_that_hold_the_same_hardly_anything_comes_twice(crowd: Crowd) -> None:
    crowd.net.latency_ms = 200  # So that all have begun before one is done.
    crowd.join()
    crowd.net.run_until(crowd.whole, 60_000)
    crowd.net.run(30_000)
    member = crowd.net.members[str(len(crowd.holding))]
    feed = crowd.realm.pharmacy.node.own_feed(DISTRICT)
    own = sum(len(entry.sealed or b"") + 64 for run in crowd.realm.pharmacy.exchange.runs(feed, (), 1 << 30) for entry in run.entries)  # fmt: skip
    assert member.got_bytes < 1.6 * own, member.got_bytes / own


def test_one_that_promises_and_never_sends_delays_by_seconds_only(crowd: Crowd) -> None:
    """Its frontier comes first and in full; of entries it sends none."""
    crowd.join()
    liar = crowd.net.members["0"]
    for peer_of in (liar.peering.peers,):
        met = peer_of.met

        def muted(certified, met=met):  # type: ignore[no-untyped-def]
            peer = met(certified)
            if peer is not None:
                peer.piece = lambda _now: None  # type: ignore[method-assign]
            return peer

        peer_of.met = muted  # type: ignore[method-assign]
    took = crowd.net.run_until(crowd.whole, 60_000)
    assert took < PROMISE_MS + 8_000
