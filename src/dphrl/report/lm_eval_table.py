"""Numbers of lm-evaluation-harness as a table: on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dphrl.report.comparison import HarnessNumber
from dphrl.report.labels import display, visible
from dphrl.report.table_text import ReportTable

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "lm-evaluation-harness"
ARROWS = {True: " ↑", False: " ↓", None: ""}
"""Whether higher is better."""
ASCII: dict[int, str] = str.maketrans({"±": "+-", "–": "-", "↑": "(higher)", "↓": "(lower)"})
"""Of a terminal that shows nothing else."""


def harness_table(numbers: Sequence[HarnessNumber]) -> ReportTable | None:
    """A row a (task, metric, filter), a column a model: the value and its standard error, in lm_eval's own units.

    Returns:
        None where there is no number.
    """
    if not numbers:
        return None
    seeds: dict[tuple[str, str], set[int]] = {}
    for number in numbers:
        seeds.setdefault((number.method, number.setting), set()).add(number.seed)

    def name(number: HarnessNumber) -> str:
        key = number.method, number.setting
        return display(*key) + (f", seed {number.seed}" if len(seeds[key]) > 1 else "")

    models = list(dict.fromkeys(map(name, numbers)))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for number in numbers:
        row = number.row
        way = "" if row.filter in ("none", "") else f", {row.filter}"
        metric = f"{row.metric}{way}{ARROWS[row.higher_is_better]}"
        count = "" if row.n is None else f"{row.n:,}"
        error = "" if row.stderr is None else f" ± {row.stderr:.4f}"
        cells.setdefault((row.task, metric, count), {})[name(number)] = f"{row.value:.4f}{error}"
    body = tuple((*map(visible, key), *(of_row.get(m, "–") for m in models)) for key, of_row in cells.items())
    return ReportTable(TITLE, ("task", "metric", "n", *models), body)


def print_harness(numbers: Sequence[HarnessNumber], console: Console) -> None:
    """The table below those of a comparison; nothing if lm-evaluation-harness was not run."""
    import rich.table
    from rich.text import Text

    shown = harness_table(numbers)
    if shown is None:
        return
    signs: dict[int, str] = {} if console.encoding.lower().startswith("utf") else ASCII
    table = rich.table.Table(title=Text(f"{TITLE}: value ± standard error".translate(signs)), title_justify="left")
    for i, heading in enumerate(shown.headings):
        table.add_column(Text(heading), justify="left" if i < 2 else "right")
    for row in shown.rows:
        table.add_row(*(Text(str(cell).translate(signs)) for cell in row))
    console.print(table)
