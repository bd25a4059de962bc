"""TLS between nodes and NATS servers, and between servers, with certificates of the realm (docs/adr/0009).

- A node verifies the server: certified for this address under the realm's root. Dates are not asked (R5): a clock
  that lost its battery, or a crisis longer than a certificate, must not cut a pharmacy off.
- The server knows the node by its NKey, inside TLS (`nodes.nats.nkeys`); it asks for no certificate.
- Servers verify each other in both directions. Their software asks for dates and nothing can relax that, so theirs
  last for years, and whoever runs the servers renews them by running the generator again.
- A node's certificate is not a server's: it names no address, and a name alone is not taken for one.
"""

from __future__ import annotations

import ssl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ledger.identity import Realm, load_certificate

__all__ = ["certificates_pem", "client_tls", "private_key_pem"]

_NO_CHECK_TIME = 0x200000
"""``X509_V_FLAG_NO_CHECK_TIME`` of OpenSSL (1.1 and later), for which Python has no name."""


def client_tls(realm: Realm) -> ssl.SSLContext:
    """What a node connects to servers of its realm with: TLS 1.3, the realm's root, addresses checked, dates not.

    Every connection may share it. It holds no key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Certificate and address are required by default.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    context.load_verify_locations(cadata=realm.root_certificate)
    return context


def certificates_pem(certificates: tuple[bytes, ...]) -> bytes:
    """Certificates (DER) as servers read them."""
    return b"".join(load_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def private_key_pem(key: Ed25519PrivateKey) -> bytes:
    """A server's key as servers read it: not encrypted, for a file that its owner alone can read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
