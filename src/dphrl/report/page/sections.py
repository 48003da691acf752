"""What each part of the page shows: charts, tables and texts, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from dphrl.report import tables
from dphrl.report.charts import charts
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.charts.looks import Look
from dphrl.report.labels import dataset_name
from dphrl.report.page.sample_browser import Browser, State
from dphrl.report.view import Difference, Entry, Stat, View, gap_interval, interval, number

RETENTION = {"keep": "Keep, %", "explore": "Explore, %"}
DIVERSITY = {"distinct_correct": "Distinct right solutions", "style_entropy": "Style entropy, nats"}
"""Metric -> title of its bars."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page."""

    id: str
    label: str
    """What stands for it where it cannot be seen."""
    spec: charts.Spec


Charts = dict[str, list[Chart]]


def charts_of(view: View) -> Charts:
    """Section -> charts of a comparison; a section without numbers is empty."""
    found: Charts = {"pass_at_k": [], "frontier": [], "retention": [], "diversity": []}
    for i, dataset in enumerate(view.datasets):
        shown, k, n = dataset_name(dataset), view.k(dataset), view.n(dataset)
        found["pass_at_k"].append(
            Chart(
                f"pass-{i}",
                f"Pass@k over k, {shown}: {_said(view, dataset, f'pass@{k}')}",
                charts.pass_at_k(view, dataset),
            )
        )
        label = f"mean@{n} against Pass@{k}, {shown}; mean@{n}: {_said(view, dataset, 'mean_at_n')}"
        found["frontier"].append(Chart(f"frontier-{i}", label, charts.frontier(view, dataset)))
        for section, metrics in (("retention", RETENTION), ("diversity", DIVERSITY)):
            for metric, title in metrics.items():
                spec = charts.bars(view, dataset, metric, title)
                if spec is not None:
                    label = f"{title}, {shown}: {_said(view, dataset, metric)}"
                    found[section].append(Chart(f"{metric.replace('_', '-')}-{i}", label, spec))
    return found


def training_charts(trained: Mapping[str, Mapping[Entry, Curve]], drawn: Mapping[Entry, Look]) -> list[Chart]:
    """One chart a training metric."""
    found = []
    for panel, mine in trained.items():
        ends = "; ".join(f"{entry.name} ends at {curve.mean[-1]:.3g}" for entry, curve in mine.items())
        label = f"{PANELS[panel].title}: {ends}"
        found.append(Chart(f"training-{panel}", label, charts.training(mine, panel, drawn)))
    return found


def matrix(view: View) -> dict[str, Any] | None:
    """Task x method: (forgotten in %, shade in %, change of Pass@n as text); None where there is no base."""
    entries = [e for e in view.entries if any(view.get(e, d, "keep") for d in view.datasets)]
    if not entries:
        return None
    rows, changes = [], False
    for dataset in view.datasets:
        cells = []
        for entry in entries:
            keep, change = view.get(entry, dataset, "keep"), view.forgetting(entry, dataset, "pass@n")
            changes |= change is not None
            lost = None if keep is None else 1 - keep.mean
            text = "" if change is None else _change(change)
            cells.append((number(lost, "keep"), round(min(100, 400 * (lost or 0))), text))
        rows.append((dataset_name(dataset), cells))
    return {"methods": [e.name for e in entries], "rows": rows, "changes": changes}


def numbers(view: View, dataset: str) -> dict[str, Any]:
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
        "more": tables.more(view, dataset),
    }


def filters(browser: Browser) -> dict[str, list[tuple[str, str]]]:
    """(value, text) of each choice of the browser of samples, in order of appearance."""
    cells = [cell for case in browser.cases for cell in case.cells]
    states = dict.fromkeys(cell.state for cell in cells)
    verdicts = dict.fromkeys(shown.status for cell in cells for shown in cell.completions)
    return {
        "methods": [(name, name) for name in dict.fromkeys(cell.entry.name for cell in cells)],
        "tasks": [(d, dataset_name(d)) for d in dict.fromkeys(case.dataset for case in browser.cases)],
        "states": [(s, s) for s in get_args(State) if s in states],
        "verdicts": [(v, v.replace("_", " ")) for v in sorted(verdicts)],
    }


def facts(view: View) -> str:
    """'4 datasets, 5 methods, seeds 0, 1, 2. Rates in % ...'."""
    trained = [entry for entry in view.entries if entry.method != "base"]
    seeds = view.seeds()
    counted = (
        _plural(len(view.datasets), "dataset"),
        _plural(len(trained), "method setting" if view.sweeps() else "method"),
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    )
    units = "Rates in %, differences in percentage points; [brackets] hold 95 % intervals over prompts."
    return f"{', '.join(counted)}. {units}"


def how(made: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """(heading, kind, content) of each part of how the report was made."""
    return [(name, _kind(value), value) for name, value in made.items()]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _said(view: View, dataset: str, metric: str) -> str:
    """'Base 98.6, GRPO 87.4'."""
    stats = [(entry, view.get(entry, dataset, metric)) for entry in view.entries]
    return ", ".join(f"{entry.name} {number(stat.mean, metric)}" for entry, stat in stats if stat is not None)


def _change(change: Mapping[str, Any]) -> str:
    gap = Difference(change["value"], change.get("low"), change.get("high"), change.get("agree"))
    return f"{number(gap.value, 'pass@n', signed=True)} {gap_interval(gap, 'pass@n')}".strip()


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
    return number(gap.value, metric, signed=True), gap_interval(gap, metric), gap.clear


def _kind(value: Any) -> str:
    """How a part of `how` is shown: text, table, rows or list."""
    if isinstance(value, Mapping):
        return "table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "rows" if value and all(isinstance(item, Mapping) for item in value) else "list"
    return "text"
