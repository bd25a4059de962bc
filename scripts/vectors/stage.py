"""Where fold vectors begin: a prescriber and two pharmacies, and how a set of their entries becomes a vector."""

from __future__ import annotations

from ledger import events as e
from ledger.events import Basis
from ledger.ids import (
    DocumentId,
    Link,
)
from scripts.vectors.craft import Feed, World, governance, message
from scripts.vectors.shelf import Shelf

__all__ = ["Stage", "fold_vector", "must_not"]


class Stage:
    """A prescriber and two pharmacies, at the start of a vector."""

    def __init__(self, world: World) -> None:
        world.restart()
        self.world = world
        self.doctor, self.eken, self.bjorken = (
            world.feed("prescriber"),
            world.feed("eken"),
            world.feed("bjorken"),
        )
        self.governance, self.chain = governance(world)

    def issue(self, **how: object) -> tuple[DocumentId, Link]:
        """A prescription of two fills, held by the first pharmacy unless told otherwise."""
        return self.world.issue(self.doctor, **({"holder": self.eken} | how))  # type: ignore[arg-type]

    def supply(
        self, feed: Feed, document: DocumentId, fill: int, basis: Basis, rests_on: Link | None, **how: object
    ) -> Link:
        """A supply, with what it rests on as its only parent."""
        parents = how.pop("parents", (rests_on,) if rests_on else ())
        return feed.append(document, self.world.supply(feed, fill, basis, rests_on, **how), parents)  # type: ignore[arg-type]

    def act(
        self,
        event: type[e.Event],
        feed: Feed,
        document: DocumentId,
        parents: tuple[Link, ...] = (),
        /,
        **fields: object,
    ) -> Link:
        """Any other act."""
        return feed.append(document, self.world.act(event, feed, **fields), parents)

    def govern(self, event: type[e.Event], feed: Feed | None = None, /, **fields: object) -> Link:
        """An act of governance."""
        return self.act(event, feed or self.governance, self.chain, **fields)

    def messages(self, *more: Feed) -> list[bytes]:
        """One message a feed, of those in which something stands."""
        feeds = [self.governance, self.doctor, self.eken, self.bjorken, *more]
        openings = message(*(f for f in feeds if f.entries or f.opening), runs=[])
        return [openings, *(message(f) for f in feeds if f.entries)]


def fold_vector(
    shelf: Shelf, name: str, title: str, rules: str, stage: Stage, *more: Feed, **says: object
) -> None:
    """A set of entries and the state that it folds to."""
    shelf.add(f"fold_{name}", "fold", title, rules, {"messages": stage.messages(*more)}, says=says)


def must_not(
    shelf: Shelf,
    name: str,
    title: str,
    rules: str,
    stage: Stage,
    event: Link,
    error: str,
    *more: Feed,
    **says: object,
) -> None:
    """The same, with one event against which something must be said."""
    inputs = {"messages": stage.messages(*more), "event": event.hex()}
    shelf.add(f"act_{name}", "act", title, rules, inputs, error=error, says=says)
