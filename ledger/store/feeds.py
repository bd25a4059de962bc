"""Feeds and their branches in SQLite: openings, heads, forks; each row checked against what it must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ledger.errors import StoreDamaged
from ledger.feed import SignedOpening, feed_id, genesis_link
from ledger.ids import FeedId, Link, NodeId, tagged_hash
from ledger.store.connection import Connection, as_written
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

    def _check_feeds(self) -> None:
        """No feed, branch or head may be missing or other than its entries say."""
        feeds, branches = (
            self._c.all("SELECT id, feed FROM feed ORDER BY feed"),
            self._c.all("SELECT * FROM branch"),
        )
        for name, rows in (("feeds", feeds), ("branches", branches)):
            if int.from_bytes(self.get_meta(name) or b"", "big") != len(rows):
                raise StoreDamaged(f"the number of {name} is not what was written", where=name)
        for number, feed in feeds:
            if self._row(number).feed != feed:  # The list may come from the index, the row does not.
                raise StoreDamaged("a feed is not found where it stands", where=f"feed row {number}")
            self._feed_numbers[FeedId(feed)] = number
        for number, branch, _, _, sequence, link, _ in branches:
            row = self._row(number)
            if sequence == 0:
                if link != genesis_link(row.signed):
                    raise StoreDamaged("the head of an empty feed is wrong", where=f"feed {row.feed.hex()}")
                continue
            found = self._c.one(
                "SELECT link, (SELECT max(sequence) FROM entry WHERE feed=?1 AND branch=?2) FROM entry "
                "WHERE feed=?1 AND sequence=?3 AND branch=?2", (number, branch, sequence),
            )  # fmt: skip
            if found is None or found[0] != link or found[1] != sequence:
                raise StoreDamaged("a feed does not end where it says", where=f"feed {row.feed.hex()}")

    def add_feed(
        self, feed: FeedId, signed: SignedOpening, district: str, author: NodeId, incarnation: int
    ) -> None:
        """Hold an opening; nothing if it is held."""
        if self._number(feed) is not None:
            return
        check = row_checksum(
            feed, district.encode(), author, incarnation.to_bytes(8, "big"), signed.body, signed.signature
        )
        number = self._c.insert(
            "INSERT INTO feed VALUES(NULL,?,?,?,?,?,?,?)",
            (feed, district, author, incarnation, signed.body, signed.signature, check),
        )
        self._c.run("INSERT INTO branch VALUES(?,0,NULL,NULL,0,?,0)", (number, genesis_link(signed)))
        self._changes += 1
        self._count("feeds", 1)
        self._count("branches", 1)

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
            with as_written(f"feed row {number}"):
                known = self._read_row(number)
            if not self._c.in_transaction:
                self._rows[number] = known
        return known

    def _read_row(self, number: int) -> FeedRow:
        row = self._c.one("SELECT * FROM feed WHERE id=?", (number,))
        if row is None:
            raise StoreDamaged("an entry's feed is missing", where=f"feed row {number}")
        _, feed, district, author, incarnation, body, signature, check = row
        signed = SignedOpening(body, signature)
        if feed != feed_id(signed) or check != row_checksum(
            feed, district.encode(), author, incarnation.to_bytes(8, "big"), body, signature
        ):
            raise StoreDamaged("a feed's opening is not what was written", where=f"feed row {number}")
        return FeedRow(FeedId(feed), signed, district, NodeId(author), incarnation)

    def feed(self, feed: FeedId) -> FeedRow | None:
        """One feed."""
        number = self._number(feed)
        return None if number is None else self._row(number)

    def feeds(self, district: str | None = None) -> list[FeedRow]:
        """All feeds, by id."""
        rows = [self._row(number) for (number,) in self._c.all("SELECT id FROM feed ORDER BY feed")]
        return [row for row in rows if district is None or row.district == district]

    def heads(self, feed: FeedId) -> list[Head]:
        """The ends of a feed's branches, by branch."""
        return [
            Head(branch, sequence, Link(link), stamp)
            for branch, sequence, link, stamp in self._c.all(
                "SELECT branch, sequence, link, stamp FROM branch WHERE feed=? ORDER BY branch",
                (self._number(feed),),
            )
        ]

    def frontier(self, district: str) -> list[tuple[FeedId, list[Head]]]:
        """Every feed of a district with its ends, by id."""
        return [(row.feed, self.heads(row.feed)) for row in self.feeds(district)]

    def _branch_rows(self, district: str) -> Iterator[tuple[FeedId, BranchRow]]:
        for number, branch, parent, parts in self._c.all(
            "SELECT feed, branch, parent, parts FROM branch WHERE branch>0 ORDER BY feed, branch"
        ):
            row = self._row(number)
            if row.district == district:
                yield row.feed, BranchRow(branch, parent, parts)

    def branches(self, district: str) -> Mapping[FeedId, list[BranchRow]]:
        """How the forked feeds of a district branch."""
        found: dict[FeedId, list[BranchRow]] = {}
        for feed, row in self._branch_rows(district):
            found.setdefault(feed, []).append(row)
        return found

    def forks(self, district: str) -> dict[FeedId, int]:
        """Forked feeds of a district and the lowest sequence at which branches part."""
        return {feed: min(r.sequence for r in rows) for feed, rows in self.branches(district).items()}

    def forks_basis(self, district: str) -> bytes:
        """A hash of how the feeds of a district are forked, independent of arrival."""
        parts: list[bytes] = []
        for feed, rows in sorted(self.branches(district).items()):
            parts += [feed, *(r.sequence.to_bytes(8, "big") for r in sorted(rows, key=lambda r: r.sequence))]
            parts += sorted(head.link for head in self.heads(feed))
        return tagged_hash("forks", *parts)

    def branch_rows(self, feed: FeedId) -> list[BranchRow]:
        """Branches of one feed but the main one."""
        rows = self._c.all(
            "SELECT branch, parent, parts FROM branch WHERE feed=? AND branch>0 ORDER BY branch",
            (self._number(feed),),
        )
        return [BranchRow(*row) for row in rows]
