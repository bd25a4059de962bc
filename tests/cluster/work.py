"""Work at the nodes of a cluster while things break: prescribe, dispense, claim, as host systems do, noted in the book.

A command whose outcome is unknown is repeated under its id until there is a receipt: at once if an owner answers, at the
end at the latest (`Work.settle`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from ledger import Basis, Coded, IssuePrescription, Ledger, NodeRole, Patient, Product, Receipt, Supply
from ledger.errors import CommandRefused, NotFound, NotPermitted, StoreBusy
from ledger.ids import DocumentId, Link
from ledger.persons import NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from nodes.daemon.service import CLAIM_METHOD
from nodes.local.client import SharedLedger
from nodes.local.faults import OutcomeUnknown, OwnerGone
from nodes.requests import Told
from tests.cluster.book import AGREE_SECONDS, Book, Tried, agree
from tests.lab.cluster import Cluster, Member, until

__all__ = ["IDENTITIES", "Work", "dispense", "issue", "prescription", "working"]

IDENTITIES = ("189002029800", "196101182803", "199002222397", "200001252386")
"""Numbers that the tax agency keeps for tests."""
FILLS = 3
PAUSE_SECONDS = 0.05
"""Between two commands of one worker: two cores carry all of them, and the daemons."""
CLAIM_WAIT_MS = 3_000
SETTLE_SECONDS = 60.0
UNANSWERED = (OwnerGone, OutcomeUnknown, StoreBusy)
"""Nobody said whether it was done."""


def prescription(work: int, pharmacy: Member | None) -> IssuePrescription:
    """An order, the n-th."""
    return IssuePrescription(
        patient=Patient(name="Test Testsson", identifier=Coded(PERSONAL_NUMBER, IDENTITIES[work % len(IDENTITIES)])),
        product=Product(
            pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", strength="500 mg", pack_quantity=100
        ),
        dosage="1 tablett 2 gånger dagligen",
        fills=FILLS,
        prescriber=Coded(PRESCRIBER_CODE, "0012345"),
        chosen_pharmacy=None if pharmacy is None else pharmacy.node,
    )  # fmt: skip


class Work:
    """A block in which everybody works, each member in a thread of its own; ends with the block."""

    def __init__(
        self,
        cluster: Cluster,
        book: Book,
        *,
        claims: bool = True,
        seed: int = 0,
        pause_s: float = PAUSE_SECONDS,
    ) -> None:
        self.cluster, self.book, self._claims, self._seed = cluster, book, claims, seed
        self._pause_s = pause_s
        self._pharmacies = [m for m in cluster if m.role is NodeRole.PHARMACY]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unsettled: list[_Repeat] = []
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(member, turn), name=f"work at {member.name}")
            for member in self.cluster
            for turn in self._turns(member)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error is None and self.failures:
            raise self.failures[0]

    def _turns(self, member: Member) -> Iterator[Callable[[Member, random.Random], None]]:
        if member.role is NodeRole.PRESCRIBER:
            yield self._prescribe
        elif member.role is NodeRole.PHARMACY:
            yield self._dispense
            if self._claims:
                yield self._claim

    def _run(self, member: Member, turn: Callable[[Member, random.Random], None]) -> None:
        chance = random.Random(f"{self._seed} {member.name} {turn.__name__}")
        try:
            while not self._stop.wait(self._pause_s):
                turn(member, chance)
        except BaseException as error:
            self.failures.append(error)

    def wait_for(self, what: str, count: int, seconds: float = 60) -> None:
        """Until so many more of something have been acknowledged."""
        goal = len(self.book.acknowledged(what)) + count

        def reached() -> bool:
            assert not self.failures, self.failures[0]
            return len(self.book.acknowledged(what)) >= goal

        until(reached, seconds, f"{count} more {what}")

    # --- turns ------------------------------------------------------------------------------------------------------

    def _prescribe(self, member: Member, chance: random.Random) -> None:
        number = len(self.book.all())
        to = self._pharmacies[number % len(self._pharmacies)]
        tried = self.book.will("prescribe", member.name)
        self._do(
            member, tried, lambda ledger: ledger.prescribe(prescription(number, to), person=member.person, command=tried.command)
        )  # fmt: skip

    def _dispense(self, member: Member, chance: random.Random) -> None:
        """The first fill of what was issued, and the second of what was claimed."""
        done = {
            (t.document, t.what)
            for t in self.book.all()
            if t.by == member.name and t.what.startswith("dispense")
        }
        claimed = {t.document for t in self.book.acknowledged("claim") if t.by == member.name}
        issued = self.book.acknowledged("prescribe")
        chance.shuffle(issued)
        for found in issued:
            fill = 2 if found.document in claimed else 1
            what = f"dispense {fill}"
            if (found.document, what) in done or found.document is None:
                continue
            if self._dispensable(member, found.document, fill):
                self.dispense(member, found.document, fill)
                return

    def _dispensable(self, member: Member, document: DocumentId, fill: int) -> bool:
        try:
            with member.ledger() as ledger:
                return (
                    ledger.assess(document, Supply(fill=fill, basis=Basis.CUSTODY)).verdict.value == "permit"
                )
        except (NotFound, *UNANSWERED):
            return False

    def dispense(self, member: Member, document: DocumentId, fill: int) -> Tried:
        """One supply on custody."""
        tried = self.book.will(f"dispense {fill}", member.name, document)
        supply = Supply(fill=fill, basis=Basis.CUSTODY)
        self._do(
            member, tried, lambda ledger: ledger.dispense(document, supply, person=member.person, command=tried.command)
        )  # fmt: skip
        return tried

    def _claim(self, member: Member, chance: random.Random) -> None:
        """The second fill of something that another pharmacy holds."""
        tried_for = {t.document for t in self.book.all() if t.what == "claim" and t.by == member.name}
        issued = [t for t in self.book.acknowledged("prescribe") if t.document not in tried_for]
        if not issued:
            return
        document = chance.choice(issued).document
        assert document is not None
        self.claim(member, document, 2)

    def claim(
        self, member: Member, document: DocumentId, fill: int, wait_ms: int = CLAIM_WAIT_MS
    ) -> Told | None:
        """Ask whoever holds a fill for it; None if no daemon answers or it knows nothing of it."""
        tried = self.book.will("claim", member.name, document)
        try:
            with member.ledger() as ledger:
                if not isinstance(ledger, SharedLedger):
                    return None
                told = ledger.ask(
                    CLAIM_METHOD,
                    Told,
                    document=document,
                    fills=[fill],
                    command=tried.command,
                    wait_ms=wait_ms,
                )
        except (NotFound, CommandRefused, *UNANSWERED):
            return None
        if told.code:
            tried.refused = told.code
        else:
            tried.link = Link(told.link)
        return told

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def _do(self, member: Member, tried: Tried, command: Callable[[Ledger], Receipt]) -> None:
        repeat = _Repeat(member, tried, command)
        if not repeat.once():
            self._unsettled.append(repeat)

    def settle(self) -> None:
        """Repeat every command that had no answer until it has one."""
        for repeat in self._unsettled:
            until(repeat.once, SETTLE_SECONDS, f"an answer to {repeat.tried.what} by {repeat.member.name}")
        self._unsettled.clear()


class _Repeat:
    """A command that may be given again."""

    def __init__(self, member: Member, tried: Tried, command: Callable[[Ledger], Receipt]) -> None:
        self.member, self.tried, self._command = member, tried, command

    def once(self) -> bool:
        """Give it; False if the outcome is not known."""
        try:
            with self.member.ledger() as ledger:
                receipt = self._command(ledger)
        except UNANSWERED:
            return False
        except (NotPermitted, NotFound) as error:
            self.tried.refused = error.code
            return True
        self.tried.link, self.tried.document = receipt.link, receipt.document
        return True


@contextmanager
def working(
    cluster: Cluster, book: Book, *, claims: bool = True, seed: int = 0, pause_s: float = PAUSE_SECONDS
) -> Iterator[Work]:
    """Everybody works during the block; after it every command has an answer, for which all daemons must run."""
    work = Work(cluster, book, claims=claims, seed=seed, pause_s=pause_s)
    with work:
        yield work
    work.settle()


def issue(
    cluster: Cluster, book: Book, count: int, *, to: Member | None = None, among: Sequence[Member] = ()
) -> list[DocumentId]:
    """So many prescriptions for one pharmacy (eken); all have them (or those `among` whom it is) when this returns."""
    clinic, pharmacy, found = cluster["clinic"], to or cluster["eken"], []
    with clinic.ledger() as ledger:
        for number in range(count):
            tried = book.will("prescribe", clinic.name)
            order = prescription(number, pharmacy)
            receipt = ledger.prescribe(order, person=clinic.person, command=tried.command)
            tried.link, tried.document = receipt.link, receipt.document
            found.append(receipt.document)
    agree(among or cluster, AGREE_SECONDS)
    return found


def dispense(book: Book, member: Member, document: DocumentId, fill: int) -> Tried:
    """A supply on custody, acknowledged."""
    tried = book.will(f"dispense {fill}", member.name, document)
    with member.ledger() as ledger:
        supply = Supply(fill=fill, basis=Basis.CUSTODY)
        tried.link = ledger.dispense(document, supply, person=member.person, command=tried.command).link
    return tried
