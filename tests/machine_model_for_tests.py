"""What a realm must say of itself, worked out from a plain list of what was acknowledged (R7, R9, R10).

Nothing here folds, orders or judges with the library. Each act is noted with the acts of its prescription that its
author held when it wrote; from that alone follow the balance, the anomalies of supply and cancellation, the dosage in
force and the holds. Of a store it is only asked which entries it holds and can read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ledger import DocumentId, Ledger, Link, Prescription, Status
from ledger.store.port import StoredEntry

EXCESS = ("double_dispensing", "over_quantity")
CONVEYANCES = ("delegate", "end delegation", "close feed")
CUSTODY_KINDS = ("transfer", "supply", "reverse")


@dataclass(frozen=True)
class Act:
    """Something a node acknowledged."""

    kind: str
    link: Link
    document: DocumentId
    author: str
    """The node; an old image of it is the same author."""
    site: str
    command: bytes
    knew: frozenset[Link]
    """Acts of the same prescription that the author could read when it wrote, and what those build on."""
    fill: int = 0
    quantity: int = 0
    basis: str = ""
    aware: frozenset[Link] = frozenset()
    """Revocations that its author held, or that the author of something which it had read had held."""
    target: Link | None = None
    """The supply that is taken back or corrected."""
    text: str = ""


@dataclass(frozen=True)
class Revocation:
    """A node revoked, and which of its acts keep their authority."""

    link: Link
    author: str
    good: frozenset[Link]


@dataclass
class Supplied:
    """Supplies of one node under one command: one supply, in however many copies."""

    acts: list[Act]
    quantity: int
    reversed: bool = False
    sure: bool = True
    """Whether what follows what is known here."""

    @property
    def net(self) -> int:
        return 0 if self.reversed else self.quantity

    @property
    def ids(self) -> set[Link]:
        return {act.link for act in self.acts}


@dataclass
class Model:
    """The list, and what follows from it."""

    size: int
    fills: int
    acts: dict[Link, Act] = field(default_factory=dict)
    of_document: dict[DocumentId, list[Act]] = field(default_factory=lambda: defaultdict(list))
    revocations: list[Revocation] = field(default_factory=list)
    rolled_back: set[str] = field(default_factory=set)
    """Nodes of which an old image runs."""

    def acknowledge(self, act: Act) -> None:
        """Note it. What it builds on builds on more, which its author may not have held: that is its past all the same."""
        assert act.link not in self.acts, "one link for two acts"
        act = replace(act, knew=act.knew.union(*(self.acts[link].knew for link in act.knew)))
        self.acts[act.link] = act
        self.of_document[act.document].append(act)

    def by_command(self, author: str, command: bytes) -> list[Link]:
        return [a.link for a in self.acts.values() if (a.author, a.command) == (author, command)]

    def readable(self, ledger: Ledger, document: DocumentId) -> set[Link]:
        """Which acts of a prescription a store holds and has the key of."""
        found = set()
        for act in self.of_document[document]:
            stored = ledger.node.store.by_link(act.link)
            if stored is not None and ledger.node.reader.open(stored).fact is not None:
                found.add(act.link)
        return found

    # --- what a store must say ---------------------------------------------------------------------------------

    def check(self, ledger: Ledger, document: DocumentId) -> None:
        """Compare a store's state of a prescription with what follows from the acts it can read."""
        state = ledger.node.reader.state(document)
        if state is None:
            assert not self.readable(ledger, document)
            return
        said = state.prescription
        links = self.readable(ledger, document)
        held = [a for a in self.of_document[document] if a.link in links]
        unauthorised = {
            act.link
            for revocation in self.revocations
            if ledger.node.store.by_link(revocation.link) is not None
            for act in held
            if act.author == revocation.author and act.link not in revocation.good
        }
        whole = all(act.knew <= links for act in held)
        supplies = self._supplies(held, unauthorised, whole=whole)
        cancels = [a for a in held if a.kind == "cancel" and a.link not in unauthorised]
        self._check_balance(said, held, supplies, cancelled=bool(cancels))
        if whole and any(a.kind == "issue" for a in held):
            _check_cancellations(said, supplies, cancels)
            standing = [a for a in held if a.link not in unauthorised or a.kind == "issue"]
            _check_texts(said, standing, cancelled=bool(cancels))
        kinds = Counter(a.kind for a in said.anomalies)
        for anomaly in said.anomalies:
            if anomaly.kind == "custody_breach":
                for link in anomaly.involved:
                    assert self._was_told(link) or self._overtakes_a_fork(ledger, link), (
                        "nobody here breaches custody"
                    )
        assert not kinds["void_event"]
        assert not kinds["out_of_role"]
        assert not kinds["command_conflict"]

    def told(self, ledger: Ledger, document: DocumentId) -> frozenset[Link]:
        """The revocations of which a store tells: held, or known to an author of what can be read."""
        held = {r.link for r in self.revocations if ledger.node.store.by_link(r.link) is not None}
        districts = {a.document for a in self.acts.values() if a.kind in CONVEYANCES}
        for place in (document, *districts):
            for link in self.readable(ledger, place):
                held |= self.acts[link].aware
        return frozenset(held)

    def _was_told(self, link: Link) -> bool:
        """Whether an act is by a revoked node that had read what was written with knowledge of that.

        The ledger says of such a node that it had to know. Nobody else here may be blamed for anything.
        """
        act = self.acts[link]
        return any(
            r.author == act.author and r.link in act.aware and link not in r.good for r in self.revocations
        )

    def _overtakes_a_fork(self, ledger: Ledger, link: Link) -> bool:
        """Whether entries of two images of a node are held, some of them ahead of the feed that will show its fork.

        Until then one feed seems to spend a fill twice. Known, and said only as long as that entry waits.
        """
        store, act = ledger.node.store, store_entry(ledger, link)
        ahead = store.detached_links(ledger.node.reader.author(act.feed)[1])
        return self.acts[link].author in self.rolled_back and any(
            store_entry(ledger, other).feed == act.feed for other in ahead
        )

    def _supplies(self, held: list[Act], unauthorised: set[Link], *, whole: bool) -> list[Supplied]:
        groups: dict[tuple[str, bytes], list[Act]] = {}
        for act in held:
            if act.kind == "supply":
                groups.setdefault((act.author, act.command), []).append(act)
        made = []
        for group in groups.values():
            supplied = Supplied(group, group[0].quantity)
            changes = [
                a for a in held
                if a.target in supplied.ids and a.author == group[0].author and a.link not in unauthorised
            ]  # fmt: skip
            supplied.reversed = any(a.kind == "reverse" for a in changes)
            corrections = [a for a in changes if a.kind == "correct"]
            last = [a for a in corrections if not any(a.link in b.knew for b in corrections)]
            supplied.quantity = max((a.quantity for a in last), default=supplied.quantity)
            supplied.sure = whole or len(corrections) < 2
            made.append(supplied)
        return made

    def _check_balance(
        self, said: Prescription, held: list[Act], supplies: list[Supplied], *, cancelled: bool
    ) -> None:
        """R9, R10."""
        balance = said.balance
        assert balance.authorised == balance.dispensed + balance.remaining + balance.forfeited
        assert min(balance.dispensed, balance.remaining, balance.forfeited, balance.over_supply) >= 0
        if not all(s.sure for s in supplies):
            return
        if not any(a.kind == "issue" for a in held):
            assert balance.unmatched == sum(s.net for s in supplies)
            return
        of_fill = {
            n: [s for s in supplies if s.acts[0].fill == n and s.net] for n in range(1, self.fills + 1)
        }
        total = {n: sum(s.net for s in made) for n, made in of_fill.items()}
        over = sum(max(0, t - self.size) for t in total.values())
        dispensed = sum(min(t, self.size) for t in total.values())
        unused = sum(self.size for t in total.values() if not t)
        authorised = self.size * self.fills
        forfeited = authorised - dispensed if cancelled else min(over, unused)
        assert (balance.authorised, balance.dispensed, balance.over_supply, balance.forfeited) == (
            authorised, dispensed, over, forfeited,
        )  # fmt: skip
        expected = {
            (n, "double_dispensing" if len(made) > 1 else "over_quantity")
            for n, made in of_fill.items()
            if total[n] > self.size
        }
        assert {(a.fill, a.kind) for a in said.anomalies if a.kind in EXCESS} == expected

    # --- custody -------------------------------------------------------------------------------------------------

    def assert_custody_never_over_dispenses(self, rolled_back: set[str]) -> None:
        """R7: of all that was ever acknowledged anywhere, known to somebody or lost with a disk.

        Args:
            rolled_back: nodes of which an old image ran: fills that they acted on by right of custody are left out.
        """
        if any(a.kind in CONVEYANCES and a.author in rolled_back for a in self.acts.values()):
            return
        for document, acts in self.of_document.items():
            spoiled = {a.fill for a in acts if a.author in rolled_back and a.kind in CUSTODY_KINDS}
            raised = {
                a.target for a in acts if a.kind == "correct" and a.quantity > self.acts[_target(a)].quantity
            }
            supplies = [
                s for s in self._supplies(acts, set(), whole=True)
                if s.acts[0].basis == "custody" and not s.ids & raised
            ]  # fmt: skip
            for fill in range(1, self.fills + 1):
                if 0 in spoiled or fill in spoiled:
                    continue
                total = sum(s.net for s in supplies if s.acts[0].fill == fill)
                assert total <= self.size, f"{total} units on custody of fill {fill} of {document.hex()}"


def store_entry(ledger: Ledger, link: Link) -> StoredEntry:
    stored = ledger.node.store.by_link(link)
    assert stored is not None
    return stored


def _target(act: Act) -> Link:
    assert act.target is not None
    return act.target


def _check_cancellations(said: Prescription, supplies: list[Supplied], cancels: list[Act]) -> None:
    """R9: a supply is found by every cancellation that did not know of it."""
    expected = {
        frozenset(s.ids) for s in supplies if s.net and any(not s.ids & cancel.knew for cancel in cancels)
    }
    found = {
        frozenset(s.ids)
        for a in said.anomalies
        if a.kind == "supplied_after_cancellation"
        for s in supplies
        if s.ids & set(a.involved)
    }
    assert found == expected


def _check_texts(said: Prescription, held: Iterable[Act], *, cancelled: bool) -> None:
    """R5: what follows what, and nobody's clock, decides which dosage and which hold is in force."""
    by_kind: dict[str, list[Act]] = defaultdict(list)
    for act in held:
        by_kind[act.kind].append(act)
    amends = by_kind["amend"]
    last = [a for a in amends if not any(a.link in b.knew for b in amends)]
    assert set(said.dosage) == {a.text for a in last or by_kind["issue"]}
    disagree = len({a.text for a in last}) > 1
    assert disagree == any(a.kind == "conflicting_amendments" for a in said.anomalies)
    if cancelled:
        assert said.status in (Status.CANCELLED, Status.STOPPED)
    else:
        held_up = [h for h in by_kind["hold"] if not any(h.link in r.knew for r in by_kind["resume"])]
        assert (said.status is Status.ON_HOLD) == bool(held_up)
