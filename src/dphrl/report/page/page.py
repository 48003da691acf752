"""The HTML report: one file that loads nothing; the same figures and tables lie beside it as files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from dphrl.files import write_json, write_text
from dphrl.report import tables
from dphrl.report.charts.curves import Curve, curves
from dphrl.report.charts.looks import Look, looks, variable
from dphrl.report.headline import choice, headline, verdicts
from dphrl.report.labels import METHODS, METRIC_HELP, dataset_name, plain, style
from dphrl.report.lm_eval_table import harness_table
from dphrl.report.page import sections
from dphrl.report.page.drift_view import drift_views
from dphrl.report.page.sample_browser import Browser
from dphrl.report.view import Entry, View

Training = Mapping[str, Sequence[Mapping[str, Any]]]
Trained = Mapping[str, Mapping[Entry, Curve]]

CONTENTS: dict[str, str] = {
    "verdicts": "verdict Verdict",
    "pass_at_k": "pass Pass@k",
    "frontier": "frontier Frontier",
    "retention": "retention Kept and found",
    "matrix": "forgetting Forgotten",
    "diversity": "diversity Diversity",
    "numbers": "numbers Every number",
    "harness": "harness lm-evaluation-harness",
    "training": "training Training",
    "drift": "drift Anchors",
    "browser": "samples Samples",
    "how": "how How it was made",
}
"""Part of the page -> id and name of its heading, in order."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a report shows beside the numbers; all of it may be missing."""

    training: Training = field(default_factory=dict)
    """Entry as `method` or `method setting` -> lines of metrics.jsonl; see `curves.curves`."""
    drift: Mapping[Entry, Mapping[str, Any] | str] = field(default_factory=dict)
    """Content of drift.json, or why there is none."""
    browser: Browser | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    """Heading -> how it was made: a text, a list of lines, a table (mapping), or a list of equal mappings."""


def write_report(summary: Mapping[str, Any], out: Path, *, title: str, extras: Extras | None = None) -> Path:
    """Write OUT/index.html, OUT/summary.json, OUT/figures/*.png and *.svg, OUT/tables/*.csv and *.md.

    Args:
        summary: as `stages.compare.compare` returns it.
        out: folder of the report.
        title: heading of the page.
        extras: training curves, drift, samples, how it was made.
    Returns:
        Path of the page.
    Raises:
        DataError: the summary has no rows.
    """
    extras = extras or Extras()
    view = View(summary)
    trained = curves(extras.training)
    write_json(out / "summary.json", summary)
    _write_figures(view, trained, out / "figures")
    tables.write_tables(view, trained, out / "tables", {"harness": harness_table(view.harness)})
    write_text(out / "index.html", _page(view, trained, title, extras))
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
    drawn = looks(sorted({entry for mine in trained.values() for entry in mine}, key=lambda e: (e.method, e.setting)))
    return _render(
        {"training": sections.training_charts(trained, drawn)},
        heading=title,
        facts="This run is not evaluated yet.",
        missing=list(missing),
        refresh=refresh,
        training_legend=_legend(drawn),
        seeds=1,
        tables={"training": tables.training(trained)},
    )


def _write_figures(view: View, trained: Trained, folder: Path) -> None:
    from dphrl.report.charts import charts
    from dphrl.report.charts.drawing import write_figure

    drawn = looks(view.entries)
    colors = {look.css: look.color for look in drawn.values()}
    found = sections.charts_of(view) | {"training": sections.training_charts(trained, drawn)}
    for name, mine in found.items():
        if mine:
            shown = charts.beside([chart.spec for chart in mine], view.entries, columns=2 if len(mine) in (2, 4) else 3)
            write_figure(shown, folder, name, colors)
    forgotten = charts.forgetting(view)
    if forgotten is not None:
        write_figure(forgotten, folder, "forgetting", colors)


def _page(view: View, trained: Trained, heading: str, extras: Extras) -> str:
    from dphrl.report.charts.charts import BANDS_UP_TO

    drawn, shown = looks(view.entries), {entry for mine in trained.values() for entry in mine}
    measured = {entry: found for entry, found in extras.drift.items() if not isinstance(found, str)}
    return _render(
        sections.charts_of(view) | {"training": sections.training_charts(trained, drawn)},
        heading=heading,
        facts=sections.facts(view),
        accent=drawn[headline(view)].css,
        verdicts=[(dataset_name(d), said.replace(" %", "\u00a0%")) for d, said in verdicts(view).items()],
        choice=choice(view),
        notes=view.notes,
        banded=len(view.entries) <= BANDS_UP_TO,
        seeds=len(view.seeds()),
        styled=any("style_entropy" in view.metrics(d) for d in view.datasets),
        legend=_legend(drawn),
        training_legend=_legend({entry: look for entry, look in drawn.items() if entry in shown}),
        matrix=sections.matrix(view),
        numbers=[sections.numbers(view, dataset) for dataset in view.datasets],
        tables={"pass_at_k": tables.pass_at_k(view), "bands": tables.bands(view), "training": tables.training(trained)},
        harness=harness_table(view.harness),
        baseline=view.baseline.name if view.baseline else None,
        drift=drift_views(measured),
        drift_missing=[(entry.name, why) for entry, why in extras.drift.items() if isinstance(why, str)],
        browser=extras.browser,
        filters=sections.filters(extras.browser) if extras.browser else {},
        how=sections.how(extras.how),
    )


_EMPTY: dict[str, Any] = {
    **dict.fromkeys(
        ("verdicts", "notes", "missing", "legend", "training_legend", "numbers", "drift", "drift_missing"), ()
    ),
    **dict.fromkeys(("choice", "matrix", "harness", "baseline", "browser", "refresh"), None),
    **dict.fromkeys(("pass_at_k", "frontier", "retention", "diversity", "training", "how"), ()),
    "accent": "var(--grid)",
    "banded": False,
    "styled": False,
    "filters": {},
}
"""A page with nothing in it."""


def _render(drawn: sections.Charts, **context: Any) -> str:
    """The page of charts by section, and whatever else the template names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from dphrl.report.charts import drawing

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("dphrl.report.page", ""),
    )
    environment.filters |= {"plain": plain, "dataset": dataset_name}
    shown = {
        section: [{"id": c.id, "label": c.label, "svg": Markup(drawing.svg(c.spec, c.id))} for c in mine]
        for section, mine in drawn.items()
    }
    scripts = [drawing.script(), files("dphrl.report.page").joinpath("page.js").read_text(encoding="utf-8")]
    whole = {**_EMPTY, **shown, **context}
    names = [entry.split(" ", 1) for part, entry in CONTENTS.items() if whole[part]]
    return environment.get_template("page.html.jinja").render(
        whole,
        contents=names,
        colors={variable(method): style(method) for method in (*METHODS, "")},
        metric_help=METRIC_HELP,
        hashes=Markup(" ".join(_hash(script) for script in scripts)),
        scripts=[Markup(script) for script in scripts],
        specs=_json({c.id: drawing.live(c.spec) for mine in drawn.values() for c in mine}),
    )


def _legend(drawn: Mapping[Entry, Look]) -> list[tuple[Any, str]]:
    """(sign, name) of each entry."""
    from markupsafe import Markup

    from dphrl.report.charts.drawing import swatch

    return [(Markup(swatch(look.css, look.marker, look.line)), entry.name) for entry, look in drawn.items()]


def _hash(script: str) -> str:
    """The source by which the page's policy knows this script, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value: Any) -> Any:
    """JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
