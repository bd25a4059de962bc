"""Promises of `ledger.persons`: one person one key, wrong numbers refused by field, values never repeated."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvalidInput
from ledger.events import Coded, Patient
from ledger.persons import (
    BIRTH,
    COORDINATION_NUMBER,
    FHIR_REFERENCE,
    GLN,
    HSA_ID,
    NPL_PACK_ID,
    PERSONAL_NUMBER,
    RESERVE_NUMBER,
    IdentifierKind,
    birth_date,
    canonical_system,
    check_digit,
    identifier_kind,
    lookup_key,
    validate_gln,
    validate_identifier,
    validate_licence_code,
    validate_npl_pack,
    validate_prescriber_code,
)

# The tax agency's published test numbers, as HL7 Sweden's example patients carry them.
TEST_NUMBERS = ("189002029800", "196101182803", "199002222397", "200001252386")
TODAY = date(2026, 3, 1)


@pytest.mark.parametrize("number", TEST_NUMBERS)
def test_official_test_numbers_are_taken_as_they_stand(number: str) -> None:
    assert validate_identifier(PERSONAL_NUMBER, number) == Coded(PERSONAL_NUMBER, number)


@pytest.mark.parametrize(
    "written", ["19610118-2803", "610118-2803", "6101182803", " 196101182803 ", "19610118 2803"]
)
@pytest.mark.parametrize("system", [PERSONAL_NUMBER, "urn:oid:1.2.752.129.2.1.3.1", "1.2.752.129.2.1.3.1"])
def test_every_way_of_writing_gives_one_form(system: str, written: str) -> None:
    assert validate_identifier(system, written, today=TODAY).code == "196101182803"


def test_plus_says_that_the_person_is_a_hundred() -> None:
    """The century mark, not the clock, tells 1890 from 1990."""
    assert validate_identifier(PERSONAL_NUMBER, "900202+9800", today=date(1995, 1, 1)).code == "189002029800"
    assert validate_identifier(PERSONAL_NUMBER, "000125-2386", today=TODAY).code == "200001252386"


def test_ten_digits_of_tomorrow_are_of_the_last_century() -> None:
    assert validate_identifier(PERSONAL_NUMBER, "900222-2397", today=date(1990, 2, 22)).code[:4] == "1990"
    assert validate_identifier(PERSONAL_NUMBER, "900222-2397", today=date(1990, 2, 21)).code[:4] == "1890"


def test_ten_digits_without_today_are_refused() -> None:
    with pytest.raises(InvalidInput, match="century"):
        validate_identifier(PERSONAL_NUMBER, "610118-2803")


@given(st.integers(2, 11), st.integers(1, 9))
def test_any_changed_digit_is_refused_and_not_repeated(place: int, step: int) -> None:
    """R13: the error names the field, never the number. (The century is outside the check digit.)"""
    number = TEST_NUMBERS[1]
    changed = number[:place] + str((int(number[place]) + step) % 10) + number[place + 1 :]
    with pytest.raises(InvalidInput) as caught:
        validate_identifier(PERSONAL_NUMBER, changed, field="patient.identifier")
    assert "patient.identifier" in str(caught.value)
    assert changed not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "number",
    ["199013222397", "199002302397", "199002002397", "19900222239", "1990022223977", "19900222-239x",
     "\u0661\u0669900222-2397", "", "   ", "0000-00-00"],
)  # fmt: skip
def test_impossible_numbers_are_refused(number: str) -> None:
    with pytest.raises(InvalidInput):
        validate_identifier(PERSONAL_NUMBER, number)


def test_a_birth_in_the_future_is_refused() -> None:
    with pytest.raises(InvalidInput, match="future"):
        validate_identifier(PERSONAL_NUMBER, "200001252386", today=date(1999, 12, 31))


def _coordination() -> str:
    """In the series 23x, which the tax agency keeps for test numbers."""
    stem = "900282" + "239"
    return "19" + stem + str(check_digit(stem))


def test_a_coordination_number_has_sixty_added_to_its_day() -> None:
    number = _coordination()
    taken = validate_identifier(COORDINATION_NUMBER, number)
    assert taken == Coded(COORDINATION_NUMBER, number)
    assert identifier_kind(taken) is IdentifierKind.COORDINATION
    assert birth_date(taken) == date(1990, 2, 22)


def test_numbers_under_the_wrong_swedish_system_get_the_right_one() -> None:
    """A host that files coordination numbers as personal numbers finds the same patient."""
    assert validate_identifier(PERSONAL_NUMBER, _coordination()).system == COORDINATION_NUMBER
    assert validate_identifier(COORDINATION_NUMBER, TEST_NUMBERS[0]).system == PERSONAL_NUMBER


def test_a_coordination_day_must_be_a_day_plus_sixty() -> None:
    stem = "900292239"  # 32 February
    with pytest.raises(InvalidInput, match="calendar"):
        validate_identifier(COORDINATION_NUMBER, "19" + stem + str(check_digit(stem)))


@pytest.mark.parametrize(
    ("written", "code"),
    [("20210325-AB12", "20210325AB12"), ("20210325abc1", "20210325ABC1"), ("20210325K069", "20210325K069")],
)
def test_reserve_numbers_are_taken_in_one_form(written: str, code: str) -> None:
    assert validate_identifier(RESERVE_NUMBER, written) == Coded(RESERVE_NUMBER, code)


@pytest.mark.parametrize("written", ["20210325IO12", "20211325AB12", "20210325AB1", "20210325AB123", "AB12"])
def test_malformed_reserve_numbers_are_refused(written: str) -> None:
    with pytest.raises(InvalidInput):
        validate_identifier(RESERVE_NUMBER, written)


def test_foreign_numbers_pass_through() -> None:
    foreign = validate_identifier("https://fhir.nhs.uk/Id/nhs-number", " 9449304130 ")
    assert foreign == Coded("https://fhir.nhs.uk/Id/nhs-number", "9449304130")
    assert identifier_kind(foreign) is IdentifierKind.FOREIGN
    assert birth_date(foreign) is None


@pytest.mark.parametrize(
    ("system", "code"), [("", "1"), ("urn:x", ""), ("urn:x", "1" * 129), ("u" * 129, "1"), ("urn:x", "a\0b")]
)
def test_empty_overlong_and_control_characters_are_refused(system: str, code: str) -> None:
    with pytest.raises(InvalidInput):
        validate_identifier(system, code)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_taken_or_refused_with_a_typed_error(system: str, code: str) -> None:
    """R15, and normalising twice changes nothing."""
    for candidate in (system, PERSONAL_NUMBER, RESERVE_NUMBER, COORDINATION_NUMBER):
        try:
            taken = validate_identifier(candidate, code, today=TODAY)
        except InvalidInput:
            continue
        assert validate_identifier(taken.system, taken.code, today=TODAY) == taken


def test_the_lookup_key_of_a_number_does_not_depend_on_how_it_was_written() -> None:
    keys = {
        lookup_key(Coded(PERSONAL_NUMBER, "19900222-2397")),
        lookup_key(Coded("1.2.752.129.2.1.3.1", "199002222397")),
        lookup_key(Patient(name="Anna Ek", identifier=Coded(PERSONAL_NUMBER, "199002222397"))),
    }
    assert keys == {(PERSONAL_NUMBER, "199002222397")}


def test_without_a_number_birth_date_sex_and_levelled_name_are_the_key() -> None:
    composed = Patient(name="Åsa  Öberg", birth_date="1953-04-12", sex="female")
    decomposed = Patient(name="ÅSA Öberg ", birth_date="1953-04-12", sex="female")
    assert lookup_key(composed) == lookup_key(decomposed) == (BIRTH, "1953-04-12|female|åsa öberg")
    assert lookup_key(composed) != lookup_key(Patient(name="Åsa Öberg", birth_date="1953-04-12", sex="male"))


def test_a_question_by_malformed_number_is_refused() -> None:
    with pytest.raises(InvalidInput):
        lookup_key(Coded(PERSONAL_NUMBER, "199002222398"))


@given(st.text(max_size=30), st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_every_patient_of_an_event_has_a_key(system: str, code: str, name: str) -> None:
    """R15: a peer's malformed number, or a patient with nothing but a name, never stops the index."""
    for identifier in (Coded(system, code), Coded(PERSONAL_NUMBER, code), None):
        patient = Patient(name=name, identifier=identifier)
        assert lookup_key(patient) == lookup_key(patient)


def test_an_unresolved_reference_is_a_key_of_its_own() -> None:
    assert lookup_key(Coded(FHIR_REFERENCE, "Patient/pat1")) == (FHIR_REFERENCE, "Patient/pat1")


def test_codes_of_prescribers_and_pharmacists_have_their_length() -> None:
    assert validate_prescriber_code("1234567").code == "1234567"
    assert validate_licence_code(" 123456 ").code == "123456"
    for wrong in ("123456", "12345678", "12345a7", "\u0661234567"):
        with pytest.raises(InvalidInput):
            validate_prescriber_code(wrong)
    with pytest.raises(InvalidInput):
        validate_licence_code("1234567")


def test_a_location_number_has_gs1s_check_digit() -> None:
    assert validate_gln("7350000000009") == Coded(GLN, "7350000000009")
    with pytest.raises(InvalidInput, match="check digit"):
        validate_gln("7350000000007")
    with pytest.raises(InvalidInput, match="13 digits"):
        validate_gln("735000000000")


def test_a_pack_id_has_fourteen_digits() -> None:
    assert validate_npl_pack("20060824100052") == Coded(NPL_PACK_ID, "20060824100052")
    with pytest.raises(InvalidInput):
        validate_npl_pack("2006082410005")


def test_the_two_oids_of_the_hsa_id_are_one_system() -> None:
    assert canonical_system("1.2.752.29.4.19") == canonical_system("urn:oid:1.2.752.129.2.1.4.1") == HSA_ID
