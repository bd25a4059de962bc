"""Cost with ranges: each part of a year's cost with its figures at the low and the high end."""

from __future__ import annotations

from simulations.national.costs import Cost
from simulations.national.figures import FIGURES, Figures

__all__ = ["part_range", "yearly_range"]

_PARTS = {
    "pharmacies": (("node_kr_per_year",), ()),
    "care": (("systems", "integration_kr"), ("write_off_years",)),
    "agency": (("central_kr_per_year",), ()),
    "extras": (("radio_kr_per_year",), ()),
}
"""Part → figures that it grows with, and those that it shrinks with. Extras are ruled by what radio costs."""


def part_range(part: str, value: float, figures: Figures) -> tuple[float, float]:
    """The low and high of one part of a year's cost.

    Args:
        part: a field of `Cost`.
        value: what it is with the figures given.
        figures: of the run.
    """
    grows, shrinks = _PARTS[part]
    low = high = value
    for name in grows:
        low *= FIGURES[name].low / figures[name]
        high *= FIGURES[name].high / figures[name]
    for name in shrinks:
        low *= figures[name] / FIGURES[name].high
        high *= figures[name] / FIGURES[name].low
    return low, high


def yearly_range(cost: Cost, figures: Figures) -> tuple[float, float]:
    """The low and high of a year's cost: every cost figure at one end at once."""
    parts = [part_range(part, float(getattr(cost, part)), figures) for part in _PARTS]
    return sum(low for low, _ in parts), sum(high for _, high in parts)
