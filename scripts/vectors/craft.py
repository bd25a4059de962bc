"""A realm with test keys, and a writer of entries that can also write what no honest node would.

Nothing here shares code with `ledger.writing`: a vector made by the code that it tests would prove little. All
keys come from one seed that stands here, so they are worth nothing outside these vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import msgspec
from msgspec import Struct

from ledger.certificates import create_issuing, create_root, issue_node
from ledger.clock import pack_stamp
from ledger.codec import encode_content
from ledger.custody import bearer_public_key
from ledger.entropy import SeededEntropy
from ledger.events import (
    Basis,
    Coded,
    Dispensed,
    Event,
    FillKey,
    FillRight,
    Patient,
    Person,
    PersonRole,
    PrescriptionIssued,
    Product,
    encode_event,
)
from ledger.feed import (
    Entry,
    FormerFeed,
    Opening,
    Run,
    SignedOpening,
    encode_header,
    entry_link,
    feed_id,
    genesis_link,
    sign_link,
    sign_opening,
)
from ledger.identity import Certified, NodeKeys, NodeRole, Realm, RealmKind, verify_chain
from ledger.ids import GOVERNANCE, DocumentId, Link, district_document, document_id
from ledger.persons import PERSONAL_NUMBER, PRESCRIBER_CODE
from ledger.vault import PUBLIC_DISTRICT_KEY, document_key, entry_key, seal
from nodes.messages import Entries, encode_message

__all__ = ["NOW_MS", "STOCKHOLM", "UPPSALA", "Feed", "Member", "World", "governance", "message", "right"]

NOW_MS = 1_795_500_000_000
STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"
ISSUED = "2026-11-24"
VALID_UNTIL = "2027-11-24"
# A test number of the tax agency: nobody's.
PATIENT = Patient(name="Tolvan Tolvansson", identifier=Coded(PERSONAL_NUMBER, "189002029800"))
PRODUCT = Product(
    pack=Coded("http://medication.ehm.se/nplpackid", "20990101100001"), name="Exempelmedicin", atc="A00AA00",
    form="tablett", strength="10 mg", pack_quantity=100,
)  # fmt: skip
_PERSON_OF = {
    NodeRole.PRESCRIBER: PersonRole.PRESCRIBER,
    NodeRole.PHARMACY: PersonRole.PHARMACIST,
    NodeRole.AGENCY: PersonRole.OFFICER,
    NodeRole.AUTHORITY: PersonRole.OFFICER,
    NodeRole.RELAY: PersonRole.OPERATOR,
}


class Member(Struct, frozen=True):
    """A node of the realm, with its private keys."""

    name: str
    keys: NodeKeys
    chain: tuple[bytes, ...]
    certified: Certified

    @property
    def person(self) -> Person:
        """Who acts there."""
        return Person(Coded("urn:rxledger:vector", self.name), _PERSON_OF[self.certified.role])


class World:
    """The realm of the vectors: the same to the byte whenever it is made."""

    def __init__(self, seed: bytes = b"rxledger test vectors") -> None:
        self.entropy = SeededEntropy(seed)
        self.root, self.issuing = self.new_keys(), self.new_keys()
        self.root_certificate = create_root(
            self.root.signing, "Vektorriket", RealmKind.EXERCISE, NOW_MS, entropy=self.entropy
        )
        self.realm = Realm.from_certificate(self.root_certificate)
        self.issuing_chain = create_issuing(
            self.root.signing, self.root_certificate, self.issuing.public_key, NOW_MS, entropy=self.entropy
        )
        self.district_keys = {(d, e): self.entropy.bytes(32) for d in (STOCKHOLM, UPPSALA) for e in (1, 2)}
        self.index_keys = {d: self.entropy.bytes(32) for d in (STOCKHOLM, UPPSALA)}
        self.members: dict[str, Member] = {}
        for name, role, district in (
            ("agency", NodeRole.AGENCY, ""),
            ("reader", NodeRole.AGENCY, ""),
            ("authority", NodeRole.AUTHORITY, STOCKHOLM),
            ("prescriber", NodeRole.PRESCRIBER, STOCKHOLM),
            ("eken", NodeRole.PHARMACY, STOCKHOLM),
            ("bjorken", NodeRole.PHARMACY, STOCKHOLM),
            ("linden", NodeRole.PHARMACY, STOCKHOLM),
            ("aspen", NodeRole.PHARMACY, UPPSALA),
            ("relay", NodeRole.RELAY, STOCKHOLM),
        ):
            keys = self.new_keys()
            chain = self.certify(keys, role, district, name)
            self.members[name] = Member(name, keys, chain, verify_chain(self.realm, chain))
        self._commands = 0
        self._seconds = 0

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def new_keys(self) -> NodeKeys:
        """Fresh keys."""
        return NodeKeys.generate(self.entropy)

    def certify(
        self, keys: NodeKeys, role: NodeRole, district: str, name: str, *, by: Member | None = None
    ) -> tuple[bytes, ...]:
        """Certify keys; by the agency unless told otherwise."""
        key, above = (by.keys, by.chain) if by else (self.issuing, self.issuing_chain)
        return issue_node(
            key.signing,
            above,
            keys.public_key,
            keys.wrapping_key,
            role,
            district,
            name,
            NOW_MS,
            entropy=self.entropy,
        )

    def restart(self) -> None:
        """Command ids and time begin anew: a vector does not change because another was added."""
        self._commands = self._seconds = 0

    def command(self) -> bytes:
        """The next command id."""
        self._commands += 1
        return hashlib.sha256(b"vector command %d" % self._commands).digest()[:16]

    def next_stamp(self) -> int:
        """A stamp one second after the last."""
        self._seconds += 1
        return pack_stamp(NOW_MS + self._seconds * 1000)

    def district_key(self, district: str, epoch: int) -> bytes:
        """The key of a district in an epoch; the public one of governance."""
        return PUBLIC_DISTRICT_KEY if district == GOVERNANCE else self.district_keys[district, epoch]

    @contextmanager
    def with_district(self, district: str) -> Iterator[None]:
        """A district more for a while, whose key no reader holds."""
        self.district_keys[district, 1] = bytes(32)
        yield
        del self.district_keys[district, 1]

    def feed(
        self, name: str, district: str = STOCKHOLM, incarnation: int = 1, former: Sequence[FormerFeed] = ()
    ) -> Feed:
        """Open a feed of a member."""
        return Feed(self, self[name], district, incarnation, tuple(former))

    def issue(
        self, feed: Feed, *, holder: Feed | None = None, seeds: dict[int, bytes] | None = None, fills: int = 2,
        **changes: object,
    ) -> tuple[DocumentId, Link]:  # fmt: skip
        """Issue a prescription; returns its document and the link of the issuing entry."""
        event = self.issuing_event(feed, holder=holder, seeds=seeds, fills=fills, **changes)
        document = document_id(date.fromisoformat(event.issued), encode_event(event))
        return document, feed.append(document, event)

    def issuing_event(
        self, feed: Feed, *, holder: Feed | None = None, seeds: dict[int, bytes] | None = None, fills: int = 2,
        **changes: object,
    ) -> PrescriptionIssued:  # fmt: skip
        """An issuing event, not yet written."""
        command = self.command()
        plain = PrescriptionIssued(
            person=feed.member.person, command=command, nonce=hashlib.sha256(b"nonce" + command).digest()[:16],
            district=feed.district, issued=ISSUED, patient=PATIENT, product=PRODUCT, dosage="1 tablett dagligen",
            fills=fills, valid_until=VALID_UNTIL, prescriber=Coded(PRESCRIBER_CODE, "0012345"),
            holder=holder.id if holder else None,
            bearer_keys=tuple(FillKey(fill, bearer_public_key(seed)) for fill, seed in sorted((seeds or {}).items())),
        )  # fmt: skip
        return msgspec.structs.replace(plain, **changes)

    def supply(
        self, feed: Feed, fill: int, basis: Basis, rests_on: Link | None, **changes: object
    ) -> Dispensed:
        """A supply of one whole fill."""
        plain = Dispensed(
            person=feed.member.person, command=self.command(), fill=fill, quantity=100, basis=basis, rests_on=rests_on,
            reason="" if rests_on else "innehavaren nås inte",
        )  # fmt: skip
        return msgspec.structs.replace(plain, **changes)

    def act(self, event: type[Event], feed: Feed, /, **fields: object) -> Event:
        """Any other event."""
        return event(person=feed.member.person, command=self.command(), **fields)  # type: ignore[arg-type]


class Feed:
    """A feed under construction. Everything that an honest writer computes can be given instead."""

    def __init__(
        self, world: World, member: Member, district: str, incarnation: int, former: tuple[FormerFeed, ...]
    ) -> None:
        self.world, self.member, self.district = world, member, district
        nonce = hashlib.sha256(f"{member.name} {district} {incarnation}".encode()).digest()[:16]
        self.opening: SignedOpening = sign_opening(
            Opening(
                realm=world.realm.id, district=district, incarnation=incarnation, nonce=nonce,
                stamp=pack_stamp(NOW_MS), certificates=member.chain, former=former,
            ),
            member.keys.signing,
        )  # fmt: skip
        self.id, self.genesis = feed_id(self.opening), genesis_link(self.opening)
        self.entries: list[Entry] = []
        self.links: list[Link] = []

    @property
    def head(self) -> Link:
        """Link of the last entry."""
        return self.links[-1] if self.links else self.genesis

    def branch(self, sequence: int) -> Feed:
        """A copy that has the entries before this sequence: what an image rolled back would go on from."""
        copy = object.__new__(Feed)
        copy.__dict__.update(self.__dict__)
        copy.entries, copy.links = self.entries[: sequence - 1], self.links[: sequence - 1]
        return copy

    def append(
        self, document: bytes, event: Event | bytes, parents: Sequence[Link] = (), *, lane: int | None = None,
        epoch: int | None = None, stamp: int | None = None, sequence: int | None = None, content: bytes | None = None,
        sealed: bytes | None = None, commitment: bytes | None = None, sealed_under: bytes | None = None,
        signed_by: Member | None = None,
    ) -> Link:  # fmt: skip
        """Seal, chain and sign one event; returns its link. `sealed_under`: another header than the entry's."""
        world = self.world
        data = event if isinstance(event, bytes) else encode_event(event)
        epoch = epoch if epoch is not None else int(self.district != GOVERNANCE)
        place = len(self.entries) + 1 if sequence is None else sequence
        key = entry_key(
            document_key(world.district_key(self.district, epoch), document),
            self.id,
            min(place, (1 << 64) - 1),
        )
        entry = Entry(
            place, world.next_stamp() if stamp is None else stamp, document,
            (0 if isinstance(event, bytes) else type(event).lane) if lane is None else lane, epoch,
            key.commitment if commitment is None else commitment, None,
        )  # fmt: skip
        if sealed is None:
            plain = (
                encode_content(DocumentId(document), sorted(parents), data) if content is None else content
            )
            sealed = seal(key, sealed_under or encode_header(world.realm.id, self.id, entry), plain)
        entry = msgspec.structs.replace(entry, sealed=sealed)
        link = entry_link(world.realm.id, self.id, self.head, entry)
        signer = signed_by or self.member
        self.entries.append(msgspec.structs.replace(entry, signature=sign_link(link, signer.keys.signing)))
        self.links.append(link)
        return link

    def run(self, first: int = 1, last: int | None = None) -> Run:
        """Entries as they travel: only the last keeps its signature."""
        chosen = self.entries[first - 1 : last]
        previous = self.links[first - 2] if first > 1 else self.genesis
        bare = [msgspec.structs.replace(e, signature=None) for e in chosen[:-1]]
        return Run(self.id, previous, (*bare, chosen[-1]))


def message(*feeds: Feed, runs: Sequence[Run] | None = None, **parts: object) -> bytes:
    """A replication message with these feeds' openings and everything in them (or these runs)."""
    openings = tuple({feed.id: feed.opening for feed in feeds}.values())
    whole = tuple(feed.run() for feed in feeds if feed.entries) if runs is None else tuple(runs)
    return encode_message(Entries(openings=openings, runs=whole, **parts))  # type: ignore[arg-type]


def governance(world: World) -> tuple[Feed, DocumentId]:
    """The agency's governance feed, empty, and its document."""
    return world.feed("agency", GOVERNANCE), district_document(GOVERNANCE)


def right(fill: int, rests_on: Link) -> FillRight:
    """What an act of custody spends."""
    return FillRight(fill, rests_on)
