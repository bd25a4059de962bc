"""Certificates that no honest issuer would sign: the builders of `ledger.certificates` without its checks."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import certificates as c
from ledger.identity import (
    OCTET_STRING,
    OID_DISTRICT,
    OID_ROLE,
    OID_WRAPPING_KEY,
    NodeRole,
    extension_value,
    load_certificate,
)
from scripts.vectors.craft import NOW_MS, Member, World

__all__ = ["forged_chain"]


def forged_chain(
    world: World,
    by: Member | None,
    role: str,
    district: str,
    *,
    public_key: bytes | None = None,
    wrapping_key: bytes | None = None,
) -> tuple[bytes, ...]:
    """A node's chain signed by any member (None: the agency's issuing key), whatever its role allows."""
    key, above = (by.keys, by.chain) if by else (world.issuing, world.issuing_chain)
    keys = world["linden"].keys
    public = keys.public_key if public_key is None else public_key
    issuer = load_certificate(above[0])
    entropy = _Fixed(f"{by.name if by else ''} {role} {district}".encode())
    builder = c._builder(c._name("forged", public), issuer.subject, keys.public_key, NOW_MS, 730, entropy)
    if public_key is not None:
        builder = _with_key(builder, public)
    if role == NodeRole.AUTHORITY:
        builder = c._authority(builder, 0, public)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(c._usage(certify=False), critical=True)
    for oid, value in (
        (OID_ROLE, c._text(str(role))),
        (OID_DISTRICT, c._text(district)),
        (OID_WRAPPING_KEY, extension_value(OCTET_STRING, wrapping_key or keys.wrapping_key)),
    ):
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return (c._finish(builder, key.signing), *above)


def _with_key(builder: x509.CertificateBuilder, public: bytes) -> x509.CertificateBuilder:
    # A builder takes a public key once.
    builder._public_key = Ed25519PublicKey.from_public_bytes(public)
    return builder


class _Fixed:
    """Bytes that depend on a text only."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def bytes(self, count: int) -> bytes:
        return hashlib.shake_256(self._text).digest(count)
