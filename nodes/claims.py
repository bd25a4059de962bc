"""A pharmacy asks the holder for a fill: the request and the answer as messages, however they travel (R7).

- The request is signed by the claimant and names its feed; it carries the feed's opening, so the holder need not have
  met it. Its command id makes it idempotent: a lost answer can be asked for again, and gives the same transfer.
- The answer is the transfer itself, in the holder's feed. A holder that does not hold the fill says who does.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta, Struct

from ledger import Ledger, NodeRole, Person, Receipt
from ledger.errors import (
    InvalidInput,
    LimitExceeded,
    Malformed,
    NotAuthentic,
    NotPermitted,
    OtherRealm,
    VersionUnknown,
)
from ledger.events import FILLS_MAX
from ledger.feed import SignedOpening, feed_id
from ledger.ids import DocumentId, FeedId

__all__ = [
    "CLAIM_BYTES_MAX",
    "ClaimRequest",
    "answer_claim",
    "decode_claim",
    "encode_claim",
    "grant",
    "make_claim",
]

CLAIM_BYTES_MAX = 16 * 1024
"""One opening (at most 8 KiB) and a few ids; twice that."""
CLAIM_VERSION = 1
_TAG = b"rxledger/1 sign claim\0"

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]


class _ClaimBody(Struct, frozen=True, array_like=True):
    version: int
    realm: Bytes16
    document: Bytes16
    fills: Annotated[tuple[Annotated[int, Meta(ge=1, le=99)], ...], Meta(min_length=1, max_length=99)]
    command: Bytes16
    opening: SignedOpening


class ClaimRequest(Struct, frozen=True, array_like=True):
    """A claim's bytes, kept verbatim, and the claimant's signature over them."""

    body: Annotated[bytes, Meta(max_length=CLAIM_BYTES_MAX)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


def make_claim(
    ledger: Ledger, document: DocumentId, fills: tuple[int, ...], district: str, command: bytes
) -> bytes:
    """The bytes of a request for fills of a prescription, from this node's feed in its district.

    Raises:
        InvalidInput: no fills, or a number that no fill has.
    """
    if not fills or not all(1 <= fill <= FILLS_MAX for fill in fills) or len(fills) > FILLS_MAX:
        raise InvalidInput(f"fills: at least one, each from 1 to {FILLS_MAX}")
    node = ledger.node
    with node.lock:
        feed = node.own_feed(district)
        body = msgspec.msgpack.encode(
            _ClaimBody(CLAIM_VERSION, node.realm.id, document, fills, command, ledger.exchange.opening(feed))
        )
        return encode_claim(ClaimRequest(body, node.keys.signing.sign(_TAG + body)))


def encode_claim(request: ClaimRequest) -> bytes:
    """The bytes of a request."""
    return msgspec.msgpack.encode(request)


def decode_claim(data: bytes) -> tuple[ClaimRequest, _ClaimBody]:
    """Decode a request; its signature is not checked yet.

    Raises:
        LimitExceeded: larger than `CLAIM_BYTES_MAX`.
        VersionUnknown: of a newer version.
        Malformed: not a request.
    """
    if len(data) > CLAIM_BYTES_MAX:
        raise LimitExceeded(f"a claim of {len(data)} bytes; at most {CLAIM_BYTES_MAX} are allowed")
    try:
        request = msgspec.msgpack.decode(data, type=ClaimRequest)
        body = msgspec.msgpack.decode(request.body, type=_ClaimBody)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("a claim cannot be decoded") from error
    if body.version != CLAIM_VERSION:
        raise VersionUnknown(f"a claim of version {body.version}; this node reads version {CLAIM_VERSION}")
    return request, body


def answer_claim(ledger: Ledger, data: bytes, *, person: Person) -> Receipt:
    """The holder's answer: transfer the fills to the claimant's feed, once per command id.

    Raises:
        PeerFault: the request is not authentic.
        NotPermitted: this node does not hold the fills; the message names who does, as known here.
    """
    request, body = decode_claim(data)
    if body.realm != ledger.node.realm.id:
        raise OtherRealm("a claim is of another realm")
    ledger.exchange.import_openings([body.opening])
    feed = feed_id(body.opening)
    claimant, _ = ledger.node.reader.author(feed)
    try:
        Ed25519PublicKey.from_public_bytes(claimant.public_key).verify(request.signature, _TAG + request.body)
    except InvalidSignature as error:
        raise NotAuthentic("the signature over a claim does not hold") from error
    return grant(ledger, feed, DocumentId(body.document), body.fills, person=person, command=body.command)


def grant(
    ledger: Ledger,
    feed: FeedId,
    document: DocumentId,
    fills: tuple[int, ...],
    *,
    person: Person,
    command: bytes,
) -> Receipt:
    """Transfer fills to the node whose feed this is, which was authenticated before; once per command id.

    Raises:
        NotAuthentic: that feed is not known here.
        NotFound: the prescription is not.
        NotPermitted: this node does not hold the fills (the message names who does, as known here), or the claimant may
            not hold them.
    """
    with ledger.node.lock:
        return _grant(ledger, feed, document, fills, person, command)


def _grant(
    ledger: Ledger, feed: FeedId, document: DocumentId, fills: tuple[int, ...], person: Person, command: bytes
) -> Receipt:
    claimant, district = ledger.node.reader.author(feed)
    if ledger.node.reader.governance().revocation(claimant.node) is not None:
        raise NotPermitted("the claimant is revoked", reasons=("revoked",))
    if claimant.role is NodeRole.RELAY:
        raise NotPermitted("a relay holds no fills", reasons=("role",))
    if ledger.node.reader.district(document) != district:
        raise NotPermitted("the claimant's feed is not in the prescription's district")
    try:
        return ledger.transfer(document, fills, claimant.node, person=person, command=command)
    except NotPermitted as error:
        holders = {
            f.number: f.holder.hex()[:16] or "nobody"
            for f in ledger.show(document).prescription.fills
            if f.number in fills
        }
        raise NotPermitted(
            f"{error.message}; as known here: "
            + ", ".join(f"fill {n} with {h}" for n, h in sorted(holders.items())),
            reasons=error.reasons,
        ) from error
