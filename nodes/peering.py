"""A node among its peers, without I/O: what arrives on any link goes in, what is to be sent comes out, time is given.

- *Signs of life*, one a district and interval, say who is there and whether it holds the same; each comes signed.
- *Live* entries are told once to the district. They are a wake-up: whoever sees a gap reconciles with somebody who is
  there. Losing every one of them costs only time.
- *Rounds* of reconciliation (`nodes.peer`) with the peers that were configured, that were asked for something, that seem
  to hold something else, and with a few of those that are there, in turn.
- Peers prove who they are in every letter (`nodes.envelope`), whatever a hub says; who was revoked is not listened to.

Every link may lose, repeat and reorder. Nothing that a peer sends makes this raise; only this node's own disk can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from random import Random

import structlog
from msgspec import Struct

from ledger import Ledger, Person
from ledger.clock import pack_stamp
from ledger.errors import NotAuthentic, PeerFault
from ledger.exchange import URGENT_LANE
from ledger.feed import Run
from ledger.identity import Certified, NodeRole
from ledger.ids import GOVERNANCE, FeedId, Link, NodeId
from ledger.writing import Written
from nodes.envelope import Postbox
from nodes.flow import Pace
from nodes.messages import ClaimAsk, ClaimTold, FetchAsk, FetchTold, Message, Refusal
from nodes.nats.subjects import here, live, mailbox
from nodes.peer import Peer, Timing
from nodes.requests import Requests
from nodes.wire import (
    DIGEST_BYTES,
    FRAME_BYTES_MAX,
    LIVE_VERSION,
    Here,
    Kind,
    Live,
    Speech,
    check_here,
    decode_here,
    decode_live,
    decode_speech,
    encode_here,
    encode_live,
    encode_speech,
)

__all__ = ["PEERS_MAX", "LinkSettings", "Outgoing", "Peering", "PeeringSettings"]

PEERS_MAX = 2048
"""Peers remembered, the latest heard: the agency hears 1,400 pharmacies; some 10 kB each."""
ROUNDS_AT_ONCE_MAX = 8
"""Rounds of ours under way: each reads and writes as fast as it can, and more of them would only share that."""
LIVE_QUEUE_MAX = 1024
"""New entries waiting for a link: with more, whoever lacks them will ask."""
PARTNERS = 3
"""Peers of one's own districts with whom rounds are kept up beside those configured: rumour reaches all in a few steps."""
HUB_PARTNERS = 2
"""The same, of those that serve every district: the agency and relays."""
ABSENT_AFTER = 3
"""Intervals without a sign of life after which a peer is not chosen."""
WHO_EVERY_MS = 5_000
"""At most so often the same unknown sender is asked who it is, and the same asker told."""
STRANGERS_MAX = 1024
LIVE_GAP_WITHIN_MS = 500
"""A gap makes everybody ask somebody; not all at once."""

log = structlog.get_logger("rxledger")


class LinkSettings(Struct, frozen=True, kw_only=True):
    """What is known of a link beforehand."""

    name: str
    bits_per_second: int | None = None
    """What it may carry; None: whatever it can."""
    thin: bool = False
    """It is slow enough that every kilobyte counts."""


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


class Outgoing(Struct, frozen=True):
    """One message for a link."""

    link: str
    subject: str
    payload: bytes


class _Link:
    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.up = False
        self.pace = Pace(settings.bits_per_second)
        self.urgent: deque[Outgoing] = deque()
        self.rest: deque[Outgoing] = deque()


class Peering:
    """One node's side of all conversations. Not thread-safe: its owner serialises, holding no lock of the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        links: Iterable[LinkSettings],
        settings: PeeringSettings,
        *,
        person: Person,
        random: Random,
    ) -> None:
        """Set up; nothing is sent before `link_up`.

        Args:
            ledger: this node's.
            links: the ways that it has, the preferred first.
            settings: how often and with whom.
            person: whom the transfers name that answer claims.
            random: for jitter and choice only.
        """
        node = ledger.node
        self.ledger, self.settings, self._random = ledger, settings, random
        self._exchange, self._realm = ledger.exchange, node.realm.id
        self._me = node.identity.node
        self._postbox = Postbox(node.realm, node.identity, node.keys, node.entropy)
        self._links = {link.name: _Link(link) for link in links}
        self.peers: dict[NodeId, Peer] = {}
        self.requests = Requests(ledger, person)
        self._next_sign_ms: int | None = None
        self._asked: dict[tuple[str, NodeId], int] = {}
        self._live: list[tuple[str, Written]] = []
        self.refused: dict[str, int] = {}
        """Code → frames from outside that were refused for it; codes are ours, so they are few."""
        self._stirred = False

    # --- links -------------------------------------------------------------------------------------------------------

    def link_up(self, name: str, now_ms: int) -> None:
        """A link came up: tell that we are there, and catch up soon with those whom it may reach."""
        link = self._links[name]
        if link.up:
            return
        link.up = True
        link.pace = Pace(link.settings.bits_per_second)
        # Not all 1,400 of a hub at once: the first sign within a second and a half, rounds over the seconds after.
        self._next_sign_ms = now_ms + self._random.randint(0, 1_500)
        for peer in self._chosen(now_ms):
            peer.failures = 0
            peer.next_ms = now_ms + self._random.randint(0, 1_000)

    def link_down(self, name: str) -> None:
        """A link went down: what waits for it is dropped."""
        link = self._links[name]
        link.up = False
        link.urgent.clear()
        link.rest.clear()

    def subjects(self) -> tuple[str, ...]:
        """What every link is to listen to."""
        if self.ledger.node.identity.role in (NodeRole.AGENCY, NodeRole.RELAY):
            districts = ["*"]
        else:
            districts = sorted(self._exchange.districts())
        return (
            mailbox(self._realm, self._me),
            *(live(self._realm, d) for d in districts),
            *(here(self._realm, d) for d in districts),
        )

    # --- coming in ---------------------------------------------------------------------------------------------------

    def received(self, link: str, subject: str, payload: bytes, now_ms: int) -> None:
        """Take in one message of a link.

        Raises:
            StoreFull, StoreDamaged: this node's own disk.
        """
        self._stirred = True
        try:
            self._received(link, subject, payload, now_ms)
        except PeerFault as error:
            self._refuse(error.code)

    def _received(self, link: str, subject: str, payload: bytes, now_ms: int) -> None:
        if not payload or len(payload) > FRAME_BYTES_MAX:
            self._refuse("malformed")
            return
        kind, body = payload[0], payload[1:]
        if kind == Kind.LETTER:
            self._letter(link, body, now_ms)
        elif kind == Kind.LIVE:
            self._take_live(link, decode_live(body), now_ms)
        elif kind == Kind.HERE:
            self._take_here(link, subject.rsplit(".", 1)[-1], body, now_ms)
        elif kind == Kind.INTRODUCTION:
            certified = self._postbox.learn(body)
            peer = self._peer(certified)
            if peer is not None:
                peer.link = link
                peer.soon(now_ms, 200)
                self.requests.again(peer.node, now_ms)
        elif kind == Kind.WHO and len(body) == 16:
            if self._may_ask("told", NodeId(body), now_ms):
                frame = bytes([Kind.INTRODUCTION]) + self._postbox.introduction()
                self._post(link, mailbox(self._realm, NodeId(body)), frame, urgent=True)
                self.requests.again(NodeId(body), now_ms)
        else:
            # A kind of a newer version: said by nobody to whom an answer would mean anything.
            self._refuse("version-unknown")

    def _refuse(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1

    def _letter(self, link: str, letter: bytes, now_ms: int) -> None:
        sender = self._postbox.sender(letter)
        peer = self._known(sender)
        if peer is None:
            self._ask_who(link, sender, now_ms)
            return
        if not peer.allow(now_ms):
            self._refuse("too-many")
            return
        _, content = self._postbox.open(letter)
        if self._is_revoked(sender):
            self._refuse("revoked")
            peer.next_ms = None
            return
        peer.link, peer.heard_ms = link, now_ms
        peer.bytes_in += len(letter)
        speech = decode_speech(content)
        message = peer.heard(speech, now_ms)
        if message is not None:
            self._other(peer, message, now_ms)

    def _other(self, peer: Peer, message: Message, now_ms: int) -> None:
        """What a peer says that is no part of a round."""
        match message:
            case ClaimAsk() | FetchAsk():
                if peer.role is NodeRole.RELAY:
                    peer.say(Refusal("not-permitted"))
                else:
                    peer.say(self.requests.answer(peer.node, message, now_ms))
            case ClaimTold() | FetchTold():
                self.requests.told(peer.node, message)
                peer.soon(now_ms)
            case _:
                pass

    def _take_live(self, link: str, told: Live, now_ms: int) -> None:
        feed = FeedId(told.feed)
        row = self.ledger.node.store.feed(feed)
        if row is None:
            for peer in self._present(now_ms)[:1]:
                peer.soon(now_ms, LIVE_GAP_WITHIN_MS)
            return
        heads = self._exchange.frontier_of(feed)
        previous = Link(told.previous) if told.previous else heads[-1][1]
        new = False
        if len(heads) == 1 and heads[0] == (told.entry.sequence - 1, previous):
            report = self._exchange.import_runs([Run(feed, previous, (told.entry,))])
            new = report.new > 0
            for _, code in report.refused:
                self._refuse(code)
        elif told.entry.sequence > heads[-1][0]:
            if told.previous and told.entry.lane <= URGENT_LANE:
                new = self._exchange.import_detached(feed, previous, told.entry)
            self._gap(NodeId(row.author), now_ms)
        if new:
            # Whoever listens only on another of our links hears it too; a second time it is not new.
            for other in self._links.values():
                if other.up and other.settings.name != link:
                    frame = encode_live(told)
                    urgent = told.entry.lane <= URGENT_LANE
                    self._post(other.settings.name, live(self._realm, row.district), frame, urgent=urgent)

    def _gap(self, author: NodeId, now_ms: int) -> None:
        peer = self.peers.get(author)
        if peer is None or not self._is_present(peer, now_ms):
            present = self._present(now_ms)
            if not present:
                return
            peer = self._random.choice(present)
        if not peer.busy:
            peer.soon(now_ms, LIVE_GAP_WITHIN_MS // 10)

    def _take_here(self, link: str, district: str, body: bytes, now_ms: int) -> None:
        sign, signature = decode_here(body)
        sender = NodeId(sign.node)
        if sender == self._me:
            return
        peer = self._known(sender)
        if peer is None:
            self._ask_who(link, sender, now_ms)
            return
        if not peer.allow(now_ms):
            self._refuse("too-many")
            return
        certified = self._postbox.knows(sender)
        if certified is None:
            raise NotAuthentic("a sign of life is from somebody unknown")
        check_here(self._realm, district, sign, signature, certified.public_key)
        if self._is_revoked(sender):
            self._refuse("revoked")
            return
        first = not self._is_present(peer, now_ms)
        peer.link, peer.heard_ms = link, now_ms
        if district in self._exchange.districts():
            differs = self._exchange.district_digest(district)[:DIGEST_BYTES] != sign.digest
            if (differs and not peer.busy and (peer.next_ms is None or peer.next_ms > now_ms + 2_000)) or (
                first and peer in self._chosen(now_ms)
            ):
                peer.soon(now_ms, 2_000)

    # --- who is who --------------------------------------------------------------------------------------------------

    def _known(self, node: NodeId) -> Peer | None:
        """The peer, if its certificates are known: from a letter, or from a feed that is held."""
        if node == self._me:
            return None
        certified = self._postbox.knows(node)
        if certified is None:
            certified = self._exchange.certified(node)
            if certified is None:
                return None
            self._postbox.know(certified)
        return self._peer(certified)

    def _peer(self, certified: Certified) -> Peer | None:
        if certified.node == self._me:
            return None
        peer = self.peers.get(certified.node)
        if peer is None:
            if len(self.peers) >= PEERS_MAX:
                self._forget_one()
            peer = Peer(certified.node, self._exchange, self._timing(""), self._random, self._stamp)
            peer.role = certified.role
            self.peers[certified.node] = peer
        return peer

    def _forget_one(self) -> None:
        """Make room: the peer longest unheard of, but none that was configured."""
        idle = [p for p in self.peers.values() if p.node not in self.settings.peers and not p.busy]
        if idle:
            del self.peers[min(idle, key=lambda p: p.heard_ms or 0).node]

    def _stamp(self) -> int:
        return pack_stamp(self.ledger.node.now_ms())

    def _timing(self, link: str) -> Timing:
        thin = bool(link) and self._links[link].settings.thin
        slower = 5 if thin else 1
        return Timing(
            thin=thin,
            idle_ms=self.settings.idle_ms * slower,
            give_up_ms=self.settings.give_up_ms * slower,
            budget_bytes=self.settings.budget_bytes,
        )

    def _is_revoked(self, node: NodeId) -> bool:
        ledger = self.ledger.node
        with ledger.lock:
            view = ledger.reader.governance()
            certified = self._postbox.knows(node)
            admitted_by = certified.admitted_by if certified is not None else None
            return view.revocation(node) is not None or (
                admitted_by is not None and view.revocation(admitted_by) is not None
            )

    def _may_ask(self, what: str, node: NodeId, now_ms: int) -> bool:
        if now_ms - self._asked.get((what, node), -WHO_EVERY_MS) < WHO_EVERY_MS:
            return False
        if len(self._asked) >= STRANGERS_MAX:
            self._asked.clear()
        self._asked[what, node] = now_ms
        return True

    def _ask_who(self, link: str, sender: NodeId, now_ms: int) -> None:
        if self._may_ask("who", sender, now_ms):
            self._post(link, mailbox(self._realm, sender), bytes([Kind.WHO]) + self._me, urgent=True)

    # --- with whom ---------------------------------------------------------------------------------------------------

    def _is_present(self, peer: Peer, now_ms: int) -> bool:
        return peer.heard_ms is not None and now_ms - peer.heard_ms <= ABSENT_AFTER * self._sign_ms(peer.link)

    def _present(self, now_ms: int) -> list[Peer]:
        return [p for p in self.peers.values() if self._is_present(p, now_ms) and self._links[p.link].up]

    def _chosen(self, now_ms: int) -> list[Peer]:
        """With whom rounds are kept up: a choice that is the same until somebody comes or goes."""
        chosen = [peer for node in self.settings.peers if (peer := self._known(node)) is not None]
        serves_all = self.ledger.node.identity.role in (NodeRole.AGENCY, NodeRole.RELAY)
        if serves_all:
            # They are asked by everybody; among themselves they are few.
            return (
                chosen
                + [p for p in self._present(now_ms) if p.role in (NodeRole.AGENCY, NodeRole.RELAY)][
                    :HUB_PARTNERS
                ]
            )
        # By a hash that differs from node to node: not everybody chooses the same.
        present = sorted(
            self._present(now_ms), key=lambda p: bytes(a ^ b for a, b in zip(p.node, self._me, strict=True))
        )
        hubs = [p for p in present if p.role in (NodeRole.AGENCY, NodeRole.RELAY)]
        near = [p for p in present if p.role not in (NodeRole.AGENCY, NodeRole.RELAY)]
        return list(dict.fromkeys([*chosen, *hubs[:HUB_PARTNERS], *near[:PARTNERS]]))

    def _sign_ms(self, link: str) -> int:
        thin = bool(link) and link in self._links and self._links[link].settings.thin
        return self.settings.sign_ms * (10 if thin else 1)

    # --- going out ---------------------------------------------------------------------------------------------------

    def written(self, district: str, written: Written) -> None:
        """Note an entry of ours, to be told. May be called from any thread that holds the ledger's lock."""
        self._live.append((district, written))

    def poll(self, now_ms: int) -> list[Outgoing]:
        """What is to be sent now, the most urgent first. Nothing of it is kept here: what a link refuses is lost."""
        self._sign_if_due(now_ms)
        self._tell_written(now_ms)
        for to, message in list(self.requests.due(now_ms)):
            peer = self._known(to)
            if peer is not None:
                peer.say(message)
                continue
            for link in self._links.values():
                if link.up:
                    self._ask_who(link.settings.name, to, now_ms)
        for to in self.requests.waiting_for():
            peer = self._known(to)
            if peer is not None and not peer.busy:
                peer.soon(now_ms)
        self._begin_rounds(now_ms)
        self._speak(now_ms)
        out = [message for link in self._links.values() for message in self._drain(link, now_ms)]
        out += self._pieces(now_ms)
        for peer in self.peers.values():
            if peer.settle(now_ms):
                self._exchange.heard_from(peer.node, 0)
        return out

    def next_ms(self, now_ms: int) -> int:
        """When `poll` is to be called again at the latest, if nothing comes in before."""
        moments = [self._next_sign_ms, self.requests.next_ms()]
        full = sum(peer.busy for peer in self.peers.values()) >= ROUNDS_AT_ONCE_MAX
        for peer in self.peers.values():
            may_begin = not full and not peer.busy and self._way(peer) is not None
            moments += [peer.next_ms if may_begin else None, peer.due_ms()]
        waits = [link.pace.wait_ms() for link in self._links.values() if link.up]
        if any(peer.sending for peer in self.peers.values()):
            moments += [now_ms + wait for wait in waits if wait]
        return max(now_ms, min((m for m in moments if m is not None), default=now_ms + 60_000))

    def _sign_if_due(self, now_ms: int) -> None:
        if self._next_sign_ms is None or now_ms < self._next_sign_ms:
            return
        node = self.ledger.node
        if node.identity.role in (NodeRole.AGENCY, NodeRole.RELAY):
            districts = [GOVERNANCE]
        else:
            districts = [node.identity.district]
        up = [link for link in self._links.values() if link.up]
        for district in districts:
            digest = self._exchange.district_digest(district)[:DIGEST_BYTES]
            sign = Here(self._me, self._stamp(), digest)
            frame = encode_here(self._realm, district, sign, node.keys.signing)
            for link in up:
                self._post(link.settings.name, here(self._realm, district), frame, urgent=False)
        pause = max((self._sign_ms(link.settings.name) for link in up), default=self.settings.sign_ms)
        self._next_sign_ms = now_ms + pause * self._random.randint(80, 120) // 100 if up else None

    def _tell_written(self, now_ms: int) -> None:
        told, self._live = self._live, []
        for district, written in told:
            for link in self._links.values():
                if not link.up:
                    continue
                # Where much is under way, listeners may lack what comes before: they are told what it follows.
                behind = any(p.sending and p.link == link.settings.name for p in self.peers.values())
                frame = encode_live(
                    Live(LIVE_VERSION, written.feed, written.entry, written.previous if behind else b"")
                )
                urgent = written.entry.lane <= URGENT_LANE
                self._post(link.settings.name, live(self._realm, district), frame, urgent=urgent)

    def _begin_rounds(self, now_ms: int) -> None:
        for peer in self._chosen(now_ms):
            if peer.next_ms is None:
                peer.soon(now_ms, 1_000)
        under_way = sum(peer.busy for peer in self.peers.values())
        if under_way >= ROUNDS_AT_ONCE_MAX:
            return
        due = [p for p in self.peers.values() if p.next_ms is not None and p.next_ms <= now_ms and not p.busy]
        for peer in sorted(due, key=lambda p: p.next_ms or 0):
            way = self._way(peer)
            if way is None:
                continue
            if under_way >= ROUNDS_AT_ONCE_MAX:
                break
            if self._is_revoked(peer.node):
                peer.next_ms = None
                continue
            peer.timing = self._timing(way)
            peer.next_ms = None
            peer.begin(self.ledger.node.entropy.bytes(8), now_ms)
            under_way += 1

    def _way(self, peer: Peer) -> str | None:
        """The link to reach a peer by: where it was last heard, else, after a failure, the next that is up."""
        up = [name for name, link in self._links.items() if link.up]
        if not up:
            return None
        return peer.link if peer.link in up and not peer.failures else up[peer.failures % len(up)]

    def _speak(self, now_ms: int) -> None:
        """Put what is urgent of each conversation before what is not."""
        for peer in self.peers.values():
            speeches = peer.answers()
            way = self._way(peer) if speeches else None
            if way is not None:
                for speech in speeches:
                    self._post(way, mailbox(self._realm, peer.node), self._sealed(peer, speech), urgent=True)

    def _pieces(self, now_ms: int) -> list[Outgoing]:
        """Of what peers lack, one piece each in turn, as long as there is room."""
        out: list[Outgoing] = []
        sending = [peer for peer in self.peers.values() if peer.sending]
        self._random.shuffle(sending)
        while sending:
            for peer in list(sending):
                way = self._way(peer)
                speech = None
                if way is not None and self._links[way].pace.ready(now_ms):
                    speech = peer.piece(now_ms)
                if way is None or speech is None:
                    sending.remove(peer)
                    continue
                frame = self._sealed(peer, speech)
                self._links[way].pace.spent(len(frame))
                out.append(Outgoing(way, mailbox(self._realm, peer.node), frame))
        return out

    def _sealed(self, peer: Peer, speech: Speech) -> bytes:
        frame = bytes([Kind.LETTER]) + self._postbox.seal(peer.node, encode_speech(speech))
        peer.bytes_out += len(frame)
        return frame

    def _post(self, link: str, subject: str, frame: bytes, *, urgent: bool) -> None:
        way = self._links[link]
        queue = way.urgent if urgent else way.rest
        if way.up and len(queue) < LIVE_QUEUE_MAX:
            queue.append(Outgoing(link, subject, frame))

    def _drain(self, link: _Link, now_ms: int) -> list[Outgoing]:
        out = list(link.urgent)
        link.urgent.clear()
        for message in out:
            link.pace.spent(len(message.payload))
        while link.rest and link.pace.ready(now_ms):
            message = link.rest.popleft()
            link.pace.spent(len(message.payload))
            out.append(message)
        return out
