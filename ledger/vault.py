"""Keys and seals: who can read what, and how that is bound to its place (R12).

::

    district key of an epoch ──HKDF──▶ document key ──HKDF──▶ entry key + commitment

- HKDF-Expand-SHA256 (RFC 5869) alone: every input key is uniformly random already. AES-256-GCM-SIV (RFC 8452)
  seals.
- The *commitment* stands in the header and is checked before opening: one ciphertext cannot open to two
  contents under two keys (invisible salamanders), so a court and a pharmacy read the same.
- The nonce is a hash of the header, which is also the additional data. Each entry has its own key, so a nonce
  is used twice only where an author forks its feed; GCM-SIV then tells whether contents are equal, no more.
- A keyring never shows a key: not in ``repr``, not in an error.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from msgspec import Meta, Struct

from ledger.errors import Malformed, NotAuthentic, Unreadable
from ledger.ids import GOVERNANCE, tagged_hash

__all__ = [
    "PUBLIC_DISTRICT_KEY",
    "EntryKey",
    "Keyring",
    "document_key",
    "entry_key",
    "open_local",
    "open_sealed",
    "patient_index_key",
    "seal",
    "seal_local",
]

PUBLIC_DISTRICT_KEY = hashlib.sha256(b"rxledger/1 public district key").digest()
"""Governance is sealed like everything else, under a key that everybody knows: one code path, no secret."""
CACHED_DOCUMENT_KEYS_MAX = 8192
"""Derived document keys kept, some 300 bytes each: 2.5 MB. A derivation costs 2 µs: more would not pay."""
_KEY = 32
_COMMITMENT = 16
_NONCE = 12
_ENTRY = b"rxledger/1 entry\0"
_DOCUMENT = b"rxledger/1 document\0"
_LOCAL_SEAL = b"rxledger/1 local seal\0"
_LOCAL_NONCE = b"rxledger/1 local nonce\0"


class EntryKey(Struct, frozen=True):
    """The key of one entry (32 bytes) and its commitment (16 bytes), which stands in the header."""

    key: bytes
    commitment: bytes

    def __repr__(self) -> str:
        return "EntryKey(…)"


def document_key(district_key: bytes, document: bytes) -> bytes:
    """The key (32 bytes) of one document in one epoch."""
    return hmac.digest(district_key, _DOCUMENT + document + b"\1", "sha256")


def entry_key(key: bytes, feed: bytes, sequence: int) -> EntryKey:
    """Key and commitment of the entry at a position, from its document's key."""
    info = _ENTRY + feed + sequence.to_bytes(8, "big")
    first = hmac.digest(key, info + b"\1", "sha256")
    second = hmac.digest(key, first + info + b"\2", "sha256")
    return EntryKey(first, second[:_COMMITMENT])


def seal(key: EntryKey, header: bytes, plaintext: bytes) -> bytes:
    """Seal content under its header. Sixteen bytes longer than the plaintext."""
    return AESGCMSIV(key.key).encrypt(hashlib.sha256(header).digest()[:_NONCE], plaintext, header)


def open_sealed(key: EntryKey, header: bytes, commitment: bytes, sealed: bytes) -> bytes:
    """Open sealed content.

    Raises:
        NotAuthentic: the commitment is for another key, or content or header were changed.
    """
    if not hmac.compare_digest(key.commitment, commitment):
        raise NotAuthentic("an entry commits to another key")
    try:
        return AESGCMSIV(key.key).decrypt(hashlib.sha256(header).digest()[:_NONCE], sealed, header)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a seal does not hold") from error


def patient_index_key(index_key: bytes, system: str, code: str) -> bytes:
    """Under what (32 bytes) the local index files a patient: tells nothing without the index key (R13)."""
    return hmac.digest(index_key, tagged_hash("patient", system.encode(), code.encode()), "sha256")


def seal_local(storage_key: bytes, purpose: str, context: bytes, plaintext: bytes) -> bytes:
    """Seal something for this node's own disk, bound to purpose and context.

    The nonce is a keyed hash of purpose, context and plaintext, so no entropy is needed: equal inputs give
    equal bytes, which tells no more than that a cache did not change. Two different inputs share its 96 bits by
    chance after some 2^48 of them, and then AES-GCM-SIV still hides all but whether they are equal.
    """
    data = tagged_hash("local", purpose.encode(), context)
    seal_key, nonce_key = _local_keys(storage_key)
    nonce = hmac.digest(nonce_key, data + plaintext, "sha256")[:_NONCE]
    return nonce + AESGCMSIV(seal_key).encrypt(nonce, plaintext, data)


def open_local(storage_key: bytes, purpose: str, context: bytes, sealed: bytes) -> bytes:
    """Open what `seal_local` sealed.

    Raises:
        NotAuthentic: it is not that, or was sealed for another purpose or context, or under another key.
    """
    data = tagged_hash("local", purpose.encode(), context)
    seal_key, _ = _local_keys(storage_key)
    try:
        return AESGCMSIV(seal_key).decrypt(sealed[:_NONCE], sealed[_NONCE:], data)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a locally sealed record does not hold") from error


def _local_keys(storage_key: bytes) -> tuple[bytes, bytes]:
    """One key, one primitive."""
    seal_key = hmac.digest(storage_key, _LOCAL_SEAL + b"\1", "sha256")
    return seal_key, hmac.digest(storage_key, _LOCAL_NONCE + b"\1", "sha256")


_Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Bytes48 = Annotated[bytes, Meta(min_length=_KEY + _COMMITMENT, max_length=_KEY + _COMMITMENT)]
_Epoch = Annotated[int, Meta(ge=1, lt=1 << 31)]


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    districts: list[tuple[str, _Epoch, _Bytes32]]
    indexes: list[tuple[str, _Bytes32]]
    documents: list[tuple[_Bytes16, _Epoch, _Bytes32]]
    entries: list[tuple[_Bytes32, _Bytes48]]


class Keyring:
    """The keys that a node holds beyond its own: of districts by epoch, single documents, single entries.

    Adding a key again replaces it: who adds it has checked where it comes from.
    """

    def __init__(self) -> None:
        self._districts: dict[tuple[str, int], bytes] = {(GOVERNANCE, 0): PUBLIC_DISTRICT_KEY}
        self._indexes: dict[str, bytes] = {}
        self._documents: dict[tuple[bytes, int], bytes] = {}
        self._entries: dict[bytes, EntryKey] = {}
        self._derived: OrderedDict[tuple[str, int, bytes], bytes] = OrderedDict()
        self._digest: bytes | None = None

    def __repr__(self) -> str:
        return f"Keyring({len(self._districts)} district keys, {len(self._documents)} document keys)"

    def add_district(self, district: str, epoch: int, key: bytes) -> None:
        """Hold a district's key of an epoch.

        Raises:
            Malformed: not 32 bytes, or for governance, whose key is public and never another.
        """
        if district == GOVERNANCE:
            raise Malformed("governance has no key of its own")
        held = self._districts.get((district, epoch))
        self._districts[district, epoch] = _checked(key, "a district key")
        if held not in (None, key):
            self._derived.clear()
        self._digest = None

    def forget_district(self, district: str, epoch: int) -> None:
        """Let go of a key that was not stored after all, and of what was derived from it."""
        self._districts.pop((district, epoch), None)
        self._derived.clear()
        self._digest = None

    def add_index(self, district: str, key: bytes) -> None:
        """Hold a district's index key, the same in all its epochs.

        Raises:
            Malformed: not 32 bytes.
        """
        self._indexes[district] = _checked(key, "an index key")
        self._digest = None

    def add_document(self, document: bytes, epoch: int, key: bytes) -> None:
        """Hold the key of one document, from its paper or a claim.

        Raises:
            Malformed: not 32 bytes.
        """
        self._documents[document, epoch] = _checked(key, "a document key")
        self._digest = None

    def add_entry(self, link: bytes, key: EntryKey) -> None:
        """Hold the key of one entry, from a `SupplyLinked`.

        Raises:
            Malformed: the key has not 32 bytes or its commitment not 16.
        """
        _checked(key.key + key.commitment, "an entry's key and commitment", _KEY + _COMMITMENT)
        self._entries[link] = key
        self._digest = None

    def has(self, district: str, epoch: int) -> bool:
        """Whether a district's key of an epoch is held."""
        return (district, epoch) in self._districts

    def districts(self) -> list[str]:
        """Districts of which a key is held, sorted; governance is not one."""
        return sorted({district for district, _ in self._districts} - {GOVERNANCE})

    def epochs(self, district: str) -> list[tuple[int, bytes]]:
        """Every key held of a district, by epoch."""
        return sorted((epoch, key) for (name, epoch), key in self._districts.items() if name == district)

    def newest_epoch(self, district: str) -> int:
        """The newest epoch of which the district's key is held; 0 if none."""
        return max((epoch for name, epoch in self._districts if name == district), default=0)

    def document_epoch(self, document: bytes) -> int:
        """The newest epoch of which this one document's key is held; 0 if none."""
        return max((epoch for held, epoch in self._documents if held == document), default=0)

    def index_key(self, district: str) -> bytes:
        """The district's index key.

        Raises:
            Unreadable: it is not held.
        """
        try:
            return self._indexes[district]
        except KeyError:
            raise Unreadable("the index key of that district is not held") from None

    def document_key(self, district: str, epoch: int, document: bytes) -> bytes:
        """The key of a document in an epoch.

        Raises:
            Unreadable: neither it nor the district's key of that epoch is held.
        """
        place = (district, epoch, document)
        known = self._derived.get(place)
        if known is not None:
            return known
        district_key = self._districts.get((district, epoch))
        if district_key is None:
            single = self._documents.get((document, epoch))
            if single is None:
                raise Unreadable(f"the key of epoch {epoch} of {district} is not held")
            return single
        key = document_key(district_key, document)
        self._derived[place] = key
        if len(self._derived) > CACHED_DOCUMENT_KEYS_MAX:
            self._derived.popitem(last=False)
        return key

    def entry_key_for(self, link: bytes) -> EntryKey | None:
        """The key of one entry, if it was given by itself."""
        return self._entries.get(link)

    def digest(self) -> bytes:
        """A hash of the keys held: what could be read with them is part of what a state was folded from.

        Of the keys, not of their names: a wrong key that was replaced must not vouch for what it failed to read.
        """
        if self._digest is None:
            self._digest = tagged_hash("keyring", self.to_bytes())
        return self._digest

    def to_bytes(self) -> bytes:
        """Everything, to be sealed before it touches a disk."""
        return msgspec.msgpack.encode(
            _Stored(
                [(n, e, k) for (n, e), k in sorted(self._districts.items()) if n != GOVERNANCE],
                sorted(self._indexes.items()),
                [(d, e, k) for (d, e), k in sorted(self._documents.items())],
                [(link, key.key + key.commitment) for link, key in sorted(self._entries.items())],
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Keyring:
        """What `to_bytes` gave.

        Raises:
            Malformed: it is not that.
        """
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("a keyring cannot be decoded") from error
        ring = cls()
        for name, epoch, key in stored.districts:
            ring.add_district(name, epoch, key)
        for name, key in stored.indexes:
            ring.add_index(name, key)
        for document, epoch, key in stored.documents:
            ring.add_document(document, epoch, key)
        for link, both in stored.entries:
            ring.add_entry(link, EntryKey(both[:_KEY], both[_KEY:]))
        return ring


def _checked(key: bytes, what: str, length: int = _KEY) -> bytes:
    if len(key) != length:
        raise Malformed(f"{what} has {length} bytes")
    return key
