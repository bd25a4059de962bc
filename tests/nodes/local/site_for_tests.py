"""A small site on disk: an agency, a prescriber's and a pharmacy's node, who know each other."""

from __future__ import annotations

from pathlib import Path

from ledger import (
    Coded,
    IssuePrescription,
    Ledger,
    NodeRole,
    Patient,
    Person,
    PersonRole,
    Product,
    RealmKind,
    UnlockFile,
)
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE
from nodes.founding import enrol, found_realm
from nodes.inprocess import synchronise

DISTRICT = "SE-AB-0180"
NUMBER = "189002029800"
DOCTOR = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
PHARMACIST = Person(Coded(LICENCE_CODE, "001234"), PersonRole.PHARMACIST)
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
PATIENT = Patient(name="Tolvan Tolvansson", identifier=Coded(PERSONAL_NUMBER, NUMBER))


def order(**fields: object) -> IssuePrescription:
    stated: dict[str, object] = {
        "patient": PATIENT,
        "product": Product(pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", pack_quantity=100),
        "dosage": "1 tablett",
        "fills": 3,
        "prescriber": DOCTOR.code,
    }
    return IssuePrescription(**(stated | fields))  # type: ignore[arg-type]


class Site:
    """Directories and the secret that opens them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        founded = found_realm(directory / "realm", "Övningsriket", RealmKind.EXERCISE, self.unlock)
        with founded.agency as agency:
            made: list[Ledger] = []
            for name, role in (("clinic", NodeRole.PRESCRIBER), ("pharmacy", NodeRole.PHARMACY)):
                made.append(
                    enrol(
                        founded, self.node(name), role=role, district=DISTRICT, name=name, unlock=self.unlock,
                        person=OFFICER,
                    )
                )  # fmt: skip
            for one in made:
                synchronise(one.exchange, agency.exchange)
            for one in made:
                synchronise(one.exchange, agency.exchange)
                one.close()
        self.agency = directory / "realm" / "agency"

    def node(self, name: str) -> Path:
        return self.directory / name

    def open(self, name: str) -> Ledger:
        return Ledger.open(self.node(name), self.unlock)
