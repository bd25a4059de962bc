"""A link and real servers that refuse, demand, break off, stop in their tracks, or all come back at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import ssl
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger import NodeRole
from nodes.links import LinkState
from nodes.nats.certificates import client_tls
from nodes.nats.link import PAYLOAD_BYTES_MAX
from nodes.nats.nkeys import Login
from nodes.nats.server import LocalServer, free_ports
from nodes.nats.settings import LinkSettings
from nodes.nats.transport import LINE_BYTES_MAX, HardTransport
from tests.lab.proxy import DOWN, Proxy
from tests.nodes.nats.realm_on_disk import STOCKHOLM, RealmOnDisk, login_of
from tests.nodes.nats.test_link import ANY, QUICK, Heard, running, until

TLS = """
listen: "127.0.0.1:-1"
tls {{ cert_file: server.pem, key_file: server.key, min_version: "1.3" }}
authorization {{ users: [ {users} ] }}
"""
DETECTED_S = 3 * QUICK.ping_interval_s + 1.5
"""Three ping intervals, and what a loaded machine adds."""
MANY = 200
COUNTRY = 1400
"""Pharmacies of Sweden, at one hub."""
PEAK = 0.3
"""Of all, in a tenth of the time that they spread over: a tenth is expected, chance and a loaded machine make it a fifth."""
RECONNECTS = 50
GROWTH_BYTES = 100_000
"""Over fifty connections: less than 2 kB for one, whose buffers and tasks alone take 50 kB."""


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[RealmOnDisk]:
    made = RealmOnDisk(tmp_path / "realm")
    yield made
    made.close()


@asynccontextmanager
async def relayed(server: LocalServer) -> AsyncIterator[Proxy]:
    proxy = await Proxy("127.0.0.1", int(server.urls[0].rpartition(":")[2])).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def user(login: Login, more: str = "") -> str:
    return f"{{ nkey: {login.user} {more} }}"


def test_a_node_logs_in_with_its_key_inside_tls(realm: RealmOnDisk, tmp_path: Path) -> None:
    login = login_of(realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "one"))
    realm.server_files(tmp_path / "hub")

    async def main(server: LocalServer) -> None:
        url = server.urls[0]
        trust = client_tls(realm.realm)
        one, two = (Heard(name, [url], subjects=[name], tls=trust, login=login) for name in ("one", "two"))
        async with running(one, two):
            assert one.link.send("two", b"inside")
            await until(lambda: two.messages == [("two", b"inside")])

    with LocalServer(TLS.format(users=user(login)), tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_a_held_tls_connection_with_a_full_buffer_is_left_in_time(realm: RealmOnDisk, tmp_path: Path) -> None:
    """The worst case of nats-py's own transport: half an hour, or for ever."""
    login = login_of(realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "one"))
    realm.server_files(tmp_path / "hub")

    async def main(server: LocalServer) -> None:
        async with relayed(server) as proxy:
            urls = [f"tls://{proxy.address}", server.urls[0]]
            one = Heard("one", urls, tls=client_tls(realm.realm), login=login)
            async with running(one):
                proxy.hold()
                while one.link.send("x", bytes(PAYLOAD_BYTES_MAX)):
                    pass
                assert await until(lambda: not one.up) < DETECTED_S
                assert one.reason == "the server does not answer"
                await until(lambda: one.up, 2)
                assert one.link.status().server == server.urls[0].rpartition("/")[2]

    with LocalServer(TLS.format(users=user(login)), tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_inside_tls_too_a_server_that_sends_too_fast_is_held_back(realm: RealmOnDisk, tmp_path: Path) -> None:
    """Nobody reads here: what the transport takes in meanwhile is bounded, the rest waits at the server."""
    realm.server_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    async def main() -> None:
        poured, ended = 0, asyncio.Event()

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal poured
            await writer.start_tls(context)
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    poured += 65536
            writer.transport.abort()
            ended.set()

        async with await asyncio.start_server(pour, "127.0.0.1", 0) as server:
            transport = HardTransport(secure=True, user_timeout_s=10, first_line_s=10)
            await transport.open("127.0.0.1", server.sockets[0].getsockname()[1], 10)
            await transport.connect_tls("127.0.0.1", client_tls(realm.realm), 0, 10)
            before = -1
            while poured > before:
                before = poured
                await asyncio.sleep(0.3)  # As long as anything still moves.
            assert len(await transport.read(1 << 24)) <= 4 * LINE_BYTES_MAX
            assert poured > 0
            transport.close()
            await transport.wait_closed()
            await until(ended.is_set)

    asyncio.run(main())


def test_why_a_server_does_not_serve_is_said_in_words(realm: RealmOnDisk, tmp_path: Path) -> None:
    known, unknown = (login_of(realm.enrol(NodeRole.PHARMACY, STOCKHOLM, name)) for name in ("one", "two"))
    stranger = RealmOnDisk(tmp_path / "other")
    stranger.close()
    realm.server_files(tmp_path / "hub")

    async def main(server: LocalServer) -> None:
        port = server.urls[0].rpartition(":")[2]
        trust = client_tls(realm.realm)
        refused = {
            "the server does not admit this node": Heard(
                "a", [f"tls://127.0.0.1:{port}"], tls=trust, login=unknown
            ),
            "the server demands TLS": Heard("b", [f"nats://127.0.0.1:{port}"]),
            "the server's certificate does not hold": Heard(
                "c", [f"tls://127.0.0.1:{port}"], tls=client_tls(stranger.realm), login=known
            ),
            "nobody listens there": Heard("d", ["nats://127.0.0.1:1"]),
        }
        async with running(*refused.values(), wait=False):
            for said, one in refused.items():
                await until(lambda said=said, one=one: one.reason.startswith(said))
                assert not one.up
                assert not one.link.send("x", b"")

    with LocalServer(TLS.format(users=user(known)), tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_a_node_that_is_revoked_loses_its_link_and_one_admitted_again_gets_it(
    realm: RealmOnDisk, tmp_path: Path
) -> None:
    login = login_of(realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "one"))
    realm.server_files(tmp_path / "hub")
    with_it = TLS.format(users=user(login)) + 'http: "127.0.0.1:-1"\n'

    async def main(server: LocalServer) -> None:
        port = server.urls[0].rpartition(":")[2]
        one = Heard("one", [f"tls://127.0.0.1:{port}"], tls=client_tls(realm.realm), login=login)
        async with running(one):
            text = server.config.read_text()
            server.reload(text.replace(login.user, Login(realm.founded.issuer.key).user))
            await until(lambda: not one.up and one.reason.startswith("the server does not admit this node"))
            server.reload(text)
            await until(lambda: one.up)

    with LocalServer(with_it, tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_subjects_that_are_not_permitted_are_counted_and_cost_nothing_else(tmp_path: Path) -> None:
    config = ANY + (
        "no_auth_user: any\nauthorization { users: [{ user: any, password: any, "
        'permissions: { publish: ["x.*"], subscribe: ["x.*"] } }] }\n'
    )

    async def main(server: LocalServer) -> None:
        one, two = Heard("one", server.urls, subjects=["y.secret", "x.one"]), Heard("two", server.urls)
        async with running(one, two):
            await until(lambda: one.link.status().refused == 1)
            assert two.link.send("y.other", b"")
            await until(lambda: two.link.status().refused == 1)
            assert two.link.send("x.one", b"permitted")
            await until(lambda: bool(one.messages))
            assert (one.link.status().reconnects, two.link.status().reconnects) == (0, 0)

    with LocalServer(config, tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_a_connection_broken_off_within_a_message_delivers_no_part_of_it(tmp_path: Path) -> None:
    async def main(server: LocalServer) -> None:
        async with relayed(server) as proxy:
            one = Heard("one", [f"nats://{proxy.address}"], subjects=["x"])
            two = Heard("two", server.urls)
            async with running(one, two):
                proxy.reset_after(5000, DOWN)
                assert two.link.send("x", b"a" * 10_000)
                await until(lambda: one.link.status().reconnects == 1 and one.up)
                assert two.link.send("x", b"whole")
                await until(lambda: bool(one.messages))
                assert one.messages == [("x", b"whole")]

    with LocalServer(ANY, tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_a_line_full_of_messages_for_us_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """The answers to our pings wait behind them: here for five intervals."""

    async def main(server: LocalServer) -> None:
        async with relayed(server) as proxy:
            one = Heard("one", [f"nats://{proxy.address}"], subjects=["x"])
            two = Heard("two", server.urls)
            async with running(one, two):
                proxy.ways[DOWN].bits_per_s = 48_000
                for number in range(30):
                    await until(lambda n=number: two.link.send("x", bytes([n]) * 1000))
                await until(lambda: len(one.messages) == 30, 20)
                assert one.link.status().reconnects == 0

    with LocalServer(ANY, tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_a_server_that_stands_still_is_left_and_one_that_wakes_is_taken(tmp_path: Path) -> None:
    async def main(server: LocalServer) -> None:
        one = Heard("one", server.urls)
        async with running(one):
            server.signal(signal.SIGSTOP)
            await until(lambda: not one.up, DETECTED_S)
            server.signal(signal.SIGCONT)
            await until(lambda: one.up)

    with LocalServer(ANY, tmp_path / "hub") as server:
        asyncio.run(main(server))


@pytest.mark.parametrize(
    ("many", "spread_s"), [(MANY, 2.0), pytest.param(COUNTRY, 10.0, marks=pytest.mark.nightly)]
)
def test_many_links_come_back_one_after_the_other(tmp_path: Path, many: int, spread_s: float) -> None:
    """They lose their hub in one moment; none waits long, and the hub never sees a crowd."""

    async def main(server: LocalServer) -> None:
        loop = asyncio.get_running_loop()
        ups: list[float] = []

        def note(status: object) -> None:
            if getattr(status, "state", None) is LinkState.UP:
                ups.append(loop.time())

        settings = LinkSettings(
            ping_interval_s=5, retry_first_s=spread_s / 2, retry_max_s=spread_s, stable_s=30
        )
        links = [Heard(f"link {n}", server.urls, settings=settings, on_change=note) for n in range(many)]
        async with running(*links):
            ups.clear()
            server.kill()
            server.start()  # Before this loop turns: what is seen is the links' own spread, not a queue behind us.
            took = await until(lambda: len(ups) == many, 3 * spread_s)
            crowds = Counter(int(at / spread_s * 10) for at in ups)
            print(f"{many} links back in {took:.2f} s, at most {max(crowds.values())} in {spread_s / 10} s")
            assert max(crowds.values()) < PEAK * many
            assert all(one.up for one in links)

    with LocalServer(f"listen: 127.0.0.1:{free_ports(1)[0]}\n", tmp_path / "hub") as server:
        asyncio.run(main(server))


def test_connections_leave_nothing_behind(tmp_path: Path) -> None:
    """Memory, tasks and open files are after fifty reconnects what they were after the first few."""

    async def main(server: LocalServer) -> None:
        settings = LinkSettings(ping_interval_s=1, retry_first_s=0.001, retry_max_s=0.001)
        async with relayed(server) as proxy:
            one = Heard(
                "one", [f"nats://{proxy.address}"], subjects=[f"x.{n}" for n in range(10)], settings=settings
            )
            async with running(one):

                async def reconnect(times: int) -> None:
                    for _ in range(times):
                        before = one.link.status().reconnects
                        one.link.send("x.1", bytes(1000))
                        proxy.reset()
                        await until(lambda before=before: one.link.status().reconnects > before and one.up)

                def held() -> tuple[int, int, int]:
                    gc.collect()
                    files = len(list(Path("/proc/self/fd").iterdir()))
                    return tracemalloc.get_traced_memory()[0], len(asyncio.all_tasks()), files

                tracemalloc.start()
                try:
                    await reconnect(10)
                    memory, tasks, files = held()
                    await reconnect(RECONNECTS)
                    later = held()
                finally:
                    tracemalloc.stop()
                print(f"{RECONNECTS} reconnects: {later[0] - memory:+} bytes")
                assert later[0] - memory < GROWTH_BYTES
                assert abs(later[1] - tasks) <= 2, "only the relay's own may come and go"
                assert abs(later[2] - files) <= 2

    with LocalServer(ANY, tmp_path / "hub") as server:
        asyncio.run(main(server))
