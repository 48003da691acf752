"""The HTML report: one file that loads nothing, with its figures as inline SVG and beside it as PNG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from dphrl.files import replaced, write_json, write_text
from dphrl.report.curves import PANELS, Curve, curves
from dphrl.report.labels import METHODS, METRIC_HELP, dataset_name, plain
from dphrl.report.verdict import choice, verdicts
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
        drawn["training"] = figures.png_training(trained, figures.line_styles(view.entries))
    for name, content in drawn.items():
        with replaced(folder / f"{name}.png") as staging:
            staging.write_bytes(content)


def _page(view: View, trained: Mapping[str, Mapping[Entry, Curve]], heading: str, how: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    template = environment.from_string(files("dphrl.report").joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        heading=heading,
        methods={method.replace("_", "-"): style for method, style in METHODS.items()},
        verdicts=[said.partition(": ")[::2] for said in verdicts(view).values()],
        choice=choice(view),
        notes=view.notes,
        facts=_facts(view),
        legend=_legend(view, view.entries),
        training_legend=_legend(view, {entry for mine in trained.values() for entry in mine}),
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
            _plural(len(trained), "trained model setting" if view.sweeps() else "method"),
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        )
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _charts(view: View, trained: Mapping[str, Mapping[Entry, Curve]]) -> dict[str, list[dict[str, Any]]]:
    """Every inline chart with the text that stands for it where it cannot be seen."""
    from markupsafe import Markup

    from dphrl.report import figures

    def chart(name: str, label: str, draw: Any, *, wide: bool = False) -> dict[str, Any]:
        size = {"width": 6.4, "height": 4.4} if wide else {}
        return {"svg": Markup(figures.svg(name, draw, **size)), "label": label, "wide": wide}

    lines = figures.line_styles(view.entries)
    found: dict[str, list[dict[str, Any]]] = {"pass_at_k": [], "frontier": [], "training": []}
    for i, dataset in enumerate(view.datasets):
        shown = dataset_name(dataset)
        found["pass_at_k"].append(
            chart(f"p{i}", f"Pass@k over k, {shown}", lambda axes, d=dataset: figures.draw_pass_at_k(axes, view, d))
        )
        found["frontier"].append(
            chart(
                f"f{i}",
                f"mean@n against Pass@k, {shown}",
                lambda axes, d=dataset, first=i == 0: figures.draw_frontier(axes, view, d, names=first),
                wide=i == 0,
            )
        )
    for i, (panel, mine) in enumerate(trained.items()):
        draw = lambda axes, m=mine, p=panel: figures.draw_training(axes, m, p, lines)  # noqa: E731
        found["training"].append(chart(f"t{i}", PANELS[panel].title, draw))
    return found


def _legend(view: View, shown: Collection[Entry]) -> list[tuple[Any, str]]:
    from markupsafe import Markup

    from dphrl.report.figures import line_styles, swatch

    lines = line_styles(view.entries)
    return [(Markup(swatch(entry, lines[entry])), entry.name) for entry in view.entries if entry in shown]


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
