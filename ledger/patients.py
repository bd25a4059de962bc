"""The second fold: what is odd between the prescriptions of one patient, equal on all nodes that hold them.

- *possible_duplicate*: two documents for one order. The printed order serial with the same product is the exact key, as
  is one command of one node; the fallback is the same substance in overlapping periods, issued within
  `DUPLICATE_DAYS` of each other, when at least one was registered from paper or telephone.
- *double_dispensing* across a reissue: supplies on the replaced prescription that its replacement did not know of.

Holds no name and no number: only document ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import combinations

from msgspec import Struct

from ledger.anomalies import Anomaly
from ledger.events import Origin, PrescriptionIssued
from ledger.history import Prescription, Status
from ledger.ids import DocumentId, Link, tagged_hash

__all__ = ["DUPLICATE_DAYS", "PatientState", "fold_patient"]

DUPLICATE_DAYS = 14
"""A paper is registered, and the queued e-prescription arrives, within days; two weeks covers the assumed outage."""


class PatientState(Struct, frozen=True):
    """Anomalies across a patient's prescriptions, by id, and their digest."""

    anomalies: tuple[Anomaly, ...]
    digest: bytes


def fold_patient(prescriptions: Mapping[DocumentId, Prescription]) -> PatientState:
    """Fold the prescriptions of one patient, in any order."""
    held = [p for _, p in sorted(prescriptions.items()) if p.status is not Status.RETIRED]
    found: dict[bytes, Anomaly] = {}
    for one, other in combinations(held, 2):
        why = _duplicate(one, other)
        if why:
            _add(found, "possible_duplicate", one, other, why)
    for replacing in held:
        issued = replacing.issued
        replaced = (
            prescriptions.get(DocumentId(issued.replaces)) if issued is not None and issued.replaces else None
        )
        if replaced is not None and _both_supplied(replaced, replacing):
            _add(found, "double_dispensing", replaced, replacing, "on a prescription and its replacement")
    anomalies = tuple(a for _, a in sorted(found.items()))
    return PatientState(anomalies, tagged_hash("patient state", *(a.id for a in anomalies)))


def _add(found: dict[bytes, Anomaly], kind: str, one: Prescription, other: Prescription, detail: str) -> None:
    documents = sorted((one.document, other.document))
    links = tuple(sorted(link for p in (one, other) for link in ([p.issued_by] if p.issued_by else [])))
    anomaly_id = tagged_hash("patient anomaly", kind.encode(), *documents)[:16]
    resolutions = tuple(
        r for p in (one, other) for a in p.anomalies if a.id == anomaly_id for r in a.resolutions
    )
    found[anomaly_id] = Anomaly(
        id=anomaly_id,
        kind=kind,
        document=documents[0],
        fill=0,
        involved=links,
        detail=detail,
        resolutions=resolutions,
    )


def _substance(issued: PrescriptionIssued) -> str:
    return issued.product.atc or f"{issued.product.pack.system}|{issued.product.pack.code}"


def _duplicate(one: Prescription, other: Prescription) -> str:
    a, b = one.issued, other.issued
    if a is None or b is None:
        return ""
    if other.document == a.replaces or one.document == b.replaces:
        return ""
    same_substance = _substance(a) == _substance(b)
    if a.order_serial and a.order_serial == b.order_serial and same_substance:
        return "same order"
    if one.author == other.author and a.command == b.command:
        return "same command"
    if Status.CANCELLED in (one.status, other.status) or not same_substance:
        return ""
    if not {a.origin, b.origin} & {Origin.PAPER, Origin.TELEPHONE}:
        return ""
    apart = abs((date.fromisoformat(a.issued) - date.fromisoformat(b.issued)).days)
    overlapping = (a.valid_from or a.issued) <= b.valid_until and (b.valid_from or b.issued) <= a.valid_until
    return "same substance and period" if apart <= DUPLICATE_DAYS and overlapping else ""


def _both_supplied(replaced: Prescription, replacing: Prescription) -> bool:
    """Whether the old one was supplied unknown to the new one, and the new one was supplied too."""
    issued = replacing.issued
    if issued is None or not any(s.net for s in replacing.supplies):
        return False
    known = set(map(Link, issued.replaced_heads))
    # The reissue names the heads it knew: a supply that is one of them, or came before one, was known. What came
    # later cannot be among the ancestors of a head, so with a cancellation in between all supplies known are heads'
    # ancestors; those are exactly the ones that the replaced prescription's balance held at its reissue.
    return any(
        s.net and not known.intersection(s.ids) and s.at_ms > _issued_ms(issued) for s in replaced.supplies
    )


def _issued_ms(issued: PrescriptionIssued) -> int:
    from datetime import UTC, datetime

    day = date.fromisoformat(issued.issued)
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
