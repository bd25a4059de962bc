"""A crowd that all hold something else after an outage: all find each other, in rounds that do not multiply."""

from __future__ import annotations

from pathlib import Path

from benchmarks.world import DISTRICT, SmallRealm, fill
from ledger import NodeRole
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
        ledger.node.own_feed(DISTRICT)
        net.join(str(number), ledger)
    net.run(30_000)
    assert in_step(*ledgers, districts=[DISTRICT])
    members = list(net.members.values())
    for number, member in enumerate(members):
        member.peering.link_down("hub")
        fill(member.ledger.node, 3, of=f"{number}")
    before = sum(peer.rounds for member in members for peer in member.peering.peers)
    net.run(100_000)  # Long enough for all to be taken as absent.
    for member in members:
        member.peering.link_up("hub", clock.time)
    took = net.run_until(lambda: in_step(*ledgers, districts=[DISTRICT]), 60_000)
    rounds = sum(peer.rounds for member in members for peer in member.peering.peers) - before
    assert took < 30_000
    assert rounds / CROWD < 2 * CROWD, rounds / CROWD
    for number, ledger in enumerate(ledgers):
        net.leave(str(number))
        ledger.close()
    realm.close()
