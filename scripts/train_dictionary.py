"""Train the dictionary of content format 1 from synthetic events.

Run once, as ``python -m scripts.train_dictionary FILE``: what it gave is `ledger/dictionaries/1.zdict`,
frozen for ever. A test trains it again and compares.

A trained dictionary holds pieces of its samples and is published, so what the samples say must be nobody's:
the only identity numbers are the tax agency's test numbers, names are invented, codes of people and places
(beginning with 00, or of the invented company 99999) and pack ids (of the year 2099) are not handed out. Ids,
keys and signatures are random in every sample, so that none is common enough to enter.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from ledger.events import (
    AccessBlocked,
    AnomalyResolved,
    Basis,
    Coded,
    ConsentGiven,
    ControlledClass,
    Criticality,
    CustodyDelegated,
    CustodyDelegationEnded,
    CustodyRecovered,
    CustodyTransferred,
    Dispensed,
    DispensingCorrected,
    DispensingReversed,
    Event,
    ExternalIdAttached,
    FeedClosed,
    FeedEnd,
    FillKey,
    FillRight,
    KeyEpochStarted,
    Level,
    NodeAdmitted,
    NodeRevoked,
    NotDispensed,
    Origin,
    Patient,
    Person,
    PersonRole,
    PolicySet,
    PrescriptionAmended,
    PrescriptionCancelled,
    PrescriptionHeld,
    PrescriptionIssued,
    PrescriptionResumed,
    Product,
    ReadinessDeclared,
    RetentionSet,
    ReversalKind,
    SupplyLinked,
    WrappedKey,
    encode_event,
)
from ledger.persons import GLN, LICENCE_CODE, NPL_PACK_ID, PERSONAL_NUMBER, PRESCRIBER_CODE

__all__ = ["DICTIONARY_BYTES", "SAMPLES", "TEST_NUMBERS", "sample", "train"]

DICTIONARY_BYTES = 12 * 1024
"""Contents not trained on took 192 bytes on average with 8 KiB, 185 with 12, 183 with 16, 180 with 24."""
SAMPLES = 6000
TEST_NUMBERS = ("189002029800", "196101182803", "199002222397", "200001252386")
"""Personal numbers that the Swedish Tax Agency sets aside for tests."""
_PEOPLE = tuple(
    zip(
        TEST_NUMBERS,
        ("Hulda Prövengren", "Birgitta Exempelsson", "Mattias Övningström", "Alva Testlund"),
        ("female", "female", "male", "female"),
        strict=True,
    )
)
_DOSAGES = (
    "1 tablett dagligen",
    "1 tablett 2 gånger dagligen",
    "1 tablett vid behov, högst 3 gånger per dygn",
    "2 tabletter till natten mot smärta",
    "1 kapsel 3 gånger dagligen i 7 dagar",
    "1 tablett på morgonen",
    "2 inhalationer morgon och kväll",
    "1 tablett på morgonen mot högt blodtryck",
    "1 injektion subkutant före måltid",
    "appliceras tunt 1-2 gånger dagligen",
    "10 ml vid behov mot hosta",
    "1 depottablett dagligen mot hjärtsvikt",
    "enligt särskild ordination",
    "1-2 tabletter vid behov mot smärta, högst 8 tabletter per dygn",
)
_MEDICINES = (
    ("Alvedon", "N02BE01", "filmdragerad tablett", "500 mg"),
    ("Metformin", "A10BA02", "filmdragerad tablett", "500 mg"),
    ("Atorvastatin", "C10AA05", "filmdragerad tablett", "20 mg"),
    ("Enalapril", "C09AA02", "tablett", "10 mg"),
    ("Levaxin", "H03AA01", "tablett", "100 mikrogram"),
    ("NovoRapid", "A10AB05", "injektionsvätska, lösning", "100 E/ml"),
    ("Waran", "B01AA03", "tablett", "2,5 mg"),
    ("Metoprolol", "C07AB02", "depottablett", "50 mg"),
    ("Omeprazol", "A02BC01", "enterokapsel, hård", "20 mg"),
    ("Eliquis", "B01AF01", "filmdragerad tablett", "5 mg"),
    ("Ventilastin", "R03AC02", "inhalationspulver", "200 mikrogram/dos"),
    ("Sertralin", "N06AB06", "tablett", "50 mg"),
    ("Kåvepenin", "J01CE02", "filmdragerad tablett", "1 g"),
    ("Zopiklon", "N05CF01", "filmdragerad tablett", "7,5 mg"),
)
_PACKS = (20, 28, 30, 56, 98, 100)
_DISTRICTS = (
    "SE-AB-0180",
    "SE-C-0380",
    "SE-O-1480",
    "SE-M-1280",
    "SE-BD-2580",
    "SE-AC-2480",
    "SE-Z-2380",
    "SE-F-0680",
)
_REASONS = (
    "",
    "",
    "",
    "",
    "medicinen är slut",
    "innehavaren nås inte",
    "förväxling av förpackning",
    "patienten ångrade sig",
)
_PURPOSES = ("vård", "uppföljning", "förskrivning")


class _World:
    """Draws the parts of events."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.raw = rng.randbytes
        self.one = rng.choice

    def common(self) -> dict[str, Any]:
        level = self.one((Level.NORMAL, Level.NORMAL, Level.NORMAL, Level.STRAINED, Level.CRISIS))
        late = self.rng.random() < 0.05
        happened = self.rng.randint(1_780_000_000_000, 1_830_000_000_000) if late else None
        return {"command": self.raw(16), "governance": self.raw(8), "level": level, "happened": happened}

    def pharmacist(self) -> Person:
        return Person(Coded(LICENCE_CODE, f"00{self.rng.randint(0, 9999):04}"), PersonRole.PHARMACIST)

    def prescriber(self) -> Person:
        return Person(Coded(PRESCRIBER_CODE, f"00{self.rng.randint(0, 99999):05}"), PersonRole.PRESCRIBER)

    def officer(self, role: PersonRole = PersonRole.OFFICER) -> Person:
        return Person(Coded("agency", f"{self.rng.randint(0, 999):03}"), role)

    def pharmacy(self) -> Coded:
        return Coded(GLN, f"73599999{self.rng.randint(0, 99999):05}")

    def product(self) -> Product:
        name, atc, form, strength = self.one(_MEDICINES)
        day = f"2099{self.rng.randint(1, 12):02}{self.rng.randint(1, 28):02}"
        pack = Coded(NPL_PACK_ID, f"{day}100{self.rng.randint(0, 999):03}")
        return Product(
            pack=pack,
            name=name,
            atc=atc,
            form=form,
            strength=strength,
            pack_quantity=self.one(_PACKS),
            unit=self.one(("st", "st", "st", "ml")),
        )

    def patient(self) -> Patient:
        number, name, sex = self.one(_PEOPLE)
        born = f"{number[:4]}-{number[4:6]}-{number[6:8]}"
        known = self.rng.random() < 0.9
        return Patient(
            name=name, identifier=Coded(PERSONAL_NUMBER, number) if known else None, birth_date=born, sex=sex
        )

    def fills(self) -> tuple[int, ...]:
        return tuple(range(1, self.rng.randint(2, 5)))

    def keys(self) -> tuple[FillKey, ...]:
        return tuple(FillKey(fill, self.raw(32)) for fill in self.fills())


def _dispensed(w: _World) -> Event:
    basis = w.one((Basis.CUSTODY, Basis.CUSTODY, Basis.CUSTODY, Basis.BEARER, Basis.EMERGENCY))
    return Dispensed(
        person=w.pharmacist(),
        fill=w.rng.randint(1, 4),
        quantity=w.one(_PACKS),
        basis=basis,
        rests_on=None if basis is Basis.EMERGENCY else w.raw(32),
        pharmacy=w.pharmacy(),
        bearer_signature=w.raw(64) if basis is Basis.BEARER else None,
        reason=w.one(_REASONS),
        product=w.product() if w.rng.random() < 0.4 else None,
        part=w.rng.random() < 0.1,
        patient=w.patient() if basis is Basis.EMERGENCY and w.rng.random() < 0.2 else None,
        **w.common(),
    )


def _issued(w: _World) -> Event:
    bearer = w.rng.random() < 0.2
    year, month, day = w.one((2025, 2026, 2027)), w.rng.randint(1, 12), w.rng.randint(1, 28)
    who = w.prescriber()
    return PrescriptionIssued(
        person=who,
        nonce=w.raw(16),
        district=w.one(_DISTRICTS),
        issued=f"{year}-{month:02}-{day:02}",
        valid_until=f"{year + 1}-{month:02}-{day:02}",
        patient=w.patient(),
        product=w.product(),
        dosage=w.one(_DOSAGES),
        fills=w.rng.randint(1, 4),
        packs_per_fill=w.rng.randint(1, 2),
        interval_days=w.one((0, 0, 80, 90)),
        substitution=w.rng.random() < 0.9,
        prescriber=who.code,
        workplace=f"000000{w.rng.randint(0, 99999):05}",
        controlled=w.one(
            (ControlledClass.NONE,) * 6 + (ControlledClass.IV, ControlledClass.V, ControlledClass.II)
        ),
        criticality=w.one((Criticality.ORDINARY, Criticality.ORDINARY, Criticality.LIFE_SUSTAINING)),
        origin=w.one((Origin.ELECTRONIC,) * 8 + (Origin.PAPER, Origin.TELEPHONE, Origin.REGISTER)),
        holder=None if bearer else w.raw(16),
        chosen_pharmacy=w.raw(16) if w.rng.random() < 0.8 else None,
        bearer_keys=w.keys() if bearer else (),
        order_serial=w.raw(6).hex() if w.rng.random() < 0.3 else "",
        replaces=w.raw(16) if w.rng.random() < 0.05 else None,
        external_id=Coded("nll", w.raw(8).hex()) if w.rng.random() < 0.3 else None,
        **w.common(),
    )


def _transferred(w: _World) -> Event:
    bearer = w.rng.random() < 0.1
    who = w.one((w.officer(PersonRole.OPERATOR), w.pharmacist()))
    rights = tuple(FillRight(fill, w.raw(32)) for fill in w.fills())
    return CustodyTransferred(
        person=who,
        fills=rights,
        to=None if bearer else w.raw(16),
        bearer_keys=w.keys() if bearer else (),
        **w.common(),
    )


_KINDS: tuple[tuple[int, Callable[[_World], Event]], ...] = (
    (40, _dispensed),
    (26, _issued),
    (12, _transferred),
    (
        3,
        lambda w: PrescriptionCancelled(
            person=w.prescriber(), reason=w.rng.randint(1, 4), comment="utsatt", **w.common()
        ),
    ),
    (3, lambda w: PrescriptionAmended(person=w.prescriber(), dosage=w.one(_DOSAGES), **w.common())),
    (
        2,
        lambda w: PrescriptionAmended(person=w.prescriber(), instructions="mot högt blodtryck", **w.common()),
    ),
    (2, lambda w: PrescriptionHeld(person=w.pharmacist(), reason="väntar på besked", **w.common())),
    (2, lambda w: PrescriptionResumed(person=w.pharmacist(), **w.common())),
    (
        2,
        lambda w: CustodyRecovered(
            person=w.officer(), fills=w.fills(), reason="innehavaren nås inte", **w.common()
        ),
    ),
    (2, lambda w: NotDispensed(person=w.pharmacist(), fill=1, reason="medicinen är slut", **w.common())),
    (
        2,
        lambda w: DispensingReversed(
            person=w.pharmacist(),
            supply=w.raw(32),
            kind=w.one(tuple(ReversalKind)),
            reason=w.one(_REASONS),
            **w.common(),
        ),
    ),
    (
        2,
        lambda w: DispensingCorrected(
            person=w.pharmacist(),
            supply=w.raw(32),
            quantity=w.one(_PACKS),
            reason=w.one(_REASONS),
            **w.common(),
        ),
    ),
    (
        3,
        lambda w: ExternalIdAttached(
            person=w.pharmacist(), external_id=Coded("nll", w.raw(8).hex()), **w.common()
        ),
    ),
    (
        2,
        lambda w: SupplyLinked(
            person=w.pharmacist(),
            supply=w.raw(32),
            document=w.raw(16),
            entry_key=w.raw(32),
            fill=w.rng.randint(1, 4),
            quantity=w.one(_PACKS),
            **w.common(),
        ),
    ),
    (1, lambda w: AccessBlocked(person=w.officer(), purposes=_PURPOSES[: w.rng.randint(1, 3)], **w.common())),
    (
        1,
        lambda w: ConsentGiven(
            person=w.pharmacist(), purposes=_PURPOSES[: w.rng.randint(1, 3)], **w.common()
        ),
    ),
    (
        1,
        lambda w: AnomalyResolved(
            person=w.officer(), anomaly=w.raw(16), decision="utredd, ingen åtgärd", **w.common()
        ),
    ),
    (1, lambda w: CustodyDelegated(person=w.officer(PersonRole.OPERATOR), to=w.raw(16), **w.common())),
    (
        1,
        lambda w: CustodyDelegationEnded(
            person=w.officer(PersonRole.OPERATOR), delegation=w.raw(32), **w.common()
        ),
    ),
    (1, lambda w: FeedClosed(person=w.officer(PersonRole.OPERATOR), successor=w.raw(16), **w.common())),
    (1, lambda w: NodeAdmitted(person=w.officer(), certificate=w.raw(400), **w.common())),
    (
        1,
        lambda w: NodeRevoked(
            person=w.officer(),
            node=w.raw(16),
            reason="stulen dator",
            good=(FeedEnd(w.raw(16), w.rng.randint(1, 99999), w.raw(32)),),
            **w.common(),
        ),
    ),
    (
        1,
        lambda w: KeyEpochStarted(
            person=w.officer(),
            district=w.one(_DISTRICTS),
            epoch=w.rng.randint(1, 9),
            wrapped=(WrappedKey(w.raw(16), w.raw(92)),),
            **w.common(),
        ),
    ),
    (
        1,
        lambda w: ReadinessDeclared(
            person=w.officer(), declared=w.one(tuple(Level)), districts=(w.one(_DISTRICTS),), **w.common()
        ),
    ),
    (1, lambda w: PolicySet(person=w.officer(), policy=w.raw(60), legal_basis="övning", **w.common())),
    (1, lambda w: RetentionSet(person=w.officer(), before_month=w.rng.randint(24200, 24400), **w.common())),
)


def sample(rng: random.Random) -> bytes:
    """One content as it is compressed: document, parents and event."""
    make = rng.choices([make for _, make in _KINDS], weights=[weight for weight, _ in _KINDS])[0]
    event = make(_World(rng))
    founds = isinstance(event, PrescriptionIssued)
    parents = [] if founds else sorted(rng.randbytes(32) for _ in range(rng.choice((1, 1, 1, 1, 2))))
    return msgspec.msgpack.encode((rng.randbytes(16), parents, encode_event(event)))


def train() -> bytes:
    """The dictionary: the same bytes whenever it is trained."""
    rng = random.Random(1)
    samples = [sample(rng) for _ in range(SAMPLES)]
    return zstandard.train_dictionary(DICTIONARY_BYTES, samples).as_bytes()


def main() -> None:
    """Write the dictionary and print its hash."""
    dictionary = train()
    Path(sys.argv[1]).write_bytes(dictionary)
    print(hashlib.sha256(dictionary).hexdigest())


if __name__ == "__main__":
    main()
