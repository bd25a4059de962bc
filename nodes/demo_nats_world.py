r"""The world of the demonstration on real servers: a realm on disk, message servers, and one daemon process a node.

::

                     national ------------- agency
                    /        \
              (direct)       (cable)
                  /             \
            hub-north         hub-south
           /    |   \          |     \
    Söder  Eken  relay      Linden   Aspen

Everything is made by what an operator uses: the ceremonies of `nodes.founding`, the generator of `nodes.nats`, a
``node.toml`` for each daemon. This process writes and asks through the daemons' own sockets, as a pharmacy's system does.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ledger import (
    Coded,
    Ledger,
    NodeRole,
    Person,
    PersonRole,
    RealmKind,
    SeededEntropy,
    SystemClock,
    SystemEntropy,
)
from ledger.errors import LedgerBug
from ledger.ids import NodeId
from ledger.keystore import UnlockFile
from ledger.node import Node
from ledger.persons import LICENCE_CODE, PRESCRIBER_CODE
from ledger.policy import default_policy
from nodes.daemon.status import STATUS_METHOD, NodeStatus, PeerStatus
from nodes.demo_nats_processes import Cable, DaemonProcess, until
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise
from nodes.links import LinkState
from nodes.local.client import SharedLedger
from nodes.local.opening import owner_of
from nodes.nats.description import read_description
from nodes.nats.folders import prepare_run, write_folder
from nodes.nats.roster import read_roster
from nodes.nats.server import LocalServer, free_ports

__all__ = [
    "AGENCY",
    "ASPEN",
    "EKEN",
    "LINDEN",
    "RELAY",
    "SODER",
    "STOCKHOLM",
    "UPPSALA",
    "NatsSite",
    "NatsWorld",
]

STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"
AGENCY, SODER, RELAY = "Agency", "Vårdcentral Söder", "Relay"
EKEN, LINDEN, ASPEN = "Apotek Eken", "Apotek Linden", "Apotek Aspen"
NATIONAL, NORTH, SOUTH = "national", "hub-north", "hub-south"
START_SECONDS = 60.0
"""Seven daemons on two slow cores, all at once; usual is four."""

_NODES = (
    (SODER, NodeRole.PRESCRIBER, STOCKHOLM, NORTH, "0000101"),
    (EKEN, NodeRole.PHARMACY, STOCKHOLM, NORTH, "000901"),
    (LINDEN, NodeRole.PHARMACY, STOCKHOLM, SOUTH, "000902"),
    (ASPEN, NodeRole.PHARMACY, UPPSALA, SOUTH, "000903"),
    (RELAY, NodeRole.RELAY, "", NORTH, "000904"),
)
"""Name, role, district, the server that it dials, the code of the person who acts there."""


class NatsSite:
    """One node: its directory, its daemon, and this process's way to it."""

    def __init__(
        self,
        name: str,
        role: NodeRole,
        district: str,
        server: str,
        directory: Path,
        node: NodeId,
        person: Person,
    ) -> None:
        self.name, self.role, self.district, self.server = name, role, district, server
        self.directory, self.node, self.person = directory, node, person
        self.daemon = DaemonProcess(directory.parent / f"{directory.name}.toml")
        self._shared: SharedLedger | None = None

    @property
    def ledger(self) -> SharedLedger:
        """Its ledger, through the daemon that owns it."""
        if self._shared is None:
            raise LedgerBug(f"{self.name} is used while its daemon is down")
        return self._shared

    def start(self) -> None:
        """Start the daemon; `attach` waits until it is ready."""
        self.daemon.start()

    def attach(self, unlock: UnlockFile, *, link: bool = True) -> float:
        """Wait until the daemon listens (and its link is up), and connect; returns the seconds.

        Raises:
            Overdue: it did not come in time.
            LedgerBug: it ended instead; the message ends with what it logged.
        """

        def ready() -> bool:
            if not self.daemon.running:
                raise LedgerBug(f"the daemon of {self.name} ended:\n{self.daemon.log_tail()}")
            if self._shared is None:
                client = owner_of(self.directory)
                if client is None:
                    return False
                self._shared = SharedLedger(Node.open(self.directory, unlock, writable=False), client)
            return not link or self.is_linked()

        return until(ready, f"the daemon of {self.name} is ready", START_SECONDS)

    def detach(self) -> None:
        """Let go of the daemon. Repeatable."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def stop(self) -> None:
        """Stop the daemon in good order."""
        self.detach()
        self.daemon.stop()

    def kill(self) -> None:
        """Kill the daemon."""
        self.daemon.kill()
        self.detach()

    # --- what it says ------------------------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        """How it stands, by its own word."""
        return self.ledger.ask(STATUS_METHOD, NodeStatus)

    def is_linked(self) -> bool:
        """Whether its link is up."""
        return any(link.state is LinkState.UP for link in self.status().links)

    def peer(self, other: NatsSite) -> PeerStatus | None:
        """How it stands with another; None: they never met."""
        return next((p for p in self.status().peers if p.node == other.node.hex()), None)

    def holds(self, link: bytes) -> bool:
        """Whether an entry is on its disk. Read from there, past the daemon: it costs that nothing."""
        return self.ledger.node.store.by_link(link) is not None  # type: ignore[arg-type]

    def entries(self, districts: list[str]) -> bytes:
        """Digest of the entries that it holds."""
        return self.ledger.inquiry.frontier_digest(districts)


class NatsWorld:
    """All nodes and servers. A context manager: nothing of it is left afterwards but files."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.seed = directory, seed
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.servers: dict[str, LocalServer] = {}
        self.sites: dict[str, NatsSite] = {}
        self._feeds: dict[bytes, NodeId] = {}
        self._stack = ExitStack()
        self.folders = directory / "servers"
        self._ports = free_ports(12)
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> NatsSite:
        return self.sites[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop every process. Repeatable."""
        for site in self.sites.values():
            site.detach()
        # All at once, then each in turn: seven farewells do not add up.
        for site in self.sites.values():
            site.daemon.terminate()
        for site in self.sites.values():
            site.daemon.stop()
        for server in self.servers.values():
            server.stop()
        self._stack.close()

    def name_of(self, node: bytes) -> str:
        """The name of a node, for the reader of the story."""
        return next((s.name for s in self.sites.values() if s.node == node), node.hex()[:8] or "nobody")

    def names_in(self, message: str) -> str:
        """A message with names in the place of ids of nodes and feeds."""
        for site in self.sites.values():
            message = message.replace(site.node.hex(), site.name)
        for feed, author in self._feeds.items():
            message = message.replace(feed.hex(), self.name_of(author))
        return message

    # --- set-up ------------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        founded = found_realm(
            self.directory / "realm", "Övningsriket", RealmKind.EXERCISE, self.unlock,
            entropy=SeededEntropy(self.seed),
        )  # fmt: skip
        with founded.agency as agency:
            officer = Person(Coded(LICENCE_CODE, "900001"), PersonRole.OFFICER)
            agency.stewardship.set_policy(
                default_policy("exercise"), person=officer, legal_basis="övning: ingen verklig patient"
            )
            self._add(
                AGENCY, NodeRole.AGENCY, "", NATIONAL, self.directory / "realm" / "agency", agency, officer
            )
            for number, (name, role, district, server, code) in enumerate(_NODES, 1):
                directory = self.directory / "nodes" / f"node-{number}"
                with enrol(
                    founded, directory, role=role, district=district, name=name, unlock=self.unlock,
                    person=officer,
                ) as ledger:  # fmt: skip
                    synchronise(agency.exchange, ledger.exchange)
                    self._add(name, role, district, server, directory, ledger, _person(role, code))
            self._write_servers(founded)
        self._configure()

    def _add(
        self,
        name: str,
        role: NodeRole,
        district: str,
        server: str,
        directory: Path,
        ledger: Ledger,
        person: Person,
    ) -> None:
        site = NatsSite(name, role, district, server, directory, ledger.node.identity.node, person)
        self.sites[name] = site
        self._feeds |= {row.feed: row.author for row in ledger.node.store.feeds()}

    def _configure(self) -> None:
        """A ``node.toml`` for each daemon."""
        port = {NATIONAL: self._ports[0], NORTH: self._ports[4], SOUTH: self._ports[7]}
        # They serve everybody, and are asked without waiting for a sign of life.
        peers = ", ".join(f'"{self.sites[name].node.hex()}"' for name in (AGENCY, RELAY))
        for site in self.sites.values():
            site.daemon.config.write_text(
                f'node = "{site.directory}"\nunlock = "{self.unlock.path}"\n'
                f"[peers]\nnodes = [{peers}]\n"
                f'[[links]]\nname = "hub"\nurls = ["tls://127.0.0.1:{port[site.server]}"]\n'
            )

    def _write_servers(self, founded: Founded) -> None:
        """The folders of all servers, as `rxledger nats config` writes them."""
        file = self.directory / "network.toml"
        file.write_text(self._description(self._ports[2]))
        description = read_description(file)
        # The southern hub's way up leads through the cable, which is all that its own description differs in.
        through = self.directory / "network-through-the-cable.toml"
        through.write_text(self._description(self._ports[10]))
        roster = read_roster(founded.agency, SystemClock().now_ms())
        for server in description.servers:
            source = through if server.name == SOUTH else file
            write_folder(
                self.folders, read_description(source), source.read_bytes(), server.name, roster,
                founded.agency.node.realm.id, founded.issuer, SystemClock().now_ms(), SystemEntropy(),
            )  # fmt: skip
            folder = self.folders / server.name
            self.servers[server.name] = LocalServer(folder / "nats.conf", folder)

    def _description(self, national_leaf_port: int) -> str:
        ports = self._ports
        # Each hub takes the other region's nodes, too, whose own hub is out of reach; and the relay serves both.
        both = [STOCKHOLM, UPPSALA]
        servers = (
            ("national", NATIONAL, {"port": ports[0], "monitor_port": ports[1], "leaf_port": national_leaf_port,
                                    "route_port": ports[3]}),
            ("hub", NORTH, {"port": ports[4], "monitor_port": ports[5], "leaf_port": ports[6], "districts": both}),
            ("hub", SOUTH, {"port": ports[7], "monitor_port": ports[8], "leaf_port": ports[9], "districts": both}),
        )  # fmt: skip
        lines = []
        for kind, name, more in servers:
            table = {"name": name, "address": "127.0.0.1", "bind": "127.0.0.1", **more}
            # What JSON says of texts, numbers and lists is TOML, too.
            lines += [f"[[{kind}]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
        return "\n".join(lines)

    # --- life --------------------------------------------------------------------------------------------------------

    def start_servers(self) -> None:
        """Start all servers, and wait until the hubs are the national server's leaf nodes."""
        self.cable = Cable(self._ports[10], self._ports[2])
        self._stack.callback(self.cable.close)
        for name in self.servers:
            self.start_server(name)
        until(
            lambda: self.leaves() == {NORTH, SOUTH},
            "the hubs are leaf nodes of the national server",
            START_SECONDS,
        )

    def start_server(self, name: str) -> None:
        """Start one, also after it was killed: it comes back empty."""
        prepare_run(self.folders / name)
        self.servers[name].start()

    def start_daemons(self) -> None:
        """Start all daemons, and wait until all are linked: the agency's first, so that it is there when it is asked."""
        self.sites[AGENCY].start()
        self.sites[AGENCY].attach(self.unlock)
        rest = [site for site in self.sites.values() if site.name != AGENCY]
        for site in rest:
            site.start()
        for site in rest:
            site.attach(self.unlock)

    def leaves(self) -> set[str]:
        """The hubs that are connected to the national server, by its own word."""
        found = self.servers[NATIONAL].monitor("/leafz").get("leafs")
        return {str(leaf["name"]) for leaf in found or ()} if isinstance(found, list) else set()

    def connections(self, name: str) -> int:
        """Nodes connected to a server, by its own word."""
        found = self.servers[name].monitor("/connz").get("num_connections")
        return found if isinstance(found, int) else 0


def _person(role: NodeRole, code: str) -> Person:
    if role is NodeRole.PRESCRIBER:
        return Person(Coded(PRESCRIBER_CODE, code), PersonRole.PRESCRIBER)
    return Person(Coded(LICENCE_CODE, code), PersonRole.PHARMACIST)
