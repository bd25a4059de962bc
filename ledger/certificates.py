"""Writes the X.509 certificates that `ledger.identity` verifies; repeatable under injected time and entropy.

All are Ed25519, with what strict verifiers of TLS ask for (RFC 8410, RFC 5280): key identifiers and key usage
included. A subject holds a hash of its key, so that no two are alike. Software in Go cannot read a certificate that
has an extension of ours (its object identifiers have no room for a UUID), so nodes log in to NATS servers with their
key, and the certificates of servers carry none (docs/adr/0009).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ledger.entropy import Entropy
from ledger.errors import InvalidInput, NotPermitted
from ledger.identity import (
    NAME_BYTES_MAX,
    OCTET_STRING,
    OID_DISTRICT,
    OID_REALM_KIND,
    OID_ROLE,
    OID_WRAPPING_KEY,
    UTF8_STRING,
    NodeRole,
    RealmKind,
    certificate_key,
    certified_district,
    certified_role,
    check_public_key,
    extension_value,
    is_good_name,
    load_certificate,
    may_not_certify,
)
from ledger.ids import tagged_hash

__all__ = [
    "check_address",
    "check_server_name",
    "create_issuing",
    "create_root",
    "issue_node",
    "issue_server",
    "server_uri",
]

ROOT_DAYS = 365 * 20
ISSUING_DAYS = 365 * 10
NODE_DAYS = 730
SERVER_DAYS = 365 * 5
"""Servers ask for each other's dates, whatever we think of dates: longer than any crisis, renewed in peace."""
SERVER_ADDRESSES_MAX = 16
"""Names and addresses of one server; a certificate of ours has at most 2 kB."""
DAYS_MAX = 365 * 50
BACKDATED = timedelta(days=1)
"""Clocks of new computers run behind by hours; TLS would refuse a certificate from the future."""
_BASE_POINT = bytes([9]) + bytes(31)
"""A good wrapping key, for who has none: an issuing certificate is no node's."""
_SERVER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
"""RFC 1123, ASCII only, no wildcard: a certificate is for machines that somebody named one by one."""
_KEY_ID_BYTES = 8
"""Enough to tell the few certificates of a chain apart; certificates travel on paper and by radio."""


def _key_id(public_key: bytes) -> bytes:
    return tagged_hash("certificate key", public_key)[:_KEY_ID_BYTES]


def _name(common: str, public_key: bytes) -> x509.Name:
    if not is_good_name(common):
        raise InvalidInput(f"name: 1 to {NAME_BYTES_MAX} bytes of printable UTF-8")
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, _key_id(public_key).hex()),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: bytes, now_ms: int, days: int, entropy: Entropy
) -> x509.CertificateBuilder:
    if not 0 < days <= DAYS_MAX:
        raise InvalidInput(f"days: a certificate is for 1 to {DAYS_MAX} days")
    serial = int.from_bytes(entropy.bytes(16), "big") >> 1 | 1
    try:
        # Whole seconds: X.509 has no finer time.
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(Ed25519PublicKey.from_public_bytes(public_key))
            .serial_number(serial)
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + timedelta(days=days))
        )
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(
            "the machine's time cannot stand in a certificate", advice="set the clock"
        ) from error


def _usage(*, certify: bool, sign: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign, key_cert_sign=certify, crl_sign=False, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _authority(
    builder: x509.CertificateBuilder, path_length: int, public_key: bytes
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(certify=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(public_key)), critical=False)
    )


def _issued_by(builder: x509.CertificateBuilder, issuer_key: bytes) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier(_key_id(issuer_key), None, None)
    return builder.add_extension(identifier, critical=False)


def _text(value: str) -> bytes:
    return extension_value(UTF8_STRING, value.encode())


def _check_issuer(key: Ed25519PrivateKey, issuer: x509.Certificate) -> bytes:
    public = key.public_key().public_bytes_raw()
    if public != certificate_key(issuer):
        raise InvalidInput("the issuer's key is not the one in its certificate")
    return public


def _finish(builder: x509.CertificateBuilder, key: Ed25519PrivateKey) -> bytes:
    return builder.sign(key, algorithm=None).public_bytes(Encoding.DER)


def create_root(
    key: Ed25519PrivateKey, name: str, kind: RealmKind, now_ms: int, *, entropy: Entropy
) -> bytes:
    """The self-signed root of a realm, DER. Its key goes off line at once.

    Raises:
        InvalidInput: the name or the time cannot stand in a certificate.
    """
    public = key.public_key().public_bytes_raw()
    subject = _name(name, public)
    builder = _authority(_builder(subject, subject, public, now_ms, ROOT_DAYS, entropy), 2, public)
    return _finish(
        builder.add_extension(x509.UnrecognizedExtension(OID_REALM_KIND, _text(kind.value)), critical=False),
        key,
    )


def create_issuing(
    root_key: Ed25519PrivateKey, root_certificate: bytes, public_key: bytes, now_ms: int, *, entropy: Entropy
) -> tuple[bytes, ...]:
    """The agency's issuing certificate, as a chain without the root. Unlike a node's it names no role.

    Raises:
        InvalidInput: the root key is not that of the root certificate, or the time cannot stand in one.
        PeerFault: the root certificate or the public key is not one.
    """
    check_public_key(public_key, _BASE_POINT)
    root = load_certificate(root_certificate)
    builder = _builder(_name("issuing", public_key), root.subject, public_key, now_ms, ISSUING_DAYS, entropy)
    builder = _issued_by(_authority(builder, 1, public_key), _check_issuer(root_key, root))
    return (_finish(builder, root_key),)


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
        InvalidInput: name, days or time cannot stand in a certificate, or the key is not the issuer's.
        NotPermitted: this issuer may not certify that role or district.
        NotAuthentic: the keys are of small order or not in canonical form.
    """
    check_public_key(public_key, wrapping_key)
    issuer = load_certificate(issuer_chain[0])
    above = _check_issuer(issuer_key, issuer)
    # An issuing certificate stands alone below the root; a node's own has its issuer after it.
    issuer_role, issuer_district = None, ""
    if len(issuer_chain) > 1:
        issuer_role, issuer_district = certified_role(issuer), certified_district(issuer)
    if why := may_not_certify(issuer_role, issuer_district, role, district):
        raise NotPermitted(why)
    builder = _builder(_name(name, public_key), issuer.subject, public_key, now_ms, days, entropy)
    if role is NodeRole.AUTHORITY:
        builder = _authority(builder, 0, public_key)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(certify=False), critical=True)
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = _issued_by(builder, above).add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    for oid, value in (
        (OID_ROLE, _text(role.value)),
        (OID_DISTRICT, _text(district)),
        (OID_WRAPPING_KEY, extension_value(OCTET_STRING, wrapping_key)),
    ):
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return (_finish(builder, issuer_key), *issuer_chain)


def server_uri(name: str) -> str:
    """How servers call a server whose certificate they have verified."""
    return f"urn:rxledger:server:{name}"


def issue_server(
    issuer_key: Ed25519PrivateKey,
    issuer_chain: tuple[bytes, ...],
    public_key: bytes,
    name: str,
    addresses: Sequence[str],
    now_ms: int,
    *,
    days: int = SERVER_DAYS,
    entropy: Entropy,
) -> tuple[bytes, ...]:
    """The certificate of a message server and the chain to it, without the root: for TLS only, on either side.

    It names no role, so that no node takes it for a node's (`verify_chain`).

    Args:
        issuer_key: the agency's issuing key.
        issuer_chain: its chain, without the root.
        public_key: the server's, 32 raw bytes.
        name: its name in this realm: small letters, digits and hyphens.
        addresses: host names and IP addresses under which it is reached.
        now_ms: the certificate is valid from a day before.
        days: how long it is valid.
        entropy: for its serial number.

    Raises:
        InvalidInput: name, addresses, days or time cannot stand in a certificate, or the key is not the issuer's.
        NotPermitted: this issuer may not certify servers.
        NotAuthentic: the key is of small order or not in canonical form.
    """
    check_public_key(public_key, _BASE_POINT)
    issuer = load_certificate(issuer_chain[0])
    above = _check_issuer(issuer_key, issuer)
    if len(issuer_chain) != 1:
        raise NotPermitted("only the agency's issuing key certifies servers")
    check_server_name(name)
    builder = _builder(_name(name, public_key), issuer.subject, public_key, now_ms, days, entropy)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = _issued_by(builder.add_extension(_usage(certify=False), critical=True), above)
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    names = [*_addresses(addresses), x509.UniformResourceIdentifier(server_uri(name))]
    return (
        _finish(builder.add_extension(x509.SubjectAlternativeName(names), critical=False), issuer_key),
        *issuer_chain,
    )


def check_address(address: str) -> x509.GeneralName:
    """A host name or IP address as it stands in a certificate.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        # All digits and dots would be an address mistyped, not a name.
        if not _HOST_NAME.fullmatch(address) or re.fullmatch(r"[0-9.]+", address):
            raise InvalidInput(f"addresses: {address!r} is neither a host name nor an IP address") from None
        return x509.DNSName(address)


def check_server_name(name: str) -> None:
    """Refuse what no server may be called.

    Raises:
        InvalidInput: other than small letters, digits and inner hyphens, or too long.
    """
    if not _SERVER_NAME.fullmatch(name):
        raise InvalidInput(
            f"name of a server: {name[:64]!r} is not 1 to 32 small letters, digits and inner hyphens"
        )


def _addresses(addresses: Sequence[str]) -> list[x509.GeneralName]:
    if not 0 < len(addresses) <= SERVER_ADDRESSES_MAX:
        raise InvalidInput(f"addresses: a server has 1 to {SERVER_ADDRESSES_MAX}")
    return [check_address(address) for address in dict.fromkeys(addresses)]
