"""The summary in a terminal: a verdict and a table a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dphrl.report.headline import choice, verdicts
from dphrl.report.labels import dataset_name, plain
from dphrl.report.lm_eval_table import print_harness
from dphrl.report.view import Entry, Stat, View, number

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


def show(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """The end of a command, on standard output: the summary as one line of JSON for machines, or as tables.

    Raises:
        DataError: the summary has no rows.
    """
    from rich.console import Console

    if as_json:
        print(json.dumps(summary))
    else:
        console = Console()
        print_summary(summary, console)
        print_harness(summary.get("harness", ()), console)


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print one sentence and one table for each dataset.

    Args:
        summary: as `stages.compare.compare` returns it.
        console: decides on colour and width; plain text where it is no terminal.
    Raises:
        DataError: the summary has no rows.
    """
    from rich.text import Text

    view = View(summary)
    said = verdicts(view)
    unicode = console.encoding.lower().startswith("utf")
    for dataset in view.datasets:
        console.print()
        console.print(Text(_ascii(f"{dataset_name(dataset)}: {said[dataset]}", unicode), style="bold"))
        table, left_out = _fitting(view, dataset, console, unicode)
        console.print(table)
        console.print(Text(_caption(view, dataset, left_out, unicode), style="dim"))
    for note in filter(None, (choice(view), *view.notes)):
        console.print(Text(_ascii(f"Note: {plain(note)}", unicode)))


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
        stats = [(view.get(entry, dataset, metric), metric) for metric, _ in columns]
        if any(stat for stat, _ in stats):
            cells = [Text(_ascii(_cell(stat, metric, "±" not in left_out), unicode)) for stat, metric in stats]
            drawn = [Text(curves.get(entry, ""))] if curves else []
            table.add_row(Text(_ascii(entry.name, unicode)), *cells, *drawn)
    return table


def _curves(view: View, dataset: str) -> dict[Entry, str]:
    """Pass@k at each k as a block, from the lowest to the highest Pass@k on this dataset; {} where k is 1 alone."""
    ks = {entry: view.ks(entry, dataset) for entry in view.entries}
    if len({tuple(mine) for mine in ks.values() if mine}) != 1 or max(map(len, ks.values())) < 2:
        return {}  # runs with other k would not stand above each other
    stats = {entry: [view.get(entry, dataset, f"pass@{k}") for k in mine] for entry, mine in ks.items()}
    rates = {entry: [stat.mean for stat in mine if stat is not None] for entry, mine in stats.items()}
    low, high = min(min(r) for r in rates.values() if r), max(max(r) for r in rates.values() if r)
    return {entry: blocks(mine, low, high) for entry, mine in rates.items()}


def blocks(values: Sequence[float], low: float, high: float) -> str:
    """Each value as one of BLOCKS, the lowest at `low` and the highest at `high`."""
    span = high - low
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * (v - low) / span)] if span else BLOCKS[-1] for v in values)


def _cell(stat: Stat | None, metric: str, spread: bool) -> str:
    """'76.7±1.2': sd over seeds, or with one seed half of the interval."""
    if stat is None:
        return "–"
    half = stat.sd
    if half is None and stat.low is not None and stat.high is not None:
        half = (stat.high - stat.low) / 2
    return number(stat.mean, metric) + ("" if half is None or not spread else f"±{number(half, metric)}")


def _caption(view: View, dataset: str, left_out: tuple[str, ...], unicode: bool) -> str:
    one_seed = len({row["seed"] for row in view.rows if row["dataset"] == dataset}) == 1
    meaning = "half of the 95 % interval over prompts" if one_seed else "sd over seeds"
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
