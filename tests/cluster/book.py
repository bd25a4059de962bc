"""What hosts were told: every command that was tried, every receipt that was given. Kept apart from what it is compared with.

The ledgers are judged by it: what is in the book as acknowledged must be everywhere, what is not in it as tried nowhere.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterable

from msgspec import Struct

from ledger import Ledger
from ledger.events import Dispensed
from ledger.history import Prescription
from ledger.ids import GOVERNANCE, DocumentId, Link
from tests.lab.cluster import DISTRICT, Cluster, Member, until

__all__ = ["AGREE_SECONDS", "Book", "Tried", "agree", "digests", "holds"]

AGREE_SECONDS = 60.0
"""A sign of life that tells of a difference comes every thirty seconds; a minute for two cores that do much else."""

BOTH = [GOVERNANCE, DISTRICT]


class Tried(Struct, eq=False):
    """One command of a host."""

    command: bytes
    what: str
    by: str
    document: DocumentId | None = None
    link: Link | None = None
    """Of the event, once it was acknowledged."""
    refused: str = ""


class Book:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tried: dict[bytes, Tried] = {}

    def will(self, what: str, by: str, document: DocumentId | None = None) -> Tried:
        """Note a command before it is given."""
        entry = Tried(uuid.uuid4().bytes, what, by, document)
        with self._lock:
            self._tried[entry.command] = entry
        return entry

    def all(self) -> list[Tried]:
        """Everything so far, in order."""
        with self._lock:
            return list(self._tried.values())

    def acknowledged(self, what: str = "") -> list[Tried]:
        """What a receipt was given for."""
        return [t for t in self.all() if t.link is not None and what in ("", t.what)]

    def counts(self) -> dict[str, int]:
        """How often each was acknowledged."""
        return dict(sorted(Counter(t.what for t in self.acknowledged()).items()))

    # --- judging ----------------------------------------------------------------------------------------------------

    def check(
        self, members: Iterable[Member], anomalies: Collection[str] = (), *, besides: Collection[bytes] = ()
    ) -> None:
        """Nothing acknowledged is lost, nothing is invented, custody is single, nothing is odd but what is expected.

        Args:
            members: those with keys; their stores are read from disk.
            anomalies: kinds that the fault explains.
            besides: nodes that keep no book; what they wrote may stand in documents of their own only.
        """
        for member in members:
            with member.reading() as ledger:
                self._check_entries(member.name, ledger, besides)
                found = self._check_fills(ledger)
                assert found <= set(anomalies), f"{member.name}: {found - set(anomalies)}"

    def _check_entries(self, name: str, ledger: Ledger, besides: Collection[bytes]) -> None:
        node = ledger.node
        with self._lock:
            tried = dict(self._tried)
        for entry in tried.values():
            if entry.link is not None:
                held = node.store.by_link(entry.link)
                assert held is not None, f"{name} lost what was acknowledged: {entry.what} by {entry.by}"
                assert not held.detached, f"{name} holds {entry.what} by {entry.by} ahead of its feed only"
                assert entry.document is None or held.document == entry.document
        ours = {entry.document for entry in tried.values()}
        for document, state in ledger.inquiry.states(DISTRICT):
            opened_entries = node.reader.opened(document)
            authors = {node.reader.author(opened.entry.feed)[0].node for opened in opened_entries}
            if authors & set(besides):
                assert document not in ours, f"{name}: somebody else wrote into a prescription"
                continue
            assert not state.unread, f"{name} cannot read all of a prescription"
            for opened in opened_entries:
                assert opened.fact is not None
                assert opened.fact.event is not None, f"{name}: void: {opened.fact.void}"
                known = tried.get(opened.fact.event.command)
                assert known is not None, f"{name} holds a {opened.fact.kind} that nobody asked for"
                assert known.link in (None, opened.fact.id), "one command has two effects"

    def _check_fills(self, ledger: Ledger) -> set[str]:
        kinds, ours = set(), {tried.document for tried in self.all()}
        for document, state in ledger.inquiry.states(DISTRICT):
            if document not in ours:
                continue
            prescription = state.prescription
            kinds |= {anomaly.kind for anomaly in prescription.anomalies}
            self._check_balance(prescription)
        return kinds

    def _check_balance(self, prescription: Prescription) -> None:
        for fill in prescription.fills:
            # What each supply says, summed here: not the ledger's own sum.
            supplied = sum(s.net for s in prescription.supplies if s.fill == fill.number)
            assert fill.dispensed <= fill.authorised
            assert supplied >= fill.dispensed
        balance = prescription.balance
        assert balance.authorised == balance.dispensed + balance.remaining + balance.forfeited

    def supplied_by(self, ledger: Ledger) -> dict[tuple[DocumentId, int], list[bytes]]:
        """Document and fill → nodes that supplied it on custody, as a ledger holds it."""
        found: dict[tuple[DocumentId, int], list[bytes]] = {}
        for document, _ in ledger.inquiry.states(DISTRICT):
            for opened in ledger.node.reader.opened(document):
                fact = opened.fact
                if fact is not None and isinstance(fact.event, Dispensed):
                    author, _ = ledger.node.reader.author(fact.feed)
                    found.setdefault((document, fact.event.fill), []).append(author.node)
        return found


# --- agreement ---------------------------------------------------------------------------------------------------------


def digests(member: Member) -> tuple[bytes, bytes]:
    """Of what a node holds, and of what follows from it; asked of its daemon."""
    with member.ledger() as ledger:
        return ledger.inquiry.frontier_digest(BOTH), ledger.inquiry.state_digest(BOTH)


def frontier(member: Member) -> bytes:
    """The first of `digests` alone: cheap."""
    with member.ledger() as ledger:
        return ledger.inquiry.frontier_digest(BOTH)


def differences(members: Iterable[Member]) -> dict[str, str]:
    """Who holds what, in short, for a failed run."""
    return {member.name: frontier(member).hex()[:8] for member in members}


def agree(cluster: Cluster | Iterable[Member], seconds: float) -> float:
    """Wait until all hold the same and say the same of it; returns how long that took, in seconds."""
    members = list(cluster)
    try:
        took = until(
            lambda: len({frontier(member) for member in members}) == 1, seconds, "the same entries everywhere"
        )
    except AssertionError as error:
        raise AssertionError(f"{error}; {differences(members)}") from error
    found = {member.name: digests(member) for member in members}
    assert len(set(found.values())) == 1, {name: (a.hex()[:8], b.hex()[:8]) for name, (a, b) in found.items()}
    return took


def holds(member: Member, tried: Tried) -> bool:
    """Whether a node has an acknowledged event, chained or ahead of its feed."""
    assert tried.link is not None
    with member.reading() as ledger:
        return ledger.node.store.by_link(tried.link) is not None
