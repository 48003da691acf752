"""Tables: behind the charts on the page, and as Markdown and CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dphrl.files import write_text
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.labels import dataset_name, plain
from dphrl.report.view import Entry, Stat, View, interval, number

Cell = str | float | int | None

MORE: dict[str, str] = {
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

_RISKY = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet."""


@dataclass(frozen=True, slots=True)
class Table:
    """Text or numbers under headings; the first column names the row."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def pass_at_k(view: View) -> list[Table]:
    """Pass@k of every entry at every k, a table a dataset."""
    found = []
    for dataset in view.datasets:
        ks = sorted({k for entry in view.entries for k in view.ks(entry, dataset)})
        rows = [
            (entry.name, *(_text(view.get(entry, dataset, f"pass@{k}"), f"pass@{k}") for k in ks))
            for entry in view.entries
            if view.ks(entry, dataset)
        ]
        found.append(Table(dataset_name(dataset), ("Pass@k, %", *(f"k = {k}" for k in ks)), tuple(rows)))
    return found


def more(view: View, dataset: str) -> list[Table]:
    """What else was measured on a dataset: maj@k, keep at several k, lengths, drift, sources of the uncertainty."""
    names = [m for pattern in MORE for m in view.metrics(dataset) if re.fullmatch(pattern, m)]
    headings = tuple(_more_heading(name) for name in names)
    rows = [(e.name, *(_text(view.get(e, dataset, m), m) for m in names)) for e in view.entries]
    found = [Table("More numbers", ("method", *headings), _known(rows))] if names else []
    drift = [(e.name, *(_drift(view, e, dataset, key) for key in DRIFT)) for e in view.entries]
    if _known(drift):
        title = "Distance from the base on the model's own completions, nats a token"
        found.append(Table(title, ("method", *DRIFT.values()), _known(drift)))
    spread = [row for e in view.entries for row in _spread(view, e, dataset)]
    if spread:
        title = "Where the uncertainty comes from: standard errors in points, and the interval over prompts and seeds"
        found.append(Table(title, ("method", "metric", "prompts", "seeds", "rest", "interval"), tuple(spread)))
    return found


def bands(view: View) -> list[Table]:
    """By how often the base solves a prompt: mean@n, Pass@n and keep of every entry, a table a dataset."""
    found = []
    for dataset in view.datasets:
        rows: list[tuple[Cell, ...]] = []
        for entry in view.entries:
            mine = [band for row in view.rows_of(entry, dataset) for band in row.get("bands") or ()]
            for name in dict.fromkeys(band["band"] for band in mine):
                same = [band for band in mine if band["band"] == name]
                cells = (_mean_of(same, key) for key in ("mean_at_n", "pass_at_n", "keep"))
                rows.append((entry.name, name, f"{fmean(b['prompts'] for b in same):g}", *cells))
        if rows:
            n = view.n(dataset)
            headings = ("method", "base solves it", "prompts", f"mean@{n}, %", f"Pass@{n}, %", "keep, %")
            found.append(Table(dataset_name(dataset), headings, tuple(rows)))
    return found


def training(trained: Mapping[str, Mapping[Entry, Curve]]) -> list[Table]:
    """First, middle and last value of each curve."""
    found = []
    for panel, mine in trained.items():
        rows = []
        for entry, curve in mine.items():
            places = (0, len(curve.steps) // 2, -1)
            rows.append((entry.name, *(f"{curve.mean[i]:.4g} (step {curve.steps[i]:g})" for i in places)))
        found.append(Table(PANELS[panel].title, ("method", "first", "middle", "last"), tuple(rows)))
    return found


def write_tables(
    view: View, trained: Mapping[str, Mapping[Entry, Curve]], folder: Path, others: Mapping[str, Table | None]
) -> None:
    """FOLDER/numbers, pass_at_k, training and what else was measured, each as .csv with full precision and as .md.

    Args:
        view, trained: what the page shows.
        folder: made if it is new.
        others: name -> a further table, written as it is.
    """
    for name, table in others.items():
        if table is not None:
            _write(folder / name, [table], [table])
    _write(folder / "numbers", [_long(view)], [_levels(view, d) for d in view.datasets])
    each = {"pass_at_k": pass_at_k(view), "bands": bands(view), "training": training(trained)}
    each["more"] = [
        Table(f"{dataset_name(d)}: {t.title}", t.headings, t.rows) for d in view.datasets for t in more(view, d)
    ]
    for name, found in each.items():
        if found:
            _write(folder / name, [_joined(found)] if name != "training" else [_steps(trained)], found)


def markdown(table: Table) -> str:
    """A heading and a table; text of users cannot end a cell or become markup."""
    lines = [f"## {_md(table.title)}", ""]
    lines.append("| " + " | ".join(_md(h) for h in table.headings) + " |")
    lines.append("|" + "---|" * len(table.headings))
    lines += ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """Comma-separated, a heading row; a text that a spreadsheet would run as a formula gets a quote before it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(heading) for heading in table.headings])
    writer.writerows([_cell(cell) for cell in row] for row in table.rows)
    return buffer.getvalue()


def _write(path: Path, long: Sequence[Table], shown: Iterable[Table]) -> None:
    write_text(path.with_suffix(".csv"), "".join(as_csv(table) for table in long))
    write_text(path.with_suffix(".md"), "\n".join(markdown(table) for table in shown))


def _long(view: View) -> Table:
    """Every number once, rates in 0..1."""
    rows: list[tuple[Cell, ...]] = []
    for dataset in view.datasets:
        for entry in view.entries:
            for metric in view.metrics(dataset):
                stat = view.get(entry, dataset, metric)
                if stat is not None:
                    gap = stat.difference
                    against = (gap.value, gap.low, gap.high) if gap is not None else (None, None, None)
                    level = (stat.mean, stat.low, stat.high, stat.sd, stat.seeds)
                    rows.append((plain(dataset), entry.method, plain(entry.setting), metric, *level, *against))
    headings = ("dataset", "method", "setting", "metric", "mean", "low", "high", "sd", "seeds")
    return Table("", (*headings, "difference", "difference_low", "difference_high"), tuple(rows))


def _levels(view: View, dataset: str) -> Table:
    columns = list(view.columns(dataset))
    rows = [(e.name, *(_text(view.get(e, dataset, metric), metric) for metric, _ in columns)) for e in view.entries]
    title = f"{dataset_name(dataset)}, {view.prompts(dataset)} prompts, n = {view.n(dataset)}; rates in %"
    return Table(title, ("method", *(heading for _, heading in columns)), _known(rows))


def _steps(trained: Mapping[str, Mapping[Entry, Curve]]) -> Table:
    rows = [
        (panel, entry.name, float(step), float(mean), float(low), float(high))
        for panel, mine in trained.items()
        for entry, curve in mine.items()
        for step, mean, low, high in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True)
    ]
    return Table("", ("metric", "method", "step", "mean", "lowest seed", "highest seed"), tuple(rows))


def _joined(tables: Sequence[Table]) -> Table:
    """Several tables as one long one: (table, method, column, value)."""
    rows = [
        (table.title, row[0], heading, cell)
        for table in tables
        for row in table.rows
        for heading, cell in zip(table.headings[1:], row[1:], strict=True)
    ]
    return Table("", ("table", "method", "column", "value"), tuple(rows))


def _known(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(row for row in rows if any(cell != "–" for cell in row[1:]))


def _text(stat: Stat | None, metric: str) -> str:
    """'76.7 [75.7, 77.7]', '–' where there is none."""
    if stat is None:
        return "–"
    return f"{number(stat.mean, metric)} {interval(stat.low, stat.high, metric)}".strip()


def _more_heading(name: str) -> str:
    return next(text.format(name=name) for pattern, text in MORE.items() if re.fullmatch(pattern, name))


def _drift(view: View, entry: Entry, dataset: str, key: str) -> str:
    """Mean over seeds, with the interval where there is one seed."""
    found = [drift[key] for row in view.rows_of(entry, dataset) if (drift := row.get("drift")) and drift.get(key)]
    if not found:
        return "–"
    bounds = f" [{found[0]['low']:.3f}, {found[0]['high']:.3f}]" if len(found) == 1 else ""
    return f"{fmean(each['value'] for each in found):.3f}{bounds}"


def _spread(view: View, entry: Entry, dataset: str) -> Iterable[tuple[Cell, ...]]:
    for metric, name in (
        ("mean_at_n", f"mean@{view.n(dataset)}"),
        (f"pass@{view.k(dataset)}", f"Pass@{view.k(dataset)}"),
    ):
        stat = view.get(entry, dataset, metric)
        if stat is not None and stat.spread:
            parts = (number(stat.spread.get(key), metric) for key in ("prompts", "seeds", "rest"))
            yield (entry.name, name, *parts, interval(stat.spread.get("low"), stat.spread.get("high"), metric))


def _mean_of(bands: Sequence[Mapping[str, Any]], key: str) -> str:
    found = [band[key] for band in bands if band.get(key) is not None]
    if not found:
        return "–"
    bounds = interval(found[0]["low"], found[0]["high"], key) if len(found) == 1 else ""
    return f"{number(fmean(each['value'] for each in found), key)} {bounds}".strip()


def _md(cell: Cell) -> str:
    text = "" if cell is None else plain(str(cell)).replace("\n", " ")
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", text) if re.search(r"[\\|`*_<>]", text) else text


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        text = plain(cell)
        return f"'{text}" if text.startswith(_RISKY) and not re.fullmatch(r"[-+][\d.]+.*", text) else text
    return cell
