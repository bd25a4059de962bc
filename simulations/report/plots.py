"""Plots as inline SVG: no script, no font, no file from elsewhere. Told apart by shade, dash and hatch, so readable in grey."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from msgspec import Struct

__all__ = [
    "DEFS",
    "FILLS",
    "Line",
    "area_chart",
    "bar_chart",
    "line_chart",
    "scatter",
    "stacked_bars",
    "tornado",
]

WIDTH = 760
_TEXT = "#222"
_GRID = "#ddd"
_TICKS = 5
"""Of an axis that ends at a round number: they fall on round numbers too."""
FILLS = ("#12324f", "#3f76a8", "url(#hatch)", "url(#dots)", "#c9d6e2", "#f3f3f3", "url(#cross)")
"""From dark to light, solid and patterned in turn."""
DEFS = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#fff"/><rect width="3" height="6" fill="#666"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#e4e4e4"/>'
    '<circle cx="3" cy="3" r="1.5" fill="#333"/></pattern>'
    '<pattern id="cross" width="7" height="7" patternUnits="userSpaceOnUse"><rect width="7" height="7" fill="#fff"/>'
    '<path d="M0 0L7 7M7 0L0 7" stroke="#888" stroke-width="1"/></pattern></defs></svg>'
)


class Line(Struct, frozen=True):
    """One series: its values, its stroke and its dash."""

    label: str
    values: Sequence[float]
    stroke: str
    dash: str = ""
    width: float = 2.5


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'font-family="sans-serif" font-size="13" fill="{_TEXT}">' + "".join(parts) + "</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False, size: int = 13) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "#333") -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="0.6"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str = _GRID, width: float = 1.0) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
        f'stroke-width="{width}"/>'
    )


def nice_ceiling(value: float) -> float:
    """The next round number: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999)


def _axis_label(value: float, top: float, unit: str) -> str:
    number = f"{value:.0f}" if top >= 5 else f"{value:.1f}"
    return f"{number}{unit}"


def line_chart(
    title: str, lines: Sequence[Line], *, unit: str, x_label: str, shade: tuple[float, float, str] | None = None,
    top: float | None = None,
) -> str:  # fmt: skip
    """Lines over days, each labelled at its end; the shaded stretch is the outage."""
    left, right, upper, height = 62.0, 232.0, 16.0, 330.0
    floor = height - 44
    count = max(len(line.values) for line in lines)
    high = top or nice_ceiling(max((max(line.values, default=0) for line in lines), default=1))
    step = (WIDTH - left - right) / max(count - 1, 1)

    def y(value: float) -> float:
        return floor - (floor - upper) * value / high

    parts = []
    if shade:
        x1, x2 = left + shade[0] * step, left + min(shade[1], count - 1) * step
        parts += [
            _rect(x1, upper, x2 - x1, floor - upper, "#efefef", stroke="none"),
            _text(x1 + 5, upper + 14, shade[2], size=12),
        ]
    for tick in range(_TICKS + 1):
        value = high * tick / _TICKS
        parts += [
            _line(left, y(value), WIDTH - right, y(value)),
            _text(left - 6, y(value) + 4, _axis_label(value, high, unit), "end", size=12),
        ]
    every = max(1, count // 9)
    for index in range(0, count, every):
        parts.append(_text(left + index * step, floor + 17, str(index + 1), "middle", size=12))
    parts.append(_text((left + WIDTH - right) / 2, height - 8, x_label, "middle", size=12))
    ends: list[tuple[float, Line]] = []
    for line in lines:
        points = " ".join(f"{left + i * step:.1f},{y(v):.1f}" for i, v in enumerate(line.values))
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{line.stroke}" stroke-width="{line.width}"{dash}/>'
        )
        ends.append((y(line.values[-1]), line))
    parts += _end_labels(ends, WIDTH - right, upper, floor)
    return _svg(height, title, parts)


def _end_labels(ends: list[tuple[float, Line]], x: float, upper: float, floor: float) -> list[str]:
    """Labels beside the lines' ends, pushed apart where they would overlap."""
    parts = []
    ordered = sorted(ends, key=lambda end: end[0])
    places: list[float] = []
    for y, _ in ordered:
        places.append(max(y, places[-1] + 16 if places else upper))
    # What would leave the picture below pushes the others up.
    for index in range(len(places) - 1, -1, -1):
        lowest = floor if index == len(places) - 1 else places[index + 1] - 16
        places[index] = min(places[index], lowest)
    for (y, line), at in zip(ordered, places, strict=True):
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(
            f'<line x1="{x + 4:.1f}" y1="{y:.1f}" x2="{x + 16:.1f}" y2="{at:.1f}" stroke="#999"/>'
            f'<line x1="{x + 16:.1f}" y1="{at:.1f}" x2="{x + 40:.1f}" y2="{at:.1f}" stroke="{line.stroke}" '
            f'stroke-width="{line.width}"{dash}/>' + _text(x + 45, at + 4, line.label, size=12)
        )
    return parts


def _legend(names: Sequence[str], x: float, y: float) -> tuple[list[str], float]:
    """Swatches in rows; returns the parts and the height used."""
    parts, at, row = [], x, 0
    for index, name in enumerate(names):
        needed = 26 + 7.0 * len(name)
        if at + needed > WIDTH and at > x:
            at, row = x, row + 1
        parts += [
            _rect(at, y + row * 20, 14, 12, FILLS[index]),
            _text(at + 19, y + row * 20 + 11, name, size=12),
        ]
        at += needed
    return parts, (row + 1) * 20.0


def stacked_bars(
    title: str, rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, unit: str = "%", top: float | None = None
) -> str:  # fmt: skip
    """Horizontal bars cut into parts, each part's value in it where there is room."""
    left, bar, gap = 250.0, 22.0, 9.0
    legend, used = _legend(names, 8, 4)
    high = top or nice_ceiling(max((sum(values) for _, values in rows), default=1))
    scale = (WIDTH - left - 20) / high
    parts = list(legend)
    for index, (label, values) in enumerate(rows):
        y = used + 14 + index * (bar + gap)
        parts.append(_text(left - 8, y + 15, label, "end", size=12))
        x = left
        for part, value in enumerate(values):
            parts.append(_rect(x, y, value * scale, bar, FILLS[part]))
            if value * scale > 34:
                dark = part in (0, 1)
                number = f"{value:.0f}{unit}"
                if not dark and FILLS[part].startswith("url"):
                    parts.append(_rect(x + value * scale / 2 - 15, y + 4, 30, 14, "#fff", stroke="none"))
                color = "#fff" if dark else _TEXT
                parts.append(
                    f'<text x="{x + value * scale / 2:.1f}" y="{y + 15:.1f}" text-anchor="middle" font-size="11" fill="{color}">{number}</text>'
                )
            x += value * scale
    return _svg(used + 20 + len(rows) * (bar + gap), title, parts)


def bar_chart(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """One horizontal bar a row, with its value in words beside it."""
    left, bar, gap = 250.0, 20.0, 9.0
    scale = (WIDTH - left - 150) / nice_ceiling(max((value for _, value, _ in rows), default=1))
    parts = []
    for index, (label, value, words) in enumerate(rows):
        y = 6 + index * (bar + gap)
        parts += [
            _text(left - 8, y + 14, label, "end", size=12),
            _rect(left, y, value * scale, bar, FILLS[1]),
            _text(left + value * scale + 7, y + 14, words, size=12),
        ]
    return _svg(12 + len(rows) * (bar + gap), title, parts)


def tornado(
    title: str, rows: Sequence[tuple[str, float, float]], base: float, labels: tuple[str, str], x_label: str
) -> str:
    """For each figure, where the result moves to at its low and its high end."""
    left, bar, gap = 330.0, 15.0, 7.0
    low = min([base, *(min(a, b) for _, a, b in rows)])
    high = max([base, *(max(a, b) for _, a, b in rows)])
    span = max(high - low, 1e-9)
    scale = (WIDTH - left - 60) / span

    def x(value: float) -> float:
        return left + 20 + (value - low) * scale

    parts = [
        _rect(8, 2, 14, 12, FILLS[0]), _text(27, 12, labels[0], size=12), _rect(150, 2, 14, 12, FILLS[2]), _text(169, 12, labels[1], size=12),
    ]  # fmt: skip
    for index, (label, at_low, at_high) in enumerate(rows):
        y = 26 + index * (bar + gap)
        parts.append(_text(left - 6, y + 12, label, "end", size=11))
        for value, fill in ((at_low, FILLS[0]), (at_high, FILLS[2])):
            parts.append(_rect(min(x(base), x(value)), y, abs(x(value) - x(base)), bar, fill))
    bottom = 30 + len(rows) * (bar + gap)
    parts.append(_line(x(base), 20, x(base), bottom, "#000", 1.5))
    parts += [_text(x(value), bottom + 15, f"{value:.0f}", "middle", size=12) for value in (low, base, high)]
    parts.append(_text((left + WIDTH) / 2, bottom + 33, x_label, "middle", size=12))
    return _svg(bottom + 40, title, parts)


def scatter(title: str, points: Sequence[tuple[str, float, float]], *, x_label: str, y_label: str) -> str:
    """Points with numbers; their names in a list beside, in the order of the horizontal axis."""
    left, right, upper, height = 60.0, 300.0, 24.0, 340.0
    floor = height - 46
    high_x, high_y = 100.0, nice_ceiling(max(y for _, _, y in points))
    parts = [_text(8, 14, y_label, size=12)]
    for tick in range(_TICKS + 1):
        y = floor - (floor - upper) * tick / _TICKS
        x = left + (WIDTH - left - right) * tick / _TICKS
        parts += [
            _line(left, y, WIDTH - right, y), _text(left - 6, y + 4, _axis_label(high_y * tick / _TICKS, high_y, ""), "end", size=12),
            _text(x, floor + 17, f"{high_x * tick / _TICKS:.0f}%", "middle", size=12),
        ]  # fmt: skip
    parts.append(_text((left + WIDTH - right) / 2, height - 8, x_label, "middle", size=12))
    placed: list[tuple[float, float]] = []
    for number, (label, px, py) in enumerate(sorted(points, key=lambda p: p[1]), start=1):
        x, y = left + (WIDTH - left - right) * px / high_x, floor - (floor - upper) * py / high_y
        mark = y
        while any(abs(x - ox) < 20 and abs(mark - oy) < 20 for ox, oy in placed) and mark > upper - 10:
            mark -= 20
        placed.append((x, mark))
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#000"/>', _line(x, y, x, mark, "#999"),
            f'<circle cx="{x:.1f}" cy="{mark:.1f}" r="10" fill="#fff" stroke="#12324f" stroke-width="1.5"/>',
            _text(x, mark + 4, str(number), "middle", size=11), _text(WIDTH - right + 20, upper + number * 22, f"{number}  {label}", size=12),
        ]  # fmt: skip
    return _svg(height, title, parts)


def area_chart(title: str, layers: Sequence[tuple[str, Sequence[int]]], *, x_label: str, y_label: str) -> str:
    """Layers of counts by hour, one on another."""
    left, upper, height = 62.0, 54.0, 270.0
    floor = height - 44
    count = len(layers[0][1])
    total = max(sum(layer[1][i] for layer in layers) for i in range(count)) or 1
    legend, _ = _legend([name for name, _ in layers], 8, 4)
    parts = [*legend, _text(8, upper - 10, y_label, size=12)]
    below = [0.0] * count
    step = (WIDTH - left - 20) / max(count, 1)
    for index, (_, values) in enumerate(layers):
        above = [b + v for b, v in zip(below, values, strict=True)]

        def edge(heights: Sequence[float]) -> list[str]:
            corners = []
            for hour, value in enumerate(heights):
                y = floor - (floor - upper) * value / total
                corners += [f"{left + hour * step:.1f},{y:.1f}", f"{left + (hour + 1) * step:.1f},{y:.1f}"]
            return corners

        points = " ".join(edge(above) + edge(below)[::-1])
        parts.append(f'<polygon points="{points}" fill="{FILLS[index]}" stroke="#333" stroke-width="0.4"/>')
        below = above
    for tick in range(_TICKS + 1):
        y = floor - (floor - upper) * tick / _TICKS
        parts.append(_text(left - 6, y + 4, f"{100 * tick // _TICKS}%", "end", size=12))
    every = max(24, count // 9 // 24 * 24)
    parts += [
        _text(left + hour * step, floor + 17, str(hour // 24 + 1), "middle", size=12)
        for hour in range(0, count, every)
    ]
    parts.append(_text((left + WIDTH) / 2, height - 8, x_label, "middle", size=12))
    return _svg(height, title, parts)
