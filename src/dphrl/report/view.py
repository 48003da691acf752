"""A comparison's summary as the page, the figures and the terminal read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dphrl.errors import DataError
from dphrl.report.labels import COUNTS, METHODS, METRIC_NAMES, display

COMPARED_K = 8
"""The k of Pass@k in tables, verdicts and the frontier; the largest k below it where n is smaller."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of every table: a method and, in a sweep, its setting."""

    method: str
    setting: str = ""

    @property
    def name(self) -> str:
        """As people read it: 'DPH-F eta=0.2'."""
        return display(self.method, self.setting)


@dataclass(frozen=True, slots=True)
class Difference:
    """To the baseline, paired over prompts; low and high are None when the interval is unknown."""

    value: float
    low: float | None
    high: float | None
    agree: int | None = None
    """Prompts, where all differ by the same amount and the interval has no width."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Stat:
    """One number of the aggregate: rates in 0..1."""

    mean: float
    sd: float | None
    """Over seeds; None with one seed."""
    seeds: int
    low: float | None
    high: float | None
    """95 % interval over prompts."""
    difference: Difference | None
    spread: Mapping[str, Any] | None = None
    """Standard errors by source, where there are several seeds; see docs/evaluation.md."""


class View:
    """Look-ups in a summary as `stages.compare.compare` writes it.

    Raises:
        DataError: the summary has no rows.
    """

    def __init__(self, summary: Mapping[str, Any]) -> None:
        rows: Sequence[Mapping[str, Any]] = summary.get("rows") or ()
        if not rows:
            raise DataError("the summary has no rows; evaluate at least one run with `dphrl eval` first")
        self.rows = rows
        self.notes: tuple[str, ...] = tuple(summary.get("notes") or ())
        self.harness: tuple[Mapping[str, Any], ...] = tuple(summary.get("harness") or ())
        self.datasets: tuple[str, ...] = tuple(dict.fromkeys(row["dataset"] for row in rows))
        found = {Entry(row["method"], row.get("setting", "")) for row in rows}
        self.entries: tuple[Entry, ...] = tuple(sorted(found, key=_order))
        names = {f"{e.method} {e.setting}".strip(): e for e in self.entries}
        self.baseline: Entry | None = names.get(summary.get("baseline") or "")
        self._stats = {
            (Entry(a["method"], a.get("setting", "")), a["dataset"], a["metric"]): _stat(a)
            for a in summary.get("aggregate", ())
            if a["mean"] is not None
        }
        self._forgetting = {
            (Entry(f["method"], f.get("setting", "")), f["dataset"], f["metric"]): f
            for f in summary.get("forgetting") or ()
        }

    def get(self, entry: Entry | None, dataset: str, metric: str) -> Stat | None:
        """A number, or None where it has no meaning (keep of the base) or was not measured."""
        return self._stats.get((entry, dataset, metric)) if entry is not None else None

    def metrics(self, dataset: str) -> list[str]:
        """Every metric known of any entry on a dataset, in the order of the summary."""
        return list(dict.fromkeys(metric for _, d, metric in self._stats if d == dataset))

    def rows_of(self, entry: Entry, dataset: str) -> list[Mapping[str, Any]]:
        """The rows of an entry on a dataset, one a seed."""
        key = (entry.method, entry.setting, dataset)
        return [r for r in self.rows if (r["method"], r.get("setting", ""), r["dataset"]) == key]

    def forgetting(self, entry: Entry, dataset: str, metric: str) -> Mapping[str, Any] | None:
        """Difference to the base, {value, low, high}, where the summary has it."""
        return self._forgetting.get((entry, dataset, metric))

    def n(self, dataset: str) -> int:
        """Draws per prompt; the smallest where runs differ."""
        return min(int(row["n"]) for row in self.rows if row["dataset"] == dataset)

    def prompts(self, dataset: str) -> int:
        """Prompts of a dataset."""
        return max(int(row["prompts"]) for row in self.rows if row["dataset"] == dataset)

    def seeds(self) -> tuple[int, ...]:
        """Every seed that occurs, ascending."""
        return tuple(sorted({int(row["seed"]) for row in self.rows}))

    def ks(self, entry: Entry, dataset: str) -> list[int]:
        """Every k at which Pass@k of an entry is known, ascending."""
        metrics = (metric for e, d, metric in self._stats if (e, d) == (entry, dataset))
        return sorted(int(m.removeprefix("pass@")) for m in metrics if re.fullmatch(r"pass@\d+", m))

    def k(self, dataset: str) -> int:
        """The k compared on a dataset: COMPARED_K, or the largest below it that was measured."""
        known = {k for entry in self.entries for k in self.ks(entry, dataset)}
        return max((k for k in known if k <= COMPARED_K), default=COMPARED_K)

    def columns(self, dataset: str) -> Iterator[tuple[str, str]]:
        """(metric, heading) of every column of a dataset's table; Pass@n is left out where it is Pass@k."""
        n, k = self.n(dataset), self.k(dataset)
        for metric, heading in METRIC_NAMES.items():
            if metric != "pass@n" or n != k:
                yield metric.format(k=k), heading.format(k=k, n=n)

    def sweeps(self) -> frozenset[str]:
        """Methods that occur with several settings."""
        methods = [entry.method for entry in self.entries]
        return frozenset(method for method in methods if methods.count(method) > 1)


def number(value: float | None, metric: str, *, signed: bool = False) -> str:
    """A rate as % with one decimal, a count with one decimal, '–' when there is none."""
    if value is None:
        return "–"
    shown = round(value if metric in COUNTS else 100 * value, 1) + 0.0  # no "-0.0"
    return f"{shown:+.1f}" if signed else f"{shown:.1f}"


def interval(low: float | None, high: float | None, metric: str, *, signed: bool = False) -> str:
    """'[74.1, 79.0]', or '' when there is none."""
    if low is None or high is None:
        return ""
    return f"[{number(low, metric, signed=signed)}, {number(high, metric, signed=signed)}]"


def gap_interval(gap: Difference, metric: str) -> str:
    """'[+6.9, +10.9]', 'on all 50 prompts' where they agree, or '' where it is unknown."""
    if gap.agree:
        return f"on all {gap.agree} prompts"
    return interval(gap.low, gap.high, metric, signed=True)


def _stat(found: Mapping[str, Any]) -> Stat:
    gap = found.get("difference")
    difference = Difference(gap["value"], gap.get("low"), gap.get("high"), gap.get("agree")) if gap else None
    return Stat(
        found["mean"],
        found.get("sd"),
        found["seeds"],
        found.get("low"),
        found.get("high"),
        difference,
        found.get("spread"),
    )


def _order(entry: Entry) -> tuple[int, str, list[str | float]]:
    """Methods as in METHODS, then settings by their numbers: eta=0.05 before eta=0.2 before eta=0.2 k2."""
    parts = re.split(r"(\d+(?:\.\d+)?)", entry.setting)  # text, number, text, ...: like meets like
    place = list(METHODS).index(entry.method) if entry.method in METHODS else len(METHODS)
    return place, entry.method, [float(part) if i % 2 else part for i, part in enumerate(parts)]
