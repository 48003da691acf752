"""How many anchors a step need: `objective.anchor_ratio` over 1/8 .. 1 on the demo's world, eta fixed. One JSON line.

    python benchmarks/anchor_ratio.py [--out runs/anchor-ratio] [--seeds 3] [--steps 120] [--jobs 1]

DPH-F with eta 0.2 and GRPO, as `dphrl demo` sets them but for --steps. The ratio counts anchors of an optimiser step
for each of its 32 completions; 1 is the demo's default, 32 anchors. Rates are means over seeds, in 0..1: mean@64 and
Pass@8 in domain, with their 95 % intervals over prompts, and the paired difference to ratio 1. What is done already
in --out is kept, so an interrupted sweep goes on. The picture is OUT/anchor-ratio.png; tables and figures of all that
was measured lie in OUT/report.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.demo.demo import run_demo
from dphrl.stages.demo.demo_options import METHODS, DemoSettings

RATIOS = (0.125, 0.25, 0.5, 1.0)
DEFAULT = "dph_f eta=0.2 anchor_ratio=1.0"
SHOWN = ("mean_at_n", "pass@8", "pass@64", "distinct_correct")


def variants() -> dict[str, Any]:
    dph = METHODS["dph_f"]
    of = {f"dph_f-{ratio}": {**dph, "objective": {**dph["objective"], "anchor_ratio": ratio}} for ratio in RATIOS}
    return {"base": {}, "grpo": METHODS["grpo"]} | of


def numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """method and setting -> metric -> [value, low, high, difference to ratio 1 with low and high]."""
    found: dict[str, Any] = {}
    for row in summary["aggregate"]:
        if row["dataset"] != "in_domain" or row["metric"] not in SHOWN:
            continue
        gap = row["difference"] or {}
        values = [row["mean"], row["low"], row["high"], *(gap.get(end) for end in ("value", "low", "high"))]
        name = f"{row['method']} {row['setting']}".strip()
        found.setdefault(name, {})[row["metric"]] = [None if v is None else round(v, 4) for v in values]
    return found


def picture(found: dict[str, Any], path: Path) -> None:
    """Pass@8 against mean@64 in domain, %, with intervals; one point a ratio, GRPO and the base beside them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.8), layout="constrained")
    shown = {"grpo": ("GRPO", "#d55e00", "s"), "base": ("Base", "#6b7280", "X")}
    blues = ("#a6cee3", "#6baed6", "#2171b5", "#08306b")
    shown |= {f"dph_f eta=0.2 anchor_ratio={r}": (f"DPH-F, ratio {r:g}", blues[i], "o") for i, r in enumerate(RATIOS)}
    for name, (label, color, marker) in shown.items():
        (x, *xs), (y, *ys) = ([100 * v for v in found[name][metric][:3]] for metric in ("mean_at_n", "pass@8"))
        spread = [[[v - low], [high - v]] for v, (low, high) in ((x, xs), (y, ys))]
        bars = {"xerr": spread[0], "yerr": spread[1], "elinewidth": 0.8}
        axes.errorbar([x], [y], fmt=marker, color=color, label=label, **bars)
    axes.set(xlabel="mean@64, in-domain, %", ylabel="Pass@8, in-domain, %")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/anchor-ratio"), help="default: runs/anchor-ratio")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: 3)")
    parser.add_argument("--steps", type=int, default=120, help="generations, two optimiser steps each (default: 120)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each (default: 1)")
    given = parser.parse_args()
    settings = replace(
        DemoSettings.of(methods=("base",), seeds=given.seeds, steps=given.steps, out=given.out, jobs=given.jobs),
        variants=variants(),
    )
    with redirect_stdout(sys.stderr):
        run_demo(settings)
        runs = [given.out / f"{name}-s{seed}" for name in settings.variants for seed in range(given.seeds)]
        trained = [path for path in runs if not path.name.startswith("base")]
        summary = compare_runs(trained, given.out / "compare-default", baseline=DEFAULT).to_json()
    found = numbers(summary)
    picture(found, given.out / "anchor-ratio.png")
    print(json.dumps({"seeds": given.seeds, "steps": given.steps, **found}))


if __name__ == "__main__":
    main()
