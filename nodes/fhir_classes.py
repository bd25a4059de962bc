"""Guesses that the FHIR edge must make: controlled class and criticality of a medicine, by ATC code or name.

**An assumption, not a source of truth.** A host that knows the class says so when it issues; FHIR has no
element for either. The tables err on the careful side: a name that looks controlled is controlled, so that
nothing slips into emergency supply for want of a code (R8). Swedish classes are meant to follow the medical
products agency's lists of narcotics (LVFS 2011:10, förteckning II-V) for what is prescribed in open care;
nobody who answers for that has checked them against the lists in force.
"""

from __future__ import annotations

import re
from typing import Final

from ledger.events import ControlledClass, Criticality

__all__ = ["guess_controlled", "guess_criticality"]

_CONTROLLED_ATC: Final = (
    ("N02AA59", ControlledClass.III),  # codeine in combinations
    ("N02AJ06", ControlledClass.III),  # codeine and paracetamol
    ("N02AJ13", ControlledClass.IV),  # tramadol and paracetamol
    ("N02AX02", ControlledClass.IV),  # tramadol
    ("N02AE01", ControlledClass.III),  # buprenorphine
    ("N07BC01", ControlledClass.III),
    ("N07BC51", ControlledClass.III),
    ("R05DA04", ControlledClass.III),  # codeine
    ("R05DA01", ControlledClass.III),  # ethylmorphine
    ("N05CD03", ControlledClass.III),  # flunitrazepam
    ("N07BC02", ControlledClass.II),  # methadone
    ("N02A", ControlledClass.II),  # all other opioids
    ("N06BA01", ControlledClass.II),  # amphetamines, methylphenidate
    ("N06BA02", ControlledClass.II),
    ("N06BA04", ControlledClass.II),
    ("N06BA12", ControlledClass.II),
    ("N06BA07", ControlledClass.IV),  # modafinil
    ("N03AE01", ControlledClass.IV),  # clonazepam
    ("N03AA02", ControlledClass.IV),  # phenobarbital
    ("N03AX16", ControlledClass.IV),  # pregabalin, as classed in 2018
    ("N02BF02", ControlledClass.IV),  # pregabalin, as classed since
    ("N05BA", ControlledClass.IV),  # benzodiazepines
    ("N05CD", ControlledClass.IV),
    ("N05CF", ControlledClass.IV),  # zopiclone, zolpidem
    ("N05CM02", ControlledClass.V),  # clomethiazole
)
"""Longer prefixes of a group stand before shorter ones: the first that fits counts."""

_CONTROLLED_NAMES: Final = (
    (ControlledClass.II, (
     r"oxycodon|oxikodon|morphin|morfin|fentanyl|methadon|metadon|hydromorphon|hydromorfon|pethidin|petidin|"
     r"tapentadol|ketobemidon|methylphenidate?|metylfenidat|lisdexam|dexamphet|dexamfet|amphetamin|amfetamin")),
    (ControlledClass.III,
     r"codein|kodein|co-codamol|buprenorphin|buprenorfin|ethylmorphin|etylmorfin|flunitrazepam"),
    (ControlledClass.IV, (
     r"tramadol|[a-z]+azepam|alprazolam|midazolam|triazolam|zopiclon|zopiklon|zolpidem|pregabalin|modafinil|"
     r"phenobarbit|fenobarbit")),
    (ControlledClass.V, r"clomethiazol|klometiazol"),
)  # fmt: skip

_LIFE_SUSTAINING_ATC: Final = (
    "A10A",  # insulins
    "B01A",  # anticoagulants and platelet inhibitors
    "C01AA05",  # digoxin
    "C01B",  # antiarrhythmics
    "C01CA24",  # adrenaline
    "H01BA02",  # desmopressin
    "H02A",  # corticosteroids for systemic use: adrenal insufficiency
    "H04AA",  # glucagon
    "L04A",  # immunosuppressants: transplants
    "N03A",  # antiepileptics
    "R03AC",  # bronchodilators for acute asthma
)
_LIFE_SUSTAINING_NAMES: Final = (
    r"insulin|novolog|novorapid|humalog|lantus|warfarin|apixaban|rivaroxaban|dabigatran|edoxaban|digoxin|epipen|"
    r"adrenalin|epinephrin|hydrocortison|hydrokortison|fludrocortison|glucagon|glukagon|tacrolimus|takrolimus|"
    r"ci[ck]losporin|phenytoin|fenytoin|valpro|carbamazepin|karbamazepin|lamotrigin|levetiracetam|salbutamol"
)
_controlled_names = tuple(
    (kind, re.compile(rf"\b(?:{words})", re.IGNORECASE)) for kind, words in _CONTROLLED_NAMES
)
_life_sustaining_names = re.compile(rf"\b(?:{_LIFE_SUSTAINING_NAMES})", re.IGNORECASE)


def guess_controlled(atc: str, name: str) -> ControlledClass:
    """The strictest class that code or name suggest; `ControlledClass.NONE` if neither does."""
    found = [kind for prefix, kind in _CONTROLLED_ATC if atc.startswith(prefix)][:1]
    found += [kind for kind, words in _controlled_names if words.search(name)]
    order = list(ControlledClass)
    return min(found, key=order.index, default=ControlledClass.NONE)


def guess_criticality(atc: str, name: str) -> Criticality:
    """Whether a missed fill endangers life, by code or name."""
    if atc.startswith(_LIFE_SUSTAINING_ATC) or _life_sustaining_names.search(name):
        return Criticality.LIFE_SUSTAINING
    return Criticality.ORDINARY
