"""What a command leaves on standard output: blocks for a curve, one line of JSON for machines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_summaries import comparison_of

from dphrl.report.terminal import BLOCKS, blocks, show_comparison

ROWS = [{"method": "grpo", "setting": "", "seed": 0, "dataset": "in_domain", "n": 4, "prompts": 10}]
SUMMARY = comparison_of(
    {
        "rows": ROWS,
        "aggregate": [
            {"method": "grpo", "setting": "", "dataset": "in_domain", "metric": f"pass@{k}", "mean": mean, "seeds": 1}
            for k, mean in ((1, 0.2), (2, 0.55), (4, 0.9))
        ],
        "baseline": None,
        "notes": [],
    }
)


def test_the_lowest_and_the_highest_block() -> None:
    assert blocks([0.2, 0.55, 0.9], 0.2, 0.9) == "▁▅█" and blocks([0.5], 0.5, 0.5) == "█"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_curve_that_rises_never_looks_lower(values: list[float]) -> None:
    drawn = blocks(sorted(values), min(values), max(values))
    assert [BLOCKS.index(b) for b in drawn] == sorted(BLOCKS.index(b) for b in drawn)


def test_machines_get_one_line_of_json_and_people_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(SUMMARY, as_json=True)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and json.loads(printed) == SUMMARY.to_json()
    show_comparison(SUMMARY, as_json=False)
    printed = capsys.readouterr().out
    assert "▁▅█" in printed and "P@1-4" in printed and "\x1b" not in printed


def test_no_colour_where_none_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_comparison(SUMMARY, as_json=False)
    assert "\x1b[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show_comparison(SUMMARY, as_json=False)
    assert "\x1b[3" not in capsys.readouterr().out, "NO_COLOR leaves bold, and takes colours"
