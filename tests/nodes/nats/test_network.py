"""Regions, sites and a national cluster as real servers: messages cross, islands go on, nobody uses what is not theirs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ledger import NodeRole
from ledger.ids import NodeId
from nodes.nats.server import LocalServer
from nodes.nats.subjects import live, mailbox
from tests.lab.proxy import DOWN, Proxy
from tests.nodes.nats.network_on_disk import NetworkOnDisk, eventually, ported
from tests.nodes.nats.realm_on_disk import STOCKHOLM, UPPSALA, Heard, RealmOnDisk, login_of


class Country:
    """Three national servers, two hubs, two sites; a pharmacy at each hub, one behind a site, a relay behind the other."""

    def __init__(self, directory: Path) -> None:
        self.realm = RealmOnDisk(directory)
        self.north = self.realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "north")
        self.south = self.realm.enrol(NodeRole.PHARMACY, UPPSALA, "south")
        self.inside = self.realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "inside")
        self.relay = self.realm.enrol(NodeRole.RELAY, "", "relay")
        self.agency = self.realm.founded.agency
        self.net = NetworkOnDisk(
            self.realm,
            [
                *(ported(name, "national") for name in ("n1", "n2", "n3")),
                ported("hub-north", "hub", districts=[STOCKHOLM]),
                ported("hub-south", "hub", districts=[UPPSALA]),
                ported("site", "site", hubs=["hub-north"], nodes=[self.inside.node.identity.node.hex()]),
                ported("relay", "site", hubs=["hub-north"], nodes=[self.relay.node.identity.node.hex()]),
            ],
        )

    async def whole(self) -> None:
        """Wait until every server has found the one above."""
        net = self.net
        await eventually(
            lambda: (
                set().union(*(net.leafs(n) for n in ("n1", "n2", "n3") if net.servers[n].running))
                == {"hub-north", "hub-south"}
            ),
            "both hubs under the national cluster",
        )
        await eventually(lambda: net.leafs("hub-north") == {"site", "relay"}, "the sites under their hub")

    def close(self) -> None:
        self.net.close()
        self.realm.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Country]:
    """For tests that leave every server as it was."""
    made = Country(tmp_path_factory.mktemp("country"))
    made.net.start()
    yield made
    made.close()


@pytest.fixture
def country(tmp_path: Path) -> Iterator[Country]:
    """For tests that break something."""
    made = Country(tmp_path / "country")
    made.net.start()
    yield made
    made.close()


# --- what passes ------------------------------------------------------------------------------------------------------


def test_a_message_passes_between_regions_sites_and_the_agency(standing: Country) -> None:
    net = standing.net

    async def main() -> None:
        await standing.whole()
        async with (
            net.client("hub-north", standing.north) as north,
            net.client("hub-south", standing.south) as south,
            net.client("site", standing.inside) as inside,
            net.client("n2", standing.agency) as agency,
        ):
            ways = {
                "region to region": (north, south, standing.south),
                "and back": (south, north, standing.north),
                "site to its region": (inside, north, standing.north),
                "region to site": (north, inside, standing.inside),
                "site to agency": (inside, agency, standing.agency),
                "agency to site": (agency, inside, standing.inside),
                "other region to site": (south, inside, standing.inside),
            }
            for what, (sender, receiver, to) in ways.items():
                assert await net.passes(sender, receiver, net.mailbox(to)), what
            announced = live(standing.realm.realm.id, STOCKHOLM)
            assert await net.passes(north, inside, announced)
            assert await net.passes(inside, north, announced)
            assert await net.passes(north, agency, announced)
            async with net.client("relay", standing.relay) as relay:
                everything = live(standing.realm.realm.id, "*")
                assert await net.passes(north, relay, announced, heard_as=everything)
                assert await net.passes(relay, inside, net.mailbox(standing.inside))
                assert await net.passes(inside, relay, net.mailbox(standing.relay))

    asyncio.run(main())


def test_each_message_arrives_once(standing: Country) -> None:
    """Leaf nodes with two ways into one cluster would bring two."""
    net = standing.net

    async def main() -> None:
        await standing.whole()
        async with (
            net.client("hub-south", standing.south) as south,
            net.client("hub-north", standing.north) as north,
        ):
            assert await net.passes(south, north, net.mailbox(standing.north))
            heard = await north.subscribe(net.mailbox(standing.north))
            # The message that follows all others: nothing of them can come after it.
            for number in range(50):
                await south.publish(net.mailbox(standing.north), b"%d" % number)
            seen = [(await heard.next_msg(timeout=5)).data]
            while seen[-1] != b"49":
                seen.append((await heard.next_msg(timeout=5)).data)
            numbered = [m for m in seen if m != b"here"]
            assert numbered == [b"%d" % n for n in range(50)]

    asyncio.run(main())


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_node_uses_its_own_subjects_only(standing: Country) -> None:
    net, realm = standing.net, standing.realm.realm.id

    async def main() -> None:
        heard = Heard()
        async with net.client("hub-north", standing.north, heard) as client:
            forbidden = [
                ("subscribe", ">"),
                ("subscribe", "rx.>"),
                ("subscribe", net.mailbox(standing.inside)),
                ("subscribe", live(realm, UPPSALA)),
                ("subscribe", "$SYS.>"),
                ("subscribe", "_INBOX.>"),
                ("publish", live(realm, UPPSALA)),
                ("publish", "$SYS.REQ.SERVER.PING"),
                ("publish", "anything"),
            ]
            for act, subject in forbidden:
                before = len(heard.errors)
                if act == "publish":
                    await client.publish(subject, b"")
                else:
                    await client.subscribe(subject)
                await eventually(
                    lambda before=before: len(heard.errors) > before, f"refusal of {act} {subject}"
                )
            assert all("permissions violation" in e for e in heard.errors)
            assert client.is_connected

    asyncio.run(main())


def test_a_node_of_another_region_may_not_use_a_hub_but_the_national_cluster(standing: Country) -> None:
    net = standing.net

    async def main() -> None:
        with pytest.raises(Exception, match=r"(?i)authorization"):
            async with net.client("hub-north", standing.south):
                pass
        async with net.client("n1", standing.south) as client:
            assert client.is_connected

    asyncio.run(main())


def spoken(url: str, realm_tls: ssl.SSLContext | None, connect: bytes) -> bytes:
    """What a server answers to a hand-made login."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=10) as bare:
        assert bare.recv(4096).startswith(b"INFO ")
        with ExitStack() as stack:
            wire = bare
            if realm_tls is not None:
                wire = stack.enter_context(realm_tls.wrap_socket(bare, server_hostname=at.hostname))
            said = b""
            with suppress(OSError):
                wire.sendall(connect + b"\r\nPING\r\n")
                while chunk := wire.recv(4096):
                    said += chunk
                    if b"PONG" in said or b"-ERR" in said:
                        break
            return said


def test_the_name_of_a_server_is_no_way_in_for_a_client(standing: Country) -> None:
    """Servers below are users without a password, known by their certificate."""
    from nodes.nats.certificates import client_tls

    tls = client_tls(standing.realm.realm)
    for login in (
        b'{"user":"urn:rxledger:server:hub-north","pass":"","verbose":false,"protocol":1}',
        b'{"user":"urn:rxledger:server:hub-north","verbose":false,"protocol":1}',
        b'{"verbose":false,"protocol":1}',
    ):
        assert b"Authorization Violation" in spoken(standing.net.url("n1"), tls, b"CONNECT " + login)
    assert b"PONG" not in spoken(standing.net.url("n1"), None, b"CONNECT {}")


HOSTILE = """
server_name: hostile
listen: "127.0.0.1:-1"
http: "127.0.0.1:-1"
{role}
"""
SERVER_TLS = 'cert_file: "{0}/server.pem", key_file: "{0}/server.key", ca_file: "{0}/ca.pem"'


def as_leaf(folder: Path, port: int) -> str:
    tls = SERVER_TLS.format(folder)
    return HOSTILE.format(
        role=f'leafnodes {{ reconnect: "1s", remotes: [ {{ urls: ["tls://127.0.0.1:{port}"], tls {{ {tls} }} }} ] }}'
    )


def as_route(folder: Path, port: int) -> str:
    tls = SERVER_TLS.format(folder)
    return HOSTILE.format(
        role=f'cluster {{ name: national, listen: "127.0.0.1:-1", tls {{ {tls} }}, routes: ["nats-route://127.0.0.1:{port}"] }}'
    )


def test_a_server_that_is_not_listed_gets_no_connection(standing: Country, tmp_path: Path) -> None:
    """Of another realm, of this one but unknown, or a site that wants to be one of the national cluster."""
    net = standing.net
    foreign = RealmOnDisk(tmp_path / "foreign")
    foreign.server_files(tmp_path / "other-realm", "hub-north")
    # So that it gets as far as being judged, it trusts this realm.
    (tmp_path / "other-realm" / "ca.pem").write_bytes((net.directory / "site" / "ca.pem").read_bytes())
    standing.realm.server_files(tmp_path / "unlisted", "hub-west")
    foreign.close()
    n1 = net.description.national[0]
    log = net.servers["n1"]

    async def main() -> None:
        await standing.whole()
        for number, (text, reason) in enumerate(
            [
                (as_leaf(tmp_path / "other-realm", n1.leaf_port), "TLS"),
                (as_leaf(tmp_path / "unlisted", n1.leaf_port), "authentication error"),
                (as_leaf(net.directory / "site", n1.leaf_port), "authentication error"),
                (as_route(net.directory / "site", n1.route_port), "pinned"),
            ]
        ):
            before = len((log.directory / "nats.log").read_text())
            with LocalServer(text, tmp_path / f"hostile-{number}") as hostile:

                def judged(before: int = before, reason: str = reason) -> bool:
                    return reason in (log.directory / "nats.log").read_text()[before:]

                await eventually(judged, f"{number}: {reason}")
                assert "hostile" not in net.leafs("n1")
                assert hostile.monitor("/routez")["num_routes"] == 0
        assert len({r["remote_name"] for r in log.monitor("/routez")["routes"]}) == 2

    asyncio.run(main())


def test_a_site_that_cheats_hears_only_what_is_for_its_nodes(country: Country, tmp_path: Path) -> None:
    """It has a good certificate and may run what it likes on its own machine; what counts stands at the hub."""
    net = country.net
    net.servers["site"].stop()
    open_to_all = as_leaf(net.directory / "site", net.description.hub[0].leaf_port)

    async def main() -> None:
        from nats.aio.client import Client

        with LocalServer(open_to_all, tmp_path / "hostile") as hostile:
            await eventually(lambda: net.leafs("hub-north") == {"hostile", "relay"})
            spy = Client()
            await spy.connect(hostile.urls[0], allow_reconnect=False, no_echo=True)
            heard: list[str] = []

            async def hear(message: object) -> None:
                heard.append(message.subject)

            await spy.subscribe("rx.>", cb=hear)
            await spy.flush()
            async with (
                net.client("hub-north", country.north) as north,
                net.client("n1", country.agency) as agency,
            ):
                assert await net.passes(agency, north, net.mailbox(country.north))
                assert await net.passes(north, agency, live(country.realm.realm.id, STOCKHOLM))
                # In the order of one connection: what would have been heard, would have been heard before this.
                await eventually(lambda: _told(north, net.mailbox(country.inside), heard))
                # And it can only write to its own districts' nodes.
                got = await agency.subscribe(live(country.realm.realm.id, UPPSALA))
                await spy.publish(live(country.realm.realm.id, UPPSALA), b"forged")
                await spy.publish(net.mailbox(country.agency), b"allowed")
                box = await agency.subscribe(net.mailbox(country.agency))
                await eventually(lambda: _sent(spy, net.mailbox(country.agency), box))
                assert got.pending_msgs == 0
            await spy.close()
            assert set(heard) <= {net.mailbox(country.inside), live(country.realm.realm.id, STOCKHOLM)}
            assert net.mailbox(country.north) not in heard

    async def _told(sender: object, subject: str, heard: list[str]) -> bool:
        await sender.publish(subject, b"for you")
        await sender.flush()
        return subject in heard

    async def _sent(sender: object, subject: str, box: object) -> bool:
        await sender.publish(subject, b"allowed")
        await sender.flush()
        return box.pending_msgs > 0

    asyncio.run(main())


# --- what goes on when links are cut ------------------------------------------------------------------------------------


def test_islands_go_on_and_join_again(country: Country) -> None:
    net = country.net

    async def main() -> None:
        await country.whole()
        async with (
            net.client("hub-north", country.north) as north,
            net.client("hub-south", country.south) as south,
            net.client("site", country.inside) as inside,
        ):
            assert await net.passes(north, south, net.mailbox(country.south))
            for name in ("n1", "n2", "n3"):
                net.servers[name].kill()
            # The region is an island: under its hub everything goes on.
            assert await net.passes(north, inside, net.mailbox(country.inside))
            assert await net.passes(inside, north, net.mailbox(country.north))
            # The hub goes too: under the site's own server, a neighbour that dials in is reached.
            net.servers["hub-north"].kill()
            async with net.client("site", country.north) as guest:
                assert await net.passes(guest, inside, net.mailbox(country.inside))
                assert await net.passes(inside, guest, net.mailbox(country.north))
            # Everything comes back, empty, and finds itself.
            net.start("n1", "n2", "n3", "hub-north")
            await country.whole()
            async with net.client("hub-north", country.north) as again:
                assert await net.passes(again, south, net.mailbox(country.south))
                assert await net.passes(south, inside, net.mailbox(country.inside))

    asyncio.run(main())


def test_a_hub_goes_over_to_another_national_server(country: Country) -> None:
    net = country.net

    async def main() -> None:
        await country.whole()
        async with (
            net.client("hub-north", country.north) as north,
            net.client("hub-south", country.south) as south,
        ):
            # The first in the list is the one preferred.
            assert net.leafs("n1") == {"hub-north", "hub-south"}
            net.servers["n1"].kill()
            await country.whole()
            assert await net.passes(north, south, net.mailbox(country.south))

    asyncio.run(main())


# --- what it costs --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind(net: NetworkOnDisk, site: str, hub: str) -> AsyncIterator[Proxy]:
    """A line between a site and its hub, instead of the direct one; the site is started on it."""
    leaf_port = next(h.leaf_port for h in net.description.hub if h.name == hub)
    proxy = await Proxy("127.0.0.1", leaf_port).start()
    path = net.directory / site / "nats.conf"
    direct = path.read_text()
    path.write_text(direct.replace(f'"tls://127.0.0.1:{leaf_port}"', f'"tls://{proxy.address}"'))
    try:
        yield proxy
    finally:
        net.servers[site].stop()
        path.write_text(direct)
        await proxy.stop()


FOREIGN = 400
"""Nodes of other districts, as mailboxes that somebody listens to at the hub."""


def test_a_site_is_not_told_of_the_whole_country(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 9600 bit/s, 30 bytes for each node of the country would be minutes at every joining."""
    realm = RealmOnDisk(tmp_path)
    inside = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "inside")
    relay = realm.enrol(NodeRole.RELAY, STOCKHOLM, "relay")
    net = NetworkOnDisk(
        realm,
        [ported("hub", "hub"), ported("site", "site", hubs=["hub"], nodes=[inside.node.identity.node.hex()])],
    )
    hub_users = net.directory / "hub" / "users.conf"
    users = hub_users.read_text()
    root = net.mailbox(relay).rpartition(".to.")[0]
    # Stands for all other nodes: one that may listen to any mailbox.
    lines = users.splitlines()
    [crowd] = [n for n, text in enumerate(lines) if login_of(relay).user in text]
    lines[crowd] = lines[crowd].replace(f'"{net.mailbox(relay)}"', f'"{root}.to.*"')
    hub_users.write_text("\n".join(lines) + "\n")
    wide = list(lines)
    [line] = [n for n, text in enumerate(wide) if "urn:rxledger:server:site" in text]
    wide[line] = (
        f'{{ user: "urn:rxledger:server:site", permissions: {{ publish: {{ allow: ["{root}.>"] }}, subscribe: {{ allow: ["{root}.>"] }} }} }}'
    )

    async def join() -> int:
        async with net.client("hub", relay) as everybody:
            for number in range(FOREIGN):
                await everybody.subscribe(
                    mailbox(realm.realm.id, NodeId(sha256(b"%d" % number).digest()[:16]))
                )
            await everybody.flush()
            async with behind(net, "site", "hub") as line:
                net.start("site")
                await eventually(lambda: net.leafs("hub") == {"site"})
                async with net.client("site", inside) as client:
                    # Interest goes down in order: when this one is there, the rest has been sent.
                    assert await net.passes(client, everybody, net.mailbox(relay))
                return line.ways[DOWN].passed

    net.start("hub")
    narrow_bytes = asyncio.run(join())
    hub_users.write_text("\n".join(wide) + "\n")
    net.servers["hub"].reload()
    wide_bytes = asyncio.run(join())
    with capsys.disabled():
        print(
            f"\n  joining a hub with {FOREIGN} foreign subjects: {narrow_bytes} B down, without permissions {wide_bytes} B"
        )
    net.close()
    realm.close()
    # TLS and the hello cost some 3.5 kB; what is left must not grow with the country.
    assert narrow_bytes < 6_000
    assert wide_bytes - narrow_bytes > FOREIGN * 20


BITS_PER_S, DELAY_S = 9600, 0.3


def test_a_site_joins_and_speaks_over_a_thin_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nats-server's defaults it never gets in: they give 2 s for what takes some 6 s there."""
    realm = RealmOnDisk(tmp_path)
    inside = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "inside")
    outside = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "outside")
    net = NetworkOnDisk(
        realm,
        [ported("hub", "hub"), ported("site", "site", hubs=["hub"], nodes=[inside.node.identity.node.hex()])],
    )

    async def main() -> tuple[float, int]:
        async with behind(net, "site", "hub") as line:
            for way in line.ways:
                way.bits_per_s, way.delay_s = BITS_PER_S, DELAY_S
            loop = asyncio.get_running_loop()
            began = loop.time()
            net.start("site")
            async with net.client("site", inside) as near, net.client("hub", outside) as far:
                heard = await far.subscribe(net.mailbox(outside))
                while True:
                    await near.publish(net.mailbox(outside), bytes(range(256)) * 2)
                    with suppress(TimeoutError):
                        await heard.next_msg(timeout=1)
                        return loop.time() - began, line.accepted

    net.start("hub")
    seconds, dialled = asyncio.run(main())
    with capsys.disabled():
        print(f"\n  a site is joined over {BITS_PER_S} bit/s and {DELAY_S:g} s one way after {seconds:.1f} s")
    net.close()
    realm.close()
    assert dialled == 1, "the first connection was broken off"
    assert seconds < 45
