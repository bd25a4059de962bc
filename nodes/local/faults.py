"""What may go wrong between two processes, and how errors cross from one to the other as what they are.

An error keeps its class, code, message and advice, so that a host handles a refusal alike whether it owns the store or
writes through another process. An error that a newer owner invented becomes the nearest that is known here.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ledger import errors
from ledger.errors import CommandRefused, LedgerBug, NotPermitted, RxLedgerError, StoreDamaged

__all__ = ["OutcomeUnknown", "OwnerGone", "Problem", "problem_of", "raised"]

TEXT_MAX = 8 * 1024
"""Characters of a message: ours have some hundred."""
REASONS_MAX = 64
"""Reasons of a refusal: the guard has some twenty."""

Text = Annotated[str, Meta(max_length=TEXT_MAX)]


class OwnerGone(CommandRefused):
    """The process that owns the store does not answer; nothing was written."""

    code = "owner-gone"
    default_advice = "open the node again: whoever comes first owns it, the others write through that one"


class OutcomeUnknown(RxLedgerError):
    """The owner died or fell silent after it had been given a command: it may have been carried out, or not (R17)."""

    code = "outcome-unknown"
    default_advice = "open the node again and repeat with the same command id: it has one effect"

    def __init__(self, message: str, *, command: bytes | None = None, advice: str | None = None) -> None:
        super().__init__(f"{message} (command id {command.hex()})" if command else message, advice=advice)
        self.command = command
        """The id to repeat with; None: the call may be repeated as it is."""


class Problem(Struct, frozen=True, array_like=True):
    """An error as it travels."""

    kind: Annotated[str, Meta(max_length=64)]
    """Name of its class."""
    message: Text
    advice: Text = ""
    reasons: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=REASONS_MAX)] = ()
    where: Text = ""


def problem_of(error: RxLedgerError) -> Problem:
    """An error, ready to travel."""
    return Problem(
        kind=type(error).__name__,
        message=error.message[:TEXT_MAX],
        advice=error.advice[:TEXT_MAX],
        reasons=error.reasons[:REASONS_MAX] if isinstance(error, NotPermitted) else (),
        where=error.where[:TEXT_MAX] if isinstance(error, StoreDamaged) else "",
    )


_KNOWN: dict[str, type[RxLedgerError]] = {
    name: getattr(errors, name) for name in errors.__all__ if name != "RxLedgerError"
} | {kind.__name__: kind for kind in (OwnerGone, OutcomeUnknown)}


def raised(problem: Problem) -> RxLedgerError:
    """The error that travelled, to be raised here."""
    kind = _KNOWN.get(problem.kind)
    if kind is None:
        return LedgerBug(
            f"the owner ended a call with an error that this version does not know: {problem.message}",
            advice="bring both processes to one version",
        )
    # Not by the constructor: `StoreDamaged` would put the place into the message a second time.
    error = kind.__new__(kind, problem.message)
    error.message, error.advice = problem.message, problem.advice
    if isinstance(error, NotPermitted):
        error.reasons = problem.reasons
    if isinstance(error, StoreDamaged):
        error.where = problem.where
    if isinstance(error, OutcomeUnknown):
        error.command = None
    return error


def path_in(error: msgspec.ValidationError) -> str:
    """Where in a message decoding failed, without what stood there: that may be anybody's (R13)."""
    _, found, path = str(error).partition(" - at `$")
    return path.rstrip("`").lstrip(".") if found else ""
