"""Identity numbers and codes of persons, places and packs: checked, and in one form before they are written.

- One person, one key: whatever hyphens, century marks or OIDs a host sends, the same number comes out as the
  same `Coded`, so that the patient index finds it again on every node. Pure: "today" is an argument, never
  the clock (R5).
- Errors name the field and what is wrong with it, never the value (R13).
- Systems of other countries pass through untouched: a foreign number that we cannot check is still a number.
- A number that passes is well formed. Whether it was ever handed out, only the population register knows.

URIs and the pattern of the reserve number are those of HL7 Sweden's base profiles; check digit and "day plus
sixty" are the tax agency's.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from enum import StrEnum
from typing import Final

from ledger.errors import InvalidInput
from ledger.events import Coded, Patient

__all__ = [
    "BIRTH",
    "COORDINATION_NUMBER",
    "FHIR_REFERENCE",
    "GLN",
    "HSA_ID",
    "LICENCE_CODE",
    "NPL_ID",
    "NPL_PACK_ID",
    "PERSONAL_NUMBER",
    "PRESCRIBER_CODE",
    "RESERVE_NUMBER",
    "WORKPLACE_CODE",
    "IdentifierKind",
    "birth_date",
    "canonical_system",
    "check_digit",
    "identifier_kind",
    "lookup_key",
    "validate_gln",
    "validate_identifier",
    "validate_licence_code",
    "validate_npl_pack",
    "validate_prescriber_code",
]

PERSONAL_NUMBER: Final = "http://electronichealth.se/identifier/personnummer"
COORDINATION_NUMBER: Final = "http://electronichealth.se/identifier/samordningsnummer"
RESERVE_NUMBER: Final = "http://electronichealth.se/identifier/nationelltReservnummer"
PRESCRIBER_CODE: Final = "http://electronichealth.se/identifier/forskrivarkod"
LICENCE_CODE: Final = "http://electronichealth.se/identifier/legitimationskod"
HSA_ID: Final = "urn:oid:1.2.752.129.2.1.4.1"
WORKPLACE_CODE: Final = "urn:oid:1.2.752.29.4.71"
GLN: Final = "urn:oid:1.3.88"
NPL_PACK_ID: Final = "http://medication.ehm.se/nplpackid"
NPL_ID: Final = "http://medication.ehm.se/nplid"
FHIR_REFERENCE: Final = "urn:rxledger:fhir-reference"
"""A FHIR reference that could not be followed, kept as the only identifier there is."""
BIRTH: Final = "urn:rxledger:birth-date-sex-name"
"""Lookup key of a patient without any number; never written into an event."""

SYSTEM_LENGTH_MAX = 128
"""As `ledger.events.Coded` allows: the longest identifier URI in use is some 70 characters."""
CODE_LENGTH_MAX = 128
"""As `ledger.events.Coded` allows: foreign ids are up to 64 (a UUID URN has 45)."""

_ALIASES: Final = {
    "1.2.752.129.2.1.3.1": PERSONAL_NUMBER,
    "1.2.752.129.2.1.3.3": COORDINATION_NUMBER,
    "1.2.752.29.4.19": HSA_ID,
    "1.2.752.129.2.1.4.1": HSA_ID,
    "1.2.752.29.4.71": WORKPLACE_CODE,
    "1.3.88": GLN,
}
_SEPARATED = re.compile(r"(\d{6}|\d{8})([-+]?)(\d{4})", re.ASCII)
_RESERVE = re.compile(r"(\d{8})-?([A-HJ-NPR-UX-Z]{1,3}\d{1,3})", re.ASCII)
_RESERVE_TAIL = 4
_SHORT_DATE = 6
_LONG_DATE = 8
_COORDINATION_DAY = 60
_CENTURY = 100
_YEARS = range(1800, 2200)


class IdentifierKind(StrEnum):
    """What sort of number identifies a patient."""

    PERSONAL = "personnummer"
    COORDINATION = "samordningsnummer"
    RESERVE = "reservnummer"
    FOREIGN = "foreign"


_KINDS: Final = {
    PERSONAL_NUMBER: IdentifierKind.PERSONAL,
    COORDINATION_NUMBER: IdentifierKind.COORDINATION,
    RESERVE_NUMBER: IdentifierKind.RESERVE,
}


def canonical_system(system: str) -> str:
    """The one URI that we use for a system: bare and ``urn:oid:`` forms of known OIDs become theirs."""
    trimmed = system.strip()
    return _ALIASES.get(trimmed.removeprefix("urn:oid:"), trimmed)


def identifier_kind(identifier: Coded) -> IdentifierKind:
    """Which sort of number this is, by its system."""
    return _KINDS.get(canonical_system(identifier.system), IdentifierKind.FOREIGN)


def check_digit(digits: str) -> int:
    """The modulus-10 (Luhn) check digit over these digits, the last of them weighing 2."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        product = int(digit) * (1 + (place + 1) % 2)
        total += product // 10 + product % 10
    return -total % 10


def _calendar(text: str, field: str, *, offset: int = 0) -> date:
    """The date YYYYMMDD whose day is raised by `offset`."""
    year = int(text[:4])
    if year not in _YEARS:
        raise InvalidInput(f"{field}: the year of birth is out of bounds")
    try:
        return date(year, int(text[4:6]), int(text[6:8]) - offset)
    except ValueError:
        raise InvalidInput(f"{field}: holds no date of the calendar") from None


def _offset(day: int) -> int:
    return _COORDINATION_DAY if day > _COORDINATION_DAY else 0


def _with_century(short: str, mark: str, field: str, today: date | None) -> str:
    """YYMMDD with its century: the latest date that is not after today; ``+`` adds a hundred years."""
    if today is None:
        raise InvalidInput(f"{field}: ten digits do not tell the century; write twelve")
    offset = _offset(int(short[4:6]))
    century = today.year // _CENTURY
    full = f"{century:02d}{short}"
    # 29 February may exist in one of the centuries only, hence the comparison of text before a date is made.
    born = f"{full[:6]}{int(full[6:]) - offset:02d}" if offset else full
    if born > today.strftime("%Y%m%d"):
        century -= 1
    if mark == "+":
        century -= 1
    return f"{century:02d}{short}"


def _personal(code: str, field: str, today: date | None) -> Coded:
    match = _SEPARATED.fullmatch(code)
    if match is None:
        raise InvalidInput(f"{field}: a personal identity number has twelve digits, or ten with a separator")
    day, mark, tail = match.groups()
    if len(day) == _SHORT_DATE:
        day = _with_century(day, mark, field, today)
    offset = _offset(int(day[6:]))
    born = _calendar(day, field, offset=offset)
    if today is not None and born > today:
        raise InvalidInput(f"{field}: the date of birth lies in the future")
    if check_digit(day[2:] + tail[:3]) != int(tail[3]):
        raise InvalidInput(f"{field}: the check digit is wrong")
    return Coded(COORDINATION_NUMBER if offset else PERSONAL_NUMBER, day + tail)


def _reserve(code: str, field: str) -> Coded:
    match = _RESERVE.fullmatch(code.upper())
    if match is None or len(match[2]) != _RESERVE_TAIL:
        raise InvalidInput(f"{field}: a reserve number has eight digits and four letters or digits")
    _calendar(match[1], field)
    return Coded(RESERVE_NUMBER, match[1] + match[2])


def validate_identifier(
    system: str, code: str, *, today: date | None = None, field: str = "identifier"
) -> Coded:
    """A patient's identifier in its one form.

    Personal identity numbers come out with twelve digits and without hyphen. A coordination number sent as a
    personal number, or the other way round, gets the system that its day of birth tells: hosts mix them up,
    the index must not. The national reserve number's pattern is two letters and two digits or three and one;
    regions write one letter and three digits under the same system, so that is taken too.

    Args:
        system: URI, ``urn:oid:`` or bare OID.
        code: as the host has it.
        today: needed to read ten-digit numbers; also refuses a birth in the future.
        field: what the error calls it.

    Raises:
        InvalidInput: empty, too long, not of the system's form, no date of the calendar, or a wrong check
            digit.
    """
    known = canonical_system(system)
    compact = "".join(code.split())
    if not known or not compact:
        raise InvalidInput(f"{field}: system or code is empty")
    if len(known) > SYSTEM_LENGTH_MAX or len(code) > CODE_LENGTH_MAX:
        raise InvalidInput(f"{field}: system or code is too long")
    if known in (PERSONAL_NUMBER, COORDINATION_NUMBER):
        return _personal(compact, field, today)
    if known == RESERVE_NUMBER:
        return _reserve(compact, field)
    if not (known + code.strip()).isprintable():
        raise InvalidInput(f"{field}: system or code holds control characters")
    return Coded(known, code.strip())


def birth_date(identifier: Coded) -> date | None:
    """The date of birth inside a validated Swedish number; None for a foreign one.

    Raises:
        InvalidInput: not in the form that `validate_identifier` gives.
    """
    if identifier_kind(identifier) is IdentifierKind.FOREIGN:
        return None
    text = identifier.code[:_LONG_DATE]
    if len(text) < _LONG_DATE or not (text.isascii() and text.isdigit()):
        raise InvalidInput("identifier: holds no date of the calendar")
    return _calendar(text, "identifier", offset=_offset(int(text[6:])))


def lookup_key(who: Coded | Patient) -> tuple[str, str]:
    """System and canonical text under which the patient index finds somebody.

    A question about a number (`Coded`) is checked. A `Patient` as it stands in an event always has a key: a
    peer's malformed number is indexed as it was written, since a prescription that cannot be found is worse,
    and one bad event must never stop the index (R15). Check a question with `validate_identifier` before
    asking by `Patient`.

    Without a number it is birth date, sex and name (case, accents and spacing levelled out), so two people
    can share a key: a hit is a proposal, to be confirmed by a person.

    Raises:
        InvalidInput: a malformed number, given as `Coded`.
    """
    if isinstance(who, Coded):
        checked = validate_identifier(who.system, who.code, field="patient.identifier")
        return checked.system, checked.code
    if who.identifier is not None:
        try:
            return lookup_key(who.identifier)
        except InvalidInput:
            return canonical_system(who.identifier.system), "".join(who.identifier.code.split())
    name = unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFKC", who.name).casefold().split()))
    return BIRTH, f"{who.birth_date or 'unknown'}|{who.sex or 'unknown'}|{name}"


def _digits(code: str, length: int, what: str, field: str) -> str:
    compact = "".join(code.split())
    if len(compact) != length or not (compact.isascii() and compact.isdigit()):
        raise InvalidInput(f"{field}: {what} has {length} digits")
    return compact


def validate_prescriber_code(code: str, *, field: str = "prescriber") -> Coded:
    """A *förskrivarkod*: seven digits. How the seventh is formed is not published, so it is not checked.

    Raises:
        InvalidInput: not seven digits.
    """
    return Coded(PRESCRIBER_CODE, _digits(code, 7, "a prescriber's code", field))


def validate_licence_code(code: str, *, field: str = "person") -> Coded:
    """A *legitimationskod*: six digits.

    Raises:
        InvalidInput: not six digits.
    """
    return Coded(LICENCE_CODE, _digits(code, 6, "a licence code", field))


def validate_gln(code: str, *, field: str = "pharmacy") -> Coded:
    """A global location number: thirteen digits, the last of them GS1's check digit.

    Raises:
        InvalidInput: not thirteen digits, or a wrong check digit.
    """
    digits = _digits(code, 13, "a location number", field)
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits[:12]))
    if -weighted % 10 != int(digits[12]):
        raise InvalidInput(f"{field}: the check digit is wrong")
    return Coded(GLN, digits)


def validate_npl_pack(code: str, *, field: str = "product.pack") -> Coded:
    """An NPL pack id: fourteen digits, mostly a date and six more; no check digit.

    Raises:
        InvalidInput: not fourteen digits.
    """
    return Coded(NPL_PACK_ID, _digits(code, 14, "an NPL pack id", field))
