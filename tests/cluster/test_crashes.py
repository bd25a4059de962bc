"""Nodes are killed, copied and restored: what they acknowledged stays, and custody stays with one of them."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from ledger import Basis, Supply
from ledger.errors import NotPermitted
from tests.cluster.book import AGREE_SECONDS, Book, agree
from tests.cluster.work import dispense, issue, working
from tests.lab.cluster import HERE, Member, open_cluster, until
from tests.lab.lab import KINDS

SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 12))]


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_killed_at_any_moment_lose_nothing_that_they_acknowledged(seed: int, tmp_path: Path) -> None:
    book, chance = Book(), random.Random(seed)
    with open_cluster(KINDS[0], tmp_path) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        with working(cluster, book, seed=seed) as work:
            for _ in range(9):
                # At a moment that work chooses: so many commands on, somebody dies in the midst of his.
                work.wait_for(chance.choice(["prescribe", "dispense 1"]), chance.randint(1, 5))
                victim = chance.choice(list(cluster.members.values()))
                victim.kill()
                work.wait_for("prescribe", chance.randint(0, 5))
                victim.start()
            work.wait_for("claim", 1)
        took = agree(cluster, AGREE_SECONDS)
        print(f"seed {seed}: the same after {took:.1f} s; {book.counts()}")
        book.check(cluster)


def has_begun_anew(member: Member) -> bool:
    return member.status().store.incarnation > 1


@pytest.mark.parametrize("kind", HERE)
def test_two_copies_of_one_node_are_found_by_all_and_contained(kind: str, tmp_path: Path) -> None:
    book = Book()
    with open_cluster(kind, tmp_path, spare=["twin"]) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        documents = issue(cluster, book, 6)
        eken = cluster["eken"]
        eken.stop()
        twin = cluster.copy("eken", "twin")
        # Each believes itself to be the one: some fills are supplied by one, some by the other, one by both.
        for member, chosen in ((eken, documents[:3]), (twin, documents[2:5])):
            for document in chosen:
                dispense(book, member, document, 1)
        cluster.start("eken", "twin")
        print(f"{kind}: the same after {agree(cluster, AGREE_SECONDS):.1f} s")
        book.check(cluster, {"forked_feed", "double_dispensing", "contested_custody"})
        for member in cluster:
            with member.reading() as ledger:
                double = {a.document for a in ledger.anomalies() if a.kind == "double_dispensing"}
                assert double == {documents[2]}, f"{member.name} has not found it"
                assert any(a.kind == "forked_feed" for a in ledger.anomalies())
        # What the forked feed held is never again supplied on custody, by neither.
        for member in (eken, twin):
            until(partial(has_begun_anew, member), AGREE_SECONDS, "a new incarnation")
            for document in documents:
                with pytest.raises(NotPermitted):
                    dispense(book, member, document, 2)
        # What is issued now goes to one feed: of two copies one alone may supply it.
        agree(cluster, AGREE_SECONDS)
        for document in issue(cluster, book, 2):
            supplied = 0
            for member in (eken, twin):
                try:
                    dispense(book, member, document, 1)
                    supplied += 1
                except NotPermitted:
                    pass
            assert supplied == 1
        agree(cluster, AGREE_SECONDS)
        book.check(cluster, {"forked_feed", "double_dispensing", "contested_custody"})


@pytest.mark.parametrize("kind", HERE)
def test_a_node_restored_from_a_backup_gets_back_what_it_had_told(kind: str, tmp_path: Path) -> None:
    book = Book()
    with open_cluster(kind, tmp_path) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        documents = issue(cluster, book, 6)
        eken, file = cluster["eken"], tmp_path / "eken.backup"
        dispense(book, eken, documents[0], 1)
        eken.command("backup", file)
        after = [dispense(book, eken, document, 1) for document in documents[1:4]]
        agree(cluster, AGREE_SECONDS)
        eken.kill()
        eken.command("restore", file, "--replace")
        with eken.reading() as ledger:
            assert all(ledger.node.store.by_link(tried.link) is None for tried in after if tried.link)
        cluster.start("eken")
        agree(cluster, AGREE_SECONDS)
        assert eken.status().store.incarnation == 2
        # A host that repeats what it had been told is told the same; what was held before the loss is not held now.
        with eken.ledger() as ledger:
            for tried in after:
                assert tried.document is not None
                supply = Supply(fill=1, basis=Basis.CUSTODY)
                again = ledger.dispense(tried.document, supply, person=eken.person, command=tried.command)
                assert again.link == tried.link
        with pytest.raises(NotPermitted):
            dispense(book, eken, documents[4], 1)
        # What is issued now it may supply.
        for document in issue(cluster, book, 1):
            dispense(book, eken, document, 1)
        with working(cluster, book) as work:
            work.wait_for("dispense 1", 4)
        print(f"{kind}: the same after {agree(cluster, AGREE_SECONDS):.1f} s; {book.counts()}")
        book.check(cluster)
