"""Train the dictionary of content format 1 from synthetic events. Run once; the file is frozen for ever.

Random ids differ in every sample, so none enters the dictionary.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import msgspec
import zstandard

from ledger.events import (
    Basis,
    Coded,
    ControlledClass,
    Criticality,
    CustodyTransferred,
    Dispensed,
    DispensingReversed,
    Event,
    ExternalIdAttached,
    FillKey,
    FillRight,
    Level,
    Origin,
    Patient,
    Person,
    PersonRole,
    PrescriptionAmended,
    PrescriptionCancelled,
    PrescriptionIssued,
    Product,
    ReversalKind,
    encode_event,
)
from ledger.persons import GLN, LICENCE_CODE, NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE

DOSAGES = (
    "1 tablett dagligen", "1 tablett 2 gånger dagligen", "1 tablett vid behov, högst 3 gånger per dygn",
    "2 tabletter till natten mot smärta", "1 kapsel 3 gånger dagligen i 7 dagar", "1 injektion subkutant före måltid",
    "2 inhalationer morgon och kväll", "1 tablett på morgonen mot högt blodtryck", "appliceras tunt 1-2 gånger dagligen",
    "10 ml vid behov mot hosta",
)  # fmt: skip
NAMES = ("Alvedon", "Metformin", "Atorvastatin", "Enalapril", "Levaxin", "NovoRapid", "Waran", "Metoprolol", "Omeprazol")
FORMS = ("tablett", "filmdragerad tablett", "kapsel", "injektionsvätska, lösning", "depottablett", "inhalationspulver")
REASONS = ("", "", "", "medicinen är slut", "innehavaren nås inte", "förväxling av förpackning", "patienten ångrade sig")


def sample(rng: random.Random) -> bytes:
    """One content as it is compressed."""
    raw = rng.randbytes
    pharmacist = Person(Coded(LICENCE_CODE, f"{rng.randint(100000, 999999)}"), PersonRole.PHARMACIST)
    prescriber = Person(Coded(PRESCRIBER_CODE, f"{rng.randint(1000000, 9999999)}"), PersonRole.PRESCRIBER)
    gln = Coded(GLN, f"735{rng.randint(10**9, 10**10 - 1)}")
    product = Product(
        pack=Coded(NPL_PACK_ID, f"{rng.randint(1995, 2024)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}100{rng.randint(0, 999):03}"),
        name=rng.choice(NAMES), atc=f"{rng.choice('ABCJNR')}{rng.randint(1, 16):02}A{rng.choice('ABCX')}{rng.randint(1, 9):02}",
        form=rng.choice(FORMS), strength=rng.choice(("500 mg", "5 mg", "100 E/ml", "20 mg", "2,5 mg")),
        pack_quantity=rng.choice((28, 30, 98, 100)),
    )  # fmt: skip
    level = rng.choice((Level.NORMAL, Level.NORMAL, Level.STRAINED, Level.CRISIS))
    common = {"command": raw(16), "governance": raw(8), "level": level}
    kind = rng.random()
    event: Event
    if kind < 0.45:
        basis = rng.choice((Basis.CUSTODY, Basis.CUSTODY, Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY))
        event = Dispensed(
            person=pharmacist, fill=rng.randint(1, 4), quantity=rng.choice((28, 30, 98, 100)), basis=basis,
            rests_on=None if basis is Basis.EMERGENCY else raw(32), pharmacy=gln,
            bearer_signature=raw(64) if basis is Basis.BEARER else None, reason=rng.choice(REASONS),
            product=product if rng.random() < 0.3 else None, part=rng.random() < 0.1, **common,
        )  # fmt: skip
    elif kind < 0.75:
        bearer = rng.random() < 0.2
        year, month = rng.choice((2025, 2026)), rng.randint(1, 12)
        event = PrescriptionIssued(
            person=prescriber, nonce=raw(16), district=f"SE-{rng.choice(('AB', 'C', 'O', 'M'))}-{rng.randint(100, 2599):04}",
            issued=f"{year}-{month:02}-{rng.randint(1, 28):02}", valid_until=f"{year + 1}-{month:02}-{rng.randint(1, 28):02}",
            patient=Patient(name=rng.choice(("Anna", "Erik", "Maria", "Lars")) + " " + rng.choice(("Andersson", "Berg", "Lund")),
                            identifier=Coded(PERSONAL_NUMBER, f"{rng.randint(1920, 2020)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{rng.randint(0, 9999):04}")),
            product=product, dosage=rng.choice(DOSAGES), fills=rng.randint(1, 4), packs_per_fill=rng.randint(1, 2),
            interval_days=rng.choice((0, 80, 90)), prescriber=prescriber.code, workplace=f"{rng.randint(10**12, 10**13)}",
            controlled=rng.choice((ControlledClass.NONE, ControlledClass.NONE, ControlledClass.IV, ControlledClass.II)),
            criticality=rng.choice((Criticality.ORDINARY, Criticality.LIFE_SUSTAINING)),
            origin=rng.choice((Origin.ELECTRONIC, Origin.ELECTRONIC, Origin.PAPER, Origin.TELEPHONE)),
            holder=None if bearer else raw(16), chosen_pharmacy=raw(16),
            bearer_keys=tuple(FillKey(n, raw(32)) for n in range(1, 3)) if bearer else (),
            order_serial=f"{rng.randint(10**9, 10**10)}" if rng.random() < 0.3 else "", **common,
        )  # fmt: skip
    elif kind < 0.88:
        event = CustodyTransferred(
            person=Person(prescriber.code, rng.choice((PersonRole.OPERATOR, PersonRole.PHARMACIST))),
            fills=tuple(FillRight(n, raw(32)) for n in range(1, rng.randint(2, 4))), to=raw(16), **common,
        )  # fmt: skip
    elif kind < 0.92:
        event = PrescriptionCancelled(person=prescriber, reason=rng.randint(1, 4), comment="utsatt", **common)
    elif kind < 0.95:
        event = PrescriptionAmended(person=prescriber, dosage=rng.choice(DOSAGES), **common)
    elif kind < 0.98:
        event = DispensingReversed(
            person=pharmacist, supply=raw(32), kind=rng.choice(tuple(ReversalKind)), reason=rng.choice(REASONS), **common
        )
    else:
        event = ExternalIdAttached(person=pharmacist, external_id=Coded("nll", raw(8).hex()), **common)
    parents = [raw(32)] if not isinstance(event, PrescriptionIssued) else []
    return msgspec.msgpack.encode((raw(16), parents, encode_event(event)))


def main() -> None:
    """Write the dictionary and print its hash."""
    rng = random.Random(1)
    samples = [sample(rng) for _ in range(6000)]
    dictionary = zstandard.train_dictionary(12288, samples).as_bytes()
    target = Path(sys.argv[1])
    target.write_bytes(dictionary)
    print(hashlib.sha256(dictionary).hexdigest())


if __name__ == "__main__":
    main()
