"""The part of the report that says what came out: plots first, then the same numbers in tables."""

from __future__ import annotations

from itertools import accumulate

from simulations.national.arrangements import ARRANGEMENTS, arrangement
from simulations.national.comparison import Comparison
from simulations.national.measures import Counts, Measures
from simulations.national.regions import REGIONS
from simulations.report.analysis import Analysis
from simulations.report.blocks import Block, Format, Heading, Paragraph, Plot, Table
from simulations.report.plots import Line, area_chart, bar_chart, line_chart, scatter, stacked_bars
from simulations.scenario import Words

__all__ = ["by_region", "outcome_blocks", "runs_of", "title_of"]

_SHOWN = ("today", "agency", "district", "chosen", "everything")
_STROKES = (("#000", "2 4"), ("#777", "9 4"), ("#3f76a8", "4 2"), ("#12324f", ""), ("#9bb5cb", ""))
_GROUNDS = (
    (("register", "custody"), Words("i förvar eller registret", "in custody, or the register")),
    (("claimed",), Words("förvar övertaget över länk", "custody claimed over a link")),
    (("bearer",), Words("innehavarpapper", "bearer paper")),
    (("emergency",), Words("med risk, högst en vecka", "with risk, a week's supply")),
    (("manual",), Words("papper och telefon", "paper and telephone")),
    (("none",), Words("inte alls", "not at all")),
)


def title_of(name: str, language: str) -> str:
    """An arrangement's title."""
    title = arrangement(name).title
    return title.sv if language == "sv" else title.en


def runs_of(*measures: Measures) -> str:
    """The names of the runs that numbers come from."""
    return ", ".join(dict.fromkeys(m.run for m in measures))


def outcome_blocks(analysis: Analysis, language: str) -> list[Block]:
    """The blocks, in one language."""
    return _Outcome(analysis, language).blocks()


class _Outcome:
    def __init__(self, analysis: Analysis, language: str) -> None:
        self.analysis, self.language = analysis, language
        self.comparison: Comparison = analysis.comparison
        self.format = Format(language)

    def say(self, sv: str, en: str) -> str:
        return sv if self.language == "sv" else en

    def runs(self, *names: str) -> str:
        chosen = names or tuple(m.arrangement for m in self.comparison.measures)
        return self.say("Körningar: ", "Runs: ") + runs_of(*(self.comparison.of(n) for n in chosen))

    def blocks(self) -> list[Block]:
        return [
            *self._summary(),
            Heading(self.say("Vad avbrottet gör", "What the outage does")),
            self._existing(),
            self._by_day(),
            self._overdue(),
            self._islands(),
            Heading(self.say("Vad förvarets plats betyder", "What the place of custody means")),
            self._grounds(),
            self._trade_off(),
            self._table(),
            Heading(self.say("Dubbelutlämningar", "Double dispensings")),
            *self._doubles(),
            Heading(self.say("Ledningarna", "The links")),
            *self._bytes(),
        ]

    # --- in short -----------------------------------------------------------------------------------------------

    def _summary(self) -> list[Block]:
        f = self.format
        today, agency, chosen, best = (
            self.comparison.of(n) for n in ("today", "agency", "chosen", "everything")
        )

        def had(m: Measures) -> str:
            return f.percent(m.existing_in_outage, m.existing.demand)

        capped = f.percent(agency.by_ground["emergency"], agency.total.demand)
        return [
            Heading(self.say("I korthet", "In short")),
            Paragraph(
                self.say(
                    f"Av de uttag som patienter med recept skrivna före avbrottet bad om kunde {had(today)} lämnas ut medan det "
                    f"pågick med dagens reservrutin, {had(agency)} med förvar hos myndigheten, {had(chosen)} när förvarsplanen "
                    f"hade lagt uttagen hos det valda apoteket, och {had(best)} med utskrift, radio och bud därtill.",
                    f"Of the fills that patients with prescriptions from before the outage asked for, {had(today)} could be "
                    f"supplied while it lasted with today's fallback, {had(agency)} with custody at the agency, {had(chosen)} "
                    f"where the custody plan had placed the fills at the chosen pharmacy, and {had(best)} with printing, "
                    f"radio and couriers besides.",
                ),
                strong=True,
            ),
            Paragraph(
                self.say(
                    f"Förvar hos myndigheten ser bättre ut än det är: {capped} av raderna lämnas då ut med risk, högst en veckas "
                    f"förbrukning åt gången, och {f.percent(agency.total.share)} samma dag som patienten kom.",
                    f"Custody at the agency looks better than it is: {capped} of the rows are then supplied with risk, a week's "
                    f"supply at most, and {f.percent(agency.total.share)} on the day on which the patient came.",
                )
            ),
        ]  # fmt: skip

    # --- plots --------------------------------------------------------------------------------------------------

    def _shade(self) -> tuple[float, float, str] | None:
        start, end = self.analysis.scenario.outage_hours
        return (start / 24, end / 24, self.say("avbrott", "outage")) if end else None

    def _existing(self) -> Plot:
        """The first plot: what pre-positioned custody serves against custody at the agency."""
        today, agency, chosen = (self.comparison.of(n) for n in ("today", "agency", "chosen"))
        asked = [day[0] for day in chosen.existing_by_day]

        def sums(values: list[int]) -> list[float]:
            return [total / 1e3 for total in accumulate(values)]

        lines = [Line(self.say("efterfrågat", "asked for"), sums(asked), "#000", "1 3", 1.5)]
        for m, (stroke, dash) in (
            (chosen, ("#12324f", "")),
            (agency, ("#777", "9 4")),
            (today, ("#000", "2 4")),
        ):
            lines.append(
                Line(
                    _short(m.arrangement, self.language), sums([day[1] for day in m.existing_by_day]), stroke, dash
                )
            )  # fmt: skip
        return Plot(
            self.say(
                "Patienter som redan har recept: uttag som efterfrågats och lämnats ut, tusental från avbrottets början",
                "Patients who have prescriptions already: fills asked for and supplied, thousands since the outage began",
            ),
            line_chart("existing", lines, unit="k", x_label=self.say("dag", "day"), shade=self._shade()),
            self.runs("today", "agency", "chosen"),
        )  # fmt: skip

    def _by_day(self) -> Plot:
        lines = []
        for name, (stroke, dash) in zip(_SHOWN, _STROKES, strict=True):
            m = self.comparison.of(name)
            shares = [
                100 * s / a if a else 100.0 for s, a in zip(m.served_by_day, m.asked_by_day, strict=True)
            ]
            lines.append(Line(_short(name, self.language), [min(s, 150.0) for s in shares], stroke, dash))
        return Plot(
            self.say(
                "Utlämnat per dag, procent av vad som efterfrågas den dagen (över 100: väntande betjänas; kurvan kapas vid 150)",
                "Supplied by day, percent of what is asked for that day (above 100: those who waited are served; cut at 150)",
            ),
            line_chart("by day", lines, unit="%", x_label=self.say("dag", "day"), shade=self._shade(), top=150),
            self.runs(*_SHOWN),
        )  # fmt: skip

    def _overdue(self) -> Plot:
        lines = [
            Line(_short(name, self.language), [float(n) for n in self.comparison.of(name).overdue_by_day], stroke, dash)
            for name, (stroke, dash) in zip(_SHOWN, _STROKES, strict=True)
        ]  # fmt: skip
        return Plot(
            self.say(
                "Patienter vars livsuppehållande läkemedel tagit slut medan de väntar",
                "Patients whose life-sustaining medicine has run out while they wait",
            ),
            line_chart("overdue", lines, unit="", x_label=self.say("dag", "day"), shade=self._shade()),
            self.runs(*_SHOWN),
        )  # fmt: skip

    def _islands(self) -> Plot:
        i = self.analysis.islands
        layers = (
            (self.say("når registret", "reach the register"), i.agency),
            (self.say("når varandra", "reach each other"), i.mainland),
            (self.say("bara regionen", "region only"), i.region),
            (self.say("ensamma", "alone"), i.alone),
            (self.say("mörka", "dark"), i.dark),
        )
        return Plot(
            self.say("Öar och sammangående över tid", "Islands and merges over time"),
            area_chart(
                "islands", layers, x_label=self.say("dag", "day"), y_label=self.say("andel av apoteken", "share of pharmacies")
            ),
            self.say(
                "Indata till alla körningar: scenariots fel, utan radio.", "Input to all runs: the scenario's faults, without radio."
            ),
        )  # fmt: skip

    def _grounds(self) -> Plot:
        rows = []
        for m in self.comparison.measures:
            values = [
                100 * sum(m.by_ground[g] for g in grounds) / max(m.total.demand, 1) for grounds, _ in _GROUNDS
            ]
            rows.append((_short(m.arrangement, self.language), values))
        names = [words.sv if self.language == "sv" else words.en for _, words in _GROUNDS]
        return Plot(
            self.say(
                "På vilken grund raderna från avbrottet till slut lämnades ut, procent",
                "On what ground the rows of the outage were supplied in the end, percent",
            ),
            stacked_bars("grounds", rows, names, top=100, unit=""), self.runs(),
        )  # fmt: skip

    def _trade_off(self) -> Plot:
        points = [
            (
                _short(m.arrangement, self.language), 100 * m.total.share,
                1e4 * m.doubles.permitted / max(m.total.served + m.total.delayed, 1),
            )
            for m in self.comparison.measures
        ]  # fmt: skip
        return Plot(
            self.say(
                "Avvägningen: utlämnat samma dag mot dubbelutlämningar", "The trade-off: supplied on the day against double dispensings"
            ),
            scatter(
                "trade-off", points, x_label=self.say("utlämnat samma dag", "supplied on the day"),
                y_label=self.say("dubbelutlämningar per 10 000 utlämningar", "double dispensings per 10,000 supplies"),
            ),
            self.runs(),
        )  # fmt: skip

    # --- tables -------------------------------------------------------------------------------------------------

    def _table(self) -> Table:
        f = self.format
        rows = [
            (
                title_of(m.arrangement, self.language), f.percent(m.existing_in_outage, m.existing.demand),
                f.percent(m.in_outage, m.total.demand), f.percent(m.total.share), f.percent(m.total.delayed, m.total.demand),
                f.percent(m.total.refused, m.total.demand), f.number(max(m.overdue_by_day, default=0)),
                f.number(m.extra_staff_hours), f.number(m.late_days, 1), m.run,
            )
            for m in self.comparison.measures
        ]  # fmt: skip
        columns = self.say(
            "Ordning|Befintliga recept, under avbrottet|Alla, under avbrottet|Samma dag|Senare dag|Inte alls"
            "|Utan livsuppehållande, flest samtidigt|Extra timmar på apotek|Dagar av efterregistrering|Körning",
            "Arrangement|Existing prescriptions, during the outage|All, during the outage|Same day|Later day|Not at all"
            "|Without life-sustaining, most at once|Extra pharmacy hours|Days of late registration|Run",
        ).split("|")
        return Table(columns, rows)

    def _doubles(self) -> list[Block]:
        f = self.format
        rows = [
            (
                title_of(m.arrangement, self.language), f.number(m.doubles.attempts), f.number(m.doubles.prevented),
                f.number(m.doubles.permitted - m.doubles.by_hand), f.number(m.doubles.by_hand), f.number(m.doubles.found),
                f.number(m.doubles.median_hours_to_find), m.run,
            )
            for m in self.comparison.measures
        ]  # fmt: skip
        columns = self.say(
            "Ordning|Andra försök|Förhindrade|Medgivna med risk eller kopierat papper|På papper och telefon|Funna i körningen"
            "|Timmar tills funna (median)|Körning",
            "Arrangement|Second attempts|Prevented|Permitted with risk or copied paper|By paper and telephone|Found within the run"
            "|Hours until found (median)|Run",
        ).split("|")
        words = {
            "none": self.say("ingen akut utlämning", "no emergency supply"),
            "life": self.say("bara livsuppehållande", "life-sustaining only"),
            "own": self.say("scenariots policy", "the scenario's policy"),
            "early": self.say("vanliga från första timmen", "ordinary from the first hour"),
        }
        bars = [
            (
                words[p.key], float(p.result.doubles.permitted),
                self.say(
                    f"{p.result.doubles.permitted}; {f.percent(p.result.total.share)} samma dag",
                    f"{p.result.doubles.permitted}; {f.percent(p.result.total.share)} on the day",
                ),
            )
            for p in self.analysis.policies
        ]  # fmt: skip
        return [
            Plot(
                self.say(
                    "Dubbelutlämningar efter policy för akut utlämning: valt apotek, en tiondel av landet",
                    "Double dispensings by policy for emergency supply: chosen pharmacy, a tenth of the country",
                ),
                bar_chart("policies", bars),
                self.say("Körningar: ", "Runs: ") + runs_of(*(p.result for p in self.analysis.policies)),
            ),
            Table(columns, rows),
        ]  # fmt: skip

    def _bytes(self) -> list[Block]:
        f = self.format
        t = self.comparison.of("chosen").traffic
        lanes = (
            (self.say("0: begäran om förvar", "0: claims of custody"), t.claims),
            (self.say("1: uttag, livsuppehållande", "1: supplies, life-sustaining"), t.supplies),
            (self.say("2: övriga förskrivningar", "2: other prescriptions"), t.prescriptions),
            (self.say("avstämningar utan nyheter", "rounds with no news"), t.rounds),
        )
        bars = [(name, value / 1e3, f.bytes(value)) for name, value in lanes]
        rows = [
            (
                title_of(m.arrangement, self.language), f.bytes(m.traffic.claims), f.bytes(m.traffic.supplies),
                f.bytes(m.traffic.prescriptions), f.bytes(m.traffic.catch_up_mean), f.bytes(m.traffic.catch_up_largest),
                f.bytes(m.traffic.catch_up_all), f.percent(m.traffic.channel_share), m.run,
            )
            for m in self.comparison.measures if m.arrangement != "today"
        ]  # fmt: skip
        columns = self.say(
            "Ordning|Fil 0 per dygn|Fil 1 per dygn|Fil 2 per dygn|Att hämta i kapp, medel|Största|Alla apotek"
            "|Radiokanalens högsta beläggning|Körning",
            "Arrangement|Lane 0 a day|Lane 1 a day|Lane 2 a day|To catch up, mean|Largest|All pharmacies"
            "|Busiest radio channel|Run",
        ).split("|")
        return [
            Plot(
                self.say(
                    "Byte per dygn på ett medelapoteks länk, efter fil: valt apotek", "Bytes a day on a mean pharmacy's link, by lane: chosen pharmacy"
                ),
                bar_chart("bytes", bars), self.runs("chosen"),
            ),
            Table(columns, rows),
        ]  # fmt: skip


_SHORT = {
    "today": Words("dagens reservrutin", "today's fallback"),
    "agency": Words("förvar: myndigheten", "custody: agency"),
    "district": Words("förvar: kommunen", "custody: municipality"),
    "chosen-unplanned": Words("valt apotek, ingen plan", "chosen, no plan"),
    "chosen": Words("valt apotek, med plan", "chosen, with plan"),
    "bearer": Words("innehavarpapper", "bearer paper"),
    "chosen-paper": Words("valt + utskrift", "chosen + printing"),
    "chosen-radio": Words("valt + radio", "chosen + radio"),
    "chosen-bundles": Words("valt + bud", "chosen + couriers"),
    "everything": Words("valt + allt", "chosen + everything"),
}


def _short(name: str, language: str) -> str:
    return _SHORT[name].sv if language == "sv" else _SHORT[name].en


def by_region(comparison: Comparison, language: str) -> Table:
    """Supplied on the day by region."""
    f = Format(language)
    names = [a.name for a in ARRANGEMENTS if a.name in ("today", "agency", "chosen", "everything")]

    def cell(counts: Counts) -> str:
        return f.percent(counts.share) if counts.demand else "–"

    rows = [
        (region.name, f.number(comparison.of("today").by_region[region.letters].demand),
         *(cell(comparison.of(n).by_region[region.letters]) for n in names))
        for region in REGIONS
    ]  # fmt: skip
    head = ("Region", "Efterfrågade rader") if language == "sv" else ("Region", "Rows asked for")
    note = ("Utlämnat samma dag. Körningar: " if language == "sv" else "Supplied on the day. Runs: ")  # fmt: skip
    return Table(
        (*head, *(_short(n, language) for n in names)),
        rows,
        note + runs_of(*(comparison.of(n) for n in names)),
    )
