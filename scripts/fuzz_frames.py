"""What a server gives to a node, for the fuzzer: frames as they come, letters of a peer with a good certificate, signs of life.

Not only decoders are tried, but the whole of `nodes.peering`: nothing that anybody sends may be raised there (R15).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import msgspec

from benchmarks.world import DISTRICT, PHARMACIST, order
from ledger import Ledger, Person, PersonRole, SeededEntropy
from ledger.errors import PeerFault
from ledger.ids import GOVERNANCE, tagged_hash
from nodes.acquaintances import PeeringSettings
from nodes.envelope import Postbox
from nodes.lines import LinkSettings
from nodes.messages import (
    Ack,
    Ahead,
    Buckets,
    ClaimAsk,
    ClaimTold,
    Detached,
    Digest,
    Done,
    Entries,
    FetchAsk,
    Fetched,
    FetchTold,
    Frontier,
    InStep,
    Message,
    Refusal,
    Summary,
    encode_message,
)
from nodes.nats.subjects import here, live, mailbox
from nodes.peering import Peering
from nodes.wire import Here, Kind, Live, Speech, encode_live, encode_speech

__all__ = ["Frames"]


class Frames:
    """The ways into one node, the victim."""

    def __init__(self, victim: Ledger, peer: Ledger) -> None:
        node = victim.node
        self._peer, self._realm = peer, node.realm.id
        person = Person(PHARMACIST.code, PersonRole.OPERATOR)
        links = [LinkSettings(name="hub"), LinkSettings(name="radio", bits_per_second=9600, thin=True)]
        self._peering = Peering(victim, links, PeeringSettings(), person=person, random=Random(1))
        self._now_ms = node.now_ms()
        for link in links:
            self._peering.link_up(link.name, self._now_ms)
        self._box = Postbox(node.realm, peer.node.identity, peer.node.keys, SeededEntropy(9))
        self._box.know(node.identity)
        self._victims = Postbox(node.realm, node.identity, node.keys, SeededEntropy(10))
        self._victims.know(peer.node.identity)
        self._mailbox = mailbox(self._realm, node.identity.node)

    def _hear(self, subject: str, frame: bytes) -> None:
        """Nothing at all may be raised. Time goes on, or limits would hide what comes after the first hundred."""
        self._now_ms += 20
        self._peering.received("hub", subject, frame, self._now_ms)
        self._peering.poll(self._now_ms)

    def _sealed(self, content: bytes) -> bytes:
        return self._box.seal(self._peering.ledger.node.identity.node, content)

    def _hear_message(self, message: bytes) -> None:
        """In a letter, in no round, in the last one, or in one of its own."""
        round_ = (bytes(8), b"a round.", self._now_ms.to_bytes(8, "big"))[len(message) % 3]
        self._hear(
            self._mailbox,
            bytes([Kind.LETTER]) + self._sealed(encode_speech(Speech(round_, len(message) % 2, message))),
        )

    def _hear_sign(self, body: bytes) -> None:
        """Signed well, whatever it says."""
        try:
            said = tagged_hash("here", self._realm, DISTRICT.encode(), body)
            signed = msgspec.msgpack.encode([msgspec.Raw(body), self._peer.node.keys.signing.sign(said)])
        except ValueError:
            signed = body
        self._hear(here(self._realm, DISTRICT), bytes([Kind.HERE]) + signed)

    def targets(
        self,
    ) -> list[tuple[str, Callable[[bytes], object], list[bytes], tuple[type[Exception], ...]]]:
        """What takes frames: name, function, valid inputs, what it may raise."""
        peer, pack = self._peer, msgspec.msgpack.encode
        exchange = peer.exchange
        feed = peer.node.own_feed(DISTRICT)
        run = next(iter(exchange.runs(feed, (), 1 << 20)))
        lives = [encode_live(Live(1, feed, e, p)) for e in run.entries for p in (b"", run.previous)]
        document, command = bytes(run.entries[0].document), b"c" * 16
        patient = order(0, holder=None).patient
        asks: list[Message] = [
            ClaimAsk(command, document, feed, (1, 2)),
            ClaimTold(command, bytes(32)),
            FetchAsk(command, PHARMACIST, "evakuerad", document),
            FetchAsk(command, PHARMACIST, "evakuerad", b"", patient),
            FetchTold(command, (Fetched(document, DISTRICT, {1: bytes(32)}),)),
            Summary(bytes(32)),
            Buckets({DISTRICT: exchange.bucket_digests(DISTRICT)}),
            Digest(self._realm, {DISTRICT: bytes(32), GOVERNANCE: exchange.district_digest(GOVERNANCE)}),
            Frontier({DISTRICT: {}}),
            Entries(openings=(exchange.opening(feed),), runs=(run,)),
            Detached((Ahead(feed, run.previous, run.entries[0]),)),
            InStep(1),
            Ack(1),
            Done(more=True),
            Refusal("malformed"),
        ]
        said = [encode_message(m) for m in asks]
        sign = pack(Here(peer.node.identity.node, 1 << 62, bytes(8)))
        letter = bytes([Kind.LETTER]) + self._sealed(encode_speech(Speech(bytes(8), 1, said[0])))
        introduction = bytes([Kind.INTRODUCTION]) + self._box.introduction()
        who = bytes([Kind.WHO]) + peer.node.identity.node
        return [
            ("frame", partial(self._hear, self._mailbox), [letter, introduction, who, *lives[:2]], ()),
            ("letter", self._hear_message, said, ()),
            ("introduction", self._after(self._mailbox, Kind.INTRODUCTION), [introduction[1:]], ()),
            ("live", self._after(live(self._realm, DISTRICT), Kind.LIVE), [each[1:] for each in lives], ()),
            ("here", self._hear_sign, [sign], ()),
            ("open", self._victims.open, [letter[1:]], (PeerFault,)),
            ("learn", self._victims.learn, [introduction[1:]], (PeerFault,)),
        ]

    def _after(self, subject: str, kind: Kind) -> Callable[[bytes], None]:
        """A frame of this kind, whatever its body."""
        return lambda body: self._hear(subject, bytes([kind]) + body)
