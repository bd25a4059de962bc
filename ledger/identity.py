"""Who a node is: keys, roles, and the chain of certificates up to the realm root, verified offline (R3, R14).

- Realm root → agency issuing certificate → node; or → district authority → node, so that a district can admit
  a replacement while the agency is out of reach. Nothing ever asks a server whether a certificate is good.
- A certificate's dates never decide whether an entry counts; an expired one is *marked* (`is_expired`).
- Role, district, wrapping key and kind of realm stand in extensions under our own arc; what a role may
  certify is checked here (`may_not_certify`), not assumed from whoever signed.
- Small-order and non-canonical public keys are refused: under them one signature fits many messages.
- A certificate has one form: canonical DER, the same algorithm inside and outside, no critical extension
  unknown here.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID
from msgspec import Struct

from ledger.entropy import Entropy
from ledger.errors import LimitExceeded, Malformed, NotAuthentic
from ledger.ids import GOVERNANCE, NodeId, RealmId, node_id, realm_id, tagged_hash
from ledger.publickeys import check_public_key, check_signing_key

__all__ = [
    "CERTIFICATES_MAX",
    "CERTIFICATE_BYTES_MAX",
    "Certified",
    "NodeKeys",
    "NodeRole",
    "Realm",
    "RealmKind",
    "certificate_key",
    "is_good_name",
    "check_public_key",
    "certified_district",
    "certified_role",
    "is_expired",
    "load_certificate",
    "may_not_certify",
    "verify_chain",
]

CERTIFICATES_MAX = 3
"""Node, district authority, issuing certificate: no longer chain exists."""
CERTIFICATE_BYTES_MAX = 2048
"""Ours have some 600 bytes."""
VERIFIED_CACHED_MAX = 8192
"""Chains verified lately: more than the feeds of a region, at some 2 kB each."""
NAME_BYTES_MAX = 64
"""Of a common name in UTF-8 (RFC 5280 allows 64 characters; the library counts bytes)."""

_ARC = "2.25.237948961207329320881817184185886293751"
"""An arc of ITU-T X.667: the UUID b3034d8e-f35b-498b-a61a-be1f13f5bef7 needs no registration."""
OID_ROLE = x509.ObjectIdentifier(f"{_ARC}.1")
OID_DISTRICT = x509.ObjectIdentifier(f"{_ARC}.2")
OID_WRAPPING_KEY = x509.ObjectIdentifier(f"{_ARC}.3")
OID_REALM_KIND = x509.ObjectIdentifier(f"{_ARC}.4")

UTF8_STRING, OCTET_STRING = 0x0C, 0x04
_SIGNATURE = b"\x03\x41\x00"
"""DER before an Ed25519 signature, which ends a certificate: 64 bytes, all bits used."""
_DISTRICT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CRITICAL_KNOWN = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


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
        _check_signed_by(certificate, certificate)
        if not _may_sign_certificates(certificate):
            raise NotAuthentic("the realm's root certificate is not one of an authority")
        try:
            kind = RealmKind(_text(certificate, OID_REALM_KIND))
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
        return cls(
            Ed25519PrivateKey.from_private_bytes(data[:32]), X25519PrivateKey.from_private_bytes(data[32:])
        )

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
    admitted_by: NodeId | None = None
    """The district authority that certified it; None: the agency."""


_verified: OrderedDict[bytes, Certified] = OrderedDict()
_verified_lock = threading.Lock()


def is_good_name(name: str) -> bool:
    """Whether a node or realm may be called that: printable, so that it can forge no log line or screen."""
    return name.isprintable() and name == name.strip() and 0 < len(name.encode()) <= NAME_BYTES_MAX


def may_not_certify(issuer: NodeRole | None, issuer_district: str, role: NodeRole, district: str) -> str:
    """Why an issuer may not certify a node; empty if it may (section 8).

    `issuer` is the role that the issuer's certificate states, or None for the agency's issuing certificate.
    """
    if role is NodeRole.AGENCY:
        if district:
            return "an agency's node has no home district"
    elif not district:
        if role is not NodeRole.RELAY:
            return f"a node of the role {role.value} needs a home district"
    elif not _DISTRICT.fullmatch(district) or district == GOVERNANCE:
        return "that cannot be the name of a home district"
    if issuer is None:
        return ""
    if issuer is not NodeRole.AUTHORITY:
        return f"a node of the role {issuer.value} may certify nobody"
    if role not in (NodeRole.PRESCRIBER, NodeRole.PHARMACY, NodeRole.RELAY):
        return f"a district authority may not certify the role {role.value}"
    if district != issuer_district:
        return "a district authority may not certify a node of another district"
    return ""


def verify_chain(realm: Realm, certificates: tuple[bytes, ...]) -> Certified:
    """Verify a chain: the node's certificate first, then each issuer, without the root. No clock is asked.

    Raises:
        LimitExceeded, Malformed: too many, too large, or not certificates of ours.
        NotAuthentic: a signature, a constraint or a role does not hold, or another root signed.
    """
    if not 1 < len(certificates) <= CERTIFICATES_MAX:
        raise LimitExceeded(f"a chain has two to {CERTIFICATES_MAX} certificates, not {len(certificates)}")
    cache_key = tagged_hash("chain", realm.id, realm.root_certificate, *certificates)
    with _verified_lock:
        known = _verified.get(cache_key)
        if known is not None:
            _verified.move_to_end(cache_key)
            return known
    certified = _verify(realm, certificates)
    with _verified_lock:
        _verified[cache_key] = certified
        if len(_verified) > VERIFIED_CACHED_MAX:
            _verified.popitem(last=False)
    return certified


def _verify(realm: Realm, certificates: tuple[bytes, ...]) -> Certified:
    chain = [load_certificate(der) for der in certificates]
    issuers = [*chain[1:], load_certificate(realm.root_certificate)]
    for depth, (certificate, issuer) in enumerate(zip(chain, issuers, strict=True)):
        _check_signed_by(certificate, issuer)
        if not _may_sign_certificates(issuer, below=depth):
            raise NotAuthentic("a certificate was signed by one that may not certify")
    if _has_extension(chain[-1], OID_ROLE):
        raise NotAuthentic("a chain does not end with an issuing certificate of the agency")
    if len(chain) == CERTIFICATES_MAX:
        _check_node(chain[1], None, "")
        _check_node(chain[0], certified_role(chain[1]), certified_district(chain[1]))
    else:
        _check_node(chain[0], None, "")
    return _certified(realm, chain, certificates)


def _check_node(certificate: x509.Certificate, issuer: NodeRole | None, issuer_district: str) -> None:
    role = certified_role(certificate)
    if why := may_not_certify(issuer, issuer_district, role, certified_district(certificate)):
        raise NotAuthentic(why)
    if _is_ca(certificate) is not (role is NodeRole.AUTHORITY):
        raise NotAuthentic("a certificate says otherwise of who may certify than its role")
    if not _key_usage(certificate).digital_signature:
        raise NotAuthentic("a certificate's key is not for signing")
    check_public_key(certificate_key(certificate), _value(certificate, OID_WRAPPING_KEY, OCTET_STRING))
    if not is_good_name(_common_name(certificate)):
        raise Malformed("a certificate's name is empty, too long or not printable")


def _certified(realm: Realm, chain: list[x509.Certificate], certificates: tuple[bytes, ...]) -> Certified:
    leaf = chain[0]
    public_key = certificate_key(leaf)
    return Certified(
        node=node_id(realm.id, public_key),
        role=certified_role(leaf),
        district=certified_district(leaf),
        name=_common_name(leaf),
        public_key=public_key,
        wrapping_key=_value(leaf, OID_WRAPPING_KEY, OCTET_STRING),
        not_before_ms=max(int(c.not_valid_before_utc.timestamp()) for c in chain) * 1000,
        not_after_ms=min(int(c.not_valid_after_utc.timestamp()) for c in chain) * 1000,
        certificates=certificates,
        admitted_by=node_id(realm.id, certificate_key(chain[1])) if len(chain) == CERTIFICATES_MAX else None,
    )


def is_expired(certified: Certified, now_ms: int) -> bool:
    """Whether some certificate of the chain is past its date, or before it. It stays usable, marked."""
    return not certified.not_before_ms <= now_ms <= certified.not_after_ms


def load_certificate(der: bytes) -> x509.Certificate:
    """Decode one certificate in canonical form, with all that is read of it later.

    Raises:
        LimitExceeded: larger than `CERTIFICATE_BYTES_MAX`.
        Malformed: not a certificate, or not in its one form.
        NotAuthentic: not Ed25519 throughout, or a key that must be refused.
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise LimitExceeded(f"a certificate of {len(der)} bytes; at most {CERTIFICATE_BYTES_MAX} are allowed")
    try:
        certificate = x509.load_der_x509_certificate(der)
        canonical = certificate.public_bytes(Encoding.DER) == der
        critical = {e.oid for e in certificate.extensions if e.critical}
        serial, algorithm = certificate.serial_number, certificate.signature_algorithm_oid
        _ = certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        key = certificate.public_key()
    except Exception as error:
        # The parser has a dozen unrelated exceptions; all mean the same of a peer's bytes (R15).
        raise Malformed("a certificate cannot be decoded") from error
    if not canonical or serial <= 0:
        raise Malformed("a certificate is not in canonical form")
    if algorithm == SignatureAlgorithmOID.ED25519 and der[-67:-64] != _SIGNATURE:
        # The parser lets a signature call last bits unused if they are zero: a second form that nobody signed.
        raise Malformed("a certificate's signature is not in canonical form")
    if not critical <= _CRITICAL_KNOWN:
        raise Malformed("a certificate has a critical extension that is not known")
    if algorithm != SignatureAlgorithmOID.ED25519 or not isinstance(key, Ed25519PublicKey):
        raise NotAuthentic("a certificate's key or signature is not Ed25519")
    check_signing_key(key.public_bytes_raw())
    return certificate


def certificate_key(certificate: x509.Certificate) -> bytes:
    """The raw public key (32 bytes) of a loaded certificate.

    Raises:
        NotAuthentic: it is not an Ed25519 key.
    """
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise NotAuthentic("a certificate's key is not an Ed25519 key")
    return key.public_bytes_raw()


def certified_role(certificate: x509.Certificate) -> NodeRole:
    """The role that a certificate states.

    Raises:
        Malformed: none, or one not known here.
    """
    try:
        return NodeRole(_text(certificate, OID_ROLE))
    except ValueError as error:
        raise Malformed("a certificate names a role that is not known") from error


def certified_district(certificate: x509.Certificate) -> str:
    """The home district that a certificate states; may be empty.

    Raises:
        Malformed: it states none.
    """
    return _text(certificate, OID_DISTRICT)


def _check_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        # Compares the names too, and the algorithm named inside with the one outside, which nobody signed.
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise NotAuthentic("a certificate was not signed by the one above it") from error


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise NotAuthentic("a certificate does not say what its key is for") from error


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _may_sign_certificates(certificate: x509.Certificate, below: int = 0) -> bool:
    """Whether it may certify with so many certificates between its own and the node's."""
    if not _is_ca(certificate) or not _key_usage(certificate).key_cert_sign:
        return False
    length = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    return length is None or length >= below


def _has_extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bool:
    return any(e.oid == oid for e in certificate.extensions)


def extension_value(tag: int, value: bytes) -> bytes:
    """An extension's value as DER: a short string of that tag."""
    if len(value) > 127:
        raise LimitExceeded("an extension of ours has at most 127 bytes")
    return bytes([tag, len(value)]) + value


def _value(certificate: x509.Certificate, oid: x509.ObjectIdentifier, tag: int) -> bytes:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound as error:
        raise Malformed("a certificate lacks an extension of ours") from error
    data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(data) < 2 or data[0] != tag or data[1] != len(data) - 2 or data[1] > 127:
        raise Malformed("a certificate's extension is of another kind")
    return data[2:]


def _text(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    try:
        return _value(certificate, oid, UTF8_STRING).decode()
    except UnicodeDecodeError as error:
        raise Malformed("a certificate's extension is not text") from error


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""
