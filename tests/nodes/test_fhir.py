"""Promises of `nodes.fhir`: a request anywhere in a file is taken, or refused by element; no silent loss."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InvalidInput
from ledger.events import (
    Coded,
    ControlledClass,
    Criticality,
    Person,
    PersonRole,
    PrescriptionIssued,
    decode_event,
    encode_event,
)
from ledger.persons import (
    COORDINATION_NUMBER,
    FHIR_REFERENCE,
    NPL_PACK_ID,
    PERSONAL_NUMBER,
    PRESCRIBER_CODE,
    lookup_key,
)
from nodes.fhir import (
    FILE_BYTES_MAX,
    UNKNOWN_PRESCRIBER,
    ImportedPrescription,
    Options,
    Refusal,
    RefusalKind,
    Standing,
    read_bytes,
    read_path,
    tally,
)

EXAMPLES = Path(__file__).resolve().parents[3] / "shared" / "fhir-examples"
Json = dict[str, object]

PATIENT: Json = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": PERSONAL_NUMBER, "value": "19900222-2397"}],
    "name": [{"use": "official", "given": ["Test", "Martin"], "family": "Provsson"}],
    "gender": "male",
    "birthDate": "1990-02-22",
}
MEDICATION: Json = {
    "resourceType": "Medication",
    "id": "m1",
    "code": {
        "coding": [
            {"system": "http://www.whocc.no/atc", "code": "C07AB02"},
            {"system": NPL_PACK_ID, "code": "20030101100055", "display": "Metoprolol"},
        ],
        "text": "Metoprolol depottablett 50 mg",
    },
    "form": {"text": "Depottablett"},
    "ingredient": [
        {
            "itemCodeableConcept": {"text": "metoprololsuccinat"},
            "strength": {"numerator": {"value": 47.5, "unit": "mg"}, "denominator": {"value": 1}},
        }
    ],
    "amount": {"numerator": {"value": 98, "unit": "st"}, "denominator": {"value": 1}},
}
PRESCRIBER: Json = {
    "resourceType": "Practitioner",
    "id": "d1",
    "identifier": [{"system": PRESCRIBER_CODE, "value": 9000001}],
}


def request(**changes: object) -> Json:
    """A complete request; None takes an element away."""
    whole: Json = {
        "resourceType": "MedicationRequest",
        "id": "r1",
        "identifier": [{"system": "urn:test", "value": "rx-1"}],
        "groupIdentifier": {"value": "order-7"},
        "status": "active",
        "intent": "order",
        "medicationReference": {"reference": "#m1"},
        "subject": {"reference": "#p1"},
        "requester": {"reference": "#d1"},
        "authoredOn": "2026-03-01",
        "dosageInstruction": [{"text": "1 tablett 1 gång dagligen"}],
        "dispenseRequest": {
            "quantity": {"value": 98, "unit": "st"},
            "numberOfRepeatsAllowed": 3,
            "dispenseInterval": {"value": 3, "code": "mo"},
            "validityPeriod": {"start": "2026-03-01", "end": "2027-02-28"},
        },
        "contained": [PATIENT, MEDICATION, PRESCRIBER],
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not None}


def read(root: object, options: Options | None = None) -> list[ImportedPrescription | Refusal]:
    return list(read_bytes(json.dumps(root).encode(), "file.json", options))


def taken(root: object, options: Options | None = None) -> ImportedPrescription:
    (result,) = read(root, options)
    assert isinstance(result, ImportedPrescription), result
    return result


def refused(root: object) -> Refusal:
    (result,) = read(root)
    assert isinstance(result, Refusal), result
    return result


def issued(imported: ImportedPrescription) -> PrescriptionIssued:
    """The event that `issue` would write."""
    return PrescriptionIssued(
        person=Person(imported.prescriber, PersonRole.PRESCRIBER),
        command=bytes(16),
        nonce=bytes(16),
        district="SE-AB-0180",
        issued=imported.issued,
        patient=imported.patient,
        product=imported.product,
        dosage=imported.dosage,
        fills=imported.fills,
        packs_per_fill=imported.packs_per_fill,
        interval_days=imported.interval_days,
        valid_from=imported.valid_from,
        valid_until=imported.valid_until,
        substitution=imported.substitution,
        controlled=imported.controlled,
        criticality=imported.criticality,
        prescriber=imported.prescriber,
        workplace=imported.workplace,
        order_serial=imported.order_serial,
        external_id=imported.external_id,
        comment=imported.comment,
    )


def test_a_complete_request_is_held_whole() -> None:
    got = taken(request())
    assert got.patient.identifier == Coded(PERSONAL_NUMBER, "199002222397")
    assert (got.patient.name, got.patient.sex, got.patient.birth_date) == (
        "Test Martin Provsson", "male", "1990-02-22",
    )  # fmt: skip
    assert got.product.pack == Coded(NPL_PACK_ID, "20030101100055")
    assert (got.product.atc, got.product.form, got.product.strength) == ("C07AB02", "Depottablett", "47,5 mg")
    assert (got.product.pack_quantity, got.product.unit, got.packs_per_fill) == (98, "st", 1)
    assert (got.fills, got.interval_days) == (4, 90)
    assert (got.issued, got.valid_from, got.valid_until) == ("2026-03-01", "2026-03-01", "2027-02-28")
    assert got.dosage == "1 tablett 1 gång dagligen"
    assert got.prescriber == Coded(PRESCRIBER_CODE, "9000001")
    assert (got.order_serial, got.external_id) == ("order-7", Coded("urn:test", "rx-1"))
    assert got.standing is Standing.DISPENSABLE


def test_what_is_taken_can_be_issued() -> None:
    """The event made of it survives the ledger's own strict decoding."""
    event = issued(taken(request()))
    assert decode_event(encode_event(event)).event == event


def _bundle(*resources: Json, **more: object) -> Json:
    entries = [{"fullUrl": f"urn:uuid:{r['id']}".upper(), "resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries, **more}


LOOSE = request(
    contained=None, subject={"reference": "urn:uuid:p1"}, medicationReference={"reference": "Medication/m1"},
    requester={"reference": "https://care.example/fhir/Practitioner/d1/_history/2"},
)  # fmt: skip


@pytest.mark.parametrize(
    "wrap",
    [
        lambda bundle: bundle,
        lambda bundle: [bundle],
        lambda bundle: {"resourceType": "Bundle", "entry": [{"resource": bundle}]},
        lambda bundle: {"resourceType": "Parameters", "parameter": [{"name": "x", "resource": bundle}]},
    ],
)
def test_references_are_followed_inside_bundles_of_any_nesting(wrap: object) -> None:
    assert callable(wrap)
    doctor = {**PRESCRIBER}
    bundle = _bundle(LOOSE, PATIENT, MEDICATION)
    entries = bundle["entry"]
    assert isinstance(entries, list)
    entries.append({"fullUrl": "https://care.example/fhir/Practitioner/d1", "resource": doctor})
    got = taken(wrap(bundle))
    assert got.patient.identifier == Coded(PERSONAL_NUMBER, "199002222397")
    assert got.product.atc == "C07AB02"
    assert got.prescriber.code == "9000001"


def test_resources_beside_each_other_in_parameters_find_each_other() -> None:
    parts = [{"name": "r", "resource": r} for r in (PATIENT, MEDICATION, PRESCRIBER)]
    root = {"resourceType": "Parameters", "parameter": [{"name": "in", "part": parts}, {"resource": LOOSE}]}
    assert taken(root).patient.name == "Test Martin Provsson"


def test_two_patients_under_one_id_are_none() -> None:
    """The wrong patient is worse than no patient: the reference is kept instead."""
    other: Json = {**PATIENT, "name": [{"text": "Någon Annan"}]}
    got = taken(_bundle(LOOSE, PATIENT, other, MEDICATION, PRESCRIBER))
    assert got.patient.identifier == Coded(FHIR_REFERENCE, "urn:uuid:p1")


def test_a_request_contained_in_a_dispensing_uses_what_is_contained_beside_it() -> None:
    inner = request(contained=None)
    root = {
        "resourceType": "MedicationDispense", "status": "cancelled",
        "contained": [inner, PATIENT, MEDICATION, PRESCRIBER],
        "authorizingPrescription": [{"reference": "#r1"}],
    }  # fmt: skip
    got = taken(root)
    assert got.patient.name == "Test Martin Provsson"
    assert got.standing is Standing.DISPENSABLE


@pytest.mark.parametrize("quantity", [0, 98])
def test_a_request_with_a_supply_in_the_file_is_held_until_that_is_registered(quantity: int) -> None:
    """R9: an import that forgets a supply would let the same fill be dispensed again."""
    supply: Json = {
        "resourceType": "MedicationDispense", "id": "s1", "status": "completed",
        "quantity": {"value": quantity}, "authorizingPrescription": [{"reference": "MedicationRequest/r1"}],
    }  # fmt: skip
    got = taken(_bundle(LOOSE, PATIENT, MEDICATION, PRESCRIBER, supply))
    assert got.standing is Standing.ON_HOLD
    assert any(note.startswith("MedicationDispense:") for note in got.notes)


@pytest.mark.parametrize(
    ("status", "standing"),
    [("active", Standing.DISPENSABLE), ("on-hold", Standing.ON_HOLD), ("unknown", Standing.ON_HOLD),
     ("completed", Standing.HISTORY), ("stopped", Standing.HISTORY)],
)  # fmt: skip
def test_the_status_at_the_source_decides_the_standing(status: str, standing: Standing) -> None:
    assert taken(request(status=status)).standing is standing


@pytest.mark.parametrize(
    ("changes", "element"),
    [({"status": "cancelled"}, "status"), ({"status": "draft"}, "status"),
     ({"status": "entered-in-error"}, "status"), ({"intent": "plan"}, "intent"),
     ({"intent": "option"}, "intent"), ({"doNotPerform": True}, "doNotPerform")],
)  # fmt: skip
def test_what_is_not_for_dispensing_is_refused_and_counted_apart(changes: Json, element: str) -> None:
    refusal = refused(request(**changes))
    assert (refusal.element, refusal.kind) == (element, RefusalKind.NOT_FOR_DISPENSING)
    assert tally([refusal]).not_for_dispensing == 1


@pytest.mark.parametrize(
    ("changes", "element"),
    [
        ({"status": None}, "status"),
        ({"status": "vivid"}, "status"),
        ({"intent": None}, "intent"),
        ({"subject": None}, "subject"),
        ({"subject": {"display": "Bara Namn"}}, "subject"),
        ({"authoredOn": None, "dispenseRequest": None}, "authoredOn"),
        ({"authoredOn": "2026"}, "authoredOn"),
        ({"authoredOn": "2026-02-30"}, "authoredOn"),
        ({"medicationReference": None}, "medication"),
        ({"medicationReference": {"reference": "Medication/away"}}, "medicationReference"),
        ({"modifierExtension": [{"url": "urn:x"}]}, "modifierExtension"),
        ({"dosageInstruction": [{"text": "x" * 2001}]}, "dosageInstruction"),
        ({"dispenseRequest": {"quantity": {"value": 0.5}}}, "dispenseRequest.quantity"),
        ({"dispenseRequest": {"quantity": {"value": 0}}}, "dispenseRequest.quantity"),
        ({"dispenseRequest": {"quantity": {"value": -1}}}, "dispenseRequest.quantity"),
        ({"dispenseRequest": {"quantity": {"value": 10**40}}}, "dispenseRequest.quantity"),
        ({"dispenseRequest": {"numberOfRepeatsAllowed": 99}}, "dispenseRequest.numberOfRepeatsAllowed"),
        ({"dispenseRequest": {"numberOfRepeatsAllowed": -1}}, "dispenseRequest.numberOfRepeatsAllowed"),
        ({"dispenseRequest": {"dispenseInterval": {"value": 5, "code": "eons"}}},
         "dispenseRequest.dispenseInterval"),
        ({"dispenseRequest": {"validityPeriod": {"end": "2025-01-01"}}},
         "dispenseRequest.validityPeriod.end"),
        ({"dispenseRequest": {"validityPeriod": {"start": "2026-03"}}},
         "dispenseRequest.validityPeriod.start"),
        ({"medicationReference": None, "medicationCodeableConcept": {"coding": [
            {"system": "http://snomed.info/sct", "code": "763158003"}]}}, "medicationCodeableConcept"),
        ({"medicationReference": None, "medicationCodeableConcept": {"text": "X", "coding": [
            {"system": NPL_PACK_ID, "code": "123"}]}}, "medication.coding"),
    ],
)  # fmt: skip
def test_every_refusal_names_the_element_and_a_reason(changes: Json, element: str) -> None:
    refusal = refused(request(**changes))
    assert refusal.element == element
    assert refusal.reason
    assert refusal.resource_id == "r1"
    assert tally([refusal]).refused == 1


def test_a_wrong_identity_number_is_refused_and_not_repeated() -> None:
    """R13: neither number nor name of the patient, nor the file's name, is in what gets logged."""
    patient = {**PATIENT, "identifier": [{"system": PERSONAL_NUMBER, "value": "199002222398"}]}
    refusal = refused(request(contained=[patient, MEDICATION, PRESCRIBER]))
    assert refusal.element == "Patient.identifier"
    logged = str(refusal)
    assert not any(word in logged for word in ("199002222398", "Provsson", "file.json"))


def test_a_prescription_shown_in_a_log_names_no_patient() -> None:
    shown = repr(taken(request()))
    assert not any(word in shown for word in ("2397", "Provsson", "file.json", "tablett 1"))


def test_a_swedish_number_is_preferred_whatever_its_place_and_system_form() -> None:
    identifiers = [
        {"system": "https://local.example/mrn", "value": "77", "use": "official"},
        {"system": "urn:oid:1.2.752.129.2.1.3.1", "value": "900222-2397"},
    ]
    patient = {**PATIENT, "identifier": identifiers}
    got = taken(request(contained=[patient, MEDICATION, PRESCRIBER]))
    assert got.patient.identifier == Coded(PERSONAL_NUMBER, "199002222397")
    assert any(note.startswith("Patient.identifier:") for note in got.notes)


def test_a_coordination_number_is_known_by_its_day() -> None:
    patient = {**PATIENT, "identifier": [{"system": PERSONAL_NUMBER, "value": "199002822394"}]}
    got = taken(request(contained=[patient, MEDICATION, PRESCRIBER]))
    assert got.patient.identifier is not None
    assert got.patient.identifier.system == COORDINATION_NUMBER


def test_a_patient_without_number_is_birth_date_sex_and_name() -> None:
    patient = {**PATIENT, "identifier": []}
    got = taken(request(contained=[patient, MEDICATION, PRESCRIBER]))
    assert got.patient.identifier is None
    assert lookup_key(got.patient)[1] == "1990-02-22|male|test martin provsson"


def test_a_patient_who_is_not_in_the_file_is_kept_by_reference() -> None:
    got = taken(request(subject={"reference": "Patient/away", "display": "Kalle Prov"}))
    assert got.patient.identifier == Coded(FHIR_REFERENCE, "Patient/away")
    assert got.patient.name == "Kalle Prov"
    assert any(note.startswith("subject:") for note in got.notes)


def test_an_identifier_in_a_list_where_one_belongs_is_taken() -> None:
    got = taken(request(subject={"identifier": [{"system": "urn:nhs", "value": "1"}], "display": "K"}))
    assert got.patient.identifier == Coded("urn:nhs", "1")


def test_the_day_of_issue_is_the_swedish_day() -> None:
    """Half past eleven at night in UTC is the next day in Sweden."""
    late = "2026-07-01T22:30:00Z"
    assert taken(request(authoredOn=late)).issued == "2026-07-02"
    assert taken(request(authoredOn="2026-12-01T22:30:00Z")).issued == "2026-12-01"
    assert taken(request(authoredOn="2026-12-01T23:30:00+00:00")).issued == "2026-12-02"


def test_a_missing_day_of_issue_is_taken_from_the_signature_and_noted() -> None:
    signature: Json = {"resourceType": "Provenance", "id": "v", "recorded": "2026-03-04T09:00:00+01:00"}
    root = _bundle({**LOOSE, "authoredOn": ""}, PATIENT, MEDICATION, PRESCRIBER, signature)
    got = taken(root)
    assert got.issued == "2026-03-04"
    assert any("Provenance.recorded" in note for note in got.notes)


def test_validity_is_a_year_where_the_source_is_silent() -> None:
    got = taken(request(authoredOn="2024-02-29", dispenseRequest=None))
    assert got.valid_until == "2025-02-28"
    assert any("validityPeriod" in note for note in got.notes)


def test_packs_are_counted_as_packs() -> None:
    """98 tablets in a pack, 196 prescribed: two packs a fill."""
    assert taken(request(dispenseRequest={"quantity": {"value": 196, "unit": "st"}})).packs_per_fill == 2
    in_packs = taken(request(dispenseRequest={"quantity": {"value": 2, "unit": "Packung"}}))
    assert (in_packs.packs_per_fill, in_packs.product.pack_quantity) == (2, 98)
    odd = taken(request(dispenseRequest={"quantity": {"value": 30.0, "unit": "st"}}))
    assert (odd.packs_per_fill, odd.product.pack_quantity) == (1, 30)


def test_a_text_is_built_from_the_structured_dose() -> None:
    dose = {
        "timing": {"repeat": {"frequency": 1, "period": 8, "periodUnit": "h", "when": ["ACM"],
                              "boundsDuration": {"value": 3, "code": "d"}}},
        "doseAndRate": [{"doseRange": {"low": {"value": 0.5, "unit": "mg"},
                                       "high": {"value": 1, "unit": "mg"}}}],
        "asNeededBoolean": True,
        "route": {"text": "i munnen"},
    }  # fmt: skip
    got = taken(request(dosageInstruction=[dose]))
    assert got.dosage == "0,5 mg till 1 mg 1 gång på 8 timmar före frukost i 3 dagar vid behov i munnen"


def test_the_prescribers_own_words_stand_and_in_their_order() -> None:
    told = [
        {"sequence": 2, "text": "sedan 1"},
        {"sequence": 1, "text": "först 2", "patientInstruction": "med mat"},
    ]
    assert taken(request(dosageInstruction=told)).dosage == "först 2. med mat; sedan 1"


def test_a_missing_dosage_is_said_not_invented() -> None:
    got = taken(request(dosageInstruction=None))
    assert got.dosage == "Dosering ej angiven"
    assert "dosageInstruction: no dosage in the source" in got.notes


def test_what_cannot_be_held_is_listed() -> None:
    more = {
        "reasonCode": [{"text": "hypertoni"}],
        "extension": [{"url": "https://x.example/StructureDefinition/benefit"}],
        "dispenseRequest": {"performer": {"reference": "x"}, "initialFill": {}},
        "dosageInstruction": [{"text": "1", "maxDosePerLifetime": {"value": 1}, "oddity": 1}],
    }
    notes = taken(request(**more)).notes
    for element in ("reasonCode", "extension(benefit)", "dispenseRequest.performer",
                    "dispenseRequest.initialFill", "dosageInstruction[0].oddity"):  # fmt: skip
        assert f"{element}: not held" in notes
    assert any("maxDosePerLifetime" in note for note in notes)
    assert not any("hypertoni" in note for note in notes)


def test_a_prescriber_is_code_else_reference_else_the_importers_default() -> None:
    away = taken(request(requester={"reference": "Practitioner/away"}))
    assert away.prescriber == Coded(FHIR_REFERENCE, "Practitioner/away")
    assert taken(request(requester=None)).prescriber == UNKNOWN_PRESCRIBER
    chosen = Coded(PRESCRIBER_CODE, "9000002")
    assert taken(request(requester=None), Options(prescriber=chosen)).prescriber == chosen


def test_a_role_gives_prescriber_and_workplace() -> None:
    role = {
        "resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "#d1"},
        "organization": {"identifier": {"system": "1.2.752.29.4.71", "value": "12345678901"}},
    }  # fmt: skip
    got = taken(request(requester={"reference": "#role"}, contained=[PATIENT, MEDICATION, PRESCRIBER, role]))
    assert (got.prescriber.code, got.workplace) == ("9000001", "12345678901")


@pytest.mark.parametrize(
    ("medicine", "controlled", "criticality"),
    [
        ({"text": "OxyContin (oxikodon)"}, ControlledClass.II, Criticality.ORDINARY),
        ({"text": "Co-codamol 30mg/500mg"}, ControlledClass.III, Criticality.ORDINARY),
        ({"text": "Zopiklon"}, ControlledClass.IV, Criticality.ORDINARY),
        ({"text": "X", "coding": [{"system": "http://www.whocc.no/atc", "code": "N06BA04"}]},
         ControlledClass.II, Criticality.ORDINARY),
        ({"text": "X", "coding": [{"system": "http://www.whocc.no/atc", "code": "A10AB05"}]},
         ControlledClass.NONE, Criticality.LIFE_SUSTAINING),
        ({"text": "Novolog 100u/ml"}, ControlledClass.NONE, Criticality.LIFE_SUSTAINING),
        ({"text": "Alvedon"}, ControlledClass.NONE, Criticality.ORDINARY),
    ],
)  # fmt: skip
def test_class_and_criticality_are_guessed_and_the_guess_is_noted(
    medicine: Json, controlled: ControlledClass, criticality: Criticality
) -> None:
    got = taken(request(medicationReference=None, medicationCodeableConcept=medicine))
    assert (got.controlled, got.criticality) == (controlled, criticality)
    assert any(note.startswith("controlled:") for note in got.notes)


def test_no_substitution_is_kept() -> None:
    assert not taken(request(substitution={"allowedBoolean": False})).substitution
    assert not taken(
        request(substitution={"allowedCodeableConcept": {"coding": [{"code": "N"}]}})
    ).substitution
    assert taken(request()).substitution


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe{}", b"<Bundle/>", b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200,
     b" " * (FILE_BYTES_MAX + 1)],
    ids=["empty", "cut", "utf16", "xml", "open", "deep", "large"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_refusal_and_no_request(data: bytes) -> None:
    """R15: hostile input ends in a typed refusal."""
    (result,) = read_bytes(data)
    assert isinstance(result, Refusal)
    assert (result.element, result.kind) == ("file", RefusalKind.UNREADABLE)
    assert tally([result]) == tally([result, *read_bytes(b"{}")])
    assert tally([result]).unreadable == 1


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert tally(read_bytes(b"\xef\xbb\xbf" + json.dumps(request()).encode())).taken == 1


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_names = ["value", "unit", "code", "coding", "system", "reference", "repeat", "start", "text"]
_junk = st.recursive(
    _scalars | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(request())), _junk, max_size=4), _junk, _junk)
def test_any_shape_of_any_element_is_taken_within_bounds_or_refused(
    changes: Json, patient_part: object, medicine_part: object
) -> None:
    """R15: dirty input never raises, and what is taken can be issued."""
    changes.pop("resourceType", None)
    dirty = request(**changes)
    dirty.setdefault(
        "contained", [{**PATIENT, "identifier": patient_part}, {**MEDICATION, "amount": medicine_part}]
    )
    for result in read(dirty):
        if isinstance(result, ImportedPrescription):
            event = issued(result)
            assert decode_event(encode_event(event)).event == event
        else:
            assert result.element
            assert result.reason


def test_a_folder_is_walked_in_order_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.JSON").write_text(json.dumps(request(id="two")), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(request(id="one")), encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "README.md").write_text("not JSON", encoding="utf-8")
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    (tmp_path / "loop").symlink_to(tmp_path)
    results = list(read_path(tmp_path))
    assert [r.resource_id for r in results] == ["one", "two", ""]
    assert [r.source.partition("#")[0] for r in results] == ["a.json", "b/two.JSON", "broken.json"]
    assert tally(results).share == 1.0


def test_a_path_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        list(read_path(tmp_path / "nothing"))


def test_foreign_examples_are_taken_four_times_in_five_and_every_refusal_says_why(tmp_path: Path) -> None:
    """Examples of six countries, written by others; where they are not at hand, ours in their shapes."""
    folder = EXAMPLES
    if not folder.is_dir():
        folder = tmp_path
        shapes = [request(), _bundle(LOOSE, PATIENT, MEDICATION, PRESCRIBER), request(status="completed"),
                  {"resourceType": "Parameters", "parameter": [{"resource": request()}]},
                  request(status="cancelled")]  # fmt: skip
        for number, shape in enumerate(shapes):
            (tmp_path / f"{number}.json").write_text(json.dumps(shape), encoding="utf-8")
    results = list(read_path(folder))
    count = tally(results)
    assert count.taken + count.refused >= 5
    assert count.unreadable == 0
    assert count.share >= 0.8
    for result in results:
        if isinstance(result, Refusal):
            assert result.element
            assert len(result.reason) > 8
        else:
            event = issued(result)
            assert decode_event(encode_event(event)).event == event
            assert lookup_key(result.patient)
            assert result.notes


def test_results_are_plain_values() -> None:
    """They go to screens and files as they are."""
    assert msgspec.json.decode(msgspec.json.encode(taken(request())), type=ImportedPrescription) == taken(
        request()
    )
