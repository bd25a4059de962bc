"""The owner's end of the local socket: carries out what other processes of this user ask of the one open store.

- A thread for each client: a client that dies, stalls or floods holds up itself. What a dead client had asked for is
  carried out once it has arrived whole; its command id tells it later whether (R17).
- Only methods of the list (`nodes.local.methods`) and those that the owner registers can be called; parameters are
  checked against their signatures before anything runs. Every fault is answered as the error that it is.
- Clients, frames, pages, cursors and times are bounded (R15). Logs name methods and codes, never parameters (R13).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from ledger import Ledger
from ledger.errors import (
    InvalidInput,
    LedgerBug,
    LimitExceeded,
    Malformed,
    PeerFault,
    RxLedgerError,
)
from nodes.local.addresses import listening, peer_of, removed
from nodes.local.faults import path_in, problem_of
from nodes.local.frames import (
    FRAME_SECONDS,
    GREETING,
    VERSION,
    Hello,
    Outcome,
    Reply,
    Request,
    Welcome,
    read_body,
    read_frame,
    read_length,
    write_frame,
)
from nodes.local.methods import Method, face_of, method_of, methods

__all__ = ["SOCKET_FILE", "OwnerSocket"]

SOCKET_FILE = "owner.sock"
CLIENTS_MAX = 64
"""Processes of one site on one machine: tills, a screen, the command line, a monitor. Each costs a thread."""
LARGE_BYTES = 256 * 1024
"""Requests up to here are taken from all clients at once: 16 MiB."""
LARGE_AT_ONCE = 2
"""Larger ones (bundles taken in by another process) from two: 48 MiB, three times that when decoded."""
ACCEPT_AGAIN_SECONDS = 0.1
"""After the system had no descriptor for a new client."""
GREETING_SECONDS = 5.0
"""A process that connects and says nothing."""
PAGE_ITEMS_MAX = 256
PAGE_BYTES_MAX = 1024 * 1024
"""A page of a long answer, whichever comes first (at least one item): the next is made when it is asked for."""
CURSORS_MAX = 4
"""Answers that one client reads at once; a fifth ends the oldest."""
CLOSE_SECONDS = 10.0
"""How long a stopping owner waits for calls that are under way."""
MORE = "more"
"""The method that asks for the next page."""

log = structlog.get_logger("rxledger")


class _Registered:
    """A method that the owner adds to the list: a status, a claim."""

    def __init__(self, method: Method, function: Callable[..., object]) -> None:
        self.method, self.function = method, function


class OwnerSocket:
    """Serves one open, writable ledger. Close it before the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Path,
        *,
        path: Path | None = None,
        group: int | None = None,
        written: Callable[[], None] | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            ledger: open for writing.
            directory: the node's.
            path: where the socket is to be; None: in the node's directory, where every client looks.
            group: number of a group whose processes may call besides this user's.
            written: called after each call that may have written, in the client's thread; must return at once.
        """
        if not ledger.node.store.writable:
            raise InvalidInput("only the owner of a store can serve it", advice="open it for writing")
        self._ledger, self._group, self._written = ledger, group, written
        self._place = directory / SOCKET_FILE
        self.path = path or self._place
        self._extra: dict[str, _Registered] = {}
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._large = threading.BoundedSemaphore(LARGE_AT_ONCE)
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._inode = 0

    def register(self, name: str, function: Callable[..., object], *, writes: bool = False) -> None:
        """Let clients call a function, by its signature, under a name such as ``daemon.status``."""
        self._extra[name] = _Registered(method_of(name, function, writes=writes), function)

    # --- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, and serve from here on.

        Raises:
            InvalidInput: something that is no socket lies where it is to be.
            StoreDamaged, StoreFull: the file system refuses.
        """
        self._listener = listening(self.path, self._group)
        self._inode = self.path.lstat().st_ino
        if self.path != self._place:
            # Clients know the node's directory, not its configuration.
            self._place.unlink(missing_ok=True)
            self._place.symlink_to(self.path)
        self._acceptor = threading.Thread(target=self._accept, name="owner-socket", daemon=True)
        self._acceptor.start()
        log.info("owner.listening", node=self._ledger.node.identity.node.hex())

    def close(self, timeout_s: float = CLOSE_SECONDS) -> None:
        """Take no more calls, let those under way come to their end, and go."""
        with self._lock:
            self._closing.set()
            clients = dict(self._clients)
        if self._listener is not None:
            removed(self.path, self._inode)
            if self.path != self._place and self._place.is_symlink():
                self._place.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor is not None:
            self._acceptor.join(timeout_s)
        for sock in clients:  # No more requests; the answer to the present one may still leave.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        for sock, thread in clients.items():
            thread.join(timeout_s)
            if thread.is_alive():
                log.warning("owner.call-cut-off")
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def clients(self) -> int:
        """Connected now."""
        with self._lock:
            return len(self._clients)

    # --- connections ----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._closing.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._closing.is_set():
                    return
                # Out of descriptors or memory: those connected go on, the next may be luckier.
                log.warning("owner.accept-failed")
                self._closing.wait(ACCEPT_AGAIN_SECONDS)
                continue
            thread = threading.Thread(target=self._serve, args=(sock,), name="owner-client", daemon=True)
            with self._lock:
                full = self._closing.is_set() or len(self._clients) >= CLIENTS_MAX
                if not full:
                    self._clients[sock] = thread
            if full:
                log.warning("owner.client-refused", why="too many")
                sock.close()
            else:
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._permitted(sock) and self._greet(sock):
                _Client(self, sock).serve()
        except (OSError, PeerFault):
            pass  # It has gone, or speaks something else: that ends this connection and nothing more.
        finally:
            with self._lock:
                self._clients.pop(sock, None)
            sock.close()

    def _permitted(self, sock: socket.socket) -> bool:
        peer = peer_of(sock)
        # Root reads the keys anyway; a group reads what the socket's mode lets it.
        if peer.user in (os.geteuid(), 0) or (self._group is not None and self._group in peer.groups):
            return True
        log.warning("owner.client-refused", why="another user", user=peer.user)
        return False

    def _greet(self, sock: socket.socket) -> bool:
        frame = read_frame(sock, idle_s=GREETING_SECONDS)
        if frame is None:
            return False
        try:
            hello = msgspec.msgpack.decode(frame, type=Hello)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("this is no greeting") from error
        if hello.greeting != GREETING:
            raise Malformed("this is no greeting")
        known = VERSION in hello.versions
        node = self._ledger.node
        write_frame(sock, Welcome(VERSION if known else 0, VERSION, node.identity.node, node.realm.id))
        return known

    @contextlib.contextmanager
    def room_for(self, length: int) -> Iterator[None]:
        """Wait for room for a large request, so that all clients together cannot fill the memory.

        Raises:
            TimeoutError: there was none for long; the client may try again.
        """
        if length <= LARGE_BYTES:
            yield
            return
        if not self._large.acquire(timeout=FRAME_SECONDS):
            raise TimeoutError("no room for a large request")
        try:
            yield
        finally:
            self._large.release()

    # --- calls ------------------------------------------------------------------------------------------------

    def resolved(self, name: str) -> tuple[Method, Callable[..., object]]:
        """A method by its name, with what carries it out.

        Raises:
            InvalidInput: there is none of that name.
        """
        registered = self._extra.get(name)
        if registered is not None:
            return registered.method, registered.function
        method = methods().get(name)
        if method is None:
            raise InvalidInput("no such method can be called", advice="bring both processes to one version")
        face, _, attribute = name.partition(".")
        return method, getattr(face_of(self._ledger, face), attribute)

    def after(self, method: Method) -> None:
        """After a call that may have written."""
        if method.writes and self._written is not None:
            self._written()


class _Client:
    """One connection."""

    def __init__(self, owner: OwnerSocket, sock: socket.socket) -> None:
        self._owner, self._sock = owner, sock
        self._cursors: dict[int, Iterator[object]] = {}
        self._opened = 0

    def serve(self) -> None:
        try:
            while (length := read_length(self._sock, idle_s=None)) is not None:
                with self._owner.room_for(length):
                    self._send(self._answer(_request(read_body(self._sock, length))))
        finally:
            for cursor in list(self._cursors):
                self._end(cursor)

    def _send(self, reply: Reply) -> None:
        try:
            write_frame(self._sock, reply)
        except LimitExceeded as error:
            write_frame(self._sock, _problem(reply.number, error))

    def _answer(self, request: Request) -> Reply:
        method: Method | None = None
        try:
            if request.method == MORE:
                return self._more(request)
            method, function = self._owner.resolved(request.method)
            given = _arguments(method, request.params)
            try:
                result = function(**given)
            finally:
                self._owner.after(method)
            if method.paged:
                assert isinstance(result, Iterator)
                return self._page(request.number, self._open(result))
            return Reply(request.number, Outcome.RESULT, msgspec.Raw(msgspec.msgpack.encode(result)))
        except LedgerBug as error:
            log.critical("owner.call-failed", method=request.method[:64], code=error.code)
            return _problem(request.number, error)
        except RxLedgerError as error:
            return _problem(request.number, error)
        except Exception as error:
            # Not the message: it may name a patient (R13).
            log.critical("owner.call-failed", method=request.method[:64], kind=type(error).__name__)
            return _problem(request.number, LedgerBug(f"the call ended in {type(error).__name__}"))

    # --- long answers -----------------------------------------------------------------------------------------

    def _open(self, items: Iterator[object]) -> int:
        if len(self._cursors) >= CURSORS_MAX:
            self._end(next(iter(self._cursors)))
        self._opened += 1
        self._cursors[self._opened] = items
        return self._opened

    def _more(self, request: Request) -> Reply:
        try:
            cursor = msgspec.msgpack.decode(request.params, type=int)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidInput("the number of a cursor is missing") from error
        if cursor not in self._cursors:
            raise InvalidInput("that answer has ended", advice="ask again from its beginning")
        return self._page(request.number, cursor)

    def _page(self, number: int, cursor: int) -> Reply:
        items: list[msgspec.Raw] = []
        size = 0
        try:
            for item in self._cursors[cursor]:
                encoded = msgspec.msgpack.encode(item)
                items.append(msgspec.Raw(encoded))
                size += len(encoded)
                if size >= PAGE_BYTES_MAX or len(items) >= PAGE_ITEMS_MAX:
                    break
            else:
                self._end(cursor)
                cursor = 0
        except BaseException:
            self._end(cursor)
            raise
        return Reply(number, Outcome.PAGE, msgspec.Raw(msgspec.msgpack.encode(items)), cursor)

    def _end(self, cursor: int) -> None:
        items = self._cursors.pop(cursor, None)
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _request(frame: bytes) -> Request:
    try:
        return msgspec.msgpack.decode(frame, type=Request)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("this is no request") from error


def _problem(number: int, error: RxLedgerError) -> Reply:
    return Reply(number, Outcome.PROBLEM, msgspec.Raw(msgspec.msgpack.encode(problem_of(error))))


def _arguments(method: Method, params: msgspec.Raw) -> dict[str, object]:
    """What was given, checked; what was not given is left to the method's own defaults.

    Raises:
        InvalidInput: names the parameter that does not fit, never its value.
    """
    try:
        given = method.params.decode(params)
    except msgspec.ValidationError as error:
        where = path_in(error) or "its parameters"
        raise InvalidInput(f"{method.name}: {where} is not what the method takes") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{method.name}: its parameters cannot be decoded") from error
    values = {name: getattr(given, name) for name in given.__struct_fields__}
    return {name: value for name, value in values.items() if value is not msgspec.UNSET}
