"""The census says what a count of all feeds would say, whatever happened to the store in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.large import fill_wide
from benchmarks.world import DISTRICT, SmallRealm, fill
from ledger import Ledger, NodeRole


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[tuple[SmallRealm, Ledger]]:
    realm = SmallRealm(tmp_path)
    with realm.enrol("relay", NodeRole.RELAY) as relay:
        yield realm, relay
    realm.close()


def assert_right(ledger: Ledger) -> None:
    census, rows = ledger.exchange._census, ledger.node.store.feeds()
    of_node = Counter(row.author for row in rows)
    of_district = Counter((row.author, row.district) for row in rows)
    for author in of_node:
        assert census.opened(author, DISTRICT) == (of_node[author], of_district[author, DISTRICT])
        newest = max((row.incarnation, row.feed) for row in rows if row.author == author)
        assert census.newest(author) == newest[1]


def test_openings_that_come_in_are_counted(relay: tuple[SmallRealm, Ledger]) -> None:
    realm, ledger = relay
    assert_right(ledger)
    fill_wide([ledger], realm, 300)
    assert_right(ledger)
    author = max(Counter(row.author for row in ledger.node.store.feeds()).items(), key=lambda each: each[1])
    assert author[1] == 250


def test_a_feed_of_ones_own_and_what_was_rolled_back_are_counted_right(
    relay: tuple[SmallRealm, Ledger],
) -> None:
    realm, _ = relay
    pharmacy = realm.pharmacy
    assert_right(pharmacy)
    fill(pharmacy.node, 10)
    assert_right(pharmacy)
    before = len(pharmacy.node.store.feeds())

    def take_back() -> None:
        with pharmacy.node.transaction():
            fill_wide([pharmacy], realm, 5)
            assert_right(pharmacy)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        take_back()
    assert len(pharmacy.node.store.feeds()) == before
    assert_right(pharmacy)
