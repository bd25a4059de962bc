"""How commands speak: one value each, as JSON or as text for people; colour only where there is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["Output", "hexed"]


def hexed(value: object) -> object:
    """The value with every bytes in it as hexadecimal text, ready for JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: hexed(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(hexed(key)): hexed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [hexed(inner) for inner in value]
    return value


class Output:
    """Where a command's result goes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False)
        self._errors = Console(stderr=True, highlight=False)

    def result(self, value: object, text: str | Iterable[str] = ()) -> None:
        """The one result: `value` as JSON, or the lines of text."""
        if self.as_json:
            sys.stdout.write(msgspec.json.encode(hexed(value)).decode() + "\n")
            return
        for line in [text] if isinstance(text, str) else text:
            self.console.print(escape(line), soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people; nothing in JSON mode."""
        if self.as_json:
            return
        table = Table(title=escape(title) if title else None, title_justify="left")
        for column in columns:
            table.add_column(escape(column))
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        self.console.print(table)

    def note(self, text: str) -> None:
        """Progress and remarks, on standard error."""
        self._errors.print(escape(text), style="dim")

    def error(self, code: str, message: str, advice: str = "") -> None:
        """A refusal or failure."""
        if self.as_json:
            sys.stdout.write(
                msgspec.json.encode({"error": {"code": code, "message": message, "advice": advice}}).decode()
                + "\n"
            )
            return
        self._errors.print(
            f"{escape(code)}: {escape(message)}" + (f"\n  → {escape(advice)}" if advice else "")
        )
