"""What is asked of others and answered to them, with dishonest ones among them (R7, R14, R15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, PHARMACIST, PRESCRIBER, SmallRealm, order
from ledger.errors import LimitExceeded, Malformed, NotFound
from ledger.ids import GOVERNANCE, DocumentId, NodeId
from nodes import requests
from nodes.messages import ClaimAsk, ClaimTold, FetchAsk, Fetched, FetchTold, decode_message, encode_message
from nodes.requests import FETCHED_DISTRICTS_MAX, Requests, Told
from tests.nodes.net_for_tests import NOW_MS, OPERATOR, VirtualClock

LENDER, OTHER = NodeId(b"lender.........."), NodeId(b"other...........")
NAME, DOCUMENT = b"r" * 16, DocumentId(b"d" * 16)


class Asking:
    """A pharmacy's requests, and what came of one of them."""

    def __init__(self, directory: Path) -> None:
        self.realm = SmallRealm(directory, clock=VirtualClock())
        self.ledger = self.realm.pharmacy
        self.requests = Requests(self.ledger, OPERATOR)
        self.told: list[Told] = []

    def fetch(self, name: bytes = NAME, deadline_ms: int = NOW_MS + 60_000) -> None:
        self.requests.fetch(
            LENDER, request=name, person=PHARMACIST, purpose="evakuerad", document=DOCUMENT, now_ms=NOW_MS,
            deadline_ms=deadline_ms, done=self.told.append,
        )  # fmt: skip

    def asked(self, now_ms: int) -> list[NodeId]:
        return [to for to, _ in self.requests.due(now_ms)]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.realm.close()


def lent(*districts: str, document: bytes = DOCUMENT) -> FetchTold:
    return FetchTold(NAME, tuple(Fetched(document, district, {1: bytes(32)}) for district in districts))


# --- asking -----------------------------------------------------------------------------------------------------------


def test_it_is_asked_again_with_growing_pauses_until_the_deadline(asking: Asking) -> None:
    asking.fetch()
    asked = [ms for ms in range(0, 61_000, 500) if asking.asked(NOW_MS + ms)]
    assert asked == [0, 2_000, 6_000, 14_000, 30_000]
    assert asking.told == [Told(code="unreachable")]
    assert len(asking.requests) == 0
    assert asking.requests.next_ms() is None


def test_whoever_is_met_again_is_asked_at_once(asking: Asking) -> None:
    asking.fetch()
    assert asking.asked(NOW_MS) == [LENDER]
    assert asking.asked(NOW_MS + 1) == []
    asking.requests.again(OTHER, NOW_MS + 1)
    assert asking.asked(NOW_MS + 1) == []
    asking.requests.again(LENDER, NOW_MS + 1)
    assert asking.asked(NOW_MS + 1) == [LENDER]


def test_more_requests_than_may_be_waited_for_are_refused(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "PENDING_MAX", 3)
    for n in range(3):
        asking.fetch(bytes([n]) * 16)
    with pytest.raises(LimitExceeded, match="try again"):
        asking.fetch(b"4" * 16)
    asking.fetch(bytes(16))  # The same again is the same.
    assert len(asking.requests) == 3


def test_a_claim_on_nothing_is_refused_before_it_is_asked(asking: Asking) -> None:
    for holder in (None, LENDER):
        with pytest.raises(NotFound):
            asking.requests.claim(
                holder, DOCUMENT, (1,), command=NAME, now_ms=NOW_MS, deadline_ms=NOW_MS + 1, done=asking.told.append
            )  # fmt: skip


def test_an_answer_counts_from_who_was_asked_and_for_what(asking: Asking) -> None:
    asking.fetch()
    for sender, message in (
        (OTHER, lent(DISTRICT)),
        (LENDER, FetchTold(b"x" * 16)),
        (LENDER, ClaimTold(NAME, bytes(32))),
    ):
        asking.requests.told(sender, message)
        assert not asking.told
        assert not asking.requests.waiting_for()
    asking.requests.told(LENDER, FetchTold(NAME, code="not-found"))
    assert asking.told == [Told(code="not-found")]
    asking.requests.told(LENDER, lent("SE-C-0380"))
    assert "SE-C-0380" not in asking.ledger.exchange.districts()


def test_what_was_lent_is_not_asked_for_again(asking: Asking) -> None:
    """Each asking is a look at the patient, and logged there: until the entries come, one is enough."""
    asking.fetch()
    assert asking.asked(NOW_MS) == [LENDER]
    asking.requests.told(LENDER, lent("SE-C-0380"))
    assert [ms for ms in range(0, 59_000, 500) if asking.asked(NOW_MS + ms)] == []
    assert asking.requests.waiting_for() == {LENDER}
    assert asking.requests.next_ms() is not None


def test_a_lender_cannot_make_the_asker_open_feeds_without_end(asking: Asking) -> None:
    asking.fetch()
    many = [f"SE-X-{n:04}" for n in range(FETCHED_DISTRICTS_MAX + 1)]
    asking.requests.told(LENDER, lent(*many))
    assert asking.told == [Told(code="limit-exceeded")]
    assert asking.ledger.exchange.districts() == {GOVERNANCE, DISTRICT}
    asking.fetch()
    asking.requests.told(LENDER, lent(*many[:FETCHED_DISTRICTS_MAX]))
    asking.requests.told(LENDER, lent(*many[FETCHED_DISTRICTS_MAX:]))
    assert asking.ledger.exchange.districts() == {GOVERNANCE, DISTRICT, *many[:FETCHED_DISTRICTS_MAX]}


@pytest.mark.parametrize("district", ["*", "x.>", "a\r\nPUB x 0", "x\n", "", "å", "a" * 65])
def test_a_district_that_is_no_name_does_not_get_as_far(district: str) -> None:
    """It would stand in subjects, on screens, and in a feed's opening that no peer takes."""

    with pytest.raises(Malformed):
        decode_message(encode_message(lent(district)))


def test_a_key_that_opens_nothing_is_not_kept(asking: Asking) -> None:
    """What was lent is tried on the entries before it is called granted."""
    document = asking.realm.prescriber.prescribe(
        order(0, holder=asking.ledger.node.identity.node), person=PRESCRIBER
    ).document
    asking.realm.replicate()
    asking.fetch()
    asking.requests.told(LENDER, lent(DISTRICT, document=document))
    assert asking.asked(NOW_MS) == []
    assert asking.told == [Told(code="not-authentic")]


# --- answering --------------------------------------------------------------------------------------------------------


def test_a_claim_in_anothers_name_is_refused(asking: Asking) -> None:
    feed = asking.realm.prescriber.node.own_feed(DISTRICT)
    ask = ClaimAsk(NAME, DOCUMENT, feed, (1,))
    for sender in (OTHER, asking.realm.agency.node.identity.node):
        answer = asking.requests.answer(sender, ask, NOW_MS)
        assert isinstance(answer, ClaimTold)
        assert (answer.code, answer.link) == ("not-authentic", b"")
    unknown = asking.requests.answer(OTHER, ClaimAsk(NAME, DOCUMENT, bytes(16), (1,)), NOW_MS)
    assert unknown.code == "not-met"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (FetchAsk(NAME, PHARMACIST, "x", DOCUMENT), "not-found"),
        (FetchAsk(NAME, PHARMACIST, "x", b"short"), "not-found"),
        (FetchAsk(NAME, PHARMACIST, "x"), ""),
    ],
)
def test_a_fetch_of_nothing_gets_nothing(asking: Asking, ask: FetchAsk, code: str) -> None:
    answer = asking.requests.answer(OTHER, ask, NOW_MS)
    assert isinstance(answer, FetchTold)
    assert (answer.code, answer.documents) == (code, ())


def test_a_fetch_asked_again_is_answered_the_same_and_logged_once(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer got lost, or a hub repeats the question: nobody looked at that patient a second time."""
    monkeypatch.setattr(requests, "LENT_KEPT_MAX", 2)
    document = asking.realm.prescriber.prescribe(
        order(0, holder=asking.ledger.node.identity.node), person=PRESCRIBER
    ).document
    asking.realm.replicate()

    def looks() -> int:
        return sum(1 for _ in asking.ledger.node.store.audit())

    before = looks()
    ask = FetchAsk(NAME, PHARMACIST, "evakuerad", document)
    first = asking.requests.answer(OTHER, ask, NOW_MS)
    assert first.code == ""
    assert all(asking.requests.answer(OTHER, ask, NOW_MS + n) == first for n in range(5))
    assert looks() == before + 1
    assert (
        asking.requests.answer(LENDER, ask, NOW_MS) == first
    )  # Somebody else, who happens to use the same id.
    assert looks() == before + 2
    asking.requests.answer(OTHER, FetchAsk(b"x" * 16, PHARMACIST, "evakuerad", document), NOW_MS)
    assert looks() == before + 3
    assert len(asking.requests._lent_to) == 2


def test_one_peer_is_answered_so_often_a_minute_and_the_others_still_are(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ANSWERS_PER_MINUTE_MAX", 5)
    ask = FetchAsk(NAME, PHARMACIST, "x", DOCUMENT)
    codes = [asking.requests.answer(OTHER, ask, NOW_MS + n).code for n in range(7)]
    assert codes == ["not-found"] * 5 + ["limit-exceeded"] * 2
    assert asking.requests.answer(LENDER, ask, NOW_MS).code == "not-found"
    assert asking.requests.answer(OTHER, ask, NOW_MS + 60_001).code == "not-found"
