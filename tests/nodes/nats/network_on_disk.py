"""A network of real servers on loopback, made by the generator from a description, with a realm's nodes as clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg

from ledger import Ledger
from ledger.clock import SystemClock
from ledger.entropy import SystemEntropy
from ledger.ids import NodeId
from nodes.nats.description import Description, read_description
from nodes.nats.folders import Folder, prepare_run, write_folder
from nodes.nats.nkeys import Login
from nodes.nats.roster import Roster, read_roster
from nodes.nats.server import LocalServer, free_ports
from nodes.nats.subjects import mailbox
from tests.nodes.nats.realm_on_disk import Heard, RealmOnDisk, connected, login_of

WAIT_SECONDS = 20
TRY_SECONDS = 0.2
"""How long one message is waited for before it is sent again: interest takes a moment to cross servers."""


def ported(name: str, kind: str, **more: object) -> str:
    """The table of one server on free ports of loopback."""
    fields = {"national": ("leaf_port", "route_port"), "hub": ("leaf_port",), "site": ()}[kind]
    ports = dict(zip(("port", "monitor_port", *fields), free_ports(2 + len(fields)), strict=True))
    table = {
        "name": name,
        "address": "127.0.0.1",
        "also": ["localhost"],
        "bind": "127.0.0.1",
        **ports,
        **more,
    }
    return f"[[{kind}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: object) -> str:
    return repr(value).replace("'", '"').replace("True", "true").replace("False", "false")


class NetworkOnDisk:
    """Folders and running servers; `close` stops them."""

    def __init__(self, realm: RealmOnDisk, tables: Iterable[str]) -> None:
        self.realm = realm
        self.directory = realm.directory / "servers"
        self.file = realm.directory / "network.toml"
        self.file.write_text("\n".join(tables))
        self.description: Description = read_description(self.file)
        self.servers: dict[str, LocalServer] = {}
        self.write()

    def roster(self) -> Roster:
        return read_roster(self.realm.founded.agency, SystemClock().now_ms())

    def write(self, *, now_ms: int | None = None) -> list[Folder]:
        founded = self.realm.founded
        return [
            write_folder(
                self.directory, self.description, self.file.read_bytes(), server.name, self.roster(),
                self.realm.realm.id, founded.issuer, now_ms or SystemClock().now_ms(), SystemEntropy(),
            )
            for server in self.description.servers
        ]  # fmt: skip

    def start(self, *names: str) -> None:
        for name in names or [s.name for s in self.description.servers]:
            folder = self.directory / name
            prepare_run(folder)
            server = self.servers.setdefault(name, LocalServer(folder / "nats.conf", folder))
            server.start()

    def close(self) -> None:
        for server in self.servers.values():
            server.stop()

    def url(self, name: str) -> str:
        return self.servers[name].urls[0]

    def leafs(self, name: str) -> set[str]:
        """Names of the servers connected to one as leaf nodes."""
        found = self.servers[name].monitor("/leafz").get("leafs", [])
        assert isinstance(found, list)
        return {leaf["name"] for leaf in found if not leaf["is_spoke"]}

    def mailbox(self, ledger: Ledger) -> str:
        return mailbox(self.realm.realm.id, ledger.node.identity.node)

    @asynccontextmanager
    async def client(self, name: str, ledger: Ledger, heard: Heard | None = None) -> AsyncIterator[Client]:
        """A node connected to a server."""
        async with connected(self.url(name), self.realm.realm, login_of(ledger), heard=heard) as client:
            yield client

    async def passes(
        self, sender: Client, receiver: Client, subject: str, *, heard_as: str | None = None
    ) -> bool:
        """Whether a message comes through within `WAIT_SECONDS`; sent again until then, as interest spreads."""
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await receiver.subscribe(heard_as or subject, cb=heard.put)
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < deadline:
                await sender.publish(subject, b"here")
                try:
                    await asyncio.wait_for(heard.get(), TRY_SECONDS)
                except TimeoutError:
                    continue
                return True
            return False
        finally:
            await subscription.unsubscribe()


async def eventually(condition: Callable[[], object | Awaitable[object]], what: str = "it") -> None:
    """Wait for a condition, up to `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        await asyncio.sleep(0.02)


__all__ = ["Login", "NetworkOnDisk", "NodeId", "Path", "eventually", "ported"]
