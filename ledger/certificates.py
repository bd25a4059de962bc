"""Writes the X.509 certificates that `ledger.identity` verifies. Deterministic under injected clock and entropy.

All are Ed25519 and fit for TLS on either side, so that transports can use them (RFC 8410, RFC 5280).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ledger.entropy import Entropy
from ledger.errors import InvalidInput
from ledger.identity import (
    NAME_CHARACTERS_MAX,
    OID_DISTRICT,
    OID_REALM_KIND,
    OID_ROLE,
    OID_WRAPPING_KEY,
    NodeRole,
    RealmKind,
    check_public_key,
)

__all__ = ["create_issuing", "create_root", "issue_node"]

ROOT_DAYS = 365 * 20
ISSUING_DAYS = 365 * 10
NODE_DAYS = 730
BACKDATED = timedelta(hours=1)
"""Clocks of new computers run behind; TLS would refuse a certificate from the future."""


def _name(common: str) -> x509.Name:
    if not 0 < len(common) <= NAME_CHARACTERS_MAX:
        raise InvalidInput(f"a certificate's name has 1 to {NAME_CHARACTERS_MAX} characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: bytes, now_ms: int, days: int, entropy: Entropy
) -> x509.CertificateBuilder:
    # Whole seconds: X.509 has no finer time.
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    serial = int.from_bytes(entropy.bytes(16), "big") >> 1 | 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(Ed25519PublicKey.from_public_bytes(public_key))
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        usage, critical=True
    )


def _finish(builder: x509.CertificateBuilder, key: Ed25519PrivateKey) -> bytes:
    return builder.sign(key, algorithm=None).public_bytes(Encoding.DER)


def create_root(key: Ed25519PrivateKey, name: str, kind: RealmKind, now_ms: int, *, entropy: Entropy) -> bytes:
    """The self-signed root of a realm, DER. Its key goes off line at once."""
    subject = _name(name)
    public = key.public_key().public_bytes_raw()
    builder = _authority(_builder(subject, subject, public, now_ms, ROOT_DAYS, entropy), 2)
    return _finish(
        builder.add_extension(x509.UnrecognizedExtension(OID_REALM_KIND, kind.value.encode()), critical=False), key
    )


def create_issuing(
    root_key: Ed25519PrivateKey, root_certificate: bytes, public_key: bytes, now_ms: int, *, entropy: Entropy
) -> tuple[bytes, ...]:
    """The agency's issuing certificate, as a chain without the root."""
    root = x509.load_der_x509_certificate(root_certificate)
    builder = _builder(_name("issuing"), root.subject, public_key, now_ms, ISSUING_DAYS, entropy)
    return (_finish(_authority(builder, 1), root_key),)


def issue_node(
    issuer_key: Ed25519PrivateKey,
    issuer_chain: tuple[bytes, ...],
    public_key: bytes,
    wrapping_key: bytes,
    role: NodeRole,
    district: str,
    name: str,
    now_ms: int,
    *,
    days: int = NODE_DAYS,
    entropy: Entropy,
) -> tuple[bytes, ...]:
    """A node's certificate and the chain to it, without the root.

    Raises:
        InvalidInput: the name is empty or too long.
        NotAuthentic: the keys are of small order or not in canonical form.
    """
    check_public_key(public_key, wrapping_key)
    issuer = x509.load_der_x509_certificate(issuer_chain[0])
    builder = _builder(_name(name), issuer.subject, public_key, now_ms, days, entropy)
    if role is NodeRole.AUTHORITY:
        builder = _authority(builder, 0)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    for oid, value in ((OID_ROLE, role.value.encode()), (OID_DISTRICT, district.encode()), (OID_WRAPPING_KEY, wrapping_key)):
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return (_finish(builder, issuer_key), *issuer_chain)
