"""The verdict as one table, the same in the terminal, in files and in the model card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dphrl.metrics.verdict import COLLAPSED_PASS, COLLAPSED_SHARE, NARROWED, Change, Verdict
from dphrl.report.comparison_view import View
from dphrl.report.labels import visible
from dphrl.report.number_text import interval_text, number_text
from dphrl.report.table_text import Cell, ReportTable, markdown_rows
from dphrl.report.verdict_lines import VerdictGroup, entry_of, verdict_groups, verdict_sentence

if TYPE_CHECKING:
    from rich.table import Table

WORDS = (
    f"Reach is called collapsed where for sure more than {100 * COLLAPSED_PASS:.0f} points of Pass@k or more than "
    f"{100 * COLLAPSED_SHARE:.0f} % of the different right solutions are gone, narrowed where for sure more than "
    f"{100 * NARROWED} points or % are, else kept; accuracy gained or lost where for sure mean@n rose or fell, else "
    "unchanged. For sure: the whole 95 % interval, paired over prompts, lies there."
)
"""What the words of a verdict mean."""
NO_BASE = "No base was measured, so nothing says what was gained or lost."
BASE_ALONE = "The base alone was measured: this is what a method starts from."

ENDS, HALVES, KEPT, ACCURACY, DISTINCT, MIND = (
    "the intervals",
    "their halves",
    "kept",
    "accuracy",
    "distinct",
    "warnings",
)
WARNING_WIDTH = 11
"""Of warnings on all but wide terminals; they go on in the next line."""
NARROWER: tuple[tuple[str, ...], ...] = (
    (),
    (ENDS,),
    (ENDS, KEPT),
    (ENDS, KEPT, ACCURACY),
    (ENDS, HALVES, KEPT, ACCURACY),
    (ENDS, HALVES, KEPT, ACCURACY, DISTINCT),
    (ENDS, HALVES, KEPT, ACCURACY, DISTINCT, MIND),
)
"""What the table leaves out, from a wide terminal to a narrow one: the first that fits is shown. Without the ends of an
interval half of it is shown ('-11.3±5.9')."""


def nothing_to_compare(view: View) -> str:
    """What stands in a verdict's place where nothing was measured beside a base."""
    return BASE_ALONE if all(entry.method == "base" for entry in view.entries) else NO_BASE


def verdict_table(view: View) -> ReportTable | None:
    """Every line as text, rates in points and %; None where no base was measured."""
    groups = verdict_groups(view)
    if not groups:
        return None
    mean, passed = (_same(names) for names in ([g.mean for g in groups], [g.passed for g in groups]))
    headings = ("task", "method", "reach", "accuracy", f"{mean}, points", f"{passed}, points", "distinct, %", "kept, %")
    rows = [
        (group.title, entry_of(line).name, line.reach, line.accuracy, *_numbers(line), ", ".join(line.warnings))
        for group in groups
        for line in group.lines
    ]
    return ReportTable("Verdict", (*headings, "mind"), tuple(rows))


def verdict_numbers(view: View) -> ReportTable:
    """Every line in full precision: changes in -1..1, `distinct` as a share of the base's, an empty task is the mean
    over tasks."""
    rows: list[tuple[Cell, ...]] = []
    for group in verdict_groups(view):
        for line in group.lines:
            numbers: list[Cell] = []
            for change in (line.mean, line.passed, line.distinct, line.kept):
                numbers += (None, None, None) if change is None else (change.value, change.low, change.high)
            what = (visible(line.task or ""), line.method, visible(line.setting), line.reach, line.accuracy)
            counts = (line.n, line.k, line.prompts, line.distinct_before, line.distinct_after)
            rows.append((*what, *counts, *numbers, "; ".join(line.warnings)))
    measured = [
        f"{name}{end}" for name in ("mean_at_n", "pass_at_k", "distinct", "kept") for end in ("", "_low", "_high")
    ]
    what_headings = ("dataset", "method", "setting", "reach", "accuracy", "n", "k", "prompts")
    return ReportTable("", (*what_headings, "distinct_before", "distinct_after", *measured, "warnings"), tuple(rows))


def verdict_markdown(view: View) -> str:
    """The sentence, the table and what its words mean; '' where no base was measured."""
    table = verdict_table(view)
    said = verdict_sentence(verdict_groups(view))
    return "" if table is None else f"{visible(said)}\n\n{markdown_rows(table)}\n{WORDS}"


def terminal_table(groups: Iterable[VerdictGroup], left_out: tuple[str, ...], *, unicode: bool) -> Table:
    """The table for rich; see NARROWER."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups = list(groups)
    table = Table(box=box.SIMPLE_HEAD if unicode else box.ASCII2, padding=(0, 1), show_edge=False)
    mean, passed = (_same(names) for names in ([g.mean for g in groups], [g.passed for g in groups]))
    headings = ["", "reach", ACCURACY, mean, passed.replace("Pass@", "P@"), DISTINCT, KEPT, "mind"]
    shown = [i for i, name in enumerate([*headings[:-1], MIND]) if name not in left_out]
    for i in shown:
        widest = WARNING_WIDTH if i == 7 and ENDS in left_out else None
        table.add_column(headings[i], justify="right" if 3 <= i < 7 else "left", no_wrap=0 < i < 7, max_width=widest)
    for group in groups:
        table.add_row(Text(_plain(group.title, unicode), style="bold"))
        for line in group.lines:
            cells = [f" {entry_of(line).name}", line.reach, line.accuracy, *_numbers(line, left_out)]
            cells.append("\n".join(line.warnings))
            style = {"collapsed": "red", "narrowed": "yellow", "kept": "green"}.get(line.reach, "")
            table.add_row(*(Text(_plain(cells[i], unicode), style=style if i == 1 else "") for i in shown))
        table.add_section()
    return table


def _numbers(line: Verdict, left_out: tuple[str, ...] = ()) -> tuple[str, ...]:
    """mean@n, Pass@k, distinct and kept as text."""
    changes = [_narrow_text(change, left_out) for change in (line.mean, line.passed, line.distinct)]
    return (*changes, _narrow_text(line.kept, left_out, signed=False))


def _narrow_text(change: Change | None, left_out: tuple[str, ...], *, signed: bool = True) -> str:
    """`change_text`, '-11.3±5.9' or '-11.3'."""
    if ENDS not in left_out:
        return change_text(change, signed=signed)
    value = change_text(change, ends=False, signed=signed)
    if HALVES in left_out or change is None or change.low is None or change.high is None:
        return value
    return f"{value}±{number_text((change.high - change.low) / 2, 'rate')}"


def change_text(change: Change | None, *, ends: bool = True, signed: bool = True) -> str:
    """'+15.4 [+13.1, +17.2]' in points, '+0.0 on all prompts' where they agree; '–' where it is not known."""
    if change is None:
        return "–"
    bounds = interval_text(change.low, change.high, "rate", signed=signed) if ends else ""
    if ends and change.low is not None and change.low == change.high:
        bounds = "on all prompts"  # a difference that all share has no width
    return f"{number_text(change.value, 'rate', signed=signed)} {bounds}".strip()


def _same(names: list[str]) -> str:
    """'Pass@32', or 'Pass@k' where the groups differ."""
    return names[0] if len(set(names)) == 1 else f"{names[0].partition('@')[0]}@{'k' if 'Pass' in names[0] else 'n'}"


def _plain(text: str, unicode: bool) -> str:
    return text if unicode else text.replace("±", "+/-").replace("–", "-").encode("ascii", "backslashreplace").decode()
