"""Keys and seals: who can read what, and how that is bound to its place (R12).

::

    district key of an epoch ──HKDF──▶ document key ──HKDF──▶ entry key + commitment

- HKDF-Expand-SHA256 (RFC 5869) alone: every input key is uniformly random already. AES-256-GCM-SIV (RFC 8452) seals.
- The *commitment* stands in the header and is checked before opening: one ciphertext cannot open to two contents
  under two keys (invisible salamanders), so a court and a pharmacy read the same.
- The nonce is a hash of the header, which is also the additional data; each entry has its own key, so no nonce repeats.
- A keyring never shows a key: not in ``repr``, not in an error.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from msgspec import Struct

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
"""Governance is sealed like everything else, under a key that everybody knows: one code path, nothing secret."""
CACHED_DOCUMENT_KEYS_MAX = 8192
"""Derived document keys kept: 64 bytes each; a derivation costs 2 µs, so more would not pay."""
_COMMITMENT = 16
_ENTRY = b"rxledger/1 entry\0"
_DOCUMENT = b"rxledger/1 document\0"


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
    return AESGCMSIV(key.key).encrypt(hashlib.sha256(header).digest()[:12], plaintext, header)


def open_sealed(key: EntryKey, header: bytes, commitment: bytes, sealed: bytes) -> bytes:
    """Open sealed content.

    Raises:
        NotAuthentic: the commitment is for another key, or content or header were changed.
    """
    if not hmac.compare_digest(key.commitment, commitment):
        raise NotAuthentic("an entry commits to another key")
    try:
        return AESGCMSIV(key.key).decrypt(hashlib.sha256(header).digest()[:12], sealed, header)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a seal does not hold") from error


def patient_index_key(index_key: bytes, system: str, code: str) -> bytes:
    """Under what (32 bytes) the local index files a patient: says nothing without the district's index key (R13)."""
    return hmac.digest(index_key, tagged_hash("patient", system.encode(), code.encode()), "sha256")


def seal_local(storage_key: bytes, purpose: str, context: bytes, plaintext: bytes) -> bytes:
    """Seal something for this node's own disk, bound to purpose and context.

    The nonce is a hash of purpose, context and plaintext: equal inputs give equal bytes, which for a cache is
    harmless, and different ones never share a nonce.
    """
    data = tagged_hash("local", purpose.encode(), context)
    nonce = hmac.digest(storage_key, data + plaintext, "sha256")[:12]
    return nonce + AESGCMSIV(storage_key).encrypt(nonce, plaintext, data)


def open_local(storage_key: bytes, purpose: str, context: bytes, sealed: bytes) -> bytes:
    """Open what `seal_local` sealed.

    Raises:
        NotAuthentic: it is not that.
    """
    data = tagged_hash("local", purpose.encode(), context)
    try:
        return AESGCMSIV(storage_key).decrypt(sealed[:12], sealed[12:], data)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a locally sealed record does not hold") from error


class _Stored(Struct, frozen=True, array_like=True):
    districts: list[tuple[str, int, bytes]]
    indexes: list[tuple[str, bytes]]
    documents: list[tuple[bytes, int, bytes]]
    entries: list[tuple[bytes, bytes]]


class Keyring:
    """The keys that a node holds beyond its own: of districts by epoch, of single documents, of single entries."""

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
            Malformed: not 32 bytes.
        """
        if len(key) != 32:
            raise Malformed("a district key has 32 bytes")
        self._districts[district, epoch] = key
        self._digest = None

    def add_index(self, district: str, key: bytes) -> None:
        """Hold a district's index key, the same in all its epochs."""
        if len(key) != 32:
            raise Malformed("an index key has 32 bytes")
        self._indexes[district] = key

    def add_document(self, document: bytes, epoch: int, key: bytes) -> None:
        """Hold the key of one document, from its paper or a claim."""
        if len(key) != 32:
            raise Malformed("a document key has 32 bytes")
        self._documents[document, epoch] = key
        self._digest = None

    def add_entry(self, link: bytes, key: EntryKey) -> None:
        """Hold the key of one entry, from a `SupplyLinked`."""
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
        """A hash of which keys are held: what could be read with them is part of what a state was folded from."""
        if self._digest is None:
            parts = [name.encode() + epoch.to_bytes(4, "big") for name, epoch in sorted(self._districts)]
            parts += [document + epoch.to_bytes(4, "big") for document, epoch in sorted(self._documents)]
            self._digest = tagged_hash("keyring", *parts, *sorted(self._entries))
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
        except msgspec.MsgspecError as error:
            raise Malformed("a keyring cannot be decoded") from error
        ring = cls()
        for name, epoch, key in stored.districts:
            ring.add_district(name, epoch, key)
        for name, key in stored.indexes:
            ring.add_index(name, key)
        for document, epoch, key in stored.documents:
            ring.add_document(document, epoch, key)
        for link, both in stored.entries:
            ring.add_entry(link, EntryKey(both[:32], both[32:]))
        return ring
