"""What a report is made of, whatever it is written as: headings, paragraphs, tables, plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import TypeAlias

from msgspec import Struct

__all__ = ["Block", "Format", "Heading", "Paragraph", "Plot", "Table", "to_html", "to_markdown"]


_COLUMNS_PLAIN = 8
"""More of them are set smaller, so that the table stays on the page."""
_RUN = re.compile(r"[0-9a-f]{12}")
"""The name of a run: to the left, whatever its digits."""


class Heading(Struct, frozen=True):
    """Of a section."""

    text: str
    level: int = 2


class Paragraph(Struct, frozen=True):
    """Plain text."""

    text: str
    strong: bool = False


class Table(Struct, frozen=True):
    """A table; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """Which runs the numbers come from."""


class Plot(Struct, frozen=True):
    """A picture with its title and what to read from it."""

    title: str
    svg: str
    note: str = ""


Block: TypeAlias = Heading | Paragraph | Table | Plot


class Format:
    """Numbers as a language writes them."""

    def __init__(self, language: str) -> None:
        self.language = language

    def number(self, value: float, decimals: int = 0) -> str:
        """A number with thousands set apart."""
        if value == float("inf"):
            return "–"
        text = f"{value:,.{decimals}f}"
        return text.replace(",", "\u00a0").replace(".", ",") if self.language == "sv" else text

    def percent(self, part: float, whole: float = 1.0) -> str:
        """A share."""
        return self.number(100 * part / whole if whole else 0.0) + (
            "\u00a0%" if self.language == "sv" else "%"
        )

    def kronor(self, value: float) -> str:
        """Kronor, in millions where there are many."""
        if value == float("inf"):
            return "–"
        if abs(value) >= 1e6:
            return self.number(value / 1e6, 1) + ("\u00a0mkr" if self.language == "sv" else "\u00a0M\u00a0kr")
        return self.number(value) + "\u00a0kr"

    def bytes(self, value: float) -> str:
        """Bytes."""
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= size:
                return self.number(value / size, 1) + "\u00a0" + unit
        return self.number(value) + "\u00a0B"


def to_html(blocks: Sequence[Block]) -> str:
    """The blocks as a piece of a page."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"<h{level}>{escape(text)}</h{level}>")
            case Paragraph(text, strong):
                parts.append(f'<p class="strong">{escape(text)}</p>' if strong else f"<p>{escape(text)}</p>")
            case Plot(title, svg, note):
                parts.append(
                    f"<figure><figcaption>{escape(title)}</figcaption>{svg}<p class=note>{escape(note)}</p></figure>"
                )
            case Table(columns, rows, note):
                parts.append(_html_table(columns, rows, note))
    return "\n".join(parts)


_NUMBER = re.compile(r"[–-]|-?[\d][\d\s.,\u00a0]*(%|kr|mkr|M\u00a0kr|[kMG]?B)?")


def _class_of(text: str) -> str:
    if _RUN.fullmatch(text):
        return " class=r"
    return " class=n" if _NUMBER.fullmatch(text) else ""


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<th scope=row>{escape(cell)}</th>"
            if index == 0
            else f"<td{_class_of(cell)}>{escape(cell)}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    many = " class=many" if len(columns) > _COLUMNS_PLAIN else ""
    caption = f"<p class=note>{escape(note)}</p>" if note else ""
    return f'<div class="wide"><table{many}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}'


def to_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as a document; plots are only named."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {text}")
            case Paragraph(text, strong):
                parts.append(f"**{text}**" if strong else text)
            case Table(columns, rows, note):
                lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
                lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
                parts.append("\n".join(lines) + (f"\n\n{note}" if note else ""))
            case Plot(title):
                parts.append(f"*On the page, a plot: {title}.*")
    return "\n\n".join(parts).replace("\u00a0", " ") + "\n"
