"""What people do in a realm for tests: prescribe, dispense, pass on, take back, stop, and govern.

Every act takes names and whole numbers. An act that the ledger refuses is one that an honest host does not do.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger import (
    Basis,
    Coded,
    CommandRefused,
    ControlledClass,
    Criticality,
    DocumentId,
    IssuePrescription,
    Ledger,
    Level,
    NodeRole,
    Origin,
    Patient,
    Person,
    PersonRole,
    Product,
    Receipt,
    ReversalKind,
    Supply,
    Verdict,
)
from ledger.errors import Unreadable
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from ledger.placement import CustodyPlan
from nodes.claims import answer_claim, make_claim
from tests.machine_for_tests import (
    AGENCY,
    AWAY,
    FILLS,
    HOME,
    OFFICER,
    PACK,
    PHARMACIES,
    PRESCRIBER,
    Realm,
    pick,
)
from tests.machine_model_for_tests import Act, Revocation

NUMBERS = ("189002029800", "196101182803", "199002222397", "200001252386")
PRESCRIBED_BY = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
PHARMACIST = Person(Coded(LICENCE_CODE, "001234"), PersonRole.PHARMACIST)
LEVELS = (Level.NORMAL, Level.CRISIS, Level.MINIMUM)


def patient(number: int) -> Patient:
    """One of the four official test persons."""
    which = number % len(NUMBERS)
    return Patient(name=f"Test Testsson {which}", identifier=Coded(PERSONAL_NUMBER, NUMBERS[which]))


class World(Realm):
    """A realm in which people act."""

    # --- prescribing and supplying -----------------------------------------------------------------------------

    def prescribe(self, district: int, holder: int, kind: int, *, bearer: bool = False) -> None:
        where = pick((HOME, HOME, AWAY), district)
        who = None if bearer else pick((*PHARMACIES, AGENCY, PRESCRIBER), holder)
        controlled = ControlledClass.II if kind % 5 == 4 else ControlledClass.NONE
        order = IssuePrescription(
            patient=patient(kind),
            product=Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", pack_quantity=PACK),
            dosage="1 tablett", fills=FILLS, prescriber=PRESCRIBED_BY.code, bearer=bearer, controlled=controlled,
            criticality=Criticality.LIFE_SUSTAINING if kind % 2 else Criticality.ORDINARY,
            holder=None if who is None else self.node_id(who), order_serial="" if kind % 3 else "EXEMPEL-1",
        )  # fmt: skip
        receipt = self.command(
            PRESCRIBER, "issue",
            lambda ledger, id_: ledger.prescribe(order, person=PRESCRIBED_BY, district=where, command=id_),
            text=order.dosage,
        )  # fmt: skip
        if receipt is not None:
            self.documents.append(receipt.document)
            if bearer:
                self.papers.append(self.sites[PRESCRIBER].ledger.papers.print(receipt.document))

    def register_paper(self, who: int, holder: int) -> None:
        """A pharmacy types in what stands on a paper: a second document of the order, perhaps."""
        order = IssuePrescription(
            patient=patient(0), dosage="1 tablett", fills=FILLS, prescriber=PRESCRIBED_BY.code, origin=Origin.PAPER,
            product=Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", pack_quantity=PACK),
            holder=self.node_id(pick(PHARMACIES, holder)), order_serial="EXEMPEL-1",
        )  # fmt: skip
        receipt = self.command(
            pick(PHARMACIES, who), "issue",
            lambda ledger, id_: ledger.prescribe(order, person=PHARMACIST, district=HOME, command=id_),
            text=order.dosage,
        )  # fmt: skip
        if receipt is not None:
            self.documents.append(receipt.document)

    def dispense(
        self,
        site: str,
        document: DocumentId,
        fill: int,
        quantity: int,
        basis: Basis,
        seed: bytes | None = None,
    ) -> Receipt | None:
        """Supply what the guard allows, at most `quantity`; a part if that is less than the rest of the fill."""
        ledger = self.sites[site].ledger
        asked = Supply(fill=fill, basis=basis, reason="innehavaren nås inte", bearer_seed=seed)
        try:
            decision = ledger.assess(document, asked)
        except (CommandRefused, Unreadable):
            return None
        if decision.verdict is Verdict.REFUSE:
            self.count(f"{basis.value} refused")
            return None
        amount = min(quantity, decision.quantity_max)
        supply = Supply(
            fill=fill, basis=basis, quantity=amount, part=amount < decision.quantity_max,
            reason="innehavaren nås inte", bearer_seed=seed,
        )  # fmt: skip
        return self.command(
            site, "supply",
            lambda led, id_: led.dispense(document, supply, person=PHARMACIST, command=id_),
            fill=fill, quantity=amount, basis=basis.value,
        )  # fmt: skip

    def held_by(self, site: str) -> list[tuple[DocumentId, int]]:
        """What a site believes that it may dispense on custody: acts on these are worth more than those at random."""
        ledger = self.sites[site].ledger
        if ledger.node.identity.role is NodeRole.RELAY:
            return []
        found = []
        for document in self.documents:
            if ledger.node.reader.state(document) is None:
                continue
            for fill in range(1, FILLS + 1):
                decision = ledger.assess(document, Supply(fill=fill, basis=Basis.CUSTODY))
                if decision.basis is Basis.CUSTODY:
                    found.append((document, fill))
        return found

    def some_fill(self, site: str, document: int, fill: int) -> tuple[DocumentId, int] | None:
        """A fill that a site holds, or, one time in four, any."""
        held = self.held_by(site) if (document + fill) % 4 else []
        if held:
            return pick(held, document * FILLS + fill)
        return (pick(self.documents, document), 1 + fill % FILLS) if self.documents else None

    def supply(self, site: str, document: int, fill: int, quantity: int, basis: Basis) -> None:
        if basis is Basis.CUSTODY:
            chosen = self.some_fill(site, document, fill)
        else:
            chosen = (pick(self.documents, document), 1 + fill % FILLS) if self.documents else None
        if chosen is not None:
            self.dispense(site, *chosen, quantity, basis)

    def spend_paper(self, site: str, paper: int, fill: int, quantity: int) -> None:
        if not self.papers:
            return
        scanned = self.sites[site].ledger.papers.scan(pick(self.papers, paper))
        number = pick(sorted(scanned.seeds), fill)
        self.dispense(site, scanned.document, number, quantity, Basis.BEARER, scanned.seeds[number])

    def claim(self, site: str, holder: str, document: int, fill: int, *, answered: bool) -> None:
        """Ask the holder for a fill; the answer comes by replication, at once or some day."""
        chosen = self.some_fill(holder, document, fill)
        if chosen is None or not self.can_talk(site, holder) or site == holder:
            return
        wanted, number = chosen
        ledger = self.sites[site].ledger
        district = ledger.node.reader.district(wanted)
        if district is None or not ledger.node.keyring.newest_epoch(district):
            return
        request = make_claim(ledger, wanted, (number,), district, (self.serial + 1).to_bytes(16, "big"))
        done = self.command(
            holder, "transfer", lambda led, _: answer_claim(led, request, person=PHARMACIST), fill=number,
            asked_by=site.removeprefix("old "),
        )  # fmt: skip
        if done is not None and answered:
            self.synchronise(site, holder)

    def transfer(self, site: str, document: int, fill: int, to: str, *, bearer: bool = False) -> None:
        """Pass a fill on; to whoever carries the paper, which is printed."""
        chosen = self.some_fill(site, document, fill)
        if chosen is None:
            return
        which, number = chosen
        target = None if bearer else self.node_id(to)
        done = self.command(
            site, "transfer",
            lambda ledger, id_: ledger.transfer(which, [number], target, person=PHARMACIST, command=id_),
            fill=number,
        )  # fmt: skip
        if done is not None and bearer:
            try:
                self.papers.append(self.sites[site].ledger.papers.print(which))
            except CommandRefused:
                self.count("paper not printed")

    def plan(self, site: str) -> None:
        """The nightly plan: towards the district's custodian."""
        plan = CustodyPlan(custodians={HOME: self.node_id("north"), AWAY: self.node_id("west")})
        for receipt in self.sites[site].ledger.plan_custody(plan, person=PHARMACIST):
            self.note(site, receipt, "transfer")

    # --- what is taken back, changed, stopped ------------------------------------------------------------------

    def own_supply(self, site: str, number: int) -> Act | None:
        mine = [a for a in self.model.acts.values() if a.kind == "supply" and a.site == site]
        return pick(mine, number) if mine else None

    def reverse(self, site: str, number: int) -> None:
        supply = self.own_supply(site, number)
        if supply is None:
            return
        kind = ReversalKind.BEFORE_HANDOVER if number % 2 else ReversalKind.AFTER_HANDOVER
        self.command(
            site, "reverse",
            lambda ledger, id_: ledger.reverse(supply.document, supply.link, kind, person=PHARMACIST, command=id_),
            fill=supply.fill, target=supply.link,
        )  # fmt: skip

    def correct(self, site: str, number: int, quantity: int) -> None:
        supply = self.own_supply(site, number)
        if supply is None:
            return
        self.command(
            site, "correct",
            lambda ledger, id_: ledger.correct(
                supply.document, supply.link, quantity, person=PHARMACIST, command=id_
            ),
            fill=supply.fill, target=supply.link, quantity=quantity,
        )  # fmt: skip

    def _on(
        self, site: str, kind: str, document: int, call: Callable[[Ledger, DocumentId, bytes], Receipt], **facts: object
    ) -> Receipt | None:  # fmt: skip
        """A command on a prescription that the site has heard of."""
        if not self.documents:
            return None
        which = pick(self.documents, document)
        if self.sites[site].ledger.node.reader.district(which) is None:
            return None
        return self.command(site, kind, lambda ledger, id_: call(ledger, which, id_), **facts)

    def amend(self, document: int, number: int) -> None:
        text = f"{number} tabletter"
        self._on(
            PRESCRIBER, "amend", document,
            lambda ledger, which, id_: ledger.amend(which, person=PRESCRIBED_BY, dosage=text, command=id_), text=text,
        )  # fmt: skip

    def hold(self, site: str, document: int) -> None:
        self._on(
            site, "hold", document,
            lambda ledger, which, id_: ledger.hold(which, person=PHARMACIST, reason="oklart", command=id_),
        )  # fmt: skip

    def resume(self, site: str, document: int) -> None:
        self._on(
            site,
            "resume",
            document,
            lambda ledger, which, id_: ledger.resume(which, person=OFFICER, command=id_),
        )

    def cancel(self, site: str, document: int) -> None:
        self._on(
            site,
            "cancel",
            document,
            lambda ledger, which, id_: ledger.cancel(which, person=OFFICER, command=id_),
        )

    def recover(self, document: int, fill: int) -> None:
        number = 1 + fill % FILLS
        self._on(
            AGENCY, "recover", document,
            lambda ledger, which, id_: ledger.recover(
                which, [number], person=OFFICER, reason="innehavaren är borta", command=id_
            ), fill=number,
        )  # fmt: skip

    def mark(self, site: str, document: int, number: int) -> None:
        """Something that moves no fill: the model knows nothing of it, and all nodes must agree on it."""
        kind = pick(
            ("not_dispensed", "block_access", "give_consent", "attach_external_id", "resolve"), number
        )

        def call(ledger: Ledger, which: DocumentId, command: bytes) -> Receipt:
            given: dict[str, object] = dict[str, dict[str, object]](
                {
                    "not_dispensed": {"fill": 1 + number % FILLS, "reason": "slut"},
                    "block_access": {"purposes": (f"purpose {number % 3}",)},
                    "give_consent": {"purposes": (f"purpose {number % 3}",)},
                    "attach_external_id": {"external_id": Coded("urn:example", str(number))},
                    "resolve": {"anomaly": bytes(16), "decision": "utrett"},
                }
            )[kind]
            anomalies = ledger.show(which).prescription.anomalies
            if kind == "resolve" and anomalies:
                given["anomaly"] = pick(anomalies, number).id
            done = getattr(ledger, kind)(which, person=PHARMACIST, command=command, **given)
            assert isinstance(done, Receipt)
            return done

        self._on(site, kind, document, call)

    # --- whole districts ---------------------------------------------------------------------------------------

    def delegate(self, site: str, to: str) -> None:
        target = self.node_id(to)
        receipt = self.command(
            site,
            "delegate",
            lambda ledger, id_: ledger.delegate(HOME, target, person=PHARMACIST, command=id_),
        )
        if receipt is not None:
            self.delegations.append((site, to, receipt.link))

    def end_delegation(self, number: int) -> None:
        if not self.delegations:
            return
        _, delegate, link = pick(self.delegations, number)
        if self.sites[delegate].ledger.node.store.by_link(link) is None:
            return
        self.command(
            delegate, "end delegation",
            lambda ledger, id_: ledger.end_delegation(HOME, link, person=PHARMACIST, command=id_),
        )  # fmt: skip

    def close_feed(self, site: str, successor: str) -> None:
        if site == successor or self.tally.get("close feed"):
            return
        target = self.node_id(successor)
        self.command(
            site, "close feed",
            lambda ledger, id_: ledger.close_feed(HOME, target, person=PHARMACIST, command=id_),
        )  # fmt: skip

    # --- the agency --------------------------------------------------------------------------------------------

    def revoke(self, name: str) -> None:
        """A pharmacy is revoked: what the agency holds of it keeps its authority."""
        if self.revoked or name in self.images:
            return
        agency, target = self.sites[AGENCY].ledger, self.node_id(name)
        good = set()
        for act in self.model.acts.values():
            stored = agency.node.store.by_link(act.link)
            if act.author == name and stored is not None and not stored.detached:
                good.add(act.link)
        receipt = self.command(
            AGENCY, "revoke",
            lambda ledger, id_: ledger.stewardship.revoke(target, person=OFFICER, reason="stulen", command=id_),
        )  # fmt: skip
        if receipt is not None:
            self.revoked.add(name)
            self.model.revocations.append(Revocation(receipt.link, name, frozenset(good)))

    def start_epoch(self, district: int) -> None:
        where = pick((HOME, AWAY), district)
        self.command(
            AGENCY,
            "epoch",
            lambda ledger, id_: ledger.stewardship.start_epoch(where, person=OFFICER, command=id_),
        )

    def take_epochs(self, name: str) -> int:
        return self.sites[name].ledger.stewardship.take_epochs()

    def declare(self, level: int) -> None:
        wanted = pick(LEVELS, level)
        self.command(
            AGENCY,
            "declare",
            lambda ledger, id_: ledger.stewardship.declare(wanted, person=OFFICER, command=id_),
        )
