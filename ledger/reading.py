"""From stored entries to facts and states: opens, decodes, folds, and caches what it folded.

- An entry whose key is missing is *unread*: counted, and weighed by every decision (R11).
- An entry that is authentic but cannot be opened, decoded or believed is a *void* fact with a reason; every node
  that holds the key reaches the same verdict. It never stops its feed (poison is quarantined).
- What is cached is bound to the exact set of entries, district facts and governance it was folded from, so a
  stale answer cannot be given; a damaged one falls back to folding anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from ledger.codec import PARENTS_MAX, decode_content
from ledger.document import DocumentEvent, build
from ledger.errors import LimitExceeded, NotAuthentic, PeerFault, Unreadable, VersionUnknown
from ledger.events import Event, PrescriptionIssued, decode_event, event_json
from ledger.feed import encode_header
from ledger.governance import GovernanceEntry, GovernanceView, fold_governance
from ledger.history import Branches, Fact, Prescription, decode_state, encode_state, fold
from ledger.identity import Certified, Realm, verify_chain
from ledger.ids import (
    GOVERNANCE,
    DocumentId,
    FeedId,
    Link,
    district_document,
    document_hash,
    tagged_hash,
)
from ledger.store.port import Store, StoredEntry
from ledger.vault import EntryKey, Keyring, entry_key, open_local, open_sealed, seal_local

__all__ = ["CACHED_STATES_MAX", "OpenedEntry", "Reader", "State"]

CACHED_STATES_MAX = 4096
"""States kept in memory: some 4 kB each, so 16 MB; a pharmacy's busy week of patients."""
EVENTS_EXPORTED_MAX = 1000
"""Events of one document that are merged into an Automerge document, which holds the interpreter's lock meanwhile: a
real prescription has some ten; a thousand on as many branches take seconds."""
_SNAPSHOT = "snapshot"


class OpenedEntry(Struct, frozen=True):
    """A stored entry with what could be made of it. `fact` is None if its key is not held."""

    entry: StoredEntry
    fact: Fact | None


class State(Struct, frozen=True):
    """A prescription as folded, and what the fold could not use."""

    prescription: Prescription
    heads: tuple[Link, ...]
    """Ids that no other held event of the document names as parent, ascending."""
    unread: int
    """Entries held whose key is not."""
    basis: bytes
    """Hash of exactly what was folded."""


class _Snapshot(Struct, frozen=True, array_like=True):
    state: bytes
    heads: tuple[bytes, ...]
    unread: int
    automerge: bytes


class Reader:
    """Reads one store with one keyring. Not thread-safe: the façade's lock serialises."""

    def __init__(self, realm: Realm, store: Store, keyring: Keyring, storage_key: bytes) -> None:
        self._realm = realm
        self._store = store
        self._keyring = keyring
        self._storage_key = storage_key
        self._authors: dict[FeedId, tuple[Certified, str]] = {}
        self._states: OrderedDict[DocumentId, State] = OrderedDict()
        self._heads: OrderedDict[DocumentId, tuple[bytes, tuple[Link, ...]]] = OrderedDict()
        """Bound to what is held and to the keys: an event must build on all that its author could read."""
        self._governance: GovernanceView | None = None
        self._governance_basis = b""
        self._districts: dict[str, tuple[bytes, bytes, tuple[Fact, ...]]] = {}
        """Of each: which entries it was read from, with which keys, and what it says."""
        self._homes: dict[DocumentId, str] = {}
        """Of documents whose id stands in feeds of several districts: few, and only if somebody errs or cheats."""
        self._surroundings: dict[str, bytes] = {}
        self._seen_changes = -1

    # --- who wrote it -------------------------------------------------------------------------------------

    def author(self, feed: FeedId) -> tuple[Certified, str]:
        """The certified author of a held feed, and the feed's district."""
        known = self._authors.get(feed)
        if known is None:
            row = self._store.feed(feed)
            if row is None:
                raise NotAuthentic("an entry belongs to a feed whose opening is not held")
            known = verify_chain(self._realm, row.signed.opening().certificates), row.district
            self._authors[feed] = known
        return known

    # --- opening entries ----------------------------------------------------------------------------------

    def open(self, stored: StoredEntry) -> OpenedEntry:
        """Open one stored entry with the keys held."""
        certified, district = self.author(stored.feed)
        header = encode_header(self._realm.id, stored.feed, stored.entry())
        if stored.sealed is None:
            return OpenedEntry(stored, None)
        try:
            key = self._entry_key(stored, district)
        except Unreadable:
            return OpenedEntry(stored, None)
        parents: tuple[Link, ...] = ()
        event: Event | None = None
        event_bytes, kind, whole, void = b"", "", True, ""
        try:
            content = decode_content(open_sealed(key, header, stored.commitment, stored.sealed))
            event_bytes, parents = content.event_bytes, tuple(Link(p) for p in content.parents)
            if content.document != stored.document:
                void = "document-mismatch"
            understood = decode_event(event_bytes)
            event, kind, whole = understood.event, understood.kind, understood.whole
        except VersionUnknown:
            whole = (
                False  # A newer format is not a fault: it is kept, passed on, and weighed as not understood.
            )
        except NotAuthentic:
            void = "sealed-badly"
        except PeerFault as error:
            void = void or f"undecodable-{error.code}"
        return OpenedEntry(
            stored,
            Fact(
                id=stored.link, feed=stored.feed, branch=stored.branch, sequence=stored.sequence, stamp=stored.stamp,
                document=stored.document, author=certified.node, role=certified.role, admitted_by=certified.admitted_by, parents=parents, kind=kind,
                event=None if void else event, event_bytes=event_bytes, whole=whole, void=void,
                detached=stored.detached,
            ),
        )  # fmt: skip

    def entry_key_of(self, stored: StoredEntry) -> EntryKey:
        """The key of one entry.

        Raises:
            Unreadable: it is not held.
        """
        return self._entry_key(stored, self.author(stored.feed)[1])

    def _entry_key(self, stored: StoredEntry, district: str) -> EntryKey:
        single = self._keyring.entry_key_for(stored.link)
        if single is not None:
            return single
        document_key = self._keyring.document_key(district, stored.epoch, stored.document)
        return entry_key(document_key, stored.feed, stored.sequence)

    def opened(self, document: DocumentId) -> list[OpenedEntry]:
        """Every held entry of a document that stands in its home district, opened."""
        place = self._place(document)
        return [] if place is None else self._opened_in(document, place[0])

    def _opened_in(self, document: DocumentId, district: str) -> list[OpenedEntry]:
        return [self.open(stored) for stored in self._store.entries_of(document, district)]

    # --- where a document stands ----------------------------------------------------------------------------

    def district(self, document: DocumentId) -> str | None:
        """The home district of a document; None if no entry of it is held."""
        place = self._place(document)
        return None if place is None else place[0]

    def _place(self, document: DocumentId) -> tuple[str, bytes] | None:
        """Home district, and a digest of which of its entries are held there.

        Anybody can put a document's id into a feed of any district. Its home is the one that its issuing event names,
        to which the id is bound; until that event is held and readable, the first of them.
        """
        places = self._store.places(document)
        if len(places) < 2:
            return places[0] if places else None
        known = self._homes.get(document)
        for place in places:
            if known is None and self._is_home(document, place[0]):
                known = self._homes[document] = place[0]
            if place[0] == known:
                return place
        return places[0]

    def _is_home(self, document: DocumentId, district: str) -> bool:
        if document == district_document(district):
            return True
        for opened in self._opened_in(document, district):
            fact = opened.fact
            event = fact.event if fact is not None else None
            if (
                fact is not None
                and isinstance(event, PrescriptionIssued)
                and event.district == district
                and document[2:] == document_hash(fact.event_bytes)
            ):
                return True
        return False

    # --- governance and district -----------------------------------------------------------------------------

    def governance(self) -> GovernanceView:
        """The governance view of all governance entries held; folded once per set."""
        changes = self._store.district_changes()
        if self._governance is not None and changes == self._seen_changes:
            return self._governance
        self._seen_changes = changes
        self._surroundings.clear()
        document = district_document(GOVERNANCE)
        basis = self._store.document_basis(document, GOVERNANCE)
        if self._governance is None or basis != self._governance_basis:
            entries = []
            for opened in self._opened_in(document, GOVERNANCE):
                fact = opened.fact
                if fact is None:
                    continue
                entries.append(
                    GovernanceEntry(
                        id=fact.id, feed=fact.feed, branch=fact.branch, sequence=fact.sequence, stamp=fact.stamp,
                        author=fact.author, role=fact.role, kind=fact.kind, event=fact.event,
                        detached=fact.detached,
                    )
                )  # fmt: skip
            self._governance = fold_governance(entries, self._store.forks(GOVERNANCE))
            self._governance_basis = basis
            self._states.clear()
        return self._governance

    def district_facts(self, district: str) -> tuple[bytes, tuple[Fact, ...]]:
        """The delegations and closed feeds of a district, with a hash of which entries they are."""
        document = district_document(district)
        basis = self._store.document_basis(document, district)
        keys = self._keyring.digest()
        known = self._districts.get(district)
        if known is None or known[:2] != (basis, keys):
            facts = tuple(o.fact for o in self._opened_in(document, district) if o.fact is not None)
            known = self._districts[district] = (basis, keys, facts)
        return known[0], known[2]

    # --- heads --------------------------------------------------------------------------------------------------

    def heads(self, document: DocumentId) -> tuple[Link, ...]:
        """Ids that no other readable event of the document names as parent: the parents of the next one."""
        place = self._place(document)
        known = self._heads.get(document)
        if place is not None and known is not None and known[0] == place[1] + self._keyring.digest():
            return known[1]
        state = self.state(document)
        return () if state is None else state.heads

    def note_written(self, document: DocumentId, link: Link, parents: Sequence[Link]) -> None:
        """What the heads are after an event of ours, so that the next one need not fold the document."""
        place = self._place(document)
        if place is None:
            return
        # More heads than one event can join stay heads.
        self._heads[document] = (
            place[1] + self._keyring.digest(),
            tuple(sorted({*sorted(parents)[PARENTS_MAX:], link})),
        )
        if len(self._heads) > CACHED_STATES_MAX:
            self._heads.popitem(last=False)

    # --- states ---------------------------------------------------------------------------------------------

    def _surrounding(self, district: str) -> bytes:
        """A hash of all that the states of a district are folded from beside their own entries."""
        governance = self.governance()  # Notices changes first.
        known = self._surroundings.get(district)
        if known is None:
            known = self._surroundings[district] = tagged_hash(
                "surrounding",
                self.district_facts(district)[0],
                self._store.forks_basis(district),
                governance.digest(),
            )
        return known

    def state(self, document: DocumentId) -> State | None:
        """The state of a document, or None if no entry of it is held."""
        place = self._place(document)
        if place is None:
            return None
        basis = self._basis(document, place)
        cached = self._states.get(document)
        if cached is not None and cached.basis == basis:
            self._states.move_to_end(document)
            return cached
        state = self._from_snapshot(document, basis) or self._fold(document, place[0], basis)[0]
        self._states[document] = state
        if len(self._states) > CACHED_STATES_MAX:
            self._states.popitem(last=False)
        return state

    def _basis(self, document: DocumentId, place: tuple[str, bytes]) -> bytes:
        """A hash of everything that the state of a document is folded from, keys included."""
        return tagged_hash("basis", document, place[1], self._surrounding(place[0]), self._keyring.digest())

    def fold_anew(self, document: DocumentId) -> State | None:
        """The state folded from entries, whatever is cached; None if no entry is held."""
        place = self._place(document)
        return None if place is None else self._fold(document, place[0], self._basis(document, place))[0]

    def _fold(self, document: DocumentId, district: str, basis: bytes) -> tuple[State, list[Fact]]:
        opened = self._opened_in(document, district)
        facts = [o.fact for o in opened if o.fact is not None]
        prescription = fold(
            document, facts, self.district_facts(district)[1], self.branches(district), self.governance()
        )
        return State(prescription, heads_of(facts), len(opened) - len(facts), basis), facts

    def branches(self, district: str) -> Branches:
        """How the forked feeds of a district branch."""
        return Branches(self._store.branches(district))

    # --- sealed snapshots -----------------------------------------------------------------------------------

    def _from_snapshot(self, document: DocumentId, basis: bytes) -> State | None:
        stored = self._store.snapshot(document)
        if stored is None or stored[0] != basis:
            return None
        try:
            plain = open_local(self._storage_key, _SNAPSHOT, document + basis, stored[1])
            snapshot = msgspec.msgpack.decode(plain, type=_Snapshot)
        except (NotAuthentic, msgspec.MsgspecError):
            return None  # A snapshot is never the truth: fold anew.
        heads = tuple(Link(h) for h in snapshot.heads)
        return State(decode_state(snapshot.state), heads, snapshot.unread, basis)

    def snapshot(self, document: DocumentId) -> tuple[bytes, bytes] | None:
        """A fresh sealed snapshot of state and Automerge document, with its basis; None if nothing is held."""
        place = self._place(document)
        if place is None:
            return None
        basis = self._basis(document, place)
        state, facts = self._fold(document, place[0], basis)
        body = _Snapshot(
            encode_state(state.prescription),
            state.heads,
            state.unread,
            _automerge(facts) if len(facts) <= EVENTS_EXPORTED_MAX else b"",
        )
        plain = msgspec.msgpack.encode(body)
        return basis, seal_local(self._storage_key, _SNAPSHOT, document + basis, plain)

    def automerge(self, document: DocumentId) -> bytes:
        """The prescription as a saved Automerge document: the same bytes on every node with the same entries.

        Raises:
            LimitExceeded: more than `EVENTS_EXPORTED_MAX` events stand in it: a flood, not a prescription.
        """
        facts = [o.fact for o in self.opened(document) if o.fact is not None]
        if len(facts) > EVENTS_EXPORTED_MAX:
            raise LimitExceeded(
                f"a document of {len(facts)} events is not exported; at most {EVENTS_EXPORTED_MAX}"
            )
        return _automerge(facts)


def _automerge(facts: Iterable[Fact]) -> bytes:
    return build(
        # A void or newer event keeps its place, so that what builds on it is not left waiting.
        DocumentEvent(
            fact.id,
            fact.parents,
            event_json(fact.event_bytes)
            if fact.event_bytes and not fact.void
            else f'{{"void":"{fact.void}"}}',
        )
        for fact in facts
    )


def heads_of(facts: Iterable[Fact]) -> tuple[Link, ...]:
    """Ids that no other of these facts names as parent, ascending."""
    ids: set[Link] = set()
    named: set[Link] = set()
    for fact in facts:
        ids.add(fact.id)
        named.update(fact.parents)
    return tuple(sorted(ids - named))
