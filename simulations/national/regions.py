"""The country: 21 regions with their inhabitants and municipalities.

Inhabitants are those of the end of 2023 as remembered, rounded to thousands, and municipalities their known number (290 in
all): *assumed*, to be confirmed by SCB. Only the shares matter to the model.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["LETTERS", "REGIONS", "Region"]


class Region(Struct, frozen=True):
    """One region."""

    letters: str
    name: str
    thousands: int
    """Inhabitants."""
    municipalities: int


REGIONS: tuple[Region, ...] = (
    Region("AB", "Stockholm", 2_455, 26),
    Region("C", "Uppsala", 405, 8),
    Region("D", "Sörmland", 302, 9),
    Region("E", "Östergötland", 472, 13),
    Region("F", "Jönköping", 369, 13),
    Region("G", "Kronoberg", 204, 8),
    Region("H", "Kalmar", 247, 12),
    Region("I", "Gotland", 61, 1),
    Region("K", "Blekinge", 158, 5),
    Region("M", "Skåne", 1_422, 33),
    Region("N", "Halland", 344, 6),
    Region("O", "Västra Götaland", 1_767, 49),
    Region("S", "Värmland", 284, 16),
    Region("T", "Örebro", 308, 12),
    Region("U", "Västmanland", 281, 10),
    Region("W", "Dalarna", 287, 15),
    Region("X", "Gävleborg", 287, 10),
    Region("Y", "Västernorrland", 243, 7),
    Region("Z", "Jämtland Härjedalen", 133, 8),
    Region("AC", "Västerbotten", 279, 15),
    Region("BD", "Norrbotten", 249, 14),
)
LETTERS = frozenset(region.letters for region in REGIONS)
