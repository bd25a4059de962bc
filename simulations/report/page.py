"""The report as one self-contained page in both languages, or as a document in English."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ledger.errors import InvalidInput
from simulations.national.comparison import Comparison
from simulations.report.analysis import Analysis, analyse
from simulations.report.blocks import Block, Format, Heading, Paragraph, Table, to_html, to_markdown
from simulations.report.consequences import consequence_blocks
from simulations.report.outcome import outcome_blocks, title_of
from simulations.report.plots import DEFS
from simulations.scenario import Scenario

__all__ = ["as_document", "as_page", "check_table", "write_report"]

_STYLE = """
:root{color-scheme:light}body{font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;color:#222;max-width:62rem;margin:0 auto;
padding:1rem 1.2rem 4rem;background:#fff}h1{font-size:1.9rem;line-height:1.2;margin:.6rem 0}h2{font-size:1.35rem;margin:2.4rem 0 .6rem;
border-bottom:2px solid #12324f;padding-bottom:.2rem}h3{font-size:1.08rem;margin:1.5rem 0 .3rem}p{max-width:46rem}.strong{font-size:1.12rem;
font-weight:600}.note{color:#666;font-size:.76rem;margin:.25rem 0 1rem;overflow-wrap:anywhere;max-width:none}figure{margin:1.4rem 0;
break-inside:avoid;max-width:50rem}figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.82rem;margin:.6rem 0;width:100%}th,td{text-align:left;padding:.32rem .5rem;border-bottom:1px solid #ccc;
vertical-align:top}thead th{border-bottom:2px solid #333;vertical-align:bottom;hyphens:auto}tbody th{font-weight:500}table.many{font-size:.73rem}
table.many th,table.many td{padding:.3rem .36rem}td{hyphens:auto}td.r,td.n{white-space:nowrap;hyphens:none}td.n{text-align:right;
white-space:nowrap;font-variant-numeric:tabular-nums}.meta{color:#555;font-size:.85rem}input[name=language]{position:absolute;opacity:0}
.choose{display:inline-block;border:1px solid #12324f;padding:.15rem .7rem;margin-right:.3rem;cursor:pointer;border-radius:.2rem}
#sv:checked~label[for=sv],#en:checked~label[for=en]{background:#12324f;color:#fff}input:focus-visible+label{outline:3px solid #3f76a8}
main{display:none}#sv:checked~main.sv,#en:checked~main.en{display:block}
@media print{body{max-width:none;font-size:10.5pt;padding:0}.choose,input{display:none}h2{break-after:avoid}h3{break-after:avoid}
tr{break-inside:avoid}table{font-size:7.5pt}.wide{overflow:visible}@page{size:A4 landscape;margin:14mm}}
"""


def _head(analysis: Analysis, language: str) -> list[Block]:
    scenario, comparison, f = analysis.scenario, analysis.comparison, Format(language)
    words = scenario.reason.sv if language == "sv" else scenario.reason.en
    start, end = scenario.outage_hours
    where = (
        f"Scenario {scenario.name} ({comparison.digest}), modell {comparison.model}, frö {scenario.seed}: {f.number(comparison.pharmacies)} apotek, "
        f"{f.number(comparison.rows)} efterfrågade rader, avbrott i {f.number((end - start) / 24, 1)} dygn. Varje tal kommer från en körning som namnges "
        f"med tolv tecken; samma scenario, frö och modell ger samma körning."
        if language == "sv"
        else f"Scenario {scenario.name} ({comparison.digest}), model {comparison.model}, seed {scenario.seed}: {f.number(comparison.pharmacies)} pharmacies, "
        f"{f.number(comparison.rows)} rows asked for, an outage of {f.number((end - start) / 24, 1)} days. Every number comes from a run that is named by "
        f"twelve characters; the same scenario, seed and model give the same run."
    )  # fmt: skip
    return [Paragraph(words), Paragraph(where)]


def _blocks(analysis: Analysis, language: str) -> list[Block]:
    return [
        *_head(analysis, language),
        *outcome_blocks(analysis, language),
        *consequence_blocks(analysis, language),
    ]


def check_table(check: Comparison, language: str) -> Table:
    """Control figures of a twentieth of the country, which a test recomputes and compares with the document."""
    f = Format(language)
    rows = [
        (
            title_of(m.arrangement, language), f.percent(m.existing_in_outage, m.existing.demand),
            f.percent(m.in_outage, m.total.demand), f.percent(m.total.share), m.run,
        )
        for m in check.measures
    ]  # fmt: skip
    columns = (
        "Ordning|Befintliga recept, under avbrottet|Alla, under avbrottet|Samma dag|Körning"
        if language == "sv"
        else "Arrangement|Existing prescriptions, during the outage|All, during the outage|Same day|Run"
    ).split("|")
    return Table(columns, rows)


def _control(analysis: Analysis, language: str) -> Sequence[Block]:
    sv = language == "sv"
    f = Format(language)
    names = {
        "daily": "Rader per dygn utan avbrott" if sv else "Rows a day with no outage",
        "2016": "Ej utlämnat den 5 april 2016, medan avbrottet pågick"
        if sv
        else "Not supplied on 5 April 2016 while the outage lasted",
    }
    columns = (
        "Tal|Modellen|Källa eller räkning|Skillnad|Körning"
        if sv
        else "Number|Model|Source or arithmetic|Difference|Run"
    ).split("|")
    known = Table(
        columns,
        [
            (
                names[c.key],
                f.number(c.model),
                f.number(c.arithmetic),
                f.percent(abs(c.model / c.arithmetic - 1)),
                c.run,
            )
            for c in analysis.consistency
        ],
    )
    heading = "Kontrolltal" if sv else "Control figures"
    text = (
        "En tjugondel av landet, lätt att räkna om; ett test jämför."
        if sv
        else "A twentieth of the country, soon recomputed; a test compares."
    )
    return (Heading(heading, 3), known, Paragraph(text), check_table(analysis.check, language))


def as_page(analysis: Analysis) -> str:
    """The HTML page. Nothing is fetched from anywhere; the language is chosen without any script."""
    scenario = analysis.scenario
    mains = []
    for language, title in (("sv", scenario.title.sv), ("en", scenario.title.en)):
        body = to_html([*_blocks(analysis, language), *_control(analysis, language)])
        mains.append(f'<main class="{language}" lang="{language}"><h1>{escape(title)}</h1>{body}</main>')
    return (
        '<!doctype html><html lang="sv"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(scenario.title.sv)} · {escape(scenario.title.en)}</title><style>{_STYLE}</style></head><body>{DEFS}"
        '<input type="radio" name="language" id="sv" checked><label class="choose" for="sv">Svenska</label>'
        '<input type="radio" name="language" id="en"><label class="choose" for="en">English</label>'
        + "".join(mains)
        + "</body></html>\n"
    )


def as_document(analysis: Analysis) -> str:
    """The same in English as Markdown: tables without plots."""
    name = analysis.scenario.name
    head: list[Block] = [
        Heading(f"Consequences: {analysis.scenario.title.en}", 1),
        Paragraph(
            f"Written by `rxledger report {name} --output docs/consequences.md`; do not edit by hand. "
            f"`rxledger report {name} --output report.html` gives the page with plots, in Swedish and English."
        ),
    ]
    return to_markdown([*head, *_blocks(analysis, "en"), *_control(analysis, "en")])


def write_report(scenario: Scenario, outputs: Sequence[Path]) -> None:
    """Run everything once and write it to each file: a page (.html) or a document (.md); each whole, or not at all.

    Raises:
        InvalidInput: a name ends otherwise, or its folder does not exist; nothing has run then.
    """
    for output in outputs:
        if output.suffix not in _WRITERS:
            raise InvalidInput(f"cannot write {output.name}", advice="let --output end in .html or .md")
        if not output.parent.is_dir():
            raise InvalidInput(f"there is no folder {output.parent}", advice="make it first")
    analysis = analyse(scenario)
    for output in outputs:
        draft = output.with_name(output.name + ".draft")
        draft.write_text(_WRITERS[output.suffix](analysis))
        draft.replace(output)


_WRITERS = {".html": as_page, ".md": as_document}
