"""What one stolen, unlocked node exposes: the number that docs/threat-model.md states (R12)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

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
    SeededEntropy,
    SystemClock,
)
from ledger.events import PrescriptionIssued
from ledger.ids import GOVERNANCE
from ledger.keystore import UnlockFile
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PRESCRIBER_CODE
from nodes.bundle import export_bundle, import_bundle
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise

HOME, NEXT, FAR = "SE-AB-0180-07", "SE-AB-0180-08", "SE-C-0380"
PATIENTS = {HOME: 5, NEXT: 4, FAR: 3}
OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
PRESCRIBER = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)


def order(name: str, day: int) -> IssuePrescription:
    return IssuePrescription(
        patient=Patient(name=name, birth_date=f"1950-01-{day:02}", sex="female"),
        product=Product(
            pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", atc="A10BA02", pack_quantity=100
        ),
        dosage="1 tablett 2 gånger dagligen",
        fills=2,
        prescriber=PRESCRIBER.code,
    )


class Country:
    """An agency, a relay, and in each district a prescriber and a pharmacy; every node holds every entry."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.unlock = directory, UnlockFile(directory / "unlock" / "secret")
        self.founded: Founded = found_realm(
            directory / "realm",
            "exercise",
            RealmKind.EXERCISE,
            self.unlock,
            clock=SystemClock(),
            entropy=SeededEntropy(7),
        )
        self.ledgers: dict[tuple[str, NodeRole], Ledger] = {("", NodeRole.AGENCY): self.founded.agency}
        for district in PATIENTS:
            for role in (NodeRole.PRESCRIBER, NodeRole.PHARMACY):
                self.enrol(role, district)
        self.enrol(NodeRole.RELAY, HOME)
        for district, count in PATIENTS.items():
            prescriber = self.ledgers[district, NodeRole.PRESCRIBER]
            for number in range(count):
                for _ in range(2):  # Two prescriptions each: persons are counted, not prescriptions.
                    prescriber.prescribe(order(f"{district} patient {number}", number + 1), person=PRESCRIBER)
        for _ in range(2):
            for ledger in self.ledgers.values():
                synchronise(ledger.exchange, self.founded.agency.exchange)
        self.carry_everything_everywhere()

    def carry_everything_everywhere(self) -> None:
        """The worst case: a bundle of the whole country was read in at every node, as a carrier on foot would do."""
        bundle, node = io.BytesIO(), self.founded.agency.node
        export_bundle(
            self.founded.agency.exchange,
            node.keys.signing,
            node.identity.certificates,
            bundle,
            now_ms=node.now_ms(),
        )
        for ledger in self.ledgers.values():
            bundle.seek(0)
            import_bundle(ledger.exchange, bundle)

    def enrol(self, role: NodeRole, district: str) -> None:
        name = f"{role.value} {district}"
        self.ledgers[district, role] = enrol(
            self.founded,
            self.directory / name.replace(" ", "-"),
            role=role,
            district=district,
            name=name,
            unlock=self.unlock,
            person=OFFICER,
        )

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()


def persons_exposed(ledger: Ledger) -> tuple[set[str], int]:
    """What a thief gets who has the running process: names in all content that opens, and how much is held shut."""
    names: set[str] = set()
    shut = 0
    for document in ledger.node.store.documents():
        for opened in ledger.node.reader.opened(document):
            if opened.fact is None:
                shut += 1
            elif isinstance(opened.fact.event, PrescriptionIssued):
                names.add(opened.fact.event.patient.name)
    return names, shut


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory):
    made = Country(tmp_path_factory.mktemp("country"))
    yield made
    made.close()


@pytest.mark.parametrize("role", [NodeRole.PHARMACY, NodeRole.PRESCRIBER])
@pytest.mark.parametrize("district", list(PATIENTS))
def test_a_stolen_node_exposes_its_districts_persons_and_nobody_else(
    country: Country, district: str, role: NodeRole
) -> None:
    names, shut = persons_exposed(country.ledgers[district, role])
    assert names == {f"{district} patient {number}" for number in range(PATIENTS[district])}
    # It holds the others' entries: what it lacks is the keys, not the bytes.
    assert shut >= 2 * (sum(PATIENTS.values()) - PATIENTS[district])


def test_a_stolen_relay_exposes_nobody(country: Country) -> None:
    names, shut = persons_exposed(country.ledgers[HOME, NodeRole.RELAY])
    assert not names
    assert shut >= 2 * sum(PATIENTS.values())


def test_a_node_holds_the_keys_of_its_home_district_only(country: Country) -> None:
    for (district, role), ledger in country.ledgers.items():
        expected = (
            [] if role is NodeRole.RELAY else sorted(PATIENTS) if role is NodeRole.AGENCY else [district]
        )
        assert ledger.node.keyring.districts() == expected
        assert GOVERNANCE not in ledger.node.keyring.districts()
