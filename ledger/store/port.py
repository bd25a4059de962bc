"""The storage port: what a ledger asks of a disk. Blind to content: it sees sealed bytes, links and positions.

Guarantees that every implementation gives (one acceptance suite tests them all):

- What a transaction stored survives kill -9 and power cut once it has ended (R1); none of it stays if it failed.
- Nothing accepted is changed or lost; retention drops sealed bytes, never a place in the chain (R2).
- What is read is checked against its link, and a document against the number and digest of its entries: a flipped bit
  ends in `StoreDamaged`, never in a smaller or other ledger (R16).
- One process writes; others read meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from ledger.feed import Entry, ForkProof, Run, SignedOpening, VerifiedRun
from ledger.ids import DocumentId, FeedId, Link, NodeId

__all__ = ["Added", "BranchRow", "FeedRow", "Head", "Store", "StoredEntry"]


class FeedRow(Struct, frozen=True):
    """A feed as held: its opening and who opened it."""

    feed: FeedId
    signed: SignedOpening
    district: str
    author: NodeId
    incarnation: int


class Head(Struct, frozen=True):
    """The end of one branch of a feed; sequence 0 and the genesis link if it is empty."""

    branch: int
    sequence: int
    link: Link
    stamp: int


class BranchRow(Struct, frozen=True):
    """A branch parts from its parent: its first entry has this sequence. The main branch is 0 and has no row."""

    branch: int
    parent: int
    sequence: int


class StoredEntry(Struct, frozen=True):
    """An entry at its place. `branch` numbers depend on arrival and never reach an output."""

    feed: FeedId
    branch: int
    sequence: int
    stamp: int
    document: DocumentId
    lane: int
    epoch: int
    commitment: bytes
    sealed: bytes | None
    sealed_hash: bytes | None
    signature: bytes | None
    previous: Link
    link: Link
    detached: bool

    def entry(self) -> Entry:
        """As it travels."""
        return Entry(
            self.sequence, self.stamp, self.document, self.lane, self.epoch, self.commitment, self.sealed,
            self.signature, self.sealed_hash,
        )  # fmt: skip


class Added(Struct, frozen=True):
    """What became of a run: entries that were new, whether it parted from what was held, contents now filled in."""

    new: int
    forked: bool
    filled: int = 0


class Store(Protocol):
    """See the module. Methods raise `StoreDamaged`, `StoreFull`, `StoreBusy` as their names say."""

    writable: bool
    continuity_proven: bool

    def close(self) -> None:
        """Release files and lock."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; durable when the outermost has ended. A nested one is all or nothing within it."""
        ...

    def begin_continuity(self) -> None:
        """Say that from here on a new incarnation writes. Until then, continuity once lost stays lost."""
        ...

    def district_changes(self) -> int:
        """Grows whenever feeds, branches or a district's own document (governance's included) may have changed."""
        ...

    # feeds
    def add_feed(
        self, feed: FeedId, signed: SignedOpening, district: str, author: NodeId, incarnation: int
    ) -> None:
        """Hold an opening; nothing if it is held."""
        ...

    def feed(self, feed: FeedId) -> FeedRow | None:
        """One feed."""
        ...

    def feeds(self, district: str | None = None) -> list[FeedRow]:
        """All feeds, by id."""
        ...

    def heads(self, feed: FeedId) -> list[Head]:
        """The ends of a feed's branches, by branch."""
        ...

    def frontier(self, district: str) -> list[tuple[FeedId, list[Head]]]:
        """Every feed of a district with its ends, by id."""
        ...

    def bucket_digests(self, district: str) -> tuple[bytes, ...]:
        """`ledger.frontiers.bucket_digests` of a district, without reading what has not changed."""
        ...

    def forks(self, district: str) -> dict[FeedId, int]:
        """Forked feeds of a district and the lowest sequence at which branches part."""
        ...

    def branches(self, district: str) -> Mapping[FeedId, list[BranchRow]]:
        """How the forked feeds of a district branch."""
        ...

    def forks_basis(self, district: str) -> bytes:
        """A hash of how the feeds of a district are forked, independent of arrival."""
        ...

    # entries
    def add_run(self, run: VerifiedRun) -> Added | None:
        """Chain a run to what is held; None if it joins nothing (a gap).

        Content that an earlier peer withheld is filled in from a run that has it. Entries held detached are chained.
        """
        ...

    def add_own(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Append one entry of ours at the end of the main branch."""
        ...

    def add_detached(self, feed: FeedId, previous: Link, entry: Entry, link: Link) -> None:
        """Hold an entry ahead of its feed."""
        ...

    def detached_links(self, district: str) -> list[Link]:
        """Links of detached entries, sorted."""
        ...

    def by_link(self, link: Link) -> StoredEntry | None:
        """The entry with this link."""
        ...

    def entries_of(self, document: DocumentId, district: str | None = None) -> list[StoredEntry]:
        """Every entry of a document, checked; only those in feeds of one district if it is named."""
        ...

    def entries_held(self, document: DocumentId) -> int:
        """How many entries of a document are held, in whatever district; one lookup."""
        ...

    def places(self, document: DocumentId) -> list[tuple[str, bytes]]:
        """Each district in whose feeds entries of a document are held, ascending, with a digest of which entries.

        The digest also says which are detached and how many are held without content. One lookup. Honest nodes write a document in one district; others may put its id into any feed.
        """
        ...

    def document_basis(self, document: DocumentId, district: str) -> bytes:
        """A digest of exactly which entries of a document are held in a district's feeds; empty if none."""
        ...

    def documents(self, district: str | None = None) -> Iterator[DocumentId]:
        """Every document of which an entry is held."""
        ...

    def arrivals(self, after: int, limit: int) -> list[tuple[int, StoredEntry]]:
        """Entries in order of arrival, after an arrival number."""
        ...

    def urgent_after(self, feed: FeedId, sequence: int, lane: int, limit: int) -> list[StoredEntry]:
        """Signed entries of an unforked feed after a sequence, up to a lane, the most urgent first."""
        ...

    def last_arrival(self) -> int:
        """The number of the newest arrival; 0 if nothing is held."""
        ...

    def head_at(self, feed: FeedId, arrival: int) -> Head | None:
        """Where an unforked feed ended when an arrival number was the newest; None: it was empty, or is forked."""
        ...

    def lanes_since(self, after: int, districts: Collection[str]) -> list[tuple[int, int, int]]:
        """Lane, entries, lowest stamp, of what came after an arrival number into feeds of these districts; ascending."""
        ...

    def runs_after(
        self, feed: FeedId, after: tuple[tuple[int, Link], ...], budget_bytes: int
    ) -> Iterator[Run]:
        """What a peer with these heads lacks of a feed, branch by branch, up to a budget."""
        ...

    def drop_content(self, document: DocumentId) -> int:
        """Retention: drop the sealed bytes of a document, now and as they arrive; keep its places. Returns how many."""
        ...

    def undropped(self, after: bytes, before_month: int, limit: int) -> list[DocumentId]:
        """Documents of months from 1 up to before a month that retention has not dropped, after an id, ascending."""
        ...

    # proofs
    def fork_proof(self, feed: FeedId) -> ForkProof | None:
        """Make the proof of the first fork of a feed from the branches held."""
        ...

    def put_proof(self, feed: FeedId, proof: bytes) -> None:
        """Keep a proof for ever."""
        ...

    def proofs(self) -> list[tuple[FeedId, bytes]]:
        """Every proof, by feed."""
        ...

    # local records
    def get_meta(self, name: str) -> bytes | None:
        """A local value."""
        ...

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a local value."""
        ...

    def put_command(self, command: bytes, document: DocumentId, link: Link) -> None:
        """Note what a command did."""
        ...

    def command(self, command: bytes) -> tuple[DocumentId, Link] | None:
        """What a command did."""
        ...

    def put_index(self, key: bytes, document: DocumentId) -> None:
        """File a document under a patient's key."""
        ...

    def index(self, key: bytes) -> list[DocumentId]:
        """Documents filed under a patient's key, sorted."""
        ...

    def put_snapshot(self, document: DocumentId, basis: bytes, sealed: bytes) -> None:
        """Keep a sealed snapshot of a state."""
        ...

    def snapshot(self, document: DocumentId) -> tuple[bytes, bytes] | None:
        """A sealed snapshot and its basis."""
        ...

    def append_audit(self, sealed: bytes, chain: bytes) -> None:
        """Append to the audit log."""
        ...

    def audit_head(self) -> bytes:
        """Chain value of the last audit record; empty if none."""
        ...

    def audit(self) -> Iterator[tuple[bytes, bytes]]:
        """Every audit record: sealed bytes and chain value."""
        ...

    def put_horizon(self, node: NodeId, stamp: int, heard_ms: int) -> None:
        """Note up to which stamp a node's entries are held and when it was heard; neither goes backwards."""
        ...

    def horizon(self) -> list[tuple[NodeId, int, int]]:
        """Node, stamp, heard (ms), by node."""
        ...

    # care
    def backup(self, target: Path) -> None:
        """Copy the store while it is in use, without continuity token."""
        ...

    def verify(self) -> Iterator[StoredEntry]:
        """Every chained entry in order of feed, branch and sequence, each checked against its predecessor.

        Checks everything else that is stored, too. Signatures are the caller's to check: the store knows no keys.
        """
        ...
