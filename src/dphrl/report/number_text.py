"""Numbers of a comparison as people read them."""

from __future__ import annotations

from dphrl.report.comparison import BaseChange, Difference
from dphrl.report.labels import COUNTS


def number_text(value: float | None, metric: str, *, signed: bool = False) -> str:
    """A rate as % with one decimal, a count with one decimal, '–' when there is none."""
    if value is None:
        return "–"
    shown = round(value if metric in COUNTS else 100 * value, 1) + 0.0  # no "-0.0"
    return f"{shown:+.1f}" if signed else f"{shown:.1f}"


def interval_text(low: float | None, high: float | None, metric: str, *, signed: bool = False) -> str:
    """'[74.1, 79.0]', or '' when there is none."""
    if low is None or high is None:
        return ""
    return f"[{number_text(low, metric, signed=signed)}, {number_text(high, metric, signed=signed)}]"


def difference_interval_text(difference: Difference | BaseChange, metric: str) -> str:
    """'[+6.9, +10.9]', 'on all 50 prompts' where they agree, or '' where it is not known."""
    if difference.agree:
        return f"on all {difference.agree} prompts"
    return interval_text(difference.low, difference.high, metric, signed=True)
