"""The guard: may this be supplied now, on what ground, with what risk? A pure function (R7, R8, R11).

`(state, request, policy, level, horizon, now) → Decision`. Custody and bearer fills are permitted plainly; where
neither covers a fill, policy may permit an emergency supply with risk, capped by class and level, with a reason.
Every decision says what it rests on and how old that is. Refusals say who holds the fill.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import StrEnum

from msgspec import Struct

from ledger.events import Basis, Level, PrescriptionIssued
from ledger.history import FillState, FillStatus, Prescription, Status, view
from ledger.ids import FeedId, Link, NodeId
from ledger.policy import HOUR_MS, LEVELS, EmergencyRule, MedicineClass, Policy

__all__ = ["Decision", "Horizon", "Reason", "SupplyRequest", "Unheard", "Verdict", "decide"]


class Verdict(StrEnum):
    """The answer."""

    PERMIT = "permit"
    PERMIT_WITH_RISK = "permit-with-risk"
    REFUSE = "refuse"


class Reason(Struct, frozen=True):
    """Why: a stable code, and words that name no patient."""

    code: str
    message: str


class Unheard(Struct, frozen=True):
    """A node that writes in the district, and when it was last heard (ms; 0 never)."""

    node: NodeId
    heard_ms: int


class Horizon(Struct, frozen=True, kw_only=True):
    """How far knowledge reaches."""

    unheard: tuple[Unheard, ...] = ()
    """Other nodes of the district, longest silent first."""
    unread: int = 0
    """Entries of the prescription that are held but whose key is not."""
    data_as_of_ms: int = 0


class SupplyRequest(Struct, frozen=True, kw_only=True):
    """What is asked for."""

    fill: int
    quantity: int | None = None
    basis: Basis | None = None
    reason: str = ""
    bearer_public_key: bytes | None = None
    own_feed: FeedId


class Decision(Struct, frozen=True, kw_only=True):
    """The guard's answer."""

    verdict: Verdict
    basis: Basis | None
    fill: int
    rests_on: Link | None
    quantity_max: int
    reasons: tuple[Reason, ...]
    horizon: Horizon


class _Guard:
    def __init__(
        self, p: Prescription, request: SupplyRequest, policy: Policy, legal_basis: str, *, production: bool,
        level: Level, horizon: Horizon, now_ms: int,
    ) -> None:  # fmt: skip
        self.p, self.request, self.policy, self.level = p, request, policy, level
        self.unlawful = production and not legal_basis
        self.horizon, self.now_ms = horizon, now_ms
        self.refusals: list[Reason] = []
        self.risks: list[Reason] = []

    def refuse(self, code: str, message: str) -> None:
        self.refusals.append(Reason(code, message))

    def risk(self, code: str, message: str) -> None:
        self.risks.append(Reason(code, message))

    def decide(self) -> Decision:
        issued = self.p.issued
        fill = next((f for f in self.p.fills if f.number == self.request.fill), None)
        if issued is None:
            self.refuse("unknown-prescription", "the prescription is not held here, or cannot be read")
            return self.answer(None, None, 0)
        if fill is None:
            self.refuse("no-such-fill", f"the prescription has {issued.fills} fills")
            return self.answer(None, None, 0)
        self.general(issued)
        self.knowledge()
        basis = self.basis(fill)
        if basis is Basis.CUSTODY or basis is Basis.BEARER:
            self.quantity(fill.remaining)
            return self.answer(basis, fill.rests_on, fill.remaining)
        return self.emergency(issued, fill)

    def general(self, issued: PrescriptionIssued) -> None:
        if self.p.status is Status.ON_HOLD:
            self.refuse("on-hold", "the prescription is on hold")
        if self.p.status in (Status.CANCELLED, Status.STOPPED):
            self.refuse("cancelled", "the prescription is cancelled")
        seen = view(self.p, self.now_ms)
        if seen.expired:
            self.refuse("expired", f"the prescription was valid until {issued.valid_until}")
        if seen.not_yet_valid:
            self.refuse(
                "not-yet-valid", f"the prescription is valid from {issued.valid_from or issued.issued}"
            )
        if seen.first_fill_missed:
            self.refuse("first-fill-missed", f"the first fill was due before {issued.first_fill_before}")
        if seen.next_fill_day:
            allowed = date.fromisoformat(seen.next_fill_day) - timedelta(days=self.policy.early_refill_days)
            if date.fromisoformat(seen.today) < allowed:
                self.risk("early-refill", f"the interval allows the next fill on {seen.next_fill_day}")

    def knowledge(self) -> None:
        if self.horizon.unread:
            self.risk("unread", f"{self.horizon.unread} entries of it are held but cannot be read here")
        if self.p.not_understood:
            self.risk("not-understood", f"{len(self.p.not_understood)} entries of it are of a newer version")
        if self.p.missing:
            self.risk("missing", f"{len(self.p.missing)} entries that it builds on are not held")

    def basis(self, fill: FillState) -> Basis:
        """The strongest ground there is, or the one asked for; notes why a stronger one is not there."""
        wanted = self.request.basis
        if fill.status is FillStatus.DISPENSED:
            self.refuse("already-dispensed", f"fill {fill.number} has been dispensed")
        elif fill.status is FillStatus.FORFEITED:
            self.refuse("forfeited", f"fill {fill.number} is forfeited")
        elif wanted in (None, Basis.CUSTODY) and fill.holder and fill.holder == self.request.own_feed:
            if not (fill.conveyed and self.is_blind()):
                return Basis.CUSTODY
        elif wanted in (None, Basis.BEARER) and self.carries_key_of(fill):
            return Basis.BEARER
        if wanted is Basis.CUSTODY or wanted is Basis.BEARER:
            self.refuse(f"no-{wanted.value}", self.where(fill))
        elif fill.remaining:
            self.risk("beyond-custody", self.where(fill))
        return Basis.EMERGENCY

    def is_blind(self) -> bool:
        """Whether the former holder of a conveyed fill may have spent it in what cannot be read here."""
        return bool(self.horizon.unread or self.p.missing or self.p.not_understood)

    def carries_key_of(self, fill: FillState) -> bool:
        return fill.bearer_key is not None and fill.bearer_key == self.request.bearer_public_key

    def where(self, fill: FillState) -> str:
        if fill.conveyed and self.is_blind() and self.request.own_feed == fill.holder:
            return (
                f"fill {fill.number} was conveyed, and not all that its former holder wrote can be read here"
            )
        if fill.holder:
            return f"fill {fill.number} is held by {fill.holder.hex()}"
        words = {
            FillStatus.BEARER: "belongs to whoever carries the paper",
            FillStatus.CONTESTED: "is contested: a fork, a breach or a revocation lies on its custody",
            FillStatus.RECOVERED: "was recovered from a dead holder",
        }
        return f"fill {fill.number} {words.get(fill.status, 'is held by nobody')}"

    def quantity(self, most: int) -> None:
        if self.request.quantity is not None and not 0 < self.request.quantity <= most:
            self.refuse("quantity", f"at most {most} units may be supplied on this fill")

    def emergency(self, issued: PrescriptionIssued, fill: FillState) -> Decision:
        medicine = MedicineClass.of(issued)
        rule = self.policy.rule(medicine)
        cap = min(fill.remaining, _cap(issued, rule)) if rule.from_level is not None else 0
        if self.request.basis is Basis.CUSTODY or self.request.basis is Basis.BEARER:
            return self.answer(None, None, 0)
        if rule.from_level is None:
            self.refuse("class", f"policy permits no emergency supply of the class {medicine}")
        elif LEVELS.index(self.level) < LEVELS.index(rule.from_level):
            self.refuse(
                "level", f"policy permits it from level {rule.from_level.value}; it is {self.level.value}"
            )
        if self.unlawful:
            self.refuse("no-legal-basis", "no policy in force cites a legal basis for emergency supply")
        if not self.request.reason:
            self.refuse("no-reason", "an emergency supply needs a reason in words")
        if cap:
            self.quantity(cap)
        elif rule.from_level is not None and fill.remaining:
            self.refuse("cap", f"policy caps an emergency supply of the class {medicine} at nothing")
        stale = self.now_ms - self.policy.stale_hours * HOUR_MS
        silent = [u for u in self.horizon.unheard if u.heard_ms < stale]
        if silent:
            self.risk(
                "unheard",
                f"{len(silent)} nodes of the district have not been heard for {self.policy.stale_hours} h",
            )
        return self.answer(Basis.EMERGENCY, None, cap)

    def answer(self, basis: Basis | None, rests_on: Link | None, most: int) -> Decision:
        if self.refusals:
            verdict = Verdict.REFUSE
        elif self.risks or basis is Basis.EMERGENCY:
            verdict = Verdict.PERMIT_WITH_RISK
        else:
            verdict = Verdict.PERMIT
        return Decision(
            verdict=verdict, basis=basis, fill=self.request.fill, rests_on=rests_on,
            quantity_max=0 if self.refusals else most, reasons=(*self.refusals, *self.risks), horizon=self.horizon,
        )  # fmt: skip


def _cap(issued: PrescriptionIssued, rule: EmergencyRule) -> int:
    """Units: the smaller of so many packs, and so many days' share of a fill where an interval tells the days."""
    packs = rule.packs * issued.product.pack_quantity
    if not issued.interval_days:
        return packs
    size = issued.packs_per_fill * issued.product.pack_quantity
    return min(packs, max(1, -(-size * rule.days // issued.interval_days)))


def decide(
    prescription: Prescription,
    request: SupplyRequest,
    policy: Policy,
    legal_basis: str,
    *,
    production: bool,
    level: Level,
    horizon: Horizon,
    now_ms: int,
) -> Decision:
    """Decide on a supply. Pure; writes nothing."""
    return _Guard(
        prescription,
        request,
        policy,
        legal_basis,
        production=production,
        level=level,
        horizon=horizon,
        now_ms=now_ms,
    ).decide()
