"""Look-ups in a comparison: what the page, the figures, the tables and the terminal ask of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from dphrl.errors import DataError
from dphrl.metrics.pass_at_k import supported_k
from dphrl.metrics.summary import TaskSummary
from dphrl.report.comparison import Aggregate, BaseChange, Comparison, Entry
from dphrl.report.labels import METHODS, METRIC_NAMES
from dphrl.types import FrontierLimit


class View:
    """Look-ups in a comparison.

    Raises:
        DataError: the comparison has no rows.
    """

    def __init__(self, comparison: Comparison) -> None:
        if not comparison.rows:
            raise DataError("the summary has no rows; evaluate at least one run with `dphrl eval` first")
        self.rows = comparison.rows
        self.notes = comparison.notes
        self.harness = comparison.harness
        self.datasets: tuple[str, ...] = tuple(dict.fromkeys(row.summary.dataset for row in self.rows))
        self.entries: tuple[Entry, ...] = tuple(sorted({row.entry for row in self.rows}, key=_order))
        self.baseline: Entry | None = {e.key: e for e in self.entries}.get(comparison.baseline or "")
        self._aggregates = {(a.entry, a.dataset, a.metric): a for a in comparison.aggregate if not math.isnan(a.mean)}
        self._changes = {(Entry(c.method, c.setting), c.dataset, c.metric): c for c in comparison.forgetting}

    def get(self, entry: Entry | None, dataset: str, metric: str) -> Aggregate | None:
        """A number, or None where it has no meaning (keep of the base) or was not measured."""
        return self._aggregates.get((entry, dataset, metric)) if entry is not None else None

    def metrics(self, dataset: str) -> list[str]:
        """Every metric known of any entry on a dataset, in the order of the comparison."""
        return list(dict.fromkeys(metric for _, d, metric in self._aggregates if d == dataset))

    def summaries(self, entry: Entry, dataset: str) -> list[TaskSummary]:
        """What was measured of an entry on a dataset, one summary a seed."""
        return [row.summary for row in self.rows if (row.entry, row.summary.dataset) == (entry, dataset)]

    def base_change(self, entry: Entry, dataset: str, metric: str) -> BaseChange | None:
        """Difference to the base, where the comparison has it."""
        return self._changes.get((entry, dataset, metric))

    def n(self, dataset: str) -> int:
        """Draws per prompt; the smallest where runs differ."""
        return min(row.summary.n for row in self.rows if row.summary.dataset == dataset)

    def prompts(self, dataset: str) -> int:
        """Prompts of a dataset."""
        return max(row.summary.prompts for row in self.rows if row.summary.dataset == dataset)

    def seeds(self, dataset: str | None = None) -> tuple[int, ...]:
        """Every seed that occurs (on one dataset, or on all), ascending."""
        return tuple(sorted({row.seed for row in self.rows if dataset in (None, row.summary.dataset)}))

    def ks(self, entry: Entry, dataset: str) -> list[int]:
        """Every k at which Pass@k of an entry is known, ascending."""
        metrics = (metric for e, d, metric in self._aggregates if (e, d) == (entry, dataset))
        return sorted(int(m.removeprefix("pass@")) for m in metrics if re.fullmatch(r"pass@\d+", m))

    def k(self, dataset: str) -> int:
        """The k of Pass@k in tables, verdicts and the frontier: see `supported_k`."""
        known = {k for entry in self.entries for k in self.ks(entry, dataset)}
        return supported_k(known, self.n(dataset))

    def frontier_limit(self, dataset: str) -> FrontierLimit | None:
        """What can be reached on a dataset at the frontier's k; None where its task does not say."""
        known = (row.summary.frontier_limit for row in self.rows if row.summary.dataset == dataset)
        return next((limit for limit in known if limit is not None and limit.k == self.k(dataset)), None)

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


def _order(entry: Entry) -> tuple[int, str, list[str | float]]:
    """Methods as in METHODS, then settings by their numbers: eta=0.05 before eta=0.2 before eta=0.2 k2."""
    parts = re.split(r"(\d+(?:\.\d+)?)", entry.setting)  # text, number, text, ...: like meets like
    place = list(METHODS).index(entry.method) if entry.method in METHODS else len(METHODS)
    return place, entry.method, [float(part) if i % 2 else part for i, part in enumerate(parts)]
