"""The readiness level of a node: declared by the agency, or risen by itself after an agreed silence (section 6).

Silence is counted from when any node of the agency was last heard, as `ledger.inquiry.Inquiry.agency_silence_ms` has it.
The hours are policy's, set by the agency before the outage. A site may agree to wait longer (its link is up once a
night), never to rise sooner: what a level permits is not a site's to decide. `SiteLedger` obeys that in every decision
and in what every event cites; `readiness` says it in a status.
"""

from __future__ import annotations

from typing import Self

import msgspec
from msgspec import Struct

from ledger import Ledger, Level, Policy
from ledger.policy import HOUR_MS
from nodes.daemon.config import ReadinessConfig

__all__ = ["Readiness", "SiteLedger", "agreed", "readiness", "readiness_of"]

_HOURS = ("strained_after_hours", "crisis_after_hours", "minimum_after_hours")
_RISES = ((Level.STRAINED, _HOURS[0]), (Level.CRISIS, _HOURS[1]), (Level.MINIMUM, _HOURS[2]))


class Readiness(Struct, frozen=True, kw_only=True):
    """The level in force, and why."""

    level: Level
    declared: Level
    """By the agency, as far as known here."""
    by_itself: bool
    """It has risen above what was declared, for want of contact."""
    agency_silence_ms: int
    """Since any node of the agency was last heard; 0 at the agency itself, or before it was ever heard."""
    next_level: Level | None = None
    """What it rises to next without contact; None: nothing is above."""
    next_in_ms: int = 0
    not_obeyed: tuple[str, ...] = ()
    """Keys of the configuration that ask for an earlier rise than policy's."""


def agreed(policy: Policy, site: ReadinessConfig) -> Policy:
    """The policy with a site's later hours in the place of its own."""
    later = {name: max(getattr(policy, name), getattr(site, name) or 0) for name in _HOURS}
    return msgspec.structs.replace(policy, **later)


def readiness(declared: Level, agency_silence_ms: int, policy: Policy, site: ReadinessConfig) -> Readiness:
    """The level in force after a silence of the agency.

    Args:
        declared: by the agency, for the district.
        agency_silence_ms: since the agency was last heard.
        policy: in force.
        site: this site's own hours.
    """
    hours = agreed(policy, site)
    levels = list(Level)
    risen = hours.level_after(agency_silence_ms)
    level = max(declared, risen, key=levels.index)
    coming = [
        (int(getattr(hours, name) * HOUR_MS) - agency_silence_ms, above)
        for above, name in _RISES
        if levels.index(above) > levels.index(level) and getattr(hours, name) * HOUR_MS > agency_silence_ms
    ]
    in_ms, following = min(coming, key=lambda c: (c[0], -levels.index(c[1])), default=(0, None))
    sooner = tuple(
        f"readiness.{name}"
        for name in _HOURS
        if getattr(site, name) is not None and getattr(site, name) < getattr(policy, name)
    )
    return Readiness(
        level=level, declared=declared, by_itself=level != declared, agency_silence_ms=agency_silence_ms,
        next_level=following, next_in_ms=in_ms, not_obeyed=sooner,
    )  # fmt: skip


def readiness_of(ledger: Ledger, site: ReadinessConfig, district: str | None = None) -> Readiness:
    """The readiness of an open ledger, in a district (default: the node's own)."""
    with ledger.node.lock:
        declared = ledger.node.reader.governance().level(district or ledger.node.identity.district)
        return readiness(declared, ledger.inquiry.agency_silence_ms(), ledger.policy()[0], site)


class SiteLedger(Ledger):
    """A ledger whose level rises after the hours that its site has agreed on."""

    site: ReadinessConfig = ReadinessConfig()

    def at(self, site: ReadinessConfig) -> Self:
        """The same ledger, from now on with these hours."""
        self.site = site
        return self

    def level(self, district: str) -> Level:
        """The level in force: as declared, or worse after the agency's silence."""
        return readiness_of(self, self.site, district).level
