"""The spool folder as a link: real nodes, real files, whatever a courier brings."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.ids import NodeId
from nodes.daemon import inbox, outbox
from nodes.daemon.config import SpoolConfig
from nodes.daemon.spool import Spool, SpoolReport, spool_of
from nodes.inprocess import synchronise
from nodes.ports import Frontier
from tests.nodes.local.site_for_tests import DISTRICT, DOCTOR, NUMBER, Site, order

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def clinic(site: Site) -> Iterator[Ledger]:
    with site.open("clinic") as ledger:
        yield ledger


@pytest.fixture
def pharmacy(site: Site) -> Iterator[Ledger]:
    with site.open("pharmacy") as ledger:
        yield ledger


def held(ledger: Ledger) -> dict[str, Frontier]:
    return {d: ledger.exchange.frontier(d) for d in ledger.exchange.districts()}


def looked(spool: Spool, ms: int) -> SpoolReport:
    """Two looks, far enough apart for a file to stand still."""
    spool.take_in(ms)
    return spool.take_in(ms + inbox.STILL_MS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bundle_of(ledger: Ledger, directory: Path) -> bytes:
    """Everything that a node holds, as its outbox writes it."""
    spool = spool_of(SpoolConfig(directory=directory, outbox="broadcast"), ledger)
    assert spool.write_out({}, 0).written == 1
    (path,) = (directory / "outbox").iterdir()
    return path.read_bytes()


# --- there and back -------------------------------------------------------------------------------------------------


def test_two_nodes_come_into_step_by_a_stick_alone(clinic: Ledger, pharmacy: Ledger, tmp_path: Path) -> None:
    clinic.prescribe(order(), person=DOCTOR)
    one, other = (
        spool_of(SpoolConfig(directory=tmp_path / name), ledger)
        for name, ledger in (("one", clinic), ("other", pharmacy))
    )
    me, you = clinic.node.identity.node, pharmacy.node.identity.node
    written = one.write_out({you: {}}, 0)
    assert written.written == 1
    assert written.entries_written > 0
    (brought,) = (tmp_path / "one/outbox").iterdir()
    assert brought.name == f"{me.hex()[:16]}-{you.hex()}-00000001.rxb"
    assert written.bytes_out == brought.stat().st_size

    other.take_in(0)
    shutil.move(brought, tmp_path / "other/inbox" / brought.name)
    assert other.take_in(1000).taken == 0  # It has not stood still.
    report = other.take_in(1000 + inbox.STILL_MS)
    assert (report.taken, report.refused, report.problem) == (1, (), "")
    assert report.new_entries > 0
    assert clinic.inquiry.frontier_digest([DISTRICT]) == pharmacy.inquiry.frontier_digest([DISTRICT])
    assert len(names(tmp_path / "other/done")) == 1
    assert names(tmp_path / "other/inbox") == []
    # What it now holds is known by what it sends back.
    assert other.write_out({me: held(clinic)}, 2000).written == 0
    assert one.write_out({you: held(pharmacy)}, 2000).written == 0


def test_nothing_is_written_again_while_nothing_is_new(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    you = NodeId(b"\7" * 16)
    assert spool.write_out({you: {}}, 0).written == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outbox").iterdir()}
    for ms in (1, 60_000, 10 * outbox.AGAIN_AFTER_MS):
        assert spool.write_out({you: {}}, ms).written == 0
    # Nor by a daemon begun anew.
    assert spool_of(SpoolConfig(directory=tmp_path), clinic).write_out({you: {}}, 5).written == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outbox").iterdir()} == before

    clinic.prescribe(order(), person=DOCTOR)
    assert spool.write_out({you: {}}, 100).written == 1
    assert len(names(tmp_path / "outbox")) == 1  # In the place of the one before.


def test_a_bundle_that_was_taken_away_is_written_anew_after_a_day(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    you = NodeId(b"\7" * 16)
    spool.write_out({you: {}}, 0)
    next((tmp_path / "outbox").iterdir()).unlink()
    assert spool.write_out({you: {}}, outbox.AGAIN_AFTER_MS - 1).written == 0
    assert spool.write_out({you: {}}, outbox.AGAIN_AFTER_MS).written == 1


def test_what_a_peer_holds_by_now_is_taken_out_of_the_outbox(
    clinic: Ledger, pharmacy: Ledger, tmp_path: Path
) -> None:
    clinic.prescribe(order(), person=DOCTOR)
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    you = pharmacy.node.identity.node
    assert spool.write_out({you: held(pharmacy)}, 0).written == 1
    synchronise(clinic.exchange, pharmacy.exchange)
    assert spool.write_out({you: held(pharmacy)}, 1).written == 0
    assert names(tmp_path / "outbox") == []
    clinic.prescribe(order(), person=DOCTOR)
    assert spool.write_out({you: held(pharmacy)}, 2).entries_written == 1
    # A peer that is written to no more leaves nothing behind.
    assert spool.write_out({}, 3).written == 0
    assert names(tmp_path / "outbox") == []


def test_a_broadcast_holds_what_any_peer_lacks(clinic: Ledger, pharmacy: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path, outbox="broadcast"), clinic)
    synchronise(clinic.exchange, pharmacy.exchange)
    before = held(pharmacy)
    clinic.prescribe(order(), person=DOCTOR)
    one, other = NodeId(b"\1" * 16), NodeId(b"\2" * 16)
    assert spool.write_out({one: before, other: held(clinic)}, 0).entries_written == 1
    (name,) = names(tmp_path / "outbox")
    assert name == f"{clinic.node.identity.node.hex()[:16]}-all-00000001.rxb"
    assert spool.write_out({one: {}, other: held(clinic)}, 1).entries_written > 1


def test_an_outbox_may_be_off(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path, outbox="off"), clinic)
    assert spool.write_out({NodeId(bytes(16)): {}}, 0).written == 0


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_comes_with_the_next(clinic: Ledger, pharmacy: Ledger, tmp_path: Path) -> None:
    """A bundle of many entries in small pieces: each whole, each joining the one before."""
    rng = random.Random(1)
    for _ in range(100):  # Text that compresses by half: some 1.3 kB an entry.
        clinic.prescribe(order(dosage=rng.randbytes(1000).hex()), person=DOCTOR)
    limit = 64_000
    config = SpoolConfig(directory=tmp_path / "one", bundle_bytes_max=limit, outbox_bytes_max=limit)
    one = spool_of(config, clinic)
    other = spool_of(SpoolConfig(directory=tmp_path / "other"), pharmacy)
    you = pharmacy.node.identity.node
    waited = 0
    for turn in range(20):
        report = one.write_out({you: held(pharmacy)}, turn)
        if not report.written:
            break
        waited += report.waiting
        (path,) = (tmp_path / "one/outbox").iterdir()
        assert path.stat().st_size <= limit
        other.take_in(0)
        shutil.move(path, tmp_path / "other/inbox" / path.name)
        taken = looked(other, turn * 10_000)
        assert taken.refused == ()
    assert waited >= 1, "it was all in one"
    assert clinic.inquiry.frontier_digest([DISTRICT]) == pharmacy.inquiry.frontier_digest([DISTRICT])


def test_a_full_outbox_waits_and_says_so(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path, outbox_bytes_max=MIB), clinic)
    (tmp_path / "outbox").mkdir(parents=True)
    (tmp_path / "outbox" / "somebody.iso").write_bytes(bytes(MIB))
    report = spool.write_out({NodeId(b"\7" * 16): {}}, 0)
    assert (report.written, report.waiting) == (0, 1)
    (tmp_path / "outbox" / "somebody.iso").unlink()
    assert spool.write_out({NodeId(b"\7" * 16): {}}, 1).written == 1


def test_what_a_crash_left_in_the_outbox_is_removed(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    me = clinic.node.identity.node.hex()[:16]
    (tmp_path / "outbox").mkdir(parents=True)
    for left in (f".{me}-all-00000001.rxb.new", f"{me}-all-00000001.rxb", "theirs.rxb"):
        (tmp_path / "outbox" / left).write_bytes(b"half")
    spool.write_out({}, 0)
    assert names(tmp_path / "outbox") == ["theirs.rxb"]


# --- what a courier brings --------------------------------------------------------------------------------------------


def put(tmp_path: Path, name: str, data: bytes) -> Path:
    (tmp_path / "inbox").mkdir(parents=True, exist_ok=True)
    path = tmp_path / "inbox" / name
    path.write_bytes(data)
    return path


def test_only_bundles_that_stand_still_are_touched(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    put(tmp_path, "notes.txt", b"hands off")
    put(tmp_path, ".hidden.rxb", b"hands off")
    (tmp_path / "inbox" / "folder.rxb").mkdir()
    growing = put(tmp_path, "growing.rxb", b"1")
    spool.take_in(0)
    growing.write_bytes(b"12")
    assert spool.take_in(inbox.STILL_MS).refused == ()
    assert spool.take_in(2 * inbox.STILL_MS - 1).refused == ()
    assert spool.take_in(2 * inbox.STILL_MS).refused == ("malformed",)
    assert names(tmp_path / "inbox") == [".hidden.rxb", "folder.rxb", "notes.txt"]


def test_a_clock_set_back_begins_the_wait_anew_and_ends_it(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    put(tmp_path, "a.rxb", b"rubbish")
    spool.take_in(1_000_000)
    assert spool.take_in(5).refused == ()
    assert spool.take_in(5 + inbox.STILL_MS).refused == ("malformed",)


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: b"", "malformed"),
        (lambda data: b"PK\3\4 a picture of a cat", "malformed"),
        (damaged, "malformed"),
        (lambda data: data[:-200], "malformed"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(
    clinic: Ledger, pharmacy: Ledger, tmp_path: Path, spoil: Callable[[bytes], bytes], code: str
) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path / "spool"), pharmacy)
    put(tmp_path / "spool", f"{NUMBER} Tolvan.rxb", spoil(bundle_of(clinic, tmp_path / "from")))
    report = looked(spool, 0)
    assert report.refused == (code,)
    reason, bundle = names(tmp_path / "spool/refused")
    assert reason.replace(".reason.txt", ".rxb") == bundle
    assert (tmp_path / "spool/refused" / reason).read_text().startswith(f"{code}\n")
    # Its name was somebody's, and is nowhere any more (R13).
    assert NUMBER not in "".join(str(p) for p in (tmp_path / "spool").rglob("*"))
    assert NUMBER not in (tmp_path / "spool/inbox.json").read_text()


def test_a_bundle_cut_short_is_taken_in_as_far_as_it_is_whole(
    clinic: Ledger, pharmacy: Ledger, tmp_path: Path
) -> None:
    clinic.prescribe(order(), person=DOCTOR)
    whole = bundle_of(clinic, tmp_path / "from")
    spool = spool_of(SpoolConfig(directory=tmp_path / "spool"), pharmacy)
    put(tmp_path / "spool", "a.rxb", whole[:-20])  # Within its seal.
    report = looked(spool, 0)
    assert (report.refused, report.new_entries > 0) == (("malformed",), True)
    (reason,) = (tmp_path / "spool/refused").glob("*.reason.txt")
    assert "new entries of it were taken in" in reason.read_text()
    assert clinic.inquiry.frontier_digest([DISTRICT]) == pharmacy.inquiry.frontier_digest([DISTRICT])


def test_a_bundle_of_another_realm_is_refused(
    clinic: Ledger, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Site(tmp_path_factory.mktemp("elsewhere")).open("pharmacy") as stranger:
        spool = spool_of(SpoolConfig(directory=tmp_path / "spool"), stranger)
        put(tmp_path / "spool", "a.rxb", bundle_of(clinic, tmp_path / "from"))
        assert looked(spool, 0).refused == ("other-realm",)


def test_what_is_no_plain_file_is_not_opened(clinic: Ledger, tmp_path: Path) -> None:
    secret = tmp_path / "secret.rxb"
    secret.write_bytes(b"x")
    (tmp_path / "s/inbox").mkdir(parents=True)
    (tmp_path / "s/inbox/link.rxb").symlink_to(secret)
    os.mkfifo(tmp_path / "s/inbox/pipe.rxb")
    spool = spool_of(SpoolConfig(directory=tmp_path / "s"), clinic)
    report = looked(spool, 0)
    assert report.refused == ("malformed", "malformed")
    assert secret.read_bytes() == b"x"
    assert names(tmp_path / "s/inbox") == []


def test_a_file_that_is_too_large_is_not_read(clinic: Ledger, tmp_path: Path) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path, bundle_bytes_max=MIB), clinic)
    path = put(tmp_path, "large.rxb", b"")
    os.truncate(path, MIB + 1)
    assert looked(spool, 0).refused == ("limit-exceeded",)


def test_a_flood_of_files_takes_its_turn_and_is_not_kept(
    clinic: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "KEPT_FILES_MAX", 3)
    monkeypatch.setattr(inbox, "FILES_A_LOOK_MAX", 4)
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    for number in range(9):
        put(tmp_path, f"{number}.rxb", b"rubbish %d" % number)
    spool.take_in(0)
    assert [len(spool.take_in(inbox.STILL_MS + n).refused) for n in range(4)] == [4, 4, 1, 0]
    kept = names(tmp_path / "refused")
    assert len(kept) == 6
    assert {name[:8] for name in kept} == {"00000007", "00000008", "00000009"}


def test_a_stick_that_can_only_be_read_is_taken_in_once(
    clinic: Ledger, pharmacy: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "s", "a.rxb", bundle_of(clinic, tmp_path / "from"))
    spool = spool_of(SpoolConfig(directory=tmp_path / "s"), pharmacy)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.parent.name == "inbox":
            raise OSError(errno.EROFS, "read-only file system")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert looked(spool, 0).taken == 1
    assert spool.take_in(10 * inbox.STILL_MS).taken == 0
    again = spool_of(SpoolConfig(directory=tmp_path / "s"), pharmacy)
    assert looked(again, 0).taken == 0
    # Another file under the same name is another file.
    put(tmp_path / "s", "a.rxb", b"rubbish")
    assert looked(again, 50_000).refused == ("malformed",)


def test_a_folder_that_cannot_be_used_is_a_report_and_no_error(clinic: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = spool_of(SpoolConfig(directory=tmp_path / "file" / "spool"), clinic)
    assert "cannot be read" in spool.take_in(0).problem
    assert "cannot be written" in spool.write_out({NodeId(b"\7" * 16): {}}, 0).problem


@pytest.mark.parametrize("name", ["inbox.json", "outbox.json"])
def test_a_damaged_memory_costs_a_repetition(clinic: Ledger, tmp_path: Path, name: str) -> None:
    spool = spool_of(SpoolConfig(directory=tmp_path), clinic)
    spool.write_out({NodeId(b"\7" * 16): {}}, 0)
    (tmp_path / name).write_bytes(b"{")
    again = spool_of(SpoolConfig(directory=tmp_path), clinic)
    put(tmp_path, "a.rxb", b"rubbish")
    assert looked(again, 0).refused == ("malformed",)
    assert len(names(tmp_path / "outbox")) == 1
    again.write_out({NodeId(b"\7" * 16): {}}, 1)
    assert len(names(tmp_path / "outbox")) == 1
