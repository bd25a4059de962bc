"""Who a node is: keys, roles, and the chain of certificates up to the realm root, verified offline (R3, R14).

- Realm root → agency issuing certificate → node; or → district authority → node, so that a district can admit a
  replacement while the agency is out of reach. Nothing ever asks a server whether a certificate is good.
- A certificate's dates never decide whether an entry counts; an expired one is *marked* (`is_expired`).
- Role, district, wrapping key and kind of realm stand in extensions under our own arc; what a role may certify is
  checked here, not assumed from whoever signed.
- Small-order and non-canonical public keys are refused: under them one signature fits many messages.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from msgspec import Struct

from ledger.entropy import Entropy
from ledger.errors import LimitExceeded, Malformed, NotAuthentic
from ledger.ids import NodeId, RealmId, node_id, realm_id, tagged_hash

__all__ = [
    "CERTIFICATES_MAX",
    "CERTIFICATE_BYTES_MAX",
    "Certified",
    "NodeKeys",
    "NodeRole",
    "Realm",
    "RealmKind",
    "certificate_key",
    "check_public_key",
    "is_expired",
    "load_certificate",
    "verify_chain",
]

CERTIFICATES_MAX = 3
"""Node, district authority, issuing certificate: no longer chain exists."""
CERTIFICATE_BYTES_MAX = 2048
"""Ours have some 600 bytes."""
VERIFIED_CACHED_MAX = 8192
"""Chains verified lately: more than the feeds of a region, at some 2 kB each."""
NAME_CHARACTERS_MAX = 64

_ARC = "2.25.208134960418392744810395537471236405"
"""An arc of ITU-T X.667: a UUID needs no registration."""
OID_ROLE = x509.ObjectIdentifier(f"{_ARC}.1")
OID_DISTRICT = x509.ObjectIdentifier(f"{_ARC}.2")
OID_WRAPPING_KEY = x509.ObjectIdentifier(f"{_ARC}.3")
OID_REALM_KIND = x509.ObjectIdentifier(f"{_ARC}.4")

_P = 2**255 - 19
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1})
_ORDER_8_Y = frozenset(
    int.from_bytes(bytes.fromhex(h), "little")
    for h in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
_LOW_ORDER_U = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


class NodeRole(StrEnum):
    """What a node may do; stands in its certificate."""

    PRESCRIBER = "prescriber"
    PHARMACY = "pharmacy"
    AGENCY = "agency"
    AUTHORITY = "authority"
    """Of a district: admits nodes there while the agency cannot be reached."""
    RELAY = "relay"
    """Stores and forwards; holds no key and writes nothing."""


class RealmKind(StrEnum):
    """Production, or an exercise in which nobody is a patient."""

    PRODUCTION = "production"
    EXERCISE = "exercise"


class Realm(Struct, frozen=True):
    """A ledger universe, as its root certificate states it."""

    id: RealmId
    name: str
    kind: RealmKind
    root_certificate: bytes
    root_key: bytes

    @classmethod
    def from_certificate(cls, der: bytes) -> Realm:
        """Read and check a self-signed root certificate.

        Raises:
            Malformed, NotAuthentic: it is not one.
        """
        certificate = load_certificate(der)
        key = certificate_key(certificate)
        _check_signature(certificate, key, "the realm's root certificate")
        if not _is_authority(certificate):
            raise NotAuthentic("the realm's root certificate is not one of an authority")
        try:
            kind = RealmKind(_extension(certificate, OID_REALM_KIND).decode())
        except ValueError as error:
            raise Malformed("the realm's root certificate names no kind of realm") from error
        return cls(realm_id(key), _common_name(certificate), kind, der, key)


class NodeKeys:
    """A node's private keys: Ed25519 to sign, X25519 to have keys wrapped to it. Shows neither."""

    def __init__(self, signing: Ed25519PrivateKey, wrapping: X25519PrivateKey) -> None:
        self.signing, self.wrapping = signing, wrapping
        self.public_key = signing.public_key().public_bytes_raw()
        """Raw, 32 bytes."""
        self.wrapping_key = wrapping.public_key().public_bytes_raw()
        """Raw, 32 bytes; the public half."""

    def __repr__(self) -> str:
        return f"NodeKeys({self.public_key.hex()[:16]}…)"

    @classmethod
    def generate(cls, entropy: Entropy) -> NodeKeys:
        """New keys."""
        return cls.from_bytes(entropy.bytes(64))

    @classmethod
    def from_bytes(cls, data: bytes) -> NodeKeys:
        """From the 64 bytes of `to_bytes`.

        Raises:
            Malformed: not 64 bytes.
        """
        if len(data) != 64:
            raise Malformed("a node's keys have 64 bytes")
        return cls(Ed25519PrivateKey.from_private_bytes(data[:32]), X25519PrivateKey.from_private_bytes(data[32:]))

    def to_bytes(self) -> bytes:
        """Both private keys, to be sealed before they touch a disk."""
        return self.signing.private_bytes_raw() + self.wrapping.private_bytes_raw()


class Certified(Struct, frozen=True):
    """What a verified chain says of a node."""

    node: NodeId
    role: NodeRole
    district: str
    """Home district; empty for the agency."""
    name: str
    public_key: bytes
    wrapping_key: bytes
    not_before_ms: int
    not_after_ms: int
    certificates: tuple[bytes, ...]


_verified: OrderedDict[bytes, Certified] = OrderedDict()


def check_public_key(signing: bytes, wrapping: bytes) -> None:
    """Refuse keys of small order and encodings that are not the one canonical form.

    Raises:
        NotAuthentic: one of the keys is such a one.
    """
    y = int.from_bytes(signing, "little") & ((1 << 255) - 1)
    if len(signing) != 32 or y >= _P:
        raise NotAuthentic("a signing key is not in canonical form")
    if y in _SMALL_ORDER_Y or y in _ORDER_8_Y:
        raise NotAuthentic("a signing key is of small order")
    u = int.from_bytes(wrapping, "little") & ((1 << 255) - 1)
    if len(wrapping) != 32 or u >= _P or wrapping[31] & 0x80:
        raise NotAuthentic("a wrapping key is not in canonical form")
    if u in _LOW_ORDER_U:
        raise NotAuthentic("a wrapping key is of small order")


def verify_chain(realm: Realm, certificates: tuple[bytes, ...]) -> Certified:
    """Verify a chain: the node's certificate first, then each issuer, without the root. No clock is asked.

    Raises:
        LimitExceeded, Malformed: too many, too large, or not certificates of ours.
        NotAuthentic: a signature, a constraint or a role does not hold, or another root signed.
    """
    if not 1 < len(certificates) <= CERTIFICATES_MAX:
        raise LimitExceeded(f"a chain has two to {CERTIFICATES_MAX} certificates, not {len(certificates)}")
    cache_key = tagged_hash("chain", realm.id, realm.root_key, *certificates)
    known = _verified.get(cache_key)
    if known is not None:
        _verified.move_to_end(cache_key)
        return known
    chain = [load_certificate(der) for der in certificates]
    keys = [*(certificate_key(c) for c in chain), realm.root_key]
    for index, certificate in enumerate(chain):
        _check_signature(certificate, keys[index + 1], "a certificate")
    for depth, issuer in enumerate(chain[1:]):
        if not _is_authority(issuer, below=depth):
            raise NotAuthentic("a certificate was signed by one that may not certify")
    certified = _certified(realm, chain, keys[0], certificates)
    _check_roles(chain, certified)
    _verified[cache_key] = certified
    if len(_verified) > VERIFIED_CACHED_MAX:
        _verified.popitem(last=False)
    return certified


def _certified(
    realm: Realm, chain: list[x509.Certificate], public_key: bytes, certificates: tuple[bytes, ...]
) -> Certified:
    leaf = chain[0]
    wrapping = _extension(leaf, OID_WRAPPING_KEY)
    check_public_key(public_key, wrapping)
    return Certified(
        node=node_id(realm.id, public_key),
        role=_role(leaf),
        district=_text(_extension(leaf, OID_DISTRICT)),
        name=_common_name(leaf),
        public_key=public_key,
        wrapping_key=wrapping,
        not_before_ms=int(leaf.not_valid_before_utc.timestamp() * 1000),
        not_after_ms=int(leaf.not_valid_after_utc.timestamp() * 1000),
        certificates=certificates,
    )


def _check_roles(chain: list[x509.Certificate], certified: Certified) -> None:
    """Quote of section 8: district authorities admit nodes of their district; the agency certifies all else."""
    if len(chain) == 2:
        if certified.role in (NodeRole.PRESCRIBER, NodeRole.PHARMACY, NodeRole.AUTHORITY) and not certified.district:
            raise NotAuthentic("a certificate names no home district")
        return
    authority = chain[1]
    if _role(authority) is not NodeRole.AUTHORITY:
        raise NotAuthentic("a node was certified by one that is no district authority")
    if certified.role not in (NodeRole.PRESCRIBER, NodeRole.PHARMACY, NodeRole.RELAY):
        raise NotAuthentic(f"a district authority may not certify the role {certified.role.value}")
    if certified.district != _text(_extension(authority, OID_DISTRICT)):
        raise NotAuthentic("a district authority certified a node of another district")


def is_expired(certified: Certified, now_ms: int) -> bool:
    """Whether the certificate is past its date (or before it). It stays usable, marked (section 8)."""
    return not certified.not_before_ms <= now_ms <= certified.not_after_ms


def load_certificate(der: bytes) -> x509.Certificate:
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise LimitExceeded(f"a certificate of {len(der)} bytes; at most {CERTIFICATE_BYTES_MAX} are allowed")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, TypeError) as error:
        raise Malformed("a certificate cannot be decoded") from error


def certificate_key(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        raise Malformed("a certificate's key cannot be decoded") from error
    if not isinstance(key, Ed25519PublicKey):
        raise NotAuthentic("a certificate's key is not an Ed25519 key")
    raw = key.public_bytes_raw()
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _P or y in _SMALL_ORDER_Y or y in _ORDER_8_Y:
        raise NotAuthentic("a certificate's key is of small order or not in canonical form")
    return raw


def _check_signature(certificate: x509.Certificate, key: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic(f"the signature over {what} does not hold") from error


def _is_authority(certificate: x509.Certificate, below: int = 0) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return constraints.ca and (constraints.path_length is None or constraints.path_length >= below)


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise Malformed("a certificate lacks an extension of ours") from error
    if not isinstance(value, x509.UnrecognizedExtension):
        raise Malformed("a certificate's extension is of another kind")
    return value.value


def _role(certificate: x509.Certificate) -> NodeRole:
    try:
        return NodeRole(_text(_extension(certificate, OID_ROLE)))
    except ValueError as error:
        raise Malformed("a certificate names a role that is not known") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a certificate's extension is not text") from error


def _common_name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise Malformed("a certificate's subject cannot be decoded") from error
    return str(names[0].value)[:NAME_CHARACTERS_MAX] if names else ""
