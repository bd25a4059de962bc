"""What one author writes on one document beyond any use costs the others nothing, and takes nothing from them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import anomalies, surplus
from ledger import events as e
from ledger.facts import Branches, Causality
from ledger.history import FillStatus, Prescription, Status, encode_state, fold
from ledger.surplus import FACTS_PER_AUTHOR_MAX
from tests.ledger.case_for_tests import SIZE, Author, Case
from tests.ledger.model_realm import ModelRealm, governance
from tests.ledger.test_fold_properties import ACTS, play

SMALL = 6
"""A limit that examples reach."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (surplus, anomalies):
        monkeypatch.setattr(module, "FACTS_PER_AUTHOR_MAX", SMALL)
    return SMALL


def flood(case: Case, author: Author, count: int, **fields: Any) -> None:
    for _ in range(count):
        case.act(author, e.AccessBlocked, **{"purposes": ("x",), **fields})


def kinds(state: Prescription) -> list[str]:
    return sorted(a.kind for a in state.anomalies)


# --- at the limit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "found"), [(-1, []), (0, []), (1, ["too_many"])])
def test_the_limit_is_met_at_its_edge(more: int, found: list[str]) -> None:
    case = Case()
    flood(case, case.aspen, FACTS_PER_AUTHOR_MAX + more)
    assert kinds(case.fold()) == found


def test_the_anomaly_names_who_and_how_many_and_one_resolution_holds(small: int) -> None:
    case = Case()
    flood(case, case.aspen, small + 3)
    (anomaly,) = case.fold().anomalies
    assert (anomaly.kind, anomaly.fill, len(anomaly.involved)) == ("too_many", 0, 1)
    assert anomaly.detail == f"3 facts of {case.aspen.node.hex()} beyond {small}"
    case.act(case.agency, e.AnomalyResolved, anomaly=anomaly.id, decision="revoked", comment="")
    flood(case, case.aspen, 5)
    (again,) = case.fold().anomalies
    assert again.id == anomaly.id
    assert len(again.resolutions) == 1


# --- what others did stands ---------------------------------------------------------------------------------------------


def test_others_dispense_cancel_and_resume_as_if_there_were_no_flood(small: int) -> None:
    case = Case()
    flood(case, case.aspen, 3 * small)
    last = case.aspen.path[-1].id
    supply = case.supply(case.eken, 1, case.issued, (case.issued, last))
    held = case.act(case.doctor, e.PrescriptionHeld, reason="x")
    # Resumed by who knows of the hold only through what was set aside.
    through = case.act(case.aspen, e.AccessBlocked, (held,), purposes=("x",))
    case.act(case.doctor, e.PrescriptionResumed, (through,))
    state = case.fold()
    assert (state.status, state.balance.dispensed, state.missing) == (Status.ACTIVE, SIZE, ())
    assert case.standing(supply) == "valid"
    assert state.fills[1].status is FillStatus.IN_CUSTODY
    assert kinds(state) == ["too_many"]
    case.act(case.doctor, e.PrescriptionCancelled, reason=4)
    assert case.fold().status is Status.STOPPED


def test_who_rests_on_what_was_set_aside_is_not_blamed(small: int) -> None:
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.aspen)
    flood(case, case.aspen, 2 * small)
    passed_on = case.transfer(case.aspen, 1, moved, case.bjorken, (moved,))
    supply = case.supply(case.bjorken, 1, passed_on, (passed_on,))
    state = case.fold()
    assert case.standing(supply) == "unproven"
    assert not case.blamed()
    assert state.balance.dispensed == SIZE, "it counts all the same"
    assert case.bjorken.feed not in {fill.holder for fill in state.fills}


def test_many_feeds_do_not_push_out_what_another_feed_said_first(small: int) -> None:
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.linden)
    for incarnation in range(2, small + 1):
        again = Author(case, "eken", case.eken.role, incarnation)
        flood(case, again, small)
    supply = case.supply(case.linden, 1, moved, (moved,))
    assert case.standing(supply) == "valid"
    case.transfer(case.eken, 2, case.issued, case.linden)  # The second of its feed: no room.
    assert case.fill(2).holder == case.eken.feed


def e_role(case: Case) -> Any:
    return case.eken.role


def test_what_a_revocation_took_the_authority_of_makes_room(small: int) -> None:
    case = Case()
    case.transfer(case.eken, 1, case.issued, case.linden)
    moved = case.transfer(case.eken, 2, case.issued, case.linden)
    thief = Author(case, "eken", case.eken.role, 2)
    for _ in range(small):
        case.supply(thief, 3, quantity=1)
    assert case.fill(2).holder == case.eken.feed
    case.revoke(case.eken, case.eken.path[-1])
    assert case.fill(2).rests_on == moved
    state = case.fold()
    assert state.balance.dispensed + state.balance.over_supply == small, "supplies count all the same"


# --- supplies count -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 50])
def test_a_supply_after_any_flood_counts_at_once(small: int, before: int) -> None:
    case = Case()
    flood(case, case.aspen, before)
    case.supply(case.aspen, 2)
    state = case.fold()
    assert (state.balance.dispensed, state.balance.over_supply) == (SIZE, 0)
    assert state.fills[1].status is FillStatus.DISPENSED


def test_supplies_beyond_the_limit_are_one_for_each_fill_and_all_units_count(small: int) -> None:
    case = Case()
    for _ in range(small):
        case.supply(case.aspen, 1, quantity=1)
    many = [case.supply(case.aspen, fill, quantity=7) for fill in (2, 3) for _ in range(20)]
    repeated = b"\7" * 16
    for _ in range(3):
        case.supply(case.aspen, 2, quantity=5, command=repeated)
    state = case.fold()
    assert len(state.supplies) == small + 2
    assert {s.id for s in state.supplies[small:]} < set(many)
    assert sum(s.net for s in state.supplies) == small + 40 * 7 + 5
    assert state.balance.dispensed + state.balance.over_supply == small + 40 * 7 + 5
    assert state.fills[1].status is FillStatus.DISPENSED
    assert kinds(state) == ["over_quantity", "over_quantity", "too_many"]


def test_a_command_that_counts_already_does_not_count_again(small: int) -> None:
    case = Case()
    again = b"\7" * 16
    for _ in range(3 * small):
        case.supply(case.aspen, 1, quantity=5, command=again)
    state = case.fold()
    assert sum(s.net for s in state.supplies) == 5


# --- whatever arrives when ------------------------------------------------------------------------------------------------


@given(ACTS, st.randoms(use_true_random=False))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_arrival_gives_the_same_state_and_no_unit_is_lost(
    small: int, acts: list[tuple[int, int, int, int]], rng: random.Random
) -> None:
    """R4, R9, R10 with a limit that is reached."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=True)
    state = realm.fold(realm.written)
    facts = list(realm.written.values())
    for _ in range(3):
        rng.shuffle(facts)
        own = [f for f in facts if f.document == realm.document]
        rest = [f for f in facts if f.document != realm.document]
        again = fold(realm.document, own + own[:3], rest + facts, Branches(), governance())
        assert encode_state(again) == encode_state(state)
    balance = state.balance
    assert balance.authorised == balance.dispensed + balance.remaining + balance.forfeited
    assert sum(s.net for s in state.supplies) == balance.dispensed + balance.over_supply
    assert (balance.over_supply > 0) == bool({"double_dispensing", "over_quantity"} & set(kinds(state)))


@given(ACTS)
@settings(max_examples=100)
def test_below_the_limit_nothing_is_touched(acts: list[tuple[int, int, int, int]]) -> None:
    """The state is what it would be without any limit, to the byte."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=True)
    state = encode_state(realm.fold(realm.written))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surplus, "FACTS_PER_AUTHOR_MAX", 1 << 60)
        assert encode_state(realm.fold(realm.written)) == state


@given(ACTS, st.integers(0, 60), st.randoms(use_true_random=False))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_passed_through_loses_no_order(
    acts: list[tuple[int, int, int, int]], share: int, rng: random.Random
) -> None:
    """Who knew what, among those that take part, is what it is with all of them."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=True)
    facts = list(realm.written.values())
    aside = {f.id for f in facts if rng.randrange(60) < share}
    whole = Causality(facts, Branches())
    part = Causality((f for f in facts if f.id not in aside), Branches(), [f for f in facts if f.id in aside])
    assert part.order == [link for link in whole.order if link not in aside]
    for one in part.order:
        for other in part.order:
            assert part.before(one, other) == whole.before(one, other)


# --- what it costs --------------------------------------------------------------------------------------------------------


def _supplies(case: Case, count: int) -> None:
    for _ in range(count):
        case.supply(case.aspen, 1, quantity=1)


def _passed_round(case: Case, count: int) -> None:
    rests_on = case.issued
    for _ in range(count):
        rests_on = case.transfer(case.eken, 1, rests_on, case.eken, (rests_on,))


@pytest.mark.parametrize("write", [_supplies, _passed_round])
def test_sixteen_thousand_facts_of_one_author_cost_what_reading_them_costs(
    write: Callable[[Case, int], None],
) -> None:
    """R15: four seconds and a hundred megabytes, were there no limit."""
    case = Case()
    write(case, 16_000)
    placed, branches = case.placed(1)
    began = time.perf_counter()
    state = fold(case.document, placed, (), branches, case.governance())
    assert time.perf_counter() - began < 3
    assert len(encode_state(state)) < 1_000_000
    assert replace(state, anomalies=()).balance.authorised > 0
