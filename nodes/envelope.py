"""Sealed letters between two nodes: authenticated end to end by realm certificates, whatever carries them (R12, R14).

The key of a pair is X25519 between the wrapping keys that their certificates name (RFC 7748), through HKDF with realm,
sender and receiver, so that a letter can neither be turned round nor shown to another node. Each letter is sealed with
AES-256-GCM-SIV (RFC 8452) under a random nonce. A hub learns who writes to whom, when and how much; it can lose, repeat
and delay letters and nothing else. What repeats must do no harm is the business of what stands inside.

Whoever steals a node's key can read the letters to and from it, also older ones, and write to it in anybody's name; what they
carry is itself sealed under district keys, which that node held anyway, and signed by who wrote it (docs/adr/0010).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger.entropy import Entropy
from ledger.errors import LimitExceeded, Malformed, NotAuthentic
from ledger.identity import CERTIFICATES_MAX, Certified, NodeKeys, Realm, verify_chain
from ledger.ids import NodeId

__all__ = ["LETTER_OVERHEAD_BYTES", "PEERS_KNOWN_MAX", "Postbox"]

PEERS_KNOWN_MAX = 4096
"""Certificates kept of nodes that wrote or were written to, the latest: three times the nation's pharmacies, 8 MB."""
INTRODUCTION_BYTES_MAX = 8 * 1024
"""Three certificates of at most 2 kB, and room."""
_NONCE_BYTES = 12
_ID_BYTES = 16
LETTER_OVERHEAD_BYTES = _ID_BYTES + _NONCE_BYTES + 16
"""What sealing adds to a message: the sender's id, a nonce, a tag."""


class Postbox:
    """Seals and opens the letters of one node. Pure but for the entropy given."""

    def __init__(self, realm: Realm, identity: Certified, keys: NodeKeys, entropy: Entropy) -> None:
        self._realm, self._identity, self._keys, self._entropy = realm, identity, keys, entropy
        self._known: OrderedDict[NodeId, Certified] = OrderedDict()
        self._ciphers: OrderedDict[NodeId, tuple[AESGCMSIV, AESGCMSIV]] = OrderedDict()

    # --- who is who --------------------------------------------------------------------------------------------------

    def introduction(self) -> bytes:
        """This node's certificates, for those who do not know it."""
        return msgspec.msgpack.encode(self._identity.certificates)

    def learn(self, introduction: bytes) -> Certified:
        """Take in the certificates of a node.

        Raises:
            LimitExceeded, Malformed, NotAuthentic: it is none of this realm.
        """
        if len(introduction) > INTRODUCTION_BYTES_MAX:
            raise LimitExceeded(f"an introduction of {len(introduction)} bytes")
        try:
            chain = msgspec.msgpack.decode(introduction, type=tuple[bytes, ...])
        except (msgspec.MsgspecError, ValueError) as error:
            raise Malformed("an introduction cannot be decoded") from error
        if len(chain) > CERTIFICATES_MAX:
            raise LimitExceeded("an introduction has too many certificates")
        certified = verify_chain(self._realm, chain)
        self.know(certified)
        return certified

    def know(self, certified: Certified) -> None:
        """Remember a node whose certificates were verified elsewhere. A later certificate takes the former's place."""
        known = self._known.get(certified.node)
        if known is not None and known.wrapping_key != certified.wrapping_key:
            self._ciphers.pop(certified.node, None)
        self._known[certified.node] = certified
        self._known.move_to_end(certified.node)
        if len(self._known) > PEERS_KNOWN_MAX:
            gone, _ = self._known.popitem(last=False)
            self._ciphers.pop(gone, None)

    def knows(self, node: NodeId) -> Certified | None:
        """The certificates of a node, if they are known."""
        return self._known.get(node)

    # --- letters -----------------------------------------------------------------------------------------------------

    def seal(self, to: NodeId, message: bytes) -> bytes:
        """A letter to a known node.

        Raises:
            NotAuthentic: its certificates are not known.
        """
        out, _ = self._cipher(to)
        nonce = self._entropy.bytes(_NONCE_BYTES)
        return self._identity.node + nonce + out.encrypt(nonce, message, None)

    def sender(self, letter: bytes) -> NodeId:
        """Who a letter says that it is from; nothing is proven yet.

        Raises:
            Malformed: too short to be a letter.
        """
        if len(letter) < LETTER_OVERHEAD_BYTES:
            raise Malformed("a letter is cut short")
        return NodeId(letter[:_ID_BYTES])

    def open(self, letter: bytes) -> tuple[NodeId, bytes]:
        """Sender and content of a letter to this node.

        Raises:
            Malformed: too short.
            NotAuthentic: the sender is not known, or did not write this to us.
        """
        sender = self.sender(letter)
        _, incoming = self._cipher(sender)
        nonce, sealed = letter[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], letter[_ID_BYTES + _NONCE_BYTES :]
        try:
            return sender, incoming.decrypt(nonce, sealed, None)
        except InvalidTag as error:
            raise NotAuthentic("a letter is not from whom it says, or not to this node") from error

    def _cipher(self, peer: NodeId) -> tuple[AESGCMSIV, AESGCMSIV]:
        """Ciphers towards and from a peer."""
        known = self._ciphers.get(peer)
        if known is None:
            certified = self._known.get(peer)
            if certified is None:
                raise NotAuthentic("the certificates of that node are not known")
            shared = self._keys.wrapping.exchange(X25519PublicKey.from_public_bytes(certified.wrapping_key))
            mine = self._identity.node
            known = self._ciphers[peer] = (
                self._derive(shared, mine, peer),
                self._derive(shared, peer, mine),
            )
        return known

    def _derive(self, shared: bytes, sender: NodeId, receiver: NodeId) -> AESGCMSIV:
        info = b"rxledger/1 letter\0" + self._realm.id + sender + receiver
        return AESGCMSIV(HKDF(SHA256(), 32, None, info).derive(shared))
