"""Whom a node knows, who is there, and with whom it keeps up rounds: bounded, fair, and none of the revoked (R14, R15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from benchmarks.world import DISTRICT, OFFICER, SmallRealm
from ledger import Ledger, NodeRole
from ledger.clock import DRIFT_MAX_MS
from ledger.errors import NotAuthentic
from ledger.identity import Certified
from ledger.ids import NodeId
from nodes import acquaintances
from nodes.acquaintances import ABSENT_AFTER, ASK_EVERY_MS, CHOICE_MS, Acquaintances, PeeringSettings
from nodes.lines import Lines, LinkSettings
from nodes.peer import Peer
from nodes.wire import Here, decode_here, encode_here
from tests.nodes.net_for_tests import NOW_MS, VirtualClock

SIGN_MS = 1_000


class Circle:
    """One node's acquaintances, and others made up for it."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.realm = SmallRealm(directory, clock=self.clock)

    def of(self, ledger: Ledger, *peers: NodeId) -> Acquaintances:
        self.lines = Lines([LinkSettings(name="hub"), LinkSettings(name="radio", thin=True)])
        for name in ("hub", "radio"):
            self.lines.up(name)
        settings = PeeringSettings(sign_ms=SIGN_MS, peers=peers)
        return Acquaintances(ledger, self.lines, settings, Random(1))

    def other(self, number: int, role: NodeRole = NodeRole.PHARMACY) -> Certified:
        return msgspec.structs.replace(
            self.realm.pharmacy.node.identity, node=NodeId(bytes([number]) * 16), role=role
        )


@pytest.fixture
def circle(tmp_path: Path) -> Iterator[Circle]:
    made = Circle(tmp_path)
    yield made
    made.realm.close()


def heard(peer: Peer | None, now_ms: int, link: str = "hub") -> None:
    assert peer is not None
    peer.heard_ms, peer.link = now_ms, link


# --- who is who -------------------------------------------------------------------------------------------------------


def test_who_wrote_what_is_held_is_known_without_an_introduction(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    known = peers.known(circle.realm.agency.node.identity.node)
    assert known is not None
    assert known.role is NodeRole.AGENCY
    assert peers.known(NodeId(bytes(16))) is None
    assert peers.known(circle.realm.pharmacy.node.identity.node) is None


def test_as_many_are_remembered_as_there_is_room_for_those_configured_always(
    circle: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquaintances, "PEERS_MAX", 4)
    configured = circle.other(0)
    peers = circle.of(circle.realm.pharmacy, configured.node)
    peers.met(configured)
    for n in range(1, 9):
        heard(peers.met(circle.other(n)), NOW_MS + n)
        assert len(peers.peers) <= 4
    assert [peer.node[0] for peer in peers] == [0, 6, 7, 8]


def test_a_node_admitted_by_whoever_is_revoked_is_revoked_with_it(circle: Circle) -> None:
    agency = circle.realm.agency
    authority = circle.realm.enrol("authority", NodeRole.AUTHORITY)
    peers = circle.of(agency)
    admitted = msgspec.structs.replace(circle.other(1), admitted_by=authority.node.identity.node)
    peers.met(admitted)
    assert not peers.is_revoked(admitted.node)
    agency.stewardship.revoke(authority.node.identity.node, person=OFFICER, reason="stulen")
    assert peers.is_revoked(admitted.node)
    assert peers.is_revoked(authority.node.identity.node)
    assert not peers.is_revoked(circle.realm.prescriber.node.identity.node)
    authority.close()


def test_the_same_stranger_is_asked_seldom_and_a_crowd_fills_no_memory(
    circle: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquaintances, "STRANGERS_MAX", 10)
    peers = circle.of(circle.realm.pharmacy)
    node = NodeId(bytes(16))
    assert peers.may_ask("who", node, NOW_MS)
    assert not peers.may_ask("who", node, NOW_MS + ASK_EVERY_MS - 1)
    assert peers.may_ask("told", node, NOW_MS)
    assert peers.may_ask("who", node, NOW_MS + ASK_EVERY_MS)
    for n in range(200):
        peers.may_ask("who", NodeId(bytes([n]) * 16), NOW_MS)
    assert len(peers._asked) <= 10


# --- signs of life ----------------------------------------------------------------------------------------------------


def signed(circle: Circle, stamp: int, district: str = DISTRICT) -> tuple[Here, bytes]:
    node = circle.realm.prescriber.node
    here = Here(node.identity.node, stamp, bytes(8))
    return decode_here(encode_here(node.realm.id, district, here, node.keys.signing)[1:])


def test_of_signs_of_life_only_later_ones_count_each_link_once(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    peer = peers.known(circle.realm.prescriber.node.identity.node)
    assert peer is not None
    now = peers.stamp()
    assert not peer.signed(now, "hub")
    peers.take_sign(peer, "hub", DISTRICT, *signed(circle, now))
    assert peer.signed(now, "hub")
    assert not peer.signed(now, "radio")
    peers.take_sign(peer, "radio", DISTRICT, *signed(circle, now))
    assert peer.signed(now, "radio")
    assert peer.signed(now - 1, "neighbour")
    assert not peer.signed(now + 1, "hub")


def test_a_sign_that_is_not_the_peers_leaves_no_trace(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    peer = peers.known(circle.realm.prescriber.node.identity.node)
    assert peer is not None
    here, signature = signed(circle, peers.stamp(), "SE-C-0380")
    with pytest.raises(NotAuthentic):
        peers.take_sign(peer, "hub", DISTRICT, here, signature)
    assert not peer.signed(here.stamp, "hub")


def test_a_clock_that_was_far_ahead_once_does_not_silence_its_node(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    peer = peers.known(circle.realm.prescriber.node.identity.node)
    assert peer is not None
    peers.take_sign(peer, "hub", DISTRICT, *signed(circle, peers.stamp(10 * 365 * 86_400_000)))
    assert peer.signed(peers.stamp(), "hub")
    circle.clock.time += DRIFT_MAX_MS + 1
    assert not peer.signed(peers.stamp(), "hub")


# --- who is there, and who is chosen ----------------------------------------------------------------------------------


def test_a_peer_is_there_for_so_many_intervals_on_a_link_that_is_up(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    peer = peers.met(circle.other(1))
    assert peer is not None
    assert not peers.is_present(peer, NOW_MS)
    heard(peer, NOW_MS)
    assert peers.is_present(peer, NOW_MS + ABSENT_AFTER * SIGN_MS)
    assert not peers.is_present(peer, NOW_MS + ABSENT_AFTER * SIGN_MS + 1)
    heard(peer, NOW_MS, "radio")  # A thin link is given more time.
    assert peers.is_present(peer, NOW_MS + ABSENT_AFTER * SIGN_MS + 1)
    circle.lines.down("radio")
    assert not peers.is_present(peer, NOW_MS)


def test_rounds_are_kept_up_with_those_configured_two_that_serve_all_and_three_others(circle: Circle) -> None:
    configured = circle.other(200)
    peers = circle.of(circle.realm.pharmacy, configured.node)
    peers.met(configured)
    for n in range(1, 11):
        heard(peers.met(circle.other(n)), NOW_MS)
        heard(peers.met(circle.other(100 + n, NodeRole.RELAY)), NOW_MS)
    chosen = peers.chosen(NOW_MS)
    assert chosen[0].node == configured.node
    assert [peer.role for peer in chosen[1:]] == [NodeRole.RELAY] * 2 + [NodeRole.PHARMACY] * 3
    assert peers.chosen(NOW_MS + CHOICE_MS - 1) is chosen
    gone = chosen[-1]
    gone.heard_ms = None
    assert gone not in peers.chosen(NOW_MS + CHOICE_MS)


def test_who_serves_all_begins_rounds_with_its_like_only(circle: Circle) -> None:
    peers = circle.of(circle.realm.agency)
    for n in range(1, 6):
        heard(peers.met(circle.other(n)), NOW_MS)
    heard(peers.met(circle.other(100, NodeRole.RELAY)), NOW_MS)
    assert [peer.node[0] for peer in peers.chosen(NOW_MS)] == [100]


def test_after_a_failure_another_link_is_tried(circle: Circle) -> None:
    peers = circle.of(circle.realm.pharmacy)
    peer = peers.met(circle.other(1))
    assert peer is not None
    heard(peer, NOW_MS, "radio")
    assert peers.way(peer) == "radio"
    ways = set()
    for failures in range(1, 5):
        peer.failures = failures
        ways.add(peers.way(peer))
    assert ways == {"hub", "radio"}
    for name in ("hub", "radio"):
        circle.lines.down(name)
    assert peers.way(peer) is None
