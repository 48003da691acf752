"""What each part of the page shows: charts, tables and texts, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dphrl.report.charts.bar_charts import bar_chart
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.charts.frontier_chart import frontier_chart
from dphrl.report.charts.line_charts import pass_at_k_chart, training_chart
from dphrl.report.charts.looks import Look
from dphrl.report.charts.prompt_chart import prompt_chart
from dphrl.report.charts.spec import Spec
from dphrl.report.comparison import Aggregate, BaseChange, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name
from dphrl.report.number_text import difference_interval_text, interval_text, number_text
from dphrl.report.page.prompt_spots import Mark, PromptSpots, most_lost
from dphrl.report.page.sample_browser import Browser, State
from dphrl.report.table_text import ReportTable
from dphrl.report.tables import further_tables

RETENTION = {"keep": "Keep, %", "explore": "Explore, %"}
DIVERSITY = {"distinct_correct": "Distinct right solutions", "style_entropy": "Style entropy, nats"}
"""Metric -> title of its bars."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page."""

    id: str
    label: str
    """What stands for it where it cannot be seen."""
    spec: Spec


Charts = dict[str, list[Chart]]
"""Section -> its charts."""

How = str | Sequence[str] | Mapping[str, object] | Sequence[Mapping[str, object]]
"""A part of how the report was made: a text, a list of lines, a table, or rows with the same keys."""
HowKind = Literal["text", "list", "table", "rows"]


@dataclass(frozen=True, slots=True)
class ForgettingMatrix:
    """Method x task: what is no longer solved of what the base solved."""

    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, int, str], ...]], ...]
    """Method and a cell for each task: forgotten in %, shade in %, change of Pass@n against the base."""
    changes: bool
    """Whether any cell has such a change."""


@dataclass(frozen=True, slots=True)
class NumbersTable:
    """Every number of one dataset as text."""

    title: str
    n: int
    prompts: int
    headings: tuple[str, ...]
    levels: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]
    """Entry and its cells: value, sd over seeds, interval."""
    differences: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]
    """Entry and its cells: difference to the baseline, its interval, whether that leaves out 0."""
    more: tuple[ReportTable, ...]


def charts_of(view: View) -> Charts:
    """Section -> charts of a comparison; a section without numbers is empty."""
    by_section: Charts = {"pass_at_k": [], "frontier": [], "retention": [], "diversity": []}
    for i, dataset in enumerate(view.datasets):
        shown, k, n = dataset_name(dataset), view.k(dataset), view.n(dataset)
        label = f"Pass@k over k, {shown}: {_means_as_text(view, dataset, f'pass@{k}')}"
        by_section["pass_at_k"].append(Chart(f"pass-{i}", label, pass_at_k_chart(view, dataset)))
        label = f"mean@{n} against Pass@{k}, {shown}; mean@{n}: {_means_as_text(view, dataset, 'mean_at_n')}"
        label += _limit_as_text(view, dataset)
        by_section["frontier"].append(Chart(f"frontier-{i}", label, frontier_chart(view, dataset)))
        for section, metrics in (("retention", RETENTION), ("diversity", DIVERSITY)):
            for metric, title in metrics.items():
                spec = bar_chart(view, dataset, metric, title)
                if spec is not None:
                    label = f"{title}, {shown}: {_means_as_text(view, dataset, metric)}"
                    by_section[section].append(Chart(f"{metric.replace('_', '-')}-{i}", label, spec))
    return by_section


def limit_lines(view: View) -> list[str]:
    """What the line of what can be reached is, a sentence for each kind of it."""
    of: dict[str, list[str]] = {}
    for dataset in view.datasets:
        if (limit := view.frontier_limit(dataset)) is not None:
            of.setdefault(limit.what, []).append(dataset_name(dataset))
    return [f"Dashed, the limit ({', '.join(datasets)}): {what}." for what, datasets in of.items()]


def training_charts(trained: Mapping[str, Mapping[Entry, Curve]], drawn: Mapping[Entry, Look]) -> list[Chart]:
    """One chart a training metric."""
    charts = []
    for panel, curves in trained.items():
        ends = "; ".join(f"{entry.name} ends at {curve.mean[-1]:.3g}" for entry, curve in curves.items())
        label = f"{PANELS[panel].title}: {ends}"
        charts.append(Chart(f"training-{panel}", label, training_chart(curves, panel, drawn)))
    return charts


def prompt_charts(spots: Sequence[PromptSpots]) -> list[Chart]:
    """One chart for each method and task, at most `prompt_spots.CHARTS`: those that lost most prompts."""
    charts = []
    for i, of in enumerate(most_lost(spots)):
        marks: tuple[Mark, ...] = ("lost", "narrowed", "found")
        counts = ", ".join(f"{of.count(mark)} {mark}" for mark in marks)
        label = f"Prompt by prompt, {of.entry.name} against the base, {dataset_name(of.dataset)}: {counts}"
        charts.append(Chart(f"prompts-{i}", label, prompt_chart(of)))
    return charts


def forgetting_matrix(view: View) -> ForgettingMatrix | None:
    """What each method forgot on each dataset; None where there is no base."""
    entries = [e for e in view.entries if any(view.get(e, d, "keep") for d in view.datasets)]
    if not entries:
        return None
    rows, changes = [], False
    for entry in entries:
        cells = []
        for dataset in view.datasets:
            keep, change = view.get(entry, dataset, "keep"), view.base_change(entry, dataset, "pass@n")
            changes |= change is not None
            lost = None if keep is None else 1 - keep.mean
            text = "" if change is None else _change(change)
            cells.append((number_text(lost, "keep"), round(min(100, 400 * (lost or 0))), text))
        rows.append((entry.name, tuple(cells)))
    return ForgettingMatrix(tuple(map(dataset_name, view.datasets)), tuple(rows), changes)


def numbers_table(view: View, dataset: str) -> NumbersTable:
    """Headings, levels and differences of one dataset as text."""
    columns = list(view.columns(dataset))
    entries = [e for e in view.entries if any(view.get(e, dataset, metric) for metric, _ in columns)]
    differing = [e for e in entries if view.baseline is not None and e != view.baseline]
    return NumbersTable(
        title=dataset_name(dataset),
        n=view.n(dataset),
        prompts=view.prompts(dataset),
        headings=tuple(heading for _, heading in columns),
        levels=tuple((e.name, tuple(_level(view.get(e, dataset, m), m) for m, _ in columns)) for e in entries),
        differences=tuple(
            (e.name, tuple(_difference(view.get(e, dataset, m), m) for m, _ in columns)) for e in differing
        ),
        more=tuple(further_tables(view, dataset)),
    )


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
        f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "",  # of one run the heading says it
    )
    units = "Rates in %, differences in percentage points; [brackets] hold 95 % intervals over prompts."
    return f"{', '.join(filter(None, counted))}. {units}"


def how_parts(how: Mapping[str, How]) -> list[tuple[str, HowKind, How]]:
    """(heading, kind, content) of each part of how the report was made."""
    return [(name, _kind(value), value) for name, value in how.items()]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _means_as_text(view: View, dataset: str, metric: str) -> str:
    """'Base 98.6, GRPO 87.4'."""
    numbers = [(entry, view.get(entry, dataset, metric)) for entry in view.entries]
    return ", ".join(f"{entry.name} {number_text(n.mean, metric)}" for entry, n in numbers if n is not None)


def _limit_as_text(view: View, dataset: str) -> str:
    """'; the limit goes from 71.3, 99.6 to 82.0, 82.0', or nothing."""
    limit = view.frontier_limit(dataset)
    if limit is None:
        return ""
    first, last = (", ".join(f"{100 * x:.1f}" for x in point) for point in (limit.points[0], limit.points[-1]))
    return f"; the limit goes from {first} to {last}"


def _change(change: BaseChange) -> str:
    return f"{number_text(change.value, 'pass@n', signed=True)} {difference_interval_text(change, 'pass@n')}".strip()


def _level(number: Aggregate | None, metric: str) -> tuple[str, str, str]:
    """(value, ± sd over seeds, interval)."""
    if number is None:
        return "–", "", ""
    sd = "" if number.sd is None else f"± {number_text(number.sd, metric)}"
    return number_text(number.mean, metric), sd, interval_text(number.low, number.high, metric)


def _difference(number: Aggregate | None, metric: str) -> tuple[str, str, bool]:
    """(difference, its interval, whether it leaves out 0)."""
    gap = number.difference if number is not None else None
    if gap is None:
        return "–", "", False
    return number_text(gap.value, metric, signed=True), difference_interval_text(gap, metric), gap.clear


def _kind(value: How) -> HowKind:
    """How a part of `how` is shown: text, table, rows or list."""
    if isinstance(value, Mapping):
        return "table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "rows" if value and all(isinstance(item, Mapping) for item in value) else "list"
    return "text"
