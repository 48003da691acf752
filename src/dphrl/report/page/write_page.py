"""The HTML report: one file that loads nothing; the same figures and tables lie beside it as files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from dphrl.files import write_json, write_text
from dphrl.report.charts.curves import Curve, Training, curves
from dphrl.report.charts.looks import Look, looks, variable
from dphrl.report.charts.spec import BANDS_UP_TO, Spec, side_by_side
from dphrl.report.comparison import Comparison, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import METHODS, METRIC_HELP, dataset_name, method_style, visible
from dphrl.report.lm_eval_table import harness_table
from dphrl.report.page import sections
from dphrl.report.page.drift_view import AnchorDrift, DriftView, drift_views
from dphrl.report.page.sample_browser import Browser
from dphrl.report.page.verdict_view import VerdictView, verdict_view
from dphrl.report.table_text import ReportTable
from dphrl.report.tables import band_tables, limit_table, pass_at_k_tables, training_tables, write_tables
from dphrl.report.verdict_table import WORDS

if TYPE_CHECKING:
    from markupsafe import Markup

Trained = Mapping[str, Mapping[Entry, Curve]]

CONTENTS: dict[str, str] = {
    "verdict": "verdict Verdict",
    "pass_at_k": "pass Pass@k",
    "frontier": "frontier Frontier",
    "retention": "retention Kept and found",
    "matrix": "forgetting Forgotten",
    "prompts": "prompts Prompt by prompt",
    "diversity": "diversity Diversity",
    "numbers": "numbers Every number",
    "harness": "harness lm-evaluation-harness",
    "training": "training Training",
    "drift": "drift Anchors",
    "browser": "samples Samples",
    "how": "how How it was made",
}
"""Section of the page -> id and name of its heading, in order."""
SECTIONS_OF_CHARTS = ("pass_at_k", "frontier", "retention", "prompts", "diversity", "training")


@dataclass(frozen=True, slots=True)
class Extras:
    """What a report shows beside the numbers; all of it may be missing."""

    training: Training = field(default_factory=dict)
    """Logs of every entry."""
    course: Sequence[str] = ()
    """What the curves of measured checkpoints rest on, a line each."""
    drift: Mapping[Entry, AnchorDrift | str] = field(default_factory=dict)
    """What was measured on the anchors, or why nothing was."""
    browser: Browser | None = None
    how: Mapping[str, sections.How] = field(default_factory=dict)
    """Heading -> how it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the template shows; a section without content is left out."""

    heading: str
    facts: str
    charts: sections.Charts
    verdict: VerdictView | None = None
    course: Sequence[str] = ()
    notes: Sequence[str] = ()
    limits: Sequence[str] = ()
    """What the lines of the frontier are."""
    missing: Sequence[str] = ()
    refresh: int | None = None
    """Seconds after which the browser asks again."""
    banded: bool = False
    seeds: int = 1
    styled: bool = False
    legend: Sequence[tuple[Markup, str]] = ()
    training_legend: Sequence[tuple[Markup, str]] = ()
    matrix: sections.ForgettingMatrix | None = None
    numbers: Sequence[sections.NumbersTable] = ()
    tables: Mapping[str, Sequence[ReportTable]] = field(default_factory=dict)
    harness: ReportTable | None = None
    baseline: str | None = None
    drift: Sequence[DriftView] = ()
    drift_missing: Sequence[tuple[str, str]] = ()
    browser: Browser | None = None
    filters: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    how: Sequence[tuple[str, sections.HowKind, sections.How]] = ()


def write_page(comparison: Comparison, out: Path, *, title: str, extras: Extras | None = None) -> Path:
    """Write OUT/index.html, OUT/summary.json, OUT/figures/*.png and *.svg, OUT/tables/*.csv and *.md.

    Args:
        comparison: as `compare_runs` returns it.
        out: folder of the report.
        title: heading of the page.
        extras: training curves, drift, samples, how it was made.
    Returns:
        Path of the page.
    Raises:
        DataError: the comparison has no rows.
    """
    extras = extras or Extras()
    view = View(comparison)
    trained = curves(extras.training)
    write_json(out / "summary.json", comparison.to_json())
    _write_figures(view, trained, out / "figures")
    write_tables(view, trained, out / "tables", {"harness": harness_table(view.harness), "limit": limit_table(view)})
    write_text(out / "index.html", _render(_page(view, trained, title, extras)))
    return out / "index.html"


def waiting_page(title: str, training: Training, missing: Sequence[str], *, refresh: int | None = None) -> str:
    """The page of a run that is not evaluated yet: its training curves, and what is still missing.

    Args:
        title: heading of the page.
        training: as in `Extras`.
        missing: what does not exist yet, a line each.
        refresh: seconds after which the browser asks again.
    """
    trained = curves(training)
    entries = {entry for of_panel in trained.values() for entry in of_panel}
    drawn = looks(sorted(entries, key=lambda e: (e.method, e.setting)))
    page = Page(
        heading=title,
        facts="This run is not evaluated yet.",
        charts={"training": sections.training_charts(trained, drawn)},
        missing=list(missing),
        refresh=refresh,
        training_legend=_legend(drawn),
        tables={"training": training_tables(trained)},
    )
    return _render(page)


def _write_figures(view: View, trained: Trained, folder: Path) -> None:
    from dphrl.report.charts.bar_charts import forgetting_chart
    from dphrl.report.charts.chart_files import write_figure

    drawn = looks(view.entries)
    colors = {look.css: look.color for look in drawn.values()}
    by_section = sections.charts_of(view) | {"training": sections.training_charts(trained, drawn)}
    for name, charts in by_section.items():
        if charts:
            columns = 2 if len(charts) in (2, 4) else 3
            figure = side_by_side([chart.spec for chart in charts], view.entries, columns=columns)
            write_figure(figure, folder, name, colors)
    forgotten = forgetting_chart(view)
    if forgotten is not None:
        write_figure(forgotten, folder, "forgetting", colors)


def _page(view: View, trained: Trained, heading: str, extras: Extras) -> Page:
    drawn, in_training = looks(view.entries), {entry for of_panel in trained.values() for entry in of_panel}
    measured = {entry: drift for entry, drift in extras.drift.items() if not isinstance(drift, str)}
    return Page(
        heading=heading,
        facts=sections.facts(view),
        charts=sections.charts_of(view)
        | {
            "training": sections.training_charts(trained, drawn),
            "prompts": sections.prompt_charts(extras.browser.spots if extras.browser else ()),
        },
        verdict=verdict_view(view, drawn, _sign),
        notes=view.notes,
        limits=sections.limit_lines(view),
        course=extras.course,
        banded=len(view.entries) <= BANDS_UP_TO,
        seeds=len(view.seeds()),
        styled=any("style_entropy" in view.metrics(d) for d in view.datasets),
        legend=_legend(drawn),
        training_legend=_legend({entry: look for entry, look in drawn.items() if entry in in_training}),
        matrix=sections.forgetting_matrix(view),
        numbers=[sections.numbers_table(view, dataset) for dataset in view.datasets],
        tables={
            "pass_at_k": pass_at_k_tables(view),
            "limit": [table] if (table := limit_table(view)) is not None else [],
            "bands": band_tables(view),
            "training": training_tables(trained),
        },
        harness=harness_table(view.harness),
        baseline=view.baseline.name if view.baseline else None,
        drift=drift_views(measured),
        drift_missing=[(entry.name, why) for entry, why in extras.drift.items() if isinstance(why, str)],
        browser=extras.browser,
        filters=sections.filters(extras.browser) if extras.browser else {},
        how=sections.how_parts(extras.how),
    )


def _render(page: Page) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from dphrl.report.charts import chart_files as drawing

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("dphrl.report.page", ""),
    )
    environment.filters |= {"visible": visible, "dataset": dataset_name}
    drawn = {
        section: [{"id": c.id, "label": c.label, "svg": Markup(drawing.svg(c.spec, c.id))} for c in charts]
        for section, charts in page.charts.items()
    }
    scripts = [drawing.script(), files("dphrl.report.page").joinpath("page.js").read_text(encoding="utf-8")]
    specs: Spec = {c.id: drawing.live(c.spec) for charts in page.charts.values() for c in charts}
    named = [entry.split(" ", 1) for part, entry in CONTENTS.items() if drawn.get(part) or getattr(page, part, None)]
    return environment.get_template("page.html.jinja").render(
        page=page,
        charts=dict.fromkeys(SECTIONS_OF_CHARTS, ()) | drawn,
        contents=named,
        colors={variable(method): method_style(method) for method in (*METHODS, "")},
        metric_help=METRIC_HELP,
        words=WORDS,
        hashes=Markup(" ".join(_hash(script) for script in scripts)),
        scripts=[Markup(script) for script in scripts],
        specs=_json(specs),
    )


def _legend(drawn: Mapping[Entry, Look]) -> list[tuple[Markup, str]]:
    """(sign, name) of each entry."""
    return [(_sign(look), entry.name) for entry, look in drawn.items()]


def _sign(look: Look) -> Markup:
    from markupsafe import Markup

    from dphrl.report.charts.chart_files import swatch

    return Markup(swatch(look.css, look.marker, look.line))


def _hash(script: str) -> str:
    """The source by which the page's policy knows this script, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(specs: Spec) -> Markup:
    """JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    text = json.dumps(specs, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
