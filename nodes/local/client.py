"""The other end of the local socket: a connection, and a ledger that writes through it.

`SharedLedger` is a `Ledger` for its caller: the same methods, receipts and errors. What it is asked goes to the owner;
its own node is open for reading only and tells who this node is. Only what is given a private key stays in this process:
it certifies here, and has the owner announce.

What may happen besides a ledger's own errors:

- `OwnerGone`: no owner answers; nothing was written.
- `OutcomeUnknown`: the owner fell silent after the command had reached it. Repeat with the command id that the error
  names, through whoever owns the store next: it has one effect (R17). A command that was given no id gets one here,
  so that it can be.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ledger import Ledger
from ledger.entropy import Entropy, SystemEntropy
from ledger.errors import (
    InvalidInput,
    LimitExceeded,
    Malformed,
    NotPermitted,
    OtherRealm,
    PeerFault,
    VersionUnknown,
)
from ledger.ids import NodeId
from ledger.node import Node
from nodes.local.addresses import connected, peer_of
from nodes.local.faults import OutcomeUnknown, OwnerGone, Problem, raised
from nodes.local.frames import (
    GREETING,
    VERSION,
    Hello,
    Outcome,
    Reply,
    Request,
    Welcome,
    read_frame,
    write_frame,
)
from nodes.local.methods import PRIVATE_KEY, Method, face_of, methods

__all__ = ["OwnerClient", "RemoteFace", "RemoteLedger", "SharedLedger"]

CONNECT_SECONDS = 5.0
"""To be accepted and greeted by a process on the same machine."""
CALL_SECONDS = 600.0
"""For an answer: folding every document of a large store takes minutes; longer is an owner that hangs."""
MORE = "more"

T = TypeVar("T")


class OwnerClient:
    """One connection to the owner of a store, made anew when it broke. Thread-safe: one call at a time."""

    def __init__(self, path: Path, *, user: int | None = None, entropy: Entropy | None = None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            path: of the socket.
            user: who must be at the other end (a user id); None: anybody.
            entropy: for the ids of commands that are given none.
        """
        self._path, self._user = path, user
        self._entropy = entropy or SystemEntropy()
        self._lock = threading.RLock()
        self._sock: socket.socket | None = None
        self._number = self._connections = 0
        self.node: NodeId | None = None
        """Whose store it is, once connected."""

    # --- connection -----------------------------------------------------------------------------------------

    def connect(self) -> bool:
        """Connect if need be; False if no owner listens.

        Raises:
            NotPermitted: another user's process listens there.
            VersionUnknown: the owner speaks no version that this software does.
        """
        with self._lock:
            if self._sock is not None:
                return True
            try:
                sock = connected(self._path, CONNECT_SECONDS)
            except PermissionError as error:
                raise NotPermitted(
                    "the owner's socket is not for this user",
                    advice="run as the node's user, or join its group",
                ) from error
            if sock is None:
                return False
            try:
                welcome = self._greeted(sock)
            except BaseException:
                sock.close()
                raise
            if welcome is None:
                sock.close()
                return False
            self._sock, self.node = sock, NodeId(welcome.node)
            self._connections += 1
            return True

    def _greeted(self, sock: socket.socket) -> Welcome | None:
        try:
            if self._user is not None and peer_of(sock).user not in (self._user, 0):
                raise NotPermitted("another user's process listens on the owner's socket")
            write_frame(sock, Hello(GREETING, (VERSION,)))
            frame = read_frame(sock, idle_s=CONNECT_SECONDS)
            if frame is None:
                return None  # Full, or stopping.
            welcome = msgspec.msgpack.decode(frame, type=Welcome)
        except (OSError, PeerFault):
            return None
        except (msgspec.MsgspecError, ValueError) as error:
            raise Malformed("what listens on the owner's socket is no owner") from error
        if welcome.version != VERSION:
            raise VersionUnknown(
                f"the owner speaks version {welcome.newest} of the local protocol, this software {VERSION}",
                advice="bring both processes to one version",
            )
        if self.node is not None and welcome.node != self.node:
            raise OtherRealm("another node's process listens on the owner's socket now")
        return welcome

    def close(self) -> None:
        """Let go of the connection; a call that waits for its answer ends."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            sock, self._sock = self._sock, None
            if sock is not None:
                sock.close()

    # --- calls ------------------------------------------------------------------------------------------------

    def call(self, method: Method, given: Mapping[str, object]) -> object:
        """Call a method with parameters by name; a paged one gives an iterator.

        Raises:
            RxLedgerError: what the method raised, `OwnerGone` or `OutcomeUnknown`.
        """
        given = dict(given)
        if method.takes_command and given.get("command") is None:
            given["command"] = self._entropy.bytes(16)
        try:
            params = msgspec.Raw(msgspec.msgpack.encode(given))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{method.name}: a parameter is of a kind that cannot travel") from error
        command = given.get("command")
        reply = self._exchange(
            method.name, params, writes=method.writes, command=command if isinstance(command, bytes) else None
        )
        if method.paged:
            return self._pages(method, reply, self._connections)
        return _decoded(method, reply.body)

    def ask(self, name: str, kind: type[T], **given: object) -> T:
        """Call a method that the owner registered, which writes nothing; its answer as `kind`.

        Raises:
            RxLedgerError: what the method raised, or `OwnerGone`.
        """
        reply = self._exchange(name, msgspec.Raw(msgspec.msgpack.encode(given)), writes=False, command=None)
        try:
            return msgspec.msgpack.decode(reply.body, type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            raise VersionUnknown(
                f"the owner's answer to {name} is not understood",
                advice="bring both processes to one version",
            ) from error

    def _pages(self, method: Method, reply: Reply, connection: int) -> Iterator[object]:
        while True:
            for raw in msgspec.msgpack.decode(reply.body, type=list[msgspec.Raw]):
                yield _decoded(method, raw)
            if not reply.cursor:
                return
            number = msgspec.Raw(msgspec.msgpack.encode(reply.cursor))
            with self._lock:
                if self._connections != connection or self._sock is None:
                    # The cursor was the former connection's: an answer is whole, or an error.
                    raise OwnerGone("the owner has gone in the middle of an answer")
                reply = self._exchange(MORE, number, writes=False, command=None)

    def _exchange(self, name: str, params: msgspec.Raw, *, writes: bool, command: bytes | None) -> Reply:
        with self._lock:
            self._number += 1
            request = Request(self._number, name, params)
            if not self._sent_whole(request) and not self._sent_whole(request):
                raise OwnerGone("no process that owns the store answers")
            try:
                reply = self._received()
            except (OSError, PeerFault) as error:
                self.close()
                if writes:
                    raise OutcomeUnknown(
                        "the owner gave no answer: the command may have been carried out, or not",
                        command=command,
                    ) from error
                raise OwnerGone("the owner gave no answer") from error
            except BaseException:
                self.close()  # The answer would be taken for that of the next call.
                raise
        if reply.outcome == Outcome.PROBLEM:
            raise raised(msgspec.msgpack.decode(reply.body, type=Problem))
        return reply

    def _sent_whole(self, request: Request) -> bool:
        """Send a request; False if it did not arrive whole, and so is not carried out."""
        if not self.connect() or self._sock is None:
            raise OwnerGone("no process that owns the store answers")
        try:
            write_frame(self._sock, request)
        except LimitExceeded:
            raise
        except OSError:
            self.close()  # An owner that has gone since the last call; another may listen by now.
            return False
        except BaseException:
            self.close()  # Half a frame may be under way.
            raise
        return True

    def _received(self) -> Reply:
        assert self._sock is not None
        frame = read_frame(self._sock, idle_s=CALL_SECONDS)
        if frame is None:
            raise ConnectionResetError("the owner has gone")
        try:
            reply = msgspec.msgpack.decode(frame, type=Reply)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("the owner's answer cannot be decoded") from error
        if reply.number != self._number:
            raise Malformed("the owner's answer is to another question")
        return reply


class SharedLedger(Ledger):
    """A ledger that another process owns. See the module."""

    def __init__(self, node: Node, client: OwnerClient) -> None:
        super().__init__(node)
        self._client = client
        for name, method in methods().items():
            face, _, attribute = name.partition(".")
            target = face_of(self, face)
            forward = _forwarding(method, client)
            if PRIVATE_KEY in method.signature.parameters:
                forward = _where_the_key_is(getattr(target, attribute), forward)
            setattr(target, attribute, forward)

    def ask(self, name: str, kind: type[T], **given: object) -> T:
        """See `OwnerClient.ask`."""
        return self._client.ask(name, kind, **given)

    def close(self) -> None:
        """Let go of the owner, and of what is open for reading here."""
        self._client.close()
        with suppress(OSError):
            super().close()


class RemoteFace:
    """The methods of one face that may be called, by their own names and parameters."""

    def __init__(self, client: OwnerClient, face: str) -> None:
        self._client, self._face = client, face

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = methods().get(f"{self._face}.{name}")
        if method is None:
            raise AttributeError(f"{self._face}.{name} cannot be called from another process")
        return _forwarding(method, self._client)


class RemoteLedger(RemoteFace):
    """A ledger for a process that has neither the node's keys nor its files: everything is asked of the owner.

    `stewardship`, `inquiry`, `papers`, `exchange` are its faces. It has no `node`: who this is, `OwnerClient.node` says.
    """

    def __init__(self, client: OwnerClient) -> None:
        super().__init__(client, "ledger")
        self.stewardship, self.inquiry, self.papers, self.exchange = (
            RemoteFace(client, face) for face in ("stewardship", "inquiry", "papers", "exchange")
        )

    def ask(self, name: str, kind: type[T], **given: object) -> T:
        """See `OwnerClient.ask`."""
        return self._client.ask(name, kind, **given)

    def close(self) -> None:
        """Let go of the owner."""
        self._client.close()


def _forwarding(method: Method, client: OwnerClient) -> Callable[..., Any]:
    """A function that looks like a method and asks the owner."""
    parameters = [p for p in method.signature.parameters.values() if p.name != "self"]
    signature = method.signature.replace(parameters=parameters)

    def forward(*positional: object, **named: object) -> object:
        given = signature.bind(*positional, **named).arguments
        if given.pop(PRIVATE_KEY, None) is not None:
            raise NotPermitted(
                "an issuing key never goes to another process",
                advice="certify where the key is, with the node's directory at hand, and let the owner announce",
            )
        return client.call(method, {name: _sent(value) for name, value in given.items()})

    forward.__name__ = method.name.rpartition(".")[2]
    return forward


def _where_the_key_is(here: Callable[..., Any], forward: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is given a private key runs in this process; what it has to write on its way, the owner writes."""

    @wraps(here)
    def run(*positional: object, **named: object) -> object:
        return (forward if named.get(PRIVATE_KEY) is None else here)(*positional, **named)

    return run


def _decoded(method: Method, body: msgspec.Raw) -> object:
    try:
        return method.result.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        done = "was carried out, and " if method.writes else ""
        raise VersionUnknown(
            f"{method.name} {done}gave an answer that is not understood",
            advice="bring both processes to one version",
        ) from error


def _sent(value: object) -> object:
    """What is only iterated travels as a list."""
    travels = isinstance(value, str | bytes | Mapping | msgspec.Struct)
    return list(value) if isinstance(value, Iterable) and not travels else value
