"""What the chapters of the demonstration share: who prescribes what, who asks whom, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from rich.markup import escape

from ledger import (
    Basis,
    Decision,
    IssuePrescription,
    NotPermitted,
    Receipt,
    SeededEntropy,
    Supply,
    Verdict,
)
from ledger.ids import GOVERNANCE, DocumentId
from nodes.content import CATALOGUE, prescriptions
from nodes.daemon.service import CLAIM_METHOD
from nodes.demo import Story, StoryFailed
from nodes.demo_nats_processes import until
from nodes.demo_nats_world import STOCKHOLM, UPPSALA, NatsSite, NatsWorld
from nodes.prescribing import order_of
from nodes.requests import Told

__all__ = ["WAIT_SECONDS", "Tale", "emergency", "milliseconds"]

WAIT_SECONDS = 45.0
"""For what takes seconds at most: a sign of life comes twice a minute, and then it is known who lacks what."""
LOOK_SECONDS = 0.0005
"""Between two looks where milliseconds are measured."""


class Tale:
    """One telling: its story, its world, and the prescriptions of which it tells, by label."""

    def __init__(self, story: Story, world: NatsWorld) -> None:
        self.story, self.world = story, world
        self.documents: dict[str, DocumentId] = {}
        self._today = datetime.now(UTC).date()
        self._entropy = SeededEntropy(world.seed)

    # --- acts --------------------------------------------------------------------------------------------------------

    def order(self, atc: str, **changes: object) -> IssuePrescription:
        """An order of a product of the catalogue, issued today; `changes` are fields of it."""
        item = next(item for item in CATALOGUE if item.product.atc == atc)
        order = order_of(next(prescriptions(self._entropy, self._today, catalogue=[item])))
        fields: dict[str, object] = {
            "issued": self._today.isoformat(), "valid_until": "", "interval_days": 0, **changes,
        }  # fmt: skip
        return msgspec.structs.replace(order, **fields)

    def prescribe(self, site: NatsSite, label: str, order: IssuePrescription) -> Receipt:
        """Issue it, and remember it by its label."""
        receipt = site.ledger.prescribe(order, person=site.person)
        self.documents[label] = receipt.document
        return receipt

    def dispense(self, site: NatsSite, label: str, supply: Supply, command: bytes | None = None) -> Receipt:
        """Dispense on a prescription."""
        return site.ledger.dispense(self.documents[label], supply, person=site.person, command=command)

    def refused(self, site: NatsSite, label: str, supply: Supply) -> str:
        """Have it refused; returns the reasons in words.

        Raises:
            StoryFailed: it was permitted.
        """
        try:
            self.dispense(site, label, supply)
        except NotPermitted as error:
            return self.world.names_in(error.message)
        raise StoryFailed(f"{site.name} should have been refused")

    def claim(
        self,
        site: NatsSite,
        label: str,
        fills: list[int],
        holder: NatsSite | None = None,
        wait_s: float = 10.0,
    ) -> Told:
        """Ask for fills over the network: the holder named, or the one known."""
        return site.ledger.ask(
            CLAIM_METHOD, Told, document=self.documents[label], fills=fills, command=site.ledger.node.new_command(),
            holder=b"" if holder is None else holder.node, wait_ms=int(wait_s * 1000),
        )  # fmt: skip

    def assess(self, site: NatsSite, label: str, supply: Supply, expected: Verdict) -> str:
        """What the guard says, in words; it must be `expected`."""
        decision = site.ledger.assess(self.documents[label], supply)
        self.story.check(decision.verdict is expected, f"the guard says {decision.verdict.value}")
        return self.words(decision)

    def words(self, decision: Decision) -> str:
        """A decision for the reader."""
        reasons = "; ".join(self.world.names_in(reason.message) for reason in decision.reasons)
        return f"{decision.verdict.value}, at most {decision.quantity_max} units: {reasons}"

    def show(self, lines: Iterable[str]) -> None:
        """Lines for a terminal, as they are."""
        output = self.story.output
        if not output.as_json:
            for line in lines:
                output.console.print(escape(line), soft_wrap=True)

    # --- replication ---------------------------------------------------------------------------------------------------

    def seen_after_ms(self, site: NatsSite, receipt: Receipt) -> float:
        """Milliseconds from now until an entry, just acknowledged elsewhere, is on a node's disk."""
        return 1000 * until(
            lambda: site.holds(receipt.link),
            f"{site.name} has what was just written",
            WAIT_SECONDS,
            LOOK_SECONDS,
        )

    def readers(self, district: str) -> list[NatsSite]:
        """The nodes that hold a district, relays included."""
        return [site for site in self.world.sites.values() if site.district in (district, "")]

    def is_converged(self) -> bool:
        """Whether all who hold a district hold the same of it and of governance."""
        return all(
            len({site.entries([GOVERNANCE, district]) for site in self.readers(district)}) == 1
            for district in (STOCKHOLM, UPPSALA)
        )

    def converge(self, what: str) -> float:
        """Wait until everybody holds the same; returns the seconds."""
        return until(self.is_converged, what, WAIT_SECONDS)


def emergency(fill: int = 1) -> Supply:
    """A supply beyond custody, with its reason."""
    return Supply(fill=fill, basis=Basis.EMERGENCY, reason="medicinen är slut; innehavaren nås inte")


def milliseconds(value: float) -> str:
    """As it is told."""
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
