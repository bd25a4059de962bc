"""The Automerge document of a prescription: derived from its events, the same bytes on every node (R4).

The only module that touches Automerge. Foreign Automerge bytes never reach it: a checksum-valid change can
abort the process, a repeated (actor, sequence) wedges honest replication for good. So each event becomes one
change, made here:

- the document at the event's parents, the actor set to the event's own id (no two changes can ever claim one
  actor and sequence number), the event's JSON under its id at the root, commit, merge;
- in canonical order (topological, ties by id), so the saved document is the same to the byte whatever the
  order of arrival, on automerge 1.0.0rc1 and 0.2.0.dev4 alike;
- an event whose parents are missing waits, with all that stands on it.

Automerge fails with bare exceptions and with panics that are no ``Exception``; what leaves this module is
`LedgerBug`. It holds the interpreter's lock while it works, so documents stay small: one prescription each.
"""

# ruff: noqa: ANN401 -- Automerge comes without types; its objects stay inside this module.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from typing import Any

from msgspec import Struct

from ledger.errors import LedgerBug
from ledger.ids import Link

__all__ = [
    "ACTOR_BYTES",
    "DocumentEvent",
    "Ordered",
    "build",
    "events_of",
    "extend",
    "heads",
    "order",
    "topological",
]

ACTOR_BYTES = 32
"""The whole link: half would do against chance, the whole also against who grinds hashes of own events."""
LIVE_BRANCHES_MAX = 8
"""Copies kept while building, so that concurrent branches do not fork the document at every event."""
_FIRST_ACTOR = b"\0" * ACTOR_BYTES


class DocumentEvent(Struct, frozen=True):
    """An event as it enters the document: its id, its parents' ids, its JSON."""

    id: Link
    parents: tuple[Link, ...]
    text: str


class Ordered(Struct, frozen=True):
    """Events in canonical order, and the ids (ascending) of those that wait for a parent."""

    events: tuple[DocumentEvent, ...]
    waiting: tuple[Link, ...]


def topological(parents: Mapping[Link, Iterable[Link]]) -> list[Link]:
    """Ids after all of their parents, ties by id: the canonical order.

    Parents that are not among the ids are ignored. Ids in a cycle (impossible for hashes, possible for test
    data) are left out.
    """
    waiting: dict[Link, int] = {}
    children: dict[Link, list[Link]] = {}
    for child, named in parents.items():
        held = {p for p in named if p in parents}
        waiting[child] = len(held)
        for parent in held:
            children.setdefault(parent, []).append(child)
    ready = [link for link, count in waiting.items() if not count]
    heapify(ready)
    ordered: list[Link] = []
    while ready:
        link = heappop(ready)
        ordered.append(link)
        for child in children.get(link, ()):
            waiting[child] -= 1
            if not waiting[child]:
                heappush(ready, child)
    return ordered


def order(events: Iterable[DocumentEvent]) -> Ordered:
    """The canonical order of the events all of whose ancestors are among them; the others wait for theirs.

    Raises:
        LedgerBug: two different events under one id.
    """
    known: dict[Link, DocumentEvent] = {}
    for event in events:
        if known.setdefault(event.id, event) != event:
            raise LedgerBug("two different events have one id")
    whole: dict[Link, DocumentEvent] = {}
    for link in topological({link: event.parents for link, event in known.items()}):
        event = known[link]
        if all(parent in whole for parent in event.parents):
            whole[link] = event
    return Ordered(tuple(whole.values()), tuple(sorted(known.keys() - whole.keys())))


def heads(events: Iterable[DocumentEvent]) -> tuple[Link, ...]:
    """Ids, ascending, of the events in the document that no other event in it names as parent."""
    whole = order(events).events
    named = {parent for event in whole for parent in event.parents}
    return tuple(sorted(event.id for event in whole if event.id not in named))


def build(events: Iterable[DocumentEvent]) -> bytes:
    """The saved document of these events; those that wait are not in it (`order` names them).

    Raises:
        LedgerBug: Automerge failed, or two different events have one id.
    """
    ordered = order(events).events
    with _automerge() as core:
        return _Growing(core, core.Document(_FIRST_ACTOR)).grow(ordered)


def extend(saved: bytes, events: Iterable[DocumentEvent]) -> bytes:
    """What `build` gives for the events in a saved document and these together, often without building anew.

    Events that waited when the document was saved are not in it and have to be given again.

    Args:
        saved: bytes that `build` or `extend` returned on this node, kept sealed. Never any others.
        events: events to put in; those that the document holds already change nothing.

    Raises:
        LedgerBug: Automerge failed, the bytes are not ours, or two different events have one id.
    """
    with _automerge() as core:
        document = _load(core, saved)
        held = _events_held(core, document)
        ordered = order([*held, *_not_held(held, events)]).events
        if ordered[: len(held)] != held:
            # Something new stands between what is held: the canonical bytes are those of the canonical order.
            return _Growing(core, core.Document(_FIRST_ACTOR)).grow(ordered)
        return _Growing(core, document).grow(ordered[len(held) :])


def events_of(saved: bytes) -> dict[Link, str]:
    """Event id → JSON text, in canonical order, of a document that this node saved.

    Raises:
        LedgerBug: the bytes are not ours.
    """
    with _automerge() as core:
        return {event.id: event.text for event in _events_held(core, _load(core, saved))}


@contextmanager
def _automerge() -> Iterator[Any]:
    """Import Automerge when first needed, and turn its failures into ours."""
    from automerge import core  # A relay, which reads nothing, never loads it.

    try:
        yield core
    except (LedgerBug, MemoryError):
        raise
    except Exception as error:
        raise LedgerBug(f"Automerge failed on a document of ours ({type(error).__name__})") from error
    except BaseException as error:
        # A panic in Rust is a BaseException whose class cannot be imported. All others (Ctrl-C) are not ours.
        if type(error).__name__ != "PanicException":
            raise
        raise LedgerBug("Automerge panicked on a document of ours") from error


class _Growing:
    """A document to which events are put in canonical order, each as one change."""

    def __init__(self, core: Any, document: Any) -> None:
        self._core = core
        self._document = document
        self._changes: dict[Link, bytes] = {Link(c.actor_id): c.hash for c in document.get_changes([])}
        self._heads: frozenset[Link] = self._heads_now()
        self._branches: OrderedDict[frozenset[Link], Any] = OrderedDict()

    def _heads_now(self) -> frozenset[Link]:
        link_of = {change: link for link, change in self._changes.items()}
        return frozenset(link_of[head] for head in self._document.get_heads())

    def grow(self, events: Iterable[DocumentEvent]) -> bytes:
        """Put events in, each after its parents, and save."""
        for event in events:
            self._put(event)
        saved: bytes = self._document.save()
        return saved

    def _put(self, event: DocumentEvent) -> None:
        parents = frozenset(event.parents)
        # In a history without branches, which is nearly always, the document stands at the parents already.
        whole = parents == self._heads
        branch = self._document if whole else self._branches.pop(parents, None) or self._at(sorted(parents))
        branch.set_actor(event.id)
        with branch.transaction() as transaction:
            transaction.put(self._core.ROOT, event.id.hex(), self._core.ScalarType.Str, event.text)
        (self._changes[event.id],) = branch.get_heads()
        if not whole:
            self._document.merge(branch)
            self._branches[frozenset((event.id,))] = branch
            if len(self._branches) > LIVE_BRANCHES_MAX:
                self._branches.popitem(last=False)
        self._heads = (self._heads - parents) | {event.id}

    def _at(self, parents: Sequence[Link]) -> Any:
        if not parents:
            return self._core.Document(_FIRST_ACTOR)
        at = [self._changes[parent] for parent in parents]
        fork_at = getattr(
            self._document, "fork_at", None
        )  # 0.2.0.dev4; 1.0.0rc1 takes the heads in fork itself.
        return self._document.fork(at) if fork_at is None else fork_at(at)


def _load(core: Any, saved: bytes) -> Any:
    if not saved:
        # Automerge reads no bytes at all as an empty document: a lost snapshot must not look like one.
        raise LedgerBug("an empty string is not a document of ours")
    return core.Document.load(saved)


def _events_held(core: Any, document: Any) -> tuple[DocumentEvent, ...]:
    """The events of a document of ours, in the order of their changes.

    Their parents are those that Automerge kept: without the ancestors of others, which order nothing.
    """
    changes = document.get_changes([])
    link_of = {change.hash: Link(change.actor_id) for change in changes}
    held = []
    for change in changes:
        link = Link(change.actor_id)
        value = document.get(core.ROOT, link.hex())
        if value is None:
            raise LedgerBug("a change in a document of ours holds no event")
        held.append(DocumentEvent(link, tuple(sorted(link_of[dep] for dep in change.deps)), value[0][1]))
    return tuple(held)


def _not_held(held: Iterable[DocumentEvent], events: Iterable[DocumentEvent]) -> list[DocumentEvent]:
    texts = {event.id: event.text for event in held}
    for event in (given := list(events)):
        if texts.get(event.id, event.text) != event.text:
            raise LedgerBug("two different events have one id")
    return [event for event in given if event.id not in texts]
