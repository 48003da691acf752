"""The records of a comparison: what `stages.compare` finds, every part of the report reads, and summary.json holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dphrl.metrics.seeds import SeedSpread
from dphrl.metrics.summary import TaskSummary
from dphrl.report.labels import display
from dphrl.runs.harness_results import HarnessRow
from dphrl.types import RARELY_THERE, as_json


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of every table: a method and, in a sweep, its setting."""

    method: str
    setting: str = ""

    @property
    def name(self) -> str:
        """As people read it: 'DPH-F eta=0.2'."""
        return display(self.method, self.setting)

    @property
    def key(self) -> str:
        """As a user names it: 'dph_f eta=0.2'."""
        return f"{self.method} {self.setting}".strip()


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One model on one task."""

    method: str
    setting: str
    seed: int
    summary: TaskSummary

    @property
    def entry(self) -> Entry:
        """The line of the tables that it belongs to."""
        return Entry(self.method, self.setting)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference to the baseline, paired over prompts."""

    baseline: str
    value: float
    low: float | None
    """End of the 95 % interval over prompts; None where it is not known."""
    high: float | None
    spread: SeedSpread | None
    """Where the uncertainty comes from; None without several seeds that both sides have."""
    agree: int | None = field(default=None, metadata=RARELY_THERE)
    """Prompts, where all differ by the same amount and the interval has no width."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One metric of one entry on one task, over its seeds; rates in 0..1."""

    method: str
    setting: str
    dataset: str
    metric: str
    mean: float
    """NaN where the metric has no meaning or is not known."""
    sd: float | None
    """Over seeds; None with one seed."""
    seeds: int
    low: float | None
    """End of the 95 % interval over prompts."""
    high: float | None
    spread: SeedSpread | None
    """Where the uncertainty comes from, where there are several seeds; see docs/evaluation.md."""
    difference: Difference | None

    @property
    def entry(self) -> Entry:
        """The line of the tables that it belongs to."""
        return Entry(self.method, self.setting)


@dataclass(frozen=True, slots=True)
class BaseChange:
    """How far one metric of one entry lies from that of the base, paired over prompts."""

    method: str
    setting: str
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    agree: int | None = field(default=None, metadata=RARELY_THERE)
    """Prompts, where all differ by the same amount and the interval has no width."""


@dataclass(frozen=True, slots=True)
class HarnessNumber:
    """One number of lm-evaluation-harness on one model."""

    method: str
    setting: str
    seed: int
    row: HarnessRow


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found about several models on the same tasks."""

    rows: tuple[ComparedModel, ...]
    aggregate: tuple[Aggregate, ...]
    forgetting: tuple[BaseChange, ...]
    harness: tuple[HarnessNumber, ...]
    baseline: str | None
    """Key of the entry that differences are taken to; None where no model is it."""
    notes: tuple[str, ...]
    """What makes numbers hard to compare, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """What summary.json of a comparison holds."""

        def key(of: ComparedModel | HarnessNumber) -> dict[str, Any]:
            return {"method": of.method, "setting": of.setting, "seed": of.seed}

        return {
            "rows": [key(row) | row.summary.to_json() for row in self.rows],
            "aggregate": as_json(self.aggregate),
            "forgetting": as_json(self.forgetting),
            "harness": [key(number) | as_json(number.row) for number in self.harness],
            "baseline": self.baseline,
            "notes": list(self.notes),
        }
