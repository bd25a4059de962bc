"""The fold: from the set of facts to a prescription's state and anomalies (R4, R5, R9, R10).

A pure function of the *set* of readable facts of the document, its district's conveyances and governance. Input order,
repetition, branch labels and hash seeds do not reach the result. No clock is asked: what depends on today is computed
by `view`, outside the digest. Everything can be derived again from nothing.

Cost: linear in the number of facts but for the causal pasts, which are bit masks (n²/64 words) over the facts that take
part: of each author at most `ledger.surplus.FACTS_PER_AUTHOR_MAX`, and the district's delegations and closings. Acts that
rest on a conveyance look through the rights their fill ever had. Ten facts take some 0.2 ms, sixty thousand of one author
some three seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec import Struct

from ledger.anomalies import Anomaly, Resolution, find_anomalies, latest_amendments
from ledger.authority import Lack, Revocations
from ledger.conveyances import Conveyances
from ledger.custody import Custody, Token, judge_custody
from ledger.errors import InvalidInput, LedgerBug
from ledger.events import (
    AccessBlocked,
    Coded,
    ConsentGiven,
    CustodyDelegated,
    CustodyDelegationEnded,
    ExternalIdAttached,
    FeedClosed,
    FillRight,
    NotDispensed,
    PrescriptionCancelled,
    PrescriptionHeld,
    PrescriptionIssued,
    PrescriptionResumed,
    SupplyLinked,
)
from ledger.facts import Branches, Causality, Fact, references
from ledger.governance import GovernanceView
from ledger.ids import DocumentId, FeedId, Link, document_id, document_month
from ledger.supplies import Balance, Supply, balance, gather_supplies
from ledger.surplus import Surplus, set_aside, surplus_supplies

__all__ = [
    "Anomaly",
    "Branches",
    "Fact",
    "FillState",
    "FillStatus",
    "Prescription",
    "Status",
    "View",
    "decode_state",
    "encode_state",
    "fold",
    "holdings",
    "state_digest",
    "view",
]

_NO_BALANCE = Balance(0, 0, 0, 0, 0, 0)


class Status(StrEnum):
    """State of a prescription, whatever the day."""

    UNKNOWN = "unknown"
    """Its issuing event is not held or not readable."""
    ACTIVE = "active"
    ON_HOLD = "on-hold"
    COMPLETED = "completed"
    STOPPED = "stopped"
    """Cancelled after something had been supplied."""
    CANCELLED = "cancelled"
    RETIRED = "retired"


class FillStatus(StrEnum):
    """State of a fill."""

    IN_CUSTODY = "in-custody"
    BEARER = "bearer"
    NO_CUSTODY = "no-custody"
    """Nobody holds it: supply goes beyond custody."""
    CONTESTED = "contested"
    """A fork, a revocation or a breach lies on its custody: never again dispensed on it."""
    RECOVERED = "recovered"
    """Its holder is dead: supply with risk."""
    PART_DISPENSED = "part-dispensed"
    DISPENSED = "dispensed"
    FORFEITED = "forfeited"


class FillState(Struct, frozen=True, kw_only=True):
    """One numbered dispensing of a prescription."""

    number: int
    status: FillStatus
    holder: bytes = b""
    """The feed that may dispense it on custody; empty if none."""
    holder_node: bytes = b""
    rests_on: Link | None = None
    """What an act of the holder (or a spend by the bearer) rests on."""
    bearer_key: bytes | None = None
    conveyed: bool = False
    """Held by a delegation, the end of one, or a closed feed: safe to act on only where all that was written is read."""
    authorised: int
    dispensed: int
    remaining: int
    supplied: bool


class Prescription(Struct, frozen=True, kw_only=True):
    """A prescription as folded from a set of facts."""

    document: DocumentId
    status: Status
    issued: PrescriptionIssued | None = None
    issued_by: Link | None = None
    author: bytes = b""
    dosage: tuple[str, ...] = ()
    """The dosage in force; several if concurrent amendments disagree."""
    instructions: tuple[str, ...] = ()
    fills: tuple[FillState, ...] = ()
    balance: Balance = _NO_BALANCE
    supplies: tuple[Supply, ...] = ()
    not_dispensed: tuple[tuple[Link, int, str], ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    decisions: tuple[tuple[bytes, Resolution], ...] = ()
    """Decisions on anomalies that this document does not show alone: those across a patient's documents."""
    external_ids: tuple[Coded, ...] = ()
    blocked: tuple[str, ...] = ()
    """Purposes for which access is blocked."""
    linked_from: tuple[Link, ...] = ()
    last_supplied_day: str = ""
    not_understood: tuple[Link, ...] = ()
    missing: tuple[Link, ...] = ()
    """Parents and grounds named by facts here that are not held."""
    latest_ms: int = 0
    """Newest stamp among the facts."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Prescription)


def encode_state(state: Prescription) -> bytes:
    """Canonical bytes of a state."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> Prescription:
    """A state that this version of the library encoded (a snapshot, never a peer's).

    Raises:
        LedgerBug: it is not that.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise LedgerBug("a snapshot of ours cannot be decoded") from error


def state_digest(state: Prescription) -> bytes:
    """Digest of a state: equal wherever the same facts and keys are held by the same version."""
    return hashlib.sha256(encode_state(state)).digest()


_OF_DISTRICT = (CustodyDelegated, CustodyDelegationEnded, FeedClosed)


def _why_void(fact: Fact, document: DocumentId) -> str:
    if fact.void:
        return fact.void
    event = fact.event
    if isinstance(event, _OF_DISTRICT) and document_month(document) != 0:
        return "misplaced"
    if isinstance(event, PrescriptionIssued):
        try:
            expected = document_id(date.fromisoformat(event.issued), fact.event_bytes)
        except (ValueError, InvalidInput):
            # No day of the calendar, or one (after the year 5460) whose month no document id can hold.
            return "no-such-day"
        if expected != document:
            return "id-mismatch"
        try:
            for day in (event.valid_until, event.valid_from, event.first_fill_before):
                date.fromisoformat(day or event.issued)
        except ValueError:
            return "no-such-day"
    return ""


def fold(
    document: DocumentId,
    facts: Iterable[Fact],
    district_facts: Iterable[Fact],
    branches: Branches,
    governance: GovernanceView,
) -> Prescription:
    """Fold the facts of a document to its state.

    Args:
        document: its id.
        facts: its readable facts, in any order, repeated or not.
        district_facts: the delegations and closed feeds of its district.
        branches: how the district's forked feeds branch.
        governance: what the agency decided.
    """
    if 0 < document_month(document) < governance.retired_before:
        return Prescription(document=document, status=Status.RETIRED)
    held, surplus = {fact.id: fact for fact in facts}, tuple[Surplus, ...]()
    if document_month(document):  # A district's own document grows for as long as the district lives.
        held, surplus = set_aside(held, governance)
    passed = {fact.id: fact for one in surplus for fact in one.facts}
    void = {link: why for link, fact in held.items() if (why := _why_void(fact, document))}
    usable = [_without_void(fact) if link in void else fact for link, fact in held.items()]
    # What else stands in the district's document keeps its place in its feed, and has no effect here.
    around = [
        f if isinstance(f.event, _OF_DISTRICT) else _without_void(f)
        for f in district_facts
        if f.id not in held and f.id not in passed
    ]
    causality = Causality([*usable, *around], branches, passed.values())
    return _Fold(document, held, void, causality, Revocations(causality, governance), surplus).run()


def _without_void(fact: Fact) -> Fact:
    return msgspec.structs.replace(fact, event=None)


class _Fold:
    def __init__(
        self,
        document: DocumentId,
        own: dict[Link, Fact],
        void: dict[Link, str],
        causality: Causality,
        revocations: Revocations,
        surplus: tuple[Surplus, ...],
    ) -> None:
        self.document, self.void, self.causality, self.surplus = document, void, causality, surplus
        self.revocations, self.lacking = revocations, revocations.lacking
        self.own = [fact for fact in causality.in_order() if fact.id in own]

    def of_kind(self, kind: type) -> list[Fact]:
        """Facts of a kind that have authority, in canonical order."""
        return [f for f in self.own if isinstance(f.event, kind) and f.id not in self.lacking]

    def run(self) -> Prescription:
        conveyances = Conveyances(self.causality, self.lacking)
        custody = judge_custody(self.causality, conveyances, self.revocations)
        issuing = self._issuing()
        issued = issuing.event if issuing is not None else None
        assert issued is None or isinstance(issued, PrescriptionIssued)
        supplies, conflicts = gather_supplies(self.causality, self.own, custody, self.lacking)
        supplies += surplus_supplies(self.surplus, self.own)
        cancelled = bool(self.of_kind(PrescriptionCancelled))
        whole, fill_balances, over = balance(issued, supplies, cancelled=cancelled)
        anomalies, decisions = find_anomalies(
            self.document, self.causality, own=self.own, issued=issued, custody=custody,
            lacking={link: lack for link, lack in self.lacking.items() if self._is_own(link)}, supplies=supplies,
            conflicts=conflicts, over=over, void=self.void, surplus=self.surplus,
        )  # fmt: skip
        fills = tuple(
            self._fill(b.fill, b.authorised, b.dispensed, b.remaining, custody, conveyances, supplies)
            for b in fill_balances
        )
        net = [s for s in supplies if s.net]
        return Prescription(
            document=self.document, status=self._status(issued, whole, cancelled=cancelled), issued=issued,
            issued_by=issuing.id if issuing else None, author=issuing.author if issuing else b"",
            dosage=self._amended("dosage", issued.dosage if issued else None),
            instructions=self._amended("instructions", None), fills=fills, balance=whole, supplies=tuple(supplies),
            not_dispensed=self._not_dispensed(), anomalies=anomalies, decisions=decisions,
            external_ids=self._external_ids(issued), blocked=self._blocked(),
            linked_from=tuple(sorted(s.linked for s in supplies if s.linked)),
            last_supplied_day=_day(max(s.at_ms for s in net)) if net else "",
            not_understood=tuple(sorted(f.id for f in self.own if not f.void and (f.event is None or not f.whole) and f.id not in self.void)),
            missing=self._missing(), latest_ms=max((f.stamp >> 16 for f in self.own), default=0),
        )  # fmt: skip

    def _is_own(self, link: Link) -> bool:
        return self.causality.facts[link].document == self.document

    def _issuing(self) -> Fact | None:
        # Revoked authors' prescriptions stand as facts that lack authority: known, but nothing may be supplied on
        # custody of them; out-of-role ones found nothing.
        found = [
            f for f in self.own
            if isinstance(f.event, PrescriptionIssued) and self.lacking.get(f.id) is not Lack.OUT_OF_ROLE
        ]  # fmt: skip
        return min(found, key=lambda f: f.id in self.lacking, default=None)

    def _status(self, issued: PrescriptionIssued | None, whole: Balance, *, cancelled: bool) -> Status:
        if issued is None:
            return Status.UNKNOWN
        if cancelled:
            return Status.STOPPED if whole.dispensed or whole.over_supply else Status.CANCELLED
        resumed = self.of_kind(PrescriptionResumed)
        holds = self.of_kind(PrescriptionHeld)
        if any(not self.causality.in_past_of_any(hold, resumed) for hold in holds):
            return Status.ON_HOLD
        return Status.COMPLETED if whole.remaining == 0 else Status.ACTIVE

    def _amended(self, field: str, original: str | None) -> tuple[str, ...]:
        last = latest_amendments(self.causality, self.own, self.lacking, field)
        values = tuple(dict.fromkeys(str(getattr(f.event, field)) for f in last))
        return values or (() if original is None else (original,))

    def _not_dispensed(self) -> tuple[tuple[Link, int, str], ...]:
        return tuple(
            (f.id, f.event.fill, f.event.reason)
            for f in self.of_kind(NotDispensed)
            if isinstance(f.event, NotDispensed)
        )

    def _external_ids(self, issued: PrescriptionIssued | None) -> tuple[Coded, ...]:
        found = [issued.external_id] if issued is not None and issued.external_id is not None else []
        found += [
            f.event.external_id
            for f in self.of_kind(ExternalIdAttached)
            if isinstance(f.event, ExternalIdAttached)
        ]
        return tuple(dict.fromkeys(found))

    def _blocked(self) -> tuple[str, ...]:
        consents = self.of_kind(ConsentGiven)
        blocked: set[str] = set()
        for block in self.of_kind(AccessBlocked):
            lifted = {
                purpose
                for consent in consents
                if self.causality.before(block.id, consent.id) and isinstance(consent.event, ConsentGiven)
                for purpose in consent.event.purposes
            }
            if isinstance(block.event, AccessBlocked):
                blocked |= set(block.event.purposes) - lifted
        return tuple(sorted(blocked))

    def _missing(self) -> tuple[Link, ...]:
        named = {p for f in self.own for p in (*f.parents, *references(f.event))}
        linked = {Link(f.event.supply) for f in self.own if isinstance(f.event, SupplyLinked)}
        aside = {fact.id for one in self.surplus for fact in one.facts}
        return tuple(sorted(named - linked - aside - self.causality.facts.keys()))

    # --- fills ------------------------------------------------------------------------------------------------

    def _fill(
        self, number: int, authorised: int, dispensed: int, remaining: int, custody: Custody,
        conveyances: Conveyances, supplies: list[Supply],
    ) -> FillState:  # fmt: skip
        bare = FillState(
            number=number,
            status=FillStatus.PART_DISPENSED if dispensed else FillStatus.NO_CUSTODY,
            authorised=authorised,
            dispensed=dispensed,
            remaining=remaining,
            supplied=any(s.net and s.fill == number for s in supplies),
        )
        if remaining == 0:
            return _as(bare, FillStatus.DISPENSED if dispensed else FillStatus.FORFEITED)
        if number in custody.recovered:
            return _as(bare, FillStatus.RECOVERED)
        tokens = [t for t in custody.unspent if t.fill == number]
        if len(tokens) == 1 and not tokens[0].tainted:
            state = self._held(tokens[0], conveyances, bare)
            if state is not None:
                return state
        return _as(bare, FillStatus.CONTESTED) if tokens else bare

    def _held(self, token: Token, conveyances: Conveyances, bare: FillState) -> FillState | None:
        """The fill as its one unspent token says; None if what holds it may not act on it."""
        replace = msgspec.structs.replace
        if token.feed is None:
            return replace(bare, status=FillStatus.BEARER, rests_on=token.act, bearer_key=token.bearer_key)
        acting = conveyances.acting_for(token.feed)
        rests_on = conveyances.ground(acting.path) if acting.path else token.act
        if acting.feed is None or rests_on is None or not conveyances.is_chained((token.act, *acting.path)):
            return bare
        # What a forked feed or a revoked node holds is never again dispensed on custody.
        forked = acting.feed in self.causality.branches.forked_at
        if forked or conveyances.is_tainted(acting.path) or self.revocations.is_revoked(acting.feed):
            return None
        return replace(
            bare,
            status=FillStatus.PART_DISPENSED if bare.dispensed else FillStatus.IN_CUSTODY,
            holder=acting.feed,
            holder_node=self.revocations.author(acting.feed) or b"",
            rests_on=rests_on,
            conveyed=bool(acting.path),
        )


def _as(bare: FillState, status: FillStatus) -> FillState:
    return msgspec.structs.replace(bare, status=status)


def holdings(prescription: Prescription, feed: FeedId, *, unread: int = 0) -> list[FillRight]:
    """The fills that a feed may dispense or pass on, with what its act must rest on.

    Where something is not held, read or understood, its former holder may have spent what was conveyed.
    """
    blind = unread or prescription.missing or prescription.not_understood
    return [
        FillRight(fill.number, fill.rests_on)
        for fill in prescription.fills
        if fill.holder == feed and fill.rests_on is not None and not (fill.conveyed and blind)
    ]


def _day(ms: int) -> str:
    return datetime.fromtimestamp(min(ms, 253402300799999) / 1000, UTC).date().isoformat()


class View(Struct, frozen=True, kw_only=True):
    """What depends on today; outside the digest (R5)."""

    today: str
    expired: bool = False
    not_yet_valid: bool = False
    first_fill_missed: bool = False
    next_fill_day: str = ""
    """First day on which the prescribed interval allows the next fill; empty: any day."""


def view(prescription: Prescription, now_ms: int) -> View:
    """A prescription seen on a day."""
    today = _day(now_ms)
    issued = prescription.issued
    if issued is None:
        return View(today=today)
    following = ""
    if issued.interval_days and prescription.last_supplied_day:
        last = date.fromisoformat(prescription.last_supplied_day)
        following = (last + timedelta(days=issued.interval_days)).isoformat()
    return View(
        today=today, expired=today > issued.valid_until, not_yet_valid=today < (issued.valid_from or issued.issued),
        first_fill_missed=bool(issued.first_fill_before and today >= issued.first_fill_before and not prescription.balance.dispensed),
        next_fill_day=following,
    )  # fmt: skip
