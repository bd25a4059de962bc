"""What is compared: today's fallback, and this system with custody in different places and with different help."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from simulations.scenario import Words

__all__ = ["ARRANGEMENTS", "BEST", "Arrangement", "Holder", "arrangement"]


class Holder(StrEnum):
    """Where fills stand when the outage begins."""

    REGISTER = "register"
    """No custody: the central register, and paper and telephone without it."""
    AGENCY = "agency"
    DISTRICT = "district"
    CHOSEN = "chosen"
    BEARER = "bearer"


class Arrangement(Struct, frozen=True, kw_only=True):
    """One way to arrange things before the outage."""

    name: str
    title: Words
    holder: Holder
    preposition: bool = False
    """The custody plan has run every night."""
    printed: bool = False
    """Prescribers without a link print a code with the prescription and its keys."""
    radio: bool = False
    bundles: bool = False
    """Couriers carry files between cut-off pharmacies and the hub."""


ARRANGEMENTS: tuple[Arrangement, ...] = (
    Arrangement(
        name="today", holder=Holder.REGISTER,
        title=Words("Dagens register, papper och telefon", "Today's register, paper and telephone"),
    ),
    Arrangement(
        name="agency", holder=Holder.AGENCY,
        title=Words("Förvar hos myndigheten", "Custody at the agency"),
    ),
    Arrangement(
        name="district", holder=Holder.DISTRICT, preposition=True,
        title=Words("Förvar hos kommunens förvarare", "Custody at district custodians"),
    ),
    Arrangement(
        name="chosen-unplanned", holder=Holder.CHOSEN,
        title=Words("Valt apotek, utan förvarsplan", "Chosen pharmacy, no custody plan"),
    ),
    Arrangement(
        name="chosen", holder=Holder.CHOSEN, preposition=True,
        title=Words("Valt apotek, med förvarsplan", "Chosen pharmacy, with custody plan"),
    ),
    Arrangement(
        name="bearer", holder=Holder.BEARER, printed=True,
        title=Words("Innehavarpapper", "Bearer paper"),
    ),
    Arrangement(
        name="chosen-paper", holder=Holder.CHOSEN, preposition=True, printed=True,
        title=Words("Valt apotek + utskrift av nya recept", "Chosen pharmacy + printed new prescriptions"),
    ),
    Arrangement(
        name="chosen-radio", holder=Holder.CHOSEN, preposition=True, radio=True,
        title=Words("Valt apotek + radio", "Chosen pharmacy + radio"),
    ),
    Arrangement(
        name="chosen-bundles", holder=Holder.CHOSEN, preposition=True, bundles=True,
        title=Words("Valt apotek + bud med filer", "Chosen pharmacy + couriers with files"),
    ),
    Arrangement(
        name="everything", holder=Holder.CHOSEN, preposition=True, printed=True, radio=True, bundles=True,
        title=Words("Valt apotek + utskrift + radio + bud", "Chosen pharmacy + printing + radio + couriers"),
    ),
)  # fmt: skip
BEST = "chosen-paper"
"""The one that later comparisons (knocked-out services, sensitivity) start from."""


def arrangement(name: str) -> Arrangement:
    """The arrangement of a name.

    Raises:
        KeyError: none has it; names come from this program, never from outside.
    """
    return {a.name: a for a in ARRANGEMENTS}[name]
