"""The HTML report: one file that loads nothing, with its figures as inline SVG and beside it as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from dphrl.files import replaced, write_json, write_text
from dphrl.report.curves import PANELS, Curve, curves
from dphrl.report.labels import METHODS, METRIC_HELP, dataset_name, plain, style
from dphrl.report.looks import Look, looks, variable
from dphrl.report.verdict import choice, headline, verdicts
from dphrl.report.view import Entry, Stat, View, interval, number


def write_report(
    summary: Mapping[str, Any],
    out: Path,
    *,
    title: str,
    training: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    how: Mapping[str, Any] | None = None,
) -> Path:
    """Write OUT/index.html, OUT/summary.json and OUT/figures/*.png.

    Args:
        summary: as `stages.compare.compare` returns it.
        out: folder of the report.
        title: heading of the page.
        training: entry as `method` or `method setting` -> lines of metrics.jsonl; see `curves.curves`.
        how: heading -> how it was made: a text, a list of lines, a table (mapping), or a list of equal mappings.
    Returns:
        Path of the page.
    Raises:
        DataError: the summary has no rows.
    """
    view = View(summary)
    trained = curves(training or {})
    write_json(out / "summary.json", summary)
    _write_figures(view, trained, out / "figures")
    write_text(out / "index.html", _page(view, trained, title, how or {}))
    return out / "index.html"


def _write_figures(view: View, trained: Mapping[str, Mapping[Entry, Curve]], folder: Path) -> None:
    from dphrl.report import figures

    drawn = {"pass_at_k": figures.png_pass_at_k(view), "frontier": figures.png_frontier(view)}
    if trained:
        drawn["training"] = figures.png_training(trained, looks(view.entries))
    for name, content in drawn.items():
        with replaced(folder / f"{name}.png") as staging:
            staging.write_bytes(content)


def _page(view: View, trained: Mapping[str, Mapping[Entry, Curve]], heading: str, how: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    from dphrl.report.figures import BANDS_UP_TO

    drawn, shown = looks(view.entries), {entry for mine in trained.values() for entry in mine}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    template = environment.from_string(files("dphrl.report").joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        heading=heading,
        colors={variable(method): style(method) for method in (*METHODS, "")},
        banded=len(view.entries) <= BANDS_UP_TO,
        verdicts=[(dataset_name(d), said.replace(" %", "\u00a0%")) for d, said in verdicts(view).items()],
        choice=choice(view),
        seeds=len(view.seeds()),
        accent=drawn[headline(view)].css,
        notes=view.notes,
        facts=_facts(view),
        legend=_legend(drawn),
        training_legend=_legend({entry: look for entry, look in drawn.items() if entry in shown}),
        tables=[_table(view, dataset) for dataset in view.datasets],
        metric_help=METRIC_HELP,
        baseline=view.baseline.name if view.baseline else None,
        how=[(name, _kind(value), value) for name, value in how.items()],
        **_charts(view, trained),
    )


def _facts(view: View) -> str:
    """'4 datasets, 5 methods, seeds 0, 1, 2'."""
    trained = [entry for entry in view.entries if entry.method != "base"]
    seeds = view.seeds()
    return ", ".join(
        (
            _plural(len(view.datasets), "dataset"),
            _plural(len(trained), "method setting" if view.sweeps() else "method"),
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        )
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _charts(view: View, trained: Mapping[str, Mapping[Entry, Curve]]) -> dict[str, list[dict[str, Any]]]:
    """Every inline chart with the text that stands for it where it cannot be seen."""
    from markupsafe import Markup

    from dphrl.report import figures

    drawn = looks(view.entries)

    def chart(name: str, label: str, draw: Any, size: tuple[float, float] = (4.7, 3.3)) -> dict[str, Any]:
        made = figures.svg(name, draw, drawn.values(), width=size[0], height=size[1])
        return {"svg": Markup(made), "label": label, "wide": size[0] > 5}

    found: dict[str, list[dict[str, Any]]] = {"pass_at_k": [], "frontier": [], "training": []}
    for i, dataset in enumerate(view.datasets):
        shown = dataset_name(dataset)
        curve = partial(figures.draw_pass_at_k, view=view, dataset=dataset)
        points = partial(figures.draw_frontier, view=view, dataset=dataset, names=i == 0)
        found["pass_at_k"].append(chart(f"p{i}", f"Pass@k over k, {shown}", curve))
        size = (5.8, 4.1) if i == 0 else (3.6, 2.6)
        found["frontier"].append(chart(f"f{i}", f"mean@n against Pass@k, {shown}", points, size))
    for i, (panel, mine) in enumerate(trained.items()):
        course = partial(figures.draw_training, mine=mine, panel=panel, drawn=drawn)
        size = (3.6, 2.6) if len(trained) > 2 else (4.7, 3.3)
        found["training"].append(chart(f"t{i}", PANELS[panel].title, course, size))
    return found


def _legend(drawn: Mapping[Entry, Look]) -> list[tuple[Any, str]]:
    """(sign, name) of each entry."""
    from markupsafe import Markup

    from dphrl.report.figures import swatch

    return [(Markup(swatch(look)), entry.name) for entry, look in drawn.items()]


def _table(view: View, dataset: str) -> dict[str, Any]:
    """Headings, levels and differences of one dataset as text."""
    columns = list(view.columns(dataset))
    entries = [e for e in view.entries if any(view.get(e, dataset, metric) for metric, _ in columns)]
    differing = [
        (e.name, [_difference(view.get(e, dataset, metric), metric) for metric, _ in columns])
        for e in entries
        if view.baseline is not None and e != view.baseline
    ]
    return {
        "title": dataset_name(dataset),
        "n": view.n(dataset),
        "prompts": view.prompts(dataset),
        "headings": [heading for _, heading in columns],
        "levels": [(e.name, [_level(view.get(e, dataset, metric), metric) for metric, _ in columns]) for e in entries],
        "differences": differing,
    }


def _level(stat: Stat | None, metric: str) -> tuple[str, str, str]:
    """(value, ± sd over seeds, interval)."""
    if stat is None:
        return "–", "", ""
    spread = "" if stat.sd is None else f"± {number(stat.sd, metric)}"
    return number(stat.mean, metric), spread, interval(stat.low, stat.high, metric)


def _difference(stat: Stat | None, metric: str) -> tuple[str, str, bool]:
    """(difference, its interval, whether it leaves out 0)."""
    gap = stat.difference if stat is not None else None
    if gap is None:
        return "–", "", False
    return number(gap.value, metric, signed=True), interval(gap.low, gap.high, metric, signed=True), gap.clear


def _kind(value: Any) -> str:
    """How a part of `how` is shown: text, table, rows or list."""
    if isinstance(value, Mapping):
        return "table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "rows" if value and all(isinstance(item, Mapping) for item in value) else "list"
    return "text"
