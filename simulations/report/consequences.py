"""The part of the report that says what follows: for whom, what first, at what cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulations.national.arrangements import BEST
from simulations.national.figures import FIGURES, Figures, Kind
from simulations.national.measures import Measures
from simulations.report.analysis import Analysis, Knockout
from simulations.report.blocks import Block, Format, Heading, Paragraph, Plot, Table
from simulations.report.money import part_range
from simulations.report.outcome import by_region, runs_of, title_of
from simulations.report.plots import bar_chart, tornado
from simulations.scenario import Words

__all__ = ["consequence_blocks"]

_ACTORS_SHOWN = ("today", "agency", "chosen", "everything")
_SENSITIVITY_SHOWN = 14
_EFFECT_MIN = 0.05
"""Percentage points: less is the noise of a twentieth of the country."""


def consequence_blocks(analysis: Analysis, language: str) -> list[Block]:
    """The blocks, in one language."""
    return _Consequences(analysis, language).blocks()


class _Consequences:
    def __init__(self, analysis: Analysis, language: str) -> None:
        self.analysis, self.language = analysis, language
        self.comparison = analysis.comparison
        self.format = Format(language)
        self.figures = Figures(analysis.scenario.figures)

    def say(self, sv: str, en: str) -> str:
        return sv if self.language == "sv" else en

    def words(self, words: Words) -> str:
        return words.sv if self.language == "sv" else words.en

    def blocks(self) -> list[Block]:
        return [
            Heading(self.say("Vad som följer för vem", "What follows for whom")),
            *self._actors(),
            Heading(
                self.say(
                    "System och tjänster i prioritetsordning", "Systems and services in order of priority"
                )
            ),
            *self._catalogue(),
            Heading(self.say("Förslag, rangordnade", "Proposals, ranked")),
            *self._proposals(),
            Heading(self.say("Kostnad och finansiering", "Cost and financing")),
            *self._money(),
            Heading(self.say("Hur säkert det är", "How sure this is")),
            *self._sensitivity(),
            *self._assumptions(),
            *self._limits(),
        ]

    # --- actors -------------------------------------------------------------------------------------------------

    def _actor(self, name: str, rows: Sequence[tuple[str, Callable[[Measures], str]]]) -> list[Block]:
        shown = [self.comparison.of(n) for n in _ACTORS_SHOWN]
        table = Table(
            (name, *(title_of(n, self.language) for n in _ACTORS_SHOWN)),
            [(label, *(value(m) for m in shown)) for label, value in rows],
            self.say("Körningar: ", "Runs: ") + runs_of(*shown),
        )
        return [Heading(name, 3), table]

    def _actors(self) -> list[Block]:
        f, say, dose = self.format, self.say, self.analysis.dose
        care = self._actor(say("Vården", "Care"), (
            (say("Telefonrecept att skriva", "Telephone prescriptions to make"), lambda m: f.number(m.by_ground["manual"])),
            (say("Timmar för förskrivare", "Prescribers' hours"), lambda m: f.number(m.prescriber_hours)),
            (say("Kostnad för dem", "Cost of them"), lambda m: f.kronor(m.prescriber_hours * self.figures["prescriber_kr_per_hour"])),
            (say("Anpassning och förvarare per år", "Adaptation and custodians a year"), lambda m: f.kronor(m.cost.care)),
        ))  # fmt: skip
        pharmacies = self._actor(say("Apoteken", "Pharmacies"), (
            (say("Rader på papper och telefon", "Rows by paper and telephone"), lambda m: f.number(m.by_ground["manual"])),
            (say("Rader med risk", "Rows with risk"), lambda m: f.number(m.by_ground["emergency"])),
            (say("Extra timmar", "Extra hours"), lambda m: f.number(m.extra_staff_hours)),
            (say("Dagar av efterregistrering", "Days of late registration"), lambda m: f.number(m.late_days, 1)),
            (say("Noder per år", "Nodes a year"), lambda m: f.kronor(m.cost.pharmacies)),
        ))  # fmt: skip
        agency = self._actor(say("Myndigheten", "The agency"), (
            (say("Rader att ta emot i efterhand", "Rows to take afterwards"), lambda m: f.number(m.late_rows)),
            (say("Dubbelutlämningar att följa upp", "Double dispensings to follow up"), lambda m: f.number(m.doubles.permitted)),
            (say("Timmar tills de är funna (median)", "Hours until found (median)"), lambda m: f.number(m.doubles.median_hours_to_find)),
            (say("Central förvaltning per år", "Central administration a year"), lambda m: f.kronor(m.cost.agency)),
        ))  # fmt: skip
        patients = self._actor(say("Patienterna", "Patients"), (
            (say("Uttag som aldrig blev av", "Fills that never came about"), lambda m: f.number(m.total.refused)),
            (say("… livsuppehållande", "… life-sustaining"), lambda m: f.number(m.by_class["life-sustaining"].refused)),
            (say("… narkotiska", "… controlled"), lambda m: f.number(m.by_class["controlled"].refused)),
            (say("… övriga", "… ordinary"), lambda m: f.number(m.by_class["ordinary"].refused)),
            (say("Livsuppehållande samma dag", "Life-sustaining, same day"), lambda m: f.percent(m.by_class["life-sustaining"].share)),
            (say("Narkotiska samma dag", "Controlled, same day"), lambda m: f.percent(m.by_class["controlled"].share)),
            (say("Utan livsuppehållande, flest samtidigt", "Without life-sustaining, most at once"), lambda m: f.number(max(m.overdue_by_day, default=0))),
            (say("Patienter utan nummer, samma dag", "Patients without a number, same day"), lambda m: f.percent(m.numberless.share)),
            (say("Dospatienter utan ny rulle", "Dose patients without a new roll"), lambda m: f.number(dose.without_today if m.arrangement in ("today", "agency") else dose.without_system)),
        ))  # fmt: skip
        text = say(
            "Dospatienter räknas för sig: rullar görs färdiga några dagar i förväg och tar slut jämnt; dosapoteket är patientens "
            "valda apotek, så med förvarsplan ligger det som behövs redan där.",
            "Dose patients are counted apart: rolls are made some days ahead and run out evenly; the dose pharmacy is the patient's "
            "chosen one, so with the custody plan what is needed stands there already.",
        )
        return [
            *care, *pharmacies, *agency, *patients, Paragraph(text), Heading(say("Regionerna", "Regions"), 3),
            by_region(self.comparison, self.language),
        ]  # fmt: skip

    # --- services -----------------------------------------------------------------------------------------------

    def _catalogue(self) -> list[Block]:
        f, say = self.format, self.say

        def kept(k: Knockout) -> tuple[float, float]:
            return (
                k.system.in_outage / max(k.system.total.demand, 1),
                k.today.in_outage / max(k.today.total.demand, 1),
            )

        bars = [
            (
                self.words(k.service.title), 100 * kept(k)[0],
                say(f"{f.percent(kept(k)[0])} ({f.percent(kept(k)[1])} i dag)", f"{f.percent(kept(k)[0])} ({f.percent(kept(k)[1])} today)"),
            )
            for k in self.analysis.knockouts
        ]  # fmt: skip
        levels = say("normal,ansträngd,kris,minimum", "normal,strained,crisis,minimum").split(",")
        rows = [
            (
                f"{index}. {self.words(k.service.title)}", self.words(k.service.actor),
                ", ".join(name for name, needed in zip(levels, k.service.needed, strict=True) if needed),
                f.percent(kept(k)[1]), f.percent(kept(k)[0]), self.words(k.service.development), self.words(k.service.payer),
                self.words(k.service.law), _actor_names(k.service.confirm, self.language),
            )
            for index, k in enumerate(self.analysis.knockouts, start=1)
        ]  # fmt: skip
        columns = say(
            "System|Aktör|Behövs vid nivå|Kvar i dag|Kvar med systemet|Utveckling|Vem betalar|Rättsfråga|Bekräftas av",
            "System|Actor|Needed at level|Left today|Left with the system|Development|Who pays|Question of law|To be confirmed by",
        ).split("|")
        how = "; ".join(
            f"{self.words(k.service.title)}: {self.words(k.service.modelled)}"
            for k in self.analysis.knockouts if self.words(k.service.modelled)
        )  # fmt: skip
        note = say("Körningar (i dag, systemet): ", "Runs (today, system): ") + "; ".join(
            f"{self.words(k.service.title)} {k.today.run}, {k.system.run}" for k in self.analysis.knockouts
        )
        best = title_of(BEST, self.language)
        return [
            Paragraph(say(
                f"Varje tjänst slås ut utöver scenariot, lika länge, i en tiondel av landet; systemet är ”{best}”. Ordningen är hur "
                f"mycket som blir kvar: det som kostar mest att förlora står först. Så modelleras det: {how}. Nivåer, utveckling, "
                f"betalare och rättsfrågor är detta projekts förslag; ingen myndighet har sagt dem.",
                f"Each service is knocked out on top of the scenario, for as long, in a tenth of the country; the system is “{best}”. "
                f"The order is by what is left: what costs most to lose stands first. How it is modelled: {how}. Levels, development, "
                f"payers and questions of law are this project's proposals; no authority has said them.",
            )),
            Plot(
                say("Utlämnat under avbrottet när tjänsten också är borta", "Supplied during the outage with the service gone too"),
                bar_chart("services", bars), note,
            ),
            Table(columns, rows, note),
        ]  # fmt: skip

    # --- proposals and money --------------------------------------------------------------------------------------

    def _proposals(self) -> list[Block]:
        f, say = self.format, self.say
        zero = self.comparison.of("today")
        rows = [
            (
                f"{index}. {title_of(p.arrangement, self.language)}", f.kronor(p.kr_per_year),
                f"{f.kronor(p.kr_low)} – {f.kronor(p.kr_high)}", f.number(p.extra_rows), f.number(p.extra_without_risk), f.number(p.kr_per_row),
                f.percent(p.break_even_manual), p.run,
            )
            for index, p in enumerate(self.analysis.proposals, start=1)
        ]  # fmt: skip
        columns = say(
            "Förslag|Kronor per år|Spann|Fler uttag per avbrott än nollalternativet|därav utan risk|Kronor per uttag utan risk|Manuell kapacitet som gör nollalternativet lika bra|Körning",
            "Proposal|Kronor a year|Range|More fills per outage than the zero alternative|of them without risk|Kronor per fill without risk|Manual capacity that makes the zero alternative as good|Run",
        ).split("|")
        text = say(
            f"Nollalternativet är dagens reservrutin: {f.percent(zero.in_outage, zero.total.demand)} av raderna lämnas ut under avbrottet, och "
            f"avbrottet kostar {f.kronor(zero.cost.outage)} i arbetstid. Förslagen ställs mot det vid {f.number(self.figures['outages_per_year'], 2)} "
            f"sådana avbrott per år, ett antagande som allting i kolumnen kronor per uttag är omvänt proportionellt mot. "
            f"Kapaciteten för papper och telefon antas till {f.percent(self.figures['manual_capacity_share'])}; näst sista kolumnen säger hur stor den måste vara "
            f"för att förslaget inte ska behövas. Rangordningen räknar inte utlämningar med risk, som räcker högst en vecka.",
            f"The zero alternative is today's fallback: {f.percent(zero.in_outage, zero.total.demand)} of the rows are supplied during the outage, which "
            f"costs {f.kronor(zero.cost.outage)} in working time. Proposals are set against it at {f.number(self.figures['outages_per_year'], 2)} such "
            f"outages a year, an assumption to which the whole column of kronor per fill is inversely proportional. "
            f"Paper and telephone are assumed to carry {f.percent(self.figures['manual_capacity_share'])}; the last column but one says how much they would "
            f"have to carry for the proposal not to be needed. The ranking leaves out supplies with risk, which last a week at most.",
        )
        return [Paragraph(text), Table(columns, rows)]

    def _money(self) -> list[Block]:
        f, say = self.format, self.say
        shown = [self.comparison.of(n) for n in ("agency", "chosen", "bearer", "everything")]
        parts = (
            ("pharmacies", say("Apoteksaktörerna: noder", "Pharmacy companies: nodes")),
            ("care", say("Regionerna: anpassning, förvarare", "Regions: adaptation, custodians")),
            ("agency", say("Staten: central förvaltning", "The state: central administration")),
            ("extras", say("Staten: radio, bud, papper", "The state: radio, couriers, paper")),
        )

        def cell(m: Measures, part: str) -> str:
            value = float(getattr(m.cost, part))
            low, high = part_range(part, value, self.figures)
            return f"{f.kronor(value)} ({f.kronor(low)} – {f.kronor(high)})" if value else "–"

        rows = [(label, *(cell(m, part) for m in shown)) for part, label in parts]
        rows.append((say("Summa per år", "Sum a year"), *(f.kronor(m.cost.year) for m in shown)))
        rows.append(
            (
                say("Arbetstid under ett avbrott", "Working time in one outage"),
                *(f.kronor(m.cost.outage) for m in shown),
            )
        )
        columns = (
            say("Vem betalar vad", "Who pays what"),
            *(title_of(m.arrangement, self.language) for m in shown),
        )
        return [
            Paragraph(say(
                "Varje post med de antagna kostnaderna, och inom parentes med alla dess kostnader i spannets ändar. Fördelningen på "
                "betalare är ett förslag: den som förvaltar en nod betalar den, staten det som bara behövs i kris.",
                "Each item with the assumed costs, and in brackets with all its costs at the ends of their ranges. Who pays is a proposal: "
                "whoever runs a node pays for it, the state for what is needed in crisis only.",
            )),
            Table(columns, rows, say("Körningar: ", "Runs: ") + runs_of(*shown)),
        ]  # fmt: skip

    # --- how sure -------------------------------------------------------------------------------------------------

    def _sensitivity(self) -> list[Block]:
        say, f = self.say, self.format
        check = self.analysis.check
        zero, best = check.of("today"), check.of(BEST)
        base = 100 * (best.in_outage - zero.in_outage) / max(zero.total.demand, 1)

        def name(figure: str) -> str:
            return FIGURES[figure].sv if self.language == "sv" else FIGURES[figure].en

        moving = [s for s in self.analysis.sensitivity if abs(s.high - s.low) >= _EFFECT_MIN]
        shown = moving[:_SENSITIVITY_SHOWN]
        short = [(_cut(name(s.figure)), s.low, s.high) for s in shown]
        rows = [
            (
                name(s.figure), f"{f.number(FIGURES[s.figure].low, 2)} … {f.number(FIGURES[s.figure].high, 2)} {_unit(FIGURES[s.figure].unit, self.language)}",
                f.number(s.low, 1), f.number(s.high, 1),
            )
            for s in moving
        ]  # fmt: skip
        title = say(
            f"Systemets försprång under avbrottet ({title_of(BEST, 'sv')} mot i dag), procentenheter, när ett antagande i taget går över sitt spann",
            f"The system's lead during the outage ({title_of(BEST, 'en')} against today), percentage points, with one assumption at a time over its range",
        )
        note = say(
            f"En tjugondel av landet; utgångspunkt {f.number(base, 1)} (körningar {runs_of(zero, best)}).",
            f"A twentieth of the country; base {f.number(base, 1)} (runs {runs_of(zero, best)}).",
        )
        columns = say(
            "Antagande|Spann|Försprång vid lägsta|vid högsta",
            "Assumption|Range|Lead at the low end|at the high end",
        ).split("|")
        ends = (say("vid lägsta värdet", "at the low end"), say("vid högsta värdet", "at the high end"))
        return [
            Plot(title, tornado("sensitivity", short, base, ends, say("procentenheter", "percentage points")), note),
            Table(columns, rows, note),
        ]  # fmt: skip

    def _assumptions(self) -> list[Block]:
        kinds = {
            Kind.SOURCED: self.say("källa", "sourced"), Kind.DERIVED: self.say("härlett", "derived"), Kind.ASSUMED: self.say("antaget", "assumed"),
        }  # fmt: skip
        f = self.format
        rows = [
            (
                figure.sv if self.language == "sv" else figure.en, f"{_plain(f, self.figures[name])} {_unit(figure.unit, self.language)}",
                f"{_plain(f, figure.low)} … {_plain(f, figure.high)}", kinds[figure.kind],
                "–" if figure.kind is Kind.ASSUMED else figure.source, _actor_names(figure.confirm, self.language), name,
            )
            for name, figure in FIGURES.items()
        ]  # fmt: skip
        columns = self.say(
            "Uppgift|Värde|Spann|Slag|Källa|Kan bekräftas av|Namn i scenariot", "Figure|Value|Range|Kind|Source|Who can confirm|Name in a scenario"
        ).split("|")  # fmt: skip
        return [Heading(self.say("Alla uppgifter", "All figures"), 3), Table(columns, rows)]

    def _limits(self) -> list[Block]:
        texts = self.say(
            "Ingen byter apotek för att det första är stängt eller saknar medel: det missgynnar alla ordningar lika.|"
            "Väntande rader betjänas i ordningen livsuppehållande, narkotiska, övriga; på papper och telefon känns bara en del av de livsuppehållande igen.|"
            "En akut utlämning räknas som utlämnad, fast den räcker högst en vecka; återbesöken kostar tid men räknas inte som ny efterfrågan.|"
            "Hela timmar: ett fel som börjar 14.30 räknas från 14.00.|"
            "E-handel, hemleverans och slutenvård ingår inte.|"
            "Nyckelstöld räknas som spärrade nycklar och omstritt förvar; förfalskade uttag räknas inte.|"
            "Invånare och kommuner per region är antagna, att bekräfta mot SCB.",
            "Nobody goes to another pharmacy because the first is closed or out of stock: that is to the disadvantage of all arrangements alike.|"
            "Rows that wait are served in the order life-sustaining, controlled, ordinary; on paper and telephone only some of the life-sustaining are recognised.|"
            "An emergency supply counts as supplied though it lasts a week at most; the return visits cost time but are no new demand.|"
            "Whole hours: a fault that begins at 14:30 counts from 14:00.|"
            "Mail order, home delivery and hospitals are left out.|"
            "A stolen key counts as revoked keys and contested custody; forged supplies are not counted.|"
            "Inhabitants and municipalities of the regions are assumed, to be confirmed against Statistics Sweden.",
        ).split("|")
        return [
            Heading(self.say("Vad modellen inte gör", "What the model does not do"), 3),
            *(Paragraph("– " + t) for t in texts),
        ]


_NAME_LENGTH_MAX = 50
"""Of a figure's name beside a bar: more runs out of the picture."""
_ENGLISH = {
    "partihandeln": "wholesalers", "dosapoteken": "dose pharmacies", "apoteksaktörerna": "pharmacy companies",
    "regionerna (SKR)": "the regions (SKR)", "regionerna": "the regions", "projektet": "this project",
    "finansiärerna": "the funders", "apoteken": "pharmacies", "Socialdepartementet": "Ministry of Health",
    "Läkemedelsverket": "Medical Products Agency (Läkemedelsverket)", "Socialstyrelsen": "National Board of Health (Socialstyrelsen)",
}  # fmt: skip
"""Names of actors, for the English text; proper names keep theirs."""


_SWEDISH_UNITS = {
    "rows": "rader", "pharmacies": "apotek", "days": "dagar", "share": "andel", "patients": "patienter", "systems": "system",
    "years": "år", "per year": "per år", "bytes": "byte", "×": "ggr",
}  # fmt: skip


def _actor_names(names: str, language: str) -> str:
    if language == "sv":
        return names
    return ", ".join(_ENGLISH.get(name, name) for name in names.split(", "))


def _unit(unit: str, language: str) -> str:
    return _SWEDISH_UNITS.get(unit, unit) if language == "sv" else unit


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_LENGTH_MAX else text[: _NAME_LENGTH_MAX - 1].rstrip() + "…"


def _plain(f: Format, value: float) -> str:
    decimals = 0 if value == int(value) else (3 if abs(value) < 0.01 else 2)
    return f.number(value, decimals)
