"""The guard (R7, R8, R11): what may be supplied now, on what ground, with what risk, and how much."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ledger import events as e
from ledger.custody import bearer_public_key
from ledger.errors import InvalidInput
from ledger.events import Basis, ControlledClass, Criticality, Level
from ledger.guard import Decision, Horizon, SupplyRequest, Unheard, Verdict, decide
from ledger.history import holdings
from ledger.ids import Link, NodeId
from ledger.policy import EmergencyRule, MedicineClass, Policy, decode_policy, default_policy, encode_policy
from tests.ledger.case_for_tests import NOW_MS, SEEDS, SIZE, Author, Case

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
EXERCISE = default_policy("exercise")


def ask(
    case: Case, by: Author | None = None, *, fill: int = 1, quantity: int | None = None, basis: Basis | None = None,
    reason: str = "innehavaren nås inte", seed: bytes | None = None, policy: Policy = EXERCISE, legal_basis: str = "",
    production: bool = False, level: Level = Level.CRISIS, horizon: Horizon | None = None, now_ms: int = NOW_MS,
    held: Iterable[Link] | None = None,
) -> Decision:  # fmt: skip
    request = SupplyRequest(
        fill=fill, quantity=quantity, basis=basis, reason=reason, own_feed=(by or case.eken).feed,
        bearer_public_key=bearer_public_key(seed) if seed else None,
    )  # fmt: skip
    return decide(
        case.fold(held=held), request, policy, legal_basis, production=production, level=level,
        horizon=horizon or Horizon(), now_ms=now_ms,
    )  # fmt: skip


def codes(decision: Decision) -> set[str]:
    return {reason.code for reason in decision.reasons}


# --- custody and bearer -------------------------------------------------------------------------------------------------


def test_the_holder_is_permitted_without_any_risk():
    case = Case()
    answer = ask(case, level=Level.NORMAL, reason="", policy=Policy())
    assert (answer.verdict, answer.basis, answer.rests_on) == (Verdict.PERMIT, Basis.CUSTODY, case.issued)
    assert (answer.quantity_max, answer.reasons) == (SIZE, ())


def test_controlled_substances_go_on_custody_as_others():
    assert ask(Case(controlled=ControlledClass.II)).verdict is Verdict.PERMIT


def test_the_bearers_key_permits_its_fill_and_no_other():
    case = Case(held=False, bearer=(1, 2))
    good = ask(case, seed=SEEDS[1])
    assert (good.verdict, good.basis) == (Verdict.PERMIT, Basis.BEARER)
    assert ask(case, seed=SEEDS[2], basis=Basis.BEARER).verdict is Verdict.REFUSE


def test_a_second_pharmacy_is_refused_custody_and_told_who_holds_the_fill():
    case = Case()
    answer = ask(case, case.bjorken, basis=Basis.CUSTODY)
    assert (answer.verdict, answer.quantity_max) == (Verdict.REFUSE, 0)
    assert codes(answer) == {"no-custody"}
    assert any(case.eken.feed.hex() in reason.message for reason in answer.reasons)


@pytest.mark.parametrize("quantity", [0, -1, SIZE + 1])
def test_a_quantity_outside_what_remains_is_refused(quantity: int):
    assert "quantity" in codes(ask(Case(), quantity=quantity))


def test_what_is_dispensed_or_forfeited_is_refused_even_to_its_holder():
    case = Case(fills=2)
    case.supply(case.eken, 1, case.issued)
    case.supply(case.bjorken, 1)
    for fill, code in ((1, "already-dispensed"), (2, "forfeited")):
        answer = ask(case, fill=fill)
        assert answer.verdict is Verdict.REFUSE
        assert code in codes(answer)


def test_an_owed_rest_is_supplied_on_custody():
    case = Case()
    part = case.supply(case.eken, 1, case.issued, quantity=30, part=True)
    answer = ask(case)
    assert (answer.verdict, answer.rests_on, answer.quantity_max) == (Verdict.PERMIT, part, SIZE - 30)


def test_recovered_fills_are_never_custody():
    case = Case()
    case.recover(1)
    answer = ask(case)
    assert (answer.verdict, answer.basis) == (Verdict.PERMIT_WITH_RISK, Basis.EMERGENCY)
    assert ask(case, basis=Basis.CUSTODY).verdict is Verdict.REFUSE


def test_contested_fills_are_never_custody():
    case = Case()
    twin = case.eken.twin()
    for author in (case.eken, twin):
        case.act(author, e.NotDispensed, fill=1, reason=author.feed.hex() + str(author is twin))
    answer = ask(case)
    assert (answer.verdict, answer.basis) == (Verdict.PERMIT_WITH_RISK, Basis.EMERGENCY)
    assert ask(case, basis=Basis.CUSTODY).verdict is Verdict.REFUSE


def test_what_was_conveyed_is_custody_only_where_all_is_held_read_and_understood():
    """The former holder may have spent it in what is not at hand."""
    case = Case()
    delegated = case.delegate(case.eken, case.bjorken)
    assert ask(case, case.bjorken).verdict is Verdict.PERMIT
    assert holdings(case.fold(), case.bjorken.feed)[0].rests_on == delegated
    unread = Horizon(unread=1)
    assert ask(case, case.bjorken, horizon=unread).basis is Basis.EMERGENCY
    assert ask(case, case.bjorken, horizon=unread, basis=Basis.CUSTODY).verdict is Verdict.REFUSE
    assert holdings(case.fold(), case.bjorken.feed, unread=1) == []
    told = case.act(case.doctor, e.NotDispensed, fill=1, reason="x")
    case.act(case.doctor, e.PrescriptionAmended, (told,), dosage="2")
    some = case.facts.keys() - {told}
    assert ask(case, case.bjorken, held=some).basis is Basis.EMERGENCY
    assert holdings(case.fold(held=some), case.bjorken.feed) == []


def test_who_was_named_holder_may_act_where_something_is_unread_with_the_risk_named():
    answer = ask(Case(), horizon=Horizon(unread=2))
    assert (answer.verdict, answer.basis) == (Verdict.PERMIT_WITH_RISK, Basis.CUSTODY)
    assert codes(answer) == {"unread"}


# --- the prescription itself ------------------------------------------------------------------------------------------


def test_without_a_prescription_nothing_is_permitted():
    assert codes(ask(Case(), held=())) == {"unknown-prescription"}


def test_a_fill_that_does_not_exist_is_refused():
    assert codes(ask(Case(), fill=4)) == {"no-such-fill"}


@pytest.mark.parametrize(
    ("kind", "code"), [(e.PrescriptionHeld, "on-hold"), (e.PrescriptionCancelled, "cancelled")]
)
def test_held_and_cancelled_prescriptions_are_refused_to_everybody(kind: type[e.Event], code: str):
    case = Case(criticality=Criticality.LIFE_SUSTAINING)
    case.act(case.doctor, kind)
    for by in (case.eken, case.bjorken):
        answer = ask(case, by)
        assert answer.verdict is Verdict.REFUSE
        assert code in codes(answer)


def test_days_are_weighed_when_seen():
    case = Case(valid_from="2027-02-01", valid_until="2027-06-30", first_fill_before="2027-03-01")
    assert codes(ask(case)) == {"not-yet-valid"}
    assert ask(case, now_ms=NOW_MS + 20 * DAY_MS).verdict is Verdict.PERMIT
    assert codes(ask(case, now_ms=NOW_MS + 60 * DAY_MS)) == {"first-fill-missed"}
    assert codes(ask(case, now_ms=NOW_MS + 200 * DAY_MS)) == {"expired", "first-fill-missed"}


def test_an_early_refill_is_a_reason_not_a_refusal_and_policy_says_what_is_early():
    case = Case(interval_days=30)
    case.supply(case.eken, 1, case.issued)
    answer = ask(case, fill=2, now_ms=NOW_MS + 10 * DAY_MS)
    assert (answer.verdict, answer.basis) == (Verdict.PERMIT_WITH_RISK, Basis.CUSTODY)
    assert codes(answer) == {"early-refill"}
    assert ask(case, fill=2, now_ms=NOW_MS + 23 * DAY_MS).verdict is Verdict.PERMIT


def test_what_is_not_understood_or_missing_is_named_as_risk():
    case = Case()
    told = case.write(case.doctor, None)
    case.act(case.doctor, e.PrescriptionAmended, (told,), dosage="2")
    assert codes(ask(case)) == {"not-understood"}
    assert codes(ask(case, held=case.facts.keys() - {told})) == {"missing"}


# --- beyond custody -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "from_level"),
    [
        ({}, Level.CRISIS),
        ({"criticality": Criticality.LIFE_SUSTAINING}, Level.NORMAL),
        ({"controlled": ControlledClass.IV, "criticality": Criticality.LIFE_SUSTAINING}, None),
    ],
    ids=["ordinary", "life-sustaining", "controlled"],
)
def test_each_class_has_a_level_from_which_it_may_be_supplied_beyond_custody(
    fields: dict[str, object], from_level: Level | None
):
    case, levels = Case(**fields), list(Level)
    permitted = [v for v in levels if ask(case, case.bjorken, level=v).verdict is Verdict.PERMIT_WITH_RISK]
    assert permitted == ([] if from_level is None else levels[levels.index(from_level) :])


def test_an_emergency_supply_says_why_it_is_one_and_is_never_without_risk():
    case = Case()
    answer = ask(case, case.bjorken)
    assert (answer.verdict, answer.basis) == (Verdict.PERMIT_WITH_RISK, Basis.EMERGENCY)
    assert answer.rests_on is None
    assert codes(answer) == {"beyond-custody"}


def test_an_emergency_supply_needs_a_reason():
    case = Case()
    assert "no-reason" in codes(ask(case, case.bjorken, reason=""))


@pytest.mark.parametrize(
    ("fields", "cap"),
    [
        ({}, SIZE),
        ({"packs_per_fill": 3}, SIZE),
        ({"interval_days": 28}, 25),
        ({"interval_days": 28, "packs_per_fill": 3}, 75),
        ({"interval_days": 3660}, 1),
    ],
    ids=["one pack", "one pack of three", "seven days", "seven days of three packs", "never less than one"],
)
def test_the_cap_is_the_smaller_of_one_pack_and_seven_days(fields: dict[str, object], cap: int):
    case = Case(**fields)
    assert ask(case, case.bjorken).quantity_max == cap
    assert ask(case, case.bjorken, quantity=cap).verdict is Verdict.PERMIT_WITH_RISK
    assert "quantity" in codes(ask(case, case.bjorken, quantity=cap + 1))


def test_a_cap_of_nothing_permits_nothing():
    rule = EmergencyRule(from_level=Level.NORMAL, packs=0)
    case = Case()
    answer = ask(case, case.bjorken, policy=Policy(emergency={MedicineClass.ORDINARY: rule}))
    assert answer.verdict is Verdict.REFUSE
    assert "cap" in codes(answer)


def test_production_permits_nothing_beyond_custody_without_a_cited_law():
    case = Case(criticality=Criticality.LIFE_SUSTAINING)
    assert "no-legal-basis" in codes(ask(case, case.bjorken, production=True))
    lawful = ask(case, case.bjorken, production=True, legal_basis="SFS 2027:1")
    assert lawful.verdict is Verdict.PERMIT_WITH_RISK
    assert ask(case, case.bjorken, policy=default_policy("production")).verdict is Verdict.REFUSE
    assert ask(case, production=True).verdict is Verdict.PERMIT, "custody needs no such law"


def test_nodes_not_heard_for_long_are_named_in_an_emergency_and_the_horizon_is_always_told():
    case = Case()
    node = NodeId(bytes(16))
    fresh, stale = (Horizon(unheard=(Unheard(node, NOW_MS - h * HOUR_MS),)) for h in (23, 25))
    assert "unheard" not in codes(ask(case, case.bjorken, horizon=fresh))
    assert "unheard" in codes(ask(case, case.bjorken, horizon=stale))
    assert ask(case, horizon=stale).verdict is Verdict.PERMIT
    assert ask(case, horizon=stale).horizon == stale


def test_reasons_name_no_patient():
    case = Case(patient=e.Patient(name="Planterad", birth_date="1950-01-01"))
    assert "Planterad" not in repr(ask(case, case.bjorken))


# --- policy ---------------------------------------------------------------------------------------------------------------


def test_a_policy_survives_its_bytes():
    assert decode_policy(encode_policy(EXERCISE)) == EXERCISE


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", b"\x81\xa9emergency\x01", b"\x91" * 2000, b"\x81\xb1early_refill_days\xce\xff\xff\xff\xff"]
)  # fmt: skip
def test_what_is_no_policy_is_refused(data: bytes):
    with pytest.raises(InvalidInput):
        decode_policy(data)


def test_a_policy_that_nobody_could_follow_is_not_written():
    with pytest.raises(InvalidInput):
        encode_policy(Policy(early_refill_days=10**9))


def test_the_level_rises_by_itself_with_silence():
    assert [EXERCISE.level_after(h * HOUR_MS) for h in (0, 1, 24, 168)] == list(Level)
    assert EXERCISE.level_after(HOUR_MS - 1) is Level.NORMAL
