"""Where the socket lies, and who is at the other end of it: paths of any length, modes, the kernel's word on users."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ledger.errors import InvalidInput
from ledger.store.connection import disk_errors

__all__ = ["Peer", "connected", "is_locked", "listening", "peer_of", "removed"]

PATH_BYTES_MAX = 100
"""The system's limit on a socket's path is 108 bytes; longer ones are reached through their open directory."""
BACKLOG = 64
"""Connections not yet accepted; more wait in their own process."""
GROUPS_MAX = 1024
"""Supplementary groups of a process that are asked for."""
_SO_PEERGROUPS = 59
"""Linux; Python has no name for it."""


class Peer:
    """A process at the other end, by the kernel's word."""

    def __init__(self, user: int, groups: frozenset[int]) -> None:
        self.user, self.groups = user, groups


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """An address of the socket short enough for the system."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listening(path: Path, group: int | None) -> socket.socket:
    """A socket that listens at `path`, for this user (and a group); in the place of one that a dead owner left.

    Raises:
        InvalidInput: something else lies there.
        StoreDamaged, StoreFull: the file system refuses.
    """
    with disk_errors(path):
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if not stat.S_ISSOCK(mode) and not stat.S_ISLNK(mode):
                raise InvalidInput(f"{path} is not a socket", advice="move it away, or name another path")
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before it has a name: nobody may connect between its birth and a chmod.
            os.fchmod(listener.fileno(), 0o600)
            with _address(path) as address:
                listener.bind(address)
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(0o600 if group is None else 0o660)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    return listener


def connected(path: Path, timeout_s: float) -> socket.socket | None:
    """A connection to who listens at `path`; None if nobody does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        with _address(path) as address:
            sock.connect(address)
    except (FileNotFoundError, ConnectionError, TimeoutError, BlockingIOError, NotADirectoryError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def removed(path: Path, inode: int) -> None:
    """Remove a socket's name if it is still ours: a successor may have put its own there."""
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end, as the kernel noted when it connected."""
    _, user, group = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = {group}
    with suppress(OSError):
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, GROUPS_MAX * 4)
        groups.update(struct.unpack(f"{len(told) // 4}I", told))
    return Peer(user, frozenset(groups))


def is_locked(path: Path, locks: Path = Path("/proc/locks")) -> bool:
    """Whether some process holds a lock on a file, as far as the kernel tells; takes none, not even for a moment.

    Trying it by taking it would turn away a daemon that starts just then.
    """
    try:
        inode = path.stat().st_ino
        held = locks.read_text()
    except OSError:
        return False
    # By the inode alone: some file systems call their device by another name there.
    return any(word.endswith(f":{inode}") for line in held.splitlines() for word in line.split())
