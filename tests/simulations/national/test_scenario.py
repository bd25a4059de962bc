"""Scenario files: what is wrong in one ends in an error that names the key and the remedy."""

from __future__ import annotations

import json

import pytest

from ledger.errors import InvalidInput
from nodes.cli.main import main
from simulations.scenario import (
    FAULTS_MAX,
    HOURS_MAX,
    SCENARIO_BYTES_MAX,
    library,
    load_scenario,
    parse_scenario,
)

GOOD = """
name = "mine"
hours = 48
[title]
sv = "Min"
en = "Mine"
[reason]
sv = "Prov"
en = "A trial"
"""
FAULT = '\n[[faults]]\nkind = "agency-down"\nfrom_hour = 1\nuntil_hour = 20\n'


def parse(text: str):
    return parse_scenario(text.encode())


def test_the_library_has_the_named_scenarios():
    assert set(library()) >= {
        "outage-2016", "planned-14h", "two-weeks-without-agency", "region-cut-off", "islands-of-single-pharmacies",
        "rolling-power-cuts", "radio-9600-only", "stolen-pharmacy-key", "ransomware-restore", "return-of-1400",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(library()))
def test_a_file_of_the_library_bears_its_name_and_a_reason_in_both_languages(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.reason.sv != scenario.reason.en


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (GOOD + "hours =", "no TOML"),
        (GOOD.replace("hours = 48", "hours = 0"), r"\$.hours"),
        (GOOD.replace("hours = 48", f"hours = {HOURS_MAX + 1}"), r"\$.hours"),
        (GOOD.replace("hours", "hour", 1), "hours?"),
        (GOOD.replace('"mine"', '"Min Egen"'), r"\$.name"),
        (GOOD.replace('"mine"', '"mine\\n"'), r"\$.name"),
        (GOOD + FAULT.replace("agency-down", "meteor"), r"\$.faults\[0\].kind"),
        (GOOD + FAULT.replace("= 20", "= 1"), r"faults\[0\].until_hour"),
        (GOOD + FAULT.replace("= 20", "= 49"), r"faults\[0\].until_hour"),
        (GOOD + FAULT + 'regions = ["ZZ"]\n', r"faults\[0\].regions"),
        (GOOD + FAULT + "share = 1.5\n", r"\$.faults\[0\].share"),
        (GOOD + FAULT * (FAULTS_MAX + 1), r"\$.faults"),
        (GOOD + "[figures]\nunknown = 1.0\n", "figures.unknown"),
        (GOOD + '[figures]\ncoverage = "all"\n', r"\$.figures"),
        (GOOD + "[policy]\nstale_hours = -1\n", r"\$.policy.stale_hours"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(text, names):
    with pytest.raises(InvalidInput, match=names) as caught:
        parse(text)
    assert caught.value.advice


def test_faults_up_to_the_limit_are_taken():
    assert len(parse(GOOD + FAULT * FAULTS_MAX).faults) == FAULTS_MAX


def test_a_file_longer_than_any_scenario_is_not_parsed():
    with pytest.raises(InvalidInput, match="bytes"):
        parse(GOOD + "#" * SCENARIO_BYTES_MAX)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InvalidInput, match="no TOML"):
        parse_scenario(b"\xff\xfe")


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        load_scenario(str(tmp_path / "missing.toml"))
    assert "outage-2016" in caught.value.advice


def test_the_digest_names_the_content():
    assert parse(GOOD).digest != parse(GOOD.replace("48", "49")).digest


def test_the_command_runs_a_file_of_ones_own_and_answers_in_json(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + FAULT)
    assert main(["simulate", str(path), "--scale", "0.05", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pharmacies"] == 70
    assert {m["arrangement"] for m in answer["measures"]} >= {"today", "agency", "chosen"}


def test_the_command_fails_where_the_outcome_is_not_the_expected_one(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + FAULT + '\n[[expect]]\narrangement = "today"\nsame_day_min = 1.0\n')
    assert main(["simulate", str(path), "--scale", "0.05"]) == 1
    assert "not as expected" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--scale", "0"], ["--scale", "nan"], ["--seed", "-1"]])
def test_options_out_of_bounds_are_refused(option, capsys):
    assert main(["simulate", "outage-2016", *option]) == 1
    assert option[0] in capsys.readouterr().err
