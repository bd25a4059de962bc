"""Anomalies: what went wrong, derived from the set of facts, the same on every node, open until a human resolves it.

An anomaly's id is a hash of its kind, document, fill and the events involved: more evidence makes another anomaly,
which is open again. Stamps are compared with stamps of the set only; no clock is asked (R5, R9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from msgspec import Struct, structs

from ledger.authority import Lack
from ledger.clock import DRIFT_MAX_MS, stamp_ms
from ledger.custody import Custody, Standing
from ledger.events import (
    AnomalyResolved,
    PrescriptionAmended,
    PrescriptionCancelled,
    PrescriptionIssued,
)
from ledger.facts import Causality, Fact
from ledger.ids import DocumentId, Link, tagged_hash
from ledger.supplies import Supply
from ledger.surplus import FACTS_PER_AUTHOR_MAX, Surplus

__all__ = ["Anomaly", "Resolution", "find_anomalies"]


class Resolution(Struct, frozen=True):
    """A human's decision about an anomaly."""

    event: Link
    decision: str


class Anomaly(Struct, frozen=True, kw_only=True):
    """Something that must be seen by a human."""

    id: bytes
    """16 bytes."""
    kind: str
    document: DocumentId
    fill: int
    """0: the prescription as a whole."""
    involved: tuple[Link, ...]
    detail: str
    resolutions: tuple[Resolution, ...] = ()


class _Finder:
    def __init__(self, document: DocumentId, causality: Causality) -> None:
        self.document, self.causality = document, causality
        self.found: dict[bytes, Anomaly] = {}

    def add(self, kind: str, involved: Iterable[Link], *, fill: int = 0, detail: str = "") -> None:
        links = tuple(sorted(set(involved)))
        anomaly_id = tagged_hash("anomaly", kind.encode(), self.document, bytes([fill]), *links)[:16]
        self.found[anomaly_id] = Anomaly(
            id=anomaly_id, kind=kind, document=self.document, fill=fill, involved=links, detail=detail
        )


def find_anomalies(
    document: DocumentId,
    causality: Causality,
    *,
    own: Iterable[Fact],
    issued: PrescriptionIssued | None,
    custody: Custody,
    lacking: Mapping[Link, Lack],
    supplies: list[Supply],
    conflicts: list[tuple[Link, ...]],
    over: frozenset[Link],
    void: Mapping[Link, str],
    surplus: Iterable[Surplus],
) -> tuple[tuple[Anomaly, ...], tuple[tuple[bytes, Resolution], ...]]:
    """Every anomaly of a document, by id; and decisions on anomalies that are none of them."""
    finder = _Finder(document, causality)
    facts = list(own)
    _supply_anomalies(finder, issued, supplies, over)
    _cancellations(finder, facts, lacking, supplies)
    _custody_anomalies(finder, custody, lacking, supplies)
    _amendments(finder, facts, lacking)
    _times(finder, facts)
    for group in conflicts:
        finder.add("command_conflict", group)
    for supply in supplies:
        if supply.conflicting:
            finder.add("conflicting_correction", (supply.id, *supply.corrections), fill=supply.fill)
    for link, why in void.items():
        finder.add("void_event", (link,), detail=why)
    for one in surplus:
        # By the first of them: a flood that goes on does not open again what a human has seen.
        detail = f"{len(one.facts)} facts of {one.author.hex()} beyond {FACTS_PER_AUTHOR_MAX}"
        finder.add("too_many", (one.facts[0].id,), detail=detail)
    forked = {f.feed for f in facts if f.feed in causality.branches.forked_at}
    for feed in forked:
        since = causality.branches.forked_at[feed]
        touched = [f.id for f in facts if f.feed == feed and f.sequence >= since]
        if touched:
            finder.add("forked_feed", touched, detail=feed.hex())
    return _resolved(finder, facts, lacking)


def _supply_anomalies(
    finder: _Finder, issued: PrescriptionIssued | None, supplies: list[Supply], over: frozenset[Link]
) -> None:
    if issued is None:
        return
    size = issued.packs_per_fill * issued.product.pack_quantity
    by_fill: dict[int, list[Supply]] = {}
    for supply in supplies:
        if supply.net:
            by_fill.setdefault(supply.fill, []).append(supply)
    for fill, held in by_fill.items():
        allowed = size if 1 <= fill <= issued.fills else 0
        total = sum(s.net for s in held)
        if total > allowed:
            kind = "double_dispensing" if len(held) > 1 else "over_quantity"
            finder.add(kind, (s.id for s in held), fill=fill, detail=f"{total} of {allowed} units")
    for supply in supplies:
        day = datetime.fromtimestamp(min(supply.at_ms, 253402300799999) / 1000, UTC).date().isoformat()
        if supply.net and day > issued.valid_until:
            finder.add("supplied_after_expiry", (supply.id,), fill=supply.fill)


def _cancellations(
    finder: _Finder, facts: list[Fact], lacking: Mapping[Link, Lack], supplies: list[Supply]
) -> None:
    """Of each supply, with the first cancellation (a label) that did not know of it."""
    causality = finder.causality
    cancels = [f.id for f in facts if isinstance(f.event, PrescriptionCancelled) and f.id not in lacking]
    cancels.sort(key=causality.index.__getitem__)
    every = causality.mask(cancels)
    waiting = [(s, causality.mask(s.ids)) for s in supplies if s.net]
    for cancel in cancels:
        past = causality.past(cancel)
        found = [s for s, mask in waiting if not past & mask]
        waiting = [(s, mask) for s, mask in waiting if past & mask]
        for supply in found:
            known = any(causality.past(link) & every for link in supply.ids)
            finder.add(
                "supplied_after_cancellation", (supply.id, cancel), fill=supply.fill,
                detail="knowingly" if known else "concurrently",
            )  # fmt: skip
        if not waiting:
            break


def _custody_anomalies(
    finder: _Finder, custody: Custody, lacking: Mapping[Link, Lack], supplies: list[Supply]
) -> None:
    for (link, fill), standing in custody.standing.items():
        if standing is Standing.BREACH:
            finder.add("custody_breach", (link,), fill=fill)
        elif standing is Standing.CONTESTED:
            finder.add("contested_custody", (link,), fill=fill)
    supplied = {link for supply in supplies for link in supply.ids}
    for link, lack in lacking.items():
        if lack is Lack.OUT_OF_ROLE:
            finder.add("out_of_role", (link,))
        elif link in supplied:
            finder.add("supplied_without_authority", (link,), detail=lack.value)


def _amendments(finder: _Finder, facts: list[Fact], lacking: Mapping[Link, Lack]) -> None:
    for field in ("dosage", "instructions"):
        last = latest_amendments(finder.causality, facts, lacking, field)
        if len({getattr(f.event, field) for f in last}) > 1:
            finder.add("conflicting_amendments", (f.id for f in last), detail=field)


def latest_amendments(
    causality: Causality, facts: Iterable[Fact], lacking: Mapping[Link, Lack], field: str
) -> list[Fact]:
    """Amendments of a field that no other follows, in canonical order; several if they are concurrent."""
    made = [
        f
        for f in facts
        if isinstance(f.event, PrescriptionAmended)
        and f.id not in lacking
        and getattr(f.event, field) is not None
    ]
    return [
        f for f in sorted(made, key=lambda f: causality.index[f.id]) if not causality.in_past_of_any(f, made)
    ]


def _times(finder: _Finder, facts: list[Fact]) -> None:
    held = {f.id: f for f in facts}
    for fact in facts:
        for parent in fact.parents:
            earlier = held.get(parent)
            if earlier is not None and earlier.stamp > fact.stamp and earlier.feed != fact.feed:
                finder.add("clock_beyond_bound", (earlier.id,), detail="later than what follows it")
        previous = finder.causality.previous(fact.id)
        before = None if previous is None else held.get(previous)
        # A node's own clock never steps back: here it is the second that lies, or its author's clock.
        if before is not None and before.stamp > fact.stamp:
            finder.add("clock_beyond_bound", (fact.id,), detail="earlier than what its author wrote before")
        event = fact.event
        if (
            event is not None
            and event.happened is not None
            and event.happened > stamp_ms(fact.stamp) + DRIFT_MAX_MS
        ):
            finder.add("clock_beyond_bound", (fact.id,), detail="recorded before it happened")


def _resolved(
    finder: _Finder, facts: list[Fact], lacking: Mapping[Link, Lack]
) -> tuple[tuple[Anomaly, ...], tuple[tuple[bytes, Resolution], ...]]:
    decisions: dict[bytes, list[Resolution]] = {}
    for fact in sorted(facts, key=lambda f: finder.causality.index.get(f.id, 0)):
        if isinstance(fact.event, AnomalyResolved) and fact.id not in lacking:
            decisions.setdefault(fact.event.anomaly, []).append(Resolution(fact.id, fact.event.decision))
    found = tuple(
        structs.replace(a, resolutions=tuple(decisions.get(a.id, ())))
        for _, a in sorted(finder.found.items())
    )
    others = tuple(
        (anomaly, resolution)
        for anomaly, made in sorted(decisions.items())
        if anomaly not in finder.found
        for resolution in made
    )
    return found, others
