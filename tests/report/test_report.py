"""Verdicts, curves, names and the terminal table, from a summary written by hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from report_summaries import EVIL, THREE, TRAINING, comparison, comparison_of, summary_of, with_limit
from rich.console import Console

from dphrl.errors import DataError
from dphrl.report.charts.curves import curves
from dphrl.report.charts.frontier_chart import frontier_chart
from dphrl.report.charts.looks import looks
from dphrl.report.comparison import Comparison, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import METHODS, display, visible
from dphrl.report.number_text import interval_text, number_text
from dphrl.report.page.sections import charts_of, limit_lines
from dphrl.report.page.write_page import write_page
from dphrl.report.tables import limit_table
from dphrl.report.terminal import print_levels

GRPO = Entry("grpo")
NOTHING = Comparison(rows=(), aggregate=(), forgetting=(), harness=(), baseline=None, notes=())


def test_entries_stand_in_the_order_of_the_table_and_of_their_numbers() -> None:
    keys = [
        "dph_f eta=0.5",
        "dph_f eta=0.05",
        "zeta",
        "rkl beta=0.1 k3",
        "rkl beta=0.1 k2",
        "grpo maxrl",
        "grpo",
        "base",
    ]
    view = View(comparison(dict.fromkeys(keys, "grpo")))
    assert [f"{e.method} {e.setting}".strip() for e in view.entries] == [
        *("base", "grpo", "grpo maxrl", "rkl beta=0.1 k2", "rkl beta=0.1 k3", "dph_f eta=0.05", "dph_f eta=0.5", "zeta")
    ]
    assert view.baseline == Entry("grpo") and view.sweeps() == {"grpo", "rkl", "dph_f"}


def test_a_sweep_goes_from_pale_to_full_and_another_estimator_changes_the_line() -> None:
    entries = [Entry("rkl", f"beta={b} {k}") for b in (0.1, 0.5) for k in ("k2", "k3")]
    found = looks(entries)
    assert [look.css for look in found.values()] == [
        *["color-mix(in srgb, var(--rkl) 50%, var(--page))"] * 2,
        *["var(--rkl)"] * 2,
    ]
    assert found[entries[0]].line == found[entries[2]].line != found[entries[1]].line == found[entries[3]].line
    assert looks([Entry("grpo")])[Entry("grpo")].color == METHODS["grpo"].light


def test_methods_of_other_tools_are_told_apart() -> None:
    """They borrow the looks of methods that are not shown, and keep them whatever else is."""
    names = ["base", "grpo", "qwen", "mine", *(f"m{i}" for i in range(7))]
    found = looks([Entry(name) for name in names])
    assert found[Entry("grpo")].css == "var(--grpo)" and found[Entry("qwen")].css == "var(--dapo)"
    assert len({(look.css, look.marker) for look in found.values()}) == len(names)
    assert looks([Entry(f"m{i}") for i in range(11)])[Entry("m10")].css == "var(--other)"


def test_the_limit_is_a_line_of_the_frontier_where_the_task_says_it() -> None:
    """GRPO, 78.9 and 87.4, lies right of the line x = 70 from 99 down to 80, that is 8.9 away; the base, 62.2 and 98.6,
    7.8 left of it; DPH-F 76.7 and 96.3, 6.7."""
    view = View(comparison_of(with_limit(summary_of(THREE), points=[[0.7, 0.99], [0.7, 0.8]])))
    spec, without = (frontier_chart(view, dataset) for dataset in ("in_domain", "arithmetic"))
    line, name = (layer for layer in spec["layer"] if layer["encoding"].get("color") == {"value": "var(--muted)"})
    assert [(row["x"], row["y"]) for row in line["data"]["values"]] == [(70, 99), (70, 80)]
    assert [row["name"] for row in name["data"]["values"]] == ["limit"]
    assert spec["encoding"]["y"]["scale"]["domain"][0] < 80 < without["encoding"]["y"]["scale"]["domain"][0]
    assert len(without["layer"]) == len(spec["layer"]) - 2
    assert limit_lines(view) == ["Dashed, the limit (in-domain): what a saint reaches."]
    table = limit_table(view)
    assert table is not None and table.headings == ("method", "in-domain")
    assert table.rows == (("Base", "7.8"), ("GRPO", "8.9"), ("DPH-F", "6.7"))
    labels = [chart.label for chart in charts_of(view)["frontier"]]
    assert labels[0].endswith("; the limit goes from 70.0, 99.0 to 70.0, 80.0") and "limit" not in labels[1]


def test_a_limit_at_another_k_is_not_drawn() -> None:
    view = View(comparison_of(with_limit(summary_of(THREE), k=4)))
    assert view.frontier_limit("in_domain") is limit_table(view) is None and limit_lines(view) == []


def test_curves_average_seeds_and_smooth() -> None:
    """Rewards s/20 and s/20 + 1 over s = 0..9: mean s/20 + 1/2 inside; at the start the mean of three values."""
    found = curves(TRAINING)
    assert list(found) == ["reward", "entropy"] and list(found["reward"]) == [Entry("grpo"), Entry("dph_f")]
    curve = found["reward"][Entry("grpo")]
    assert curve.seeds == 2 and curve.steps.tolist() == list(range(10))
    np.testing.assert_allclose(curve.mean[2:8], np.arange(2, 8) / 20 + 0.5)
    assert curve.mean[0] == pytest.approx((0 + 1 + 2) / 3 / 20 + 0.5)
    np.testing.assert_allclose(curve.high - curve.low, 1.0)
    assert curves({GRPO: [[{"step": 1, "reward": None}, {"step": 2, "reward": float("nan")}, {"loss": 1.0}]]}) == {}


def test_a_long_curve_is_thinned_evenly_and_keeps_its_ends() -> None:
    (curve,) = curves({GRPO: [[{"step": s, "reward": 0.5} for s in range(5_000)]]})["reward"].values()
    gaps = np.diff(curve.steps)
    assert len(curve.steps) == 150 and (curve.steps[0], curve.steps[-1]) == (0, 4_999)
    assert gaps.min() >= 33 and gaps.max() <= 34


@pytest.mark.parametrize(
    ("value", "metric", "signed", "expected"),
    [
        (0.9966, "keep", False, "99.7"),
        (6.14, "distinct_correct", False, "6.1"),
        (-0.0001, "keep", True, "+0.0"),
        (-0.022, "greedy", True, "-2.2"),
        (None, "keep", False, "–"),
    ],
)
def test_numbers_have_one_decimal(value: float | None, metric: str, signed: bool, expected: str) -> None:
    assert number_text(value, metric, signed=signed) == expected


def test_intervals_and_names() -> None:
    assert interval_text(0.1, 0.25, "keep") == "[10.0, 25.0]" and interval_text(None, 0.2, "keep") == ""
    assert display("dph_f", "eta=0.2") == "DPH-F eta=0.2" and display("new") == "new"
    assert visible("a\u202eb\x1b[0m\nc\u2066") == "a\\u202eb\\u001b[0m\nc\\u2066"


def test_a_summary_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows; evaluate at least one run with `dphrl eval`"):
        write_page(NOTHING, tmp_path, title="x")
    with pytest.raises(DataError, match="no rows"):
        print_levels(NOTHING, Console())


def printed(compared: Comparison, *, width: int = 100, encoding: str = "utf-8", terminal: bool = False) -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    print_levels(compared, Console(file=buffer, width=width, force_terminal=terminal, _environ={}))
    return buffer.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


TABLE = """
in-domain
           greedy    mean@64        P@8        P@64       keep   explore   distinct   P@1-64
─────────────────────────────────────────────────────────────────────────────────────────────
 Base    79.4±0.4   62.2±0.4   98.6±0.4   100.0±0.4          –         –    7.5±0.0   ▁██
 GRPO    83.3±0.4   78.9±0.4   87.4±0.4    93.2±0.4   93.2±0.4         –    2.3±0.0   ▄▆▇
 DPH-F   84.1±0.4   76.7±0.4   96.3±0.4    99.7±0.4   99.7±0.4         –    6.1±0.0   ▄▇█
98 prompts, n = 64; rates in %; ±: sd over seeds
Note: Seeds differ.
"""


def test_the_terminal_shows_a_table_a_task() -> None:
    """Golden: width 100, no colour."""
    compared = comparison(THREE, datasets=("in_domain",), notes=["Seeds differ."])
    assert [line.rstrip() for line in printed(compared).splitlines()] == TABLE.splitlines()


@pytest.mark.parametrize("width", [44, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    text = printed(comparison(THREE), width=width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "DPH-F   " in text and "76.7" in text and "99.7" in text


def test_terminals_without_unicode_get_ascii_and_users_text_is_no_markup() -> None:
    compared = comparison({**THREE, f"dph_js [red]{EVIL}": "dph_f"}, datasets=("in_domain",), seeds=1)
    text = printed(compared, encoding="ascii", width=200)
    assert "76.7+/-1.0" in text and "+/-: half of the 95 % interval" in text and "[red]" in text
    coloured = printed(compared, width=200, terminal=True)
    assert "\x1b[31m" not in coloured and "\u202e" not in coloured and "\x1b[1m" in coloured
