"""Supplies and balance (R9, R10, R17): what was handed over counts, once, and nothing is netted away."""

from __future__ import annotations

import pytest

from ledger import events as e
from ledger.custody import Standing
from ledger.history import Status
from ledger.identity import NodeRole
from ledger.ids import Link
from tests.ledger.case_for_tests import SIZE, Author, Case

COMMAND = b"c" * 16
OTHER = e.Product(pack=e.Coded("npl", "2"), name="Metformin Annat", pack_quantity=SIZE)


def whole(case: Case) -> tuple[int, int, int, int]:
    """Dispensed, remaining, forfeited, over-supply."""
    b = case.fold().balance
    assert b.authorised == b.dispensed + b.remaining + b.forfeited == len(case.fold().fills) * SIZE
    return b.dispensed, b.remaining, b.forfeited, b.over_supply


def test_a_fill_is_so_many_packs_of_so_many_units():
    assert [f.authorised for f in Case(fills=2, packs_per_fill=3).fold().fills] == [3 * SIZE] * 2


def test_a_supply_moves_units_from_remaining_to_dispensed():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    assert whole(case) == (SIZE, 2 * SIZE, 0, 0)


def test_the_prescription_is_completed_when_nothing_remains():
    case = Case(fills=1)
    case.supply(case.eken, 1, case.issued)
    assert case.fold().status is Status.COMPLETED


def test_what_is_over_a_fill_forfeits_the_last_fill_not_yet_dispensed():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    case.supply(case.bjorken, 1, quantity=30)
    assert whole(case) == (SIZE, 2 * SIZE - 30, 30, 30)
    assert [f.remaining for f in case.fold().fills] == [0, SIZE, SIZE - 30]


def test_what_is_over_when_nothing_is_left_to_forfeit_still_stands_apart():
    case = Case(fills=1)
    for author in (case.bjorken, case.linden):
        case.supply(author, 1)
    assert whole(case) == (SIZE, 0, 0, SIZE)


def test_a_supply_on_a_fill_that_does_not_exist_is_all_over_supply():
    case = Case()
    case.supply(case.eken, 9, quantity=40)
    assert whole(case) == (0, 3 * SIZE - 40, 40, 40)
    assert case.kinds() == {"over_quantity"}


@pytest.mark.parametrize("salt", [str(n) for n in range(6)])
def test_custody_stands_before_bearer_before_emergency_wherever_the_order_puts_them(salt: str):
    """Which supply is over is a label; the grounds decide before the place in the order does."""
    case = Case(fills=3, bearer=(2,))
    emergency = case.supply(case.bjorken, 1, quantity=30, salt=salt)
    custody = case.supply(case.eken, 1, case.issued, salt=salt)
    later = case.supply(case.linden, 2, quantity=30, salt=salt)
    bearer = case.supply(case.aspen, 2, case.issued, basis=e.Basis.BEARER, salt=salt)
    standing = {s.id: s.standing for s in case.fold().supplies}
    assert standing == {
        custody: Standing.VALID, bearer: Standing.VALID, emergency: None, later: None,
    }  # fmt: skip
    assert whole(case)[3] == 60


def test_what_is_cancelled_is_forfeited_and_what_was_supplied_stays():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.act(case.doctor, e.PrescriptionCancelled, (supply,))
    assert whole(case) == (SIZE, 0, 2 * SIZE, 0)
    assert case.fold().status is Status.STOPPED
    assert case.kinds() == set()


def test_without_the_prescription_supplies_are_listed_as_unmatched():
    case = Case()
    case.supply(case.eken, 1, case.issued)
    state = case.fold(held=case.facts.keys() - {case.issued})
    assert state.status is Status.UNKNOWN
    assert (state.balance.authorised, state.balance.unmatched, state.balance.over_supply) == (0, SIZE, 0)
    assert len(state.supplies) == 1


# --- reversals and corrections ------------------------------------------------------------------------------------


def test_a_reversal_takes_a_supply_back_and_a_second_one_changes_nothing():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    first = case.reverse(case.eken, supply)
    case.reverse(case.eken, supply, knowing=(first,))
    assert whole(case) == (0, 3 * SIZE, 0, 0)
    assert case.fill(1).rests_on == first
    assert case.kinds() == set()


def test_only_the_node_that_registered_a_supply_reverses_or_corrects_it():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.reverse(case.bjorken, supply)
    case.act(case.bjorken, e.DispensingCorrected, supply=supply, quantity=1)
    assert whole(case)[0] == SIZE


def test_another_incarnation_of_the_node_may_reverse():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.reverse(Author(case, "eken", NodeRole.PHARMACY, 2), supply)
    assert whole(case)[0] == 0


def test_a_stolen_key_makes_no_supply_vanish():
    """Reversals and corrections after the good end of a revoked node have no effect."""
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.reverse(case.eken, supply)
    case.act(case.eken, e.DispensingCorrected, supply=supply, quantity=1)
    case.revoke(case.eken, case.facts[supply])
    assert whole(case)[0] == SIZE
    assert case.fill(1).holder == b""


def test_a_reversal_waits_for_its_supply():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    case.reverse(case.eken, supply)
    assert case.fold(held=case.facts.keys() - {supply}).balance.remaining == 3 * SIZE
    assert case.fold().balance.remaining == 3 * SIZE


def test_the_last_correction_counts():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    first = case.act(case.eken, e.DispensingCorrected, supply=supply, quantity=90)
    case.act(case.eken, e.DispensingCorrected, (first,), supply=supply, quantity=20)
    assert whole(case)[0] == 20
    assert case.kinds() == set()


def test_of_concurrent_corrections_the_largest_counts_with_an_anomaly():
    case = Case()
    supply = case.supply(case.eken, 1, case.issued)
    again = Author(case, "eken", NodeRole.PHARMACY, 2)
    for author, quantity in ((case.eken, 20), (again, 60)):
        case.act(author, e.DispensingCorrected, (supply,), supply=supply, quantity=quantity)
    assert whole(case)[0] == 60
    assert case.kinds() == {"conflicting_correction"}


# --- one command, one supply ----------------------------------------------------------------------------------------


def test_supplies_of_one_node_under_one_command_are_one_supply_across_incarnations_and_forks():
    case = Case()
    twin = case.eken.twin()
    again = Author(case, "eken", NodeRole.PHARMACY, 2)
    made = {case.supply(a, 1, command=COMMAND, salt=str(n)) for n, a in enumerate((case.eken, twin, again))}
    (supply,) = case.fold().supplies
    assert set(supply.ids) == made
    assert supply.id in made
    assert len(made) == 3
    assert whole(case) == (SIZE, 2 * SIZE, 0, 0)


def test_a_reversal_of_any_copy_reverses_the_supply():
    case = Case()
    again = Author(case, "eken", NodeRole.PHARMACY, 2)
    case.supply(case.eken, 1, command=COMMAND)
    case.reverse(again, case.supply(again, 1, command=COMMAND))
    assert whole(case)[0] == 0


@pytest.mark.parametrize("differing", [{"fill": 2}, {"quantity": 50}, {"product": OTHER}])
def test_supplies_under_one_command_that_disagree_all_count_with_an_anomaly(differing: dict[str, object]):
    case = Case()
    again = Author(case, "eken", NodeRole.PHARMACY, 2)
    first = {"fill": 1, "quantity": SIZE, "basis": e.Basis.EMERGENCY, "command": COMMAND}
    case.act(case.eken, e.Dispensed, **first)
    case.act(again, e.Dispensed, **(first | differing))
    assert len(case.fold().supplies) == 2
    assert "command_conflict" in case.kinds()


def test_another_nodes_supply_under_the_same_command_is_another_supply():
    case = Case()
    case.supply(case.eken, 1, command=COMMAND)
    case.supply(case.bjorken, 1, command=COMMAND)
    assert len(case.fold().supplies) == 2
    assert case.kinds() == {"double_dispensing"}


# --- supplies without authority, and linked ones -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["doctor", "agency", "authority", "relay"])
def test_a_supply_out_of_role_counts_and_is_marked(name: str):
    case = Case()
    case.supply(getattr(case, name), 1)
    assert whole(case)[0] == SIZE
    assert case.kinds() == {"out_of_role"}


def link(case: Case, author: Author, supply: Link, fill: int = 1) -> Link:
    return case.act(
        author, e.SupplyLinked,
        supply=supply, document=bytes(16), entry_key=bytes(32), fill=fill, quantity=SIZE,
    )  # fmt: skip


def test_a_linked_supply_counts_once_however_often_it_is_linked():
    case = Case()
    for author in (case.eken, case.bjorken):
        link(case, author, Link(bytes(32)))
    (supply,) = case.fold().supplies
    assert (supply.basis, supply.linked) == (e.Basis.EMERGENCY, bytes(32))
    assert whole(case)[0] == SIZE


def test_a_link_by_who_may_not_dispense_has_no_effect():
    case = Case()
    link(case, case.doctor, Link(bytes(32)))
    assert whole(case)[0] == 0
    assert case.kinds() == {"out_of_role"}


def test_a_link_to_a_supply_of_the_same_document_does_not_count_it_twice():
    case = Case()
    link(case, case.bjorken, case.supply(case.eken, 1, case.issued))
    assert whole(case)[0] == SIZE


def test_a_link_made_in_error_is_taken_back_by_who_made_it_and_made_again():
    case = Case()
    wrong = link(case, case.eken, Link(bytes(32)), fill=1)
    case.reverse(case.bjorken, wrong)
    assert case.fill(1).remaining == 0
    case.reverse(case.eken, wrong)
    link(case, case.eken, Link(bytes(32)), fill=2)
    assert [f.remaining for f in case.fold().fills] == [SIZE, 0, SIZE]
