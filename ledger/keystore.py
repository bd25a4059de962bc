"""The node's private keys at rest, sealed under an unlock secret that does not lie beside them (R12).

An unattended reboot unlocks with a file elsewhere: a systemd credential (which the machine's TPM can hold), a
mounted token, a path outside the store. A passphrase works where a person is present (scrypt, RFC 7914). The
file is written whole and durably, with a checksum, so that damage is told from a wrong secret; neither ever
leads to new keys.
"""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from ledger.errors import InvalidInput, KeysLocked, StoreDamaged, StoreFull
from ledger.identity import NodeKeys
from ledger.ids import tagged_hash

__all__ = ["Keystore", "Passphrase", "Unlock", "UnlockFile", "UnlockedKeys", "write_private"]

UNLOCK_BYTES = 32
KEYSTORE_BYTES_MAX = 4096
KEYSTORE_PLAIN_BYTES = 96
"""Two private keys and the storage key."""
PASSPHRASE_CHARACTERS_MIN = 12
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 17, 8, 1
"""128 MiB and some 0.4 s: OWASP's first choice for scrypt."""
_CHECKSUM_BYTES = 32
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
        """Make the file if there is none, readable by its owner only; never replaces one that keys rest on.

        Raises:
            StoreFull, KeysLocked: it cannot be written.
        """
        if self.path.exists():
            return
        with _disk(f"the unlock file {self.path}"):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):
                _write_new(self.path, entropy.bytes(UNLOCK_BYTES))
            _sync_directory(self.path.parent)

    def secret(self, salt: bytes, directory: Path) -> bytes:
        """See `Unlock`.

        Raises:
            InvalidInput: the file lies in the directory that it unlocks.
            KeysLocked: there is no such file, it is not one, or every user of the machine can read it.
        """
        if directory.resolve() in self.path.resolve().parents:
            raise InvalidInput(
                "the unlock file lies beside the keys that it unlocks",
                advice="keep it outside the node's directory: a systemd credential, or another disk",
            )
        try:
            with self.path.open("rb") as file:
                # The group may read: systemd grants a service its credential that way.
                exposed = os.fstat(file.fileno()).st_mode & 0o007
                content = file.read(UNLOCK_BYTES + 1)
        except OSError as error:
            raise KeysLocked(f"the unlock file {self.path} cannot be read") from error
        if exposed:
            raise KeysLocked(
                f"the unlock file {self.path} is open to every user of this machine",
                advice="chmod 600 the file; consider its secret known and the node's keys with it",
            )
        if len(content) != UNLOCK_BYTES:
            raise KeysLocked(f"the unlock file {self.path} does not hold {UNLOCK_BYTES} bytes")
        return HKDFExpand(SHA256(), 32, tagged_hash("unlock", salt)).derive(content)


class Passphrase:
    """Words that a person types. Keyboards spell å, ä and ö in two ways; both give the same key (NFC)."""

    def __init__(self, words: str) -> None:
        """Take the words.

        Raises:
            InvalidInput: fewer than `PASSPHRASE_CHARACTERS_MIN` characters.
        """
        self._words = unicodedata.normalize("NFC", words)
        if len(self._words) < PASSPHRASE_CHARACTERS_MIN:
            raise InvalidInput(
                f"passphrase: at least {PASSPHRASE_CHARACTERS_MIN} characters", advice="use four words"
            )

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
            KeysLocked: the unlock secret cannot be read, or the file not be written.
            StoreFull: no room on disk.
        """
        if path.exists():
            raise InvalidInput("there are keys already", advice="keep them: a node's identity is its keys")
        salt, storage_key = entropy.bytes(32), entropy.bytes(32)
        cipher = AESGCMSIV(unlock.secret(salt, path.parent))
        # The salt is fresh for every file, so is the key: a constant nonce seals one message.
        sealed = cipher.encrypt(bytes(12), keys.to_bytes() + storage_key, _MAGIC)
        body = _MAGIC + msgspec.msgpack.encode(_Sealed(salt, sealed))
        write_private(path, body + hashlib.sha256(body).digest())
        return UnlockedKeys(keys, storage_key)

    @staticmethod
    def open(path: Path, unlock: Unlock) -> UnlockedKeys:
        """Unlock the keys.

        Raises:
            KeysLocked: the secret does not fit, or there is no file.
            StoreDamaged: the file is not, or no longer, a keystore.
        """
        try:
            with path.open("rb") as file:
                data = file.read(KEYSTORE_BYTES_MAX + 1)
        except OSError as error:
            raise KeysLocked(f"the keys at {path} cannot be read") from error
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if not data.startswith(_MAGIC) or len(data) > KEYSTORE_BYTES_MAX:
            raise StoreDamaged("the node's keys are not in a form known here", where=str(path))
        if hashlib.sha256(body).digest() != checksum:
            raise StoreDamaged("the node's keys are damaged", where=str(path))
        try:
            stored = msgspec.msgpack.decode(body[len(_MAGIC) :], type=_Sealed)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise StoreDamaged("the node's keys are damaged", where=str(path)) from error
        try:
            plain = AESGCMSIV(unlock.secret(stored.salt, path.parent)).decrypt(
                bytes(12), stored.sealed, _MAGIC
            )
        except (InvalidTag, ValueError) as error:
            raise KeysLocked("the node's keys cannot be unlocked with this secret") from error
        if len(plain) != KEYSTORE_PLAIN_BYTES:
            raise StoreDamaged("the node's keys are not in a form known here", where=str(path))
        return UnlockedKeys(NodeKeys.from_bytes(plain[:64]), plain[64:])


def write_private(path: Path, data: bytes) -> None:
    """Write a file whole and durably, readable by its owner only.

    Raises:
        StoreFull: no room on disk; what was there is still there.
        KeysLocked: it cannot be written.
    """
    fresh = path.with_name(path.name + ".new")
    with _disk(f"the file {path}"):
        fresh.unlink(missing_ok=True)  # Left by a crash; made anew, so that its mode is ours.
        try:
            _write_new(fresh, data)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"no room to write {what}") from error
        raise KeysLocked(f"{what} cannot be written", advice="check its directory and who owns it") from error
