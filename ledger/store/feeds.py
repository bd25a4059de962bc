"""Feeds and their branches in SQLite: openings, heads, forks; each row checked against what it must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ledger.errors import StoreDamaged
from ledger.feed import SignedOpening, feed_id, genesis_link
from ledger.frontiers import bucket_digests
from ledger.ids import FeedId, Link, NodeId, tagged_hash
from ledger.store.connection import Connection
from ledger.store.port import BranchRow, FeedRow, Head
from ledger.store.records import Records, row_checksum

__all__ = ["Feeds"]


class Feeds(Records):
    """The part of the SQLite store that knows feeds."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._feed_numbers: dict[FeedId, int] = {}
        self._rows: dict[int, FeedRow] = {}
        self._changes = 0
        self._ends_known: dict[int, list[tuple[BranchRow | None, Head]]] = {}
        self._digests: dict[str, tuple[bytes, ...]] = {}
        """Of districts whose heads did not change since, in the one process that writes."""

    def _check_feeds(self) -> None:
        """No local value, feed, branch or head may be missing or other than its entries say."""
        self._check_meta()
        rows = self._c.all("SELECT id, feed FROM feed")
        heads = self._c.all("SELECT feed, branch FROM branch")
        for name, count in (("feeds", len(rows)), ("branches", len(heads))):
            if int.from_bytes(self.get_meta(name) or b"", "big") != count:
                raise StoreDamaged(f"the number of {name} is not what was written", where=name)
        ends = dict.fromkeys((number for number, _ in heads), 0)
        for number, feed in rows:
            row = self._row(number)
            if row.feed != feed or self._number(row.feed) != number:
                raise StoreDamaged("a feed cannot be found by its id", where=f"feed {row.feed.hex()}")
            ends.pop(number, None)
            for branch, head in self._branches_of(number):
                self._check_head(number, row, branch, head)
        if ends:
            raise StoreDamaged("a branch belongs to no feed", where="branch")

    def _check_head(self, number: int, row: FeedRow, branch: BranchRow | None, head: Head) -> None:
        where = f"feed {row.feed.hex()}"
        if branch is None and head.sequence == 0:
            if head.link != genesis_link(row.signed):
                raise StoreDamaged("the head of an empty feed is wrong", where=where)
            return
        found = self._c.one(
            "SELECT link, (SELECT max(sequence) FROM entry WHERE feed=?1 AND branch=?2) FROM entry "
            "WHERE feed=?1 AND sequence=?3 AND branch=?2", (number, head.branch, head.sequence),
        )  # fmt: skip
        if found is None or found[0] != head.link or found[1] != head.sequence:
            raise StoreDamaged("a feed does not end where it says", where=where)

    def add_feed(
        self, feed: FeedId, signed: SignedOpening, district: str, author: NodeId, incarnation: int
    ) -> None:
        """Hold an opening; nothing if it is held."""
        if self._number(feed) is not None:
            return
        check = row_checksum(feed, district, author, incarnation, signed.body, signed.signature)
        number = self._c.insert(
            "INSERT INTO feed VALUES(NULL,?,?,?,?,?,?,?)",
            (feed, district, author, incarnation, signed.body, signed.signature, check),
        )
        self._put_branch(number, None, Head(0, 0, genesis_link(signed), 0))
        self._changes += 1
        self._count("feeds", 1)
        self._count("branches", 1)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What is read within is of one moment; what another process wrote since the last time is seen."""
        if not self._c.writable:
            self._ends_known.clear()
        with self._c.snapshot():
            yield

    def _ends(self, number: int) -> list[tuple[BranchRow | None, Head]]:
        """As `_branches_of`, remembered until it changes: every entry that is read asks."""
        known = self._ends_known.get(number)
        if known is None:
            known = self._ends_known[number] = self._branches_of(number)
        return known

    def _put_branch(self, number: int, branch: BranchRow | None, head: Head) -> None:
        self._ends_known.pop(number, None)
        self._digests.pop(self._row(number).district, None)
        parent, parts = (None, None) if branch is None else (branch.parent, branch.sequence)
        check = row_checksum(number, head.branch, parent, parts, head.sequence, head.stamp, head.link)
        self._c.run(
            "INSERT OR REPLACE INTO branch VALUES(?,?,?,?,?,?,?,?)",
            (number, head.branch, parent, parts, head.sequence, head.link, head.stamp, check),
        )

    def _branches_of(self, number: int) -> list[tuple[BranchRow | None, Head]]:
        """Branches of a feed, the main one first, each with its head and checked."""
        found: list[tuple[BranchRow | None, Head]] = []
        for row in self._c.all("SELECT * FROM branch WHERE feed=? ORDER BY branch", (number,)):
            _, branch, parent, parts, sequence, link, stamp, check = row
            if check != row_checksum(number, branch, parent, parts, sequence, stamp, link):
                raise StoreDamaged("a branch is not what was written", where=f"feed row {number}")
            found.append(
                (
                    None if parent is None else BranchRow(branch, parent, parts),
                    Head(branch, sequence, Link(link), stamp),
                )
            )
        if [head.branch for _, head in found] != list(range(len(found))) or not found:
            raise StoreDamaged("a branch is missing", where=f"feed row {number}")
        return found

    def _count(self, name: str, more: int) -> None:
        self.put_meta(name, (int.from_bytes(self.get_meta(name) or b"", "big") + more).to_bytes(8, "big"))

    def _number(self, feed: FeedId) -> int | None:
        known = self._feed_numbers.get(feed)
        if known is None:
            row = self._c.one("SELECT id FROM feed WHERE feed=?", (feed,))
            if row is None:
                return None
            known = int(row[0])
            if not self._c.in_transaction:  # A rolled-back number may be given to another feed.
                self._feed_numbers[feed] = known
        return known

    def _row(self, number: int) -> FeedRow:
        known = self._rows.get(number)
        if known is None:
            row = self._c.one("SELECT * FROM feed WHERE id=?", (number,))
            if row is None:
                raise StoreDamaged("an entry's feed is missing", where=f"feed row {number}")
            _, feed, district, author, incarnation, body, signature, check = row
            signed = SignedOpening(body, signature)
            whole = check == row_checksum(feed, district, author, incarnation, body, signature)
            if not whole or feed != feed_id(signed):
                raise StoreDamaged("a feed's opening is not what was written", where=f"feed row {number}")
            known = FeedRow(FeedId(feed), signed, district, NodeId(author), incarnation)
            if not self._c.in_transaction:
                self._rows[number] = known
        return known

    def feed(self, feed: FeedId) -> FeedRow | None:
        """One feed."""
        number = self._number(feed)
        return None if number is None else self._row(number)

    def feeds(self, district: str | None = None) -> list[FeedRow]:
        """All feeds, by id."""
        rows = [self._row(number) for (number,) in self._c.all("SELECT id FROM feed")]
        return sorted(
            (row for row in rows if district is None or row.district == district), key=lambda r: r.feed
        )

    def heads(self, feed: FeedId) -> list[Head]:
        """The ends of a feed's branches, by branch; none if the feed is not held."""
        number = self._number(feed)
        return [] if number is None else [head for _, head in self._branches_of(number)]

    def frontier(self, district: str) -> list[tuple[FeedId, list[Head]]]:
        """Every feed of a district with its ends, by id."""
        with self._reading():
            return [(row.feed, self.heads(row.feed)) for row in self.feeds(district)]

    def bucket_digests(self, district: str) -> tuple[bytes, ...]:
        """`ledger.frontiers.bucket_digests` of a district, without reading what has not changed."""
        known = self._digests.get(district)
        if known is None:
            known = bucket_digests(
                {
                    feed: tuple(sorted((head.sequence, head.link) for head in heads))
                    for feed, heads in self.frontier(district)
                }
            )
            if self._c.writable:
                self._digests[district] = known
        return known

    def branch_rows(self, feed: FeedId) -> list[BranchRow]:
        """Branches of one feed but the main one."""
        number = self._number(feed)
        return [] if number is None else [row for row, _ in self._branches_of(number) if row is not None]

    def branches(self, district: str) -> Mapping[FeedId, list[BranchRow]]:
        """How the forked feeds of a district branch."""
        with self._reading():
            numbers = self._c.all("SELECT DISTINCT feed FROM branch WHERE branch>0")
            rows = [self._row(number) for (number,) in numbers]
            forked = sorted(row.feed for row in rows if row.district == district)
            return {feed: self.branch_rows(feed) for feed in forked}

    def forks(self, district: str) -> dict[FeedId, int]:
        """Forked feeds of a district and the lowest sequence at which branches part."""
        return {feed: min(r.sequence for r in rows) for feed, rows in self.branches(district).items()}

    def forks_basis(self, district: str) -> bytes:
        """A hash of how the feeds of a district are forked, independent of arrival."""
        parts: list[bytes] = []
        with self._reading():
            for feed, rows in self.branches(district).items():
                parts += [feed, *(number.to_bytes(8, "big") for number in sorted(r.sequence for r in rows))]
                parts += sorted(head.link for head in self.heads(feed))
        return tagged_hash("forks", *parts)
