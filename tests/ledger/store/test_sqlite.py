"""The SQLite store: what every store promises, and what only files can be asked: copies, cuts, full disks, flips."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ledger.entropy import SeededEntropy
from ledger.errors import (
    InvalidInput,
    LedgerBug,
    NotFound,
    RxLedgerError,
    StoreDamaged,
    StoreFull,
    VersionUnknown,
)
from ledger.feed import verify_link
from ledger.ids import DocumentId, FeedId, Link, NodeId, tagged_hash
from ledger.store import SQLiteStore, create_store, open_store
from ledger.store.connection import disk_errors
from tests.ledger.store.acceptance import StoreAcceptance, contents, sent, take
from tests.ledger.store.builders import (
    DISTRICT,
    DOCUMENT,
    ELSEWHERE,
    PUBLIC,
    REALM,
    FeedForTests,
    document,
    part,
)

FLIPS = 1_500
"""Of the reference store's bytes in a normal run; the nightly run takes every one."""
PAGE = 4096


class TestSQLite(StoreAcceptance):
    """The acceptance suite on files."""

    def create(self, place: Path) -> SQLiteStore:
        return create_store(place, REALM)

    def open(self, place: Path, *, writable: bool = True) -> SQLiteStore:
        return open_store(place, writable=writable, entropy=SeededEntropy(1))


# --- a file's beginning and end ---------------------------------------------------------------------------------


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store.db", REALM)
    FeedForTests().open(store)
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == dict.fromkeys(
        ("store.db", "store.db-wal", "store.db-shm", "store.db.lock", "store.db.continuity"), 384
    )
    store.close()


def test_a_store_is_never_made_over_another(tmp_path: Path) -> None:
    create_store(tmp_path / "store.db", REALM).close()
    with pytest.raises(InvalidInput):
        create_store(tmp_path / "store.db", REALM)


def test_leftovers_of_a_store_that_was_never_finished_are_no_part_of_the_next(tmp_path: Path) -> None:
    for name in ("store.db.new", "store.db.new-journal", "store.db-wal"):
        (tmp_path / name).write_bytes(b"\xff" * 5000)
    store = create_store(tmp_path / "store.db", REALM)
    assert list(store.verify()) == []
    store.close()


def test_an_absent_an_empty_and_a_newer_store_each_say_what_they_are(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    with pytest.raises(NotFound):
        open_store(place)
    place.write_bytes(b"")
    with pytest.raises(StoreDamaged):
        open_store(place)
    assert place.stat().st_size == 0, "it is left as it was found"
    place.unlink()
    create_store(place, REALM).close()
    database = sqlite3.connect(place)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(VersionUnknown):
        open_store(place)


def test_a_closed_store_answers_with_a_fault_of_ours(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store.db", REALM)
    store.close()
    with pytest.raises(LedgerBug):
        store.feeds()


# --- continuity -------------------------------------------------------------------------------------------------


def grown(place: Path) -> FeedForTests:
    """A closed store with a feed of three entries."""
    store = create_store(place, REALM)
    feed = FeedForTests().open(store)
    take(store, feed.run(3))
    store.close()
    return feed


def put_back(copy: Path, place: Path) -> None:
    for leftover in place.parent.glob(place.name + "-*"):
        leftover.unlink()
    shutil.copyfile(copy, place)


def test_a_copy_of_the_file_put_back_after_one_more_session_proves_nothing(tmp_path: Path) -> None:
    place, copy = tmp_path / "store.db", tmp_path / "copy"
    feed = grown(place)
    shutil.copyfile(place, copy)
    store = open_store(place)
    take(store, feed.run(2, feed.run(3)))
    store.close()
    put_back(copy, place)
    store = open_store(place)
    assert not store.continuity_proven
    store.close()


def test_a_copy_taken_while_the_store_was_open_proves_nothing_once_it_was_closed(tmp_path: Path) -> None:
    place, copy = tmp_path / "store.db", tmp_path / "copy"
    feed = grown(place)
    store = open_store(place)
    store._c.run("PRAGMA wal_checkpoint")
    # By another process: to open and close the file in this one would let go of SQLite's locks on it.
    subprocess.run(["cp", place, copy], check=True)
    take(store, feed.run(2, feed.run(3)))
    store.close()
    put_back(copy, place)
    store = open_store(place)
    assert not store.continuity_proven
    store.close()


@pytest.mark.parametrize("content", [None, b"", b"x" * 31, b"x" * 32, b"x" * 64, b"x" * 96])
def test_a_token_file_that_is_missing_or_another_proves_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    place = tmp_path / "store.db"
    grown(place)
    token = tmp_path / "store.db.continuity"
    token.unlink()
    if content is not None:
        token.write_bytes(content)
    store = open_store(place)
    assert not store.continuity_proven
    store.close()


def test_killed_while_open_the_store_is_still_recognised(tmp_path: Path) -> None:
    place, crashed = tmp_path / "store.db", tmp_path / "crashed"
    grown(place)
    crashed.mkdir()
    store = open_store(place)
    subprocess.run(["cp", *tmp_path.glob("store.db*"), crashed], check=True)
    store.close()
    again = open_store(crashed / "store.db")
    assert again.continuity_proven
    again.close()


# --- full and failing disks -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_reads_on_and_takes_writing_up_again(tmp_path: Path) -> None:
    """The database may not grow: what SQLite then says is what it says of a full disk."""
    store = create_store(tmp_path / "store.db", REALM)
    feed = FeedForTests().open(store)
    run = feed.run(3)
    take(store, run)
    held = contents(store)
    store._c.run("PRAGMA max_page_count=1")
    following = feed.run(500, run)
    with pytest.raises(StoreFull):
        take(store, following)
    assert contents(store) == held
    assert sent(store, feed.id)
    store._c.run("PRAGMA max_page_count=1000000")
    take(store, following)
    assert len(list(store.verify())) == 503
    store.close()


def test_a_transaction_that_the_disk_gave_up_writes_nothing_after(tmp_path: Path) -> None:
    """Whoever swallows the first error gets another: half a transaction must not stand alone."""
    store = create_store(tmp_path / "store.db", REALM)

    def half() -> None:
        with store.transaction():
            store.put_meta("one", b"1")
            store._c._db.execute("ROLLBACK")
            store.put_meta("two", b"2")

    with pytest.raises(StoreDamaged):
        half()
    assert store.get_meta("one") is None
    assert store.get_meta("two") is None
    store.close()


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreDamaged),
        (errno.EACCES, StoreDamaged),
    ],
)
def test_errors_of_files_are_told_apart(tmp_path: Path, number: int, raised: type[RxLedgerError]) -> None:
    with pytest.raises(raised), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def with_fault(place: Path, call: str, fault: str, runs: int, trace: Path) -> list[str]:
    """What a child says that appends while a system call on the log fails."""
    child = Path(__file__).with_name("failing_disk_child.py")
    command = [
        "strace", "-f", "-qq", "-o", str(trace), "-P", f"{place}-wal", "-e", f"trace={call}", "-e",
        f"inject={call}:{fault}", sys.executable, str(child), str(place), str(runs),
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "INJECTED" in trace.read_text(), "the fault never happened"
    return done.stdout.split("\n")[:-1]


def test_after_a_failed_fsync_nothing_is_acknowledged_until_the_store_is_opened_anew(tmp_path: Path) -> None:
    """What it left unwritten, the next fsync need not report: one that succeeds would prove nothing (D5)."""
    place = tmp_path / "store.db"
    store = create_store(place, REALM)
    feed = FeedForTests().open(store)
    store.close()
    said = with_fault(place, "fdatasync,fsync", "error=EIO:when=4", 6, tmp_path / "trace")
    durable = said.index("store-damaged")
    assert durable >= 1, "some appends came before the fault"
    assert said[durable:-1] == ["store-damaged"] * (6 - durable)
    store = open_store(place)
    assert store.heads(feed.id)[0].sequence >= durable
    assert len(list(store.verify())) >= durable
    store.close()


def test_no_room_in_the_log_refuses_and_the_next_append_is_taken(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    store = create_store(place, REALM)
    feed = FeedForTests().open(store)
    store.close()
    said = with_fault(place, "pwrite64", "error=ENOSPC:when=12", 6, tmp_path / "trace")
    assert said.count("store-full") == 1
    # Its successor does not join, for its predecessor is missing: nothing of the refused one was kept.
    durable = said.index("store-full")
    assert said[-1] == f"held {durable}"
    store = open_store(place)
    assert store.heads(feed.id)[0].sequence == durable
    take(store, feed.run(6))
    assert len(list(store.verify())) == 6
    store.close()


# --- readers beside a writer ------------------------------------------------------------------------------------


def test_a_reader_beside_a_busy_writer_never_sees_half_of_anything(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    store = create_store(place, REALM)
    feeds = [FeedForTests(number).open(store) for number in range(1, 4)]
    faults: list[BaseException] = []
    rounds, done = [0], threading.Event()

    def read() -> None:
        try:
            while not done.is_set() or rounds[0] < 3:
                reader = open_store(place, writable=False)
                for _ in range(5):
                    reader.entries_of(DOCUMENT)
                    for feed in feeds:
                        sent(reader, feed.id)
                    contents(reader)
                sum(1 for _ in reader.verify())
                reader.close()
                rounds[0] += 1
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    last = {feed.id: feed.run(1) for feed in feeds}
    take(store, *last.values())
    for number in range(120):
        for feed in feeds:
            last[feed.id] = feed.run(3, last[feed.id], documents=(DOCUMENT, document(number)))
            take(store, last[feed.id])
    done.set()
    thread.join()
    store.close()
    assert faults == []
    assert rounds[0] >= 3


# --- damage -----------------------------------------------------------------------------------------------------


class Reference:
    """A closed store with a bit of everything, and all that can be read from it."""

    def __init__(self, directory: Path) -> None:
        place = directory / "store.db"
        store = create_store(place, REALM)
        self.feeds = [
            FeedForTests(1).open(store),
            FeedForTests(2, ELSEWHERE).open(store),
            FeedForTests(3).open(store),
        ]
        first, second, _ = self.feeds
        self.documents = [DOCUMENT, document(1), document(2)]
        trunk = first.run(8, documents=self.documents)
        take(
            store,
            part(trunk, 0, 4),
            part(trunk, 4, 8),
            first.run(2, part(trunk, 0, 3), content=b"fork"),
            second.run(3),
        )
        ahead = first.run(3, trunk)
        with store.transaction():
            store.add_detached(first.id, ahead.links[1], part(ahead, 2, 3).entries[0], ahead.links[2])
            self.links = [*trunk.links, ahead.links[2]]
            store.put_meta("name", b"value")
            store.put_meta("another", b"value")
            for number in range(3):
                store.put_command(b"command%d........" % number, document(number), Link(b"l" * 32))
                store.put_index(b"key%d............................" % number, document(number))
                store.put_horizon(NodeId(b"node%d..........." % number), number, 1000 + number)
            store.put_snapshot(DOCUMENT, b"basis", b"sealed")
            store.put_proof(FeedId(first.id), b"proof")
            chain = b""
            for record in (b"first", b"second"):
                chain = tagged_hash("audit", chain, record)
                store.append_audit(record, chain)
            store.drop_content(document(2))
        store.close()
        self.content = place.read_bytes()

    def read(self, place: Path) -> tuple[object, ...]:
        """Every reading by itself: what is looked up by a key must not look absent, whatever else is damaged."""
        store = open_store(place, writable=False)
        try:
            return (
                contents(store),
                [list(store.runs_after(feed.id, (), 1 << 40)) for feed in self.feeds],
                store.get_meta("name"), store.get_meta("another"), store.get_meta("absent"), store.realm,
                [store.index(b"key%d............................" % number) for number in range(4)],
                [store.entries_of(d) for d in self.documents], [store.places(d) for d in self.documents],
                store.horizon(), store.proofs(), list(store.audit()), store.audit_head(),
                store.branches(DISTRICT), store.forks(DISTRICT),
            )  # fmt: skip
        finally:
            store.close()

    def read_all(self, place: Path) -> tuple[object, ...]:
        """And what only the check of the whole store vouches for."""
        store = open_store(place, writable=False)
        try:
            for entry in store.verify():
                if entry.signature is not None:
                    verify_link(entry.link, entry.signature, PUBLIC)
            commands = [store.command(b"command%d........" % number) for number in range(4)]
            return (
                commands,
                [store.by_link(link) for link in self.links],
                [e for _, e in store.arrivals(0, 100)],
            )
        finally:
            store.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"))


def outcome(reference: Reference, place: Path, content: bytes, expected: tuple[object, object]) -> str:
    """What reading a damaged store comes to: "same" or "refused"; anything else fails."""
    for leftover in place.parent.glob(place.name + "-*"):
        leftover.unlink()
    place.write_bytes(content)
    said = []
    for read, original in zip((reference.read, reference.read_all), expected, strict=True):
        try:
            assert read(place) == original, "the ledger changed silently"
            said.append("same")
        except RxLedgerError:
            said.append("refused")
    return said[0]


def originals(reference: Reference, place: Path) -> tuple[object, object]:
    place.write_bytes(reference.content)
    return reference.read(place), reference.read_all(place)


def flip(reference: Reference, place: Path, positions: range) -> dict[str, int]:
    expected, outcomes = originals(reference, place), {"same": 0, "refused": 0}
    for position in positions:
        # Another bit at each byte, so that a stride does not always meet the same one.
        changed = bytearray(reference.content)
        changed[position] ^= 1 << (position * 7 + position // 8) % 8
        try:
            outcomes[outcome(reference, place, bytes(changed), expected)] += 1
        except BaseException as error:
            raise AssertionError(f"byte {position} of {len(reference.content)}: {error!r}") from error
    return outcomes


def test_a_flipped_bit_is_noticed_or_changes_nothing(reference: Reference, tmp_path: Path) -> None:
    step = max(1, len(reference.content) // FLIPS) | 1
    outcomes = flip(reference, tmp_path / "store.db", range(0, len(reference.content), step))
    assert outcomes["refused"] > FLIPS // 50
    assert outcomes["same"] > FLIPS // 50


@pytest.mark.nightly
def test_every_byte_flipped_is_noticed_or_changes_nothing(reference: Reference, tmp_path: Path) -> None:
    outcomes = flip(reference, tmp_path / "store.db", range(len(reference.content)))
    print(f"{len(reference.content)} bytes: {outcomes}")
    assert sum(outcomes.values()) == len(reference.content)


CHECKED = (
    "meta",
    "feed",
    "branch",
    "document",
    "entry",
    "command",
    "patient",
    "patient_copy",
    "horizon",
    "proof",
    "audit",
)
"""All tables but the snapshots, which are sealed and never the truth."""
NEVER_MISSED = ("meta", "feed", "branch", "document", "entry", "patient", "patient_copy", "audit")


def another(value: object) -> object:
    """A value of the same type that was not written."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"x"
    return value[:-1] + "~" if isinstance(value, str) else 0


def damages(content: bytes, scratch: Path) -> Iterator[tuple[str, bytes]]:
    """The store with one column of one row changed, or one row removed, for each of them; every index agrees."""
    scratch.write_bytes(content)
    with closing(sqlite3.connect(scratch, isolation_level=None)) as database:
        # In one file, so that its bytes are all there is.
        database.execute("PRAGMA journal_mode=DELETE")
        for table in CHECKED:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for row in database.execute(f"SELECT * FROM {table}").fetchall():
                same = " AND ".join(f"{column} IS ?" for column in columns)
                statements = [(f"{table} removed", f"DELETE FROM {table} WHERE {same}", row)] * (
                    table in NEVER_MISSED
                )
                for column, value in zip(columns, row, strict=True):
                    change = f"UPDATE OR IGNORE {table} SET {column}=? WHERE {same}"
                    statements.append((f"{table}.{column}", change, (another(value), *row)))
                for what, statement, values in statements:
                    database.execute("BEGIN")
                    changed = database.execute(statement, values).rowcount
                    copy = database.serialize() if changed else b""
                    database.execute("ROLLBACK")
                    if copy:
                        yield what, copy


def test_no_column_of_any_row_can_change_and_no_row_be_missing_unnoticed(
    reference: Reference, tmp_path: Path
) -> None:
    """Pages and indexes hold together in each of these: only what the rows say of themselves can tell."""
    place = tmp_path / "store.db"
    expected, refused = originals(reference, place), set[str]()
    for what, content in damages(reference.content, tmp_path / "scratch"):
        try:
            if outcome(reference, place, content, expected) == "refused":
                refused.add(what)
        except BaseException as error:
            raise AssertionError(f"{what}: {error!r}") from error
    assert {f"{table} removed" for table in NEVER_MISSED} <= refused
    assert {
        "branch.parent",
        "branch.parts",
        "branch.stamp",
        "entry.branch",
        "entry.signature",
        "meta.name",
    } <= refused


def test_a_page_zeroed_or_written_over_another_is_noticed_or_changes_nothing(
    reference: Reference, tmp_path: Path
) -> None:
    place, content = tmp_path / "store.db", reference.content
    expected, pages = originals(reference, place), len(reference.content) // PAGE
    for page in range(pages):
        for written in (bytes(PAGE), content[(page + 1) % pages * PAGE :][:PAGE]):
            outcome(
                reference, place, content[: page * PAGE] + written + content[(page + 1) * PAGE :], expected
            )


def test_a_store_cut_anywhere_is_an_error_and_never_a_smaller_ledger(
    reference: Reference, tmp_path: Path
) -> None:
    place, size = tmp_path / "store.db", len(reference.content)
    for length in (0, 1, 15, 100, *range(512, size, PAGE), *range(PAGE, size, PAGE), size - 1):
        place.write_bytes(reference.content[:length])
        with pytest.raises(StoreDamaged):
            reference.read(place)


def test_garbage_behind_the_end_changes_nothing(reference: Reference, tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    expected = originals(reference, place)
    for tail in (b"\xff", b"\xff" * PAGE, reference.content):
        outcome(reference, place, reference.content + tail, expected)


def test_a_damaged_entry_is_never_mistaken_for_a_fork(tmp_path: Path) -> None:
    """The author of a feed is not called a cheat because a disk of somebody else lost a bit."""
    place = tmp_path / "store.db"
    feed = grown(place)
    database = sqlite3.connect(place)
    database.execute("UPDATE entry SET link=zeroblob(32) WHERE sequence=2")
    database.commit()
    database.close()
    store = open_store(place)
    with pytest.raises(StoreDamaged):
        take(store, feed.run(3))
    assert store.forks(DISTRICT) == {}
    store.close()


def test_a_backup_of_a_damaged_store_is_no_backup(tmp_path: Path, reference: Reference) -> None:
    place, target = tmp_path / "store.db", tmp_path / "backup"
    place.write_bytes(reference.content)
    database = sqlite3.connect(place)
    database.execute("UPDATE meta SET value=zeroblob(9) WHERE name='name'")
    database.commit()
    database.close()
    with pytest.raises(StoreDamaged):
        open_store(place, writable=False)
    place.write_bytes(reference.content)
    store = open_store(place)
    root = store._c.one("SELECT rootpage FROM sqlite_schema WHERE name='entry_link'")
    assert root is not None
    store.close()
    at = (root[0] - 1) * PAGE
    content = place.read_bytes()
    place.write_bytes(content[:at] + bytes(PAGE) + content[at + PAGE :])
    store = open_store(place)
    with pytest.raises(StoreDamaged):
        store.backup(target)
    assert not target.exists()
    assert list(tmp_path.glob("backup*")) == []
    store.close()


def test_what_retention_drops_is_in_the_file_no_more(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    store = create_store(place, REALM)
    feed = FeedForTests().open(store)
    take(store, feed.run(3, content=b"a content to be forgotten", documents=(DocumentId(DOCUMENT),)))
    with store.transaction():
        store.drop_content(DOCUMENT)
    store.close()
    assert b"a content to be forgotten" not in place.read_bytes()
