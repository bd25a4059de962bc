"""R4, R7, R9, R10 as properties of the fold: random nodes, random partitions, any delivery."""

from __future__ import annotations

import random
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.facts import Branches, Fact
from ledger.history import encode_state, fold
from ledger.store.port import BranchRow
from tests.ledger.model_realm import PERSON, ModelNode, ModelRealm, governance

ACTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(1, 3), st.integers(0, 3)), max_size=40
)


def play(  # noqa: C901  one branch for each kind of act
    realm: ModelRealm, acts: list[tuple[int, int, int, int]], *, beyond_custody: bool
) -> None:
    """Run a schedule: who acts, on which fill, towards whom; what is impossible is left out."""
    delegations: list[tuple[ModelNode, Fact]] = []
    for kind, who, fill, other in acts:
        node = realm.pharmacies[who % len(realm.pharmacies)]
        peer = realm.pharmacies[other % len(realm.pharmacies)]
        if kind in (0, 1):
            node.dispense(fill, part=kind == 1)
        elif kind == 2 and node is not peer:
            node.transfer(fill, peer)
        elif kind == 3:
            node.reverse()
        elif kind in (4, 5):  # A few of the peer's facts arrive, in no order and not all.
            facts = list(peer.held.values())
            random.Random(fill * 17 + other).shuffle(facts)
            node.take(facts[: len(facts) // 2 + 1] if kind == 4 else facts)
        elif kind == 6 and node is not peer:
            if not any(d[0] is node for d in delegations):
                delegations.append((peer, node.delegate(peer)))
        elif kind == 7:
            for delegate, fact in list(delegations):
                if delegate is node and fact.id in node.held:
                    node.end_delegation(fact.id)
                    delegations.remove((delegate, fact))
        elif beyond_custody and kind == 8:
            node.emergency(fill, 7)
        elif beyond_custody and kind == 9:
            realm.prescriber.cancel() if fill == 1 else realm.agency.recover(fill)
        assert_balances(realm, node)


def assert_balances(realm: ModelRealm, node: ModelNode) -> None:
    balance = node.state().balance
    assert balance.authorised == balance.dispensed + balance.remaining + balance.forfeited
    assert min(balance.dispensed, balance.remaining, balance.forfeited, balance.over_supply) >= 0


@given(ACTS)
@settings(max_examples=200)
def test_honest_nodes_on_custody_never_supply_more_than_was_prescribed(
    acts: list[tuple[int, int, int, int]],
) -> None:
    """R7: whatever the network does, with transfers, part supplies, reversals and delegations among the acts."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=False)
    state = realm.fold(realm.written)
    assert state.balance.over_supply == 0
    kinds = {anomaly.kind for anomaly in state.anomalies}
    assert not kinds & {"double_dispensing", "over_quantity", "custody_breach", "contested_custody"}


@given(ACTS, st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_the_state_is_a_function_of_the_set_of_facts(
    acts: list[tuple[int, int, int, int]], rng: random.Random
) -> None:
    """R4: any order, any repetition, on every node that holds them, to the byte."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=True)
    facts = list(realm.written.values())
    expected = encode_state(realm.fold(realm.written))
    for _ in range(3):
        rng.shuffle(facts)
        own = [f for f in facts if f.document == realm.document]
        rest = [f for f in facts if f.document != realm.document]
        assert (
            encode_state(fold(realm.document, own + own[:3], rest + rest, Branches(), governance()))
            == expected
        )


@given(ACTS)
@settings(max_examples=150)
def test_a_supply_never_vanishes_and_every_excess_is_named(acts: list[tuple[int, int, int, int]]) -> None:
    """R9, R10: all that was handed over counts; over-supply and its anomaly come together."""
    realm = ModelRealm()
    play(realm, acts, beyond_custody=True)
    state = realm.fold(realm.written)
    handed_over = sum(s.net for s in state.supplies)
    assert handed_over == state.balance.dispensed + state.balance.over_supply
    found = {a.kind for a in state.anomalies}
    assert (state.balance.over_supply > 0) == bool(found & {"double_dispensing", "over_quantity"})
    for fact in realm.written.values():
        if fact.kind == "Dispensed":
            assert any(fact.id in s.ids for s in state.supplies)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=6))
def test_copies_of_a_paper_spent_in_islands_are_found_when_they_meet(spends: list[tuple[int, int]]) -> None:
    """R9: bearer fills; each island permits the paper once; the union names every fill spent twice."""
    realm = ModelRealm(bearer=True)
    spent: dict[int, int] = {}
    for who, fill in spends:
        if realm.pharmacies[who].spend_bearer(fill):
            spent[fill] = spent.get(fill, 0) + 1
    state = realm.fold(realm.written)
    doubled = {a.fill for a in state.anomalies if a.kind == "double_dispensing"}
    assert doubled == {fill for fill, count in spent.items() if count > 1}
    assert not {a.kind for a in state.anomalies} & {"custody_breach", "contested_custody"}


def rolled_back() -> tuple[ModelRealm, ModelNode, ModelNode]:
    """An old image of the holder runs beside it: both write from the same position of one feed."""
    realm = ModelRealm()
    node = realm.pharmacies[0]
    node.dispense(1)
    image = ModelNode(realm, node.name, node.role)
    image.held, image.sequence, image.branch = dict(node.held), node.sequence, 1
    realm.parts[node.feed] = [BranchRow(1, 0, node.sequence + 1)]
    return realm, node, image


def test_two_images_of_one_node_are_contested_and_their_excess_is_found() -> None:
    """R6, R9: both branches count; nobody is blamed for what he could not know."""
    realm, node, image = rolled_back()
    assert not node.dispense(2), "a node that knows of its fork dispenses no more on custody"
    realm.parts.clear()
    assert node.dispense(2)
    assert image.dispense(2)
    realm.parts[node.feed] = [BranchRow(1, 0, 2)]
    state = realm.fold(realm.written)
    kinds = {a.kind for a in state.anomalies}
    assert {"double_dispensing", "forked_feed", "contested_custody"} <= kinds
    assert "custody_breach" not in kinds
    assert state.balance.over_supply == 10
    relabelled = {
        link: f if f.feed != node.feed or f.sequence == 1 else _with_branch(f, 1 - f.branch)
        for link, f in realm.written.items()
    }
    assert encode_state(realm.fold(relabelled)) == encode_state(state), "branch labels reach the result"


def _with_branch(fact: Fact, branch: int) -> Fact:
    import msgspec

    return msgspec.structs.replace(fact, branch=branch)


def test_a_recovery_beside_a_holder_who_still_dispenses_is_contested_not_breached() -> None:
    realm = ModelRealm()
    holder, other = realm.pharmacies[:2]
    recovery = realm.agency.recover(1)
    assert holder.dispense(1)
    other.take([recovery])
    assert other.decide(1).basis is not None
    other.emergency(1, 10)
    state = realm.fold(realm.written)
    kinds = {a.kind for a in state.anomalies}
    assert "contested_custody" in kinds
    assert "double_dispensing" in kinds
    assert "custody_breach" not in kinds
    holder.take([recovery])
    assert not holder.dispense(1)


def test_a_second_pharmacy_is_refused_and_told_who_holds_the_fill() -> None:
    realm = ModelRealm()
    from ledger.events import Basis

    decision = realm.pharmacies[1].decide(1, Basis.CUSTODY)
    assert decision.verdict.value == "refuse"
    assert any(realm.pharmacies[0].feed.hex() in reason.message for reason in decision.reasons)


def test_the_state_is_the_same_under_another_hash_seed() -> None:
    """R4: sets and dictionaries are never iterated into a result."""
    code = (
        "from tests.ledger.model_realm import ModelRealm\n"
        "from ledger.history import state_digest\n"
        "r = ModelRealm()\n"
        "for n in r.pharmacies:\n    n.dispense(1); n.emergency(2, 7); n.emergency(3, 9)\n"
        "r.agency.recover(2); r.prescriber.cancel()\n"
        "print(state_digest(r.fold(r.written)).hex())\n"
    )
    import os
    from pathlib import Path

    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        for seed in ("1", "2", "77")
    }  # fmt: skip
    assert len(outputs) == 1


def test_a_clock_that_is_behind_does_not_change_what_follows_what() -> None:
    """R5: an amendment made with knowledge of another replaces it, whatever its author's clock said."""
    from ledger.events import PrescriptionAmended

    realm = ModelRealm()
    first = realm.prescriber.write(
        PrescriptionAmended(person=PERSON, command=bytes([1]) * 16, dosage="2 tabletter")
    )
    other = realm.pharmacies[2]
    other.role = realm.prescriber.role
    other.take([first])
    realm.clock = -10_000_000
    other.write(PrescriptionAmended(person=PERSON, command=bytes([2]) * 16, dosage="3 tabletter"))
    state = realm.fold(realm.written)
    assert state.dosage == ("3 tabletter",)
    assert not any(a.kind == "conflicting_amendments" for a in state.anomalies)
    assert any(a.kind == "clock_beyond_bound" for a in state.anomalies)


def test_what_an_act_could_not_know_is_never_held_against_it() -> None:
    """R7: twenty recoveries, each beside a supply on custody: contested, wherever the canonical order puts them."""
    for number in range(20):
        realm = ModelRealm()
        realm.clock = number
        realm.commands = number * 1000
        realm.agency.recover(1)
        realm.pharmacies[0].dispense(1)
        kinds = {a.kind for a in realm.fold(realm.written).anomalies}
        assert kinds == {"contested_custody"}
