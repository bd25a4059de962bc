"""How a prescription is told in a few lines of text."""

from __future__ import annotations

from datetime import date

from ledger import Prescription

__all__ = ["prescription_lines"]


def prescription_lines(document: bytes, p: Prescription, today: date, *, brief: bool = False) -> list[str]:
    """Lines for a terminal: product, fills and who holds them, balance, anomalies."""
    issued = p.issued
    head = f"{document.hex()} {p.status.value}"
    if issued is not None:
        head += f": {issued.product.name} {issued.product.strength}, {issued.fills} fills, until {issued.valid_until}"
        if date.fromisoformat(issued.valid_until) < today:
            head += " (expired)"
    lines = [head]
    if brief:
        return lines
    if issued is not None:
        lines.append(f"  dosage: {' | '.join(p.dosage)}")
    for fill in p.fills:
        holder = f" held by {fill.holder.hex()[:8]}" if fill.holder else ""
        lines.append(f"  fill {fill.number}: {fill.status.value}{holder}, {fill.remaining} units left")
    b = p.balance
    lines.append(
        f"  balance: {b.authorised} authorised = {b.dispensed} dispensed + {b.remaining} remaining "
        f"+ {b.forfeited} forfeited; over-supplied {b.over_supply}"
    )
    lines += [
        f"  anomaly {a.id.hex()} {a.kind}{' resolved' if a.resolutions else ' OPEN'}" for a in p.anomalies
    ]
    return lines
