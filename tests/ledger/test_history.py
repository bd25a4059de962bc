"""The fold: a function of the set of facts (R4), with no clock (R5), honest about what it lacks (R11)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import events as e
from ledger.facts import Branches, Causality
from ledger.history import FillStatus, Status, decode_state, encode_state, fold, state_digest, view
from ledger.identity import NodeRole
from ledger.ids import Link, document_month
from tests.ledger.case_for_tests import NOW_MS, PERSON, PLACE, SIZE, Author, Case

DAY_MS = 86_400_000


# --- status ---------------------------------------------------------------------------------------------------------


def test_a_prescription_is_active_until_something_happens():
    assert Case().fold().status is Status.ACTIVE


def test_nothing_is_known_without_the_issuing_event():
    case = Case()
    case.act(case.doctor, e.PrescriptionCancelled)
    state = case.fold(held=case.facts.keys() - {case.issued})
    assert (state.status, state.issued, state.fills) == (Status.UNKNOWN, None, ())
    assert state.missing == (case.issued,)


def test_a_cancellation_may_come_before_the_prescription():
    case = Case()
    case.act(case.doctor, e.PrescriptionCancelled, ())
    assert case.fold(held=case.facts.keys() - {case.issued}).status is Status.UNKNOWN
    assert case.fold().status is Status.CANCELLED


def test_cancelled_is_final():
    case = Case()
    cancel = case.act(case.doctor, e.PrescriptionCancelled)
    case.act(case.doctor, e.PrescriptionResumed, (cancel,))
    assert case.fold().status is Status.CANCELLED


def test_a_resume_ends_the_holds_that_it_knew_of_and_no_others():
    case = Case()
    held = case.act(case.bjorken, e.PrescriptionHeld)
    assert case.fold().status is Status.ON_HOLD
    case.act(case.doctor, e.PrescriptionResumed, (held,))
    assert case.fold().status is Status.ACTIVE
    case.act(case.eken, e.PrescriptionHeld)
    assert case.fold().status is Status.ON_HOLD
    case.act(case.doctor, e.PrescriptionResumed)
    assert case.fold().status is Status.ON_HOLD


def test_what_a_revoked_node_changed_has_no_effect():
    case = Case()
    case.act(case.doctor, e.PrescriptionHeld)
    case.act(case.doctor, e.PrescriptionAmended, dosage="9")
    case.act(case.doctor, e.PrescriptionCancelled)
    case.revoke(case.doctor, case.facts[case.issued])
    assert case.fold().status is Status.ACTIVE
    assert case.fold().dosage == ("1 tablett",)


def test_any_prescriber_may_change_a_prescription_since_care_changes_hands():
    case = Case()
    other = Author(case, "doctor 2", NodeRole.PRESCRIBER)
    case.act(other, e.PrescriptionAmended, dosage="2")
    case.act(other, e.PrescriptionCancelled)
    assert case.fold().status is Status.CANCELLED
    assert case.fold().dosage == ("2",)


def test_before_the_month_of_retention_a_document_folds_to_retired_whatever_is_held():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    case.govern(e.RetentionSet, before_month=document_month(case.document) + 1)
    assert encode_state(case.fold()) == encode_state(case.fold(held=()))
    assert case.fold().status is Status.RETIRED


def test_a_block_holds_until_a_consent_that_knew_of_it():
    case = Case()
    case.act(case.doctor, e.ConsentGiven, purposes=("research",))
    blocked = case.act(case.doctor, e.AccessBlocked, purposes=("research", "audit"))
    assert case.fold().blocked == ("audit", "research")
    case.act(case.doctor, e.ConsentGiven, (blocked,), purposes=("audit",))
    assert case.fold().blocked == ("research",)


# --- ignorance --------------------------------------------------------------------------------------------------------


def test_what_is_not_understood_is_listed_and_changes_nothing_else():
    case = Case()
    before = case.fold()
    unknown = case.write(case.doctor, None)
    event = e.NotDispensed(person=PERSON, command=bytes(16), fill=1, reason="x")
    newer = case.write(case.eken, event, whole=False)
    state = case.fold()
    assert state.not_understood == tuple(sorted((unknown, newer)))
    assert (state.status, state.balance) == (before.status, before.balance)
    assert [f.status for f in state.fills] == [f.status for f in before.fills]


def test_parents_that_are_not_held_are_listed_and_a_supply_counts_all_the_same():
    case = Case()
    told = case.act(case.doctor, e.NotDispensed, fill=3, reason="x")
    case.supply(case.eken, 1, case.issued, knowing=(told,))
    state = case.fold(held=case.facts.keys() - {told})
    assert state.missing == (told,)
    assert state.balance.dispensed == SIZE


# --- a function of the set ------------------------------------------------------------------------------------------

Step = tuple[int, int, int, int, int]
STEPS = st.lists(st.tuples(*[st.integers(0, n) for n in (13, 5, 2, 3, 1 << 16)]), max_size=24)


class Soup:
    """Anything by anybody: forks, revocations, thefts, nonsense. Each act knows some of what came before."""

    def __init__(self) -> None:
        self.case = c = Case(fills=3, bearer=(3,))
        again = Author(c, "eken", NodeRole.PHARMACY, 2)
        self.authors = [c.eken, c.bjorken, c.linden, c.doctor, c.agency, again]
        self.grants, self.supplies, self.delegations = [c.issued], [c.issued], [c.issued]
        self.acts = (
            self.dispense, self.emergency, self.bearer, self.transfer, self.reverse, self.correct, self.delegate,
            self.end, self.close, self.twin, self.revoke, self.cancel, self.amend, self.recover,
        )  # fmt: skip

    def step(self, kind: int, who: int, fill: int, whom: int, seed: int) -> None:
        self.rng, self.fill, self.who = random.Random(seed), fill + 1, who
        self.author, self.peer = self.authors[who], self.authors[whom]
        known = sorted(self.case.facts)
        self.knowing = tuple(self.rng.sample(known, min(len(known), self.rng.randrange(3))))
        self.acts[kind]()

    def any(self, links: list[Link]) -> Link:
        return self.rng.choice(links)

    def dispense(self) -> None:
        supply = self.case.supply(
            self.author, self.fill, self.any(self.grants), self.knowing, quantity=self.rng.choice((SIZE, 40)),
            part=self.rng.random() < 0.5, command=bytes([self.rng.randrange(6)]) * 16,
        )  # fmt: skip
        self.supplies.append(supply)
        self.grants.append(supply)

    def emergency(self) -> None:
        self.supplies.append(self.case.supply(self.author, self.fill, None, self.knowing, quantity=30))

    def bearer(self) -> None:
        of = self.any(self.grants)
        self.supplies.append(self.case.supply(self.author, 3, of, self.knowing, basis=e.Basis.BEARER))

    def transfer(self) -> None:
        to = self.rng.choice((self.peer, self.peer, None))
        of = self.any(self.grants)
        self.grants.append(self.case.transfer(self.author, self.fill, of, to, self.knowing))

    def reverse(self) -> None:
        self.grants.append(self.case.reverse(self.author, self.any(self.supplies), self.knowing))

    def correct(self) -> None:
        self.case.act(
            self.author, e.DispensingCorrected, self.knowing,
            supply=self.any(self.supplies), quantity=self.rng.choice((10, 90)),
        )  # fmt: skip

    def delegate(self) -> None:
        self.delegations.append(self.case.delegate(self.author, self.peer, self.knowing))
        self.grants.append(self.delegations[-1])

    def end(self) -> None:
        self.grants.append(self.case.end(self.author, self.any(self.delegations), self.knowing))

    def close(self) -> None:
        self.grants.append(self.case.close(self.author, self.peer, self.knowing))

    def twin(self) -> None:
        self.authors[self.who] = self.author.twin()

    def revoke(self) -> None:
        self.case.revoke(self.author, *self.rng.sample(self.author.path, min(1, len(self.author.path))))

    def cancel(self) -> None:
        self.case.act(self.author, e.PrescriptionCancelled, self.knowing)

    def amend(self) -> None:
        self.case.act(self.author, e.PrescriptionAmended, self.knowing, dosage=str(self.rng.randrange(3)))

    def recover(self) -> None:
        self.case.recover(self.fill, self.knowing)


def soup(steps: list[Step]) -> Case:
    made = Soup()
    for step in steps:
        made.step(*step)
    return made.case


@given(STEPS, st.integers(0, 1000))
@settings(max_examples=300)
def test_the_order_of_arrival_and_the_labels_of_branches_do_not_matter(steps: list[Step], seed: int):
    """R4: with forks, where arrival decides which branch a node calls the first."""
    case = soup(steps)
    expected, again = case.fold(0), case.fold(seed)
    assert encode_state(again) == encode_state(expected)
    assert state_digest(again) == state_digest(expected)
    assert decode_state(encode_state(expected)) == expected


@given(STEPS, st.integers(0, 1000))
@settings(max_examples=200)
def test_whatever_is_held_the_balance_holds_and_no_supply_vanishes(steps: list[Step], seed: int):
    """R9, R10: at any part of any set."""
    case = soup(steps)
    rng = random.Random(seed)
    held = {case.issued} | {link for link in case.facts if rng.random() < 0.7}
    state = case.fold(seed, held)
    b = state.balance
    assert b.authorised == b.dispensed + b.remaining + b.forfeited == 3 * SIZE
    assert min(b.dispensed, b.remaining, b.forfeited, b.over_supply) >= 0
    assert sum(s.net for s in state.supplies) == b.dispensed + b.over_supply
    counted = {link for s in state.supplies for link in s.ids}
    assert counted == {link for link in held if isinstance(case.facts[link].event, e.Dispensed)}
    named = {a.kind for a in state.anomalies} & {"double_dispensing", "over_quantity"}
    assert bool(b.over_supply) == bool(named)


@given(STEPS)
@settings(max_examples=300)
def test_who_acts_on_what_the_state_offers_knowing_all_is_judged_to_act_by_right(steps: list[Step]):
    """R7: what the state says and what the judge accepts are one thing."""
    case = soup(steps)
    for fill in case.fold().fills:
        authors = [a for a in case.authors if a.feed == fill.holder]
        if authors and fill.rests_on is not None:
            author = max(authors, key=lambda a: len(a.path))
            if not author.path and case.governance().revocation(author.node) is not None:
                continue  # Nothing at hand says whose feed it is; its own node knows, and holds nothing.
            supply = case.supply(author, fill.number, fill.rests_on, case.facts, quantity=1, part=True)
            assert case.standing(supply) == ("valid" if author.role is NodeRole.PHARMACY else "breach")


@given(STEPS, st.data())
@settings(max_examples=150)
def test_only_conveyances_count_from_the_districts_document(steps: list[Step], data: st.DataObject):
    """A copy of any other fact put there by anybody changes no prescription."""
    case = soup(steps)
    before = encode_state(case.fold())
    event = case.facts[data.draw(st.sampled_from(sorted(case.facts)))].event
    if not isinstance(event, e.CustodyDelegated | e.CustodyDelegationEnded | e.FeedClosed):
        case.write(Author(case, "rogue", NodeRole.PHARMACY), event, (), within=PLACE)
    assert encode_state(case.fold()) == before


def test_the_canonical_order_is_topological():
    case = soup([(k % 14, k % 6, k % 3, (k + 1) % 4, k * 977) for k in range(40)])
    seen: set[Link] = set()
    for fact in Causality(*case.placed(3)).in_order():
        assert {p for p in fact.parents if p in case.facts} <= seen
        seen.add(fact.id)
    assert seen == set(case.facts)


# --- hostile sizes --------------------------------------------------------------------------------------------------------

MANY = 4096
SECONDS_MAX = 5.0
"""Each takes well under a second on an idle machine; where every fact asked all others, up to half a minute."""


def amendments(case: Case) -> None:
    for _ in range(MANY):
        case.act(case.doctor, e.PrescriptionAmended, (), dosage="2")


def concurrent_amendments(case: Case) -> None:
    for n in range(MANY):
        case.act(Author(case, "doctor", NodeRole.PRESCRIBER, n + 2), e.PrescriptionAmended, (), dosage=str(n))


def supplies_and_cancellations(case: Case) -> None:
    for n in range(MANY // 2):
        case.supply(Author(case, f"p {n}", NodeRole.PHARMACY), 1, quantity=1)
        case.act(Author(case, f"d {n}", NodeRole.PRESCRIBER), e.PrescriptionCancelled, ())


def fills_spent_on_every_branch(case: Case) -> None:
    rights = tuple(e.FillRight(fill, case.issued) for fill in range(1, 31))
    for n in range(MANY // 8):
        case.transfer(case.eken.twin(), 1, case.issued, case.bjorken, fills=rights, salt=str(n))


def supplies_on_every_branch(case: Case) -> None:
    start = case.eken.twin()
    for n in range(MANY):
        author = start if n % 2 else start.twin()
        case.supply(author, 1, case.issued, quantity=1, salt=str(n))


def one_fill_passed_round(case: Case) -> None:
    rests_on = case.issued
    for _ in range(MANY // 2):
        rests_on = case.transfer(case.eken, 1, rests_on, case.eken)
    delegated = case.delegate(case.eken, case.bjorken)
    for _ in range(MANY // 2):
        case.supply(case.bjorken, 1, delegated, quantity=1)


def delegations_begun_and_ended(case: Case) -> None:
    ended: tuple[Link, ...] = ()
    for _ in range(MANY // 4):
        delegated = case.delegate(case.eken, case.bjorken, ended)
        ended = (case.end(case.bjorken, delegated),)
    for _ in range(MANY // 2):
        case.supply(case.eken, 1, ended[0], quantity=1, part=True)


def everybody_knows_everything(case: Case) -> None:
    links = [case.issued]
    for n in range(MANY):
        author = case.eken if n % 2 else case.bjorken
        links.append(case.act(author, e.NotDispensed, tuple(links[-64:]), fill=1, reason="x"))


def corrections(case: Case) -> None:
    supply = case.supply(case.eken, 1, case.issued)
    for n in range(MANY):
        again = Author(case, "eken", NodeRole.PHARMACY, n + 2)
        case.act(again, e.DispensingCorrected, supply=supply, quantity=n + 1)


@pytest.mark.parametrize(
    "write",
    [
        amendments, concurrent_amendments, supplies_and_cancellations, fills_spent_on_every_branch,
        supplies_on_every_branch, one_fill_passed_round, delegations_begun_and_ended, everybody_knows_everything,
        corrections,
    ],
    ids=lambda write: write.__name__,
)  # fmt: skip
def test_a_hostile_author_cannot_make_a_document_expensive(write: Callable[[Case], None]):
    """R15: some four thousand facts, in the shapes that cost most."""
    case = Case(fills=30)
    write(case)
    placed, branches = case.placed(1)
    own = [f for f in placed if f.document == case.document]
    around = [f for f in placed if f.document == PLACE]
    governance = case.governance()
    began = time.perf_counter()
    state = fold(case.document, own, around, branches, governance)
    assert time.perf_counter() - began < SECONDS_MAX
    assert len(encode_state(state)) < 8_000_000


# --- seen on a day ----------------------------------------------------------------------------------------------------------


def test_what_depends_on_today_is_outside_the_digest():
    case = Case(
        valid_from="2027-02-01", valid_until="2027-06-30", first_fill_before="2027-03-01", interval_days=30
    )
    digest = state_digest(case.fold())
    early, due, missed, late = (view(case.fold(), NOW_MS + days * DAY_MS) for days in (0, 20, 60, 200))
    assert (early.not_yet_valid, due.not_yet_valid) == (True, False)
    assert (due.first_fill_missed, missed.first_fill_missed) == (False, True)
    assert (missed.expired, late.expired) == (False, True)
    assert state_digest(case.fold()) == digest


def test_the_next_fill_is_allowed_after_the_interval():
    case = Case(interval_days=30)
    assert view(case.fold(), NOW_MS).next_fill_day == ""
    case.supply(case.eken, 1, case.issued)
    assert view(case.fold(), NOW_MS).next_fill_day == "2027-02-14"


def test_no_stamp_that_can_be_written_stops_a_view():
    case = Case(interval_days=3660)
    case.supply(case.eken, 1, case.issued, ms=(1 << 47) - 1)
    assert view(case.fold(), NOW_MS).next_fill_day > "6429"


def test_a_fact_given_twice_or_as_a_district_fact_too_changes_nothing():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    own, branches = case.placed(0)
    once = fold(case.document, own, (), branches, case.governance())
    assert fold(case.document, [*own, *own], own, branches, case.governance()) == once


def test_a_fork_is_judged_once_both_branches_are_held():
    case = Case()
    twin = case.eken.twin()
    case.supply(case.eken, 1, case.issued)
    one_side = set(case.facts)
    case.act(twin, e.NotDispensed, fill=2, reason="x")
    own, _ = case.placed(0, one_side)
    alone = fold(case.document, own, (), Branches(), case.governance())
    assert alone.fills[1].status is FillStatus.IN_CUSTODY
    assert case.fill(2).status is FillStatus.CONTESTED
