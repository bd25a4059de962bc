"""A claim at a holder that has never heard of the claimant's feed: it catches up and grants, instead of refusing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.world import DISTRICT, PHARMACIST, PHARMACY, PRESCRIBER, SmallRealm, order
from ledger import Ledger, NodeRole, Supply, Verdict
from ledger.ids import GOVERNANCE
from nodes.requests import Told
from tests.nodes.net_for_tests import Member, Net, VirtualClock, in_step

WAIT_MS = 60_000


def fetched(net: Net, far: Member, lender: Ledger) -> list[Told]:
    told: list[Told] = []
    far.peering.requests.fetch(
        lender.node.identity.node, request=bytes(16), person=PHARMACIST, purpose="evakuerad patient",
        patient=order(0, holder=None).patient, now_ms=net.clock.time, deadline_ms=net.clock.time + WAIT_MS,
        done=told.append,
    )  # fmt: skip
    net.run_until(lambda: bool(told), WAIT_MS)
    return told


def test_who_fetched_from_one_node_claims_from_another_that_does_not_know_its_feed(tmp_path: Path) -> None:
    clock = VirtualClock()
    realm, net = SmallRealm(tmp_path, clock=clock), Net(clock)
    far = realm.enrol("far", NodeRole.PHARMACY, "SE-C-0380")
    realm.agency.node.own_feed(DISTRICT)
    realm.replicate()
    holder = realm.pharmacy
    document = realm.prescriber.prescribe(
        order(0, holder=holder.node.identity.node), person=PRESCRIBER
    ).document
    for name in ("agency", "prescriber", "pharmacy"):
        net.join(name, getattr(realm, name))
    member = net.join("far", far)
    net.run_until(
        lambda: in_step(realm.agency, realm.prescriber, holder, districts=[GOVERNANCE, DISTRICT]), WAIT_MS
    )
    assert document in fetched(net, member, realm.agency)[0].documents
    # The agency knows the far pharmacy's feed in this district by now; the holder must not.
    assert holder.exchange.written_by(far.node.own_feed(DISTRICT)) is None
    asked: list[Told] = []
    member.peering.requests.claim(
        holder.node.identity.node, document, (1,), command=b"c" * 16, now_ms=clock.time,
        deadline_ms=clock.time + WAIT_MS, done=asked.append,
    )  # fmt: skip
    took = net.run_until(lambda: bool(asked), WAIT_MS)
    assert asked[0].code == ""
    assert took < 10_000
    supply = Supply(fill=1, quantity=100, pharmacy=PHARMACY)
    assert far.assess(document, supply).verdict is Verdict.PERMIT
    far.close()
    realm.close()
