"""Who opened which feeds, counted as openings come in: asked for every opening and for every stranger."""

from __future__ import annotations

from collections import Counter

from ledger.ids import FeedId, NodeId
from ledger.store.port import Store

__all__ = ["Census"]


class Census:
    """Counted anew only if the store changed otherwise than by `add`. Its owner holds the node's lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._as_of = -1
        self._newest: dict[NodeId, tuple[int, FeedId]] = {}
        self._of_node: Counter[NodeId] = Counter()
        self._of_district: Counter[tuple[NodeId, str]] = Counter()

    def newest(self, node: NodeId) -> FeedId | None:
        """The newest feed of a node; None if none is held."""
        self._count()
        found = self._newest.get(node)
        return None if found is None else found[1]

    def opened(self, node: NodeId, district: str) -> tuple[int, int]:
        """How many feeds of a node are held, and how many of them in a district."""
        self._count()
        return self._of_node[node], self._of_district[node, district]

    def add(self, node: NodeId, district: str, incarnation: int, feed: FeedId) -> None:
        """A feed was added to the store just now, and nothing else."""
        self._note(node, district, incarnation, feed)
        self._as_of = self._store.district_changes()

    def _note(self, node: NodeId, district: str, incarnation: int, feed: FeedId) -> None:
        self._newest[node] = max(self._newest.get(node, (0, FeedId(b""))), (incarnation, feed))
        self._of_node[node] += 1
        self._of_district[node, district] += 1

    def _count(self) -> None:
        changes = self._store.district_changes()
        if changes == self._as_of:
            return
        self._newest.clear()
        self._of_node.clear()
        self._of_district.clear()
        for row in self._store.feeds():
            self._note(row.author, row.district, row.incarnation, row.feed)
        self._as_of = changes
