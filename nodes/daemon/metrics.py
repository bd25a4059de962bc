"""Metrics for Prometheus, on a loopback address: what `rxledger status` says, as numbers.

Labels are names of links, ids of nodes, lanes, codes and directions: nothing of any patient (R13), and few. Peers have a
label each up to `PEERS_LABELLED_MAX`, those silent longest first; the others count in the totals.

The server answers one connection at a time and gives each a moment: whoever holds one open keeps it from nobody for long.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger import Level
from ledger.errors import InvalidInput, RxLedgerError
from nodes.daemon.status import LANES, LaneCounts, LaneTimes, NodeStatus, PeerStatus
from nodes.links import LinkState

__all__ = ["MetricsServer", "StatusCollector", "metrics_text"]

PEERS_LABELLED_MAX = 64
"""Peers with metrics of their own: a district and its hubs. The agency looks at totals, and at status for one."""
CODES_MAX = 64
"""Codes of refusals: ours, some twenty."""
REQUEST_BYTES_MAX = 8 * 1024
CONNECTION_SECONDS = 2.0
"""For a request to come and its answer to leave, on one machine."""
BACKLOG = 16
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger("rxledger")


class StatusCollector(Collector):
    """Turns a status into metrics each time they are asked for."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking for a status only to learn names would cost as much as asking for the metrics."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All metrics of the present status."""
        status = self._status()
        yield from _node(status)
        yield from _links(status)
        yield from _peers(status)
        yield from _store(status)
        yield from _night(status)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"rxledger_{name}", text, value=value)


def _seconds(ms: int) -> float:
    return ms / 1000


def _node(s: NodeStatus) -> Iterable[Metric]:
    yield _gauge("start_time_seconds", "When the daemon started.", _seconds(s.started_ms))
    yield _gauge(
        "readiness_level", "0 normal, 1 strained, 2 crisis, 3 minimum.", list(Level).index(s.readiness.level)
    )
    yield _gauge(
        "readiness_by_itself", "Whether the level rose for want of the agency.", s.readiness.by_itself
    )
    yield _gauge(
        "agency_silence_seconds",
        "Since any node of the agency was heard.",
        _seconds(s.readiness.agency_silence_ms),
    )
    refusals = CounterMetricFamily(
        "rxledger_refusals", "What peers sent and was refused, by code.", labels=["code"]
    )
    for code, count in sorted(s.refusals.items())[:CODES_MAX]:
        refusals.add_metric([code], count)
    yield refusals


def _links(s: NodeStatus) -> Iterable[Metric]:
    up = GaugeMetricFamily("rxledger_link_up", "Whether a link is up.", labels=["link"])
    moved = CounterMetricFamily("rxledger_link_bytes", "Carried by a link.", labels=["link", "direction"])
    again = CounterMetricFamily("rxledger_link_reconnects", "How often a link came back.", labels=["link"])
    not_taken = CounterMetricFamily(
        "rxledger_link_not_taken", "Messages that a link did not take.", labels=["link"]
    )
    for link in s.links:
        up.add_metric([link.name], link.state is LinkState.UP)
        moved.add_metric([link.name, "out"], link.sent_bytes)
        moved.add_metric([link.name, "in"], link.received_bytes)
        again.add_metric([link.name], link.reconnects)
        not_taken.add_metric([link.name], link.refused)
    return (up, moved, again, not_taken)


def _lanes(counts: LaneCounts | LaneTimes | None) -> tuple[int, int, int]:
    return (0, 0, 0) if counts is None else (counts.stop, counts.supplies, counts.rest)


def _peers(s: NodeStatus) -> Iterable[Metric]:
    known = GaugeMetricFamily(
        "rxledger_peers", "Other nodes that are known.", value=len(s.peers) + s.peers_not_shown
    )
    in_step = _gauge(
        "peers_in_step",
        "Peers that held the same when last compared.",
        sum(p.in_step is True for p in s.peers),
    )
    totals = GaugeMetricFamily(
        "rxledger_lag_entries", "Entries lacking, over all peers; side: they or we.", labels=["side", "lane"]
    )  # fmt: skip
    oldest = GaugeMetricFamily(
        "rxledger_oldest_unsent_seconds", "Age of the oldest entry that any peer lacks, by lane; 0: none.", labels=["lane"]
    )  # fmt: skip
    for lane in LANES:
        totals.add_metric(["they", str(lane)], sum(_lanes(p.they_lack)[lane] for p in s.peers))
        totals.add_metric(["we", str(lane)], sum(_lanes(p.we_lack)[lane] for p in s.peers))
        times = [at for p in s.peers if (at := _lanes(p.oldest_unsent_ms)[lane])]
        oldest.add_metric([str(lane)], max(0.0, _seconds(s.at_ms - min(times, default=s.at_ms))))
    return (known, in_step, totals, oldest, *_each_peer(s.peers[:PEERS_LABELLED_MAX]))


def _each_peer(peers: Iterable[PeerStatus]) -> Iterable[Metric]:
    heard = GaugeMetricFamily(
        "rxledger_peer_heard_seconds", "When a peer was last heard; 0 never.", labels=["node"]
    )
    lag = GaugeMetricFamily(
        "rxledger_peer_lag_entries", "Entries that a peer lacks.", labels=["node", "lane"]
    )
    entries = CounterMetricFamily("rxledger_peer_entries", "Entries moved.", labels=["node", "direction"])
    moved = CounterMetricFamily("rxledger_peer_bytes", "Bytes moved.", labels=["node", "direction"])
    refused = CounterMetricFamily(
        "rxledger_peer_refused", "Messages of a peer that were refused.", labels=["node"]
    )
    for peer in peers:
        heard.add_metric([peer.node], _seconds(peer.heard_ms))
        if peer.they_lack is not None:
            for lane, count in zip(LANES, _lanes(peer.they_lack), strict=True):
                lag.add_metric([peer.node, str(lane)], count)
        entries.add_metric([peer.node, "in"], peer.entries_in)
        entries.add_metric([peer.node, "out"], peer.entries_out)
        moved.add_metric([peer.node, "in"], peer.bytes_in)
        moved.add_metric([peer.node, "out"], peer.bytes_out)
        refused.add_metric([peer.node], peer.refused)
    return (heard, lag, entries, moved, refused)


def _store(s: NodeStatus) -> Iterable[Metric]:
    store = s.store
    yield _gauge("entries", "Entries held.", store.entries)
    yield _gauge("feeds", "Feeds held.", store.feeds)
    yield _gauge("forked_feeds", "Feeds that are forked.", store.forked_feeds)
    yield _gauge("detached_entries", "Entries held ahead of their feeds.", store.detached)
    yield _gauge("store_bytes", "Size of store and log.", store.size_bytes)
    yield _gauge("disk_free_bytes", "Free beside the store.", store.free_bytes)
    yield _gauge("incarnation", "Of this node.", store.incarnation)
    yield _gauge(
        "horizon_age_seconds", "Since the author longest silent was heard; since 1970 if one never was.",
        max(0.0, _seconds(s.at_ms - store.oldest_unheard_ms)),
    )  # fmt: skip


def _night(s: NodeStatus) -> Iterable[Metric]:
    yield _gauge(
        "window_next_seconds",
        "When the nightly window opens next; 0: not configured.",
        _seconds(s.night.next_ms),
    )
    yield _gauge("window_open", "Whether it is open now.", s.night.running)
    last = s.night.last
    if last is None:
        return
    yield _gauge(
        "window_last_end_seconds", "When the last night's run ended; 0: cut off.", _seconds(last.ended_ms)
    )
    yield _gauge("window_last_whole", "Whether it left nothing undone.", last.whole)
    yield _gauge("window_last_bytes", "What it spent.", last.spent_bytes)
    yield _gauge("window_last_peers_in_step", "Peers in step at its end.", sum(t.in_step for t in last.peers))
    yield _gauge("window_last_peers_not_reached", "Peers it did not reach.", len(last.not_reached))
    if last.scrub is not None:
        yield _gauge("scrub_last_complete", "Whether the scrub came through.", last.scrub.complete)
        yield _gauge("scrub_last_damage", "Whether it found damage.", bool(last.scrub.damage))
    if last.backup is not None:
        yield _gauge("backup_last_verified", "Whether a backup was made and read back.", last.backup.verified)


def metrics_text(status: Callable[[], NodeStatus]) -> bytes:
    """All metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)


class MetricsServer:
    """Gives the metrics to who asks on a loopback address. `status` is called in its thread."""

    def __init__(self, address: tuple[str, int], status: Callable[[], NodeStatus]) -> None:
        self._status = status
        self._closing = threading.Event()
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            raise InvalidInput(
                f"metrics: {address[0]}:{address[1]} cannot be listened on ({error.strerror})",
                advice="choose another port, or leave metrics out",
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Answer from here on."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(CONNECTION_SECONDS * 2)
        self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                self._closing.wait(0.1)
                continue
            with sock, contextlib.suppress(OSError):
                self._answer(sock, time.monotonic() + CONNECTION_SECONDS)

    def _answer(self, sock: socket.socket, deadline: float) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            left = deadline - time.monotonic()
            if left <= 0 or len(request) > REQUEST_BYTES_MAX:
                return
            sock.settimeout(left)
            part = sock.recv(REQUEST_BYTES_MAX)
            if not part:
                return
            request += part
        code, body = self._body(request.split(b"\r\n", 1)[0])
        head = f"HTTP/1.0 {code}\r\nContent-Type: {_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        sock.sendall(head.encode() + body)

    def _body(self, line: bytes) -> tuple[str, bytes]:
        verb, _, rest = line.partition(b" ")
        if verb != b"GET":
            return "405 Method Not Allowed", b"only GET\n"
        if rest.split(b" ")[0].split(b"?")[0] != b"/metrics":
            return "404 Not Found", b"see /metrics\n"
        try:
            return "200 OK", metrics_text(self._status)
        except RxLedgerError as error:
            return "503 Service Unavailable", f"{error.code}\n".encode()
        except Exception as error:
            log.error("metrics.failed", kind=type(error).__name__)
            return "500 Internal Server Error", b"the status could not be made\n"
