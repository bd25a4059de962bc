"""The embedded store: SQLite. See `ledger.store.port` for what it guarantees.

Rows point to feeds and documents by small numbers; an entry carries its previous link, so that it can be checked
where it stands. Documents carry the number and the XOR of the links of their entries, so that a damaged index cannot
hide one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256

from ledger.entropy import Entropy
from ledger.errors import LedgerBug, RxLedgerError, StoreDamaged
from ledger.feed import Entry, ForkProof, Run, VerifiedRun
from ledger.ids import DocumentId, FeedId, Link, RealmId
from ledger.store import runs
from ledger.store.connection import Connection, WriterLock
from ledger.store.continuity import TOKEN_BYTES, advance, read_tokens, write_tokens
from ledger.store.documents import Change, in_digest
from ledger.store.entries import JOINED, Entries, signature_of, signed_row
from ledger.store.port import Added, BranchRow, Head, StoredEntry

__all__ = ["SQLiteStore"]

DETACHED = -1
_NO_MONTH = b"\0\0"
"""A district's own document stands in no month."""
_INSERT = "INSERT INTO entry VALUES(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_TOKEN, _TOKEN_LOST = "continuity", "continuity-lost"


class SQLiteStore(Entries):
    """A store in one SQLite file. Not thread-safe: its owner serialises."""

    def __init__(self, connection: Connection, lock: WriterLock | None, entropy: Entropy) -> None:
        super().__init__(connection)
        self.writable = connection.writable
        self._lock = lock
        self._data_version = 0
        with self._reading():
            self.realm = RealmId(self.get_meta("realm-id") or b"")
            self._check_feeds()
            self._check_documents()
        self.continuity_proven = self._advance_continuity(entropy.bytes) if self.writable else False

    # --- life -------------------------------------------------------------------------------------------------

    def _advance_continuity(self, draw: Callable[[int], bytes]) -> bool:
        """Advance file and database, in that order; whether this is the database that the file knows."""
        path = self._c.path.with_name(self._c.path.name + ".continuity")
        held = self.get_meta(_TOKEN)
        proven = held is not None and held in read_tokens(path)
        following = advance(held) if proven and held is not None else draw(TOKEN_BYTES)
        write_tokens(path, *((held, following) if proven and held is not None else (following,)))
        with self.transaction():
            self.put_meta(_TOKEN, following)
            if not proven:
                self.put_meta(_TOKEN_LOST, b"\1")
        write_tokens(path, following)
        # Killed after losing it and before the next incarnation began, it is still lost.
        return proven and self.get_meta(_TOKEN_LOST) != b"\1"

    def begin_continuity(self) -> None:
        """Say that what is written from here on is written in a new incarnation: continuity begins anew with it."""
        with self.transaction():
            self.put_meta(_TOKEN_LOST, b"\0")
        self.continuity_proven = True

    def close(self) -> None:
        """Release files and lock."""
        if self.writable and not self._c.in_transaction:
            # An older copy of the database, taken while it was open, is thereby left behind too. What cannot be
            # written now (a full disk) leaves the token as it was, which is still accepted.
            with suppress(RxLedgerError):
                self._advance_continuity(bytes)
        self._c.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the outermost has ended."""
        try:
            with self._c.transaction():
                yield
        except BaseException:
            # Row numbers and counts of what was rolled back must not be believed.
            self._forget_documents()
            self._feed_numbers.clear()
            self._rows.clear()
            self._ends_known.clear()
            self._digests.clear()
            self._detached_known = None
            self._changes += 1
            raise

    def district_changes(self) -> int:
        """Grows whenever feeds, branches or a district's own document (governance's included) may have changed.

        What was derived from them stays true while it stands still.
        """
        if not self.writable:
            row = self._c.one("PRAGMA data_version")
            if row is not None and row[0] != self._data_version:
                self._data_version = row[0]
                self._changes += 1
        return self._changes

    # --- writing -----------------------------------------------------------------------------------------------

    def _insert(
        self, number: int, branch: int, district: str, items: Sequence[tuple[Entry, Link, Link]]
    ) -> None:
        """Insert entries (with previous link and link) and account for them in their documents."""
        rows, changes = [], dict[bytes, Change]()
        for e, previous, link in items:
            if e.document[:2] == _NO_MONTH or branch > 0:
                self._changes += 1
            document = self._document(e.document, district)
            sealed, sealed_hash = e.sealed, e.sealed_hash
            if sealed is not None:
                # The link covers the hash of the content only: another hash beside it is nobody's word.
                sealed, sealed_hash = (None, sha256(sealed).digest()) if document.dropped else (sealed, None)
            rows.append(
                (number, branch, e.sequence, e.stamp, document.number, e.lane, e.epoch, e.commitment, sealed,
                 sealed_hash, signed_row(link, e.signature), previous, link)
            )  # fmt: skip
            change = changes.get(e.document)
            if change is None:
                change = changes[e.document] = Change()
            change.entries += 1
            change.bare += sealed is None
            change.digest ^= in_digest(link, detached=branch < 0)
        self._c.run_many(_INSERT, rows)
        self._account(district, changes)

    def add_own(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Append one entry of ours at the end of the main branch."""
        number = self._number(feed)
        if number is None:
            raise LedgerBug("an entry was written to a feed that is not open")
        self._insert(number, 0, self._row(number).district, [(entry, previous, link)])
        self._put_branch(number, None, Head(0, entry.sequence, link, entry.stamp))

    def add_run(self, run: VerifiedRun) -> Added | None:
        """Chain a run to what is held; None if it joins nothing (a gap)."""
        number = self._number(run.feed)
        if number is None:
            return None
        row, ends = self._row(number), self._branches_of(number)
        first = run.entries[0].sequence
        branch = self._branch_at(number, run.previous, first - 1, ends)
        if branch is None:
            return None
        skip, filled = 0, 0
        if first <= max(head.sequence for _, head in ends):
            branch, skip, filled = self._follow(number, branch, run)
        if skip == len(run.entries):
            return Added(0, forked=False, filled=filled)
        entries, links = run.entries[skip:], run.links[skip:]
        previous = run.links[skip - 1] if skip else run.previous
        parting, head = ends[branch]
        if forked := head.sequence >= entries[0].sequence:
            self._check_held(number, branch, entries[0].sequence)
            parting = BranchRow(len(ends), branch, entries[0].sequence)
            branch = parting.branch
            self._count("branches", 1)
            self._changes += 1
        entries = self._take_detached(number, entries, links)
        self._insert(
            number, branch, row.district, list(zip(entries, (previous, *links[:-1]), links, strict=True))
        )
        self._put_branch(number, parting, Head(branch, entries[-1].sequence, links[-1], entries[-1].stamp))
        return Added(len(entries), forked=forked, filled=filled)

    def _check_held(self, number: int, branch: int, sequence: int) -> None:
        """Before a feed is called forked: what is held at that place is really another entry, not a damaged one."""
        row = self._c.one(
            f"{JOINED} WHERE e.feed=? AND e.sequence=? AND e.branch=?", (number, sequence, branch)
        )
        if row is None:
            raise StoreDamaged("an entry is missing", where=f"feed row {number} sequence {sequence}")
        self.joined(row)

    def _follow(self, number: int, branch: int, run: VerifiedRun) -> tuple[int, int, int]:
        """How far the run says what is held: the branch it ends on, entries to skip, and contents filled in."""
        held = {
            (sequence, link): (on, arrival, bare)
            for sequence, link, on, arrival, bare in self._c.all(
                "SELECT sequence, link, branch, arrival, sealed IS NULL FROM entry "
                "WHERE feed=? AND sequence BETWEEN ? AND ? AND branch>=0",
                (number, run.entries[0].sequence, run.entries[-1].sequence),
            )
        }
        skip, fill = 0, []
        for entry, link in zip(run.entries, run.links, strict=True):
            found = held.get((entry.sequence, link))
            if found is None:
                break
            branch, arrival, bare = found
            skip += 1
            if bare and entry.sealed is not None:
                fill.append((entry, arrival))
        return branch, skip, self._fill(number, fill)

    def _fill(self, number: int, entries: Sequence[tuple[Entry, int]]) -> int:
        """Take content that an earlier peer withheld, unless retention dropped it here; returns how many."""
        district, rows, changes = self._row(number).district, [], dict[bytes, Change]()
        for entry, arrival in entries:
            if self._document(entry.document, district).dropped:
                continue
            rows.append((entry.sealed, arrival))
            changes.setdefault(entry.document, Change()).bare -= 1
            self._changes += entry.document[:2] == _NO_MONTH
        self._c.run_many("UPDATE entry SET sealed=?, sealed_hash=NULL WHERE arrival=?", rows)
        self._account(district, changes)
        return len(rows)

    def _take_detached(
        self, number: int, entries: Sequence[Entry], links: Sequence[Link]
    ) -> tuple[Entry, ...]:
        """Make room for entries of a run that were held detached; what they said more than the run stays."""
        held = self._c.all(
            "SELECT arrival, link, sealed, signature FROM entry WHERE feed=? AND branch<0 "
            "AND sequence BETWEEN ? AND ?", (number, entries[0].sequence, entries[-1].sequence),
        )  # fmt: skip
        at = {link: index for index, link in enumerate(links)} if held else {}
        taken, gone, changes = list(entries), [], dict[bytes, Change]()
        for arrival, link, sealed, signature in held:
            index = at.get(link)
            if index is None:
                continue
            e = taken[index]
            taken[index] = Entry(
                e.sequence, e.stamp, e.document, e.lane, e.epoch, e.commitment,
                sealed if e.sealed is None else e.sealed, e.signature or signature_of(link, signature), e.sealed_hash,
            )  # fmt: skip
            gone.append((arrival,))
            change = changes.setdefault(e.document, Change())
            change.entries -= 1
            change.bare -= sealed is None
            change.digest ^= in_digest(link, detached=True)
        self._c.run_many("DELETE FROM entry WHERE arrival=?", gone)
        self._account(self._row(number).district, changes)
        return tuple(taken)

    def add_detached(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Hold an entry ahead of its feed.

        Raises:
            LimitExceeded: the feed has too many detached entries.
        """
        number = self._number(feed)
        if number is None:
            return
        at = self._c.all(
            "SELECT branch, link FROM entry WHERE feed=? AND sequence=?", (number, entry.sequence)
        )
        if any(held == link for _, held in at):
            return
        runs.check_detached_room(
            self._c.one("SELECT count(*) FROM entry WHERE feed=? AND branch<0", (number,))
        )
        branch = min([0, *(branch for branch, _ in at)]) + DETACHED
        self._insert(number, branch, self._row(number).district, [(entry, previous, link)])

    def drop_content(self, document: DocumentId) -> int:
        """Retention: drop the sealed bytes of a document, keep its places; returns how many."""
        dropped = 0
        for row in self._rows_of(document):
            self.entries_of(document, row.district)  # Checked: what is dropped cannot be checked again.
            rows = [
                (sha256(sealed).digest(), arrival)
                for arrival, sealed in self._c.all(
                    "SELECT arrival, sealed FROM entry WHERE document=? AND sealed IS NOT NULL", (row.number,)
                )
            ]
            self._c.run_many("UPDATE entry SET sealed=NULL, sealed_hash=? WHERE arrival=?", rows)
            self._drop(row)
            dropped += len(rows)
        self._c.run("DELETE FROM snapshot WHERE document=?", (document,))
        self._changes += document[:2] == _NO_MONTH
        return dropped

    # --- as a whole ---------------------------------------------------------------------------------------------

    def runs_after(
        self, feed: FeedId, after: tuple[tuple[int, Link], ...], budget_bytes: int
    ) -> Iterator[Run]:
        """What a peer with these heads lacks of a feed, branch by branch, up to a budget."""
        return runs.runs_after(self, feed, after, budget_bytes)

    def fork_proof(self, feed: FeedId) -> ForkProof | None:
        """Make the proof of the first fork of a feed from the branches held."""
        return runs.fork_proof(self, feed)

    def verify(self) -> Iterator[StoredEntry]:
        """Every chained entry in order of feed, branch and sequence, each checked against its predecessor.

        Pages, indexes, local records and documents are checked too, before and after.
        """
        self._c.check()
        with self._reading():
            self._check_feeds()
            self._check_documents()
            self._check_records()
        yield from runs.verify(self)
        for document in sorted(set(self.documents())):
            self.entries_of(document)
