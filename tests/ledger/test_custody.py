"""Custody (R7): who may act on a fill, and who is blamed: only who could have known better."""

from __future__ import annotations

import pytest

from ledger import events as e
from ledger.custody import sign_bearer
from ledger.facts import Fact
from ledger.history import FillStatus, holdings
from ledger.identity import NodeRole
from ledger.ids import Link
from tests.ledger.case_for_tests import PLACE, SEEDS, SIZE, Author, Case

BEARER = e.Basis.BEARER


def test_issuing_grants_every_fill_to_the_feed_it_names():
    case = Case()
    assert [right.fill for right in holdings(case.fold(), case.eken.feed)] == [1, 2, 3]
    assert all(f.status is FillStatus.IN_CUSTODY and f.rests_on == case.issued for f in case.fold().fills)


def test_without_holder_or_bearer_key_nobody_holds_a_fill():
    assert Case(held=False).fill(1).status is FillStatus.NO_CUSTODY


def test_the_holder_dispenses_and_nothing_is_odd():
    case = Case()
    assert case.standing(case.supply(case.eken, 1, case.issued)) == "valid"
    assert case.kinds() == set()


def test_anybody_else_who_acts_on_it_is_in_breach_and_takes_nothing():
    case = Case()
    supply = case.supply(case.bjorken, 1, case.issued)
    moved = case.transfer(case.bjorken, 2, case.issued, case.linden)
    assert case.blamed() == {supply, moved}
    assert case.fill(2).holder == case.eken.feed


def test_a_transfer_moves_a_fill_and_its_giver_may_not_act_on_it_again():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken)
    assert case.fill(1).holder == case.bjorken.feed
    again = case.supply(case.eken, 1, case.issued)
    taken = case.supply(case.bjorken, 1, moved)
    assert case.standing(taken) == "valid"
    assert case.blamed() == {again}


def test_a_fill_passed_on_twice_in_turn_blames_the_second_time_only():
    case = Case()
    first = case.transfer(case.eken, 1, case.issued, case.bjorken)
    second = case.transfer(case.eken, 1, case.issued, case.linden)
    assert case.blamed() == {second}
    assert case.standing(case.supply(case.bjorken, 1, first)) == "valid"
    assert case.fill(1).holder != case.linden.feed


def test_a_transfer_that_names_one_fill_twice_passes_nothing_on():
    for order in (1, -1):
        case = Case()
        rights = (e.FillRight(1, case.issued), e.FillRight(1, b"?" * 32))[::order]
        moved = case.transfer(case.eken, 1, case.issued, case.bjorken, fills=rights)
        assert case.blamed() == {moved}
        assert case.fill(1).holder == case.eken.feed


def test_what_an_act_rests_on_may_be_missing_then_it_is_unproven_and_nobody_is_blamed():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken)
    supply = case.supply(case.bjorken, 1, moved)
    state = case.fold(held=case.facts.keys() - {moved})
    assert state.supplies[0].standing == "unproven"
    assert state.balance.dispensed == SIZE
    assert not {a.kind for a in state.anomalies} & {"custody_breach", "contested_custody"}
    assert moved in state.missing
    assert case.standing(supply) == "valid"


def test_a_part_supply_leaves_the_rest_with_its_feed():
    case = Case()
    first = case.supply(case.eken, 1, case.issued, quantity=30, part=True)
    assert case.fill(1).rests_on == first
    assert case.fill(1).status is FillStatus.PART_DISPENSED
    assert case.standing(case.supply(case.eken, 1, first, quantity=70)) == "valid"
    assert case.kinds() == set()


def test_a_reversal_gives_custody_back_to_the_feed_that_supplied():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    back = case.reverse(case.eken, supply)
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.eken.feed, back)
    assert case.standing(case.supply(case.eken, 1, back)) == "valid"
    assert case.kinds() == set()


def test_a_reversal_of_an_emergency_supply_grants_nothing():
    case = Case(held=False)
    case.reverse(case.eken, case.supply(case.eken, 1))
    assert case.fill(1).status is FillStatus.NO_CUSTODY
    assert case.fill(1).remaining == SIZE


def test_another_incarnation_that_reverses_gets_no_custody():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.reverse(Author(case, "eken", NodeRole.PHARMACY, 2), supply)
    assert case.fill(1).remaining == SIZE
    assert case.fill(1).holder == b""


@pytest.mark.parametrize("number", range(8))
def test_a_copy_of_the_issuing_event_by_somebody_else_changes_nothing(number: int):
    """Its bytes found the same document: whoever reads them can write them again, and must take nothing by that."""
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    copy = case.write(Author(case, f"doctor {number}", NodeRole.PRESCRIBER), case.event, knowing=())
    assert case.standing(supply) == "valid"
    assert case.kinds() == set()
    assert case.fill(2).holder == case.eken.feed
    second = case.supply(case.eken, 1, copy)
    assert case.blamed() == {second}, "one fill, two copies: still one right"


def test_a_copy_of_the_issuing_event_by_a_revoked_node_takes_no_authority_from_the_other():
    case = Case()
    thief = Author(case, "doctor 2", NodeRole.PRESCRIBER)
    case.write(thief, case.event, knowing=())
    case.revoke(thief)
    assert case.fill(1).holder == case.eken.feed
    assert case.fold().author == case.doctor.node


@pytest.mark.parametrize("reversed_first", [False, True])
def test_what_rests_on_an_act_that_is_not_held_is_unproven_however_far_away(reversed_first: bool):
    """A peer's feed came without the transfer that gave it the fill: nobody is blamed until that is here."""
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken)
    supply = case.supply(case.bjorken, 1, moved, {moved}, quantity=3, part=True)
    ground = case.reverse(case.bjorken, supply, {supply}) if reversed_first else supply
    on = case.transfer(case.bjorken, 1, ground, case.linden, {ground})
    case.supply(case.linden, 1, on, {on}, quantity=7)
    assert case.kinds() == set()
    for lacking in ({moved}, {moved, supply}):
        state = case.fold(held=set(case.facts) - lacking)
        assert not state.anomalies
        assert lacking & set(state.missing)


def test_a_delegate_is_not_blamed_while_what_its_delegator_was_given_is_not_held():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken)
    delegated = case.delegate(case.bjorken, case.linden)
    supply = case.supply(case.linden, 1, delegated, {moved, delegated})
    assert case.standing(supply) == "valid"
    state = case.fold(held=set(case.facts) - {moved})
    assert not state.anomalies
    assert state.supplies[0].standing is not None
    assert state.supplies[0].standing.value == "unproven"


# --- bearer ---------------------------------------------------------------------------------------------------


def test_a_bearer_fill_is_spent_by_a_signature_over_document_fill_and_feed():
    case = Case(held=False, bearer=(1, 2))
    assert case.fill(1).status is FillStatus.BEARER
    assert case.standing(case.supply(case.bjorken, 1, case.issued, basis=BEARER)) == "valid"
    assert case.kinds() == set()


@pytest.mark.parametrize("of", ["other feed", "other fill", "other key", "none"])
def test_a_bearer_supply_without_the_right_signature_is_a_breach(of: str):
    case = Case(held=False, bearer=(1, 2))
    feed, fill = case.bjorken.feed, 1
    signatures = {
        "other feed": sign_bearer(SEEDS[fill], case.document, fill, case.eken.feed),
        "other fill": sign_bearer(SEEDS[fill], case.document, 2, feed),
        "other key": sign_bearer(SEEDS[2], case.document, fill, feed),
        "none": None,
    }
    supply = case.supply(case.bjorken, fill, case.issued, basis=BEARER, bearer_signature=signatures[of])
    assert case.blamed() == {supply}


def test_copies_of_a_paper_spent_twice_are_double_dispensing_and_nobody_is_blamed():
    case = Case(held=False, bearer=(1,))
    both = {case.supply(a, 1, case.issued, basis=BEARER) for a in (case.eken, case.bjorken)}
    assert case.kinds() == {"double_dispensing"}
    assert case.blamed("double_dispensing") == both


def test_a_holder_may_make_a_fill_bearer_and_it_never_returns_to_custody():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, None)
    assert case.fill(1).status is FillStatus.BEARER
    back = case.transfer(case.eken, 1, moved, case.bjorken)
    assert case.blamed() == {back}
    assert case.standing(case.supply(case.linden, 1, moved, basis=BEARER)) == "valid"


# --- conveyances ------------------------------------------------------------------------------------------------


def test_a_delegate_acts_for_the_delegator_and_the_delegator_no_longer_does():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    fill = case.fill(1)
    assert (fill.holder, fill.rests_on, fill.conveyed) == (case.bjorken.feed, delegated, True)
    good = case.supply(case.bjorken, 1, delegated)
    bad = case.supply(case.eken, 2, case.issued)
    assert case.standing(good) == "valid"
    assert case.blamed() == {bad}


def test_what_was_spent_before_the_delegation_is_not_the_delegates():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    delegated = case.delegate(case.eken, case.bjorken)
    assert case.blamed() == set()
    again = case.supply(case.bjorken, 1, delegated)
    assert case.blamed() == {again}


def test_what_is_named_to_the_delegator_later_is_the_delegates():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    moved = case.transfer(case.bjorken, 1, delegated, case.linden)
    back = case.transfer(case.linden, 1, moved, case.eken)
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.bjorken.feed, delegated)
    assert case.standing(case.supply(case.bjorken, 1, delegated, knowing=(back,))) == "valid"


def test_only_the_delegate_ends_a_delegation_and_then_the_delegator_acts_on_the_end():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    case.end(case.eken, delegated)
    assert case.fill(1).holder == case.bjorken.feed
    ended = case.end(case.bjorken, delegated)
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.eken.feed, ended)
    assert case.standing(case.supply(case.eken, 1, ended)) == "valid"
    late = case.supply(case.bjorken, 2, delegated)
    assert case.blamed() == {late}


def test_a_delegator_who_has_not_seen_the_end_may_not_act():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    case.end(case.bjorken, delegated)
    early = case.supply(case.eken, 1, case.issued)
    assert case.blamed() == {early}


def test_a_second_delegation_while_one_is_open_is_void_for_ever():
    case = Case()
    first = case.delegate(case.eken, case.bjorken)
    case.delegate(case.eken, case.linden)
    assert case.fill(1).holder == case.bjorken.feed
    ended = case.end(case.bjorken, first)
    assert case.fill(1).holder == case.eken.feed
    third = case.delegate(case.eken, case.aspen, knowing=(ended,))
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.aspen.feed, third)


def test_a_closed_feed_names_its_successor_for_good():
    case = Case()
    closed = case.close(case.eken, case.bjorken)
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.bjorken.feed, closed)
    assert case.standing(case.supply(case.bjorken, 1, closed)) == "valid"
    after = case.supply(case.eken, 2, case.issued)
    assert case.blamed() == {after}


def test_conveyances_are_followed_and_the_last_of_them_is_rested_on():
    case = Case()
    first = case.delegate(case.eken, case.bjorken)
    second = case.close(case.bjorken, case.linden, knowing=(first,))
    third = case.delegate(case.linden, case.aspen, knowing=(second,))
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.aspen.feed, third)
    assert case.standing(case.supply(case.aspen, 1, third)) == "valid"
    assert case.kinds() == set()


def test_a_delegate_of_a_later_delegate_is_not_blamed():
    """Linden acts for Björken since before Eken delegated to Björken: what Linden rests on must tell all of it."""
    case = Case()
    early = case.delegate(case.bjorken, case.linden)
    late = case.delegate(case.eken, case.bjorken, knowing=(early,))
    fill = case.fill(1)
    assert (fill.holder, fill.rests_on) == (case.linden.feed, late)
    assert case.standing(case.supply(case.linden, 1, fill.rests_on)) == "valid"
    assert case.kinds() == set()


def test_conveyances_that_know_nothing_of_each_other_leave_a_fill_with_nobody():
    case = Case()
    case.delegate(case.bjorken, case.linden)
    case.delegate(case.eken, case.bjorken)
    assert case.fill(1).status is FillStatus.NO_CUSTODY


def test_a_delegation_back_to_who_conveyed_is_void():
    case = Case()
    first = case.delegate(case.eken, case.bjorken)
    case.delegate(case.bjorken, case.eken, knowing=(first,))
    assert case.fill(1).holder == case.bjorken.feed


def test_two_feeds_that_unknowingly_delegate_to_each_other_leave_nobody_until_one_ends_it():
    case = Case()
    first = case.delegate(case.eken, case.bjorken)
    second = case.delegate(case.bjorken, case.eken)
    assert case.fill(1).status is FillStatus.NO_CUSTODY
    ended = case.end(case.bjorken, first, knowing=(second,))
    assert (case.fill(1).holder, case.fill(1).rests_on) == (case.eken.feed, ended)
    assert case.standing(case.supply(case.eken, 1, ended)) == "valid"
    assert case.kinds() == set()


def test_a_delegate_who_passed_it_on_cannot_end_it_before_his_own_delegate_did():
    """Else the delegator and the delegate's delegate could both act, each in good faith."""
    case = Case()
    first = case.delegate(case.eken, case.bjorken)
    second = case.delegate(case.bjorken, case.linden, knowing=(first,))
    case.end(case.bjorken, first, knowing=(second,))
    assert case.fill(1).holder == case.linden.feed
    assert case.standing(case.supply(case.linden, 1, second)) == "valid"
    inner = case.end(case.linden, second)
    outer = case.end(case.bjorken, first, knowing=(inner,))
    assert (case.fill(2).holder, case.fill(2).rests_on) == (case.eken.feed, outer)


def test_a_delegation_held_ahead_of_its_feed_takes_away_and_confers_nothing():
    """What its author spent before it may still be under way: it is of a slower lane."""
    case = Case()
    spent = case.supply(case.eken, 1, case.issued)
    delegated = case.delegate(case.eken, case.bjorken, detached=True)
    state = case.fold(held=case.facts.keys() - {spent})
    assert [f.status for f in state.fills] == [FillStatus.NO_CUSTODY] * 3
    case.chain(delegated)
    assert case.fill(2).holder == case.bjorken.feed


def test_an_end_held_ahead_of_its_feed_gives_nothing_back():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    spent = case.supply(case.bjorken, 1, delegated)
    case.end(case.bjorken, delegated, detached=True)
    state = case.fold(held=case.facts.keys() - {spent})
    assert all(fill.holder == b"" for fill in state.fills)


def test_a_transfer_held_ahead_of_its_feed_confers_nothing():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken, detached=True)
    assert case.fill(1).status is FillStatus.NO_CUSTODY
    case.chain(moved)
    assert case.fill(1).holder == case.bjorken.feed


def test_a_paper_held_ahead_of_its_feed_founds_a_bearer_supply():
    case = Case(held=False, bearer=(1,))
    case.chain(case.issued, detached=True)
    assert case.fill(1).status is FillStatus.BEARER


def test_what_stands_in_the_wrong_document_has_no_effect():
    """A node that writes elsewhere than it should takes no custody from anybody, and hides no supply."""
    case = Case()
    rogue = Author(case, "rogue", NodeRole.PRESCRIBER)
    case.write(rogue, case.event, knowing=(), within=PLACE)
    case.act(case.agency, e.CustodyRecovered, fills=(1,), reason="x", within=PLACE)
    command = bytes(15) + b"\xff"
    supply = case.supply(case.eken, 2, case.issued, command=command)
    for number in range(8):
        case.supply(case.eken, 2, command=command, within=PLACE, salt=str(number), knowing=())
    misplaced = case.act(case.eken, e.CustodyDelegated, to=case.bjorken.feed)
    state = case.fold()
    assert state.fills[0].holder == state.fills[2].holder == case.eken.feed
    assert state.balance.dispensed == SIZE
    assert state.supplies[0].ids == (supply,)
    assert [a.involved for a in state.anomalies if a.kind == "void_event"] == [(misplaced,)]


# --- what could not be known ------------------------------------------------------------------------------------


def test_a_recovery_that_the_holder_could_not_know_of_makes_its_supply_contested():
    case = Case()
    case.recover(1)
    assert case.standing(case.supply(case.eken, 1, case.issued)) == "contested"
    assert case.kinds() == {"contested_custody"}


def test_a_supply_after_a_recovery_it_knew_of_is_a_breach():
    case = Case()
    recovered = case.recover(1)
    supply = case.supply(case.eken, 1, case.issued, knowing=(recovered,))
    assert case.blamed() == {supply}


def test_a_recovery_that_knew_of_the_supply_contests_nothing():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued, quantity=SIZE - 1)
    case.recover(1, knowing=(supply,))
    assert case.standing(supply) == "valid"
    assert case.fill(1).status is FillStatus.RECOVERED


def test_a_recovery_touches_no_other_fill():
    case = Case()
    case.recover(1)
    statuses = [f.status for f in case.fold().fills]
    assert statuses == [FillStatus.RECOVERED, *[FillStatus.IN_CUSTODY] * 2]


def test_what_was_spent_before_a_fork_stands():
    case = Case(fills=4)
    before = case.supply(case.eken, 1, case.issued)
    twin = case.eken.twin()
    after = [case.supply(author, 2, case.issued) for author in (case.eken, twin)]
    assert case.standing(before) == "valid"
    assert {case.standing(supply) for supply in after} == {"contested"}
    assert case.fill(3).status is FillStatus.CONTESTED
    assert case.kinds() == {"contested_custody", "forked_feed", "double_dispensing"}


def test_who_acts_on_a_forked_feed_knowing_of_the_fork_is_in_breach():
    case = Case()
    twin = case.eken.twin()
    other = case.act(twin, e.NotDispensed, fill=1, reason="slut")
    knowing = case.supply(case.eken, 1, case.issued, knowing=(other,))
    assert case.blamed() == {knowing}


def fork(case: Case) -> None:
    """Eken's image runs twice from here."""
    twin = case.eken.twin()
    case.act(case.eken, e.NotDispensed, fill=2, reason="slut")
    case.act(twin, e.NotDispensed, fill=3, reason="slut")


def test_who_was_given_a_fill_before_the_fork_keeps_it():
    case = Case()
    moved = case.transfer(case.eken, 1, case.issued, case.bjorken)
    fork(case)
    assert case.fill(1).holder == case.bjorken.feed
    assert case.standing(case.supply(case.bjorken, 1, moved)) == "valid"


def test_who_was_given_a_fill_on_one_branch_of_a_fork_is_contested_not_blamed():
    case = Case()
    twin = case.eken.twin()
    one = case.transfer(case.eken, 1, case.issued, case.bjorken)
    two = case.transfer(twin, 1, case.issued, case.linden)
    supplies = [case.supply(case.bjorken, 1, one), case.supply(case.linden, 1, two)]
    assert {case.standing(s) for s in supplies} == {"contested"}
    assert case.blamed() == set()


def test_successors_named_on_two_branches_of_a_fork_are_contested_not_blamed():
    """Each followed the feed that it knew; only the feed itself erred or cheated."""
    case = Case()
    twin = case.eken.twin()
    one, two = case.close(case.eken, case.bjorken), case.close(twin, case.linden)
    supplies = [case.supply(case.bjorken, 1, one), case.supply(case.linden, 1, two)]
    assert {case.standing(s) for s in supplies} == {"contested"}
    assert case.blamed() == set()
    assert case.fill(2).holder == b""


def test_a_delegate_since_before_the_fork_acts_on():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    fork(case)
    assert case.fill(1).holder == case.bjorken.feed
    assert case.standing(case.supply(case.bjorken, 1, delegated)) == "valid"


# --- revocation ---------------------------------------------------------------------------------------------------


def test_what_a_revoked_holder_did_up_to_its_good_end_stands():
    case = Case()
    good = case.supply(case.eken, 1, case.issued)
    bad = case.supply(case.eken, 2, case.issued)
    case.revoke(case.eken, case.facts[good])
    assert (case.standing(good), case.standing(bad)) == ("valid", "contested")
    assert case.fill(3).status is FillStatus.CONTESTED
    assert case.fold().balance.dispensed == 2 * SIZE
    assert case.blamed("supplied_without_authority") == {bad}


def test_an_end_that_names_another_entry_of_that_place_makes_that_place_no_good():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    mine = case.facts[supply]
    named = Fact(**{n: getattr(mine, n) for n in mine.__struct_fields__} | {"id": Link(bytes(32))})
    case.revoke(case.eken, named)
    assert case.standing(supply) == "contested"


def test_on_a_forked_feed_the_branch_of_the_named_end_is_good_and_no_other():
    case = Case()
    root = case.supply(case.eken, 1, case.issued)
    twin = case.eken.twin()
    good = [case.act(case.eken, e.NotDispensed, fill=2, reason=str(n)) for n in range(3)]
    for n in range(2):
        case.act(twin, e.NotDispensed, fill=3, reason=str(n))
    case.revoke(case.eken, case.facts[good[1]])
    assert {link for link, _, _ in case.fold().not_dispensed} == set(good[:2])
    assert case.standing(root) == "valid"


def test_a_supply_by_who_knew_of_his_revocation_is_a_breach():
    case = Case()
    mark = case.revoke(case.eken)
    unknowing = case.supply(case.eken, 1, case.issued)
    knowing = case.supply(case.eken, 2, case.issued, governance=mark)
    later = case.supply(case.eken, 3, case.issued)
    assert case.standing(unknowing) == "contested"
    assert case.blamed() == {knowing, later}, "what follows in its feed knew as well, whatever it cites"


def test_a_supply_by_who_had_read_an_event_that_knew_is_a_breach():
    case = Case()
    mark = case.revoke(case.eken)
    told = case.act(case.doctor, e.PrescriptionAmended, dosage="2 tabletter", governance=mark)
    supply = case.supply(case.eken, 1, case.issued, knowing=(told,))
    assert case.blamed() == {supply}


def test_what_a_revoked_feed_holds_is_contested_even_if_it_never_wrote_here():
    case = Case()
    elsewhere = Fact(
        id=Link(bytes(32)), feed=case.eken.feed, branch=0, sequence=7, stamp=0, document=case.document,
        author=case.eken.node, role=case.eken.role, parents=(), kind="", event=None, event_bytes=b"",
    )  # fmt: skip
    case.revoke(case.eken, elsewhere)
    assert case.fill(1).status is FillStatus.CONTESTED


def test_what_a_node_admitted_with_a_stolen_key_holds_is_contested():
    case = Case()
    admitted = Author(case, "new", NodeRole.PHARMACY, admitted_by=case.authority.node)
    case.transfer(case.eken, 1, case.issued, admitted)
    case.act(admitted, e.NotDispensed, fill=2, reason="slut")
    assert case.fill(1).holder == admitted.feed
    case.revoke(case.authority)
    assert case.fill(1).status is FillStatus.CONTESTED


def test_a_delegation_by_a_revoked_node_contests_what_its_delegate_does():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    supply = case.supply(case.bjorken, 1, delegated)
    case.revoke(case.eken)
    assert case.standing(supply) == "contested"
    assert case.fill(2).status is FillStatus.CONTESTED


def test_a_delegation_up_to_the_good_end_of_a_revoked_node_goes_on():
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    case.revoke(case.eken, case.facts[delegated])
    assert case.fill(1).holder == case.bjorken.feed
    assert case.standing(case.supply(case.bjorken, 1, delegated)) == "valid"


@pytest.mark.parametrize("good", [True, False])
def test_what_rests_on_a_reversal_is_contested_if_its_author_was_revoked_unknowingly(good: bool):
    """The reversal takes nothing back, yet nobody who passed on what it gave could know."""
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    reversal = case.reverse(case.eken, supply)
    moved = case.transfer(case.eken, 1, reversal, case.bjorken)
    case.supply(case.bjorken, 1, moved, {moved})
    case.revoke(case.eken, *([case.facts[supply]] if good else []))
    assert not case.blamed()
    assert case.kinds() >= {"contested_custody", "double_dispensing"}
    assert case.fill(1).holder == b""


def test_the_issuing_of_a_revoked_prescriber_grants_contested_custody():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.revoke(case.doctor)
    assert case.standing(supply) == "contested"
    assert case.fill(2).status is FillStatus.CONTESTED
    assert case.fold().balance.dispensed == SIZE
