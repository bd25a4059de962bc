"""A link to a hub that cannot be trusted: it is refused or left, and costs neither memory nor the other hub."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc

import pytest

from nodes.nats.settings import LinkSettings
from nodes.nats.transport import INCOMING_BYTES_MAX, OUTGOING_BYTES_MAX
from tests.lab.hostile import Faults, HostileHub, Rudeness
from tests.nodes.nats.test_link import Heard, running, until

LEFT: dict[Rudeness, str | tuple[str, ...]] = {
    Rudeness.SILENT: "no answer in time",
    Rudeness.NOT_NATS: "the server closed the connection before it said anything",
    Rudeness.LONG_LINE: "what the server sends cannot be used (ValueError)",
    Rudeness.NO_PONG: "the server does not answer",
    Rudeness.DENIES: "the server does not admit this node",
    Rudeness.ENDLESS: "the server sends a message without an end",
    Rudeness.ENDLESS_LINE: "the server sends a line without an end",
    Rudeness.GARBAGE: "what the server sends is not NATS",
    # It ends nats-py's reading: before the connection is up or after, as it happens.
    Rudeness.NOT_TEXT: ("no answer in time", "the server does not answer"),
    Rudeness.SMALL: "the server takes only messages smaller than 131072 bytes",
    Rudeness.STRANGE_SIZE: "the server takes only messages smaller than 131072 bytes",
}
MEMORY_BYTES = INCOMING_BYTES_MAX + 2 * OUTGOING_BYTES_MAX
"""What one rude hub may cost: what a link keeps of either direction, and as much again on the way."""


@pytest.mark.parametrize("rudeness", LEFT)
def test_a_rude_hub_is_left_for_the_next(rudeness: Rudeness) -> None:
    async def main() -> None:
        rude, good = await HostileHub(rudeness=rudeness).start(), await HostileHub().start()
        reasons: list[str] = []
        one = Heard(
            "one",
            [rude.url, good.url],
            subjects=["x"],
            on_change=lambda status: reasons.append(status.reason),
        )
        tracemalloc.start()
        try:
            async with running(one, wait=False):

                def there() -> bool:
                    reasons.append(one.reason)
                    return one.up and one.link.status().server == good.url.removeprefix("nats://")

                await until(there)
                assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
            assert any(reason.startswith(LEFT[rudeness]) for reason in reasons), set(reasons)
        finally:
            tracemalloc.stop()
            await rude.stop()
            await good.stop()

    asyncio.run(main())


@pytest.mark.parametrize("rudeness", [Rudeness.PINGS, Rudeness.SERVERS, Rudeness.PONGS])
def test_a_hub_cannot_fill_a_link(rudeness: Rudeness) -> None:
    async def main() -> None:
        rude = await HostileHub(rudeness=rudeness).start()
        one = Heard("one", [rude.url], subjects=["x"])
        tracemalloc.start()
        try:
            async with running(one, wait=False):
                if rudeness is Rudeness.PINGS:
                    await until(lambda: one.link.status().sent_bytes > 100_000)
                elif rudeness is Rudeness.SERVERS:
                    await until(lambda: one.link.status().received_bytes > 5_000_000, 20)
                else:
                    await until(lambda: one.link.status().received_bytes > 50_000)
                assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
        finally:
            tracemalloc.stop()
            await rude.stop()

    asyncio.run(main())


def test_a_hub_cannot_talk_a_link_out_of_tls() -> None:
    """nats-py believes a server that says it has none, and would go on in clear."""

    async def main() -> None:
        hub = await HostileHub().start()
        one = Heard("one", [hub.url.replace("nats:", "tls:")], tls=ssl.create_default_context())
        try:
            async with running(one, wait=False):
                await until(lambda: one.reason == "the server does not offer TLS")
                assert one.link.status().sent_bytes == 0
        finally:
            await hub.stop()

    asyncio.run(main())


def test_faults_reach_the_receiver_as_messages_and_the_same_seed_does_the_same() -> None:
    """The link promises nothing about messages, so none of this is its business; the laboratory must do it, though."""

    async def once(seed: int) -> tuple[list[tuple[str, bytes]], dict[str, int]]:
        hub = await HostileHub(
            seed, Faults(drop=0.1, repeat=0.1, late=0.1, swap=0.1, spoil=0.1, cut=0.1)
        ).start()
        settings = LinkSettings(ping_interval_s=10)
        one, two = Heard("one", [hub.url], settings=settings), Heard("two", [hub.url], subjects=["x.>"])
        try:
            async with running(one, two):
                for number in range(300):
                    await until(lambda n=number: one.link.send(f"x.{n % 3}", b"payload %d" % n))
                await until(lambda: len(two.messages) == hub.counts["delivered"] > 250)
                return two.messages, hub.counts
        finally:
            await hub.stop()

    messages, counts = asyncio.run(once(7))
    assert all(count > 5 for count in counts.values()), counts
    assert (messages, counts) == asyncio.run(once(7))
    assert messages != asyncio.run(once(8))[0]
