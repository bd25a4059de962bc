"""Enrolment: what a node asks with, what it is given, and how keys are wrapped to it (section 8).

Wrapping is ephemeral X25519, HKDF-SHA256 and AES-256-GCM-SIV, with both public keys and a context bound in.
The library's HPKE (RFC 9180) would do the same but draws its own randomness, and a simulated world must run
again to the byte; the construction is HPKE's base mode in all but labels. The seal withstands a repeated
ephemeral key: a computer whose entropy repeats shows at most that it wrapped the same thing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta, Struct

from ledger.entropy import Entropy
from ledger.errors import InvalidInput, LimitExceeded, Malformed, NotAuthentic, OtherRealm, VersionUnknown
from ledger.identity import (
    Certified,
    NodeKeys,
    NodeRole,
    Realm,
    certificate_key,
    check_public_key,
    is_good_name,
    load_certificate,
    verify_chain,
)
from ledger.ids import tagged_hash

__all__ = [
    "DistrictKey",
    "Enrolment",
    "EnrolmentPackage",
    "EnrolmentRequest",
    "WrappedDistrictKey",
    "check_request",
    "decode_package",
    "decode_request",
    "encode_package",
    "encode_request",
    "make_package",
    "make_request",
    "open_package",
    "sign_package",
    "unwrap_key",
    "wrap_district_keys",
    "wrap_key",
]

PACKAGE_VERSION = 1
BUNDLE_BYTES_MAX = 8 * 1024 * 1024
"""Governance and openings that ride along: some 20,000 certificates of 400 bytes."""
PACKAGE_BYTES_MAX = BUNDLE_BYTES_MAX + 1024 * 1024
"""Besides the bundle: an agency node of 290 districts with ten epochs each, 400 kB."""
REQUEST_BYTES_MAX = 4096
"""Two keys, a signature, role, district and name: some 400 bytes."""
_REQUEST_TAG = b"rxledger/1 sign enrolment request\0"
_PACKAGE_TAG = b"rxledger/1 sign enrolment package\0"
_NO_NONCE = bytes(12)

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Der = Annotated[bytes, Meta(max_length=2048)]
District = Annotated[str, Meta(max_length=128)]


class DistrictKey(Struct, frozen=True, array_like=True):
    """A district's key of an epoch. Never printed."""

    district: District
    epoch: Annotated[int, Meta(ge=1, lt=1 << 31)]
    key: Bytes32

    def __repr__(self) -> str:
        return f"DistrictKey({self.district!r}, {self.epoch})"


class EnrolmentRequest(Struct, frozen=True, array_like=True):
    """What a new computer carries to whoever admits it: its public keys, signed by itself."""

    public_key: Bytes32
    wrapping_key: Bytes32
    role: NodeRole
    district: District
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    signature: Bytes64


class WrappedDistrictKey(Struct, frozen=True, array_like=True):
    """A district's key, wrapped to one node: nobody else can read it."""

    district: District
    epoch: Annotated[int, Meta(ge=0, lt=1 << 31)]
    """0: the index key."""
    sealed: Annotated[bytes, Meta(max_length=128)]


class EnrolmentPackage(Struct, frozen=True, array_like=True):
    """What it is given: the realm, its certificates, and the keys it may read with, wrapped to it."""

    version: int
    root_certificate: Der
    certificates: Annotated[tuple[Der, ...], Meta(min_length=2, max_length=3)]
    keys: Annotated[tuple[WrappedDistrictKey, ...], Meta(max_length=8192)]
    bundle: Annotated[bytes, Meta(max_length=BUNDLE_BYTES_MAX)]
    """Opaque here: what the node may import at once, each part of which proves itself."""
    signature: Bytes64


class Enrolment(Struct, frozen=True):
    """An opened package."""

    realm: Realm
    certificates: tuple[bytes, ...]
    district_keys: tuple[DistrictKey, ...]
    index_keys: Mapping[str, bytes]
    bundle: bytes = b""

    def __repr__(self) -> str:
        return f"Enrolment(realm={self.realm.name!r}, {len(self.district_keys)} keys)"


def _wrapping_cipher(shared: bytes, ephemeral: bytes, recipient: bytes, context: bytes) -> AESGCMSIV:
    info = tagged_hash("wrap", ephemeral, recipient, context)
    return AESGCMSIV(HKDF(SHA256(), 32, salt=None, info=info).derive(shared))


def wrap_key(recipient: bytes, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
    """Wrap a key to a node's public wrapping key (32 raw bytes), bound to a context.

    Raises:
        NotAuthentic: the wrapping key is of small order, or not one.
    """
    ephemeral = X25519PrivateKey.from_private_bytes(entropy.bytes(32))
    public = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError as error:
        raise NotAuthentic("a key cannot be wrapped to that wrapping key") from error
    # One message a key: the nonce may be constant.
    return public + _wrapping_cipher(shared, public, recipient, context).encrypt(
        _NO_NONCE, plaintext, context
    )


def unwrap_key(key: X25519PrivateKey, sealed: bytes, context: bytes) -> bytes:
    """Unwrap a key.

    Raises:
        NotAuthentic: it was wrapped to another node, for another context, or was changed.
    """
    public, body = sealed[:32], sealed[32:]
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        recipient = key.public_key().public_bytes_raw()
        return _wrapping_cipher(shared, public, recipient, context).decrypt(_NO_NONCE, body, context)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a wrapped key cannot be unwrapped by this node") from error


def _request_body(request: EnrolmentRequest) -> bytes:
    return _REQUEST_TAG + msgspec.msgpack.encode(
        (request.public_key, request.wrapping_key, request.role, request.district, request.name)
    )


def make_request(keys: NodeKeys, role: NodeRole, district: str, name: str) -> EnrolmentRequest:
    """A request, signed by the keys it names."""
    bare = EnrolmentRequest(keys.public_key, keys.wrapping_key, role, district, name, bytes(64))
    return EnrolmentRequest(
        keys.public_key, keys.wrapping_key, role, district, name, keys.signing.sign(_request_body(bare))
    )


def encode_request(request: EnrolmentRequest) -> bytes:
    """The bytes of a request."""
    return msgspec.msgpack.encode(request)


def decode_request(data: bytes) -> EnrolmentRequest:
    """Decode a request and check that it is signed by its own key.

    Raises:
        LimitExceeded, Malformed, NotAuthentic: it is not one.
    """
    request = _decode(data, REQUEST_BYTES_MAX, EnrolmentRequest, "an enrolment request")
    check_request(request)
    return request


def check_request(request: EnrolmentRequest) -> None:
    """Check that a request is signed by its own key: nobody is certified for a key that another holds.

    Raises:
        Malformed, NotAuthentic: it is not, its keys must be refused, or its name is not printable.
    """
    check_public_key(request.public_key, request.wrapping_key)
    _verify(request.public_key, request.signature, _request_body(request), "an enrolment request")
    if not is_good_name(request.name):
        raise Malformed("the name in an enrolment request is not printable")


def _package_body(package: EnrolmentPackage) -> bytes:
    return _PACKAGE_TAG + msgspec.msgpack.encode(
        (package.version, package.root_certificate, package.certificates, package.keys, package.bundle)
    )


def make_package(
    realm: Realm,
    certificates: tuple[bytes, ...],
    certified: Certified,
    issuer_key: Ed25519PrivateKey,
    *,
    district_keys: Sequence[DistrictKey],
    index_keys: Mapping[str, bytes],
    entropy: Entropy,
    bundle: bytes = b"",
) -> EnrolmentPackage:
    """Wrap the keys to the node and sign the whole as its issuer: both halves at once.

    Raises:
        InvalidInput: the key is not the issuer's, an epoch is below 1, or the bundle is too large.
    """
    keys = wrap_district_keys(certified, district_keys, index_keys, entropy)
    return sign_package(realm, certificates, keys, issuer_key, bundle=bundle)


def wrap_district_keys(
    certified: Certified,
    district_keys: Sequence[DistrictKey],
    index_keys: Mapping[str, bytes],
    entropy: Entropy,
) -> tuple[WrappedDistrictKey, ...]:
    """The half of a package that needs the districts' keys: wrapped to the node that was certified.

    Raises:
        InvalidInput: an epoch is below 1.
    """
    if any(k.epoch < 1 for k in district_keys):
        raise InvalidInput("epoch: the epochs of a district count from 1")
    wanted = [(k.district, k.epoch, k.key) for k in district_keys] + [
        (d, 0, k) for d, k in sorted(index_keys.items())
    ]
    return tuple(
        WrappedDistrictKey(
            district,
            epoch,
            wrap_key(certified.wrapping_key, key, _context(certified, district, epoch), entropy),
        )
        for district, epoch, key in wanted
    )


def sign_package(
    realm: Realm,
    certificates: tuple[bytes, ...],
    keys: tuple[WrappedDistrictKey, ...],
    issuer_key: Ed25519PrivateKey,
    *,
    bundle: bytes = b"",
) -> EnrolmentPackage:
    """The half of a package that needs the issuer's key, and no other secret.

    Raises:
        InvalidInput: the key is not the issuer's, or the bundle is too large.
    """
    if issuer_key.public_key().public_bytes_raw() != _issuer_key(certificates[1]):
        raise InvalidInput("an enrolment package is signed by who certified the node")
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise InvalidInput(f"bundle: {len(bundle)} bytes; at most {BUNDLE_BYTES_MAX} are allowed")
    bare = EnrolmentPackage(PACKAGE_VERSION, realm.root_certificate, certificates, keys, bundle, bytes(64))
    return msgspec.structs.replace(bare, signature=issuer_key.sign(_package_body(bare)))


def _context(certified: Certified, district: str, epoch: int) -> bytes:
    # The node's id is a hash of its realm and key, so a key wrapped in one realm says nothing in another.
    return tagged_hash("enrolment", certified.node, epoch.to_bytes(4, "big"), district.encode())


def encode_package(package: EnrolmentPackage) -> bytes:
    """The bytes of a package."""
    return msgspec.msgpack.encode(package)


def decode_package(data: bytes) -> EnrolmentPackage:
    """Decode a package; `open_package` checks it.

    Raises:
        LimitExceeded, Malformed: it is not one.
        VersionUnknown: it was made by a newer version.
    """
    what = "an enrolment package"
    try:
        return _decode(data, PACKAGE_BYTES_MAX, EnrolmentPackage, what)
    except Malformed:
        # A newer version may have another form: tell it from damage by what comes first.
        _check_version(_decode(data, PACKAGE_BYTES_MAX, _AnyVersion, what).version)
        raise


class _AnyVersion(Struct, frozen=True, array_like=True):
    version: int


def _check_version(version: int) -> None:
    if version != PACKAGE_VERSION:
        raise VersionUnknown(
            f"an enrolment package of version {version}; this software reads {PACKAGE_VERSION}"
        )


def open_package(package: EnrolmentPackage, keys: NodeKeys, *, realm: Realm | None = None) -> Enrolment:
    """Verify a package and unwrap its keys. Name the realm if known: no package vouches for its own root.

    Raises:
        OtherRealm: it is not of the realm named.
        NotAuthentic: it is for another node, or not signed by the node's issuer.
        Malformed, VersionUnknown: it is not one that can be read here.
    """
    _check_version(package.version)
    stated = Realm.from_certificate(package.root_certificate)
    if realm is not None and stated.id != realm.id:
        raise OtherRealm("an enrolment package is of another realm")
    certified = verify_chain(stated, package.certificates)
    if (certified.public_key, certified.wrapping_key) != (keys.public_key, keys.wrapping_key):
        raise NotAuthentic("an enrolment package is for another node")
    issuer = _issuer_key(package.certificates[1])
    _verify(issuer, package.signature, _package_body(package), "an enrolment package")
    if len({(wrapped.district, wrapped.epoch) for wrapped in package.keys}) < len(package.keys):
        raise Malformed("an enrolment package holds two keys for one epoch")
    district_keys, index_keys = [], {}
    for wrapped in package.keys:
        key = unwrap_key(keys.wrapping, wrapped.sealed, _context(certified, wrapped.district, wrapped.epoch))
        if len(key) != 32:
            raise Malformed("a district key has 32 bytes")
        if wrapped.epoch:
            district_keys.append(DistrictKey(wrapped.district, wrapped.epoch, key))
        else:
            index_keys[wrapped.district] = key
    return Enrolment(stated, package.certificates, tuple(district_keys), index_keys, package.bundle)


def _issuer_key(der: bytes) -> bytes:
    return certificate_key(load_certificate(der))


def _verify(key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic(f"the signature over {what} does not hold") from error


_T = TypeVar("_T")


def _decode(data: bytes, most: int, kind: type[_T], what: str) -> _T:
    if len(data) > most:
        raise LimitExceeded(f"{what} of {len(data)} bytes; at most {most} are allowed")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(f"{what} cannot be decoded") from error
