"""What must hold of a realm for tests: after each act, and when everything has healed (R1, R3, R4, R7, R9, R10, R17)."""

from __future__ import annotations

from ledger import Basis, Supply, Verdict
from ledger.history import state_digest
from ledger.ids import GOVERNANCE
from ledger.patients import PatientState
from ledger.reading import Reader
from tests.machine_acts_for_tests import NUMBERS, PHARMACIST, World, patient
from tests.machine_for_tests import AGENCY, AWAY, FILLS, HOME, PHARMACIES, ROUNDS_MAX, WRITERS, Site


def assert_one_holder(world: World) -> None:
    """R7: at no time do two nodes, each by what it knows, believe that they may dispense a fill on custody."""
    document = world.touched
    if document is None or document not in world.documents or world.rolled_back:
        return
    for fill in range(1, FILLS + 1):
        believers = []
        for name in PHARMACIES:
            ledger = world.sites[name].ledger
            if ledger.node.reader.state(document) is None:
                continue
            decision = ledger.assess(document, Supply(fill=fill, basis=Basis.CUSTODY))
            if decision.basis is Basis.CUSTODY and decision.verdict is not Verdict.REFUSE:
                believers.append(name)
        assert len(believers) < 2, f"fill {fill} is held by {believers}"


def assert_touched_is_right(world: World) -> None:
    """R4, R9, R10: what every site says of the prescription just acted on follows from what it holds of it.

    From the model; from the same entries read by somebody with no memory; and as others say who hold the same.
    """
    document = world.touched
    if document is None or document not in world.documents:
        return
    said: dict[tuple[object, ...], set[bytes]] = {}
    for site in world.sites.values():
        node = site.ledger.node
        world.model.check(site.ledger, document)
        state = node.reader.state(document)
        if state is None:
            continue
        fresh = Reader(node.realm, node.store, node.keyring, node._storage_key).fold_anew(document)
        assert fresh is not None
        assert state_digest(fresh.prescription) == state_digest(state.prescription), "an old state was kept"
        district = node.reader.district(document)
        assert district is not None
        if not state.unread:
            same = site.ledger.inquiry.frontier_digest([GOVERNANCE, district]), *node.keyring.epochs(district)
            said.setdefault(same, set()).add(state_digest(state.prescription))
    assert all(len(states) == 1 for states in said.values()), "the same entries and keys, another state"


def converge(world: World) -> None:
    """Heal everything and let it talk until nothing moves any more."""
    world.heal()
    names = list(world.sites)
    for _ in range(ROUNDS_MAX):
        moved = sum(world.synchronise(a, b) for n, a in enumerate(names) for b in names[n + 1 :])
        if not moved + sum(world.take_epochs(name) for name in names):
            return
    raise AssertionError(f"not in step after {ROUNDS_MAX} rounds")


def assert_all_say_the_same(world: World) -> None:
    """R4: entry sets, states, anomalies, exports and patients' folds, wherever entries and keys are the same."""
    for district in (HOME, AWAY):
        names = [GOVERNANCE, district]
        holders = [s for s in world.sites.values() if district in s.ledger.exchange.districts()]
        assert len({s.ledger.inquiry.frontier_digest(names) for s in holders}) == 1
        epochs = world.sites[AGENCY].ledger.node.keyring.epochs(district)
        readers = [s for s in holders if s.ledger.node.keyring.epochs(district) == epochs]
        assert len(readers) >= 2
        assert len({s.ledger.inquiry.state_digest(names) for s in readers}) == 1
        assert len({repr(said_of(s, district)) for s in readers}) == 1
    lists: dict[object, set[str]] = {}
    for site in world.sites.values():
        keys = [site.ledger.node.keyring.epochs(district) for district in (HOME, AWAY)]
        lists.setdefault(repr(keys), set()).add(repr(patients_of(site)))
    assert all(len(said) == 1 for said in lists.values())


def said_of(site: Site, district: str) -> list[object]:
    """Anomalies and exported documents, to the byte."""
    states = list(site.ledger.inquiry.states(district))
    anomalies = [a for _, state in states for a in state.prescription.anomalies]
    exports = [site.ledger.automerge(document).hex() for document, _ in states]
    return [anomalies, exports]


def patients_of(site: Site) -> list[PatientState]:
    """What is odd between the prescriptions of each patient."""
    inquiry = site.ledger.inquiry
    return [
        inquiry.patient(patient(number), person=PHARMACIST, purpose="test").patient
        for number in range(len(NUMBERS))
    ]


def assert_worked_out_anew(world: World) -> None:
    """R3, R4: every store verifies, and folding everything from its entries gives what it had said."""
    for site in world.sites.values():
        before = site.ledger.inquiry.state_digest()
        assert sum(1 for _ in site.ledger.inquiry.verify()) > 0
        for _ in site.ledger.inquiry.rebuild():
            pass
        assert site.ledger.inquiry.state_digest() == before
        world.assert_nothing_lost(site)


def finish(world: World) -> None:
    """Liveness: healed, all is found, by a node that comes last too, and nothing is done twice."""
    world.enrol_late()
    converge(world)
    assert_all_say_the_same(world)
    for document in world.documents:
        world.touched = document
        assert_touched_is_right(world)
    for number in range(len(world.commands)):
        if world.commands[number].site == world.sites[world.commands[number].site].node:
            world.repeat(number)
    for name in WRITERS:
        world.reopen(name)
    converge(world)
    assert_all_say_the_same(world)
    assert_worked_out_anew(world)
    world.model.assert_custody_never_over_dispenses(world.rolled_back)


def assert_nothing_in_doubt(world: World) -> None:
    """R7: nothing was over-supplied, and no custody is contested."""
    for _, state in world.sites[AGENCY].ledger.inquiry.states():
        assert state.prescription.balance.over_supply == 0
        kinds = {a.kind for a in state.prescription.anomalies}
        assert not kinds & {"double_dispensing", "over_quantity", "custody_breach", "contested_custody"}
