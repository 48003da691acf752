"""Tables: behind the charts on the page, and as Markdown and CSV files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from dphrl.files import write_text
from dphrl.metrics.frontier_limit import distance_to_limit
from dphrl.metrics.intervals import Interval
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.comparison import Aggregate, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name, visible
from dphrl.report.number_text import interval_text, number_text
from dphrl.report.table_text import Cell, ReportTable, as_csv, latex, markdown
from dphrl.report.verdict_table import verdict_numbers, verdict_table
from dphrl.types import FrontierLimit

FURTHER: dict[str, str] = {
    r"maj@\d+": "{name}, %",
    r"keep@\d+": "{name}, %",
    r"explore@\d+": "{name}, %",
    "style_entropy": "style entropy, nats",
    "tokens": "length, tokens",
    "truncated": "cut at the limit, %",
    "no_answer": "no answer, %",
}
"""Metrics beside those of every table (a pattern of their names) -> heading; shown where they were measured."""

DRIFT = {"entropy": "entropy", "reverse_kl": "reverse KL", "forward_kl": "forward KL"}
"""Keys of a row's `drift` -> heading; nats a token, against the base."""


def pass_at_k_tables(view: View) -> list[ReportTable]:
    """Pass@k of every entry at every k, a table a dataset."""
    tables = []
    for dataset in view.datasets:
        ks = sorted({k for entry in view.entries for k in view.ks(entry, dataset)})
        rows = [
            (entry.name, *(_text(view.get(entry, dataset, f"pass@{k}"), f"pass@{k}") for k in ks))
            for entry in view.entries
            if view.ks(entry, dataset)
        ]
        tables.append(ReportTable(dataset_name(dataset), ("Pass@k, %", *(f"k = {k}" for k in ks)), tuple(rows)))
    return tables


def limit_table(view: View) -> ReportTable | None:
    """How far every entry lies from what can be reached, in points; None where no task knows it."""
    limits = {d: limit for d in view.datasets if (limit := view.frontier_limit(d)) is not None}
    rows = tuple(
        (entry.name, *(_to_limit(view, entry, dataset, limit) for dataset, limit in limits.items()))
        for entry in view.entries
    )
    headings = ("method", *map(dataset_name, limits))
    return ReportTable("Distance to the limit in points", headings, _known(rows)) if _known(rows) else None


def further_tables(view: View, dataset: str) -> list[ReportTable]:
    """What else was measured on a dataset: maj@k, keep at several k, lengths, drift, sources of the uncertainty."""
    names = [m for pattern in FURTHER for m in view.metrics(dataset) if re.fullmatch(pattern, m)]
    headings = tuple(_further_heading(name) for name in names)
    rows = [(e.name, *(_text(view.get(e, dataset, m), m) for m in names)) for e in view.entries]
    tables = [ReportTable("More numbers", ("method", *headings), _known(rows))] if names else []
    drift = [(e.name, *(_drift(view, e, dataset, key) for key in DRIFT)) for e in view.entries]
    if _known(drift):
        title = "Distance from the base on the model's own completions, nats a token"
        tables.append(ReportTable(title, ("method", *DRIFT.values()), _known(drift)))
    spread = [row for e in view.entries for row in _spread(view, e, dataset)]
    if spread:
        title = "Where the uncertainty comes from: standard errors in points, and the interval over prompts and seeds"
        tables.append(ReportTable(title, ("method", "metric", "prompts", "seeds", "rest", "interval"), tuple(spread)))
    return tables


def band_tables(view: View) -> list[ReportTable]:
    """By how often the base solves a prompt: mean@n, Pass@n and keep of every entry, a table a dataset."""
    tables = []
    for dataset in view.datasets:
        rows: list[tuple[Cell, ...]] = []
        for entry in view.entries:
            of_seeds = [band for summary in view.summaries(entry, dataset) for band in summary.bands or ()]
            for name in dict.fromkeys(band.band for band in of_seeds):
                same = [band for band in of_seeds if band.band == name]
                columns = {"mean_at_n": [b.mean_at_n for b in same], "pass_at_n": [b.pass_at_n for b in same]}
                columns["keep"] = [b.keep for b in same]
                cells = (_mean_of(intervals, metric) for metric, intervals in columns.items())
                rows.append((entry.name, name, f"{fmean(b.prompts for b in same):g}", *cells))
        if rows:
            n = view.n(dataset)
            headings = ("method", "base solves it", "prompts", f"mean@{n}, %", f"Pass@{n}, %", "keep, %")
            tables.append(ReportTable(dataset_name(dataset), headings, tuple(rows)))
    return tables


def training_tables(trained: Mapping[str, Mapping[Entry, Curve]]) -> list[ReportTable]:
    """First, middle and last value of each curve."""
    tables = []
    for panel, curves in trained.items():
        rows = []
        for entry, curve in curves.items():
            places = (0, len(curve.steps) // 2, -1)
            rows.append((entry.name, *(f"{curve.mean[i]:.4g} (step {curve.steps[i]:g})" for i in places)))
        tables.append(ReportTable(PANELS[panel].title, ("method", "first", "middle", "last"), tuple(rows)))
    return tables


def write_tables(
    view: View, trained: Mapping[str, Mapping[Entry, Curve]], folder: Path, others: Mapping[str, ReportTable | None]
) -> None:
    """FOLDER/verdict (as .tex too), numbers, pass_at_k, training and what else was measured, each as .csv with full
    precision and as .md.

    Args:
        view, trained: what the page shows.
        folder: made if it is new.
        others: name -> a further table, written as it is.
    """
    shown = verdict_table(view)
    if shown is not None:
        _write(folder / "verdict", [verdict_numbers(view)], [shown])
        write_text(folder / "verdict.tex", latex(shown))
    for name, table in others.items():
        if table is not None:
            _write(folder / name, [table], [table])
    _write(folder / "numbers", [_long(view)], [_levels(view, d) for d in view.datasets])
    each = {"pass_at_k": pass_at_k_tables(view), "bands": band_tables(view), "training": training_tables(trained)}
    each["more"] = [
        ReportTable(f"{dataset_name(d)}: {t.title}", t.headings, t.rows)
        for d in view.datasets
        for t in further_tables(view, d)
    ]
    for name, tables in each.items():
        if tables:
            _write(folder / name, [_joined(tables)] if name != "training" else [_steps(trained)], tables)


def _write(path: Path, long: Sequence[ReportTable], shown: Iterable[ReportTable]) -> None:
    write_text(path.with_suffix(".csv"), "".join(as_csv(table) for table in long))
    write_text(path.with_suffix(".md"), "\n".join(markdown(table) for table in shown))


def _long(view: View) -> ReportTable:
    """Every number once, rates in 0..1."""
    rows: list[tuple[Cell, ...]] = []
    for dataset in view.datasets:
        for entry in view.entries:
            for metric in view.metrics(dataset):
                number = view.get(entry, dataset, metric)
                if number is not None:
                    gap = number.difference
                    against = (gap.value, gap.low, gap.high) if gap is not None else (None, None, None)
                    level = (number.mean, number.low, number.high, number.sd, number.seeds)
                    rows.append((visible(dataset), entry.method, visible(entry.setting), metric, *level, *against))
    headings = ("dataset", "method", "setting", "metric", "mean", "low", "high", "sd", "seeds")
    return ReportTable("", (*headings, "difference", "difference_low", "difference_high"), tuple(rows))


def _levels(view: View, dataset: str) -> ReportTable:
    columns = list(view.columns(dataset))
    rows = [(e.name, *(_text(view.get(e, dataset, metric), metric) for metric, _ in columns)) for e in view.entries]
    title = f"{dataset_name(dataset)}, {view.prompts(dataset)} prompts, n = {view.n(dataset)}; rates in %"
    return ReportTable(title, ("method", *(heading for _, heading in columns)), _known(rows))


def _steps(trained: Mapping[str, Mapping[Entry, Curve]]) -> ReportTable:
    rows = [
        (panel, entry.name, float(step), float(mean), float(low), float(high))
        for panel, curves in trained.items()
        for entry, curve in curves.items()
        for step, mean, low, high in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True)
    ]
    return ReportTable("", ("metric", "method", "step", "mean", "lowest seed", "highest seed"), tuple(rows))


def _joined(tables: Sequence[ReportTable]) -> ReportTable:
    """Several tables as one long one: (table, method, column, value)."""
    rows = [
        (table.title, row[0], heading, cell)
        for table in tables
        for row in table.rows
        for heading, cell in zip(table.headings[1:], row[1:], strict=True)
    ]
    return ReportTable("", ("table", "method", "column", "value"), tuple(rows))


def _known(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(row for row in rows if any(cell != "–" for cell in row[1:]))


def _text(number: Aggregate | None, metric: str) -> str:
    """'76.7 [75.7, 77.7]', '–' where there is none."""
    if number is None:
        return "–"
    return f"{number_text(number.mean, metric)} {interval_text(number.low, number.high, metric)}".strip()


def _to_limit(view: View, entry: Entry, dataset: str, limit: FrontierLimit) -> str:
    mean, passed = view.get(entry, dataset, "mean_at_n"), view.get(entry, dataset, f"pass@{limit.k}")
    if mean is None or passed is None:
        return "–"
    return f"{100 * distance_to_limit((mean.mean, passed.mean), limit.points):.1f}"


def _further_heading(name: str) -> str:
    return next(text.format(name=name) for pattern, text in FURTHER.items() if re.fullmatch(pattern, name))


def _drift(view: View, entry: Entry, dataset: str, key: str) -> str:
    """Mean over seeds, with the interval where there is one seed."""
    drifts = [summary.drift for summary in view.summaries(entry, dataset) if summary.drift is not None]
    levels: list[Interval] = [level for drift in drifts if (level := getattr(drift, key)) is not None]
    if not levels:
        return "–"
    bounds = f" [{levels[0].low:.3f}, {levels[0].high:.3f}]" if len(levels) == 1 else ""
    return f"{fmean(level.value for level in levels):.3f}{bounds}"


def _spread(view: View, entry: Entry, dataset: str) -> Iterable[tuple[Cell, ...]]:
    for metric, name in (
        ("mean_at_n", f"mean@{view.n(dataset)}"),
        (f"pass@{view.k(dataset)}", f"Pass@{view.k(dataset)}"),
    ):
        number = view.get(entry, dataset, metric)
        if number is not None and (spread := number.spread) is not None:
            parts = (number_text(error, metric) for error in (spread.prompts, spread.seeds, spread.rest))
            yield (entry.name, name, *parts, interval_text(spread.low, spread.high, metric))


def _mean_of(intervals: Iterable[Interval | None], metric: str) -> str:
    known = [interval for interval in intervals if interval is not None]
    if not known:
        return "–"
    bounds = interval_text(known[0].low, known[0].high, metric) if len(known) == 1 else ""
    return f"{number_text(fmean(interval.value for interval in known), metric)} {bounds}".strip()
