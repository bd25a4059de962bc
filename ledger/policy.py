"""Policy: what may be done beyond custody, by class of medicine and readiness level. Data, set by the agency (R8).

No Swedish rule for supply without any prescription was found: in a production realm nothing goes beyond custody and
bearer until a `PolicySet` cites its legal basis. An exercise realm may try all of it.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from ledger.errors import InvalidInput
from ledger.events import ControlledClass, Criticality, Level, PrescriptionIssued

__all__ = ["EmergencyRule", "MedicineClass", "Policy", "decode_policy", "default_policy", "encode_policy"]

HOUR_MS = 3_600_000
HOURS_MAX = 24 * 3660
"""Ten years, as for days: more is a mistake of units, and would leave what a date can hold."""
Hours: TypeAlias = Annotated[int, Meta(ge=0, le=HOURS_MAX)]
LEVELS = tuple(Level)


class MedicineClass:
    """The classes that policy tells apart."""

    CONTROLLED = "controlled"
    LIFE_SUSTAINING = "life-sustaining"
    ORDINARY = "ordinary"

    @staticmethod
    def of(issued: PrescriptionIssued) -> str:
        """The class of a prescription; a controlled substance is one whatever else it is."""
        if issued.controlled is not ControlledClass.NONE:
            return MedicineClass.CONTROLLED
        if issued.criticality is Criticality.LIFE_SUSTAINING:
            return MedicineClass.LIFE_SUSTAINING
        return MedicineClass.ORDINARY


class EmergencyRule(Struct, frozen=True, kw_only=True):
    """When an emergency supply is permitted, and how much: the smaller of packs and days, where each is set."""

    from_level: Level | None = None
    """At this level or worse; None: never."""
    packs: Annotated[int, Meta(ge=0, le=1000)] = 1
    """0: nothing, whatever the level."""
    days: Annotated[int, Meta(ge=1, le=3660)] = 7


class Policy(Struct, frozen=True, kw_only=True):
    """The policy in force."""

    emergency: dict[str, EmergencyRule] = {}
    """By `MedicineClass`; a class not named has none."""
    early_refill_days: Annotated[int, Meta(ge=0, le=3660)] = 7
    """How many days before the interval ends a fill is given without being weighed as risk."""
    stale_hours: Hours = 24
    """A node not heard for longer is named as a reason."""
    strained_after_hours: Hours = 1
    crisis_after_hours: Hours = 24
    minimum_after_hours: Hours = 168
    """The level rises by itself after so many hours without the agency."""
    certificate_grace_days: Annotated[int, Meta(ge=0, le=3660)] = 90
    """How long an expired certificate stays usable without being named as risk."""

    def rule(self, medicine_class: str) -> EmergencyRule:
        """The rule of a class."""
        return self.emergency.get(medicine_class, EmergencyRule())

    def level_after(self, silence_ms: int) -> Level:
        """The level reached by itself after a silence."""
        hours = silence_ms / HOUR_MS
        if hours >= self.minimum_after_hours:
            return Level.MINIMUM
        if hours >= self.crisis_after_hours:
            return Level.CRISIS
        return Level.STRAINED if hours >= self.strained_after_hours else Level.NORMAL


def default_policy(kind: str) -> Policy:
    """The policy of a realm in which none was set: of kind ``production`` (nothing beyond) or ``exercise``."""
    if kind == "production":
        return Policy()
    return Policy(
        emergency={
            MedicineClass.ORDINARY: EmergencyRule(from_level=Level.CRISIS),
            MedicineClass.LIFE_SUSTAINING: EmergencyRule(from_level=Level.NORMAL),
        }
    )


def encode_policy(policy: Policy) -> bytes:
    """The bytes that a `PolicySet` carries.

    Raises:
        InvalidInput: a number is out of its bounds; no node could follow it.
    """
    data = msgspec.msgpack.encode(policy)
    decode_policy(data)
    return data


def decode_policy(data: bytes) -> Policy:
    """A policy from a `PolicySet`.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        return msgspec.msgpack.decode(data, type=Policy)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput("this is not a policy, or one of its numbers is out of bounds") from error
