"""The outbox of a spool folder: a bundle for each peer with what it is not known to hold, or one for all.

- A bundle appears whole or not at all, and is not written again while nothing is new.
- The outbox as a whole has a size. What does not fit waits, and the report says so; entries that do not fit into one
  bundle come with the next, after the peer has told what it holds.
- File names carry node ids and numbers only (R13).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, BinaryIO, cast

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, RxLedgerError
from ledger.identity import Realm
from ledger.ids import NodeId, tagged_hash
from ledger.store.connection import sync_directory
from nodes.bundle import export_bundle
from nodes.daemon.config import SpoolConfig
from nodes.daemon.files import read_small, replace_whole
from nodes.daemon.metered import Metered
from nodes.daemon.spooling import MEMORY_MAX, SUFFIX, SpoolReport, make_folders, total
from nodes.ports import Frontier, Replica, lacks

__all__ = ["Outbox", "Sealer"]

AGAIN_AFTER_MS = 24 * 3600 * 1000
"""A bundle that was taken away, and after which nothing was heard of its peer, is written anew after a day: lost sticks."""
OVERHEAD_SHARE = 8
"""An eighth of the room is for openings, proofs and frames; a bundle that has more of them than that waits."""
BROADCAST = "all"
STATE_FILE = "outbox.json"

log = structlog.get_logger("rxledger")


class Sealer(Struct, frozen=True, kw_only=True):
    """Who seals bundles."""

    realm: Realm
    node: NodeId
    key: Ed25519PrivateKey
    certificates: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Sealer({self.node.hex()})"


class _Written(Struct, frozen=True):
    """A bundle once written."""

    basis: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """A hash of what was held here and known of the peer."""
    file: Annotated[str, Meta(pattern=r"^[0-9a-z-]{1,80}\.rxb$")]
    at_ms: int


class _State(Struct, frozen=True):
    number: int = 0
    written: Annotated[dict[str, _Written], Meta(max_length=MEMORY_MAX)] = {}


class _Held:
    """What is held here at one moment: asked for once, however many peers are written to."""

    def __init__(self, replica: Replica) -> None:
        self._ours = {district: replica.frontier(district) for district in sorted(replica.districts())}
        self._ahead = [link for district in self._ours for link in replica.detached_links(district)]
        self._mine = tagged_hash("spool ours", _canonical(self._ours), *self._ahead)

    def beyond(self, theirs: Mapping[str, Frontier]) -> bool:
        """Whether there is anything to carry to who is known to hold so much."""
        return bool(self._ahead) or any(
            lacks(theirs.get(district, {}).get(feed, ()), heads)
            for district, feeds in self._ours.items()
            for feed, heads in feeds.items()
        )

    def basis(self, theirs: Mapping[str, Frontier]) -> str:
        """A hash of both: while it is the same, so is the bundle."""
        return tagged_hash("spool basis", self._mine, _canonical(theirs)).hex()


def _canonical(frontiers: Mapping[str, Frontier]) -> bytes:
    return msgspec.msgpack.encode([(d, sorted(feeds.items())) for d, feeds in sorted(frontiers.items())])


class Outbox:
    """Used by one thread at a time."""

    def __init__(self, config: SpoolConfig, replica: Replica, sealer: Sealer) -> None:
        self._config, self._replica, self._sealer = config, replica, sealer
        self._root = config.directory
        self._folder = config.directory / "outbox"
        self._state = self._load()

    def _load(self) -> _State:
        try:
            data = read_small(self._root / STATE_FILE)
            return _State() if data is None else msgspec.json.decode(data, type=_State)
        except (RxLedgerError, msgspec.MsgspecError, ValueError, RecursionError):
            log.warning("spool.state-unreadable", file=STATE_FILE)  # Everything is written once more.
            return _State()

    def _keep(self, state: _State) -> None:
        self._state = state
        replace_whole(self._root / STATE_FILE, msgspec.json.encode(state))

    def write_out(self, peers: Mapping[NodeId, Mapping[str, Frontier]], now_ms: int) -> SpoolReport:
        """Write what each peer is not known to hold, where that is something new.

        Args:
            peers: what each peer is known to hold, by district; empty: nothing is known of it.
            now_ms: milliseconds since 1970 UTC.
        """
        if self._config.outbox == "off":
            return SpoolReport()
        targets: dict[str, Mapping[str, Frontier]]
        if self._config.outbox == "broadcast":
            targets = {BROADCAST: _held_by_all(list(peers.values()))}
        else:
            targets = {node.hex(): held for node, held in sorted(peers.items())[:MEMORY_MAX]}
        report = SpoolReport()
        ours = _Held(self._replica)
        try:
            self._prepare()
            # Where a peer is no longer written to, nothing is left lying for a courier.
            for target in sorted(self._state.written.keys() - targets.keys()):
                self._withdraw(target)
            for target, held in targets.items():
                report = total(report, self._write(target, ours, held, now_ms))
        except OSError as error:
            return total(
                report, SpoolReport(problem=f"the outbox cannot be written ({type(error).__name__})")
            )
        return report

    def _write(self, target: str, ours: _Held, held: Mapping[str, Frontier], now_ms: int) -> SpoolReport:
        if not ours.beyond(held):
            self._withdraw(target)
            return SpoolReport()
        basis = ours.basis(held)
        before = self._state.written.get(target)
        if before is not None and before.basis == basis:
            lies_there = (self._folder / before.file).exists()
            if lies_there or 0 <= now_ms - before.at_ms < AGAIN_AFTER_MS:
                return SpoolReport()
        room = min(self._config.outbox_bytes_max - self._lying(besides=before), self._config.bundle_bytes_max)
        number = self._state.number + 1
        name = f"{self._sealer.node.hex()[:16]}-{target[:32]}-{number:08d}{SUFFIX}"
        metered = Metered(self._replica, room - room // OVERHEAD_SHARE)
        size, entries = self._export(name, metered.replica, held, now_ms, room)
        if size == 0:
            return SpoolReport(waiting=1)
        if before is not None and before.file != name:
            (self._folder / before.file).unlink(missing_ok=True)
        written = {**self._state.written, target: _Written(basis, name, now_ms)}
        self._keep(msgspec.structs.replace(self._state, number=number, written=written))
        return SpoolReport(
            written=1, entries_written=entries, bytes_out=size, waiting=int(metered.withheld)
        )  # fmt: skip

    def _export(
        self, name: str, replica: Replica, held: Mapping[str, Frontier], now_ms: int, limit: int
    ) -> tuple[int, int]:
        """Write one bundle; its bytes and entries, or nothing if it would not fit."""
        path = self._folder / name
        fresh = path.with_name(f".{name}.new")
        sealer = self._sealer
        try:
            with fresh.open("xb") as file:
                fresh.chmod(0o600)
                report = export_bundle(
                    replica, sealer.key, sealer.certificates, cast("BinaryIO", _Capped(file, limit)), since=held, now_ms=now_ms
                )  # fmt: skip
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            fresh.replace(path)
            sync_directory(path.parent)
        except LimitExceeded:
            return 0, 0
        finally:
            fresh.unlink(missing_ok=True)
        return size, report.entries

    def _withdraw(self, target: str) -> None:
        """Remove the bundle of a peer that lacks nothing, or is gone."""
        before = self._state.written.get(target)
        if before is None:
            return
        (self._folder / before.file).unlink(missing_ok=True)
        rest = {name: written for name, written in self._state.written.items() if name != target}
        self._keep(msgspec.structs.replace(self._state, written=rest))

    def _lying(self, *, besides: _Written | None) -> int:
        """Bytes of bundles waiting in the outbox, whoever put them there."""
        total = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if besides is None or path.name != besides.file:
                    total += path.lstat().st_size
        return total

    def _prepare(self) -> None:
        """Make the folders; remove what a crash left half written."""
        make_folders(self._root)
        for left in self._folder.glob(f".*{SUFFIX}.new"):
            left.unlink(missing_ok=True)
        ours = {written.file for written in self._state.written.values()}
        for stray in self._folder.glob(f"{self._sealer.node.hex()[:16]}-*{SUFFIX}"):
            if stray.name not in ours:
                stray.unlink(missing_ok=True)


class _Capped:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise LimitExceeded("the bundle does not fit into the outbox")
        return self._file.write(data)


def _held_by_all(peers: list[Mapping[str, Frontier]]) -> dict[str, Frontier]:
    """What every one of these peers is known to hold of the feeds that are not forked."""
    if not peers:
        return {}
    shared: dict[str, Frontier] = {}
    for district, feeds in peers[0].items():
        for feed in feeds:
            heads = [peer.get(district, {}).get(feed, ()) for peer in peers]
            if all(len(ends) == 1 for ends in heads):
                shared.setdefault(district, {})[feed] = (min(ends[0] for ends in heads),)
    return shared
