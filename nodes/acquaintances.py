"""Whom a node knows, who of them is there, and with whom it keeps up rounds of reconciliation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from msgspec import Struct

from ledger import Ledger
from ledger.clock import DRIFT_MAX_MS, pack_stamp
from ledger.errors import NotAuthentic
from ledger.identity import Certified, NodeRole
from ledger.ids import NodeId
from nodes.envelope import Postbox
from nodes.lines import Lines
from nodes.peer import Peer, Timing
from nodes.promises import Promises
from nodes.wire import Here, check_here

__all__ = ["PEERS_MAX", "Acquaintances", "PeeringSettings"]

PEERS_MAX = 2048
"""Peers remembered, the latest heard: the agency hears 1,400 pharmacies; some 10 kB each."""
PARTNERS = 3
"""Peers of one's own districts with whom rounds are kept up beside those configured: rumour reaches all in a few steps."""
ASKED_OF_CROWD = 8
"""Beside partners, of all that seem to hold something else, between one sign of life and the next."""
HUB_PARTNERS = 2
"""The same, of those that serve every district: the agency and relays."""
ABSENT_AFTER = 3
"""Intervals without a sign of life after which a peer is not chosen."""
GIVEN_UP_AFTER = 8
"""Rounds in a row that were not answered, after which a peer that is not heard either is not tried again: 20 minutes."""
ASK_EVERY_MS = 5_000
"""At most so often the same unknown sender is asked who it is, and the same asker told."""
STRANGERS_MAX = 1024
"""Of whom it is remembered that they were asked."""
CHOICE_MS = 1_000
"""How long a choice of partners holds before it is looked at again."""
THIN_SLOWER = 5
"""On a thin link everything that is done at intervals is done so much more seldom, and waited for so much longer."""
_SERVE_ALL = (NodeRole.AGENCY, NodeRole.RELAY)


class PeeringSettings(Struct, frozen=True, kw_only=True):
    """How often and with whom."""

    peers: tuple[NodeId, ...] = ()
    """Reconciled with even if no sign of life comes through."""
    sign_ms: int = 30_000
    """Between signs of life."""
    idle_ms: int = 60_000
    """Between rounds with a peer that was in step."""
    give_up_ms: int = 20_000
    budget_bytes: int = 8 * 1024 * 1024
    """What is sent to one peer in one round."""


class Acquaintances:
    """The peers of one node."""

    def __init__(self, ledger: Ledger, lines: Lines, settings: PeeringSettings, random: Random) -> None:
        node = ledger.node
        self._ledger, self._lines, self.settings, self._random = ledger, lines, settings, random
        self._me, self._role = node.identity.node, node.identity.role
        self.postbox = Postbox(node.realm, node.identity, node.keys, node.entropy)
        self.peers: dict[NodeId, Peer] = {}
        self._promises = Promises(lambda feed: (ledger.exchange.written_by(feed) or (None, ""))[0])
        self._held_to: frozenset[NodeId] | None = None
        self._asked: dict[tuple[str, NodeId], int] = {}
        self._choice: list[Peer] = []
        self._choice_until_ms = 0

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.peers.values())

    @property
    def serves_all(self) -> bool:
        """This node holds every district."""
        return self._role in _SERVE_ALL

    # --- who is who --------------------------------------------------------------------------------------------------

    def known(self, node: NodeId) -> Peer | None:
        """The peer, if its certificates are known: from an introduction, or from a feed that is held."""
        known = self.peers.get(node)
        if known is not None or node == self._me:
            return known
        certified = self.postbox.knows(node) or self._ledger.exchange.certified(node)
        return None if certified is None else self.met(certified)

    def unmet(self) -> list[NodeId]:
        """Those configured whose certificates are not known: relays write nothing, so no feed tells of them."""
        return [node for node in self.settings.peers if node != self._me and self.known(node) is None]

    def met(self, certified: Certified) -> Peer | None:
        """Remember a node whose certificates were verified; None: it is this one."""
        if certified.node == self._me:
            return None
        self.postbox.know(certified)
        peer = self.peers.get(certified.node)
        if peer is None:
            if len(self.peers) >= PEERS_MAX:
                self._forget_one()
            peer = Peer(
                certified.node,
                self._ledger.exchange,
                self.timing(""),
                self._random,
                self.stamp,
                self._promises,
            )
            peer.role, peer.held_back = certified.role, self._holds_back(peer.node)
            self.peers[certified.node] = peer
            self.look_again()
        return peer

    def hold_to(self, only: frozenset[NodeId] | None) -> None:
        """Have rounds with these peers only, those met later included; None: with all."""
        self._held_to = only
        for peer in self.peers.values():
            peer.hold_back(self._holds_back(peer.node))

    def _holds_back(self, node: NodeId) -> bool:
        return self._held_to is not None and node not in self._held_to

    def _forget_one(self) -> None:
        """Make room: the peer longest unheard of, but none that was configured."""
        idle = [p for p in self.peers.values() if p.node not in self.settings.peers and not p.busy]
        if idle:
            del self.peers[min(idle, key=lambda p: p.heard_ms or 0).node]

    def is_revoked(self, node: NodeId) -> bool:
        """Whether a node, or whoever admitted it, is revoked as known here."""
        ledger = self._ledger.node
        with ledger.lock:
            view = ledger.reader.governance()
            certified = self.postbox.knows(node)
            vouching = (node, None if certified is None else certified.admitted_by)
            return any(who is not None and view.revocation(who) is not None for who in vouching)

    def may_ask(self, what: str, node: NodeId, now_ms: int) -> bool:
        """Whether it is long enough since the same was asked or told."""
        if now_ms - self._asked.get((what, node), -ASK_EVERY_MS) < ASK_EVERY_MS:
            return False
        if len(self._asked) >= STRANGERS_MAX:
            self._asked.clear()
        self._asked[what, node] = now_ms
        return True

    # --- timing ------------------------------------------------------------------------------------------------------

    def take_sign(self, peer: Peer, link: str, district: str, sign: Here, signature: bytes) -> None:
        """Note a peer's sign of life.

        Raises:
            NotAuthentic: it did not give it.
        """
        certified = self.postbox.knows(peer.node)
        if certified is None:
            raise NotAuthentic("a sign of life is from somebody unknown")
        check_here(self._ledger.node.realm.id, district, sign, signature, certified.public_key)
        # No later than our clock allows: once far ahead, its clock must not make all later signs look old.
        peer.sign(min(sign.stamp, self.stamp(DRIFT_MAX_MS)), link)

    def stamp(self, later_ms: int = 0) -> int:
        """This node's time, or so much later, as it stands in signs of life."""
        return pack_stamp(self._ledger.node.now_ms() + later_ms)

    def timing(self, link: str) -> Timing:
        """What a link asks of rounds over it."""
        thin = self._lines.is_thin(link)
        slower = THIN_SLOWER if thin else 1
        return Timing(
            thin=thin,
            idle_ms=self.settings.idle_ms * slower,
            give_up_ms=self.settings.give_up_ms * slower,
            budget_bytes=self.settings.budget_bytes,
        )

    def sign_ms(self, links: Iterable[str]) -> int:
        """Between signs of life, on the thinnest of these links."""
        slower = THIN_SLOWER if any(map(self._lines.is_thin, links)) else 1
        return self.settings.sign_ms * slower

    # --- with whom ---------------------------------------------------------------------------------------------------

    def is_present(self, peer: Peer, now_ms: int) -> bool:
        """It was heard lately, on a link that is up."""
        return (
            peer.heard_ms is not None
            and now_ms - peer.heard_ms <= ABSENT_AFTER * self.sign_ms([peer.link])
            and self._lines.is_up(peer.link)
        )

    def is_given_up(self, peer: Peer, now_ms: int) -> bool:
        """It answered nothing time after time and gives no sign of life: one that it gives, or a letter, begins anew.

        Else all that were ever there and are gone would be tried for ever, and those that are there would wait in between.
        """
        return (
            peer.failures >= GIVEN_UP_AFTER
            and peer.node not in self.settings.peers
            and not self.is_present(peer, now_ms)
        )

    def present(self, now_ms: int) -> list[Peer]:
        """Those who are there."""
        return [peer for peer in self.peers.values() if self.is_present(peer, now_ms)]

    def look_again(self) -> None:
        """Somebody came or went: the choice of partners may be another."""
        self._choice_until_ms = 0

    def chosen(self, now_ms: int) -> list[Peer]:
        """With whom rounds are kept up: the same until somebody comes or goes."""
        if now_ms >= self._choice_until_ms:
            self._choice, self._choice_until_ms = self._choose(now_ms), now_ms + CHOICE_MS
            for peer in self.peers.values():
                peer.partner = False
            for peer in self._choice:
                peer.partner = True
        return self._choice

    def _choose(self, now_ms: int) -> list[Peer]:
        configured = [peer for node in self.settings.peers if (peer := self.known(node)) is not None]
        # By distance of ids, which differs from node to node: not everybody chooses the same.
        mine = int.from_bytes(self._me, "big")
        present = sorted(self.present(now_ms), key=lambda p: int.from_bytes(p.node, "big") ^ mine)
        hubs = [peer for peer in present if peer.role in _SERVE_ALL]
        # Those that serve all are asked by everybody; of themselves they ask only their like.
        near = [] if self.serves_all else [peer for peer in present if peer.role not in _SERVE_ALL]
        return list(dict.fromkeys([*configured, *hubs[:HUB_PARTNERS], *near[:PARTNERS]]))

    def is_asked(self, peer: Peer, now_ms: int) -> bool:
        """Whether to ask a peer at once that seems to hold something else: in a crowd partners, and few others by chance.

        After an outage all 140 of a large city do. Each asking all others would be twenty thousand rounds; what chance
        leaves out today it finds a sign of life later, and partners alone might be an island.
        """
        present = len(self.present(now_ms))
        if self.serves_all or present <= ASKED_OF_CROWD or peer in self.chosen(now_ms):
            return True
        return self._random.random() < ASKED_OF_CROWD / present

    def way(self, peer: Peer) -> str | None:
        """The link to reach a peer by: where it was last heard, else, after a failure, the next that is up."""
        up = self._lines.names()
        if not up:
            return None
        return peer.link if peer.link in up and not peer.failures else up[peer.failures % len(up)]
