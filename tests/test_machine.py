"""R1, R4, R7, R9, R10, R17 on whole realms of real stores, under schedules that Hypothesis makes up.

Two machines. In the honest one no disk is rolled back and nothing goes beyond custody: nothing may ever be over-supplied.
In the other one everything happens: papers and emergencies, old images beside new ones, restored backups, revocations.
After each step what was touched is compared with an independent model; at the end all links heal, and every node that
holds the same entries and keys must say the same, to the byte, also when it works everything out anew.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger import Basis, Supply, Verdict
from ledger.ids import GOVERNANCE
from tests.machine_acts_for_tests import World
from tests.machine_for_tests import (
    AGENCY,
    AWAY,
    FILLS,
    HOME,
    NAMES,
    PHARMACIES,
    PRESCRIBER,
    ROUNDS_MAX,
    WRITERS,
    Site,
    Template,
)

STEPS = 40
"""Acts in one example: enough for an island to form, work, fork and heal."""

numbers = st.integers(0, 31)
pharmacies = st.sampled_from(PHARMACIES)
sites = st.sampled_from(NAMES)
writers = st.sampled_from(WRITERS)
quantities = st.sampled_from((10, 3, 7))
restorable = st.sampled_from((*PHARMACIES, PRESCRIBER))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    silence()
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    silence()


def silence() -> None:
    """The logs of a million events say nothing here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


# --- what must hold ---------------------------------------------------------------------------------------------------


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
    """R9, R10: what every site says of the prescription just acted on follows from what it holds of it."""
    if world.touched in world.documents and world.touched is not None:
        for site in world.sites.values():
            world.model.check(site.ledger, world.touched)


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


def said_of(site: Site, district: str) -> list[object]:
    """Anomalies, exported documents and patients' folds."""
    inquiry = site.ledger.inquiry
    states = list(inquiry.states(district))
    anomalies = [a for _, state in states for a in state.prescription.anomalies]
    exports = [site.ledger.automerge(document).hex() for document, _ in states]
    return [anomalies, exports]


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


# --- the machines ------------------------------------------------------------------------------------------------------


class HonestMachine(RuleBasedStateMachine):
    """Custody alone, honest nodes, any network."""

    template: Template
    tally: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.world = World(self.template, self.directory)

    def teardown(self) -> None:
        try:
            finish(self.world)
            self.at_the_end()
        finally:
            self.tally.update(self.world.tally)
            self.world.close()
            shutil.rmtree(self.directory)

    def at_the_end(self) -> None:
        assert_nothing_in_doubt(self.world)

    @invariant()
    def what_was_touched_is_right(self) -> None:
        assert_touched_is_right(self.world)
        assert_one_holder(self.world)
        self.world.model.assert_custody_never_over_dispenses(self.world.rolled_back)
        self.world.touched = None

    @initialize(first=numbers, second=numbers)
    def an_ordinary_day(self, first: int, second: int) -> None:
        """Two prescriptions stand at pharmacies that know of them."""
        for number in (first, second):
            self.world.prescribe(number, number % len(PHARMACIES), number)
        for name in NAMES:
            self.world.synchronise(PRESCRIBER, name)

    # Custody.

    @rule(district=numbers, holder=numbers, kind=numbers)
    def prescribe(self, district: int, holder: int, kind: int) -> None:
        self.world.prescribe(district, holder, kind)

    @rule(site=pharmacies, document=numbers, fill=numbers, quantity=quantities)
    def dispense(self, site: str, document: int, fill: int, quantity: int) -> None:
        self.world.supply(site, document, fill, quantity, Basis.CUSTODY)

    @rule(site=pharmacies, holder=writers, document=numbers, fill=numbers, answered=st.booleans())
    def claim(self, site: str, holder: str, document: int, fill: int, answered: bool) -> None:
        self.world.claim(site, holder, document, fill, answered=answered)

    @rule(site=writers, document=numbers, fill=numbers, to=pharmacies)
    def transfer(self, site: str, document: int, fill: int, to: str) -> None:
        self.world.transfer(site, document, fill, to)

    @rule(site=writers)
    def plan(self, site: str) -> None:
        self.world.plan(site)

    @rule(site=pharmacies, number=numbers)
    def reverse(self, site: str, number: int) -> None:
        self.world.reverse(site, number)

    @rule(site=pharmacies, number=numbers, quantity=st.sampled_from((1, 3)))
    def correct_downwards(self, site: str, number: int, quantity: int) -> None:
        self.world.correct(site, number, quantity)

    @rule(site=st.sampled_from(("north", "south", "west", PRESCRIBER)), to=pharmacies)
    def delegate(self, site: str, to: str) -> None:
        if site != to:
            self.world.delegate(site, to)

    @rule(number=numbers)
    def end_delegation(self, number: int) -> None:
        self.world.end_delegation(number)

    @rule(site=pharmacies, successor=pharmacies)
    def close_feed(self, site: str, successor: str) -> None:
        self.world.close_feed(site, successor)

    # Care. One rule for many acts makes each of them rarer: what moves fills and entries is worth more.

    @rule(
        what=st.sampled_from(("amend", "hold", "resume", "resume", "cancel")), site=writers, document=numbers
    )
    def care(self, what: str, site: str, document: int) -> None:
        if what == "amend":
            self.world.amend(document, document % 4)
        elif what == "hold":
            self.world.hold(site, document)
        else:
            officer = site if site in {AGENCY, PRESCRIBER} else PRESCRIBER
            (self.world.resume if what == "resume" else self.world.cancel)(officer, document)

    # Network, bundles, disks, time.

    @rule(mask=st.integers(0, 63))
    def partition(self, mask: int) -> None:
        """Two islands; no mask: healed."""
        if mask:
            self.world.partition(mask)
        else:
            self.world.heal()

    @rule(one=sites, other=sites)
    def synchronise(self, one: str, other: str) -> None:
        self.world.synchronise(one, other)

    @rule(one=sites, other=sites, seed=st.integers(0, 255))
    def synchronise_badly(self, one: str, other: str, seed: int) -> None:
        self.world.synchronise(one, other, bad=seed)

    @rule(one=sites, other=sites, number=numbers, mask=st.integers(0, 65535), ahead=st.booleans())
    def partly(self, one: str, other: str, number: int, mask: int, ahead: bool) -> None:
        if ahead:
            self.world.urgent(one, other, number)
        else:
            self.world.some_runs(one, other, mask, number)

    @rule(one=sites, other=sites, how=numbers, number=numbers)
    def carry(self, one: str, other: str, how: int, number: int) -> None:
        """A bundle is written, and some bundle taken in; not always the same."""
        self.world.export(one, other, how)
        self.world.take_bundle(other, number if how % 2 else -1)

    @rule(site=sites, number=numbers)
    def machine(self, site: str, number: int) -> None:
        """A computer is started again, or its clock jumps."""
        if number % 2:
            self.world.reopen(site)
        else:
            self.world.jump(site, number // 2)

    @rule(number=numbers)
    def repeat(self, number: int) -> None:
        self.world.repeat(number)

    @rule(site=sites, number=numbers)
    def keys(self, site: str, number: int) -> None:
        if number % 4:
            self.world.take_epochs(site)
        else:
            self.world.start_epoch(number // 4)


class EverythingMachine(HonestMachine):
    """Beyond custody, and with disks that are lost, restored and rolled back."""

    def at_the_end(self) -> None:
        """The model has compared every balance and every anomaly already."""

    @rule(district=numbers, kind=numbers)
    def prescribe_on_paper(self, district: int, kind: int) -> None:
        self.world.prescribe(district, 0, kind, bearer=True)

    @rule(site=pharmacies, paper=numbers, fill=numbers, quantity=quantities)
    def spend_paper(self, site: str, paper: int, fill: int, quantity: int) -> None:
        self.world.spend_paper(site, paper, fill, quantity)

    @rule(site=writers, document=numbers, fill=numbers)
    def transfer_to_bearer(self, site: str, document: int, fill: int) -> None:
        self.world.transfer(site, document, fill, "", bearer=True)

    @rule(who=numbers, holder=numbers)
    def register_paper(self, who: int, holder: int) -> None:
        self.world.register_paper(who, holder)

    @rule(site=pharmacies, document=numbers, fill=numbers, quantity=quantities)
    def emergency(self, site: str, document: int, fill: int, quantity: int) -> None:
        self.world.supply(site, document, fill, quantity, Basis.EMERGENCY)

    @rule(site=pharmacies, number=numbers, quantity=st.sampled_from((5, 14)))
    def correct(self, site: str, number: int, quantity: int) -> None:
        self.world.correct(site, number, quantity)

    @rule(document=numbers, fill=numbers)
    def recover(self, document: int, fill: int) -> None:
        self.world.recover(document, fill)

    @rule(level=numbers)
    def declare(self, level: int) -> None:
        self.world.declare(level)

    @rule(site=pharmacies)
    def revoke(self, site: str) -> None:
        self.world.revoke(site)

    @rule(site=restorable)
    def back_up(self, site: str) -> None:
        self.world.back_up(site)

    @rule(site=restorable)
    def restore(self, site: str) -> None:
        self.world.restore(site)

    @rule(site=restorable)
    def take_image(self, site: str) -> None:
        self.world.take_image(site)

    @rule(site=restorable)
    def run_image(self, site: str) -> None:
        self.world.run_image(site)

    @rule(site=restorable, to=sites)
    def old_image_talks(self, site: str, to: str) -> None:
        if f"old {site}" in self.world.sites:
            self.world.synchronise(f"old {site}", to)

    @rule(site=pharmacies, document=numbers, fill=numbers, quantity=quantities, basis=st.sampled_from(Basis))
    def old_image_supplies(self, site: str, document: int, fill: int, quantity: int, basis: Basis) -> None:
        if f"old {site}" in self.world.sites and basis is not Basis.BEARER:
            self.world.supply(f"old {site}", document, fill, quantity, basis)

    @rule(site=pharmacies, document=numbers, fill=numbers, to=pharmacies)
    def old_image_transfers(self, site: str, document: int, fill: int, to: str) -> None:
        if f"old {site}" in self.world.sites:
            self.world.transfer(f"old {site}", document, fill, to)


def run(machine: type[HonestMachine], template: Template, share: float) -> Counter[str]:
    """Run a machine with a share of the profile's examples; returns how often each thing was done."""
    machine.template, machine.tally = template, Counter()
    examples = max(1, round(settings.default.max_examples * share))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=STEPS))
    return machine.tally


def test_custody_alone_never_over_dispenses_whatever_the_network_does(template: Template) -> None:
    tally = run(HonestMachine, template, 1)
    print(dict(tally))
    never = {"supply", "transfer", "delegate", "repeat", "import", "urgent", "reopen"} - tally.keys()
    assert not never, f"never done: {never}"


def test_every_excess_is_found_and_every_node_says_the_same_whatever_happens(template: Template) -> None:
    tally = run(EverythingMachine, template, 1)
    print(dict(tally))
    never = {"supply", "run image", "restore", "revoke", "repeat", "import", "recover"} - tally.keys()
    assert not never, f"never done: {never}"
