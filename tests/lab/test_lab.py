"""The laboratory itself: its faults happen, end when they should, and leave nothing on the machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nodes.nats.outflow import Outflow
from tests.lab.lab import FAR_KINDS, KINDS, open_lab
from tests.lab.netlab import Netlab, NetlabFailed, why_not
from tests.lab.proxy import DOWN, UP, Proxy
from tests.lab.wan import Wan, Way

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = "namespaces" in KINDS
FAR_NAMESPACES = "namespaces" in FAR_KINDS
ECHO = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("0.0.0.0", 9000))
print("ready", flush=True)
while True:
    data, sender = one.recvfrom(2048)
    one.sendto(data, sender)
"""
ASK = """
import socket, sys, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(float(sys.argv[2]))
answers = []
for number in range(int(sys.argv[3])):
    began = time.monotonic()
    one.sendto(b"%d" % number, (sys.argv[1], 9000))
    try:
        one.recv(100)
    except TimeoutError:
        continue
    answers.append(time.monotonic() - began)
print(len(answers), sum(answers) / max(1, len(answers)))
"""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def echo(net: Netlab, host: str) -> None:
    process = net.start(host, sys.executable, "-c", ECHO, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def ask(
    net: Netlab, host: str, address: str, *, times: int = 3, patience_s: float = 0.2
) -> tuple[int, float]:
    """How many answers came, and after how long on average."""
    command = net.command(host, sys.executable, "-c", ASK, address, str(patience_s), str(times))
    count, mean = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(count), float(mean)


def test_it_says_which_ways_work_here() -> None:
    print(f"kinds here: {', '.join(KINDS)}; far: {', '.join(FAR_KINDS)}; {why_not()}")
    assert KINDS[-1] == FAR_KINDS[-1] == "relays"
    assert (not why_not()) is NAMESPACES


@pytest.mark.skipif(not NAMESPACES, reason="no namespaces here")
def test_cuts_cut_one_way_or_both_and_heal() -> None:
    with Netlab(["a", "b", "c"]) as net:
        echo(net, "a")
        assert ask(net, "b", net.address("a"))[0] == 3
        net.cut("a", "b", one_way=True)
        assert ask(net, "b", net.address("a"))[0] == 0
        assert net.dropped() >= 3
        assert ask(net, "c", net.address("a"))[0] == 3
        net.heal()
        assert ask(net, "b", net.address("a"))[0] == 3
        net.unplug("b")
        assert ask(net, "b", net.address("a"))[0] == 0
        net.plug("b")
        until(lambda: ask(net, "b", net.address("a"))[0] == 3)
        net.lose("a", "b", 50)
        assert 5 < ask(net, "b", net.address("a"), times=60, patience_s=0.02)[0] < 40
        net.heal()
        net.rate("b", 9600)
        assert ask(net, "b", net.address("a"), times=100, patience_s=10)[1] > 0.02, "after the first packets"
        net.unrate("b")


@pytest.mark.skipif(not NAMESPACES, reason="no namespaces here")
def test_a_wrong_command_is_an_error() -> None:
    with Netlab(["a"]) as net, pytest.raises(NetlabFailed):
        net.cut("a", "b c")


@pytest.mark.skipif(not NAMESPACES, reason="no namespaces here")
def test_a_laboratory_whose_test_is_killed_leaves_nothing() -> None:
    code = (
        "import sys, time\nfrom tests.lab.netlab import Netlab\nnet = Netlab(['a']).__enter__()\n"
        "sleep = 'import time; print(1, flush=True); time.sleep(60)'\n"
        "one = net.start('a', sys.executable, '-c', sleep, stdout=-1)\none.stdout.readline()\n"
        "print(net._keeper.pid, net._inside, one.pid, flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    test = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    with test:
        assert test.stdout is not None
        pids = [int(pid) for pid in test.stdout.readline().split()]
        assert len(pids) == 3
        test.send_signal(signal.SIGKILL)
    until(lambda: not any(is_alive(pid) for pid in pids))


def settled(wan: Wan) -> dict[str, int]:
    """The counts when nothing moves any more."""
    before: dict[str, int] = {}
    while before != (now := wan.counts()):
        before = now
        time.sleep(0.1)
    return before


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not FAR_NAMESPACES, reason="no /dev/net/tun here")
def test_a_long_way_delays_loses_and_repeats_the_same_for_the_same_seed() -> None:
    with Netlab(["a", "b"]) as net:
        counts = []
        for seed in (1, 1, 2):
            with Wan(net, seed) as wan:
                echo_port = net.start("a", sys.executable, "-c", ECHO, stdout=subprocess.PIPE, text=True)
                assert echo_port.stdout is not None
                echo_port.stdout.readline()
                wan.shape("a", "b", Way(delay_s=0.1))
                count, mean = ask(net, "b", wan.address("a"), patience_s=2)
                assert count == 3
                assert 0.2 <= mean < 0.4
                wan.shape("a", "b", Way(loss=0.2, repeat=0.2))
                ask(net, "b", wan.address("a"), times=50, patience_s=0.02)
                counts.append(settled(wan))
                wan.shape("a", "b", Way(cut=True))
                assert ask(net, "b", wan.address("a"), patience_s=0.1)[0] == 0
                echo_port.kill()
                echo_port.wait()
        assert counts[0]["lost"] > 5
        assert counts[0]["repeated"] > 5
        assert counts[0] == counts[1] != counts[2]


# --- relays ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a relay to a server that says everything again."""

    async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.transport.abort()

    async with await asyncio.start_server(again, "127.0.0.1", 0) as server:
        proxy = await Proxy("127.0.0.1", server.sockets[0].getsockname()[1]).start()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.transport.abort()
            await proxy.stop()


@pytest.mark.parametrize("ways", [(UP,), (DOWN,), (UP, DOWN)])
def test_a_relay_holds_and_lets_go(ways: tuple[int, ...]) -> None:
    async def main() -> None:
        async with echoing() as (proxy, reader, writer):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            proxy.hold(*ways)
            writer.write(b"two")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.read(1)
            assert proxy.ways[DOWN].passed == 3
            proxy.heal()
            assert await reader.readexactly(3) == b"two"

    asyncio.run(main())


def test_a_relay_breaks_off_in_the_middle_and_refuses() -> None:
    async def main() -> None:
        async with echoing() as (proxy, reader, writer):
            proxy.reset_after(100, DOWN)
            writer.write(bytes(1000))
            assert await reader.readexactly(100) == bytes(100)
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            proxy.refuse()
            again, second = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await again.readexactly(1)
            second.transport.abort()

    asyncio.run(main())


def test_a_relay_is_as_slow_and_as_long_as_it_is_told_and_takes_in_little() -> None:
    async def main() -> None:
        async with echoing() as (proxy, reader, writer):
            loop = asyncio.get_running_loop()
            proxy.slow(80_000, 0.1)
            began = loop.time()
            writer.write(bytes(5000))
            await reader.readexactly(5000)
            assert 0.7 < loop.time() - began < 2, "half a second there, and the two delays"
            one = writer.get_extra_info("socket")
            proxy.hold()
            writer.write(bytes(1 << 20))
            await asyncio.sleep(0.5)  # In which a greedy relay would take all of it.
            assert (1 << 20) - Outflow(
                one
            ).unacknowledged() - writer.transport.get_write_buffer_size() < 32_768
            assert proxy.ways[UP].passed == 5000

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_laboratory_leaves_no_process(kind: str, tmp_path: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    with open_lab(kind, ["site", "hub1"], tmp_path) as lab:
        lab.server("hub1")
        assert children.read_text() != before
    assert children.read_text() == before
