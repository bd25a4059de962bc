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

from collections.abc import Container, Iterable
from random import Random

from ledger import Ledger, Person
from ledger.clock import DRIFT_MAX_MS
from ledger.errors import LimitExceeded, PeerFault
from ledger.exchange import URGENT_LANE
from ledger.identity import NodeRole
from ledger.ids import GOVERNANCE, NodeId
from ledger.writing import Written
from nodes.acquaintances import Acquaintances, PeeringSettings
from nodes.doubt import Doubt
from nodes.lines import Lines, LinkSettings, Outgoing
from nodes.live import take_live
from nodes.messages import ClaimAsk, ClaimTold, FetchAsk, FetchTold, Message, Refusal
from nodes.nats.subjects import here, live, mailbox
from nodes.peer import Peer
from nodes.requests import Requests
from nodes.rounds import Rounds
from nodes.wire import (
    DIGEST_BYTES,
    FRAME_BYTES_MAX,
    LIVE_VERSION,
    Here,
    Kind,
    Live,
    Speech,
    decode_here,
    decode_live,
    decode_speech,
    encode_here,
    encode_live,
    encode_speech,
)

__all__ = ["Peering"]

LIVE_WAITING_MAX = 4096
"""Entries of ours written since the last poll: with more, whoever lacks them will ask."""
LIVE_GAP_WITHIN_MS = 500
"""A gap makes everybody ask somebody; not all at once."""
SPREAD_PER_PEER_MS = 10
"""By so much for each peer known, what all of them may do at one moment is spread: two heal at once, 200 in two seconds."""
SIGN_WITHIN_MS = 1_500
"""The first sign of life on a link that came up, at most: the links themselves come back over a second or more."""
AGREED_EVERY_MS = 60_000
"""Noted on disk at most so often of one peer, from its signs."""
ROUND_WITHIN_MS = 2_000
"""A round with whoever seems to hold something else, at most: in a large district everybody does after an outage."""
_ALL = frozenset(["*"])


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
        self.ledger, self._random = ledger, random
        self._exchange, self._realm = ledger.exchange, node.realm.id
        self._me = node.identity.node
        self._mailbox = mailbox(self._realm, self._me)
        self._subjects_of: frozenset[str] | set[str] = frozenset()
        self._subjects: tuple[str, ...] = (self._mailbox,)
        self.lines = Lines(links)
        self.peers = Acquaintances(ledger, self.lines, settings, random)
        self.requests = Requests(ledger, person)
        self._doubt = Doubt()
        self._next_sign_ms: int | None = None
        self._live: list[tuple[str, Written]] = []
        self.refused: dict[str, int] = {}
        """Code → frames from outside that were refused for it; codes are ours, so they are few."""
        self._stirred: dict[NodeId, Peer] = {}
        """Peers that may have something to say, or a round that may be over."""
        self._rounds = Rounds(self.peers, lambda: node.entropy.bytes(8))

    # --- links -------------------------------------------------------------------------------------------------------

    def link_up(self, name: str, now_ms: int) -> None:
        """A link came up: tell that we are there, and catch up soon with those whom it may reach."""
        if not self.lines.up(name):
            return
        # Not all 1,400 of a hub at once: signs over a second and a half, rounds over the seconds after.
        self._next_sign_ms = now_ms + self._random.randint(0, self._spread_ms(SIGN_WITHIN_MS))
        self.peers.look_again()
        for peer in self.peers.chosen(now_ms):
            peer.failures = 0
            peer.next_ms = now_ms + self._random.randint(0, self._spread_ms(SIGN_WITHIN_MS))
        self._rounds.look(now_ms)
        for node in self.peers.unmet():
            self._ask_who(name, node, now_ms)

    def link_down(self, name: str) -> None:
        """A link went down: what waits for it is dropped."""
        self.lines.down(name)
        self.peers.look_again()

    def subjects(self) -> tuple[str, ...]:
        """What every link is to listen to."""
        districts = _ALL if self.peers.serves_all else self._exchange.districts()
        if districts != self._subjects_of:  # Asked after every poll, and seldom other than before.
            self._subjects_of = districts
            self._subjects = (
                self._mailbox,
                *(live(self._realm, d) for d in sorted(districts)),
                *(here(self._realm, d) for d in sorted(districts)),
            )
        return self._subjects

    # --- coming in ---------------------------------------------------------------------------------------------------

    def received(self, link: str, subject: str, payload: bytes, now_ms: int) -> None:
        """Take in one message of a link.

        Raises:
            StoreFull, StoreDamaged: this node's own disk.
        """
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
            self._take_live(link, subject, decode_live(body), now_ms)
        elif kind == Kind.HERE:
            self._take_here(link, subject.rsplit(".", 1)[-1], body, now_ms)
        elif kind == Kind.INTRODUCTION:
            self._met(link, body, now_ms)
        elif kind == Kind.WHO and len(body) == len(self._me):
            self._introduce(link, NodeId(body), now_ms)
        else:
            self._refuse("version-unknown")
            # Of a newer version. What goes to a mailbox begins with its sender's id, whatever its kind.
            peer = self.peers.known(NodeId(body[:16])) if subject == self._mailbox else None
            if peer is not None and self.peers.may_ask("kind", peer.node, now_ms):
                peer.say(Refusal("version-unknown"))
                self._stirred[peer.node] = peer

    def _refuse(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1

    def _spread_ms(self, most_ms: int) -> int:
        return min(most_ms, SPREAD_PER_PEER_MS * (1 + len(self.peers.peers)))

    def _met(self, link: str, introduction: bytes, now_ms: int) -> None:
        self._doubt.check(now_ms)
        peer = self.peers.met(self.peers.postbox.learn(introduction))
        self._doubt.removed()
        if peer is not None and self.peers.may_ask("met", peer.node, now_ms):
            peer.link = link
            self._rounds.soon(peer, now_ms, 200)
            self.requests.again(peer.node, now_ms)

    def _introduce(self, link: str, asker: NodeId, now_ms: int) -> None:
        if self.peers.may_ask("told", asker, now_ms):
            frame = bytes([Kind.INTRODUCTION]) + self.peers.postbox.introduction()
            self.lines.post(link, mailbox(self._realm, asker), frame, urgent=True)
            self.requests.again(asker, now_ms)
            peer = self.peers.peers.get(asker)
            if peer is not None and peer.unread():
                self._rounds.soon(peer, now_ms, 200)

    def _ask_who(self, link: str, sender: NodeId, now_ms: int) -> None:
        """Ask a node who it is, unless that was asked just now or too much forged came in: then it is asked later."""
        if self.peers.may_ask("who", sender, now_ms):
            try:
                self._doubt.check(now_ms)
            except LimitExceeded as error:
                self._refuse(error.code)
                return
            self.lines.post(link, mailbox(self._realm, sender), bytes([Kind.WHO]) + self._me, urgent=True)

    def _peer(self, link: str, sender: NodeId, now_ms: int) -> Peer | None:
        """The peer of this id; who is unknown is asked who it is."""
        peer = self.peers.known(sender)
        if peer is None and sender != self._me:
            self._ask_who(link, sender, now_ms)
        return peer

    def _admits(self, peer: Peer, now_ms: int) -> bool:
        """Whether a peer that has proven who it is may be listened to."""
        if not peer.allow(now_ms):
            self._refuse("too-many")
            return False
        if self.peers.is_revoked(peer.node):
            self._refuse("revoked")
            peer.next_ms = None
            return False
        return True

    def _letter(self, link: str, letter: bytes, now_ms: int) -> None:
        peer = self._peer(link, self.peers.postbox.sender(letter), now_ms)
        if peer is None:
            return
        # Opened first, which costs little: whoever only claims to be that peer must not use up what it may send.
        _, content = self.peers.postbox.open(letter)
        if not self._admits(peer, now_ms):
            return
        peer.link, peer.heard_ms = link, now_ms
        peer.bytes_in += len(letter)
        self._stirred[peer.node] = peer
        message = peer.heard(decode_speech(content), now_ms)
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
                self._rounds.soon(peer, now_ms)
            case Refusal():
                peer.problems.append(f"peer: {message.code}")
            case _:
                pass

    def _take_live(self, link: str, subject: str, told: Live, now_ms: int) -> None:
        taken = take_live(self._exchange, self._doubt, told, now_ms)
        for code in taken.refused:
            self._refuse(code)
        if taken.gap:
            self._gap(taken.author, taken.district or subject.rsplit(".", 1)[-1], now_ms)
        if taken.new:
            # Whoever listens only on another of our links hears it too; a second time it is not new.
            on, urgent = live(self._realm, taken.district), told.entry.lane <= URGENT_LANE
            for other in sorted({*self.lines.names()} - {link}):
                self.lines.post(other, on, encode_live(told), urgent=urgent)

    def _gap(self, author: NodeId | None, district: str, now_ms: int) -> None:
        """Ask somebody for what is missing: who wrote it, else whoever is there and may hold it."""
        peer = None if author is None else self.peers.known(author)
        if peer is None or not self.peers.is_present(peer, now_ms):
            holding = [p for p in self.peers.present(now_ms) if not p.districts or district in p.districts]
            if not holding:
                return
            peer = self._random.choice(holding)
        if peer.busy:
            peer.missed = True
        else:
            self._rounds.soon(peer, now_ms, LIVE_GAP_WITHIN_MS // 10)

    def _take_here(self, link: str, district: str, body: bytes, now_ms: int) -> None:
        sign, signature = decode_here(body)
        peer = self._peer(link, NodeId(sign.node), now_ms)
        if peer is None or peer.signed(sign.stamp, link):
            return  # What is repeated proves nothing.
        self._doubt.check(now_ms)
        self.peers.take_sign(peer, link, district, sign, signature)
        self._doubt.removed()
        if not self._admits(peer, now_ms):
            return
        if not self.peers.is_present(peer, now_ms):
            self.peers.look_again()
        peer.link, peer.heard_ms = link, now_ms
        if peer.broke_off(now_ms):
            self._rounds.soon(peer, now_ms, self._spread_ms(ROUND_WITHIN_MS))
        if district in self._exchange.districts():
            differs = self._exchange.district_digest(district)[:DIGEST_BYTES] != sign.digest
            if not differs and now_ms - peer.agreed_ms >= AGREED_EVERY_MS:
                # It holds nothing of its own that we lack: as rounds say of those with whom they are kept up.
                peer.agreed_ms = now_ms
                self._exchange.heard_from(peer.node, min(sign.stamp, self.peers.stamp(DRIFT_MAX_MS)))
            if (
                differs
                and not peer.busy
                and (peer.next_ms is None or peer.next_ms > now_ms + ROUND_WITHIN_MS)
                and self.peers.is_asked(peer, now_ms)
            ):
                self._rounds.soon(peer, now_ms, self._spread_ms(ROUND_WITHIN_MS))

    # --- on request ----
    def converse(self, node: NodeId, now_ms: int, budget_bytes: int | None) -> None:
        """Begin a round with a node soon, with so many bytes each way; None: as at other times."""
        peer = self.peers.known(node)
        if peer is None:
            for link in self.lines.names():
                self._ask_who(link, node, now_ms)
            return
        peer.budget_bytes = budget_bytes
        if budget_bytes is not None:
            peer.missed |= peer.busy  # One that is under way would be taken for the one asked for.
            self._rounds.soon(peer, now_ms)

    # --- going out ---------------------------------------------------------------------------------------------------

    def written(self, district: str, written: Written) -> None:
        """Note an entry of ours, to be told. May be called from any thread that holds the ledger's lock."""
        if len(self._live) < LIVE_WAITING_MAX:
            self._live.append((district, written))

    def poll(self, now_ms: int, clear: Container[str] | None = None) -> list[Outgoing]:
        """What is to be sent now, the most urgent first. Nothing of it is kept here: what a link refuses is lost.

        Args:
            now_ms: the time.
            clear: links on which nothing waits: only there is more said than what is urgent. None: all that are up.
        """
        self._sign_if_due(now_ms)
        self._tell_written(now_ms)
        self._ask(now_ms)
        self._begin_rounds(now_ms)
        self._answer()
        out = list(self.lines.take(now_ms))
        out += self._pieces(now_ms, clear)
        for node, peer in list(self._stirred.items()):
            if peer.settle(now_ms):
                # No further ahead than an entry of its may be: its clock says up to where we hold what it wrote.
                self._exchange.heard_from(node, min(peer.stamp, self.peers.stamp(DRIFT_MAX_MS)))
            # While a round is under way none begins: to wake for one would be to wake every 20 ms until it ends.
            if peer.next_ms is not None and not peer.busy:
                self._rounds.soon(peer, peer.next_ms)
            if not peer.in_round:
                del self._stirred[node]
        return out

    def next_ms(self, now_ms: int) -> int:
        """When `poll` is to be called again at the latest, if nothing comes in before."""
        moments = [self._next_sign_ms, self.requests.next_ms()]
        if self.lines.names():
            moments.append(self._rounds.next_ms())
        moments += [peer.due_ms() for peer in self._stirred.values()]
        wait = self.lines.wait_ms()
        if wait is not None:
            moments.append(now_ms + wait)
        return max(now_ms, min((m for m in moments if m is not None), default=now_ms + 60_000))

    def _sign_if_due(self, now_ms: int) -> None:
        if self._next_sign_ms is None or now_ms < self._next_sign_ms:
            return
        node = self.ledger.node
        district = GOVERNANCE if self.peers.serves_all else node.identity.district
        up = self.lines.names()
        digest = self._exchange.district_digest(district)[:DIGEST_BYTES]
        frame = encode_here(
            self._realm, district, Here(self._me, self.peers.stamp(), digest), node.keys.signing
        )
        for link in up:
            self.lines.post(link, here(self._realm, district), frame, urgent=False)
        pause = self.peers.sign_ms(up) * self._random.randint(80, 120) // 100
        self._next_sign_ms = now_ms + pause if up else None

    def _tell_written(self, now_ms: int) -> None:
        told, self._live = self._live, []
        for district, written in told:
            subject, entry = live(self._realm, district), written.entry
            for link in self.lines.names():
                # Where much is under way, listeners may lack what comes before: they are told what it follows.
                behind = any(peer.sending and peer.link == link for peer in self._stirred.values())
                frame = encode_live(
                    Live(LIVE_VERSION, written.feed, entry, written.previous if behind else b"")
                )
                self.lines.post(link, subject, frame, urgent=entry.lane <= URGENT_LANE)

    def _ask(self, now_ms: int) -> None:
        """Requests that are due, and rounds with those who granted what is not here yet."""
        if not len(self.requests):
            return
        for to, message in list(self.requests.due(now_ms)):
            peer = self.peers.known(to)
            if peer is not None:
                peer.say(message)
                self._stirred[to] = peer
                continue
            for link in self.lines.names():
                self._ask_who(link, to, now_ms)
        for to in self.requests.waiting_for():
            peer = self.peers.known(to)
            if peer is not None and not peer.busy:
                self._rounds.soon(peer, now_ms)

    def _begin_rounds(self, now_ms: int) -> None:
        if self.lines.names():
            for peer in self._rounds.begin(self._stirred, now_ms):
                self._stirred[peer.node] = peer

    def _answer(self) -> None:
        """Put what is urgent of each conversation before what is not."""
        for peer in self._stirred.values():
            speeches = peer.answers()
            way = self.peers.way(peer) if speeches else None
            if way is not None:
                for speech in speeches:
                    self.lines.post(
                        way, mailbox(self._realm, peer.node), self._sealed(peer, speech), urgent=True
                    )

    def _pieces(self, now_ms: int, clear: Container[str] | None) -> list[Outgoing]:
        """Of what peers lack, one piece each in turn, as long as there is room."""
        out: list[Outgoing] = []
        sending = [peer for peer in self._stirred.values() if peer.sending]
        self._random.shuffle(sending)
        while sending:
            for peer in list(sending):
                way = self.peers.way(peer)
                may = way is not None and (clear is None or way in clear) and self.lines.ready(way, now_ms)
                speech = peer.piece(now_ms) if may else None
                if way is None or speech is None:
                    sending.remove(peer)
                    continue
                frame = self._sealed(peer, speech)
                self.lines.spent(way, len(frame))
                out.append(Outgoing(way, mailbox(self._realm, peer.node), frame, urgent=False))
        return out

    def _sealed(self, peer: Peer, speech: Speech) -> bytes:
        frame = bytes([Kind.LETTER]) + self.peers.postbox.seal(peer.node, encode_speech(speech))
        peer.bytes_out += len(frame)
        return frame
