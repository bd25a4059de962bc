"""A node with a valid certificate that does what it should not: everything it says is well enough formed to be looked at.

It is enrolled as any pharmacy, logs in at the hub with its key, and seals its letters as any peer does. Each attack is a
stream of frames. What comes back to it is kept: a refusal has to have a code.
"""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Callable, Iterator

import msgspec
import zstandard
from nats.aio.client import Client
from nats.aio.msg import Msg

from ledger import (
    Coded,
    IssuePrescription,
    Ledger,
    NodeId,
    Patient,
    Product,
    RealmKind,
    SystemEntropy,
    UnlockFile,
)
from ledger.clock import pack_stamp
from ledger.errors import PeerFault
from ledger.events import Origin
from ledger.feed import Entry, ForkProof, Run, encode_header, entry_link, sign_link
from ledger.ids import DocumentId, FeedId, Link
from ledger.persons import NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from ledger.vault import EntryKey, entry_key, seal
from nodes.envelope import Postbox
from nodes.founding import found_realm
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
    FetchTold,
    Frontier,
    InStep,
    Message,
    Refusal,
    Summary,
    decode_message,
    encode_message,
)
from nodes.nats.certificates import client_tls
from nodes.nats.nkeys import Login
from nodes.nats.subjects import here, live, mailbox
from nodes.wire import (
    FRAME_BYTES_MAX,
    LIVE_VERSION,
    Here,
    Kind,
    Live,
    Speech,
    decode_speech,
    encode_here,
    encode_live,
    encode_speech,
)
from tests.lab.cluster import DISTRICT, Cluster, Member

__all__ = ["ATTACKS", "Frames", "Villain"]

Frames = Iterator[tuple[str, bytes]]
Heads = tuple[tuple[int, bytes], ...]
BATCH = 50
"""Frames between two looks at whether the hub keeps up."""
BOMB_BYTES = 256 * 1024 * 1024


class Villain:
    """The node, its keys, and its connection. Lives in one event loop once connected."""

    def __init__(self, cluster: Cluster, member: Member, victim: Member, seed: int) -> None:
        self.member, self.victim, self.cluster = member, victim, cluster
        self.chance = random.Random(seed)
        self.ledger = Ledger.open(member.directory, cluster.unlock)
        node = self.ledger.node
        self.realm, self.keys, self.me = node.realm.id, node.keys, node.identity.node
        self.postbox = Postbox(node.realm, node.identity, node.keys, SystemEntropy())
        certified = self.ledger.exchange.certified(victim.node)
        assert certified is not None
        self.postbox.know(certified)
        self.to = mailbox(self.realm, victim.node)
        self.documents: list[DocumentId] = []
        self.refusals: set[str] = set()
        """Codes that came back."""
        self._client = Client()

    # --- connection -------------------------------------------------------------------------------------------------

    async def connect(self, url: str) -> None:
        """Log in at the hub."""
        login = Login(self.keys.signing)
        login.prepare(self._client)

        async def quiet(_: Exception) -> None:
            """A hub that refuses is what is to be seen elsewhere."""

        await self._client.connect(
            url, tls=client_tls(self.ledger.node.realm), signature_cb=login.sign, error_cb=quiet, allow_reconnect=False
        )  # fmt: skip
        await self._client.subscribe(mailbox(self.realm, self.me), cb=self._heard)

    async def close(self) -> None:
        await self._client.close()
        self.ledger.close()

    async def _heard(self, message: Msg) -> None:
        try:
            if message.data[0] != Kind.LETTER:
                return
            _, content = self.postbox.open(message.data[1:])
            said = decode_message(decode_speech(content).message)
        except PeerFault:
            return
        if isinstance(said, Refusal | ClaimTold | FetchTold) and said.code:
            self.refusals.add(said.code)

    async def send(self, frames: Frames) -> int:
        """All of an attack; returns how many frames."""
        count = 0
        for subject, frame in frames:
            await self._client.publish(subject, frame)
            count += 1
            if count % BATCH == 0:
                await self._client.flush(10)
        await self._client.flush(10)
        return count

    # --- making things ------------------------------------------------------------------------------------------------

    def noise(self, size: int) -> bytes:
        return self.chance.randbytes(size)

    def letter(self, message: bytes, *, round_: bytes | None = None, number: int = 0) -> tuple[str, bytes]:
        """A letter to the victim, as it should be sealed."""
        speech = Speech(self.noise(8) if round_ is None else round_, number, message)
        return self.to, bytes([Kind.LETTER]) + self.postbox.seal(self.victim.node, encode_speech(speech))

    def say(self, message: Message, *, round_: bytes | None = None, number: int = 0) -> tuple[str, bytes]:
        return self.letter(encode_message(message), round_=round_, number=number)

    def feed_of(self, node: NodeId) -> FeedId:
        feed = self.ledger.node.feed_of(node, DISTRICT)
        assert feed is not None
        return feed

    def issue(self, ledger: Ledger | None = None) -> DocumentId:
        """A prescription from paper, which a pharmacy may register."""
        ledger = ledger or self.ledger
        order = IssuePrescription(
            patient=Patient(name="Test Testsson", identifier=Coded(PERSONAL_NUMBER, "200001252386")),
            product=Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", strength="500 mg", pack_quantity=100),
            dosage="1", fills=1, prescriber=Coded(PRESCRIBER_CODE, "0012345"), origin=Origin.PAPER, holder=self.me,
        )  # fmt: skip
        document = ledger.prescribe(order, person=self.member.person, command=uuid.uuid4().bytes).document
        self.documents.append(document)
        return document

    def entry(
        self,
        feed: FeedId,
        sequence: int,
        previous: Link,
        plain: bytes,
        *,
        lane: int = 2,
        document: bytes = b"",
    ) -> Entry:
        """A signed entry with any content, whether or not the feed is its own."""
        document = document or self.noise(16)
        ring = self.ledger.node.keyring
        epoch = ring.newest_epoch(DISTRICT)
        key: EntryKey = entry_key(ring.document_key(DISTRICT, epoch, document), feed, sequence)
        bare = Entry(
            sequence, pack_stamp(self.ledger.node.now_ms()), document, lane, epoch, key.commitment, None
        )
        sealed = seal(key, encode_header(self.realm, feed, bare), plain)
        unsigned = msgspec.structs.replace(bare, sealed=sealed)
        link = entry_link(self.realm, feed, previous, unsigned)
        return msgspec.structs.replace(unsigned, signature=sign_link(link, self.keys.signing))

    def head(self, feed: FeedId) -> tuple[int, Link]:
        return self.ledger.exchange.frontier_of(feed)[-1]


# --- attacks ----------------------------------------------------------------------------------------------------------


def unreadable_letters(v: Villain) -> Frames:
    """Letters that nobody sealed, in its own name, the clinic's, and nobody's."""
    names = [v.me, v.cluster["clinic"].node, v.cluster["agency"].node]
    for _ in range(1500):
        yield v.to, bytes([Kind.LETTER]) + v.chance.choice([*names, v.noise(16)]) + v.noise(200)


def largest_frames(v: Villain) -> Frames:
    """Of every kind, as large as the hub takes."""
    for number in range(160):
        kind = (Kind.LETTER, Kind.LIVE, Kind.HERE, Kind.INTRODUCTION, 77)[number % 5]
        subject = live(v.realm, DISTRICT) if kind == Kind.LIVE else v.to
        yield subject, bytes([kind]) + v.me + v.noise(FRAME_BYTES_MAX - 17)


def nonsense_in_letters(v: Villain) -> Frames:
    """Well sealed, badly said: noise, depth, sizes that are claimed, versions to come, kinds that are none."""
    digest = encode_message(Digest(v.realm, {DISTRICT: v.noise(32)}))
    said = [
        v.noise(300),
        b"",
        b"\x92\x01" + b"\x91" * 100_000,
        b"\x92\x01\xdf\xff\xff\xff\xff",
        b"\x92\x01\x93\x01\xc4\x10" + v.realm + b"\xde\xff\xff",
        msgspec.msgpack.encode((99, [1, v.realm, {}])),
        msgspec.msgpack.encode((1, [250, "?"])),
        msgspec.msgpack.encode((1, [2, {DISTRICT: {v.noise(16): [[-1, v.noise(32)]]}}])),
        digest[:-1],
        digest + b"\0",
        v.noise(120_000),
    ]
    for number in range(660):
        yield v.letter(said[number % len(said)], number=number + 1)


def endless_rounds(v: Villain) -> Frames:
    """Every message begins a round, none ends one."""
    for number in range(1500):
        yield v.say(Digest(v.realm, {DISTRICT: v.noise(32), "governance": v.noise(32)}), number=number + 1)


def lies_within_rounds(v: Villain) -> Frames:
    """Frontiers of feeds that are none, and of nothing at all, so that everything is asked for again and again."""
    for _ in range(60):
        round_ = v.noise(8)
        yield v.say(Digest(v.realm, {DISTRICT: v.noise(32)}), round_=round_)
        feeds: dict[bytes, Heads] = {v.noise(16): ((5, v.noise(32)),) for _ in range(1500)}
        yield v.say(Frontier({DISTRICT: feeds}), round_=round_)
        for _ in range(10):
            yield v.say(Frontier({DISTRICT: {}}), round_=round_)
        known: dict[bytes, Heads] = {
            bytes(v.feed_of(m.node)): ((1 << 50, v.noise(32)),) for m in v.cluster if m.name == "clinic"
        }
        yield v.say(Frontier({DISTRICT: known}), round_=round_)
        yield v.say(Buckets({DISTRICT: tuple(v.noise(16) for _ in range(64))}), round_=round_)
        yield v.say(Summary(v.noise(32)), round_=round_)
        yield v.say(InStep((1 << 62) - 1), round_=round_)
        yield v.say(Done(more=True), round_=round_)
        for _ in range(5):
            yield v.say(Ack(v.chance.getrandbits(32)), round_=round_)


def replayed_letters(v: Villain) -> Frames:
    """A few letters, over and over."""
    letters = [v.say(Digest(v.realm, {DISTRICT: v.noise(32)}), number=1) for _ in range(3)]
    for number in range(1500):
        yield letters[number % 3]


def claims_for_others(v: Villain) -> Frames:
    """Fills of a prescription of the victim for a pharmacy that did not ask, and then without end."""
    feed = v.feed_of(v.cluster["linden"].node)
    documents = list(v.ledger.node.store.documents(DISTRICT)) or [DocumentId(v.noise(16))]
    for _ in range(400):
        yield v.say(ClaimAsk(uuid.uuid4().bytes, v.chance.choice(documents), feed, (1, 2)))


def fetches_without_end(v: Villain) -> Frames:
    """Whatever a patient has, hundreds of times."""
    patient = Patient(name="Test", identifier=Coded(PERSONAL_NUMBER, "189002029800"))
    for _ in range(400):
        yield v.say(FetchAsk(uuid.uuid4().bytes, v.member.person, "curiosity", b"", patient))


def forged_entries(v: Villain) -> Frames:
    """New entries of the clinic, signed by somebody else; told to everybody, and in rounds."""
    feed = v.feed_of(v.cluster["clinic"].node)
    sequence, link = v.head(feed)
    for number in range(800):
        ahead = number % 3
        entry = v.entry(feed, sequence + 1 + ahead, link, v.noise(100), lane=0)
        if number % 2:
            yield live(v.realm, DISTRICT), encode_live(Live(LIVE_VERSION, feed, entry, link))
        else:
            yield v.say(Entries(runs=(Run(feed, link, (entry,)),)))


def forged_forks(v: Villain) -> Frames:
    """Proofs that the clinic forked its feed, which it did not."""
    feed = v.feed_of(v.cluster["clinic"].node)
    sequence, link = v.head(feed)
    for _ in range(200):
        left, right = (Run(feed, link, (v.entry(feed, sequence + 1, link, v.noise(50)),)) for _ in range(2))
        yield v.say(Entries(proofs=(ForkProof(left, right),)))


def real_forks(v: Villain) -> Frames:
    """Two hundred branches of its own feed from one position, to the victim and to everybody."""
    feed = v.feed_of(v.me)
    sequence, link = v.head(feed)
    for number in range(200):
        entry = v.entry(feed, sequence + 1, link, v.noise(50))
        if number % 2:
            yield v.say(Entries(runs=(Run(feed, link, (entry,)),)))
        else:
            yield live(v.realm, DISTRICT), encode_live(Live(LIVE_VERSION, feed, entry, link))


def storm_of_gaps(v: Villain) -> Frames:
    """Entries ahead of its own feed, properly signed, of which the ones before never come; and of feeds never heard of."""
    feed = v.feed_of(v.me)
    sequence, _ = v.head(feed)
    for number in range(1500):
        previous = Link(v.noise(32))
        if number % 3 == 2:
            stranger = FeedId(v.noise(16))
            entry = v.entry(stranger, 7, previous, v.noise(60), lane=0)
            yield live(v.realm, DISTRICT), encode_live(Live(LIVE_VERSION, stranger, entry, previous))
            continue
        entry = v.entry(feed, sequence + 1000 + number, previous, v.noise(60), lane=0)
        if number % 3:
            yield live(v.realm, DISTRICT), encode_live(Live(LIVE_VERSION, feed, entry, previous))
        else:
            yield v.say(Detached((Ahead(feed, previous, entry),)))


def bombs(v: Villain) -> Frames:
    """Entries chained and signed as they should be, whose content unfolds to a quarter of a gigabyte, or is poison."""
    stated = zstandard.ZstdCompressor(level=3).compress(bytes(BOMB_BYTES))
    stream = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    unstated = stream.compress(bytes(BOMB_BYTES)) + stream.flush()
    feed = v.feed_of(v.me)
    sequence, link = v.head(feed)
    for plain in [
        b"\x01" + stated,
        b"\x01" + unstated,
        b"\x63" + v.noise(40),
        b"",
        v.noise(500),
        b"\x01" + v.noise(99),
    ] * 5:
        sequence += 1
        entry = v.entry(feed, sequence, link, plain)
        yield live(v.realm, DISTRICT), encode_live(Live(LIVE_VERSION, feed, entry, link))
        yield v.say(Entries(runs=(Run(feed, link, (entry,)),)))
        link = entry_link(v.realm, feed, link, entry)


def poisoned_certificates(v: Villain) -> Frames:
    """Of another realm, changed by a bit, too many, too long, none."""
    own = v.postbox.introduction()
    directory = v.member.directory.parent / "another-realm"
    unlock = UnlockFile(v.member.directory.parent / "unlock" / "other")
    founded = found_realm(directory, "Annat", RealmKind.EXERCISE, unlock)
    with founded.agency as agency:
        foreign = msgspec.msgpack.encode(agency.node.identity.certificates)
    shutil.rmtree(directory)
    for number in range(1200):
        spoiled = bytearray(own)
        spoiled[v.chance.randrange(len(own))] ^= 1 << v.chance.randrange(8)
        body = [
            foreign,
            bytes(spoiled),
            msgspec.msgpack.encode((v.noise(700),) * 3),
            msgspec.msgpack.encode((v.noise(10),) * 500),
            v.noise(8000),
            b"\xdd\xff\xff\xff\xff",
            own,
        ][number % 7]
        yield v.to, bytes([Kind.INTRODUCTION]) + body


def false_signs_of_life(v: Villain) -> Frames:
    """The clinic's, signed by somebody else; its own with a digest that nobody has; and questions in a thousand names."""
    stamp = pack_stamp(v.ledger.node.now_ms())
    subject = here(v.realm, DISTRICT)
    for number in range(1500):
        if number % 3 == 0:
            forged = Here(v.cluster["clinic"].node, stamp, v.noise(8))
            yield subject, encode_here(v.realm, DISTRICT, forged, v.keys.signing)
        elif number % 3 == 1:
            yield subject, encode_here(v.realm, DISTRICT, Here(v.me, stamp, v.noise(8)), v.keys.signing)
        else:
            yield v.to, bytes([Kind.WHO]) + v.noise(16)


ATTACKS: tuple[Callable[[Villain], Frames], ...] = (
    unreadable_letters,
    largest_frames,
    nonsense_in_letters,
    endless_rounds,
    lies_within_rounds,
    replayed_letters,
    claims_for_others,
    fetches_without_end,
    forged_entries,
    forged_forks,
    poisoned_certificates,
    false_signs_of_life,
    bombs,
    storm_of_gaps,
    real_forks,
)
"""What leaves marks on its own feed comes last."""
