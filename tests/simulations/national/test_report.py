"""The report: one page that needs nothing else, in two languages, every number by the name of its run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from nodes.cli.main import main
from simulations.national.figures import FIGURES, Figures
from simulations.report.analysis import Analysis, analyse, check_figures
from simulations.report.blocks import Format, Heading, Paragraph, Table, to_html, to_markdown
from simulations.report.money import yearly_range
from simulations.report.page import as_document, as_page, check_table
from simulations.report.plots import nice_ceiling
from simulations.scenario import load_scenario

ROOT = Path(__file__).resolve().parents[3]
MAIN_CASE = "two-weeks-without-agency"


@cache
def analysis() -> Analysis:
    """A short outage of a small country, with little sensitivity: seconds."""
    scenario = load_scenario("return-of-1400")
    small = msgspec.structs.replace(scenario, scale=0.05, hours=96, expect=())
    return analyse(small, moved=("coverage", "usual_pharmacy_share"))


class Tags(HTMLParser):
    """Whether tags close in order."""

    VOID = ("meta", "input", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_elsewhere():
    page = as_page(analysis())
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links == []
    assert not tags.seen & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?:|@import|url\((?!#)", page)


def test_every_plot_is_well_formed_and_finite():
    plots = re.findall(r"<svg viewBox.*?</svg>", as_page(analysis()), re.DOTALL)
    assert len(plots) == 2 * 10
    for plot in plots:
        ET.fromstring(plot)
        assert not re.search(r"\b(nan|inf)\b", plot)


def test_both_languages_say_the_same_things():
    page = as_page(analysis())
    sv, en = (page.split(f'<main class="{language}"')[1].split("</main>")[0] for language in ("sv", "en"))
    for mark in ("<h2>", "<h3>", "<figure>", "<table", "<tr>"):
        assert sv.count(mark) == en.count(mark)
    assert "I korthet" in sv
    assert "In short" in en
    assert sorted(set(re.findall(r"\b[0-9a-f]{12}\b", sv))) == sorted(
        set(re.findall(r"\b[0-9a-f]{12}\b", en))
    )


def test_every_run_is_named():
    page, found = as_page(analysis()), analysis()
    measures = [*found.comparison.measures, *(p.result for p in found.policies)]
    for knockout in found.knockouts:
        measures += [knockout.today, knockout.system]
    for m in measures:
        assert m.run in page, m.arrangement


def test_every_figure_stands_in_the_document_with_its_kind_and_name():
    document = as_document(analysis())
    for name, figure in FIGURES.items():
        line = next(line for line in document.splitlines() if line.endswith(f"| {name} |"))
        assert f"| {figure.kind.value} |" in line


def test_services_stand_in_the_order_of_what_their_loss_costs():
    left = [k.system.in_outage for k in analysis().knockouts]
    assert left == sorted(left)
    assert analysis().knockouts[0].service.key == "login"


def test_proposals_are_ranked_by_what_a_fill_costs():
    ranked = [p.kr_per_row for p in analysis().proposals]
    assert ranked == sorted(ranked)
    for proposal in analysis().proposals:
        assert proposal.kr_low <= proposal.kr_per_year <= proposal.kr_high


def test_the_document_in_docs_is_what_the_model_says_now():
    """Control figures are recomputed; after a change: rxledger report, as its first lines say."""
    document = (ROOT / "docs/consequences.md").read_text()
    scenario = load_scenario(MAIN_CASE)
    assert scenario.digest in document
    assert to_markdown([check_table(check_figures(scenario), "en")]).strip() in document
    for name, figure in FIGURES.items():
        assert re.search(rf"^\| {re.escape(figure.en)} \|.*\| {name} \|$", document, re.MULTILINE), name


@pytest.mark.nightly
def test_the_document_in_docs_is_written_anew_to_the_letter(tmp_path):
    assert main(["report", MAIN_CASE, "--output", str(tmp_path / "again.md")]) == 0
    assert (tmp_path / "again.md").read_text() == (ROOT / "docs/consequences.md").read_text()


@pytest.mark.parametrize("name", ["report.pdf", "report", "missing/report.html"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, name, capsys):
    assert main(["report", MAIN_CASE, "--output", str(tmp_path / name)]) == 1
    assert "→" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_text_is_escaped_in_both_forms():
    blocks = [Heading("<b>"), Paragraph("a & b"), Table(("x|y",), (("1|2",),))]
    assert "<b>" not in to_html(blocks)
    assert "1/2" in to_markdown(blocks)


def test_numbers_are_written_as_the_language_writes_them():
    assert Format("sv").number(1234.5, 1) == "1\u00a0234,5"
    assert Format("en").number(1234.5, 1) == "1,234.5"
    assert Format("sv").percent(1, 4) == "25\u00a0%"
    assert Format("en").number(float("inf")) == "–"
    assert [Format("en").bytes(n) for n in (999, 1_500, 2.5e6, 3e9)] == [
        "999\u00a0B", "1.5\u00a0kB", "2.5\u00a0MB", "3.0\u00a0GB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.7, 0.8), (1, 1), (7, 8), (99, 100), (101, 150), (2600, 3000)]
)
def test_axes_end_at_the_next_round_number(value, top):
    assert nice_ceiling(value) == pytest.approx(top)


def test_ranges_of_cost_contain_the_cost():
    for m in analysis().comparison.measures:
        low, high = yearly_range(m.cost, Figures())
        assert low <= m.cost.year <= high
