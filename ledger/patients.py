"""The second fold: what is odd between the prescriptions of one patient, equal on all nodes that hold them.

- *possible_duplicate*: two documents for one order. The printed order serial with the same product is the exact key, as
  is one command of one node; the fallback is the same substance in overlapping periods, issued within
  `DUPLICATE_DAYS` of each other, when at least one was registered from paper or telephone.
- *double_dispensing* across a reissue: supplies on the replaced prescription that are not in the causal past of the
  heads that its replacement names, beside supplies on the replacement. No clock is asked (R5).
- A decision may stand in any of the documents involved.

Holds no name and no number: only document ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from itertools import combinations

import msgspec
from msgspec import Struct

from ledger.anomalies import Anomaly, Resolution
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


def fold_patient(
    prescriptions: Mapping[DocumentId, Prescription],
    known_at_reissue: Mapping[DocumentId, Collection[Link]] | None = None,
) -> PatientState:
    """Fold the prescriptions of one patient, in any order.

    Args:
        prescriptions: the folded states, by document.
        known_at_reissue: for each replacing document, the facts of the one it replaces that its author knew: the
            named heads and their causal past (`ledger.facts.with_past`). Where none are given, the heads alone count
            as known: rather one anomaly too many.
    """
    held = [p for _, p in sorted(prescriptions.items()) if p.status is not Status.RETIRED]
    decided: dict[bytes, list[Resolution]] = {}
    for p in held:
        for anomaly_id, resolution in p.decisions:
            decided.setdefault(anomaly_id, []).append(resolution)
    found: dict[bytes, Anomaly] = {}
    for one, other in combinations(held, 2):
        why = _duplicate(one, other)
        if why:
            _add(found, decided, "possible_duplicate", (one, other), why)
    for replacing in held:
        issued = replacing.issued
        replaced = prescriptions.get(DocumentId(issued.replaces)) if issued and issued.replaces else None
        if issued is None or replaced is None or not any(s.net for s in replacing.supplies):
            continue
        known = set((known_at_reissue or {}).get(replacing.document, ())) | set(
            map(Link, issued.replaced_heads)
        )
        if any(s.net and not known.intersection(s.ids) for s in replaced.supplies):
            why = "on a prescription and its replacement"
            _add(found, decided, "double_dispensing", (replaced, replacing), why)
    anomalies = tuple(a for _, a in sorted(found.items()))
    return PatientState(anomalies, tagged_hash("patient state", msgspec.msgpack.encode(anomalies)))


def _add(
    found: dict[bytes, Anomaly],
    decided: Mapping[bytes, list[Resolution]],
    kind: str,
    pair: tuple[Prescription, Prescription],
    detail: str,
) -> None:
    documents = sorted(p.document for p in pair)
    anomaly_id = tagged_hash("patient anomaly", kind.encode(), *documents)[:16]
    found[anomaly_id] = Anomaly(
        id=anomaly_id, kind=kind, document=documents[0], fill=0,
        involved=tuple(sorted(p.issued_by for p in pair if p.issued_by)), detail=detail,
        resolutions=tuple(sorted(decided.get(anomaly_id, ()), key=lambda r: r.event)),
    )  # fmt: skip


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
