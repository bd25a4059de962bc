"""The keystore: unattended where it should be, closed where it must be, and never silently new."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ledger import keystore as module
from ledger.entropy import SeededEntropy
from ledger.errors import InvalidInput, KeysLocked, StoreDamaged, StoreFull
from ledger.identity import NodeKeys
from ledger.keystore import Keystore, Passphrase, UnlockFile, write_private

KEYS = NodeKeys.generate(SeededEntropy(1))


@pytest.fixture
def unlock(tmp_path: Path) -> UnlockFile:
    made = UnlockFile(tmp_path / "elsewhere" / "secret")
    made.ensure(SeededEntropy(2))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "node").mkdir()
    return tmp_path / "node" / "keys.sealed"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_reboot_needs_nobody(path, unlock):
    made = Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    opened = Keystore.open(path, UnlockFile(unlock.path))
    assert opened.node_keys.to_bytes() == KEYS.to_bytes()
    assert opened.storage_key == made.storage_key
    assert len(opened.storage_key) == 32


def test_storage_keys_differ(path, unlock):
    first = Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    second = Keystore.create(path.with_name("other"), KEYS, unlock, SeededEntropy(4))
    assert first.storage_key != second.storage_key


def test_a_passphrase_unlocks_in_either_spelling(path, monkeypatch):
    """Of å, composed or not: what one keyboard locked another opens."""
    monkeypatch.setattr(module, "SCRYPT_N", 1 << 10)
    Keystore.create(path, KEYS, Passphrase("bl\u00e5 \u00e4pplen i tr\u00e4det"), SeededEntropy(3))
    assert Keystore.open(path, Passphrase("bla\u030a a\u0308pplen i tra\u0308det")).node_keys.to_bytes()
    with pytest.raises(KeysLocked):
        Keystore.open(path, Passphrase("bla applen i tradet"))


def test_the_real_passphrase_cost_works(path):
    Keystore.create(path, KEYS, Passphrase("korrekt häst batteri"), SeededEntropy(3))
    assert Keystore.open(path, Passphrase("korrekt häst batteri")).node_keys.public_key == KEYS.public_key


def test_a_short_passphrase_is_refused():
    with pytest.raises(InvalidInput):
        Passphrase("hemligt")


def test_another_secret_locks(path, unlock, tmp_path):
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    other = UnlockFile(tmp_path / "elsewhere" / "other")
    other.ensure(SeededEntropy(9))
    with pytest.raises(KeysLocked):
        Keystore.open(path, other)


@pytest.mark.parametrize("content", [None, b"", b"x" * 31, b"x" * 33])
def test_an_unlock_file_that_is_not_one_locks(path, unlock, content):
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    unlock.path.unlink()
    if content is not None:
        write_private(unlock.path, content)
    with pytest.raises(KeysLocked):
        Keystore.open(path, unlock)


def test_missing_keys_are_an_error_and_never_new_keys(path, unlock):
    with pytest.raises(KeysLocked):
        Keystore.open(path, unlock)
    assert not path.exists()


def test_existing_keys_are_never_replaced(path, unlock):
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    before = path.read_bytes()
    with pytest.raises(InvalidInput):
        Keystore.create(path, NodeKeys.generate(SeededEntropy(8)), unlock, SeededEntropy(4))
    assert path.read_bytes() == before


def test_an_existing_unlock_file_is_never_replaced(unlock):
    before = unlock.path.read_bytes()
    unlock.ensure(SeededEntropy(77))
    assert unlock.path.read_bytes() == before


@pytest.mark.parametrize("where", ["unlock", "deeper/unlock", "link/unlock"])
def test_the_unlock_file_may_not_lie_beside_the_keys(path, where):
    """Nor below them, nor reached by a link: who copies the directory must not have both."""
    (path.parent / "deeper").mkdir()
    (path.parent.parent / "link").symlink_to(path.parent)
    base = path.parent.parent if where.startswith("link") else path.parent
    beside = UnlockFile(base / where)
    beside.ensure(SeededEntropy(2))
    with pytest.raises(InvalidInput) as caught:
        Keystore.create(path, KEYS, beside, SeededEntropy(3))
    assert caught.value.advice
    assert not path.exists()


def test_files_are_for_their_owner_only(path, unlock):
    old = os.umask(0)
    try:
        Keystore.create(path, KEYS, unlock, SeededEntropy(3))
        fresh = UnlockFile(unlock.path.parent.parent / "new" / "secret")
        fresh.ensure(SeededEntropy(2))
    finally:
        os.umask(old)
    assert mode(path) == mode(fresh.path) == 0o600
    assert mode(fresh.path.parent) == 0o700


def test_an_unlock_file_open_to_everybody_is_refused_with_advice(path, unlock):
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    unlock.path.chmod(0o644)
    with pytest.raises(KeysLocked, match="chmod"):
        Keystore.open(path, unlock)
    unlock.path.chmod(0o440)  # As systemd grants it to a service.
    Keystore.open(path, unlock)


def test_every_flipped_byte_and_every_cut_is_damage_and_named(path, unlock):
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    good = path.read_bytes()
    for index in range(len(good)):
        for bad in (good[:index] + bytes([good[index] ^ 0x10]) + good[index + 1 :], good[:index]):
            path.write_bytes(bad)
            with pytest.raises(StoreDamaged) as caught:
                Keystore.open(path, unlock)
            assert path.name in caught.value.where
    for bad in (good + b"\0", bytes(100_000)):
        path.write_bytes(bad)
        with pytest.raises(StoreDamaged):
            Keystore.open(path, unlock)


def test_neither_file_holds_a_key_in_clear(path, unlock):
    made = Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    data = path.read_bytes()
    for secret in (KEYS.to_bytes()[:32], KEYS.to_bytes()[32:], made.storage_key, unlock.path.read_bytes()):
        assert secret not in data
        assert secret.hex() not in repr(made)
        assert repr(secret)[2:-1] not in repr(made)


def test_passphrases_are_never_shown():
    assert "häst" not in repr(Passphrase("korrekt häst batteri"))


def test_what_a_crash_left_behind_does_not_stop_the_next_try(path, unlock):
    leftover = path.with_name(path.name + ".new")
    leftover.write_bytes(b"half")
    leftover.chmod(0o666)
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    assert mode(path) == 0o600
    assert not leftover.exists()
    Keystore.open(path, unlock)


def test_a_full_disk_is_a_full_disk_and_leaves_nothing(path, unlock, monkeypatch):
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StoreFull):
            Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    assert list(path.parent.iterdir()) == []
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))


def test_short_writes_are_completed(path, unlock, monkeypatch):
    whole = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:7]))
        Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    assert Keystore.open(path, unlock).node_keys.public_key == KEYS.public_key


def test_file_and_directory_are_on_disk_before_it_returns(path, unlock, monkeypatch):
    synced: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Keystore.create(path, KEYS, unlock, SeededEntropy(3))
    assert synced == [False, True]


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path, unlock):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeysLocked):
        Keystore.create(tmp_path / "missing" / "keys.sealed", KEYS, unlock, SeededEntropy(3))
    with pytest.raises(KeysLocked):
        UnlockFile(tmp_path / "file" / "secret").ensure(SeededEntropy(1))
