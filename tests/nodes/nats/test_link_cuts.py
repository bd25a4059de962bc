"""A link in a network that is cut, one-sided, flapping or thin: real servers, and where the machine allows, real cables.

Tests run in each kind of laboratory that works here (their names say which): namespaces, or relays on loopback. Those
that take ten seconds run in the best kind only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.nats.outflow import QUEUE_BYTES_MIN
from nodes.nats.settings import LinkSettings
from tests.lab.lab import FAR_KINDS, KINDS, Lab, NamespaceLab, open_lab
from tests.lab.proxy import WINDOW_BYTES
from tests.lab.talker import Talker
from tests.lab.wan import Way

PING_S = 1
QUICK = LinkSettings(
    ping_interval_s=PING_S,
    connect_timeout_s=1,
    handshake_timeout_s=3,
    retry_first_s=0.1,
    retry_max_s=0.5,
    stable_s=3,
)
THIN = LinkSettings(ping_interval_s=10)
DETECTED_S = 3 * PING_S + 1.5
"""Three ping intervals, and what a loaded machine adds."""
DEAF_S = 4 * PING_S + 1.5
"""One more where only what we send is lost: what still comes in is a sign of life, until the kernel gives up on a ping,
or the hub on us (where a relay acknowledges what it does not pass on)."""
SPEED_BITS = 9600
FLOOD_S = 8
DELAY_S = 0.3


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with open_lab(request.param, ["site", "other", "hub1", "hub2"], tmp_path) as made:
        yield made


@pytest.fixture(params=KINDS[:1])
def best_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with open_lab(request.param, ["site", "other", "hub1"], tmp_path) as made:
        yield made


@pytest.fixture(params=FAR_KINDS[:1])
def far_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with open_lab(request.param, ["site", "other", "hub1"], tmp_path, far=True) as made:
        yield made


def both_hubs(lab: Lab) -> None:
    """Two servers that know nothing of each other; they ask for signs of life as often as the links do."""
    for hub in ("hub1", "hub2"):
        lab.server(hub, f'ping_interval: "{PING_S}s"\nping_max: 2\n')


def up(talker: Talker, seconds: float = 10) -> float:
    return talker.until(lambda: talker.up, seconds)


def until_after(seconds: float) -> None:
    """Time itself is the condition here: how long a cut lasts."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize("way", ["both ways", "nothing to the hub", "nothing from the hub"])
def test_a_silent_cut_is_found_in_three_pings_and_the_second_hub_taken(lab: Lab, way: str) -> None:
    both_hubs(lab)
    site = lab.talk("site", ["hub1", "hub2"], ["x"], QUICK)
    up(site)
    first = site.status()
    found_s = DETECTED_S
    if way == "both ways":
        lab.cut("site", "hub1")
    elif way == "nothing to the hub":
        lab.cut("site", "hub1", one_way=True)
        found_s = DEAF_S
    else:
        lab.cut("hub1", "site", one_way=True)
    assert site.until(lambda: site.status().server != first.server, found_s) > PING_S
    up(site)
    second = site.status()
    assert second.server == lab.url("site", "hub2").removeprefix("nats://")
    assert second.reconnects == 1
    if isinstance(lab, NamespaceLab):
        assert lab.net.dropped() > 0, "nothing met the cut"
    other = lab.talk("other", ["hub2"], [], QUICK)
    up(other)
    assert other.send("x", b"over the second")
    site.until(lambda: [payload for _, payload, _ in site.messages] == [b"over the second"], 5)


def test_a_full_buffer_does_not_delay_finding_a_cut(lab: Lab) -> None:
    both_hubs(lab)
    site = lab.talk("site", ["hub1", "hub2"], [], QUICK)
    up(site)
    first = site.status().server
    lab.cut("site", "hub1")
    began = time.monotonic()
    while site.send("x", bytes(60_000)):
        pass
    assert site.until(lambda: site.status().server not in ("", first), 15) < DETECTED_S + QUICK.retry_first_s
    assert time.monotonic() - began > PING_S


def test_what_is_sent_while_down_never_arrives_and_what_is_sent_after_does(lab: Lab) -> None:
    lab.server("hub1")
    site, other = (lab.talk(host, ["hub1"], ["x"], QUICK) for host in ("site", "other"))
    up(site)
    up(other)
    lab.cut("site", "hub1")
    site.until(lambda: not site.up, DETECTED_S)
    assert not any(site.send("x", b"while down") for _ in range(20))
    lab.heal()
    up(site)
    assert site.send("x", b"after")
    other.until(lambda: bool(other.messages), 5)
    assert [payload for _, payload, _ in other.messages] == [b"after"]


def test_a_hub_that_crashes_and_comes_back_empty_is_found_again(lab: Lab) -> None:
    hub = lab.server("hub1")
    site, other = (lab.talk(host, ["hub1"], ["x"], QUICK) for host in ("site", "other"))
    up(site)
    up(other)
    hub.kill()
    assert site.until(lambda: not site.up, DETECTED_S) < 1, "a closed connection needs no ping"
    assert site.status().reason
    hub.start()
    up(site)
    up(other)
    assert site.send("x", b"again")
    other.until(lambda: bool(other.messages), 5)


def test_a_flapping_way_wears_nothing_out(best_lab: Lab) -> None:
    best_lab.server("hub1")
    site, other = (best_lab.talk(host, ["hub1"], ["x"], QUICK) for host in ("site", "other"))
    up(site)
    up(other)
    for turn in range(5):
        best_lab.cut("site", "hub1", one_way=turn % 2 == 0)
        # Sometimes too short to be noticed, sometimes not.
        until_after(turn % 4)
        best_lab.heal()
        until_after(turn % 3 / 2)
    up(site)
    assert site.send("x", b"still here")
    other.until(lambda: b"still here" in [payload for _, payload, _ in other.messages], 5)


def test_on_a_thin_line_an_urgent_message_waits_for_two_kilobytes(best_lab: Lab) -> None:
    """With the line kept full for a while, what lies below `send` stays near `QUEUE_BYTES_MIN`."""
    best_lab.server("hub1")
    site, other = (best_lab.talk(host, ["hub1"], ["urgent"], THIN) for host in ("site", "other"))
    up(site)
    up(other)
    best_lab.rate("site", SPEED_BITS)
    keep_full(best_lab, site, other, round_trip_s=0)


def test_behind_a_far_modem_with_a_long_queue_too(far_lab: Lab) -> None:
    """Twenty seconds of queue that is not ours, half-way: nobody's socket options reach it."""
    far_lab.server("hub1")
    site, other = (far_lab.talk(host, ["hub1"], ["urgent"], THIN) for host in ("site", "other"))
    # Before they meet: TCP that knew a faster way sends everything twice until it has learnt.
    far_lab.shape("site", "hub1", Way(bits_per_s=SPEED_BITS, delay_s=DELAY_S))
    up(site, 60)
    up(other)
    keep_full(far_lab, site, other, round_trip_s=2 * DELAY_S)


def test_a_way_that_loses_repeats_and_overtakes_carries_every_message_in_order(far_lab: Lab) -> None:
    far_lab.server("hub1")
    site, other = (far_lab.talk(host, ["hub1"], ["x"], THIN) for host in ("site", "other"))
    way = Way(bits_per_s=SPEED_BITS, delay_s=DELAY_S, jitter_s=0.1, loss=0.05, repeat=0.05)
    far_lab.shape("site", "hub1", way)
    print(f"{far_lab.kind}: connected after {up(site, 60):.2f} s over {way}")
    up(other)
    sent = [b"%d" % number for number in range(30)]
    for payload in sent:
        site.until(lambda payload=payload: site.send("x", payload), 20)
    other.until(lambda: len(other.messages) == len(sent), 60)
    assert [payload for _, payload, _ in other.messages] == sent
    if isinstance(far_lab, NamespaceLab):
        assert far_lab.wan is not None
        counts = far_lab.wan.counts()
        assert counts["lost"] > 0
        assert counts["repeated"] > 0


def keep_full(lab: Lab, site: Talker, other: Talker, *, round_trip_s: float) -> None:
    """Flood the site's line, then send one message more: what lay below, and how long it took."""
    filled = site.flood("bulk", 480, FLOOD_S)
    began = time.monotonic()
    site.until(lambda: site.send("urgent", bytes(200)), 5)
    other.until(lambda: bool(other.messages), 10)
    waited = other.messages[0][2] - began
    print(f"{lab.kind}: {filled}, an urgent message of 200 bytes took {waited:.2f} s")
    assert filled["sent"] * 480 * 8 / FLOOD_S > SPEED_BITS * 0.6, "the line was kept busy"
    # A relay acknowledges what it has only taken in: a window's worth on either side.
    hidden = 0 if isinstance(lab, NamespaceLab) else 2 * WINDOW_BYTES
    # Twice the floor is where a bound may stand after what a shaper let through at once.
    assert filled["most_below"] <= 2 * QUEUE_BYTES_MIN
    assert waited < (2 * QUEUE_BYTES_MIN + hidden) * 8 / SPEED_BITS + round_trip_s + 1
