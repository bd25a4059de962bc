"""What a node asks of one other and waits for: fills from their holder, a document or a patient's from a far district.

Asked again with growing pauses until it is answered or its deadline has passed; the command id makes that one claim, and
a crash of either side between any two steps leaves each fill with exactly one holder: it moves when the holder's
transfer is durable, and the claimant has it when that transfer, with all before it in its feed, is held here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from msgspec import Struct

from ledger import Ledger, Patient, Person
from ledger.errors import LimitExceeded, NotAuthentic, NotFound, PeerFault, RxLedgerError
from ledger.ids import DocumentId, FeedId, Link, NodeId
from ledger.lending import Loan
from nodes.claims import grant
from nodes.messages import FETCHED_MAX, ClaimAsk, ClaimTold, FetchAsk, Fetched, FetchTold, Message

__all__ = ["ANSWERS_PER_MINUTE_MAX", "PENDING_MAX", "Requests", "Told"]

PENDING_MAX = 256
"""Requests waited for at once: a counter has a few, a nightly move of custody is a transfer and asks for nothing."""
FIRST_PAUSE_MS = 2_000
PAUSE_MAX_MS = 60_000
ANSWERS_PER_MINUTE_MAX = 120
"""Claims and fetches answered to one peer: two a second, more than any counter; each writes an entry or an audit record."""
FETCHED_DISTRICTS_MAX = 8
"""Home districts of the documents in one answer: a person moves less often. Of each the asker opens a feed, for good."""
LENT_KEPT_MAX = 256
"""Answers kept for who asks again under the same id, since the first got lost or a hub repeats the question: each look at
a patient is logged once. Two minutes of the busiest asker's."""
UNREACHABLE = "unreachable"
NOT_MET = "not-met"
"""The answer to a claim whose feed is not known here: the claimant, who has it, reconciles and asks again."""


class Told(Struct, frozen=True, kw_only=True):
    """What became of a request."""

    code: str = ""
    """Empty: granted, and here. Else why not; `unreachable`: no answer before the deadline."""
    link: bytes = b""
    """The transfer, of a claim."""
    holder: bytes = b""
    """The node that holds the fills, as the one asked knows; empty: it does not say."""
    documents: tuple[DocumentId, ...] = ()
    """What can be read now, of a fetch."""


class _Pending(Struct):
    to: NodeId
    message: ClaimAsk | FetchAsk
    done: Callable[[Told], None]
    deadline_ms: int
    next_ms: int
    pause_ms: int = FIRST_PAUSE_MS
    claimed: Link | None = None
    """The transfer, as told; waited for."""
    loans: tuple[Loan, ...] | None = None
    """Keys lent; their documents are waited for."""


class Requests:
    """The requests of one node, and its answers to those of others. Not thread-safe."""

    def __init__(self, ledger: Ledger, person: Person) -> None:
        self._ledger, self._person = ledger, person
        self._pending: dict[bytes, _Pending] = {}
        self._answered: dict[NodeId, list[int]] = {}
        self._lent_to: OrderedDict[tuple[NodeId, bytes], FetchTold] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    # --- asking ------------------------------------------------------------------------------------------------------

    def claim(
        self,
        holder: NodeId | None,
        document: DocumentId,
        fills: tuple[int, ...],
        *,
        command: bytes,
        now_ms: int,
        deadline_ms: int,
        done: Callable[[Told], None],
    ) -> None:
        """Ask for fills of a prescription in a district of this node: the node named, or who holds them as known here.

        Raises:
            LimitExceeded: too many requests are waited for.
            NotFound: the prescription is not held here, or nobody is known to hold the fills.
        """
        node = self._ledger.node
        asked = holder or NodeId(self.holder_of(document, fills))
        with node.lock:
            district = node.reader.district(document)
            if district is None:
                raise NotFound("no such prescription is held here", advice="fetch it first")
            feed = node.own_feed(district)
        if not asked:
            raise NotFound(
                "nobody is known to hold these fills", advice="see `rxledger show`, or name a node"
            )
        self._add(
            command, _Pending(asked, ClaimAsk(command, document, feed, fills), done, deadline_ms, now_ms)
        )

    def fetch(
        self,
        holder: NodeId,
        *,
        request: bytes,
        person: Person,
        purpose: str,
        document: DocumentId | None = None,
        patient: Patient | None = None,
        now_ms: int,
        deadline_ms: int,
        done: Callable[[Told], None],
    ) -> None:
        """Ask a node that holds the keys for a document, or for all of a patient's.

        Raises:
            LimitExceeded: too many requests are waited for.
        """
        ask = FetchAsk(request, person, purpose, document or b"", patient)
        self._add(request, _Pending(holder, ask, done, deadline_ms, now_ms))

    def _add(self, name: bytes, pending: _Pending) -> None:
        if name not in self._pending and len(self._pending) >= PENDING_MAX:
            raise LimitExceeded("too many requests are waited for", advice="try again in a moment")
        self._pending[name] = pending

    def due(self, now_ms: int) -> Iterator[tuple[NodeId, Message]]:
        """Whom to ask what now; requests that came to an end are told so."""
        for name, pending in list(self._pending.items()):
            if self._came_true(pending):
                del self._pending[name]
                pending.done(self._outcome(pending))
            elif now_ms >= pending.deadline_ms:
                del self._pending[name]
                # A transfer that is told of but not here yet is the claimant's: it comes with the next link.
                pending.done(Told(code=UNREACHABLE, link=pending.claimed or b""))
            elif now_ms >= pending.next_ms:
                pending.next_ms = now_ms + pending.pause_ms
                pending.pause_ms = min(PAUSE_MAX_MS, pending.pause_ms * 2)
                if (
                    pending.loans is None
                ):  # Else it is the entries that are waited for: asking again would only be logged.
                    yield pending.to, pending.message

    def again(self, to: NodeId, now_ms: int) -> None:
        """A node has come to know us, or we it: ask it again at once."""
        for pending in self._pending.values():
            if pending.to == to:
                pending.next_ms = min(pending.next_ms, now_ms)

    def next_ms(self) -> int | None:
        """When `due` can next have something to do."""
        return min((min(p.next_ms, p.deadline_ms) for p in self._pending.values()), default=None)

    def waiting_for(self) -> set[NodeId]:
        """Peers that granted what is not here yet: reconcile with them."""
        return {p.to for p in self._pending.values() if p.claimed is not None or p.loans is not None}

    def _came_true(self, pending: _Pending) -> bool:
        node = self._ledger.node
        with node.lock:
            if pending.claimed is not None:
                held = node.store.by_link(pending.claimed)
                return held is not None and not held.detached
            return pending.loans is not None and all(
                node.store.entries_of(loan.document, loan.district) for loan in pending.loans
            )

    def _outcome(self, pending: _Pending) -> Told:
        if pending.loans is None:
            return Told(link=pending.claimed or b"")
        borrowed: list[DocumentId] = []
        code = ""
        for loan in pending.loans:
            try:
                self._ledger.lending.borrow(loan)
                borrowed.append(loan.document)
            except PeerFault as error:
                code = error.code
        return Told(code=code, documents=tuple(borrowed))

    def told(self, sender: NodeId, message: ClaimTold | FetchTold) -> None:
        """Take in an answer; one that was not asked for, or is from somebody else, is none."""
        name = message.command if isinstance(message, ClaimTold) else message.request
        pending = self._pending.get(name)
        if pending is None or pending.to != sender:
            return
        if message.code == NOT_MET:
            return  # Asked again after its pause; the round that this answer makes us begin brings our feed there.
        if message.code:
            del self._pending[name]
            holder = message.holder if isinstance(message, ClaimTold) else b""
            pending.done(Told(code=message.code, holder=holder))
        elif isinstance(message, ClaimTold) and isinstance(pending.message, ClaimAsk):
            pending.claimed = Link(message.link)
        elif isinstance(message, FetchTold) and isinstance(pending.message, FetchAsk):
            self._lent(name, pending, message)

    def _lent(self, name: bytes, pending: _Pending, message: FetchTold) -> None:
        districts = sorted({document.district for document in message.documents})
        if pending.loans is not None:
            return  # Repeated; or another answer, which would open more feeds.
        if len(districts) > FETCHED_DISTRICTS_MAX:
            del self._pending[name]
            pending.done(Told(code=LimitExceeded.code))
            return
        pending.loans = tuple(Loan(DocumentId(d.document), d.district, d.keys) for d in message.documents)
        for district in districts:
            self._ledger.node.own_feed(district)  # From now on this node takes what peers have of it.

    # --- answering ---------------------------------------------------------------------------------------------------

    def answer(self, sender: NodeId, ask: ClaimAsk | FetchAsk, now_ms: int) -> ClaimTold | FetchTold:
        """The answer to a peer, whose letter was authentic. What is not granted has a code."""
        try:
            self._count(sender, now_ms)
            if isinstance(ask, ClaimAsk) and self._ledger.exchange.written_by(FeedId(ask.feed)) is None:
                return ClaimTold(ask.command, code=NOT_MET)
            return self._grant(sender, ask) if isinstance(ask, ClaimAsk) else self._lend(sender, ask)
        except RxLedgerError as error:
            if isinstance(ask, FetchAsk):
                return FetchTold(ask.request, code=error.code)
            holder = self.holder_of(DocumentId(ask.document), ask.fills)
            return ClaimTold(ask.command, code=error.code, holder=holder)

    def _count(self, sender: NodeId, now_ms: int) -> None:
        recent = [at for at in self._answered.get(sender, []) if at > now_ms - 60_000]
        if len(recent) >= ANSWERS_PER_MINUTE_MAX:
            raise LimitExceeded("too many requests of one node")
        self._answered[sender] = [*recent, now_ms]
        if len(self._answered) > PENDING_MAX * 16:
            self._answered.clear()

    def _grant(self, sender: NodeId, ask: ClaimAsk) -> ClaimTold:
        written_by = self._ledger.exchange.written_by(FeedId(ask.feed))
        if written_by is None or written_by[0] != sender:
            raise NotAuthentic("a claim names the feed of another node")
        receipt = grant(
            self._ledger,
            FeedId(ask.feed),
            DocumentId(ask.document),
            ask.fills,
            person=self._person,
            command=ask.command,
        )
        return ClaimTold(ask.command, receipt.link)

    def holder_of(self, document: DocumentId, numbers: tuple[int, ...]) -> bytes:
        """The one other node that holds all these fills, as known here; empty if there is none."""
        try:
            fills = self._ledger.show(document).prescription.fills
        except RxLedgerError:
            return b""
        node, holders = self._ledger.node, set[NodeId]()
        for fill in fills:
            if fill.number in numbers and fill.holder:
                try:
                    holders.add(node.reader.author(FeedId(fill.holder))[0].node)
                except NotAuthentic:
                    return b""  # A feed that was never heard of here.
        return holders.pop() if len(holders) == 1 and node.identity.node not in holders else b""

    def _lend(self, sender: NodeId, ask: FetchAsk) -> FetchTold:
        known = self._lent_to.get((sender, ask.request))
        if known is not None:
            return known
        told = self._lend_anew(ask)
        if told.documents:
            self._lent_to[sender, ask.request] = told
            if len(self._lent_to) > LENT_KEPT_MAX:
                self._lent_to.popitem(last=False)
        return told

    def _lend_anew(self, ask: FetchAsk) -> FetchTold:
        lending = self._ledger.lending
        if ask.document:
            if len(ask.document) != 16:
                raise NotFound("no such prescription is held here")
            loans = [lending.lend(DocumentId(ask.document), person=ask.person, purpose=ask.purpose)]
        elif ask.patient is not None:
            loans = lending.find(ask.patient, person=ask.person, purpose=ask.purpose)[:FETCHED_MAX]
        else:
            loans = []
        return FetchTold(
            ask.request, tuple(Fetched(loan.document, loan.district, loan.keys) for loan in loans)
        )
