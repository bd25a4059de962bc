"""Questions across prescriptions: a patient's list, anomalies, digests, the horizon, the audit log (R11, R13).

- The patient index maps a keyed hash of the identity to documents; without the district's index key it says nothing.
- Entries that came by replication are indexed when the next question needs it: each once, or again from the first that
  could not be read when keys of a district have come since.
- Every lookup of a patient is written to the audit log, sealed and hash-chained, before its answer is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from ledger.clock import stamp_ms
from ledger.document import topological
from ledger.errors import PeerFault, StoreDamaged, Unreadable
from ledger.events import Dispensed, Event, Patient, Person, PrescriptionIssued
from ledger.facts import with_past
from ledger.feed import verify_link, verify_opening_signature
from ledger.guard import Horizon, Unheard
from ledger.history import Anomaly, Prescription, state_digest
from ledger.identity import NodeRole
from ledger.ids import GOVERNANCE, DocumentId, FeedId, Link, district_document, tagged_hash
from ledger.node import Node
from ledger.patients import PatientState, fold_patient
from ledger.persons import lookup_key
from ledger.reading import State
from ledger.vault import patient_index_key

__all__ = ["Inquiry", "PatientList"]

INDEX_BATCH = 2000
"""Entries indexed in one transaction: some 50 ms."""
UNHEARD_SHOWN_MAX = 64
"""Nodes named in a horizon, those silent longest first: more than a screen shows."""
_INDEXED = "indexed-arrival"
_UNREAD = "indexed-unread"
_SETTLED = "settled-arrival"
_AUDIT = "audit"


class PatientList(Struct, frozen=True):
    """A patient's prescriptions as known here, newest last, and the fold across them."""

    prescriptions: Mapping[DocumentId, Prescription]
    patient: PatientState
    unread: int
    """Entries of these prescriptions that are held but whose key is not."""


class _AuditRecord(Struct, frozen=True, array_like=True):
    at_ms: int
    person: Person
    purpose: str
    patient: tuple[str, str]
    found: int


class _FirstUnread(Struct, frozen=True, array_like=True):
    """The first arrival that could not be read when it was to be indexed, and with which keys that was tried."""

    arrival: int
    keys: bytes


class Inquiry:
    """Answers from one node's store. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- patients ---------------------------------------------------------------------------------------------

    def patient(self, patient: Patient, *, person: Person, purpose: str) -> PatientList:
        """A patient's prescriptions; logs the lookup first."""
        node = self._node
        with node.lock:
            self.index_arrivals()
            wanted = lookup_key(patient)
            documents: set[DocumentId] = set()
            for district in node.keyring.districts():
                try:
                    key = patient_index_key(node.keyring.index_key(district), *wanted)
                except Unreadable:
                    continue
                documents.update(node.store.index(key))
            record = _AuditRecord(node.now_ms(), person, purpose, wanted, len(documents))
            self._audit(msgspec.msgpack.encode(record))
            states = {d: node.reader.state(d) for d in sorted(documents)}
            found = {d: state.prescription for d, state in states.items() if state is not None}
            unread = sum(state.unread for state in states.values() if state is not None)
            return PatientList(found, fold_patient(found, self._known_at_reissue(found)), unread)

    def _known_at_reissue(
        self, found: Mapping[DocumentId, Prescription]
    ) -> dict[DocumentId, frozenset[Link]]:
        """For each replacing prescription, what its author knew of the one that it replaces."""
        known: dict[DocumentId, frozenset[Link]] = {}
        for document, prescription in found.items():
            issued = prescription.issued
            if issued is not None and issued.replaces and DocumentId(issued.replaces) in found:
                opened = self._node.reader.opened(DocumentId(issued.replaces))
                facts = [o.fact for o in opened if o.fact is not None]
                known[document] = with_past(facts, map(Link, issued.replaced_heads))
        return known

    def index_event(self, event: Event, document: DocumentId) -> None:
        """Within a transaction: index whom an event is about, if it says."""
        patient: Patient | None = None
        if isinstance(event, PrescriptionIssued | Dispensed):
            patient = event.patient
        if patient is None:
            return
        district = self._node.reader.district(document)
        if district is None:
            return
        try:
            key = self._node.keyring.index_key(district)
        except Unreadable:
            return
        self._node.store.put_index(patient_index_key(key, *lookup_key(patient)), document)

    def index_arrivals(self) -> int:
        """Index entries that came since the last time; returns how many were looked at."""
        node, looked = self._node, 0
        if not node.store.writable:
            return 0
        after = int.from_bytes(node.store.get_meta(_INDEXED) or b"", "big")
        keys, unread = self._district_keys(), self._first_unread()
        if unread is not None and unread.keys != keys:
            after = unread.arrival - 1
            unread = None
        while batch := node.store.arrivals(after, INDEX_BATCH):
            with node.transaction():
                for arrival, stored in batch:
                    after = arrival
                    fact = node.reader.open(stored).fact
                    if fact is None:
                        unread = unread or _FirstUnread(arrival, keys)
                    elif fact.event is not None:
                        self.index_event(fact.event, fact.document)
                node.store.put_meta(_INDEXED, after.to_bytes(8, "big"))
                node.store.put_meta(_UNREAD, msgspec.msgpack.encode(unread))
            looked += len(batch)
        return looked

    def _first_unread(self) -> _FirstUnread | None:
        noted = self._node.store.get_meta(_UNREAD)
        return None if noted is None else msgspec.msgpack.decode(noted, type=_FirstUnread | None)

    def _district_keys(self) -> bytes:
        """A hash of which epochs of which districts can be read. Keys of single documents come too often to look again."""
        keyring = self._node.keyring
        return tagged_hash(
            "district keys",
            *(f"{district} {epoch}".encode() for district in keyring.districts() for epoch, _ in keyring.epochs(district)),
        )  # fmt: skip

    def settle(self, limit: int = INDEX_BATCH) -> int:
        """Bring index and sealed snapshots up to date for up to `limit` arrivals; returns documents renewed."""
        node = self._node
        with node.lock:
            self.index_arrivals()
            after = int.from_bytes(node.store.get_meta(_SETTLED) or b"", "big")
            batch = node.store.arrivals(after, limit)
            if not batch:
                return 0
            documents = list(dict.fromkeys(stored.document for _, stored in batch))
            with node.transaction():
                for document in documents:
                    fresh = node.reader.snapshot(document)
                    if fresh is not None:
                        node.store.put_snapshot(document, *fresh)
                node.store.put_meta(_SETTLED, batch[-1][0].to_bytes(8, "big"))
            return len(documents)

    def _audit(self, record: bytes) -> None:
        node = self._node
        if not node.store.writable:
            return
        with node.transaction():
            previous = node.store.audit_head()
            sealed = node.seal_private(_AUDIT, previous, record)
            node.store.append_audit(sealed, tagged_hash("audit", previous, sealed))

    # --- what is odd ---------------------------------------------------------------------------------------------

    def anomalies(self) -> Iterator[Anomaly]:
        """Every anomaly of every prescription held, in order of document and id."""
        for _, state in self.states():
            yield from state.prescription.anomalies

    def states(self, district: str | None = None) -> Iterator[tuple[DocumentId, State]]:
        """Every prescription held, in order of its id."""
        node = self._node
        with node.lock:
            own = {district_document(d) for d in node.held_districts()}
            documents = sorted(set(node.store.documents(district)) - own)
        for document in documents:
            with node.lock:
                state = node.reader.state(document)
                elsewhere = district is not None and node.reader.district(document) != district
            if state is not None and not elsewhere:
                yield document, state

    def history(self, document: DocumentId) -> list[dict[str, str]]:
        """What happened to a prescription, in canonical order: when, kind, author, event id, and why it is void."""
        node = self._node
        with node.lock:
            facts = [o.fact for o in node.reader.opened(document) if o.fact is not None]
            order = topological({fact.id: fact.parents for fact in facts})
            held = {fact.id: fact for fact in facts}
            return [
                {
                    "when": datetime.fromtimestamp(stamp_ms(held[link].stamp) / 1000, UTC).isoformat(
                        timespec="seconds"
                    ),
                    "kind": held[link].kind or "unreadable",
                    "author": node.reader.author(held[link].feed)[0].name,
                    "event": link.hex(),
                    "void": held[link].void,
                }
                for link in order
            ]

    # --- the whole store --------------------------------------------------------------------------------------------

    def verify(self) -> Iterator[int]:
        """Check every chain, signature, opening and certificate; yields how many entries have been checked.

        Raises:
            StoreDamaged: names the first thing that does not hold.
        """
        node = self._node
        keys: dict[FeedId, bytes] = {}
        for number, stored in enumerate(node.store.verify(), 1):
            key = keys.get(stored.feed)
            try:
                if key is None:
                    certified, _ = node.reader.author(stored.feed)
                    row = node.store.feed(stored.feed)
                    if row is None:
                        raise StoreDamaged("an opening is missing", where=f"feed {stored.feed.hex()}")
                    verify_opening_signature(row.signed, certified.public_key)
                    key = keys[stored.feed] = certified.public_key
                if stored.signature is not None:
                    verify_link(stored.link, stored.signature, key)
            except PeerFault as error:
                where = f"feed {stored.feed.hex()} sequence {stored.sequence}"
                raise StoreDamaged("a signature or certificate does not hold", where=where) from error
            yield number
        for _ in node.store.audit():
            pass

    def rebuild(self) -> Iterator[DocumentId]:
        """Fold every document anew from its entries and compare with what is cached; yields each.

        Raises:
            StoreDamaged: a cached state is not what its entries say.
        """
        node = self._node
        for document, state in self.states():
            with node.lock:
                fresh = node.reader.fold_anew(document)
                node.reader.snapshot(document)
            if fresh is None or state_digest(fresh.prescription) != state_digest(state.prescription):
                raise StoreDamaged(
                    "a cached state is not what its entries say", where=f"document {document.hex()}"
                )
            yield document

    # --- digests ----------------------------------------------------------------------------------------------------

    def frontier_digest(self, districts: list[str] | None = None) -> bytes:
        """A hash of the set of entries: equal on nodes that hold the same entries of these districts."""
        node = self._node
        with node.lock:
            parts: list[bytes] = []
            for district in sorted(districts if districts is not None else node.held_districts()):
                for feed, heads in sorted(node.store.frontier(district)):
                    parts.append(feed)
                    parts.extend(link for _, link in sorted((h.sequence, h.link) for h in heads))
                parts.extend(sorted(node.store.detached_links(district)))
            return tagged_hash("frontier", *parts)

    def state_digest(self, districts: list[str] | None = None) -> bytes:
        """A hash of the states: equal on nodes that hold the same entries and keys of these districts."""
        names = sorted(districts if districts is not None else self._node.held_districts())
        parts = [self._node.reader.governance().digest()]
        for district in names:
            if district == GOVERNANCE:
                continue
            for document, state in self.states(district):
                parts += [document, state_digest(state.prescription)]
        return tagged_hash("states", *parts)

    def agency_silence_ms(self) -> int:
        """How long no node of the agency has been heard; 0 at the agency itself or before it was ever heard."""
        node = self._node
        if node.identity.role is NodeRole.AGENCY:
            return 0
        agency = {row.author for row in node.store.feeds(GOVERNANCE)}
        heard = [at for author, _, at in node.store.horizon() if author in agency]
        return max(0, node.now_ms() - max(heard)) if heard else 0

    # --- honesty about ignorance ----------------------------------------------------------------------------------

    def horizon(self, district: str, state: State) -> Horizon:
        """What was not heard, not read and not understood (R11), as far as it concerns this district."""
        node = self._node
        heard = {row_node: (stamp, at) for row_node, stamp, at in node.store.horizon()}
        authors = {row.author for row in node.store.feeds(district)} - {node.identity.node}
        unheard = sorted((heard.get(a, (0, 0))[1], a) for a in authors)[:UNHEARD_SHOWN_MAX]
        return Horizon(
            unheard=tuple(Unheard(author, at) for at, author in unheard),
            unread=state.unread,
            data_as_of_ms=min((at for at, _ in unheard), default=node.now_ms()),
        )
