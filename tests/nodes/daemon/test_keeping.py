"""Scrub and backups: the store read and checked beside the owner, and copies that were read back before older ones go."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import InvalidInput, Ledger, SystemClock, UnlockFile
from ledger.ids import NodeId
from ledger.store import restore_store
from nodes.daemon import backups, scrub
from nodes.daemon.backups import back_up, backups_in
from nodes.daemon.scrub import Scrub, ScrubMemory
from tests.nodes.local.site_for_tests import DISTRICT, DOCTOR, Site, order

NOW_MS = 1_795_500_000_000
DAY_MS = 86_400_000


class Ticking:
    """A monotonic clock that goes on by one second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("site"))
    with site.open("clinic") as ledger:
        for _ in range(5):
            ledger.prescribe(order(), person=DOCTOR)
    return site


@pytest.fixture
def directory(site: Site, tmp_path: Path) -> Path:
    """A node of its own for each test."""
    return Path(shutil.copytree(site.node("clinic"), tmp_path / "clinic"))


def spoil(store: Path) -> None:
    """Flip a bit of an entry's sealed bytes, behind everybody's back."""
    with sqlite3.connect(store) as database:
        (number, sealed) = database.execute("SELECT rowid, sealed FROM entry ORDER BY rowid DESC").fetchone()
        database.execute(
            "UPDATE entry SET sealed = ? WHERE rowid = ?", (bytes([sealed[0] ^ 1]) + sealed[1:], number)
        )
    database.close()


# --- scrub ------------------------------------------------------------------------------------------------------------


def test_a_scrub_goes_on_in_slices_while_the_owner_writes(site: Site, directory: Path) -> None:
    with Ledger.open(directory, site.unlock) as owner:
        before = sum(1 for _ in owner.inquiry.verify())
        scrubbing = Scrub(directory, site.unlock, SystemClock(), monotonic=Ticking())
        slices = 1
        while not (result := scrubbing.step(seconds=2)).complete:
            slices += 1
            assert scrubbing.under_way
            assert result.ended_ms == 0
            owner.prescribe(order(), person=DOCTOR)
        assert slices >= 3
        assert before <= result.checked_entries <= before + slices
        assert result.ended_ms > 0
        assert not scrubbing.under_way
        assert Scrub(directory, site.unlock, SystemClock()).memory.completed_entries == result.checked_entries


def test_damage_is_found_told_and_kept(site: Site, directory: Path) -> None:
    spoil(directory / "store.db")
    result = Scrub(directory, site.unlock, SystemClock()).step(seconds=60)
    assert result.damage
    assert not result.complete
    again = Scrub(directory, site.unlock, SystemClock())
    assert again.memory.damage == result.damage
    assert again.memory.completed_ms == 0


def test_a_scrub_given_up_begins_anew_and_the_last_whole_one_is_remembered(
    site: Site, directory: Path
) -> None:
    first = Scrub(directory, site.unlock, SystemClock())
    whole = first.step(seconds=60)
    assert whole.complete
    second = Scrub(directory, site.unlock, SystemClock(), monotonic=Ticking())
    assert not second.step(seconds=2).complete
    second.close()
    memory = Scrub(directory, site.unlock, SystemClock()).memory
    assert 0 < memory.checked_entries < whole.checked_entries
    assert memory.completed_entries == whole.checked_entries


def test_progress_is_noted_on_the_way(site: Site, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "NOTED_EVERY_ENTRIES", 2)
    scrubbing = Scrub(directory, site.unlock, SystemClock(), monotonic=Ticking())
    scrubbing.step(seconds=5)
    assert Scrub(directory, site.unlock, SystemClock()).memory.checked_entries >= 2
    scrubbing.close()


@pytest.mark.parametrize("content", [b"{", b'{"checked_entries":"x"}', b"\0" * 2_000_000])
def test_a_damaged_memory_of_scrubs_is_begun_anew(site: Site, directory: Path, content: bytes) -> None:
    (directory / "scrub.json").write_bytes(content)
    assert Scrub(directory, site.unlock, SystemClock()).memory == ScrubMemory()


# --- backups ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def owner(site: Site, directory: Path) -> Iterator[Ledger]:
    with Ledger.open(directory, site.unlock) as ledger:
        yield ledger


def node_of(ledger: Ledger) -> NodeId:
    return ledger.node.identity.node


def test_backups_rotate_beside_the_owner_and_each_can_be_put_back(
    site: Site, directory: Path, owner: Ledger, tmp_path: Path
) -> None:
    place = tmp_path / "backups"
    (place).mkdir()
    (place / "holiday.db").write_text("not ours")
    entries = []
    for day in range(4):
        owner.prescribe(order(), person=DOCTOR)
        result = back_up(directory, node_of(owner), place, 2, NOW_MS + day * DAY_MS)
        assert (result.verified, result.why) == (True, "")
        assert result.removed == (1 if day >= 2 else 0)
        entries.append(result.entries)
    assert entries == [entries[0] + n for n in range(4)]
    kept = backups_in(place, node_of(owner))
    assert [p.name for p in kept] == sorted(p.name for p in kept)
    assert len(kept) == 2
    assert kept[-1].name == result.file
    assert {p.name for p in place.iterdir()} == {*(p.name for p in kept), "holiday.db"}
    assert all(p.stat().st_mode & 0o077 == 0 for p in kept)

    digest = owner.inquiry.state_digest([DISTRICT])
    restored = tmp_path / "restored"
    shutil.copytree(directory, restored, ignore=shutil.ignore_patterns("store.db*"))
    restore_store(kept[-1], restored / "store.db")
    with Ledger.open(restored, site.unlock) as back:
        assert back.inquiry.state_digest([DISTRICT]) == digest
        assert back.node.writer.incarnation == 2


def test_a_clock_set_back_does_not_make_the_newest_the_oldest(
    directory: Path, owner: Ledger, tmp_path: Path
) -> None:
    made = [
        back_up(directory, node_of(owner), tmp_path / "b", 2, NOW_MS + ms).file
        for ms in (5 * DAY_MS, 5 * DAY_MS, 0, 6 * DAY_MS, 1)
    ]
    assert made == sorted(made)
    assert [p.name for p in backups_in(tmp_path / "b", node_of(owner))] == made[-2:]


def test_no_older_backup_goes_for_one_that_does_not_hold(
    directory: Path, owner: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "b"
    good = back_up(directory, node_of(owner), place, 1, NOW_MS)
    copy = backups._copy

    def bad(source: Path, target: Path) -> dict[bytes, int]:
        before = copy(source, target)
        spoil(target)
        return before

    monkeypatch.setattr(backups, "_copy", bad)
    result = back_up(directory, node_of(owner), place, 1, NOW_MS + DAY_MS)
    assert not result.verified
    assert result.why.startswith("store-damaged")
    assert [p.name for p in place.iterdir()] == [good.file]


def test_a_copy_that_holds_less_than_the_store_is_no_backup(
    directory: Path, owner: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    owner.node.store.backup(old)
    owner.prescribe(order(), person=DOCTOR)
    copy = backups._copy

    def stale(source: Path, target: Path) -> dict[bytes, int]:
        before = copy(source, target)
        shutil.copyfile(old, target)
        return before

    monkeypatch.setattr(backups, "_copy", stale)
    result = back_up(directory, node_of(owner), tmp_path / "b", 1, NOW_MS)
    assert "holds less" in result.why
    assert list((tmp_path / "b").iterdir()) == []


def test_a_store_that_is_damaged_is_not_passed_off_as_a_backup(
    site: Site, directory: Path, tmp_path: Path
) -> None:
    with Ledger.open(directory, site.unlock) as ledger:
        node = node_of(ledger)
    spoil(directory / "store.db")
    result = back_up(directory, node, tmp_path / "b", 1, NOW_MS)
    assert not result.verified
    assert result.why
    assert list((tmp_path / "b").iterdir()) == []


def test_where_there_is_no_room_nothing_is_begun(
    directory: Path, owner: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
    result = back_up(directory, node_of(owner), tmp_path / "b", 1, NOW_MS)
    assert "50000 bytes are free" in result.why


def test_a_directory_that_cannot_be_used_is_told(directory: Path, owner: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in back_up(directory, node_of(owner), tmp_path / "file" / "b", 1, NOW_MS).why
    with pytest.raises(InvalidInput):
        back_up(directory, node_of(owner), tmp_path / "b", 0, NOW_MS)


def test_the_secret_is_not_in_a_backup(site: Site, directory: Path, owner: Ledger, tmp_path: Path) -> None:
    unlock: UnlockFile = site.unlock
    back_up(directory, node_of(owner), tmp_path / "b", 1, NOW_MS)
    (made,) = backups_in(tmp_path / "b", node_of(owner))
    data = made.read_bytes()
    assert unlock.path.read_bytes() not in data
    assert owner.node.keys.signing.private_bytes_raw() not in data
