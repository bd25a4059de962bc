"""Ways are cut, one way or both, flap, thin out, break off, and the hub dies: work goes on, and nothing differs afterwards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.cluster.book import AGREE_SECONDS, Book, agree, holds
from tests.cluster.work import working
from tests.lab.cluster import FAR_HERE, HERE, Member, open_cluster, until
from tests.lab.proxy import DOWN, UP
from tests.lab.wan import Way
from tests.lab.ways import Cables, Relays

NOTICED_SECONDS = 60
"""Three pings of ten seconds without an answer."""
BACK_SECONDS = 90
"""The longest pause between two attempts is half a minute; TLS over a thin way takes ten seconds."""


def is_down(member: Member) -> bool:
    return not member.up()


def has_connected(ways: Relays, host: str, times: int) -> bool:
    return ways.connections(host) > times


@pytest.mark.parametrize("kind", HERE)
def test_short_cuts_and_flapping_lose_nothing(kind: str, tmp_path: Path) -> None:
    book = Book()
    with open_cluster(kind, tmp_path) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        ways = cluster.ways
        with working(cluster, book) as work:
            work.wait_for("dispense 1", 2)
            for host, cut in (("eken", (UP, DOWN)), ("linden", (UP,)), ("linden", (DOWN,))):
                ways.cut(host, *cut)
                work.wait_for("prescribe", 10)
                if UP not in cut or DOWN in cut:
                    # What has just been issued cannot have come here; one way only, it may be asked for, not told.
                    last = book.acknowledged("prescribe")[-1]
                    assert not holds(cluster[host], last), "it was not cut"
                ways.heal()
                until(
                    partial(holds, cluster[host], book.acknowledged("prescribe")[-1]),
                    AGREE_SECONDS,
                    "healing",
                )
            for _ in range(8):
                ways.cut("clinic")
                work.wait_for("prescribe", 2)
                ways.heal()
                work.wait_for("prescribe", 2)
            work.wait_for("claim", 1)
        took = agree(cluster, AGREE_SECONDS)
        print(f"{kind}: the same after {took:.1f} s; {book.counts()}")
        book.check(cluster)


@pytest.mark.parametrize("kind", HERE)
def test_cuts_that_are_noticed_and_the_hub_dead_and_back_empty(kind: str, tmp_path: Path) -> None:
    """Both ways for one pharmacy, one way for the other, then nobody has a hub."""
    book = Book()
    with open_cluster(kind, tmp_path) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        with working(cluster, book, pause_s=0.5) as work:
            work.wait_for("dispense 1", 2)
            cluster.ways.cut("eken")
            cluster.ways.cut("linden", DOWN)
            for name in ("eken", "linden"):
                until(partial(is_down, cluster[name]), NOTICED_SECONDS, f"{name} notices")
            before = len(book.acknowledged("dispense 1"))
            work.wait_for("prescribe", 2)
            cluster.hub.end()
            until(partial(is_down, cluster["clinic"]), NOTICED_SECONDS, "a dead hub is noticed")
            work.wait_for("prescribe", 2)
            cluster.ways.heal()
            cluster.hub.start()
            for member in cluster:
                until(member.up, BACK_SECONDS, f"{member.name} is back")
            work.wait_for("dispense 1", 2)
            assert len(book.acknowledged("dispense 1")) > before
        took = agree(cluster, AGREE_SECONDS)
        print(f"{kind}: the same after {took:.1f} s; {book.counts()}")
        book.check(cluster)


def test_connections_that_break_off_in_the_middle_of_a_message_lose_nothing(tmp_path: Path) -> None:
    book = Book()
    with open_cluster(Relays.kind, tmp_path) as cluster:
        assert isinstance(cluster.ways, Relays)
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        with working(cluster, book, claims=False) as work:
            for number in range(4):
                host, way = ("eken", "linden", "clinic")[number % 3], (UP, DOWN)[number % 2]
                before = cluster.ways.connections(host)
                # Within a record of TLS, and a message of ours, some of them.
                cluster.ways.reset(host, 777 + 1111 * number, way)
                until(partial(has_connected, cluster.ways, host, before), BACK_SECONDS, "a new connection")
                work.wait_for("prescribe", 2)
        for member in cluster:
            until(member.up, BACK_SECONDS, f"{member.name} is back")
        took = agree(cluster, AGREE_SECONDS)
        print(f"the same after {took:.1f} s; {book.counts()}")
        book.check(cluster)


@pytest.mark.parametrize("kind", FAR_HERE)
def test_a_thin_long_and_lossy_way_carries_what_counts(kind: str, tmp_path: Path) -> None:
    """9,600 bit/s, 0.3 s each way, every fiftieth packet lost: a pharmacy on a radio."""
    book = Book()
    with open_cluster(kind, tmp_path, far=True) as cluster:
        cluster["linden"].configure(link="slow = true\nbandwidth_bits_per_s = 9600")
        if isinstance(cluster.ways, Cables):
            cluster.ways.shape("linden", Way(delay_s=0.3, loss=0.02, bits_per_s=9600))
        else:
            cluster.ways.slow("linden", 9600, 0.3)
        cluster.start()
        agree(cluster, BACK_SECONDS)
        with working(cluster, book, claims=False, pause_s=0.5) as work:
            work.wait_for("dispense 1", 4, BACK_SECONDS)
        took = agree(cluster, 2 * BACK_SECONDS)
        by = {tried.by for tried in book.acknowledged("dispense 1")}
        print(f"{kind}: the same after {took:.1f} s; {book.counts()} by {sorted(by)}")
        book.check(cluster)
