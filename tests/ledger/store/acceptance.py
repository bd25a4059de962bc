"""What every store promises (`ledger.store.port`), whatever it is built on: R1, R2, R6, R16 and one writer.

A store's own test module derives from `StoreAcceptance` and says how one is made, closed and opened again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.errors import LimitExceeded, StoreBusy
from ledger.feed import ForkProof, Run, VerifiedRun, check_fork_proof, verify_run
from ledger.ids import DocumentId, FeedId, Link, NodeId, document_month, tagged_hash
from ledger.store.port import Added, Store, StoredEntry
from ledger.store.runs import DETACHED_PER_FEED_MAX
from tests.ledger.store.builders import (
    DISTRICT,
    DOCUMENT,
    ELSEWHERE,
    PUBLIC,
    REALM,
    FeedForTests,
    before,
    document,
    part,
    stripped,
)

__all__ = ["StoreAcceptance", "contents", "sent", "take"]


def contents(store: Store) -> tuple[object, ...]:
    """Everything of a store that does not depend on the order of arrival."""
    feeds = [
        (row, sorted((head.sequence, head.link, head.stamp) for head in store.heads(row.feed)))
        for row in store.feeds()
    ]
    documents = {
        d: [(e.feed, e.entry(), e.previous, e.link, e.detached) for e in store.entries_of(d)]
        for d in sorted(set(store.documents()))
    }
    bases = {d: store.places(d) for d in documents}
    return (
        feeds,
        documents,
        bases,
        store.forks(DISTRICT),
        store.forks_basis(DISTRICT),
        store.detached_links(DISTRICT),
    )


def take(store: Store, *runs: VerifiedRun) -> list[Added | None]:
    """Add runs, each in its own transaction."""
    added = []
    for run in runs:
        with store.transaction():
            added.append(store.add_run(run))
    return added


def sent(
    store: Store, feed: FeedId, after: tuple[tuple[int, Link], ...] = (), budget: int = 1 << 40
) -> list[VerifiedRun]:
    """What a store gives a peer, as the peer verifies it."""
    return [verify_run(REALM, run, PUBLIC) for run in store.runs_after(feed, after, budget)]


class StoreAcceptance(ABC):
    """The suite. Tests that write to one store take `store`."""

    @abstractmethod
    def create(self, place: Path) -> Store:
        """A new, empty store at a place."""

    @abstractmethod
    def open(self, place: Path, *, writable: bool = True) -> Store:
        """The store at a place, opened again."""

    @contextmanager
    def fresh(self, place: Path) -> Iterator[Store]:
        """A store of its own."""
        place.parent.mkdir(parents=True, exist_ok=True)
        store = self.create(place)
        try:
            yield store
        finally:
            store.close()

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "store.db"

    @pytest.fixture
    def store(self, place: Path) -> Iterator[Store]:
        with self.fresh(place) as store:
            yield store

    # --- feeds and runs -------------------------------------------------------------------------------------

    def test_an_empty_feed_ends_at_its_genesis(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        (head,) = store.heads(feed.id)
        assert (head.branch, head.sequence, head.link, head.stamp) == (0, 0, feed.genesis, 0)
        row = store.feed(feed.id)
        assert row is not None
        assert (row.signed, row.district, row.author) == (feed.signed, DISTRICT, feed.author)
        assert store.feed(FeedId(bytes(16))) is None
        assert store.heads(FeedId(bytes(16))) == []

    def test_an_opening_held_already_changes_nothing(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        take(store, feed.run(2))
        held = contents(store)
        feed.open(store)
        assert contents(store) == held

    def test_a_run_is_held_once_however_often_it_comes(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(5)
        assert take(store, run, run) == [Added(5, forked=False), Added(0, forked=False)]
        assert [e.link for e in store.verify()] == list(run.links)

    def test_a_run_extends_what_is_held_and_an_overlap_counts_only_what_is_new(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        whole = feed.run(9)
        added = take(store, part(whole, 0, 4), part(whole, 2, 7), part(whole, 6, 9))
        assert [a and a.new for a in added] == [4, 3, 2]
        assert [e.link for e in store.verify()] == list(whole.links)

    def test_a_gap_is_no_error_and_nothing_of_it_is_kept(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        whole = feed.run(6)
        assert take(store, part(whole, 3, 6)) == [None]
        assert list(store.documents()) == []
        assert take(store, FeedForTests(2).run(2)) == [None], "of a feed that is not held"

    def test_own_entries_and_runs_make_the_same_feed(self, place: Path) -> None:
        feed = FeedForTests()
        run = feed.run(4)
        with self.fresh(place) as one, self.fresh(place.with_name("other.db")) as other:
            feed.open(one)
            feed.open(other)
            for index, entry in enumerate(run.entries):
                with one.transaction():
                    signed = part(run, index, index + 1).entries[0]
                    one.add_own(feed.id, before(run, index), signed, run.links[index])
                assert entry.sequence == one.heads(feed.id)[0].sequence
            take(other, run)
            assert one.frontier(DISTRICT) == other.frontier(DISTRICT)
            assert one.document_basis(DOCUMENT, DISTRICT) == other.document_basis(DOCUMENT, DISTRICT)

    def test_what_a_peer_lacks_is_sent_in_runs_that_it_can_verify(self, place: Path) -> None:
        feed = FeedForTests()
        whole = feed.run(860)
        with self.fresh(place) as store, self.fresh(place.with_name("peer.db")) as peer:
            feed.open(store)
            feed.open(peer)
            take(store, part(whole, 0, 400), part(whole, 400, 860))
            take(peer, part(whole, 0, 400))
            heads = tuple((h.sequence, h.link) for h in peer.heads(feed.id))
            runs = sent(store, feed.id, heads)
            assert sum(len(run.entries) for run in runs) == 460
            take(peer, *runs)
            assert peer.frontier(DISTRICT) == store.frontier(DISTRICT)
            assert sent(store, feed.id, heads, 1)[0].entries, "a budget too small for one run sends one"
            assert sent(store, feed.id, tuple((h.sequence, h.link) for h in peer.heads(feed.id))) == []

    def test_a_budget_bounds_what_is_sent_and_the_rest_follows(self, place: Path) -> None:
        feed = FeedForTests()
        runs, last = [], None
        for _ in range(30):
            last = feed.run(10, last)
            runs.append(last)
        with self.fresh(place) as store, self.fresh(place.with_name("peer.db")) as peer:
            feed.open(store)
            feed.open(peer)
            take(store, *runs)
            for _ in range(100):
                heads = tuple((h.sequence, h.link) for h in peer.heads(feed.id))
                part_sent = sent(store, feed.id, heads, 8_000)
                if not part_sent:
                    break
                assert sum(len(e.sealed or b"") for r in part_sent for e in r.entries) < 12_000
                take(peer, *part_sent)
            assert peer.frontier(DISTRICT) == store.frontier(DISTRICT)

    # --- forks ----------------------------------------------------------------------------------------------

    def test_two_branches_are_both_kept_and_proven(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        trunk = feed.run(3)
        left, right = feed.run(4, trunk, content=b"left"), feed.run(2, trunk, content=b"right")
        assert take(store, trunk, left, right, right) == [
            Added(3, forked=False), Added(4, forked=False), Added(2, forked=True), Added(0, forked=False),
        ]  # fmt: skip
        assert {h.link for h in store.heads(feed.id)} == {left.links[-1], right.links[-1]}
        assert store.forks(DISTRICT) == {feed.id: 4}
        assert len(store.entries_of(DOCUMENT)) == 9
        proof = store.fork_proof(feed.id)
        assert proof is not None
        assert check_fork_proof(REALM, proof, PUBLIC) == 4
        assert len(list(store.verify())) == 9

    def test_a_fork_at_the_first_entry_and_a_fork_of_a_fork_are_kept(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        first, second = feed.run(3, content=b"a"), feed.run(3, content=b"b")
        twig = feed.run(2, part(second, 0, 2), content=b"c")
        take(store, first, second, twig, feed.run(1, first, content=b"a"), feed.run(1, twig, content=b"c"))
        assert store.forks(DISTRICT) == {feed.id: 1}
        assert [(b.branch, b.parent, b.sequence) for b in store.branches(DISTRICT)[feed.id]] == [
            (1, 0, 1),
            (2, 1, 3),
        ]
        assert sorted(h.sequence for h in store.heads(feed.id)) == [3, 4, 5]
        assert len(list(store.verify())) == 10

    def test_the_proof_of_a_fork_does_not_depend_on_which_side_came_first(self, place: Path) -> None:
        feed = FeedForTests()
        left, right = feed.run(3, content=b"left"), feed.run(3, content=b"right")
        proofs: list[ForkProof | None] = []
        for name, runs in (("one", (left, right)), ("other", (right, left))):
            with self.fresh(place.with_name(name)) as store:
                feed.open(store)
                take(store, *runs)
                proofs.append(store.fork_proof(feed.id))
        assert proofs[0] is not None
        assert proofs[0] == proofs[1]

    def test_no_fork_no_proof(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        take(store, feed.run(3))
        assert store.fork_proof(feed.id) is None
        assert store.forks(DISTRICT) == {}

    @given(order=st.permutations(range(9)), repeats=st.lists(st.integers(0, 8), max_size=6))
    @settings(max_examples=25)
    def test_any_order_and_repetition_of_deliveries_gives_the_same_contents(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[int], repeats: list[int]
    ) -> None:
        """R4 as far as a store goes: three branches in pieces, resent until nothing is missing."""
        feed, other = FeedForTests(), FeedForTests(2)
        trunk = feed.run(6)
        left, right = feed.run(4, trunk, content=b"l"), feed.run(4, part(trunk, 0, 4), content=b"r")
        pieces = [
            part(trunk, 0, 2), part(trunk, 2, 4), part(trunk, 4, 6), part(left, 0, 2), part(left, 2, 4),
            part(right, 0, 3), part(right, 1, 4), other.run(3), stripped(part(trunk, 1, 5)),
        ]  # fmt: skip
        directory = tmp_path_factory.mktemp("order")
        found = []
        for name, plan in (
            ("plain", list(range(9)) * 4),
            ("mixed", [*order, *repeats, *order, *order, *order, *order]),
        ):
            with self.fresh(directory / name) as store:
                feed.open(store)
                other.open(store)
                take(store, *(pieces[index] for index in plan))
                assert sum(1 for _ in store.verify()) == 6 + 4 + 4 + 3
                feeds, documents, *rest = contents(store)
                # Signatures travel beside the entries: which of them came first is no part of the set.
                bare = {
                    d: [(f, replace(e, signature=None), *more) for f, e, *more in entries]
                    for d, entries in documents.items()  # type: ignore[attr-defined]
                }
                found.append((feeds, bare, rest))
        assert found[0] == found[1]

    # --- content --------------------------------------------------------------------------------------------

    def test_content_that_one_peer_withholds_is_taken_from_the_next(self, store: Store) -> None:
        """A link covers the hash of the content, so a run without it verifies: it must not keep the content out."""
        feed = FeedForTests().open(store)
        run = feed.run(3)
        take(store, stripped(run))
        basis = store.document_basis(DOCUMENT, DISTRICT)
        assert all(e.sealed is None for e in store.entries_of(DOCUMENT))
        assert take(store, run) == [Added(0, forked=False, filled=3)]
        assert [e.sealed for e in store.entries_of(DOCUMENT)] == [e.sealed for e in run.entries]
        assert store.document_basis(DOCUMENT, DISTRICT) != basis, (
            "what was derived without content is out of date"
        )
        take(store, stripped(run))
        assert all(e.sealed is not None for e in store.entries_of(DOCUMENT)), "nothing takes it away again"
        assert len(list(store.verify())) == 3

    def test_retention_drops_content_for_good_and_keeps_every_place(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        kept = document(1)
        run = feed.run(6, documents=(DOCUMENT, kept))
        take(store, run)
        month = document_month(DOCUMENT)
        both = sorted([DOCUMENT, kept])
        assert store.undropped(b"", month + 1, 9) == both
        assert store.undropped(b"", month + 1, 1) == both[:1]
        assert store.undropped(both[0], month + 1, 9) == both[1:]
        assert store.undropped(b"", month, 9) == store.undropped(b"", 0, 9) == []
        with store.transaction():
            store.put_snapshot(DOCUMENT, b"basis", b"sealed")
            assert store.drop_content(DOCUMENT) == 3
            assert store.drop_content(DOCUMENT) == 0
        assert store.undropped(b"", 1 << 20, 9) == [kept]
        take(store, run, feed.run(2, run, documents=(DOCUMENT, kept)))
        assert all(e.sealed is None for e in store.entries_of(DOCUMENT)), "it comes back with no peer"
        assert all(e.sealed is not None for e in store.entries_of(kept))
        assert store.snapshot(DOCUMENT) is None
        assert len(list(store.verify())) == 8
        assert len([e for r in sent(store, feed.id) for e in r.entries]) == 8

    def test_a_hash_beside_content_is_nobodys_word_and_is_not_kept(self, place: Path) -> None:
        feed = FeedForTests()
        run = feed.run(1)
        odd = replace(run.entries[0], sealed_hash=bytes(32))
        with self.fresh(place) as store:
            feed.open(store)
            take(store, verify_run(REALM, Run(feed.id, feed.genesis, (odd,)), PUBLIC))
            assert store.entries_of(DOCUMENT)[0].entry() == run.entries[0]

    # --- detached -------------------------------------------------------------------------------------------

    def detach(self, store: Store, run: VerifiedRun, index: int) -> None:
        single = part(run, index, index + 1).entries[0]
        with store.transaction():
            store.add_detached(run.feed, before(run, index), single, run.links[index])

    def test_a_detached_entry_counts_at_once_and_is_chained_when_its_feed_arrives(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(5)
        self.detach(store, run, 3)
        self.detach(store, run, 3)
        (ahead,) = store.entries_of(DOCUMENT)
        assert (ahead.detached, ahead.sequence, ahead.link) == (True, 4, run.links[3])
        assert store.detached_links(DISTRICT) == [run.links[3]]
        assert store.heads(feed.id)[0].sequence == 0
        assert sent(store, feed.id) == []
        take(store, stripped(run))
        held = store.entries_of(DOCUMENT)
        assert [e.detached for e in held] == [False] * 5
        assert held[3].sealed is not None, "what it said is not lost to a run without content"
        assert held[3].signature is not None
        assert store.detached_links(DISTRICT) == []
        self.detach(store, run, 3)
        assert len(store.entries_of(DOCUMENT)) == 5
        assert len(list(store.verify())) == 5

    def test_detached_entries_of_two_branches_are_both_held(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        trunk = feed.run(2)
        left, right = feed.run(1, trunk, content=b"l"), feed.run(1, trunk, content=b"r")
        self.detach(store, left, 0)
        self.detach(store, right, 0)
        assert len(store.entries_of(DOCUMENT)) == 2
        added = take(store, trunk, left, right)
        assert added[-1] == Added(1, forked=True), "a fork is seen although its entry was held detached"
        assert store.forks(DISTRICT) == {feed.id: 3}

    def test_detached_entries_are_bounded_per_feed(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(DETACHED_PER_FEED_MAX + 2)
        with store.transaction():
            for index in range(1, DETACHED_PER_FEED_MAX + 1):
                store.add_detached(
                    feed.id, before(run, index), part(run, index, index + 1).entries[0], run.links[index]
                )
        with pytest.raises(LimitExceeded):
            self.detach(store, run, DETACHED_PER_FEED_MAX + 1)
        other = FeedForTests(2).open(store)
        self.detach(store, other.run(2), 1)
        assert len(store.detached_links(DISTRICT)) == DETACHED_PER_FEED_MAX + 1

    # --- documents ------------------------------------------------------------------------------------------

    def test_entries_are_found_by_document_link_and_arrival(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        documents = [document(n) for n in range(7)]
        run = feed.run(50, documents=documents)
        take(store, run)
        assert set(store.documents(DISTRICT)) == set(documents)
        assert list(store.documents(ELSEWHERE)) == []
        for d in documents:
            assert [e.entry() for e in store.entries_of(d)] == [e for e in run.entries if e.document == d]
        for entry, link in zip(run.entries, run.links, strict=True):
            found = store.by_link(link)
            assert found is not None
            assert found.entry() == entry
        assert store.by_link(Link(bytes(32))) is None
        arrived: list[StoredEntry] = []
        after = 0
        while batch := store.arrivals(after, 9):
            arrived += [stored for _, stored in batch]
            after = batch[-1][0]
        assert [e.link for e in arrived] == list(run.links)

    def test_a_document_whose_id_somebody_borrows_stands_in_each_district_by_itself(
        self, store: Store
    ) -> None:
        home, borrower = FeedForTests(1).open(store), FeedForTests(2, ELSEWHERE).open(store)
        take(store, home.run(3), borrower.run(2))
        assert [place for place, _ in store.places(DOCUMENT)] == sorted([DISTRICT, ELSEWHERE])
        assert len(store.entries_of(DOCUMENT, DISTRICT)) == 3
        assert len(store.entries_of(DOCUMENT, ELSEWHERE)) == 2
        assert len(store.entries_of(DOCUMENT)) == 5
        assert store.entries_of(DOCUMENT, "SE-X-1") == []
        assert store.document_basis(DOCUMENT, DISTRICT) != store.document_basis(DOCUMENT, ELSEWHERE)
        assert store.places(document(1)) == []

    # --- transactions ---------------------------------------------------------------------------------------

    def test_a_failed_transaction_leaves_nothing(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(3)
        take(store, run)
        held = contents(store)
        other = FeedForTests(2)

        def fails() -> None:
            with store.transaction():
                store.add_run(feed.run(3, run, documents=(document(1),)))
                store.add_run(feed.run(1, content=b"fork"))
                store.add_feed(other.id, other.signed, DISTRICT, other.author, 1)
                store.put_meta("name", b"value")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fails()
        assert contents(store) == held
        assert store.get_meta("name") is None
        other.open(store)
        take(store, feed.run(2, run, documents=(document(2),)), other.run(1))
        assert len(list(store.verify())) == 6, "what was remembered of it misleads nobody"

    def test_a_nested_transaction_fails_alone(self, store: Store) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(2)

        def fails() -> None:
            with store.transaction():
                store.add_run(feed.run(2, run, documents=(document(1),)))
                raise RuntimeError

        with store.transaction():
            store.add_run(run)
            with pytest.raises(RuntimeError):
                fails()
            store.put_meta("name", b"value")
        assert store.heads(feed.id)[0].sequence == 2
        assert store.get_meta("name") == b"value"
        assert len(list(store.verify())) == 2

    def test_an_error_of_the_caller_stays_the_callers(self, store: Store) -> None:
        with pytest.raises(UnicodeDecodeError), store.transaction():
            b"\xff".decode()

    # --- local records --------------------------------------------------------------------------------------

    def test_local_records_say_what_was_noted(self, store: Store, place: Path) -> None:
        link, node = Link(b"l" * 32), NodeId(b"n" * 16)
        with store.transaction():
            store.put_meta("name", b"one")
            store.put_meta("name", b"two")
            store.put_command(b"c" * 16, DOCUMENT, link)
            store.put_command(b"c" * 16, document(1), Link(bytes(32)))
            for number in (2, 1, 2):
                store.put_index(b"k" * 32, document(number))
            store.put_snapshot(DOCUMENT, b"one", b"sealed")
            store.put_snapshot(DOCUMENT, b"two", b"sealed again")
            chain = b""
            for record in (b"first", b"second"):
                chain = tagged_hash("audit", chain, record)
                store.append_audit(record, chain)
            store.put_horizon(node, 5, 50)
            store.put_horizon(node, 9, 40)
            store.put_proof(FeedId(b"f" * 16), b"proof")
            store.put_proof(FeedId(b"f" * 16), b"another")
        store.close()
        again = self.open(place)
        try:
            assert again.get_meta("name") == b"two"
            assert again.get_meta("other") is None
            assert again.command(b"c" * 16) == (DOCUMENT, link), "the first result stands"
            assert again.command(b"d" * 16) is None
            assert again.index(b"k" * 32) == sorted([document(1), document(2)])
            assert again.index(b"l" * 32) == []
            assert again.snapshot(DOCUMENT) == (b"two", b"sealed again")
            assert again.snapshot(document(1)) is None
            assert [sealed for sealed, _ in again.audit()] == [b"first", b"second"]
            assert again.audit_head() == chain
            assert again.horizon() == [(node, 9, 50)], "neither goes backwards"
            assert again.proofs() == [(FeedId(b"f" * 16), b"proof")], "a proof is kept for ever"
        finally:
            again.close()

    def test_district_changes_grow_when_a_feed_a_fork_or_a_districts_own_document_changes(
        self, store: Store
    ) -> None:
        seen = [store.district_changes()]
        feed = FeedForTests().open(store)
        seen.append(store.district_changes())
        run = feed.run(2)
        take(store, run)
        assert store.district_changes() == seen[-1], "an ordinary entry is no such change"
        take(store, feed.run(1, content=b"fork"))
        seen.append(store.district_changes())
        take(store, feed.run(1, run, documents=(DocumentId(b"\0\0" + b"x" * 14),)))
        seen.append(store.district_changes())
        assert seen == sorted(set(seen))

    # --- processes ------------------------------------------------------------------------------------------

    def test_a_store_opened_again_is_the_same(self, store: Store, place: Path) -> None:
        feed = FeedForTests().open(store)
        trunk = feed.run(4)
        take(store, trunk, feed.run(2, part(trunk, 0, 2), content=b"fork"))
        self.detach(store, feed.run(3, trunk), 2)
        held = contents(store)
        store.close()
        again = self.open(place)
        assert contents(again) == held
        again.close()

    def test_one_process_writes_and_others_read_meanwhile(self, store: Store, place: Path) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(2)
        take(store, run)
        with pytest.raises(StoreBusy):
            self.open(place)
        reader = self.open(place, writable=False)
        with store.transaction():
            store.add_run(feed.run(2, run))
            assert reader.heads(feed.id)[0].sequence == 2, "what is not durable is not seen"
        assert reader.heads(feed.id)[0].sequence == 4
        assert contents(reader) == contents(store)
        with pytest.raises(StoreBusy), reader.transaction():
            pass
        reader.close()

    def test_a_backup_taken_while_writing_is_a_whole_store(self, store: Store, place: Path) -> None:
        feed = FeedForTests().open(store)
        run = feed.run(30)
        take(store, run)
        target = place.with_name("backup.db")
        store.backup(target)
        held = contents(store)
        take(store, feed.run(2, run))
        copy = self.open(target)
        assert contents(copy) == held
        assert len(list(copy.verify())) == 30
        copy.close()

    # --- continuity -----------------------------------------------------------------------------------------

    def test_continuity_is_proven_from_opening_to_opening(self, store: Store, place: Path) -> None:
        assert store.continuity_proven
        store.close()
        for _ in range(3):
            again = self.open(place)
            assert again.continuity_proven
            again.close()

    def test_continuity_once_lost_stays_lost_until_a_new_incarnation_begins(
        self, store: Store, place: Path
    ) -> None:
        """Killed between opening a restored copy and beginning the incarnation, the next opening must not be taken in."""
        target = place.with_name("backup.db")
        store.backup(target)
        for _ in range(2):
            restored = self.open(target)
            assert not restored.continuity_proven
            restored.close()
        restored = self.open(target)
        restored.begin_continuity()
        restored.close()
        restored = self.open(target)
        assert restored.continuity_proven
        restored.close()
