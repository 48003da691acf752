"""Numbers of lm-evaluation-harness as a table: on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dphrl.report.labels import display, plain
from dphrl.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "lm-evaluation-harness"
ARROWS = {True: " ↑", False: " ↓", None: ""}
"""Whether higher is better."""
ASCII: dict[int, str] = str.maketrans({"±": "+-", "–": "-", "↑": "(higher)", "↓": "(lower)"})
"""Of a terminal that shows nothing else."""


def harness_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row a (task, metric, filter), a column a model: the value and its standard error, in lm_eval's own units.

    Args:
        rows: `harness` of a comparison's summary.json.
    Returns:
        None where there is no row.
    """
    if not rows:
        return None
    seeds = {(row["method"], row["setting"]): set[int]() for row in rows}
    for row in rows:
        seeds[row["method"], row["setting"]].add(row["seed"])

    def name(row: Mapping[str, Any]) -> str:
        key = row["method"], row["setting"]
        return display(*key) + (f", seed {row['seed']}" if len(seeds[key]) > 1 else "")

    models = list(dict.fromkeys(map(name, rows)))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        way = "" if row["filter"] in ("none", "") else f", {row['filter']}"
        metric = f"{row['metric']}{way}{ARROWS[row['higher_is_better']]}"
        count = "" if row["n"] is None else f"{row['n']:,}"
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
        cells.setdefault((row["task"], metric, count), {})[name(row)] = f"{row['value']:.4f}{error}"
    body = tuple((*map(plain, key), *(mine.get(model, "–") for model in models)) for key, mine in cells.items())
    return Table(TITLE, ("task", "metric", "n", *models), body)


def print_harness(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The table below those of a comparison; nothing where there is none."""
    import rich.table
    from rich.text import Text

    found = harness_table(rows)
    if found is None:
        return
    signs: dict[int, str] = {} if console.encoding.lower().startswith("utf") else ASCII
    table = rich.table.Table(title=Text(f"{TITLE}: value ± standard error".translate(signs)), title_justify="left")
    for i, heading in enumerate(found.headings):
        table.add_column(Text(heading), justify="left" if i < 2 else "right")
    for row in found.rows:
        table.add_row(*(Text(str(cell).translate(signs)) for cell in row))
    console.print(table)
