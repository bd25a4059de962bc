"""The node's private keys at rest, sealed under an unlock secret that does not lie beside them (R12).

An unattended reboot unlocks with a file elsewhere: a systemd credential (which the machine's TPM can hold), a mounted
token, a path outside the store. A passphrase works where a person is present (scrypt, RFC 7914). The file is written
whole and durably; a damaged one is an error, never new keys.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta, Struct

from ledger.entropy import Entropy
from ledger.errors import InvalidInput, KeysLocked, StoreDamaged
from ledger.identity import NodeKeys
from ledger.ids import tagged_hash

__all__ = ["Keystore", "Passphrase", "Unlock", "UnlockFile", "UnlockedKeys", "write_private"]

UNLOCK_BYTES = 32
KEYSTORE_BYTES_MAX = 4096
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
"""64 MiB and some 0.2 s: OWASP's recommendation for scrypt (2023)."""
_MAGIC = b"rxledger keys 1\n"


class Unlock(Protocol):
    """What unlocks a keystore."""

    def secret(self, salt: bytes, directory: Path) -> bytes:
        """32 bytes, from this and the salt (32 bytes) of a keystore in a directory."""
        ...


class UnlockFile:
    """A file with 32 random bytes, outside the node's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ensure(self, entropy: Entropy) -> None:
        """Make the file if there is none, readable by its owner only."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.path, entropy.bytes(UNLOCK_BYTES))

    def secret(self, salt: bytes, directory: Path) -> bytes:
        """See `Unlock`.

        Raises:
            InvalidInput: the file lies in the directory that it unlocks.
            KeysLocked: there is no such file, or it is not one.
        """
        if directory.resolve() in self.path.resolve().parents:
            raise InvalidInput(
                "the unlock file lies beside the keys that it unlocks",
                advice="keep it outside the node's directory: a systemd credential, or another disk",
            )
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise KeysLocked(f"the unlock file {self.path} cannot be read") from error
        if len(content) != UNLOCK_BYTES:
            raise KeysLocked(f"the unlock file {self.path} does not hold {UNLOCK_BYTES} bytes")
        return HKDFExpand(SHA256(), 32, tagged_hash("unlock", salt)).derive(content)


class Passphrase:
    """Words that a person types."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return "Passphrase(…)"

    def secret(self, salt: bytes, directory: Path) -> bytes:
        """See `Unlock`."""
        del directory
        return Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(self._words.encode())


class UnlockedKeys(Struct, frozen=True):
    """What a keystore holds: the node's keys, and the key that seals its local records. Never printed."""

    node_keys: NodeKeys
    storage_key: bytes

    def __repr__(self) -> str:
        return f"UnlockedKeys({self.node_keys!r})"


class _Sealed(Struct, frozen=True, array_like=True):
    salt: Annotated[bytes, Meta(min_length=32, max_length=32)]
    sealed: Annotated[bytes, Meta(max_length=1024)]


class Keystore:
    """The file. Both methods touch the disk."""

    @staticmethod
    def create(path: Path, keys: NodeKeys, unlock: Unlock, entropy: Entropy) -> UnlockedKeys:
        """Seal keys and a fresh storage key into a new file.

        Raises:
            InvalidInput: there is a file already, or the unlock file lies in the same directory.
        """
        if path.exists():
            raise InvalidInput("there are keys already", advice="keep them: a node's identity is its keys")
        salt, storage_key = entropy.bytes(32), entropy.bytes(32)
        cipher = AESGCMSIV(unlock.secret(salt, path.parent))
        # The salt is fresh for every file, so is the key: a constant nonce seals one message.
        sealed = cipher.encrypt(bytes(12), keys.to_bytes() + storage_key, _MAGIC)
        write_private(path, _MAGIC + msgspec.msgpack.encode(_Sealed(salt, sealed)))
        return UnlockedKeys(keys, storage_key)

    @staticmethod
    def open(path: Path, unlock: Unlock) -> UnlockedKeys:
        """Unlock the keys.

        Raises:
            KeysLocked: the secret does not fit, or there is no file.
            StoreDamaged: the file is not a keystore.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise KeysLocked(f"the keys at {path} cannot be read") from error
        if not data.startswith(_MAGIC) or len(data) > KEYSTORE_BYTES_MAX:
            raise StoreDamaged("the node's keys are not in a form known here", where=str(path))
        try:
            stored = msgspec.msgpack.decode(data[len(_MAGIC) :], type=_Sealed)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreDamaged("the node's keys are damaged", where=str(path)) from error
        try:
            plain = AESGCMSIV(unlock.secret(stored.salt, path.parent)).decrypt(bytes(12), stored.sealed, _MAGIC)
        except (InvalidTag, ValueError) as error:
            raise KeysLocked("the node's keys cannot be unlocked with this secret, or are damaged") from error
        return UnlockedKeys(NodeKeys.from_bytes(plain[:64]), plain[64:])


def write_private(path: Path, data: bytes) -> None:
    """Write a file whole and durably, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    if os.name == "posix":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
