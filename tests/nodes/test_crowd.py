"""In a crowd that all hold something else each asks few, and all find each other nevertheless."""

from __future__ import annotations

from pathlib import Path

from benchmarks.world import DISTRICT, SmallRealm, fill
from ledger import NodeRole
from nodes.acquaintances import ASKED_OF_CROWD
from tests.nodes.net_for_tests import Net, VirtualClock, in_step

CROWD = 24


def test_a_crowd_that_wrote_apart_is_whole_after_few_rounds_each_without_anybody_that_serves_all(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    realm = SmallRealm(tmp_path, clock=clock)
    net = Net(clock)
    ledgers = [realm.enrol(f"ph-{number}", NodeRole.PHARMACY) for number in range(CROWD)]
    for number, ledger in enumerate(ledgers):
        fill(ledger.node, 3, of=f"{number}")
        net.join(str(number), ledger)
    took = net.run_until(lambda: in_step(*ledgers, districts=[DISTRICT]), 60_000)
    assert took < 30_000
    rounds = [sum(peer.rounds for peer in member.peering.peers) for member in net.members.values()]
    assert sum(rounds) / CROWD < 6 * ASKED_OF_CROWD
    for number, ledger in enumerate(ledgers):
        net.leave(str(number))
        ledger.close()
    realm.close()
