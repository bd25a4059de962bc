"""The national model: what must hold whatever comes out, and what arithmetic says should come out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ledger.errors import InvalidInput
from ledger.policy import LEVELS
from simulations.national.arrangements import ARRANGEMENTS, arrangement
from simulations.national.comparison import Setting, compare, unmet
from simulations.national.decisions import CLASSES, Decisions, Place, Seen, placed
from simulations.national.figures import FIGURES, Figures, Kind
from simulations.national.outage import make_reach
from simulations.report.consistency import check_consistency
from simulations.scenario import library, load_scenario

SMALL = 0.05
"""70 pharmacies: every mechanism is there, and a run takes a second."""


def small(name: str, **changed: object):
    return msgspec.structs.replace(load_scenario(name), scale=SMALL, **changed)


def test_without_an_outage_the_sourced_daily_volume_is_served_within_two_percent():
    scenario = small("no-outage")
    days = scenario.hours / 24
    for name in ("today", "chosen"):
        total = compare(scenario, [arrangement(name)]).of(name).total
        a_day = (total.served + total.delayed) / days / scenario.scale
        assert a_day == pytest.approx(FIGURES["rows_per_day"].value, rel=0.02)


def test_the_daily_volume_follows_from_its_source():
    """87.5 M rows in 2017, growing by 1.7 % a year, in 2024."""
    assert pytest.approx(FIGURES["rows_per_day"].value, rel=0.01) == 87.5e6 * 1.017**7 / 365


def test_the_outage_of_2016_leaves_unserved_what_arithmetic_says():
    """From 14 on, four of nine opening hours, one of them the peak; by hand a quarter of a mean hour's load goes on."""
    weekday = 270_000 * 365 / 300
    by_hand_here = (3 * 0.85 / 8 + 0.15) * weekday - 4 / 9 * 0.25 * weekday
    daily, unserved = check_consistency()
    assert unserved.arithmetic == pytest.approx(by_hand_here)
    assert unserved.model == pytest.approx(unserved.arithmetic, rel=0.03)
    assert daily.model == pytest.approx(daily.arithmetic, rel=0.02)


def test_after_seven_hours_everybody_comes_again_the_next_day():
    assert compare(small("outage-2016"), [arrangement("today")]).of("today").total.refused == 0


@pytest.mark.parametrize("name", sorted(library()))
def test_every_scenario_of_the_library_comes_out_as_it_says_and_loses_nobody(name):
    scenario = small(name)
    expected = {e.arrangement for e in scenario.expect}
    comparison = compare(scenario, [a for a in ARRANGEMENTS if a.name in expected | {"bearer", "everything"}])
    assert unmet(scenario, comparison) == []
    for m in comparison.measures:
        for counts in (m.total, m.existing, m.numberless, *m.by_class.values(), *m.by_region.values()):
            assert counts.demand == counts.served + counts.delayed + counts.refused
            assert min(counts.served, counts.delayed, counts.refused) >= 0
        for parts in (m.by_class, m.by_region):
            assert sum(c.demand for c in parts.values()) == m.total.demand
            assert sum(c.served for c in parts.values()) == m.total.served
        assert sum(m.by_ground.values()) == m.total.demand
        assert m.by_ground["none"] == m.total.refused
        assert m.doubles.attempts == m.doubles.prevented + m.doubles.permitted
        assert m.doubles.found <= m.doubles.permitted


def test_custody_placed_before_the_outage_serves_more_than_custody_at_the_agency_and_that_more_than_today():
    scenario = small("two-weeks-without-agency")
    names = ("today", "agency", "chosen", "everything")
    comparison = compare(scenario, [arrangement(name) for name in names])
    had = [comparison.of(n).existing.share for n in names]
    assert had == sorted(had)
    assert had[2] > 2 * had[1]


def test_the_same_seed_gives_the_same_outcome_and_another_seed_another():
    one, again, other = (compare(small("planned-14h", seed=s)).measures for s in (1, 1, 2))
    assert one == again
    assert one[0].total != other[0].total or one[0].asked_by_day != other[0].asked_by_day


def test_every_arrangement_meets_the_same_demand():
    comparison = compare(small("outage-2016"))
    assert len({m.total.demand for m in comparison.measures}) == 1
    assert len({m.run for m in comparison.measures}) == len(ARRANGEMENTS)


def test_the_guard_never_lets_a_controlled_medicine_past_custody_and_paper():
    decisions = Decisions(load_scenario("two-weeks-without-agency"))
    controlled = decisions.permitted[:, CLASSES.index("controlled"), :]
    for seen in Seen:
        assert controlled[seen].any() == (seen in (Seen.OWN, Seen.BEARER_PAPER))


def test_in_production_without_a_legal_basis_nothing_goes_past_custody_and_paper():
    decisions = Decisions(small("outage-2016", kind="production"))
    assert not decisions.risky.any()
    assert decisions.permitted[Seen.OWN].all()
    assert not decisions.permitted[Seen.ELSEWHERE].any()


def test_levels_rise_with_the_agency_silent_as_the_policy_says():
    scenario = load_scenario("two-weeks-without-agency")
    rising = Decisions(scenario).levels_after(200)
    assert [LEVELS[rising[h]].value for h in (0, 1, 24, 168)] == ["normal", "strained", "crisis", "minimum"]


def test_the_plan_places_what_falls_due_within_its_days_and_nothing_later():
    at = {day: placed(chosen=True, custodian=True, days_until_due=day, plan_days=30) for day in (0, 30, 31)}
    assert at == {0: Place.PHARMACY, 30: Place.PHARMACY, 31: Place.AGENCY}
    assert placed(chosen=False, custodian=True, days_until_due=5, plan_days=30) is Place.CUSTODIAN
    assert placed(chosen=False, custodian=False, days_until_due=5, plan_days=30) is Place.AGENCY


def test_a_fault_strikes_whom_it_names():
    scenario = small("region-cut-off")
    setting = Setting(scenario)
    reach = make_reach(scenario, setting.figures, setting.country)
    struck = np.unique(setting.country.region[reach.struck.any(axis=1)])
    assert struck.tolist() == [20], "Norrbotten only"


def test_radio_joins_cut_off_pharmacies_to_their_hub():
    scenario = small("islands-of-single-pharmacies")
    setting = Setting(scenario)
    without = make_reach(scenario, setting.figures, setting.country)
    with_radio = make_reach(scenario, setting.figures, setting.country, radio=True)
    joined = (with_radio.island[:, 100] == 0).mean()
    assert (without.island[:, 100] == 0).mean() == 0
    assert 0.1 < joined < 0.5
    assert np.isfinite(with_radio.channel_bytes[:, 100]).any()


def test_every_figure_names_its_kind_source_range_and_who_can_confirm_it():
    for name, figure in FIGURES.items():
        assert figure.low <= figure.value <= figure.high, name
        assert all((figure.source, figure.confirm, figure.sv, figure.en, figure.unit)), name
        assert (figure.kind is Kind.ASSUMED) == figure.source.startswith("assumption"), name


@pytest.mark.parametrize(("name", "value"), [("nothing", 1.0), ("coverage", 1.1), ("coverage", float("nan"))])
def test_a_figure_that_is_unknown_or_out_of_range_is_refused_with_its_name(name, value):
    with pytest.raises(InvalidInput, match=f"figures.{name}") as caught:
        Figures({name: value})
    assert caught.value.advice


def test_shares_that_add_up_to_more_than_all_are_refused():
    with pytest.raises(InvalidInput, match="add up"):
        Figures({"usual_pharmacy_share": 0.9, "same_district_share": 0.2})


@pytest.mark.nightly
def test_two_weeks_of_the_whole_country_fit_in_ten_minutes_and_four_gibibytes():
    import resource
    import time

    began = time.monotonic()
    comparison = compare(load_scenario("two-weeks-without-agency"))
    assert comparison.pharmacies == 1_400
    assert time.monotonic() - began < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20, "kibibytes"
