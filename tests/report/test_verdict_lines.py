"""The verdict of a comparison: its lines, its sentence, and the table in every form."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from random import Random
from typing import Any

import pytest
from report_summaries import THREE, comparison, comparison_of, summary_of
from rich.console import Console

from dphrl.report.comparison_view import View
from dphrl.report.table_text import as_csv, latex
from dphrl.report.terminal import print_verdict
from dphrl.report.verdict_lines import entry_of, share_text, verdict_groups, verdict_sentence
from dphrl.report.verdict_table import BASE_ALONE, NO_BASE, verdict_markdown, verdict_numbers, verdict_table

ONE = ("in_domain",)


def said(compared: Any) -> str:
    return verdict_sentence(verdict_groups(View(compared)))


def test_one_sentence_names_winners_and_losers_alike() -> None:
    """GRPO: mean@64 .789 - .622, Pass@8 .874 - .986, 2.3 of 7.5 ways; also where GRPO is the baseline, and renamed."""
    assert said(comparison(THREE, datasets=ONE)) == (
        "On in-domain: GRPO gained 17 points of mean@64 and gave up 11 of Pass@8 and two thirds of its different "
        "solutions; DPH-F gained 15 and gave up 2 and a fifth of its different solutions."
    )
    renamed = {"base": "base", "mine": "dph_f", "yours": "grpo"}
    assert said(comparison(renamed, datasets=ONE)).startswith("On in-domain: yours gained 17 points")
    assert "Hit hardest: arithmetic, where GRPO gained 17 points" in said(comparison(THREE))


def test_of_many_methods_the_extremes_are_named() -> None:
    many = {"base": "base", "grpo": "grpo", **{f"m{i}": "dph_f" for i in range(6)}}
    text = said(comparison(many, datasets=ONE))
    assert text.count("different solutions") == 2 and "GRPO" in text and "m5" in text
    assert text.endswith("5 more lie between them in what was lost.")


def test_without_a_base_it_is_said() -> None:
    alone = View(comparison({"grpo": "grpo", "dph_f": "dph_f"}, datasets=ONE))
    assert verdict_groups(alone) == [] and verdict_table(alone) is None and verdict_markdown(alone) == ""
    console = Console(file=io.StringIO(), width=100)
    print_verdict(comparison({"grpo": "grpo"}, datasets=ONE), console)
    assert NO_BASE in console.file.getvalue()  # type: ignore[attr-defined]
    print_verdict(comparison({"base": "base"}, datasets=ONE), console)
    assert BASE_ALONE in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_rows_models_and_tasks_changes_nothing(seed: int) -> None:
    summary = summary_of({**THREE, "rkl beta=0.1": "grpo"}, datasets=("b", "a", "c"), seeds=1)
    before = as_csv(verdict_numbers(View(comparison_of(summary)))), said(comparison_of(summary))
    for part in ("rows", "aggregate", "forgetting"):
        Random(seed).shuffle(summary[part])
    assert (as_csv(verdict_numbers(View(comparison_of(summary)))), said(comparison_of(summary))) == before


def test_one_lost_prompt_set_changes_its_own_line_alone() -> None:
    summary = summary_of(THREE, datasets=("a", "b"), seeds=1)
    before = verdict_groups(View(comparison_of(summary)))
    (changed,) = [
        c for c in summary["forgetting"] if (c["method"], c["dataset"], c["metric"]) == ("dph_f", "b", "pass@8")
    ]
    changed |= {"value": -0.5, "low": -0.6, "high": -0.4}
    after = verdict_groups(View(comparison_of(summary)))
    lines = [
        {(line.task, entry_of(line).key): line for group in groups for line in group.lines}
        for groups in (before, after)
    ]
    assert {key for key in lines[0] if lines[0][key] != lines[1][key]} == {("b", "dph_f"), (None, "dph_f")}
    assert [group.title for group in after] == ["mean of 2 tasks", "b", "a"], "the task that lost most comes first"


def test_the_table_is_one_in_every_form(tmp_path: Path) -> None:
    view = View(comparison(THREE, datasets=ONE))
    table = verdict_table(view)
    assert table is not None and table.headings[4:6] == ("mean@64, points", "Pass@8, points")
    grpo = ("in-domain", "GRPO", "collapsed", "gained", "+16.7 [+14.7, +18.7]", "-11.2 [-13.2, -9.2]")
    assert table.rows[0] == (*grpo, "-69.3 [-76.0, -62.7]", "93.2 [92.2, 94.2]", "")
    assert r"in-domain & GRPO & collapsed & gained & +16.7 [+14.7, +18.7]" in latex(table)
    assert r"distinct, \%" in latex(table)
    assert "| in-domain | GRPO | collapsed | gained | +16.7 [+14.7, +18.7] |" in verdict_markdown(view)
    (row, _) = csv.DictReader(as_csv(verdict_numbers(view)).splitlines())
    assert row["reach"] == "collapsed" and float(row["distinct"]) == pytest.approx(2.3 / 7.5 - 1)
    assert (row["k"], float(row["pass_at_k_high"])) == ("8", pytest.approx(-0.092))


@pytest.mark.parametrize("width", [44, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_verdict(comparison(THREE), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "collapsed" in text and "+16.7" in text and "-11.2" in text and ("[-13.2, -9.2]" in text) == (width > 130)


def test_shares_are_said_as_people_say_them() -> None:
    assert [share_text(x) for x in (0.97, 0.74, 0.5, 0.3, 0.12)] == [
        *("nearly all", "three quarters", "half", "a third", "a tenth")
    ]
