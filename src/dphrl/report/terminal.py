"""The summary in a terminal: a verdict and a table a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dphrl.report.comparison import Aggregate, Comparison, Entry
from dphrl.report.comparison_view import View
from dphrl.report.headline import headline_choice, verdict_sentences
from dphrl.report.labels import dataset_name, visible
from dphrl.report.lm_eval_table import print_harness
from dphrl.report.number_text import number_text

if TYPE_CHECKING:
    from rich.console import Console

CURVE = "curve"
"""The column with Pass@k over k as a row of blocks."""
BLOCKS = "▁▂▃▄▅▆▇█"

NARROWER = (
    (),
    ("±",),
    ("±", "explore"),
    ("±", "explore", CURVE),
    ("±", "explore", CURVE, "greedy"),
    ("±", "explore", CURVE, "greedy", "pass@n"),
)
"""What a table leaves out, from a wide terminal to a narrow one: the first that fits is shown."""


def show_comparison(comparison: Comparison, *, as_json: bool) -> None:
    """The end of a command, on standard output: the comparison as one line of JSON for machines, or as tables.

    Raises:
        DataError: the comparison has no rows.
    """
    from rich.console import Console

    if as_json:
        print(json.dumps(comparison.to_json()))
    else:
        console = Console()
        print_summary(comparison, console)
        print_harness(comparison.harness, console)


def print_summary(comparison: Comparison, console: Console) -> None:
    """Print one sentence and one table for each dataset.

    Args:
        comparison: as `compare_runs` returns it.
        console: decides on colour and width; plain text where it is no terminal.
    Raises:
        DataError: the comparison has no rows.
    """
    from rich.text import Text

    view = View(comparison)
    said = verdict_sentences(view)
    unicode = console.encoding.lower().startswith("utf")
    for dataset in view.datasets:
        console.print()
        console.print(Text(_ascii(f"{dataset_name(dataset)}: {said[dataset]}", unicode), style="bold"))
        table, left_out = _fitting(view, dataset, console, unicode)
        console.print(table)
        console.print(Text(_caption(view, dataset, left_out, unicode), style="dim"))
    for note in filter(None, (headline_choice(view), *view.notes)):
        console.print(Text(_ascii(f"Note: {visible(note)}", unicode)))


def _fitting(view: View, dataset: str, console: Console, unicode: bool) -> tuple[Any, tuple[str, ...]]:
    """The fullest table that the terminal has room for, and what it leaves out."""
    from rich.measure import Measurement

    unbounded = console.options.update(width=10_000)
    for left_out in NARROWER:
        table = _table(view, dataset, left_out, unicode)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table, left_out


def _table(view: View, dataset: str, left_out: tuple[str, ...], unicode: bool) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [(metric, heading) for metric, heading in view.columns(dataset) if metric not in left_out]
    table = Table(box=box.SIMPLE_HEAD if unicode else box.ASCII2, padding=(0, 1), show_edge=False)
    table.add_column("", overflow="fold")
    for _, heading in columns:
        table.add_column(heading.replace("Pass@", "P@").replace(" correct", ""), justify="right", no_wrap=True)
    curves = {} if CURVE in left_out or not unicode else _curves(view, dataset)
    if curves:
        ks = view.ks(view.entries[0], dataset) or [1]
        table.add_column(f"P@{ks[0]}-{ks[-1]}", no_wrap=True)
    for entry in view.entries:
        numbers = [(view.get(entry, dataset, metric), metric) for metric, _ in columns]
        if any(number for number, _ in numbers):
            cells = [Text(_ascii(_cell(number, metric, "±" not in left_out), unicode)) for number, metric in numbers]
            drawn = [Text(curves.get(entry, ""))] if curves else []
            table.add_row(Text(_ascii(entry.name, unicode)), *cells, *drawn)
    return table


def _curves(view: View, dataset: str) -> dict[Entry, str]:
    """Pass@k at each k as a block, from the lowest to the highest Pass@k on this dataset; {} where k is 1 alone."""
    ks = {entry: view.ks(entry, dataset) for entry in view.entries}
    if len({tuple(known) for known in ks.values() if known}) != 1 or max(map(len, ks.values())) < 2:
        return {}  # runs with other k would not stand above each other
    numbers = {entry: [view.get(entry, dataset, f"pass@{k}") for k in known] for entry, known in ks.items()}
    rates = {entry: [number.mean for number in of_ks if number is not None] for entry, of_ks in numbers.items()}
    low, high = min(min(r) for r in rates.values() if r), max(max(r) for r in rates.values() if r)
    return {entry: blocks(values, low, high) for entry, values in rates.items()}


def blocks(values: Sequence[float], low: float, high: float) -> str:
    """Each value as one of BLOCKS, the lowest at `low` and the highest at `high`."""
    span = high - low
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * (v - low) / span)] if span else BLOCKS[-1] for v in values)


def _cell(number: Aggregate | None, metric: str, spread: bool) -> str:
    """'76.7±1.2': sd over seeds, or with one seed half of the interval."""
    if number is None:
        return "–"
    half = number.sd
    if half is None and number.low is not None and number.high is not None:
        half = (number.high - number.low) / 2
    return number_text(number.mean, metric) + ("" if half is None or not spread else f"±{number_text(half, metric)}")


def _caption(view: View, dataset: str, left_out: tuple[str, ...], unicode: bool) -> str:
    meaning = "half of the 95 % interval over prompts" if len(view.seeds(dataset)) == 1 else "sd over seeds"
    missing = [heading for metric, heading in view.columns(dataset) if metric in left_out]
    missing += ["the curves"] if CURVE in left_out and unicode else []
    shown = f"; ±: {meaning}" if "±" not in left_out else ""
    hint = f"; a wider terminal shows {', '.join(missing)} too" if missing else ""
    return _ascii(f"{view.prompts(dataset)} prompts, n = {view.n(dataset)}; rates in %{shown}{hint}", unicode)


def _ascii(text: str, unicode: bool) -> str:
    """Our own signs in ASCII where the terminal knows no others."""
    if unicode:
        return text
    return text.replace("±", "+/-").replace("–", "-").encode("ascii", "backslashreplace").decode()
