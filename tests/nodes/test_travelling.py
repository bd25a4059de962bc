"""Paper, bundles and links together, on real nodes: the patient is the replication link (section 6 of the design)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import (
    Basis,
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
)
from ledger.certificates import issue_node
from ledger.commands import Supply
from ledger.errors import NotAuthentic, OtherRealm
from ledger.ids import GOVERNANCE, DocumentId
from ledger.keystore import UnlockFile
from ledger.paper import Paper, decode_paper, encode_paper, from_text, to_text
from ledger.persons import LICENCE_CODE, NPL_PACK_ID, PRESCRIBER_CODE
from nodes.bundle import export_bundle, import_bundle
from nodes.demo_world import DemoClock
from nodes.founding import Founded, enrol, found_realm
from nodes.inprocess import synchronise
from nodes.messages import Digest, InStep, decode_message
from tests.ledger.realm_for_tests import NOW_MS, STOCKHOLM, UPPSALA
from tests.nodes.replica_for_tests import Author

OFFICER = Person(Coded(LICENCE_CODE, "009999"), PersonRole.OFFICER)
PRESCRIBER = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
PHARMACIST = Person(Coded(LICENCE_CODE, "300001"), PersonRole.PHARMACIST)
NAME = "Testina Provsson"
FAR = "far"
ROLES = {
    "prescriber": NodeRole.PRESCRIBER,
    "eken": NodeRole.PHARMACY,
    "linden": NodeRole.PHARMACY,
    FAR: NodeRole.PHARMACY,
}


class Realm:
    """A prescriber and three pharmacies, one of another district; none of them has ever met another."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        clock = DemoClock(NOW_MS)
        self.founded: Founded = found_realm(
            directory / "realm", "exercise", RealmKind.EXERCISE, self.unlock, clock=clock, entropy=SeededEntropy(seed)
        )  # fmt: skip
        self.nodes: dict[str, Ledger] = {
            name: enrol(
                self.founded, directory / name, role=role, district=UPPSALA if name == FAR else STOCKHOLM, name=name,
                unlock=self.unlock, person=OFFICER,
            )
            for name, role in ROLES.items()
        }  # fmt: skip

    def __getitem__(self, name: str) -> Ledger:
        return self.nodes[name]

    def printed(self, fills: int = 4) -> bytes:
        """The code of a fresh bearer prescription."""
        receipt = self["prescriber"].prescribe(
            IssuePrescription(
                patient=Patient(name=NAME, birth_date="1950-01-01", sex="female"),
                product=Product(
                    pack=Coded(NPL_PACK_ID, "20991231100001"), name="Metformin", atc="A10BA02", pack_quantity=100
                ),
                dosage="1 tablett 2 gånger dagligen", fills=fills, prescriber=PRESCRIBER.code, bearer=True,
            ),
            person=PRESCRIBER,
        )  # fmt: skip
        return self["prescriber"].papers.print(receipt.document)

    def close(self) -> None:
        for ledger in (*self.nodes.values(), self.founded.agency):
            ledger.close()


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[Realm]:
    made = Realm(tmp_path, 5)
    yield made
    made.close()


def supplied(ledger: Ledger, code: bytes, fill: int = 1) -> bytes:
    """Scan and supply one fill; returns the slip."""
    scanned = ledger.papers.scan(code)
    receipt = ledger.dispense(
        scanned.document, Supply(fill=fill, bearer_seed=scanned.seeds[fill]), person=PHARMACIST
    )
    return ledger.papers.slip(scanned.document, receipt.link)


def patient_of(ledger: Ledger, document: DocumentId) -> str:
    issued = ledger.show(document).prescription.issued
    return issued.patient.name if issued else ""


def carried(source: Ledger, into: Ledger) -> None:
    """By bundle, twice."""
    file = io.BytesIO()
    node = source.node
    export_bundle(source.exchange, node.keys.signing, node.identity.certificates, file, now_ms=NOW_MS)
    for _ in range(2):
        file.seek(0)
        assert import_bundle(into.exchange, file, realm=node.realm).complete


@pytest.mark.parametrize("where", ["eken", FAR])
def test_a_pharmacy_that_never_met_anybody_reads_the_paper_and_dispenses(realm: Realm, where: str) -> None:
    code = to_text(realm.printed())
    ledger = realm[where]
    scanned = ledger.papers.scan(from_text(code))
    assert patient_of(ledger, scanned.document) == NAME
    decision = ledger.assess(scanned.document, Supply(fill=1, bearer_seed=scanned.seeds[1]))
    assert decision.basis is Basis.BEARER
    supplied(ledger, from_text(code))


def test_twelve_fills_fit_one_code(realm: Realm) -> None:
    assert len(to_text(realm.printed(fills=12))) <= 4296


def test_nothing_of_the_patient_stands_outside_the_seal(realm: Realm) -> None:
    paper = decode_paper(realm.printed())
    for part in (paper.opening.body, paper.entry.sealed or b"", repr(paper).encode()):
        assert NAME.encode() not in part
        assert b"1950" not in part


def test_the_slip_shows_another_pharmacy_which_fill_is_used(realm: Realm) -> None:
    code = realm.printed()
    slip = supplied(realm["eken"], code)
    linden = realm["linden"]
    document = linden.papers.scan(code).document
    linden.papers.scan(slip)
    assert [f.number for f in linden.show(document).prescription.fills if f.dispensed] == [1]


def test_scanning_twice_or_the_slip_before_the_paper_makes_no_difference(realm: Realm) -> None:
    code = realm.printed()
    slip = supplied(realm["eken"], code)
    linden = realm["linden"]
    for each in (slip, code, slip, code):
        document = linden.papers.scan(each).document
    assert linden.inquiry.state_digest([STOCKHOLM]) == realm["eken"].inquiry.state_digest([STOCKHOLM])
    assert [f.number for f in linden.show(document).prescription.fills if f.dispensed] == [1]


@pytest.mark.parametrize("way", ["link", "bundle"])
def test_what_came_by_paper_reaches_neighbours_who_cannot_meet_the_prescriber(realm: Realm, way: str) -> None:
    eken, linden = realm["eken"], realm["linden"]
    supplied(eken, realm.printed())
    if way == "link":
        synchronise(eken.exchange, linden.exchange)
    else:
        carried(eken, linden)
        carried(linden, eken)
    assert linden.inquiry.frontier_digest([STOCKHOLM]) == eken.inquiry.frontier_digest([STOCKHOLM])
    assert linden.inquiry.state_digest([STOCKHOLM]) == eken.inquiry.state_digest([STOCKHOLM])
    assert synchronise(eken.exchange, linden.exchange) == 0


def test_copies_spent_in_two_islands_are_found_when_they_meet(realm: Realm) -> None:
    code = realm.printed()
    for name in ("eken", "linden"):
        supplied(realm[name], code)
    synchronise(realm["eken"].exchange, realm["linden"].exchange)
    document = realm["eken"].papers.scan(code).document
    found = [{a.id for a in realm[n].show(document).prescription.anomalies} for n in ("eken", "linden")]
    assert found[0] == found[1] != set()


def test_a_paper_of_another_realm_is_refused(realm: Realm, tmp_path: Path) -> None:
    other = Realm(tmp_path / "other", 6)
    with pytest.raises(OtherRealm):
        realm["eken"].papers.scan(other.printed())
    other.close()


def test_a_paper_whose_entry_was_changed_is_refused(realm: Realm) -> None:
    paper = decode_paper(realm.printed())
    forged = Paper(paper.opening, b"p" * 32, paper.entry, paper.document_key, paper.seeds, paper.carried)
    with pytest.raises(NotAuthentic):
        realm["eken"].papers.scan(encode_paper(forged))
    assert not realm["eken"].exchange.detached_links(STOCKHOLM)


@pytest.mark.parametrize("where", ["eken", FAR])
def test_a_paper_with_a_false_key_is_refused_and_the_true_one_stays_readable(
    realm: Realm, where: str
) -> None:
    true = realm.printed()
    paper = decode_paper(true)
    false = encode_paper(
        Paper(paper.opening, paper.previous, paper.entry, b"k" * 32, paper.seeds, paper.carried)
    )
    ledger = realm[where]
    for each in (false, true, false):
        if each is true:
            document = ledger.papers.scan(each).document
        else:
            with pytest.raises(NotAuthentic):
                ledger.papers.scan(each)
    assert patient_of(ledger, document) == NAME
    supplied(ledger, true)


@pytest.mark.parametrize(
    ("entries", "size", "every"),
    [(12, 9000, 1), (12, 9000, 12), (580, 128, 580), (170, 580, 170), (300, 300, 7)],
)
def test_the_longest_runs_that_are_taken_in_can_be_passed_on(
    realm: Realm, entries: int, size: int, every: int
) -> None:
    issuer, entropy = realm.founded.issuer, SeededEntropy(9)
    author = Author.certified(
        realm.founded.agency.node.realm.id,
        entropy,
        lambda keys: issue_node(
            issuer.key, issuer.certificates, keys.public_key, keys.wrapping_key, NodeRole.PHARMACY, STOCKHOLM,
            "Apoteket Lång", NOW_MS, entropy=entropy,
        ),
    )  # fmt: skip
    eken, linden = realm["eken"], realm["linden"]
    eken.exchange.import_openings([author.signed])
    end = None
    for _ in range(3):
        run = author.chain(entries, end, every=every, size=size, entropy=entropy)
        assert eken.exchange.import_runs([run]).new == entries
        end = author.end(run)
    synchronise(eken.exchange, linden.exchange)
    assert linden.exchange.frontier(STOCKHOLM)[author.feed] == (end,)
    carried(linden, realm[FAR])
    assert realm[FAR].exchange.frontier(STOCKHOLM)[author.feed] == (end,)


def test_nodes_of_two_districts_agree_on_governance_and_stop(realm: Realm) -> None:
    eken, far = realm["eken"].exchange, realm[FAR].exchange
    for each in (eken, far):
        synchronise(each, realm.founded.agency.exchange)
    assert eken.frontier(GOVERNANCE) == far.frontier(GOVERNANCE)
    seen: list[bytes] = []

    def link(message: bytes) -> list[bytes]:
        seen.append(message)
        return [message]

    synchronise(eken, far, link=link)
    assert [type(decode_message(message)) for message in seen] == [Digest, Digest, InStep, InStep]
