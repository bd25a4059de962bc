"""How a node proves to a NATS server who it is: NKey, with the very key of its certificate (docs/adr/0009).

- The server sends a nonce; the node returns its Ed25519 signature. A server knows the nodes by their public keys, so
  that neither clocks nor dates of certificates can lock a node out, and finding one among thousands is one look-up.
- A node's key signs entries as well. So only what looks like a nonce is ever signed here: what the ledger signs
  begins with a tag that holds characters which no nonce may have.
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client

from ledger.errors import InvalidInput, Malformed

__all__ = ["Login", "user_nkey"]

_PREFIX_USER = 20 << 3
"""Makes the text begin with U."""
_NONCE = re.compile(r"[A-Za-z0-9_-]{11,64}")
"""nats-server sends 15 characters of base64url; a tag of the ledger has a space and a slash."""


def user_nkey(public_key: bytes) -> str:
    """The user's name for a public key (32 raw bytes, Ed25519) in a server's configuration: ``U…``, 56 characters.

    Raises:
        InvalidInput: it has not 32 bytes.
    """
    if len(public_key) != 32:
        raise InvalidInput("a public key has 32 bytes")
    data = bytes([_PREFIX_USER]) + public_key
    # The checksum is CRC-16/XMODEM, low byte first; 35 bytes need no padding in base 32.
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode()


class Login:
    """A key with which nats-py clients log in: `prepare` the client, then connect with ``signature_cb=login.sign``."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.user = user_nkey(key.public_key().public_bytes_raw())
        """The public half, as servers know it."""

    def __repr__(self) -> str:
        return f"Login({self.user[:12]}…)"

    def prepare(self, client: Client) -> None:
        """Let a client that has not connected yet name this key.

        nats-py takes a public key only together with the secret one as text (and a further library); these two
        attributes are what it would set then. Its version is pinned and a test logs in.
        """
        client._public_nkey = self.user
        client._auth_configured = True

    def sign(self, nonce: str) -> bytes:
        """The signature of a server's nonce, in base 64: nats-py's ``signature_cb``.

        Raises:
            Malformed: that is no nonce; a hostile server may be after a signature of something else.
        """
        if not _NONCE.fullmatch(nonce):
            raise Malformed(
                "a server asks for a signature of what is no nonce", advice="do not connect there"
            )
        return base64.b64encode(self._key.sign(nonce.encode()))
