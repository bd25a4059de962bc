"""Conveyances: delegations and closed feeds, by which one feed acts for another (R7).

- A delegation stands in the district's document and conveys everything its feed holds or will be named for, unspent
  at that position; one at a time: a second one written while one is open is void for ever.
- Only the delegate's feed ends a delegation, and only while it acts for itself: a delegate that passed everything on
  waits until its own delegate has ended that. Else two feeds could act for one, each in good faith.
- A closed feed names its successor; nothing ends that.
- Who acts is asked of a causal past, or of the whole set. A delegation back to who conveyed is void; two feeds that
  delegate to each other unknowingly leave nobody to act until one of them ends what was delegated to it.
- What is held ahead of its feed takes away and confers nothing: what its author spent before may be under way.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ledger.authority import Lack
from ledger.events import CustodyDelegated, CustodyDelegationEnded, FeedClosed
from ledger.facts import Causality, Fact
from ledger.ids import FeedId, Link

__all__ = ["CONVEYANCE_STEPS_MAX", "Acting", "Conveyances"]

CONVEYANCE_STEPS_MAX = 16
"""A feed delegates to one that closed to one that …: whoever stands at the end of a longer chain does not act."""


class Acting(Struct, frozen=True):
    """Who acts for a feed, and the conveyances (and ends of them) that say so."""

    feed: FeedId | None
    """None: nobody does."""
    path: tuple[Link, ...]


class Conveyances:
    """The conveyances among some facts."""

    def __init__(self, causality: Causality, lacking: Mapping[Link, Lack]) -> None:
        self._causality, self._lacking = causality, lacking
        self._by_feed: dict[FeedId, list[Fact]] = {}
        self._ends: dict[Link, list[Fact]] = {}
        self._known: dict[tuple[FeedId, int], Acting] = {}
        self._all = 0
        for fact in causality.in_order():
            event = fact.event
            if lacking.get(fact.id) is Lack.OUT_OF_ROLE:
                continue
            # In canonical order, all that a fact could know has been taken in already.
            past = causality.past(fact.id)
            if (
                isinstance(event, CustodyDelegated) and self._is_free(fact.feed, FeedId(event.to), past)
            ) or isinstance(event, FeedClosed):
                self._by_feed.setdefault(fact.feed, []).append(fact)
            elif isinstance(event, CustodyDelegationEnded) and self._may_end(fact, event, past):
                self._ends.setdefault(Link(event.delegation), []).append(fact)
            else:
                continue
            self._all |= 1 << causality.index[fact.id]
        self.any = bool(self._by_feed)

    def _is_free(self, feed: FeedId, to: FeedId, past: int) -> bool:
        return self.acting_for(feed, past).feed == feed and self.acting_for(to, past).feed not in (feed, None)

    def _may_end(self, fact: Fact, event: CustodyDelegationEnded, past: int) -> bool:
        delegation = self._causality.facts.get(Link(event.delegation))
        if (
            delegation is None
            or not isinstance(delegation.event, CustodyDelegated)
            or fact.feed != delegation.event.to
        ):
            return False
        # Without this delegation, nobody may stand behind the delegate but the two of them.
        aside = self.acting_for(fact.feed, past & ~self._causality.mask((delegation.id,)))
        return aside.feed in (fact.feed, delegation.feed)

    def acting_for(self, feed: FeedId, scope: int | None = None) -> Acting:
        """Who acts for a feed as far as a causal past tells; None: as far as all facts tell."""
        scope = self._all if scope is None else scope & self._all
        if not scope:
            return Acting(feed, ())
        known = self._known.get((feed, scope))
        if known is None:
            known = self._known[feed, scope] = self._follow(feed, scope)
        return known

    def _follow(self, feed: FeedId, scope: int) -> Acting:
        path: list[Link] = []
        seen = {feed}
        while True:
            following, links = self._step(feed, scope)
            path += links
            if following is None:
                return Acting(feed, tuple(path))
            if following in seen or len(seen) > CONVEYANCE_STEPS_MAX:
                return Acting(None, tuple(path))
            seen.add(following)
            feed = following

    def _step(self, feed: FeedId, scope: int) -> tuple[FeedId | None, list[Link]]:
        """The feed to which one has conveyed, if it has; and the acts that tell, ends among them."""
        ended: list[Link] = []
        for fact in self._by_feed.get(feed, ()):
            if not self._causality.contains(scope, fact.id):
                continue
            if isinstance(fact.event, FeedClosed):
                return FeedId(fact.event.successor), [*ended, fact.id]
            if isinstance(fact.event, CustodyDelegated):
                end = next(
                    (e.id for e in self._ends.get(fact.id, ()) if self._causality.contains(scope, e.id)), None
                )
                if end is None:
                    return FeedId(fact.event.to), [*ended, fact.id]
                ended = [end]
        return None, ended

    # --- what a path is worth -----------------------------------------------------------------------------------

    def ground(self, path: tuple[Link, ...]) -> Link | None:
        """What acts by a path rest on: the one of its links that all others precede; None if none tells all."""
        every = self._causality.mask(path)
        for link in reversed(path):
            if every & ~self._causality.past(link) == self._causality.mask((link,)):
                return link
        return None

    def is_chained(self, path: tuple[Link, ...]) -> bool:
        """Whether all that the authors of a path wrote before it is held."""
        return not any(self._causality.facts[link].detached for link in path)

    def is_tainted(self, path: tuple[Link, ...]) -> bool:
        """Whether a link of a path lacks authority, or stands where its feed is forked."""
        facts = self._causality.facts
        return any(link in self._lacking or self._causality.is_forked_at(facts[link]) for link in path)
