"""The summary in a terminal: the verdict, and a table of levels for each dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dphrl.report.comparison import Aggregate, Comparison, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import COUNTS, dataset_name, visible
from dphrl.report.lm_eval_table import print_harness
from dphrl.report.number_text import number_text
from dphrl.report.verdict_lines import verdict_groups, verdict_sentence
from dphrl.report.verdict_table import ENDS, HALVES, nothing_to_compare, terminal_table
from dphrl.report.verdict_table import NARROWER as NARROWER_VERDICT

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
        print_verdict(comparison, console)
        print_levels(comparison, console)
        print_harness(comparison.harness, console)


def show_verdict(comparison: Comparison) -> None:
    """The verdict alone, and what makes numbers hard to compare, on standard output."""
    from rich.console import Console

    console = Console()
    print_verdict(comparison, console)
    _print_notes(View(comparison), console)


def print_verdict(comparison: Comparison, console: Console) -> None:
    """Print one sentence, and a line for each method and task, most lost first.

    Args:
        comparison: as `compare_runs` returns it.
        console: decides on colour and width; plain text where it is no terminal.
    Raises:
        DataError: the comparison has no rows.
    """
    from rich.measure import Measurement
    from rich.text import Text

    view, unicode = View(comparison), _unicode(console)
    groups = verdict_groups(view)
    said = verdict_sentence(groups) or nothing_to_compare(view)
    console.print()
    console.print(Text(_ascii(visible(said), unicode), style="bold"))
    if not groups:
        return
    unbounded = console.options.update(width=10_000)
    for left_out in NARROWER_VERDICT:
        table = terminal_table(groups, left_out, unicode=unicode)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    console.print(table)
    hidden = [name for name in left_out if name != HALVES]
    hint = f"; a wider terminal shows {', '.join(hidden)} too" if hidden else ""
    half = "; ±: half of the 95 % interval" if ENDS in left_out and HALVES not in left_out else ""
    what = "Changes against the base, points; distinct: different right solutions, %; kept: of what the base solved, %"
    console.print(Text(_ascii(f"{what}{half}{hint}", unicode), style="dim"))


def print_levels(comparison: Comparison, console: Console) -> None:
    """Print one table for each dataset, and what makes numbers hard to compare.

    Args:
        comparison: as `compare_runs` returns it.
        console: decides on colour and width; plain text where it is no terminal.
    Raises:
        DataError: the comparison has no rows.
    """
    from rich.text import Text

    view, unicode = View(comparison), _unicode(console)
    for dataset in view.datasets:
        console.print()
        console.print(Text(_ascii(dataset_name(dataset), unicode), style="bold"))
        table, left_out = _fitting(view, dataset, console, unicode)
        console.print(table)
        console.print(Text(_caption(view, dataset, left_out, unicode), style="dim"))
    _print_notes(view, console)


def _print_notes(view: View, console: Console) -> None:
    from rich.text import Text

    for note in view.notes:
        console.print(Text(_ascii(f"Note: {visible(note)}", _unicode(console))))


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


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
    """'76.7±1.2': sd over seeds, or with one seed half of the interval; '100.0≥91.6' where that would leave 0 to 1."""
    if number is None:
        return "–"
    text = number_text(number.mean, metric)
    if not spread:
        return text
    if number.sd is not None:
        return f"{text}±{number_text(number.sd, metric)}"
    if number.low is None or number.high is None:
        return text
    half = (number.high - number.low) / 2
    if number.mean - half < 0.0:
        end = f"≤{number_text(number.high, metric)}"
    elif metric not in COUNTS and number.mean + half > 1.0:
        end = f"≥{number_text(number.low, metric)}"
    else:
        return f"{text}±{number_text(half, metric)}"
    return text if end[1:] == text else text + end


def _caption(view: View, dataset: str, left_out: tuple[str, ...], unicode: bool) -> str:
    meaning = (
        "half of the 95 % interval over prompts (≥, ≤: its end)" if len(view.seeds(dataset)) == 1 else "sd over seeds"
    )
    missing = [heading for metric, heading in view.columns(dataset) if metric in left_out]
    missing += ["the curves"] if CURVE in left_out and unicode else []
    shown = f"; ±: {meaning}" if "±" not in left_out else ""
    hint = f"; a wider terminal shows {', '.join(missing)} too" if missing else ""
    return _ascii(f"{view.prompts(dataset)} prompts, n = {view.n(dataset)}; rates in %{shown}{hint}", unicode)


def _ascii(text: str, unicode: bool) -> str:
    """Our own signs in ASCII where the terminal knows no others."""
    if unicode:
        return text
    return (
        text.replace("±", "+/-")
        .replace("≥", ">=")
        .replace("≤", "<=")
        .replace("–", "-")
        .encode("ascii", "backslashreplace")
        .decode()
    )
