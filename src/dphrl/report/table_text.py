"""A table as text: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

from dphrl.report.labels import visible

Cell = str | float | int | None

_RISKY = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet."""

TEX: dict[str, str] = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
}
"""Letters that TeX would read as commands -> how they are written."""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Text or numbers under headings; the first column names the row."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def markdown(table: ReportTable) -> str:
    """A heading and a table."""
    return f"## {_md(table.title)}\n\n{markdown_rows(table)}"


def markdown_rows(table: ReportTable) -> str:
    """The table alone; text of users cannot end a cell or become markup."""
    lines = ["| " + " | ".join(_md(h) for h in table.headings) + " |"]
    lines.append("|" + "---|" * len(table.headings))
    lines += ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def as_csv(table: ReportTable) -> str:
    """Comma-separated, a heading row; a text that a spreadsheet would run as a formula gets a quote before it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(heading) for heading in table.headings])
    writer.writerows([_cell(cell) for cell in row] for row in table.rows)
    return buffer.getvalue()


def latex(table: ReportTable) -> str:
    """A `tabular` that needs no package; the first two columns are texts."""
    columns = "ll" + "r" * (len(table.headings) - 2)
    rows = [r" & ".join(_tex(cell) for cell in row) + r" \\" for row in (table.headings, *table.rows)]
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", rows[0], r"\hline", *rows[1:], r"\hline", r"\end{tabular}", ""]
    )


def _md(cell: Cell) -> str:
    text = "" if cell is None else visible(str(cell)).replace("\n", " ")
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", text) if re.search(r"[\\|`*_<>]", text) else text


def _tex(cell: Cell) -> str:
    """Text that TeX prints as it is."""
    text = "" if cell is None else visible(str(cell)).replace("\n", " ")
    return "".join(TEX.get(letter, letter) for letter in text)


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        text = visible(cell)
        return f"'{text}" if text.startswith(_RISKY) and not re.fullmatch(r"[-+][\d.]+.*", text) else text
    return cell
