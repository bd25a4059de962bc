"""Identifiers: what they are made of, so that none can be hijacked or guessed into collision.

- *realm*: 16 bytes of a hash of the realm root's public key.
- *node*: 16 bytes of a hash of realm and the node's public key.
- *feed*: 16 bytes of a hash of the feed's signed opening statement (`ledger.feed.Opening`).
- *link*: 32 bytes, the hash that chains an entry; also the id of the event inside it.
- *document*: two bytes of the month of issue, then 14 bytes of a hash (section 5 of the design).

All hashes are SHA-256 with a domain tag, so that bytes made for one purpose mean nothing for another (B6).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import date
from typing import NewType

from ledger.errors import InvalidInput

__all__ = [
    "DocumentId",
    "FeedId",
    "Link",
    "NodeId",
    "RealmId",
    "GOVERNANCE",
    "district_document",
    "document_hash",
    "document_id",
    "document_month",
    "month_number",
    "node_id",
    "paper_document",
    "realm_id",
    "tagged_hash",
]

RealmId = NewType("RealmId", bytes)
NodeId = NewType("NodeId", bytes)
FeedId = NewType("FeedId", bytes)
Link = NewType("Link", bytes)
DocumentId = NewType("DocumentId", bytes)

GOVERNANCE = "governance"
"""The district that every node holds."""

_TAG = b"rxledger/1 "


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """SHA-256 over the domain tag and the parts, each preceded by its length (injective)."""
    digest = hashlib.sha256(_TAG + tag.encode() + b"\0")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def realm_id(root_public_key: bytes) -> RealmId:
    """The realm founded by this root key (32 raw bytes, Ed25519)."""
    return RealmId(tagged_hash("realm", root_public_key)[:16])


def node_id(realm: RealmId, public_key: bytes) -> NodeId:
    """The node with this key (32 raw bytes, Ed25519) in this realm."""
    return NodeId(tagged_hash("node", realm, public_key)[:16])


def month_number(day: date) -> int:
    """Months since year 0: orders documents by their month of issue."""
    return day.year * 12 + day.month - 1


def _with_month(month: int, digest: bytes) -> DocumentId:
    if not 0 < month < 1 << 16:
        raise InvalidInput(f"month {month} cannot stand in a document id")
    return DocumentId(month.to_bytes(2, "big") + digest[:14])


def document_id(issued: date, event: bytes) -> DocumentId:
    """The id of the document that this issuing event (its encoded bytes) founds."""
    return _with_month(month_number(issued), document_hash(event))


def document_hash(event: bytes) -> bytes:
    """The last 14 bytes of the id of the document that this issuing event founds."""
    return tagged_hash("document", event)[:14]


def paper_document(month: date, index_key: bytes, number: str) -> DocumentId:
    """The id for supplies on a paper whose prescription is not held: the same at every node of the district.

    Args:
        month: any day of the month in which the paper was issued.
        index_key: the district's index key (32 bytes), without which the number cannot be found by trial.
        number: the serial number printed on the paper.
    """
    message = tagged_hash("paper", number.encode())
    return _with_month(month_number(month), hmac.digest(index_key, message, "sha256"))


def document_month(document: DocumentId) -> int:
    """Month of issue as `month_number` counts; 0 for a district's own document, which never retires."""
    return int.from_bytes(document[:2], "big")


def district_document(district: str) -> DocumentId:
    """The document that holds a district's delegations and closed feeds (month 0)."""
    return DocumentId(b"\0\0" + tagged_hash("district", district.encode())[:14])
