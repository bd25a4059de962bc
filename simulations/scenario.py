"""Scenario files: who is cut off from what, when, under which policy; TOML, typed, read before anything runs.

A scenario names its reason and its expected outcome, so that a file in the library is also a test. Hours count from
the start of the outage's first day at midnight. Whatever a file gets wrong ends in `InvalidInput` that names the key
and says what to write instead.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger.errors import InvalidInput
from ledger.events import Level
from ledger.policy import Policy, default_policy

__all__ = [
    "Expectation",
    "Fault",
    "FaultKind",
    "Scenario",
    "Words",
    "library",
    "load_scenario",
    "parse_scenario",
]

SCENARIO_BYTES_MAX = 64 * 1024
"""Of a file: the longest of the library is a fiftieth of it; more is no scenario."""
HOURS_MAX = 24 * 60
"""Sixty days: the national size then still fits in 4 GiB."""
FAULTS_MAX = 64
"""Of one scenario: each is applied to every pharmacy."""


class FaultKind(StrEnum):
    """What breaks."""

    AGENCY_DOWN = "agency-down"
    """Register and agency answer nobody; the network itself works."""
    REGIONS_CUT = "regions-cut"
    """The named regions (none: each) reach nobody outside themselves."""
    PHARMACIES_ALONE = "pharmacies-alone"
    """A share of the pharmacies reaches nobody at all."""
    POWER_CUTS = "power-cuts"
    """A share is dark in turn, a new group each `period_hours`; dark pharmacies are closed."""
    THIN_LINKS = "thin-links"
    """All that is left between pharmacies and hub is a channel of `bits_per_second` that a region shares."""
    STOLEN_KEY = "stolen-key"
    """The keys of so many `pharmacies` are stolen, and revoked at `until_hour`: what they held is contested then."""
    NODES_LOST = "nodes-lost"
    """A share of the pharmacies loses its computers (ransomware); restored at `until_hour` without custody."""
    CARE_DOWN = "care-down"
    """The journal systems of the named regions (none: all) cannot send; prescribers print or telephone."""

    ORDERING_DOWN = "ordering-down"
    """Nothing can be ordered: pharmacies sell what they have."""
    TELEPHONE_DOWN = "telephone-down"
    """Nobody can be telephoned: nothing goes on paper and telephone."""


class Words(Struct, frozen=True, forbid_unknown_fields=True):
    """A text in both languages."""

    sv: Annotated[str, Meta(min_length=1, max_length=2000)]
    en: Annotated[str, Meta(min_length=1, max_length=2000)]


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault and when it holds."""

    kind: FaultKind
    from_hour: Annotated[float, Meta(ge=0, le=HOURS_MAX)] = 0
    until_hour: Annotated[float, Meta(ge=0, le=HOURS_MAX)]
    regions: Annotated[tuple[Annotated[str, Meta(max_length=2)], ...], Meta(max_length=21)] = ()
    """Letters of the counties, such as "AB"; empty: all."""
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    period_hours: Annotated[int, Meta(ge=1, le=168)] = 4
    bits_per_second: Annotated[int, Meta(ge=300, le=100_000_000)] = 9_600
    pharmacies: Annotated[int, Meta(ge=1, le=1_000)] = 1


class Expectation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must come out, or the run fails: shares of the demand of struck pharmacies, by arrangement."""

    arrangement: str
    same_day_min: Annotated[float, Meta(ge=0, le=1)] = 0.0
    same_day_max: Annotated[float, Meta(ge=0, le=1)] = 1.0
    served_min: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """In the end, on whatever day."""
    served_max: Annotated[float, Meta(ge=0, le=1)] = 1.0


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole scenario."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}(?!\s)$")]
    title: Words
    reason: Words
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 2026
    weekday: Annotated[int, Meta(ge=1, le=7)] = 1
    """Of the first day: 1 Monday … 7 Sunday."""
    hours: Annotated[int, Meta(ge=1, le=HOURS_MAX)]
    """How long is looked at, from midnight before the outage; with time after it, in which what waited is served."""
    scale: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Of the country: 0.1 is 140 pharmacies and a tenth of the demand."""
    kind: Annotated[str, Meta(pattern=r"^(production|exercise)(?!\s)$")] = "exercise"
    """Of the realm: in production nothing goes beyond custody without a legal basis."""
    legal_basis: Annotated[str, Meta(max_length=200)] = ""
    policy: Policy | None = None
    """None: the default of the realm's kind."""
    declared: Level = Level.NORMAL
    """The level that the agency declares when the outage begins and keeps; nodes reach worse ones by themselves."""
    faults: Annotated[tuple[Fault, ...], Meta(max_length=FAULTS_MAX)] = ()
    figures: dict[str, float] = {}
    """Figures set otherwise than in the table of the model."""
    expect: Annotated[tuple[Expectation, ...], Meta(max_length=16)] = ()

    @property
    def policy_in_force(self) -> Policy:
        """The policy that every node holds before the outage."""
        return self.policy or default_policy(self.kind)

    @property
    def outage_hours(self) -> tuple[float, float]:
        """From the first fault's begin to the last one's end; (0, 0) without faults."""
        if not self.faults:
            return 0.0, 0.0
        return min(f.from_hour for f in self.faults), max(f.until_hour for f in self.faults)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this scenario with all that it sets."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]


def parse_scenario(data: bytes, name: str = "scenario") -> Scenario:
    """A scenario from the bytes of a TOML file.

    Raises:
        InvalidInput: it is too long, no TOML, or a key is unknown, missing or out of bounds; says which.
    """
    if len(data) > SCENARIO_BYTES_MAX:
        raise InvalidInput(
            f"{name} has {len(data)} bytes",
            advice=f"a scenario has at most {SCENARIO_BYTES_MAX}; name a TOML file of the library's form",
        )
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"{name} is no TOML: {error}", advice="mend that line; see simulations/scenarios"
        ) from error
    try:
        scenario = msgspec.convert(table, Scenario)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name}: {error}",
            advice="mend the key after `$`; keys and their bounds stand in simulations/scenario.py",
        ) from error
    _check(scenario, name)
    return scenario


def _check(scenario: Scenario, name: str) -> None:
    for at, fault in enumerate(scenario.faults):
        if fault.until_hour <= fault.from_hour:
            raise InvalidInput(
                f"{name}: faults[{at}].until_hour is {fault.until_hour:g}, not after from_hour {fault.from_hour:g}",
                advice="let until_hour be the later one",
            )
        if fault.until_hour > scenario.hours:
            raise InvalidInput(
                f"{name}: faults[{at}].until_hour is {fault.until_hour:g}, after the end of the run",
                advice=f"raise hours above {math.ceil(fault.until_hour)}, with some days in which what waited is served",
            )
    from simulations.national.figures import Figures
    from simulations.national.regions import LETTERS

    for at, fault in enumerate(scenario.faults):
        for letter in fault.regions:
            if letter not in LETTERS:
                raise InvalidInput(
                    f"{name}: faults[{at}].regions names {letter!r}",
                    advice=f"counties are {', '.join(sorted(LETTERS))}",
                )
    Figures(scenario.figures)


def library() -> dict[str, Path]:
    """The scenarios that come with the program, by name."""
    folder = Path(str(files("simulations"))) / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_scenario(name: str) -> Scenario:
    """A scenario of the library by its name, or any by the path of its file.

    Raises:
        InvalidInput: there is none, or it is malformed.
    """
    known = library()
    path = known.get(name) or Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise InvalidInput(
            f"there is no scenario {name}", advice=f"name a .toml file or one of: {', '.join(known)}"
        )
    if path.stat().st_size > SCENARIO_BYTES_MAX:
        raise InvalidInput(
            f"{path.name} has {path.stat().st_size} bytes",
            advice=f"a scenario has at most {SCENARIO_BYTES_MAX}",
        )
    return parse_scenario(path.read_bytes(), path.name)
