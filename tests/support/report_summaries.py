"""Comparisons written by hand, as the JSON of summary.json and as records, for tests of the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.metrics.seeds import SeedSpread
from dphrl.metrics.summary import TaskSummary
from dphrl.report.comparison import (
    Aggregate,
    BaseChange,
    ComparedModel,
    Comparison,
    Difference,
    Entry,
    HarnessNumber,
)
from dphrl.runs.harness_results import HarnessRow

LEVELS = {
    "base": {"greedy": 0.794, "mean_at_n": 0.622, "pass@1": 0.622, "pass@8": 0.986, "pass@64": 1.0},
    "grpo": {"greedy": 0.833, "mean_at_n": 0.789, "pass@1": 0.789, "pass@8": 0.874, "pass@64": 0.932, "keep": 0.932},
    "dph_f": {"greedy": 0.841, "mean_at_n": 0.767, "pass@1": 0.767, "pass@8": 0.963, "pass@64": 0.997, "keep": 0.997},
}
"""The prototype's numbers (DESIGN.md)."""
DISTINCT = {"base": 7.5, "grpo": 2.3, "dph_f": 6.1}


def aggregate(entry: str, setting: str, dataset: str, seeds: int) -> list[dict[str, Any]]:
    """Every metric of one entry; half-widths 0.01, sd 0.004, differences to GRPO +- 0.02."""
    values = LEVELS[entry] | {"distinct_correct": DISTINCT[entry], "pass@n": LEVELS[entry]["pass@64"]}
    rows = []
    for metric in (*LEVELS["grpo"], "explore", "pass@n", "distinct_correct"):
        mean = values.get(metric)
        known = LEVELS["grpo"] | {"distinct_correct": 2.3, "pass@n": 0.932}
        gap = None if entry == "grpo" or mean is None else mean - known[metric]
        rows.append(
            {
                "method": entry,
                "setting": setting,
                "dataset": dataset,
                "metric": metric,
                "mean": mean,
                "sd": 0.004 if seeds > 1 else None,
                "seeds": seeds,
                "low": None if mean is None else mean - 0.01,
                "high": None if mean is None else min(mean + 0.01, 1.0 if metric != "distinct_correct" else 99),
                "difference": gap and {"baseline": "grpo", "value": gap, "low": gap - 0.02, "high": gap + 0.02},
            }
        )
    return rows


def summary_of(
    entries: Mapping[str, str], *, datasets: tuple[str, ...] = ("in_domain", "arithmetic"), seeds: int = 3, **more: Any
) -> dict[str, Any]:
    """A comparison; `entries` maps 'method setting' to the method whose numbers it has."""
    keys = [(key.partition(" ")[0], key.partition(" ")[2], like) for key, like in entries.items()]
    rows = [
        {"method": method, "setting": setting, "seed": s, "dataset": d, "n": 64, "prompts": 98}
        for method, setting, _ in keys
        for d in datasets
        for s in range(seeds)
    ]
    found = [
        a | {"method": method}
        for method, setting, like in keys
        for d in datasets
        for a in aggregate(like, setting, d, seeds)
    ]
    changes = [c for method, setting, like in keys for d in datasets for c in against_base(method, setting, like, d)]
    return {
        "rows": rows,
        "aggregate": found,
        "forgetting": changes if "base" in entries else [],
        "baseline": "grpo",
        "notes": [],
        **more,
    }


def with_limit(
    summary: dict[str, Any], *, k: int = 8, what: str = "what a saint reaches", points: Sequence[Any] = ((0.7, 0.9),)
) -> dict[str, Any]:
    """The same with a limit of the first dataset."""
    limit = {"frontier_limit": {"k": k, "what": what, "points": points}}
    first = summary["rows"][0]["dataset"]
    return summary | {"rows": [row | limit if row["dataset"] == first else row for row in summary["rows"]]}


def against_base(method: str, setting: str, like: str, dataset: str) -> list[dict[str, Any]]:
    """Differences to the base with half-widths 0.02, 0.5 of the different solutions; none of the base."""
    if method == "base":
        return []
    key = {"method": method, "setting": setting, "dataset": dataset}
    gaps = {m: LEVELS[like][m] - LEVELS["base"][m] for m in ("greedy", "mean_at_n", "pass@8", "pass@64")}
    halves = dict.fromkeys(gaps, 0.02) | {"distinct_correct": 0.5}
    gaps["distinct_correct"] = DISTINCT[like] - DISTINCT["base"]
    changes = [
        key | {"metric": m, "value": gap, "low": gap - halves[m], "high": gap + halves[m]} for m, gap in gaps.items()
    ]
    return [*changes, changes[3] | {"metric": "pass@n"}]


def comparison(entries: Mapping[str, str], **more: Any) -> Comparison:
    """The records of `summary_of`."""
    return comparison_of(summary_of(entries, **more))


def comparison_of(summary: Mapping[str, Any]) -> Comparison:
    """The records of a summary.json; what is not in it is not known."""
    rows = [
        ComparedModel(row["method"], row["setting"], row["seed"], TaskSummary.from_json(_task(row)))
        for row in summary["rows"]
    ]
    return Comparison(
        rows=tuple(rows),
        aggregate=tuple(_aggregate(a) for a in summary["aggregate"]),
        forgetting=tuple(BaseChange(**cell) for cell in summary.get("forgetting", ())),
        harness=tuple(
            HarnessNumber(h["method"], h["setting"], h["seed"], HarnessRow(**{**NO_HARNESS, **_task(h)}))
            for h in summary.get("harness", ())
        ),
        baseline=summary["baseline"],
        notes=tuple(summary["notes"]),
    )


NO_HARNESS = {"asked": "", "shots": None, "version": None}


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("method", "setting", "seed")}


def _aggregate(values: Mapping[str, Any]) -> Aggregate:
    unknown = dict.fromkeys(("sd", "low", "high", "spread", "difference"))
    gap = values.get("difference")
    known = {
        "mean": math.nan if values["mean"] is None else values["mean"],
        "difference": gap and Difference(**{"spread": None, **gap, **_spread(gap)}),
        **_spread(values),
    }
    return Aggregate(**{**unknown, **values, **known})


def _spread(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"spread": values.get("spread") and SeedSpread(**values["spread"])}


THREE = {"base": "base", "grpo": "grpo", "dph_f": "dph_f"}
TRAINING = {
    Entry(m): [[{"step": s, "reward": s / 20 + seed, "entropy": 1 / (1 + s)} for s in range(10)] for seed in (0, 1)]
    for m in ("grpo", "dph_f")
}
"""Logs of two seeds."""

EVIL = '</template></style></svg><script>alert("x")</script>-->\u202egnp.$x_1$\x1b[31m'
