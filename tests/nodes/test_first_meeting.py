"""Two nodes of which one has never heard of the other: they catch up at once, whoever speaks first."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, PRESCRIBER, SmallRealm, order
from ledger import NodeRole
from tests.nodes.net_for_tests import Net, VirtualClock, in_step


@pytest.mark.parametrize("seed", range(6))
def test_a_new_node_catches_up_in_seconds_whichever_round_has_the_lower_name(
    tmp_path: Path, seed: int
) -> None:
    """What it says first cannot be read yet; its round, unanswered, must not stand in the way of the other's."""
    clock = VirtualClock()
    realm = SmallRealm(tmp_path, clock=clock, seed=seed + 1)
    realm.prescriber.prescribe(order(0, holder=realm.pharmacy.node.identity.node), person=PRESCRIBER)
    net = Net(clock, seed)
    net.join("prescriber", realm.prescriber)
    net.run(20_000)
    with realm.enrol("new", NodeRole.PHARMACY) as new:
        net.join("new", new)
        took = net.run_until(lambda: in_step(new, realm.prescriber, districts=[DISTRICT]), 60_000)
        assert took < 4_000  # Less than a round is given up after.
        net.leave("new")
    realm.close()


def test_two_that_know_nobody_else_heal_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    clock = VirtualClock()
    realm = SmallRealm(tmp_path, clock=clock)
    net = Net(clock)
    for name in ("prescriber", "pharmacy"):
        net.join(name, getattr(realm, name))
    net.run(20_000)
    for name in ("prescriber", "pharmacy"):
        net.members[name].peering.link_down("hub")
    realm.prescriber.prescribe(order(0, holder=realm.pharmacy.node.identity.node), person=PRESCRIBER)
    net.run(1_000)
    for name in ("prescriber", "pharmacy"):
        net.members[name].peering.link_up("hub", clock.time)
    took = net.run_until(lambda: in_step(realm.prescriber, realm.pharmacy, districts=[DISTRICT]), 60_000)
    assert took < 300
    realm.close()
