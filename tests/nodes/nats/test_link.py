"""A link over real servers: up, down, moved to the next, and nothing of what was said while down."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.protocol.parser import AWAITING_MSG_PAYLOAD

from ledger.clock import SystemClock
from ledger.errors import InvalidInput, LedgerBug
from nodes.links import LinkState
from nodes.nats.link import PAYLOAD_BYTES_MAX, NatsLink
from nodes.nats.outflow import QUEUE_BYTES_MIN
from nodes.nats.server import LocalServer
from nodes.nats.settings import LinkSettings
from nodes.nats.transport import HardTransport

ANY = 'listen: "127.0.0.1:-1"\n'
QUICK = LinkSettings(
    ping_interval_s=1,
    connect_timeout_s=2,
    handshake_timeout_s=3,
    retry_first_s=0.05,
    retry_max_s=0.2,
    stable_s=5,
)


async def until(condition: Callable[[], bool], seconds: float = 10) -> float:
    """How long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def tasks_of_links() -> set[asyncio.Task[Any]]:
    """All that nats-py or a link has started and not ended."""
    return {
        task
        for task in asyncio.all_tasks()
        if "/nats/" in getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")
    }


class Heard:
    """A link that runs, and what it received."""

    def __init__(self, name: str, urls: Iterable[str], **more: Any) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.link = NatsLink(
            name,
            urls,
            on_message=lambda _, subject, payload: self.messages.append((subject, payload)),
            clock=SystemClock(),
            jitter=random.Random(name),
            settings=more.pop("settings", QUICK),
            **more,
        )

    @property
    def up(self) -> bool:
        return self.link.status().state is LinkState.UP

    @property
    def reason(self) -> str:
        return self.link.status().reason


@asynccontextmanager
async def running(*heard: Heard, wait: bool = True) -> AsyncIterator[None]:
    """Run links, wait until they are up, and see that they leave no task behind."""
    before = tasks_of_links()
    tasks = [asyncio.create_task(one.link.run()) for one in heard]
    try:
        if wait:
            for one in heard:
                await until(lambda one=one: one.up)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks_of_links() == before


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with LocalServer(ANY, tmp_path / "server") as one:
        yield one


def test_what_one_link_sends_another_receives(server: LocalServer) -> None:
    async def main() -> None:
        one, two = Heard("one", server.urls), Heard("two", server.urls, subjects=["x.two", "x.all.*"])
        async with running(one, two):
            assert one.link.send("x.two", b"to you")
            assert one.link.send("x.all.here", b"to all")
            assert one.link.send("x.nobody", b"to nobody")
            await until(lambda: len(two.messages) == 2)
            assert two.messages == [("x.two", b"to you"), ("x.all.here", b"to all")]
            status = one.link.status()
            assert status.server == server.urls[0].removeprefix("nats://")
            assert (status.reason, status.reconnects, status.refused) == ("", 0, 0)
            assert status.sent_bytes > 20
            assert two.link.status().received_bytes > 20
        assert one.link.status().state is LinkState.DOWN
        assert one.reason == "stopped"

    asyncio.run(main())


def test_subjects_may_change_while_it_runs(server: LocalServer) -> None:
    async def main() -> None:
        one, two = Heard("one", server.urls), Heard("two", server.urls, subjects=["x.old"])
        async with running(one, two):
            two.link.listen(["x.new"])

            def arrived() -> bool:
                one.link.send("x.old", b"")
                one.link.send("x.new", b"")
                return any(subject == "x.new" for subject, _ in two.messages)

            await until(arrived)
            two.messages.clear()
            one.link.send("x.old", b"")
            one.link.send("x.new", b"last")
            await until(lambda: ("x.new", b"last") in two.messages)
            assert {subject for subject, _ in two.messages} == {"x.new"}

    asyncio.run(main())


def test_nothing_sent_while_down_arrives_later(server: LocalServer) -> None:
    async def main() -> None:
        one, two = Heard("one", server.urls), Heard("two", server.urls, subjects=["x.two"])
        assert not one.link.send("x.two", b"before")
        async with running(one, two):
            server.kill()
            await until(lambda: not one.up and not two.up)
            assert not one.link.send("x.two", b"while down")
            assert one.link.room() == 0
            assert one.link.status().refused == 2
            # The same port, an empty server.
            server.config.write_text(f"listen: 127.0.0.1:{server.urls[0].rpartition(':')[2]}\n")
            server.start()
            await until(lambda: one.up and two.up)
            assert one.link.send("x.two", b"after")
            await until(lambda: bool(two.messages))
            assert two.messages == [("x.two", b"after")]
            assert one.link.status().reconnects == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["nats://a:1"] * 17,
        ["http://a"],
        ["nats://"],
        ["tls://a"],
        ["nats://me:secret@a"],
        ["nats://a:70000"],
    ],
)
def test_servers_that_make_no_sense_are_refused(urls: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Heard("one", urls)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("subject", ["", ".", "a.", "a b", "a\r\nPUB", "å", "a.>", "a.*", "a" * 257])
def test_subjects_that_make_no_sense_are_refused(subject: str) -> None:
    one = Heard("one", ["nats://127.0.0.1:1"])
    with pytest.raises(InvalidInput):
        one.link.send(subject, b"")


def test_a_message_that_no_server_would_take_is_refused() -> None:
    one = Heard("one", ["nats://127.0.0.1:1"])
    assert not one.link.send("a", bytes(PAYLOAD_BYTES_MAX))
    with pytest.raises(InvalidInput):
        one.link.send("a", bytes(PAYLOAD_BYTES_MAX + 1))


def test_the_pinned_client_is_as_we_use_it() -> None:
    """Private names and habits of nats-py that `nodes.nats.link` and `nodes.nats.transport` stand on."""
    assert version("nats-py") == "2.16.0"
    client = Client()
    assert client._transport is None
    assert isinstance(client._ps.buf, bytearray)
    assert client._ps.state != AWAITING_MSG_PAYLOAD
    assert client._pings_outstanding == 0
    assert set(Transport.__abstractmethods__) <= set(vars(HardTransport))
    told = inspect.getsource(Client._process_info)
    assert set(re.findall(r'"([a-z_]+)" in info|info\.get\("([a-z_]+)"', told)) == {
        ("connect_urls", ""),
        ("", "ldm"),
    }
    source = inspect.getsource(Client._connect_to_server)
    assert "if not self._transport:" in source, "it takes a transport that it finds"


def test_a_link_is_not_run_twice_and_may_be_run_again(server: LocalServer) -> None:
    async def main() -> None:
        one = Heard("one", server.urls)
        async with running(one):
            with pytest.raises(LedgerBug):
                await one.link.run()
            assert one.up
        async with running(one):
            assert one.link.status().reconnects == 1

    asyncio.run(main())


def test_a_receiver_that_fails_does_not_end_the_link(server: LocalServer) -> None:
    async def main() -> None:
        one = Heard("one", server.urls)
        heard: list[bytes] = []

        def receive(_: str, __: str, payload: bytes) -> None:
            heard.append(payload)
            raise ValueError("a bug of ours")

        two = NatsLink(
            "two",
            server.urls,
            on_message=receive,
            clock=SystemClock(),
            jitter=random.Random(2),
            subjects=["x"],
        )
        async with running(one):
            task = asyncio.create_task(two.run())
            await until(lambda: two.status().state is LinkState.UP)
            for payload in (b"1", b"2"):
                assert one.link.send("x", payload)
            await until(lambda: heard == [b"1", b"2"])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_foreign_message_that_is_too_large_is_dropped(server: LocalServer) -> None:
    async def main() -> None:
        one = Heard("one", server.urls, subjects=["x"])
        async with running(one):
            other = Client()
            await other.connect(server.urls[0])
            await other.publish("x", bytes(PAYLOAD_BYTES_MAX + 1))
            await other.publish("x", b"small")
            await until(lambda: one.messages == [("x", b"small")])
            assert one.link.status().refused == 1
            await other.close()

    asyncio.run(main())


def test_a_burst_is_received_whole(server: LocalServer) -> None:
    """What comes in one read is handed over in one go: nothing is dropped for being slow."""

    async def main() -> None:
        one, two = Heard("one", server.urls), Heard("two", server.urls, subjects=["x"])
        async with running(one, two):
            sent = 0
            while sent < 50_000:
                if one.link.send("x", b"%d" % sent):
                    sent += 1
                else:
                    await asyncio.sleep(0)
            await until(lambda: len(two.messages) == sent)
            assert two.link.status().refused == 0
            assert [int(payload) for _, payload in two.messages] == list(range(sent))

    asyncio.run(main())


def test_a_fast_line_is_used(server: LocalServer) -> None:
    """The bound on what lies below `send` grows with what the line carries."""

    async def main() -> None:
        one, two = Heard("one", server.urls), Heard("two", server.urls, subjects=["x"])
        async with running(one, two):
            assert one.link.room() == QUEUE_BYTES_MIN
            began, sent = time.monotonic(), 0
            while sent < 1000:
                if one.link.send("x", bytes(32_768)):
                    sent += 1
                else:
                    await asyncio.sleep(0)
            await until(lambda: len(two.messages) == sent)
            rate = sent * 32_768 / (time.monotonic() - began) / 1e6
            print(f"{rate:.0f} MB/s in messages of 32 KiB, both ends in one process")
            await until(lambda: one.link.room() > 100 * QUEUE_BYTES_MIN)
            assert rate > 20

    asyncio.run(main())
