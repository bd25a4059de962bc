"""FHIR R4 in: MedicationRequests from files and folders, each taken, or refused with element and reason.

- Any shape is walked: single resources, bundles of any type, bundles in bundles, Parameters, contained
  resources. Nothing is fetched, and no library decides validity: input may be dirty, and is taken where its
  meaning is plain.
- One bad request or file never stops the others (R15): it becomes a `Refusal`.
- A refusal names the element and the reason, never a value of a patient (R13).

The mapping out of the ledger is not here: FHIR has no status for expired or in custody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ledger.errors import InvalidInput, LimitExceeded
from nodes.fhir_references import places
from nodes.fhir_request import take_request
from nodes.fhir_types import (
    UNKNOWN_PRESCRIBER,
    ImportedPrescription,
    Options,
    RefusalKind,
    RequestRefused,
    Standing,
)
from nodes.fhir_values import text

__all__ = [
    "FILES_MAX",
    "FILE_BYTES_MAX",
    "REQUESTS_MAX",
    "UNKNOWN_PRESCRIBER",
    "ImportedPrescription",
    "Options",
    "Refusal",
    "RefusalKind",
    "Standing",
    "Tally",
    "read_bytes",
    "read_path",
    "tally",
]

FILE_BYTES_MAX: Final = 32 * 1024 * 1024
"""One file: a patient's whole record is some 2 MB; a day's export of a large clinic fits."""
FILES_MAX: Final = 100_000
"""Files in one walk: more is a wrong folder, not an import."""
REQUESTS_MAX: Final = 50_000
"""Requests in one file: what `FILE_BYTES_MAX` can sensibly hold."""

_PATH_LENGTH_MAX = 200
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_BOM = b"\xef\xbb\xbf"


class Refusal(Struct, frozen=True, kw_only=True):
    """What was not taken, and why."""

    element: str
    """FHIR element that is missing, wrong or decisive; for a file that cannot be read, ``file``."""
    reason: str
    kind: RefusalKind
    resource_id: str = ""
    source: str = ""
    """File and position. A file name is the operator's and may name a patient: do not log it."""

    def __str__(self) -> str:
        """Fit for a log: without the source."""
        return f"{self.resource_id or 'MedicationRequest'}: {self.element}: {self.reason}"


class Tally(Struct, frozen=True):
    """How an import went."""

    taken: int
    refused: int
    """Requests that were refused, those not for dispensing included."""
    not_for_dispensing: int
    """Of the refused: cancelled, draft, in error, or no authorisation; the source says so itself."""
    unreadable: int
    """Files that could not be read at all; they count as no request."""

    @property
    def share(self) -> float:
        """Taken of all requests found, from 0 to 1; 1 if there were none."""
        return self.taken / (self.taken + self.refused) if self.taken + self.refused else 1.0


def tally(results: Iterable[ImportedPrescription | Refusal]) -> Tally:
    """Count the results of `read_path` or `read_bytes`."""
    taken, kinds = 0, []
    for result in results:
        if isinstance(result, Refusal):
            kinds.append(result.kind)
        else:
            taken += 1
    unreadable = kinds.count(RefusalKind.UNREADABLE)
    return Tally(taken, len(kinds) - unreadable, kinds.count(RefusalKind.NOT_FOR_DISPENSING), unreadable)


def _unreadable(source: str, reason: str) -> Refusal:
    return Refusal(element="file", reason=reason, kind=RefusalKind.UNREADABLE, source=source)


def read_bytes(
    data: bytes, source: str = "", options: Options | None = None
) -> Iterator[ImportedPrescription | Refusal]:
    """Every MedicationRequest in one JSON document; other resources are read where it refers to them."""
    if len(data) > FILE_BYTES_MAX:
        yield _unreadable(source, f"larger than {FILE_BYTES_MAX} bytes")
        return
    try:
        root: object = _decoder.decode(data.removeprefix(_BOM))
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError):
        yield _unreadable(source, "not JSON in UTF-8")
        return
    decided = options or Options()
    try:
        for count, place in enumerate(places(root, "MedicationRequest")):
            if count == REQUESTS_MAX:
                yield _unreadable(source, f"more than {REQUESTS_MAX} requests; the rest was not read")
                return
            position = f"{source}#{place.path}"[: len(source) + _PATH_LENGTH_MAX]
            try:
                yield take_request(place, position, decided)
            except RequestRefused as refused:
                yield Refusal(
                    element=refused.element, reason=refused.reason, kind=refused.kind, source=position,
                    resource_id=text(place.resource.get("id"))[:64],
                )  # fmt: skip
    except LimitExceeded as error:
        yield _unreadable(source, error.message)


def _files(path: Path) -> Iterator[Path]:
    """Files in the order of their names. Links below the start are not followed: they may lead anywhere."""
    for child in sorted(path.iterdir()):
        if child.is_symlink():
            continue
        if child.is_dir():
            yield from _files(child)
        elif child.suffix.lower() == ".json" and child.is_file():
            yield child


def _read_file(path: Path, source: str, options: Options | None) -> Iterator[ImportedPrescription | Refusal]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError:
        yield _unreadable(source, "cannot be opened")
        return
    yield from read_bytes(data, source, options)


def read_path(path: Path, options: Options | None = None) -> Iterator[ImportedPrescription | Refusal]:
    """Every MedicationRequest in a file, or in all ``.json`` files in a folder and the folders below it.

    Raises:
        InvalidInput: the path is neither file nor folder.
    """
    if path.is_file():
        yield from _read_file(path, path.name, options)
        return
    if not path.is_dir():
        raise InvalidInput("path: no such file or folder")
    for count, file in enumerate(_files(path)):
        source = file.relative_to(path).as_posix()
        if count == FILES_MAX:
            yield _unreadable(source, f"more than {FILES_MAX} files; the rest was not read")
            return
        yield from _read_file(file, source, options)
