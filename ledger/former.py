"""Commands of this node's former incarnations, learnt from their feeds as these come back from peers (R17).

A store restored from a backup has lost what was noted after it, and may get the entries back. Then a command repeated
returns its first result, as if nothing had been lost. What nobody else had received is gone, and is carried out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ledger.feed import run_links
from ledger.ids import FeedId, Link, NodeId, RealmId
from ledger.reading import Reader
from ledger.store.port import Store

__all__ = ["FormerCommands"]

FEED_BYTES_MAX = 1 << 40
"""A whole feed is read at once, run by run: more than this no feed has."""
_META = "commands-of/"

Ends = tuple[tuple[int, Link], ...]


class FormerCommands:
    """Reads the feeds of one node that its present incarnation does not write. Call under the façade's lock."""

    def __init__(self, realm: RealmId, node: NodeId, store: Store, reader: Reader) -> None:
        self._realm, self._node, self._store, self._reader = realm, node, store, reader
        self._feeds: tuple[int, tuple[tuple[FeedId, str], ...]] = (-1, ())
        """This node's feeds with their districts, as of a state of the store."""
        self._unread: dict[FeedId, tuple[Ends, bytes]] = {}
        """Feeds of which something could not be read: with what ends and keys that was tried in vain."""

    def learn(self, keys: bytes, writing: Callable[[str], FeedId | None]) -> None:
        """Note the commands in all that is new of those feeds: some 0.1 ms an entry once, and little if nothing is new.

        Args:
            keys: digest of the keys held.
            writing: the feed of the present incarnation in a district, whose commands are noted as they are written.
        """
        for feed, district in self._own():
            if feed == writing(district):
                continue
            ends = tuple((head.sequence, head.link) for head in self._store.heads(feed))
            noted = self._store.get_meta(_META + feed.hex())
            known = msgspec.msgpack.decode(noted, type=Ends) if noted is not None else ()
            if ends != known and self._unread.get(feed) != (ends, keys):
                self._learn(feed, known, ends, keys)

    def _own(self) -> tuple[tuple[FeedId, str], ...]:
        changes = self._store.district_changes()
        if self._feeds[0] != changes:
            own = tuple((r.feed, r.district) for r in self._store.feeds() if r.author == self._node)
            self._feeds = changes, own
        return self._feeds[1]

    def _learn(self, feed: FeedId, known: Ends, ends: Ends, keys: bytes) -> None:
        all_read = True
        with self._store.transaction():
            for link in self._links(feed, known):
                stored = self._store.by_link(link)
                fact = None if stored is None else self._reader.open(stored).fact
                if fact is None:
                    all_read = False
                elif fact.event is not None:
                    self._store.put_command(fact.event.command, fact.document, fact.id)
            if all_read:
                self._store.put_meta(_META + feed.hex(), msgspec.msgpack.encode(ends))
        if not all_read:
            self._unread[feed] = ends, keys

    def _links(self, feed: FeedId, known: Ends) -> Iterator[Link]:
        """Links of what stands after known ends, on every branch."""
        for run in self._store.runs_after(feed, known, FEED_BYTES_MAX):
            yield from run_links(self._realm, run)
