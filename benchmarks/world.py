"""A small realm to measure on: an agency, a prescriber and a pharmacy, on disk, and one without a disk's noise."""

from __future__ import annotations

import os
from pathlib import Path

from ledger import (
    Basis,
    Clock,
    Coded,
    IssuePrescription,
    Ledger,
    Link,
    NodeRole,
    Patient,
    Person,
    PersonRole,
    Product,
    RealmKind,
    SeededEntropy,
    SystemClock,
)
from ledger.events import Dispensed, encode_event
from ledger.ids import DocumentId, tagged_hash
from ledger.keystore import UnlockFile
from ledger.node import Node
from ledger.persons import GLN, LICENCE_CODE, NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise

__all__ = ["DISTRICT", "OFFICER", "PHARMACIST", "PHARMACY", "PRESCRIBER", "SmallRealm", "fill", "order"]

DISTRICT = "SE-AB-0180"
PRESCRIBER = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
PHARMACIST = Person(Coded(LICENCE_CODE, "001234"), PersonRole.PHARMACIST)
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
PHARMACY = Coded(GLN, "7350000000001")


class SmallRealm:
    """Three nodes in one directory."""

    def __init__(self, directory: Path, seed: int = 1, clock: Clock | None = None) -> None:
        self.directory = directory
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.founded: Founded = found_realm(
            directory / "realm",
            "bench",
            RealmKind.EXERCISE,
            self.unlock,
            clock=clock or SystemClock(),
            entropy=SeededEntropy(seed),
        )
        self.agency = self.founded.agency
        self.prescriber = self.enrol("prescriber", NodeRole.PRESCRIBER)
        self.pharmacy = self.enrol("pharmacy", NodeRole.PHARMACY)
        self.replicate()

    def enrol(self, name: str, role: NodeRole, district: str = DISTRICT) -> Ledger:
        """One more node."""
        return enrol(
            self.founded,
            self.directory / name,
            role=role,
            district=district,
            name=name,
            unlock=self.unlock,
            person=OFFICER,
        )

    def replicate(self) -> None:
        """Everybody learns everything."""
        for _ in range(2):
            synchronise(self.agency.exchange, self.prescriber.exchange)
            synchronise(self.prescriber.exchange, self.pharmacy.exchange)

    def close(self) -> None:
        """Close all three."""
        for ledger in (self.agency, self.prescriber, self.pharmacy):
            ledger.close()


def order(number: int, *, holder: bytes | None, fills: int = 4) -> IssuePrescription:
    """A realistic prescription; `number` makes the patient (one of the four official test numbers, or a birth date)."""
    numbers = ("189002029800", "196101182803", "199002222397", "200001252386")
    patient = Patient(
        name=f"Test Testsson {number}", birth_date=f"{1930 + number % 80}-01-01", sex="female",
        identifier=Coded(PERSONAL_NUMBER, numbers[number]) if number < len(numbers) else None,
    )  # fmt: skip
    return IssuePrescription(
        patient=patient,
        product=Product(
            pack=Coded(NPL_PACK_ID, f"20991231100{number % 1000:03}"), name="Metformin", atc="A10BA02",
            form="filmdragerad tablett", strength="500 mg", pack_quantity=100,
        ),
        dosage="1 tablett 2 gånger dagligen", fills=fills, prescriber=PRESCRIBER.code, workplace="1234567890123",
        holder=holder,  # type: ignore[arg-type]
    )  # fmt: skip


def fill(node: Node, count: int, *, of: str = "bench", district: str = DISTRICT) -> None:
    """Write dispensings in bulk, a thousand a transaction, ten a document, as a host that catches up does.

    Args:
        node: whose.
        count: how many.
        of: names the documents; another name, other documents.
        district: theirs.
    """
    month = (2026 * 12 + 10).to_bytes(2, "big")
    heads: dict[DocumentId, tuple[Link, ...]] = {}
    for start in range(0, count, 1000):
        with node.transaction():
            for number in range(start, min(start + 1000, count)):
                document = DocumentId(month + tagged_hash(of, (number // 10).to_bytes(8, "big"))[:14])
                event = Dispensed(
                    person=PHARMACIST,
                    command=os.urandom(16),
                    governance=os.urandom(8),
                    fill=1,
                    quantity=100,
                    basis=Basis.CUSTODY,
                    rests_on=os.urandom(32),
                    pharmacy=PHARMACY,
                )
                link = node.writer.append(
                    district, document, encode_event(event), heads.get(document, ()), 1
                ).link
                heads[document] = (link,)
