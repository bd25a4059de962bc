"""What bundles promise: whole, cut short, damaged, hostile, repeated, in any order (R4, R6, R15)."""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
from dataclasses import dataclass

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LimitExceeded, Malformed, OtherRealm, PeerFault, VersionUnknown
from ledger.exchange import ImportReport
from ledger.feed import RUN_ENTRIES_MAX, Entry, Run
from ledger.identity import NodeRole
from ledger.ids import GOVERNANCE
from nodes import bundle
from nodes.bundle import BundleReport, decode_frontier, encode_frontier, export_bundle, import_bundle
from tests.ledger.realm_for_tests import NOW_MS, STOCKHOLM, UPPSALA, RealmForTests
from tests.nodes.replica_for_tests import Author, MemoryReplica

REALM = RealmForTests()
AUTHORS = [Author(REALM, seed) for seed in range(3)]
AFAR, GOVERNOR, EXPORTER = Author(REALM, 50, UPPSALA), Author(REALM, 51, GOVERNANCE), Author(REALM, 52)


def replica(*runs: Run, districts: tuple[str, ...] = (STOCKHOLM,)) -> MemoryReplica:
    made = MemoryReplica(REALM.realm, districts)
    made.import_openings(
        [a.signed for a in (*AUTHORS, AFAR, GOVERNOR) if any(r.feed == a.feed for r in runs)]
    )
    made.import_runs(runs)
    return made


def exported(source: MemoryReplica, **options: object) -> bytes:
    file = io.BytesIO()
    export_bundle(source, EXPORTER.keys.signing, EXPORTER.certificates, file, now_ms=NOW_MS, **options)  # type: ignore[arg-type]
    return file.getvalue()


def imported(into: MemoryReplica, data: bytes) -> BundleReport:
    return import_bundle(into, io.BytesIO(data), realm=REALM.realm)


def stocked() -> MemoryReplica:
    """Governance, two feeds, a fork, and an entry ahead of its feed."""
    stem = AUTHORS[0].chain(3)
    made = replica(
        stem, *(AUTHORS[0].chain(2, AUTHORS[0].end(stem), mark=mark) for mark in (1, 2)), AUTHORS[1].chain(4, every=2),
        GOVERNOR.chain(2),
    )  # fmt: skip
    later = AUTHORS[2].chain(3)
    made.import_openings([AUTHORS[2].signed])
    made.import_detached(AUTHORS[2].feed, list(AUTHORS[2].positions(later))[1][1], later.entries[2])
    return made


@dataclass
class Frame:
    kind: int
    plain: bytes

    @property
    def value(self) -> object:
        return msgspec.msgpack.decode(self.plain)


def frames(data: bytes) -> list[Frame]:
    found: list[Frame] = []
    for kind, plain, _ in bundle._frames(io.BytesIO(data[len(bundle.MAGIC) :])):
        found.append(Frame(kind, plain))
        if kind == bundle._SEAL:
            break
    return found


def built(*made: tuple[int, bytes]) -> bytes:
    """A file of these frames (kind, compressed body) with a good chain, for what no exporter of ours would write."""
    out, chain = bundle.MAGIC, bundle.tagged_hash("bundle", bundle.MAGIC)[:16]
    for kind, body in made:
        chain = bundle._following(chain, kind, body)
        out += len(body).to_bytes(4, "big") + bytes([kind]) + chain + body
    return out


def packed(value: object) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(value))


HEADER = (1, packed((1, REALM.realm.id, NOW_MS, EXPORTER.certificates)))


def holding(data: bytes) -> tuple[MemoryReplica, BundleReport]:
    into = replica()
    return into, imported(into, data)


# --- whole ----------------------------------------------------------------------------------------------------------


def test_a_bundle_brings_everything_and_names_its_sealed_exporter() -> None:
    source = stocked()
    into, report = holding(exported(source))
    assert into.held() == source.held()
    assert (report.new, report.complete, report.exporter) == (source.entries() + 1, True, "Apoteket Eken")


def test_importing_twice_does_nothing_the_second_time() -> None:
    into, first = holding(exported(stocked()))
    before = into.held()
    again = imported(into, exported(stocked()))
    assert (again.new, again.known, again.complete) == (0, first.new, True)
    assert into.held() == before


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=3))
def test_bundles_in_any_order_and_repeated_give_the_same(order: list[int], again: list[int]) -> None:
    stem = AUTHORS[0].chain(3)
    after = AUTHORS[0].end(stem)
    held = [
        replica(stem), replica(stem, AUTHORS[0].chain(2, after, mark=1)),
        replica(stem, AUTHORS[0].chain(4, after, mark=2), AUTHORS[1].chain(2)), replica(AUTHORS[1].chain(5)),
    ]  # fmt: skip
    into, plain = replica(), replica()
    for at in (*order, *again):
        assert imported(into, exported(held[at])).complete
    for source in held:
        imported(plain, exported(source))
    assert into.held() == plain.held()


def test_the_same_store_makes_the_same_bundle() -> None:
    assert exported(stocked()) == exported(stocked())


def test_governance_comes_first_and_the_seal_last() -> None:
    found = frames(exported(stocked()))
    assert found[0].kind == bundle._HEADER
    runs = [f for f in found if f.kind == bundle._RUNS]
    assert {run[0] for run in runs[0].value} == {GOVERNOR.feed}  # type: ignore[attr-defined]
    assert found[-1].kind == bundle._SEAL


# --- for a peer -------------------------------------------------------------------------------------------------------


def test_a_bundle_for_a_frontier_brings_only_what_that_peer_lacks() -> None:
    source = replica(*(a.chain(20) for a in AUTHORS))
    peer = replica(AUTHORS[0].chain(20), AUTHORS[1].chain(15))
    since = decode_frontier(encode_frontier({STOCKHOLM: peer.frontier(STOCKHOLM)}))
    report = imported(peer, exported(source, since=since))
    assert (report.new, report.known) == (25, 0)
    assert peer.held() == source.held()


def test_a_peer_that_is_ahead_is_not_sent_its_own_entries() -> None:
    peer = replica(AUTHORS[0].chain(20))
    data = exported(replica(AUTHORS[0].chain(5)), since={STOCKHOLM: peer.frontier(STOCKHOLM)})
    assert imported(peer, data).known == 0


def test_a_bundle_of_one_district_holds_nothing_of_another() -> None:
    stem = AFAR.chain(1)
    forked = [AFAR.chain(1, AFAR.end(stem), mark=mark) for mark in (1, 2)]
    source = replica(AUTHORS[0].chain(3), stem, *forked, districts=(STOCKHOLM, UPPSALA))
    into, report = holding(exported(source, districts={STOCKHOLM}))
    assert report.complete, report.problem
    assert set(into.openings) == {AUTHORS[0].feed}


# --- cut short and damaged -------------------------------------------------------------------------------------------


def test_a_bundle_cut_short_at_any_byte_is_taken_in_up_to_there_and_says_so() -> None:
    source = stocked()
    whole = exported(source)
    reached = -1
    for end in range(len(whole)):
        into = replica()
        try:
            report = imported(into, whole[:end])
        except Malformed:
            assert into.held() == replica().held()
            continue
        assert not report.complete
        assert report.problem
        assert report.exporter == ""
        assert into.entries() >= reached
        reached = into.entries()
        if end % 97 == 0:
            assert imported(into, whole).complete
            assert into.held() == source.held()
    assert reached == source.entries()


@given(st.data())
def test_a_bundle_damaged_anywhere_brings_a_true_beginning_and_is_never_complete(data: st.DataObject) -> None:
    source = stocked()
    whole = bytearray(exported(source))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    into = replica()
    try:
        report = imported(into, bytes(whole))
    except PeerFault:
        assert into.held() == replica().held()
        return
    assert not report.complete
    assert all(set(chain) <= set(source.chains[feed]) for feed, chain in into.chains.items())


@given(st.binary(max_size=300))
def test_no_file_at_all_ends_in_anything_but_a_typed_error(data: bytes) -> None:
    for file in (data, bundle.MAGIC + data, built(HEADER) + data, built((1, data)), built(HEADER, (3, data))):
        try:
            assert not imported(replica(), file).complete
        except PeerFault:
            continue


@given(
    st.integers(0, 9), st.recursive(st.none() | st.integers(-1, 2**64 - 1) | st.binary(max_size=40), st.lists)
)
def test_no_content_of_a_frame_ends_in_anything_but_a_typed_error(kind: int, value: object) -> None:
    for file in (built((1, packed(value))), built(HEADER, (kind, packed(value)))):
        try:
            imported(replica(), file)
        except PeerFault:
            continue


# --- hostile ---------------------------------------------------------------------------------------------------------


def test_what_is_no_bundle_newer_or_of_another_realm_is_refused_by_name() -> None:
    other = RealmForTests(seed=2).realm.id
    for error, data in (
        (Malformed, b"PK\x03\x04" + b"\0" * 100),
        (Malformed, built((3, packed(())))),
        (VersionUnknown, built((1, packed((2, REALM.realm.id, 0, ()))))),
        (OtherRealm, built((1, packed((1, other, 0, ()))))),
    ):
        with pytest.raises(error):
            imported(replica(), data)


NESTED = zstandard.ZstdCompressor().compress(
    b"\x95\x01\xc4\x10" + REALM.realm.id + b"\x00\x90" + b"\x91" * 50_000
)


@pytest.mark.parametrize(
    "made", [((1, NESTED),), (HEADER, (3, NESTED)), (HEADER, (5, NESTED))], ids=["1", "3", "5"]
)
def test_deep_nesting_ends_in_a_typed_error(made: tuple[tuple[int, bytes], ...]) -> None:
    with contextlib.suppress(Malformed, LimitExceeded):
        assert not imported(replica(), built(*made)).complete


def test_a_bomb_is_refused_before_it_inflates() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"\0" * bundle.PLAIN_BYTES_MAX)
    tracemalloc.start()
    report = imported(replica(), built(HEADER, (3, bomb)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "inflates" in report.problem
    assert peak < 1_000_000


def test_a_frame_that_hides_its_size_or_claims_a_large_one_is_refused() -> None:
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 100)
    report = imported(replica(), built(HEADER, (3, hidden)))
    assert not report.complete
    claims = built(HEADER) + (bundle.FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"\3" + b"c" * 16
    assert "at most" in imported(replica(), claims).problem
    with pytest.raises(LimitExceeded):
        imported(replica(), bundle.MAGIC + b"\xff\xff\xff\xff\1" + b"c" * 16)


def test_entries_without_content_do_not_gather_in_memory() -> None:
    dropped = Entry(1, 1, b"d" * 16, 1, 1, b"c" * 16, None, b"s" * 64, b"h" * 32)
    frame = (
        3,
        packed([Run(bytes([n % 256]) * 16, b"p" * 32, (dropped,) * RUN_ENTRIES_MAX) for n in range(4)]),
    )
    into = MemoryReplica(REALM.realm)
    imported(into, built(HEADER, *[frame] * 12))
    # Compressible rubbish is over the inflation limit, so the file is given up at its first frame.
    assert into.imports <= 1
    plain = [(3, packed([AUTHORS[n % 3].chain(1000, every=500, size=1)])) for n in range(90)]
    into = MemoryReplica(REALM.realm)
    into.import_openings([a.signed for a in AUTHORS])
    imported(into, built(HEADER, *plain))
    assert into.imports > 1


def test_a_seal_by_another_key_or_over_another_file_vouches_for_nothing() -> None:
    source = stocked()
    stranger = io.BytesIO()
    export_bundle(source, AUTHORS[0].keys.signing, EXPORTER.certificates, stranger, now_ms=NOW_MS)
    uncertified = io.BytesIO()
    export_bundle(source, EXPORTER.keys.signing, (), uncertified, now_ms=NOW_MS)
    other = RealmForTests(seed=3)
    foreign = io.BytesIO()
    keys = other.keys()
    export_bundle(
        source, keys.signing, other.chain(keys, NodeRole.PHARMACY, STOCKHOLM), foreign, now_ms=NOW_MS
    )
    for file in (stranger, uncertified, foreign):
        into, report = holding(file.getvalue())
        assert report.exporter == ""
        assert into.held() == source.held()


def test_one_bad_run_opening_or_proof_does_not_keep_out_the_rest() -> None:
    good, bad = AUTHORS[0].chain(3), AUTHORS[1].chain(3)
    forged = Run(AUTHORS[1].feed, bad.previous, (*bad.entries[:2], good.entries[2]))
    foreign = Author(RealmForTests(seed=2), 1).signed
    data = built(
        HEADER, (2, packed([foreign, AUTHORS[0].signed, AUTHORS[1].signed])), (3, packed([forged, good])),
    )  # fmt: skip
    into, report = holding(data)
    assert into.entries() == 3
    assert not report.complete
    assert report.feeds == 1


def test_a_frame_of_a_kind_to_come_is_passed_over_and_named() -> None:
    whole = built(
        HEADER, (77, packed(("new",))), (2, packed([AUTHORS[0].signed])), (3, packed([AUTHORS[0].chain(2)]))
    )
    into, report = holding(whole)
    assert into.entries() == 2
    assert "kind 77" in report.problem


# --- frontier files ------------------------------------------------------------------------------------------------


def test_a_frontier_reads_back_as_written() -> None:
    frontier = {STOCKHOLM: stocked().frontier(STOCKHOLM), GOVERNANCE: {}}
    assert decode_frontier(encode_frontier(frontier)) == frontier


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "[" * 100_000, '{"rxledger_frontier":1}', '{"rxledger_frontier":1,"districts":{"d":{"zz":[]}}}',
        '{"rxledger_frontier":1,"districts":{"d":{"' + "0" * 32 + '":[[99999999999999999999999,"' + "0" * 64 + '"]]}}}',
        '{"rxledger_frontier":1,"districts":{"d":{"' + "0" * 32 + '":[[-1,"' + "0" * 64 + '"]]}}}',
        '{"rxledger_frontier":1,"districts":{"d":{"' + "0" * 32 + '":[[1,"00"]]}}}',
    ],
)  # fmt: skip
def test_what_is_no_frontier_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decode_frontier(text)


def test_a_newer_frontier_is_named_as_such() -> None:
    with pytest.raises(VersionUnknown):
        decode_frontier('{"rxledger_frontier":2,"districts":{}}')


# --- speed and memory ------------------------------------------------------------------------------------------------


class Sink(MemoryReplica):
    """Takes everything and keeps nothing, to see what the bundle itself costs."""

    taken = 0

    def import_runs(self, runs):  # type: ignore[no-untyped-def]
        self.taken += sum(len(r.entries) for r in runs)
        return ImportReport()


def test_reading_a_bundle_costs_less_than_three_microseconds_an_entry() -> None:
    runs = [AUTHORS[0].chain(500, every=500, size=165) for _ in range(40)]
    data = built(HEADER, *[(3, packed([run])) for run in runs])
    best = 1.0
    for _ in range(3):
        sink = Sink(REALM.realm)
        start = time.process_time()
        imported(sink, data)
        best = min(best, time.process_time() - start)
        assert sink.taken == 20_000
    assert best / 20_000 < 3e-6
