"""Bundles: entries in a file, for USB, mail or courier (section 7 of the design).

``magic | frames``. A frame is ``length (4 bytes) | kind (1) | chain (16) | zstandard frame``; `chain` is a truncated hash
over the chain so far and the frame, so a file cut short or damaged is taken in up to there, and says so. The last
frame is a seal: the exporter's signature over the chain. Entries prove themselves; the seal vouches for the whole.
Governance comes first; of each district its openings, entries held ahead of their feeds, runs, then proofs of fork.
Importing twice, in any order, or a part, does no harm. Both ways memory is bounded, whatever is in store or file (R15).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, BinaryIO

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from ledger.errors import LimitExceeded, Malformed, OtherRealm, PeerFault, VersionUnknown
from ledger.feed import ForkProof, Run, SignedOpening
from ledger.identity import Realm, verify_chain
from ledger.ids import GOVERNANCE, FeedId, Link, tagged_hash
from nodes.messages import Ahead
from nodes.ports import Frontier, Replica, all_runs, entry_bytes, lacks, run_bytes

__all__ = [
    "BundleReport",
    "decode_frontier",
    "encode_frontier",
    "export_bundle",
    "import_bundle",
]

MAGIC = b"RXBUNDLE"
VERSION = 1
FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Compressed; ours have some 100 kB."""
PLAIN_BYTES_MAX = 16 * 1024 * 1024
"""Inflated: bounds memory whatever a file claims."""
INFLATION_MAX = 64
"""Bytes out for a byte in: sealed content does not compress, so ours have some 1.2; bounds work to the size of a file."""
INFLATION_FREE_BYTES = 64 * 1024
"""What a frame may inflate to anyhow."""
PROBLEMS_MAX = 8
"""Different things that were wrong with one bundle, told to the operator."""
FRONTIER_TEXT_MAX = 64 * 1024 * 1024
"""Characters of a frontier as JSON: some 400,000 feeds."""
FRAME_BYTES = 512 * 1024
"""Where a frame is closed: with the last run it stays below half of what importing allows."""
OPENINGS_PER_FRAME = 200
IMPORT_BYTES = 4 * 1024 * 1024
"""Taken in with one transaction: some 20,000 entries. Indexes of a large store are written once, not frame by frame."""
_CHAIN_BYTES = 16
_HEADER, _OPENINGS, _RUNS, _PROOFS, _SEAL, _AHEAD = range(1, 7)
_BAD = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding rubbish ends in."""
_SIGN_TAG = b"rxledger/1 sign bundle\0"

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]


class _Header(Struct, frozen=True, array_like=True):
    version: int
    realm: Bytes16
    created_ms: int
    certificates: Annotated[tuple[Annotated[bytes, Meta(max_length=2048)], ...], Meta(max_length=3)]


class _Seal(Struct, frozen=True, array_like=True):
    entries: int
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class BundleReport(Struct, frozen=True, kw_only=True):
    """What was written or taken in."""

    feeds: int = 0
    entries: int = 0
    new: int = 0
    known: int = 0
    complete: bool = True
    exporter: str = ""
    """Name of the node that sealed it, if its seal holds."""
    problem: str = ""


_header_decoder = msgspec.msgpack.Decoder(_Header)
_openings_decoder = msgspec.msgpack.Decoder(tuple[SignedOpening, ...])
_runs_decoder = msgspec.msgpack.Decoder(tuple[Run, ...])
_proofs_decoder = msgspec.msgpack.Decoder(tuple[ForkProof, ...])
_ahead_decoder = msgspec.msgpack.Decoder(tuple[Ahead, ...])
_seal_decoder = msgspec.msgpack.Decoder(_Seal)


class _Writer:
    def __init__(self, destination: BinaryIO) -> None:
        self._out = destination
        self._zstd = zstandard.ZstdCompressor(level=1)
        self.chain = tagged_hash("bundle", MAGIC)[:_CHAIN_BYTES]
        destination.write(MAGIC)

    def frame(self, kind: int, value: object) -> None:
        body = self._zstd.compress(msgspec.msgpack.encode(value))
        self.chain = _following(self.chain, kind, body)
        self._out.write(len(body).to_bytes(4, "big") + bytes([kind]) + self.chain + body)


def _following(chain: bytes, kind: int, body: bytes) -> bytes:
    return tagged_hash("bundle frame", chain, bytes([kind]), body)[:_CHAIN_BYTES]


def export_bundle(
    replica: Replica,
    key: Ed25519PrivateKey,
    certificates: tuple[bytes, ...],
    destination: BinaryIO,
    *,
    since: Mapping[str, Frontier] | None = None,
    districts: set[str] | None = None,
    now_ms: int,
) -> BundleReport:
    """Write what a peer with the frontier `since` lacks (None: everything), of these districts (None: all) and governance.

    A peer that is ahead in a feed is not sent that feed again.
    """
    writer = _Writer(destination)
    writer.frame(_HEADER, _Header(VERSION, replica.realm, now_ms, certificates))
    wanted = replica.districts() if districts is None else {GOVERNANCE, *districts} & replica.districts()
    feeds = entries = 0
    for district in sorted(wanted, key=lambda d: (d != GOVERNANCE, d)):
        known = (since or {}).get(district, {})
        ours = replica.frontier(district)
        unknown = tuple(replica.opening(feed) for feed in ours if feed not in known)
        for at in range(0, len(unknown), OPENINGS_PER_FRAME):
            writer.frame(_OPENINGS, unknown[at : at + OPENINGS_PER_FRAME])
        _write_ahead(writer, replica, district)
        batch: list[Run] = []
        size = 0
        for feed, heads in sorted(ours.items()):
            if not lacks(known.get(feed, ()), heads):
                continue
            before = entries
            for run in all_runs(replica, feed, known.get(feed, ())):
                entries += len(run.entries)
                batch.append(run)
                size += run_bytes(run)
                if size >= FRAME_BYTES:
                    writer.frame(_RUNS, batch)
                    batch, size = [], 0
            feeds += entries > before
        if batch:
            writer.frame(_RUNS, batch)
        for proof in replica.fork_proofs():
            if proof.left.feed in ours and len(known.get(FeedId(proof.left.feed), ())) < 2:
                writer.frame(_PROOFS, (proof,))
    writer.frame(_SEAL, _Seal(entries, key.sign(_SIGN_TAG + writer.chain)))
    return BundleReport(feeds=feeds, entries=entries)


def _write_ahead(writer: _Writer, replica: Replica, district: str) -> None:
    batch: list[Ahead] = []
    size = 0
    for link in replica.detached_links(district):
        found = replica.detached_entry(link)
        if found is None:
            continue
        batch.append(Ahead(*found))
        size += entry_bytes(found[2])
        if size >= FRAME_BYTES:
            writer.frame(_AHEAD, batch)
            batch, size = [], 0
    if batch:
        writer.frame(_AHEAD, batch)


def _frames(source: BinaryIO) -> Iterator[tuple[int, bytes, bytes]]:
    """Kind, inflated body and chain before it; raises `Malformed` where the file ends or is damaged."""
    chain = tagged_hash("bundle", MAGIC)[:_CHAIN_BYTES]
    zstd = zstandard.ZstdDecompressor(max_window_size=1 << 23)
    while True:
        head = source.read(5 + _CHAIN_BYTES)
        if len(head) < 5 + _CHAIN_BYTES:
            raise Malformed("the bundle ends before its seal")
        length, kind = int.from_bytes(head[:4], "big"), head[4]
        if length > FRAME_BYTES_MAX:
            raise LimitExceeded(f"a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")
        body = source.read(length)
        before, chain = chain, _following(chain, kind, body)
        if len(body) < length or chain != head[5:]:
            raise Malformed("the bundle is cut short or damaged")
        try:
            size = zstandard.frame_content_size(body)
            allowed = min(PLAIN_BYTES_MAX, INFLATION_FREE_BYTES + INFLATION_MAX * length)
            if not 0 <= size <= allowed:
                raise LimitExceeded(
                    f"a frame of {length} bytes that inflates to {size}; at most {allowed} are allowed"
                )
            plain = zstd.decompress(
                body, max_output_size=size, read_across_frames=False, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise Malformed("a frame cannot be inflated") from error
        yield kind, plain, before


def import_bundle(replica: Replica, source: BinaryIO, *, realm: Realm | None = None) -> BundleReport:
    """Take in a bundle, as far as it is whole.

    Args:
        replica: where to.
        source: the file.
        realm: with it, the exporter's seal is checked and named in the report.

    Raises:
        OtherRealm, Malformed, VersionUnknown: nothing of it can be used.
    """
    if source.read(len(MAGIC)) != MAGIC:
        raise Malformed("this file is not a bundle")
    taking = _Taking(replica)
    exporter = ""
    header: _Header | None = None
    try:
        for kind, plain, chain in _frames(source):
            if header is None:
                header = _open_header(kind, plain, replica)
            elif kind == _SEAL:
                exporter = _check_seal(_seal_decoder.decode(plain), chain, header, realm)
                break
            else:
                taking.frame(kind, plain)
    except (OtherRealm, VersionUnknown):
        raise
    except PeerFault as error:
        if header is None:
            raise
        taking.note(error.message)
    except _BAD as error:
        if header is None:
            raise Malformed("the bundle's header cannot be decoded") from error
        taking.note("a frame cannot be decoded")
    taking.flush()
    return BundleReport(
        feeds=len(taking.feeds),
        entries=taking.entries,
        new=taking.new,
        known=taking.known,
        complete=not taking.problems,
        exporter=exporter,
        problem="; ".join(taking.problems),
    )


class _Taking:
    """Takes frames in: runs gathered into large transactions, everything else at once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._runs: list[Run] = []
        self._size = 0
        self.new = self.known = self.entries = 0
        self.feeds: set[bytes] = set()
        self.problems: list[str] = []

    def note(self, problem: str) -> None:
        """Remember what was wrong, each kind once."""
        if problem and problem not in self.problems and len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    def frame(self, kind: int, plain: bytes) -> None:
        if kind == _RUNS:
            for run in _runs_decoder.decode(plain):
                self._runs.append(run)
                self._size += run_bytes(run)
            if self._size >= IMPORT_BYTES:
                self.flush()
        elif kind == _OPENINGS:
            for opening in _openings_decoder.decode(plain):
                self.note(_taken(self._replica, opening=opening))
        elif kind == _AHEAD:
            for ahead in _ahead_decoder.decode(plain):
                self._take_ahead(ahead)
        elif kind == _PROOFS:
            self.flush()
            for proof in _proofs_decoder.decode(plain):
                self.note(_taken(self._replica, proof=proof))
        else:
            self.note(f"a frame of kind {kind}, which this version does not read")

    def _take_ahead(self, ahead: Ahead) -> None:
        try:
            new = self._replica.import_detached(FeedId(ahead.feed), Link(ahead.previous), ahead.entry)
        except PeerFault as error:
            self.note(error.message)
            return
        self.entries += 1
        self.new += new
        self.known += not new

    def flush(self) -> None:
        runs, self._runs, self._size = self._runs, [], 0
        if not runs:
            return
        report = self._replica.import_runs(runs)
        self.new, self.known = self.new + report.new, self.known + report.known
        self.entries += sum(len(run.entries) for run in runs)
        refused = {feed for feed, _ in report.refused}
        self.feeds.update(run.feed for run in runs if run.feed not in refused)
        if report.refused:
            self.note("runs refused: " + ", ".join(sorted({code for _, code in report.refused})))
        if report.gaps:
            self.note("runs that join nothing held here")


def _open_header(kind: int, plain: bytes, replica: Replica) -> _Header:
    if kind != _HEADER:
        raise Malformed("the bundle does not begin with a header")
    header = _header_decoder.decode(plain)
    if header.version != VERSION:
        raise VersionUnknown(f"a bundle of version {header.version}; this software reads version {VERSION}")
    if header.realm != replica.realm:
        raise OtherRealm("the bundle is of another realm")
    return header


def _check_seal(seal: _Seal, chain: bytes, header: _Header, realm: Realm | None) -> str:
    if realm is None:
        return ""
    try:
        certified = verify_chain(realm, header.certificates)
        Ed25519PublicKey.from_public_bytes(certified.public_key).verify(seal.signature, _SIGN_TAG + chain)
    except (PeerFault, InvalidSignature):
        return ""
    return certified.name


def _taken(replica: Replica, *, opening: SignedOpening | None = None, proof: ForkProof | None = None) -> str:
    """Take one in; what is wrong with it, if anything, so that the rest can go on."""
    try:
        if opening is not None:
            replica.import_openings([opening])
        if proof is not None:
            replica.import_fork_proof(proof)
    except PeerFault as error:
        return error.message
    return ""


_Sequence = Annotated[int, Meta(ge=0, lt=1 << 53)]
_HexId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
_HexLink = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _FrontierFile(Struct, frozen=True):
    rxledger_frontier: int
    districts: dict[str, dict[_HexId, list[tuple[_Sequence, _HexLink]]]]


def encode_frontier(frontier: Mapping[str, Frontier]) -> str:
    """A frontier as JSON, for `bundle export --for-frontier`."""
    districts = {
        district: {
            feed.hex(): [(sequence, link.hex()) for sequence, link in heads]
            for feed, heads in sorted(feeds.items())
        }
        for district, feeds in sorted(frontier.items())
    }
    return msgspec.json.encode(_FrontierFile(VERSION, districts)).decode()


def decode_frontier(text: str) -> dict[str, Frontier]:
    """A frontier from its JSON.

    Raises:
        LimitExceeded, Malformed, VersionUnknown: it is not one, or not of this version.
    """
    if len(text) > FRONTIER_TEXT_MAX:
        raise LimitExceeded(f"a frontier of {len(text)} characters; at most {FRONTIER_TEXT_MAX} are allowed")
    try:
        file = msgspec.json.decode(text, type=_FrontierFile)
    except _BAD as error:
        raise Malformed("this file is not a frontier") from error
    if file.rxledger_frontier != VERSION:
        raise VersionUnknown(
            f"a frontier of version {file.rxledger_frontier}; this software reads version {VERSION}"
        )
    return {
        district: {
            FeedId(bytes.fromhex(feed)): tuple(
                sorted((sequence, Link(bytes.fromhex(link))) for sequence, link in heads)
            )
            for feed, heads in feeds.items()
        }
        for district, feeds in file.districts.items()
    }
