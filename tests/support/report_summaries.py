"""Comparisons written by hand, for tests of the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    return {"rows": rows, "aggregate": found, "baseline": "grpo", "notes": [], **more}


THREE = {"base": "base", "grpo": "grpo", "dph_f": "dph_f"}
TRAINING = {
    m: [
        {"step": s, "seed": seed, "reward": s / 20 + seed, "entropy": 1 / (1 + s)} for s in range(10) for seed in (0, 1)
    ]
    for m in ("grpo", "dph_f")
}

EVIL = '</template></style></svg><script>alert("x")</script>-->\u202egnp.$x_1$\x1b[31m'
