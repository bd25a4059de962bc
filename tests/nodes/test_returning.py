"""A node that was killed in the midst of a round and comes back is in step within seconds, not when the round is given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.world import DISTRICT, PRESCRIBER, SmallRealm, order
from ledger import NodeRole
from ledger.ids import GOVERNANCE
from nodes.acquaintances import PeeringSettings
from nodes.inprocess import synchronise
from tests.nodes.net_for_tests import Net, VirtualClock, in_step

AWAY_MS = 4_000
BACK_MS = 500
"""A service manager starts it again at once: its round is not silent for long enough yet to be thought broken off."""
SOON_MS = 6_000
"""The first sign of life, what is asked after it, and a round; a round is given up after twenty seconds."""


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[SmallRealm]:
    made = SmallRealm(tmp_path, clock=VirtualClock())
    made.agency.node.own_feed(DISTRICT)
    made.replicate()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("away_ms", [BACK_MS, AWAY_MS])
def test_who_was_killed_in_a_round_and_returns_is_soon_in_step(
    realm: SmallRealm, seed: int, away_ms: int
) -> None:
    clock = realm.agency.node.clock
    assert isinstance(clock, VirtualClock)
    net = Net(clock, seed)
    both = (realm.agency, realm.pharmacy)
    settings = PeeringSettings(peers=tuple(ledger.node.identity.node for ledger in both))
    for name, ledger in zip(("agency", "pharmacy"), both, strict=True):
        net.join(name, ledger, settings=settings)
    net.run(10_000)
    held = realm.pharmacy.node.identity.node
    realm.prescriber.prescribe(order(0, holder=held), person=PRESCRIBER)
    # The agency has begun a round, and nobody will ever answer it.
    net.leave("pharmacy")
    net.members["agency"].peering.converse(held, clock.time, 1 << 20)
    net.run(away_ms)
    synchronise(realm.prescriber.exchange, realm.agency.exchange)
    assert not in_step(*both, districts=[GOVERNANCE, DISTRICT])
    net.join("pharmacy", realm.pharmacy, settings=settings)
    took = net.run_until(lambda: in_step(*both, districts=[GOVERNANCE, DISTRICT]), 60_000)
    assert took < SOON_MS


@pytest.mark.parametrize("seed", range(6))
def test_who_returns_at_once_asks_a_configured_relay_who_it_is_and_gets_what_it_keeps(
    realm: SmallRealm, seed: int
) -> None:
    clock = realm.agency.node.clock
    assert isinstance(clock, VirtualClock)
    net = Net(clock, seed)
    relay = realm.enrol("relay", NodeRole.RELAY, "")
    synchronise(realm.agency.exchange, relay.exchange)
    settings = PeeringSettings(peers=(relay.node.identity.node,))
    net.join("relay", relay, settings=settings)
    net.join("pharmacy", realm.pharmacy, settings=settings)
    net.run(10_000)
    held = realm.pharmacy.node.identity.node
    realm.prescriber.prescribe(order(0, holder=held), person=PRESCRIBER)
    net.leave("pharmacy")
    net.members["relay"].peering.converse(held, clock.time, 1 << 20)
    net.run(BACK_MS)
    synchronise(realm.prescriber.exchange, relay.exchange)
    net.join("pharmacy", realm.pharmacy, settings=settings)
    took = net.run_until(lambda: in_step(relay, realm.pharmacy, districts=[GOVERNANCE, DISTRICT]), 60_000)
    assert took < SOON_MS
    relay.close()
