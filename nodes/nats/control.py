"""Makes a running server take its folder's users: reload, see that it took, end connections of who is no longer listed.

Through the server's own system account, with the operator key of its folder, on the machine or from elsewhere. What
nats-server does by itself, and what not (measured, 2.15):

- A reload ends the connections of *nodes* that are no longer listed, and narrows the permissions of those that are.
- It leaves *leaf nodes* connected, removed or narrowed. They are kicked here: one that may come back does so within a
  second under its new permissions, one that may not is refused.
- A reload that fails keeps the old configuration; here its error is an error. One that "works" on another file than ours
  shows in the digest.

Repeatable: what was applied is remembered in the folder only when all of it is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client

from ledger.certificates import server_uri
from ledger.errors import RxLedgerError
from ledger.identity import Realm
from ledger.keystore import write_private
from nodes.nats.description import read_description
from nodes.nats.folders import APPLIED, CONFIG, DESCRIPTION, USERS, read_operator
from nodes.nats.server import ServerFailed, check_config
from nodes.nats.session import session
from nodes.nats.subjects import Permissions
from nodes.nats.topology import ACCOUNT, users_in

__all__ = ["Applied", "apply_folder", "apply_folders"]

ANSWER_SECONDS = 15.0
"""A reload with 15,000 users takes 0.3 s; a page of connections over a thin line some more."""
GONE_SECONDS = 10.0
"""Until kicked connections are gone; usual is milliseconds."""
POLL_SECONDS = 0.1
PAGE = 512
"""Connections asked for at once: 400 kB, below the server's payload limit."""
PAGES_MAX = 64
"""Four times the connections that a server of ours accepts."""
AT_ONCE_MAX = 16
"""Servers worked on at a time."""
_SERVERS = server_uri("")


class Applied(Struct, frozen=True, kw_only=True):
    """What became of one server."""

    name: str
    done: bool
    """It runs with the users of its folder, and nobody else is connected."""
    reason: str = ""
    """Why not, in words."""
    kicked: int = 0
    """Connections ended here, beyond those that the reload itself ended."""


class _Error(Struct):
    description: str = ""


class _Server(Struct):
    id: str


class _Envelope(Struct):
    server: _Server
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Varz(Struct):
    config_digest: str = ""


class _Connection(Struct):
    cid: int
    kind: str = ""
    account: str = ""
    authorized_user: str = ""


class _Connz(Struct):
    total: int = 0
    connections: tuple[_Connection, ...] = ()


async def apply_folders(folders: Iterable[Path], realm: Realm) -> list[Applied]:
    """Work on several servers, some at a time; what fails is told of each and stops none."""
    turns = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(folder: Path) -> Applied:
        async with turns:
            try:
                return Applied(name=folder.name, done=True, kicked=await apply_folder(folder, realm))
            except (RxLedgerError, OSError) as error:
                return Applied(name=folder.name, done=False, reason=str(error))

    return list(await asyncio.gather(*(one(folder.resolve()) for folder in folders)))


async def apply_folder(folder: Path, realm: Realm) -> int:
    """Make the server of a folder take its users; return how many connections were kicked.

    Raises:
        ServerFailed: it cannot be reached, does not take the configuration, or does not let go.
        InvalidInput: the configuration in the folder is not one.
    """
    digest = check_config(folder / CONFIG)
    users_file = (folder / USERS).read_bytes()
    listed, before = users_in(users_file.decode()), _applied(folder)
    async with _operating(folder, realm) as control:
        await control.ask("RELOAD")
        running = msgspec.json.decode(await control.ask("VARZ"), type=_Varz).config_digest
        if running != digest:
            raise ServerFailed(
                f"{folder.name}: the server runs another configuration than this folder's",
                advice="copy the folder to its machine, or run this there",
            )
        # Who connects from now on is judged by the new users. Of the others, the server has let go of nodes already.
        unwanted = {c.cid for c in await control.connections() if not _may_stay(c, listed, before)}
        for cid in sorted(unwanted):
            await control.ask("KICK", {"cid": cid})
        deadline = time.monotonic() + GONE_SECONDS
        while not unwanted.isdisjoint({c.cid for c in await control.connections()}):
            if time.monotonic() > deadline:
                raise ServerFailed(f"{folder.name}: connections that were ended are still there")
            await asyncio.sleep(POLL_SECONDS)
    write_private(folder / APPLIED, users_file)
    return len(unwanted)


def _applied(folder: Path) -> dict[str, Permissions]:
    try:
        return users_in((folder / APPLIED).read_text())
    except FileNotFoundError:
        return {}


def _may_stay(
    connection: _Connection, listed: dict[str, Permissions], before: dict[str, Permissions]
) -> bool:
    user = connection.authorized_user
    if connection.account != ACCOUNT or not user:
        return True  # The operator, and this server's own connection to the one above.
    if user not in listed:
        return False
    if not user.startswith(_SERVERS):
        return True  # A node's permissions change with the reload.
    # A leaf node keeps what it was allowed when it came. It comes again if it may hear less or more, or write to
    # somebody new; that it might still write to the mailbox of who was revoked disturbs nobody.
    was, now = before.get(user), listed[user]
    return was is not None and now.subscribe == was.subscribe and set(now.publish) <= set(was.publish)


class _Control:
    """A connection of the operator to one server's system account."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name, self._id = client, name, ""

    async def find(self) -> None:
        """Learn the server's id. In a cluster all others hear the question too: only the one asked for answers."""
        reply = await self._request("$SYS.REQ.SERVER.PING", {"server_name": self._name})
        self._id = reply.server.id

    async def ask(self, what: str, options: dict[str, object] | None = None) -> msgspec.Raw:
        """The server's answer to a request of its system account."""
        reply = await self._request(f"$SYS.REQ.SERVER.{self._id}.{what}", options or {})
        if reply.error is not None:
            raise ServerFailed(f"{self._name}: {what.lower()}: {reply.error.description.strip()}")
        return reply.data

    async def connections(self) -> list[_Connection]:
        """All of the server, with who they are."""
        found: list[_Connection] = []
        for _ in range(PAGES_MAX):
            options: dict[str, object] = {"auth": True, "limit": PAGE, "offset": len(found)}
            page = msgspec.json.decode(await self.ask("CONNZ", options), type=_Connz)
            found += page.connections
            if not page.connections or len(found) >= page.total:
                return found
        raise ServerFailed(f"{self._name}: more than {PAGE * PAGES_MAX} connections")

    async def _request(self, subject: str, options: dict[str, object]) -> _Envelope:
        try:
            message = await self._client.request(
                subject, msgspec.json.encode(options), timeout=ANSWER_SECONDS
            )
            return msgspec.json.decode(message.data, type=_Envelope)
        except (nats.errors.Error, OSError, msgspec.MsgspecError, TimeoutError) as error:
            raise ServerFailed(f"{self._name}: no answer that could be understood") from error


@asynccontextmanager
async def _operating(folder: Path, realm: Realm) -> AsyncIterator[_Control]:
    server = read_description(folder / DESCRIPTION).server(folder.name)
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(
                session(server.address, server.port, realm, read_operator(folder))
            )
        except (nats.errors.Error, OSError) as error:
            raise ServerFailed(
                f"{folder.name}: it does not answer, or does not know its operator ({type(error).__name__})",
                advice="when it starts it takes what was written; if it runs elsewhere, copy the folder and run this there",
            ) from error
        control = _Control(client, server.name)
        await control.find()
        yield control
