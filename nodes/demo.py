"""`rxledger demo`: one outage, told from before it to after it, on real stores with real signatures.

Everything the story prints is read back from the ledgers; nothing is scripted but who does what when. A step whose
outcome is not the expected one fails the command.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger import (
    Basis,
    ControlledClass,
    Decision,
    IssuePrescription,
    Level,
    NotPermitted,
    Receipt,
    SeededEntropy,
    Supply,
    Verdict,
)
from ledger.ids import GOVERNANCE, DocumentId
from ledger.placement import CustodyPlan
from ledger.policy import default_policy
from nodes.cli.output import Output, hexed
from nodes.content import prescriptions
from nodes.demo_world import STOCKHOLM, UPPSALA, Site, World
from nodes.fhir import ImportedPrescription, Refusal, read_path, tally
from nodes.fhir_types import Standing
from nodes.prescribing import issue_imported, order_of

__all__ = ["run_demo"]

SODER, FYRIS = "Vårdcentral Söder", "Vårdcentral Fyris"
EKEN, BJORKEN, LINDEN, ASPEN = "Apotek Eken", "Apotek Björken", "Apotek Linden", "Apotek Aspen"


class StoryFailed(Exception):
    """A step did not end as it must; the message says which."""


class Story:
    """Tells the steps on a terminal and collects them for JSON."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.steps: list[dict[str, object]] = []

    def chapter(self, title: str) -> None:
        """A new part of the story."""
        if not self.output.as_json:
            self.output.console.rule(title)

    def tell(self, who: str, what: str, outcome: str, *, good: bool = True, **facts: object) -> None:
        """One step: who did what, and what came of it."""
        self.steps.append({"who": who, "what": what, "outcome": outcome, **facts})
        if not self.output.as_json:
            mark = "[green]✓[/green]" if good else "[yellow]![/yellow]"
            self.output.console.print(f" {mark} [bold]{who}[/bold] {what} → {outcome}")

    def check(self, holds: bool, what: str) -> None:
        """The story must not go on if this does not hold."""
        if not holds:
            raise StoryFailed(what)


def run_demo(output: Output, *, source: Path | None, directory: Path | None, seed: int) -> int:
    """Run the demonstration; 0 if every step ended as it must."""
    started = time.perf_counter()
    story = Story(output)
    with tempfile.TemporaryDirectory(prefix="rxledger-demo-") as temporary:
        world = World(directory or Path(temporary), seed)
        try:
            imported = _play(story, world, source)
        except StoryFailed as error:
            output.error("story", f"a step did not end as it must: {error}")
            return 1
        finally:
            world.close()
    seconds = time.perf_counter() - started
    output.result(
        {"steps": hexed(story.steps), "import": hexed(imported), "seconds": round(seconds, 2)},
        f"\nDone in {seconds:.1f} s. Every figure above was read from the ledgers.",
    )
    return 0


def _play(story: Story, world: World, source: Path | None) -> dict[str, object]:
    orders, imported = _orders(story, source, world)
    existing = _before(story, world, orders)
    _outage(story, world, existing)
    shared = _islands(story, world, orders, existing)
    _restored(story, world, existing)
    _healed(story, world, shared)
    return imported


def _orders(
    story: Story, source: Path | None, world: World
) -> tuple[Iterator[IssuePrescription], dict[str, object]]:
    """Orders without end: the imported ones first, then the built-in ones, so that the story can be told on any input."""
    world.replicate()
    soder = world[SODER]
    dispensable: list[IssuePrescription] = []
    results = list(read_path(source)) if source is not None else []
    if source is not None:
        story.chapter(f"Prescriptions from {source}")
        for found in results:
            if isinstance(found, ImportedPrescription):
                issue_imported(soder.ledger, found, person=soder.person, chosen_pharmacy=world[EKEN].node)
                if found.standing is Standing.DISPENSABLE:
                    dispensable.append(order_of(found))
        counted = tally(results)
        story.tell(
            SODER, f"takes in {counted.taken} of {counted.taken + counted.refused} MedicationRequests",
            f"{counted.share:.0%} issued", taken=counted.taken, refused=counted.refused,
        )  # fmt: skip
        for refusal in results:
            if isinstance(refusal, Refusal):
                story.tell("import", f"refused at {refusal.element}", refusal.reason, good=False)
        world.clock.advance(minutes=1)

    def endless() -> Iterator[IssuePrescription]:
        yield from dispensable
        for made in prescriptions(SeededEntropy(world.seed), soder.ledger.today()):
            yield order_of(made)

    refusals = [r for r in results if isinstance(r, Refusal)]
    report = {
        "taken": len(results) - len(refusals),
        "refused": [{"element": r.element, "reason": r.reason} for r in refusals],
    }
    return endless(), report


def _issue(world: World, site: Site, order: IssuePrescription, **changes: object) -> Receipt:
    fields = {
        "issued": world_day(world),
        "valid_until": "",
        "valid_from": None,
        "first_fill_before": None,
        **changes,
    }
    return site.ledger.prescribe(msgspec.structs.replace(order, **fields), person=site.person)


def world_day(world: World) -> str:
    """Today in the story."""
    return world["agency"].ledger.today().isoformat()


def _dispense(site: Site, document: DocumentId, supply: Supply) -> Receipt:
    return site.ledger.dispense(document, supply, person=site.person)


def _refused(site: Site, document: DocumentId, supply: Supply) -> NotPermitted:
    try:
        _dispense(site, document, supply)
    except NotPermitted as error:
        return error
    raise StoryFailed(f"{site.name} should have been refused")


def _before(story: Story, world: World, orders: Iterator[IssuePrescription]) -> dict[str, DocumentId]:
    story.chapter("Before: an ordinary day")
    agency = world["agency"]
    agency.ledger.stewardship.set_policy(
        default_policy("exercise"), person=agency.person, legal_basis="övning: ingen verklig patient"
    )
    world.replicate()
    soder, eken = world[SODER], world[EKEN]
    existing: dict[str, DocumentId] = {}
    for label, chosen, wanted in (
        ("ordinary", EKEN, "ordinary"), ("insulin", EKEN, "life-sustaining"), ("controlled", EKEN, "controlled"),
        ("cancelled", EKEN, "ordinary"), ("stranded", BJORKEN, "ordinary"), ("lasting", EKEN, "ordinary"),
    ):  # fmt: skip
        order = next(o for o in orders if _class_of(o) == wanted)
        receipt = _issue(
            world,
            soder,
            order,
            holder=soder.node,
            chosen_pharmacy=world[chosen].node,
            fills=max(order.fills, 3),
            interval_days=0,
        )
        existing[label] = receipt.document
        story.tell(SODER, f"prescribes {order.product.name}", "issued", prescription=receipt.document)
    moved = soder.ledger.plan_custody(CustodyPlan(days=30), person=soder.person)
    story.tell(
        SODER,
        "runs the nightly custody plan",
        f"fills of {len(moved)} prescriptions stand at the chosen pharmacies",
    )
    story.check(len(moved) == len(existing), "the plan moves every fill")
    world.replicate()
    receipt = _dispense(eken, existing["ordinary"], Supply(fill=1))
    story.tell(EKEN, "dispenses fill 1", "permitted on custody", event=receipt.link)
    world.replicate()
    return existing


def _class_of(order: IssuePrescription) -> str:
    if order.controlled is not ControlledClass.NONE:
        return "controlled"
    return order.criticality.value


def _outage(story: Story, world: World, existing: dict[str, DocumentId]) -> None:
    story.chapter("The network is gone, without warning")
    backup = world.directory / "backup.db"
    world[BJORKEN].ledger.node.store.backup(backup)
    world.cut({SODER, EKEN, BJORKEN}, {FYRIS, LINDEN, ASPEN}, {"agency"})
    world.clock.advance(days=1, hours=2)
    eken, linden = world[EKEN], world[LINDEN]
    level = linden.ledger.level(STOCKHOLM)
    story.tell(
        "every node", "has not heard the agency for 26 hours", f"level rises by itself to {level.value}"
    )
    story.check(level is Level.CRISIS, "the level rises by itself")
    receipt = _dispense(eken, existing["ordinary"], Supply(fill=2))
    story.tell(
        EKEN,
        "dispenses fill 2 of an existing prescription",
        "permitted on custody that the plan had placed",
        event=receipt.link,
    )
    decision = linden.ledger.assess(existing["ordinary"], Supply(fill=3, basis=Basis.CUSTODY))
    story.check(decision.verdict is Verdict.REFUSE, "a second pharmacy has no custody")
    error = _refused(linden, existing["ordinary"], Supply(fill=3, basis=Basis.CUSTODY))
    story.tell(LINDEN, "asks for fill 3 on custody", f"refused: {_named(world, error.message)}", good=True)


def _named(world: World, message: str) -> str:
    """Feed and node ids in a message, as names."""
    for site in world.sites.values():
        for row in site.ledger.node.store.feeds():
            message = message.replace(row.feed.hex(), world.name_of(row.author))
        message = message.replace(site.node.hex(), site.name)
    return message


def _words(decision: Decision) -> str:
    return f"{decision.verdict.value}, at most {decision.quantity_max} units: " + "; ".join(
        r.message for r in decision.reasons
    )


def _islands(
    story: Story, world: World, orders: Iterator[IssuePrescription], existing: dict[str, DocumentId]
) -> dict[str, DocumentId]:
    story.chapter("Inside the islands")
    soder, eken, bjorken, linden = world[SODER], world[EKEN], world[BJORKEN], world[LINDEN]
    order = next(o for o in orders if _class_of(o) == "ordinary")
    acute = _issue(world, soder, order, chosen_pharmacy=bjorken.node, fills=1)
    world.replicate()
    _dispense(bjorken, acute.document, Supply(fill=1))
    story.tell(BJORKEN, "dispenses a prescription issued inside the island", "permitted on custody")
    world.replicate()

    paper = _issue(
        world,
        soder,
        next(o for o in orders if _class_of(o) == "ordinary"),
        bearer=True,
        chosen_pharmacy=None,
        fills=2,
    )
    code = soder.ledger.papers.print(paper.document)
    for name in (EKEN, LINDEN):
        site = world[name]
        scanned = site.ledger.papers.scan(code)
        receipt = _dispense(site, scanned.document, Supply(fill=1, bearer_seed=scanned.seeds[1]))
        story.tell(
            name,
            f"scans the patient's paper ({len(code)} bytes) and dispenses fill 1",
            "permitted on bearer",
            event=receipt.link,
            good=name == EKEN,
        )
    story.tell(
        "", "the copies of that paper were spent in two islands", "to be found when they meet", good=False
    )

    emergency = Supply(fill=1, basis=Basis.EMERGENCY, reason="insulinet är slut; innehavaren nås inte")
    decision = linden.ledger.assess(existing["insulin"], emergency)
    story.check(
        decision.verdict is Verdict.PERMIT_WITH_RISK, "a life-sustaining medicine is permitted with risk"
    )
    _dispense(linden, existing["insulin"], emergency)
    story.tell(
        LINDEN, "emergency supply of a life-sustaining medicine", _named(world, _words(decision)), good=False
    )
    _dispense(eken, existing["insulin"], Supply(fill=1))
    story.tell(
        EKEN, "dispenses the same fill on its custody", "permitted: nothing here tells of the other supply"
    )
    error = _refused(
        linden, existing["controlled"], Supply(fill=1, basis=Basis.EMERGENCY, reason="patienten ber")
    )
    story.tell(
        LINDEN, "emergency supply of a controlled substance", f"refused: {_named(world, error.message)}"
    )

    soder.ledger.cancel(existing["cancelled"], person=soder.person, reason=3, comment="utsatt")
    story.tell(SODER, "cancels a prescription", "written; the other island cannot know")
    supply = Supply(fill=1, basis=Basis.EMERGENCY, reason="medicinen är slut; innehavaren nås inte")
    decision = linden.ledger.assess(existing["cancelled"], supply)
    _dispense(linden, existing["cancelled"], supply)
    story.tell(LINDEN, "supplies on it meanwhile", _named(world, _words(decision)), good=False)
    return {**existing, "acute": acute.document, "paper": paper.document}


def _restored(story: Story, world: World, existing: dict[str, DocumentId]) -> None:
    story.chapter("A broken disk")
    bjorken = world[BJORKEN]
    before = bjorken.ledger.node.writer.incarnation
    world.restore(BJORKEN, world.directory / "backup.db")
    after = bjorken.ledger.node.writer.incarnation
    story.tell(
        BJORKEN, "is restored from yesterday's backup", f"goes on in incarnation {after} (was {before})"
    )
    story.check(after == before + 1, "a restored store is a new incarnation")
    error = _refused(bjorken, existing["stranded"], Supply(fill=1, basis=Basis.CUSTODY))
    story.tell(
        BJORKEN,
        "asks for a fill that its former incarnation held",
        f"refused: {_named(world, error.message)}",
    )
    world.replicate()
    supply = Supply(fill=1, basis=Basis.EMERGENCY, reason="innehavarens dator är förlorad")
    decision = bjorken.ledger.assess(existing["stranded"], supply)
    _dispense(bjorken, existing["stranded"], supply)
    story.tell(BJORKEN, "supplies it beyond custody", _named(world, _words(decision)), good=False)


def _healed(story: Story, world: World, shared: dict[str, DocumentId]) -> None:
    story.chapter("The links are back")
    world.heal()
    moved = world.replicate(rounds=6)
    story.tell("all nodes", "replicate", f"{moved} entries moved")
    rows = []
    for district in (STOCKHOLM, UPPSALA):
        readers = [s for s in world.sites.values() if s.district == district or s.name == "agency"]
        digests = {s.name: s.ledger.inquiry.state_digest([GOVERNANCE, district]) for s in readers}
        rows += [(district, name, digest.hex()[:16]) for name, digest in digests.items()]
        story.check(len(set(digests.values())) == 1, f"state digests of {district} are equal")
        entries = {s.name: s.ledger.inquiry.frontier_digest([GOVERNANCE, district]) for s in readers}
        story.check(len(set(entries.values())) == 1, f"the entry sets of {district} are equal")
    story.output.table("State digests: equal within each district", ("district", "node", "digest"), rows)
    story.steps.append({"digests": rows})

    stockholm = [s for s in world.sites.values() if s.district == STOCKHOLM or s.name == "agency"]
    found = {s.name: [(a.document, a.id, a.kind, a.detail) for a in s.ledger.anomalies()] for s in stockholm}
    first = found["agency"]
    story.check(
        all(sorted(f) == sorted(first) for f in found.values()), "the anomalies are the same on every node"
    )
    kinds = {kind for _, _, kind, _ in first}
    story.check({"double_dispensing", "supplied_after_cancellation"} <= kinds, "both are found")
    labels = {document: label for label, document in shared.items()}
    story.output.table(
        f"Anomalies: the same on all {len(stockholm)} nodes that hold the district",
        ("prescription", "kind", "detail"),
        [(labels.get(document, document.hex()[:12]), kind, detail) for document, _, kind, detail in first],
    )
    story.steps.append(
        {"anomalies": [{"prescription": d.hex(), "id": i.hex(), "kind": k} for d, i, k, _ in first]}
    )
    balances = []
    for document, state in world["agency"].ledger.inquiry.states():
        b = state.prescription.balance
        story.check(b.authorised == b.dispensed + b.remaining + b.forfeited, "every prescription balances")
        balances.append(
            (
                labels.get(document, document.hex()[:12]),
                b.authorised,
                b.dispensed,
                b.remaining,
                b.forfeited,
                b.over_supply,
            )
        )
    story.output.table(
        "Balance: authorised = dispensed + remaining + forfeited; over-supply stands apart",
        ("prescription", "authorised", "dispensed", "remaining", "forfeited", "over-supply"),
        balances,
    )
    story.steps.append({"balances": balances})
