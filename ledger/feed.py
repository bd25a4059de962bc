"""Feeds: entry, link, signature, and how a run of entries is verified (R2, R3, R6, section 5 of the design).

- A feed is opened by an *opening*: realm, district, the node's certificates, its incarnation and the heads of
  its former feeds, signed by the node. The feed's id is a hash of it, so a feed has one author for ever.
- The *link* of an entry hashes realm, feed, sequence, previous link, header and the hash of the sealed bytes.
  The first entry's previous link is the hash of the opening.
- One valid signature at the end of a run vouches for the whole run: every link before it is inside it.
  Signatures within a run change nothing and are dropped on the way unless they stand at its end.
- Unverified and verified runs are different types; only `verify_run` makes the second.
- Nothing here decides about forks: two links at one position are a `ForkProof`, which anyone can check.

Pure. Bytes in, values or a `PeerFault` out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from ledger.clock import STAMP_MAX
from ledger.errors import LimitExceeded, Malformed, NotAuthentic
from ledger.ids import FeedId, Link, RealmId, tagged_hash

__all__ = [
    "COMMITMENT_BYTES",
    "Entry",
    "ForkProof",
    "OPENING_BYTES_MAX",
    "Opening",
    "ENTRY_OVERHEAD_BYTES",
    "RUN_BYTES_MAX",
    "RUN_ENTRIES_MAX",
    "Run",
    "SEALED_BYTES_MAX",
    "SignedOpening",
    "VerifiedRun",
    "check_fork_proof",
    "encode_header",
    "entry_link",
    "feed_id",
    "genesis_link",
    "run_links",
    "sign_link",
    "sign_opening",
    "verify_link",
    "verify_run",
]

COMMITMENT_BYTES = 16
SEALED_BYTES_MAX = 20 * 1024
"""An event of at most 16 KiB, its parents, and the seal; incompressible in the worst case."""
RUN_BYTES_MAX = 112 * 1024
"""Of one run, headers counted: so that whatever was taken in can be passed on in one message of replication."""
RUN_ENTRIES_MAX = 1024
"""Verified and stored at once, one signature among them: some 200 kB."""
ENTRY_OVERHEAD_BYTES = 66
"""What an entry takes beside its content, encoded in a run."""
OPENING_BYTES_MAX = 8 * 1024
"""Three certificates of some 600 bytes and the ends of former feeds."""
FORMER_FEEDS_MAX = 64
DISTRICT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*(?!\s)$"
"""As certificates allow: a peer's district stands in logs and on screens (a bare ``$`` lets a line feed through)."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Sequence53 = Annotated[int, Meta(ge=1, lt=1 << 53)]


class FormerFeed(Struct, frozen=True, array_like=True):
    """The last position that an incarnation knows of a former feed of the same node and district."""

    feed: Bytes16
    sequence: Annotated[int, Meta(ge=0, lt=1 << 53)]
    link: Bytes32


class Opening(Struct, frozen=True, array_like=True):
    """What a node states when it opens a feed."""

    realm: Bytes16
    district: Annotated[str, Meta(min_length=1, max_length=64, pattern=DISTRICT_PATTERN)]
    incarnation: Annotated[int, Meta(ge=1, lt=1 << 31)]
    nonce: Bytes16
    stamp: Annotated[int, Meta(ge=0, le=STAMP_MAX)]
    certificates: Annotated[
        tuple[Annotated[bytes, Meta(max_length=2048)], ...], Meta(min_length=1, max_length=4)
    ]
    """DER, the node's own first, then each issuer up to but without the realm root."""
    former: Annotated[tuple[FormerFeed, ...], Meta(max_length=FORMER_FEEDS_MAX)] = ()


class SignedOpening(Struct, frozen=True, array_like=True):
    """An opening's bytes, kept verbatim, and the node's signature over them."""

    body: Annotated[bytes, Meta(max_length=OPENING_BYTES_MAX)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]

    def opening(self) -> Opening:
        """Decode.

        Raises:
            Malformed: not an opening in canonical form.
        """
        try:
            value = _opening_decoder.decode(self.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("a feed's opening cannot be decoded") from error
        if _encoder.encode(value) != self.body:
            raise Malformed("a feed's opening is not in canonical form")
        return value


class Entry(Struct, frozen=True, array_like=True):
    """One sealed event at its place in a feed. Feed and previous link stand in the run around it."""

    sequence: Sequence53
    stamp: Annotated[int, Meta(ge=0, le=STAMP_MAX)]
    document: Bytes16
    lane: Annotated[int, Meta(ge=0, le=2)]
    epoch: Annotated[int, Meta(ge=0, lt=1 << 31)]
    """Key epoch of the district; 0: not encrypted (governance only, which every node reads)."""
    commitment: Annotated[bytes, Meta(min_length=COMMITMENT_BYTES, max_length=COMMITMENT_BYTES)]
    sealed: Annotated[bytes, Meta(max_length=SEALED_BYTES_MAX)] | None
    """None once retention has dropped the content; then `sealed_hash` stands for it."""
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)] | None = None
    sealed_hash: Bytes32 | None = None


class Run(Struct, frozen=True, array_like=True):
    """Consecutive entries of one feed as they travel: unverified."""

    feed: Bytes16
    previous: Bytes32
    """Link of the entry before the first; `genesis_link` if the first has sequence 1."""
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=RUN_ENTRIES_MAX)]


class VerifiedRun(Struct, frozen=True):
    """A run whose last signature holds, with the link of every entry. Made by `verify_run` only."""

    feed: FeedId
    previous: Link
    entries: tuple[Entry, ...]
    links: tuple[Link, ...]


class ForkProof(Struct, frozen=True, array_like=True):
    """Two different signed runs of one feed, each from the same position: proof that its author forked it.

    Both begin right after the common `previous` link, and end with a signature.
    """

    left: Run
    right: Run


_encoder = msgspec.msgpack.Encoder()
_opening_decoder = msgspec.msgpack.Decoder(Opening)
_sha256 = hashlib.sha256
_LINK_TAG = b"rxledger/1 link\0"
_SIGN_TAG = b"rxledger/1 sign link\0"
_OPENING_TAG = b"rxledger/1 sign opening\0"


def encode_opening(opening: Opening) -> bytes:
    """The canonical bytes of an opening."""
    return _encoder.encode(opening)


def sign_opening(opening: Opening, key: Ed25519PrivateKey) -> SignedOpening:
    """Sign an opening with the key of its first certificate."""
    body = encode_opening(opening)
    if len(body) > OPENING_BYTES_MAX:
        raise LimitExceeded(f"an opening of {len(body)} bytes; at most {OPENING_BYTES_MAX} are allowed")
    return SignedOpening(body, key.sign(_OPENING_TAG + body))


def verify_opening_signature(signed: SignedOpening, public_key: bytes) -> None:
    """Check the node's signature over its opening.

    Raises:
        NotAuthentic: it does not hold.
    """
    _verify(public_key, signed.signature, _OPENING_TAG + signed.body, "a feed's opening")


def feed_id(signed: SignedOpening) -> FeedId:
    """The id of the feed: a hash of its opening, without the signature (which could be made twice)."""
    return FeedId(tagged_hash("feed", signed.body)[:16])


def genesis_link(signed: SignedOpening) -> Link:
    """The previous link of the feed's first entry."""
    return Link(tagged_hash("genesis", signed.body))


def encode_header(realm: bytes, feed: bytes, entry: Entry) -> bytes:
    """The header: additional data of the seal, and part of the link."""
    return _encoder.encode(
        (realm, feed, entry.sequence, entry.stamp, entry.document, entry.lane, entry.epoch, entry.commitment)
    )


def entry_link(realm: bytes, feed: bytes, previous: bytes, entry: Entry) -> Link:
    """The link of an entry: also the id of the event in it.

    Realm, feed and sequence stand in the header, whose length the encoding fixes; so the hash covers the
    domain tag, previous link, header and hash of the sealed bytes, unambiguously.

    Raises:
        Malformed: the entry has neither sealed bytes nor their hash.
    """
    sealed_hash = entry.sealed_hash if entry.sealed is None else _sha256(entry.sealed).digest()
    if sealed_hash is None:
        raise Malformed("an entry has neither content nor its hash")
    header = encode_header(realm, feed, entry)
    return Link(_sha256(_LINK_TAG + previous + sealed_hash + header).digest())


def run_links(realm: bytes, run: Run) -> tuple[Link, ...]:
    """The link of every entry of a run, whether or not it is authentic.

    Raises:
        Malformed: the sequence numbers are not consecutive, or an entry is dropped without its hash.
    """
    links: list[Link] = []
    link: bytes = run.previous
    feed, expected = run.feed, run.entries[0].sequence
    encode = _encoder.encode
    for entry in run.entries:
        if entry.sequence != expected:
            raise Malformed("the sequence numbers of a run are not consecutive")
        sealed = entry.sealed
        if sealed is None:
            sealed_hash = entry.sealed_hash
            if sealed_hash is None:
                raise Malformed("an entry has neither content nor its hash")
        else:
            sealed_hash = _sha256(sealed).digest()
        # Written out rather than calling entry_link: this loop is what bulk catch-up costs.
        header = encode(
            (realm, feed, expected, entry.stamp, entry.document, entry.lane, entry.epoch, entry.commitment)
        )
        link = _sha256(_LINK_TAG + link + sealed_hash + header).digest()
        links.append(Link(link))
        expected += 1
    return tuple(links)


def sign_link(link: Link, key: Ed25519PrivateKey) -> bytes:
    """The author's signature (64 bytes) over a link."""
    return key.sign(_SIGN_TAG + link)


def verify_link(link: bytes, signature: bytes, public_key: bytes) -> None:
    """Check the author's signature over a link.

    Raises:
        NotAuthentic: it does not hold.
    """
    _verify(public_key, signature, _SIGN_TAG + link, "an entry")


def _verify(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic(f"the signature over {what} does not hold") from error


def verify_run(realm: RealmId, run: Run, public_key: bytes) -> VerifiedRun:
    """Check a run against its author's key: consecutive, chained, and signed at its end.

    The caller knows that `run.feed` belongs to this key (through its opening) and decides whether the run
    joins what it holds. Entries after the last signature are not vouched for and refused with the run.

    Raises:
        LimitExceeded: more bytes than `RUN_BYTES_MAX`.
        Malformed: sequence numbers or content are inconsistent.
        NotAuthentic: no signature at the end, or it does not hold.
    """
    size = sum(
        ENTRY_OVERHEAD_BYTES + len(entry.sealed or b"") + len(entry.sealed_hash or b"")
        for entry in run.entries
    )
    if size > RUN_BYTES_MAX:
        raise LimitExceeded(f"a run of {size} bytes; at most {RUN_BYTES_MAX} are allowed")
    links = run_links(realm, run)
    last = run.entries[-1]
    if last.signature is None:
        raise NotAuthentic("a run does not end with a signature")
    verify_link(links[-1], last.signature, public_key)
    return VerifiedRun(FeedId(run.feed), Link(run.previous), run.entries, links)


def check_fork_proof(realm: RealmId, proof: ForkProof, public_key: bytes) -> int:
    """Check a proof of fork; return the sequence number at which the branches part.

    Raises:
        PeerFault: it proves nothing.
    """
    left, right = verify_run(realm, proof.left, public_key), verify_run(realm, proof.right, public_key)
    if left.feed != right.feed or left.previous != right.previous:
        raise NotAuthentic("the two runs of a proof do not start at one position of one feed")
    if left.entries[0].sequence != right.entries[0].sequence or left.links[0] == right.links[0]:
        raise NotAuthentic("the two runs of a proof do not differ at their first entry")
    return left.entries[0].sequence


def drop_inner_signatures(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries as they travel in a run: only the last keeps its signature."""
    return (
        *(
            Entry(
                e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment, e.sealed, None, e.sealed_hash
            )
            for e in entries[:-1]
        ),
        *entries[-1:],
    )
