"""Which setting keeps the most for what it gains? A search on one world of the demo, judged on others. One JSON line.

    python benchmarks/best_setting.py --world 0 --seeds 0,1,2,3,4 --out runs/best/0
    python benchmarks/best_setting.py --world 1 --seeds 10,11,12 --settings grpo,rkl,f,CHOSEN --out runs/best/1

Every setting of SETTINGS trains from the world's base as `dphrl demo` does (60 generations of 64 completions), then 64
completions a prompt are drawn. Of each task: mean@64, Pass@8, distinct solutions, in %, means over seeds; differences
to GRPO and to the base with 95 % intervals, resampled over prompts and seeds together; `distance`, in points, from the
nearest pair (mean@64, Pass@8) that a policy could have which knows the world's rules (dphrl/demo/limit.py). World 0
ships; another is built in two minutes by `python -m dphrl.demo.build --seed`. What is done already in --out is kept, so
an interrupted search goes on. The picture is OUT/frontier.png, the table OUT/table.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.demo.build import build
from dphrl.demo.database import CROSS_DOMAIN, IN_DOMAIN, open_database
from dphrl.demo.limit import chances_of, limit
from dphrl.demo.task import ASSETS, canonical, model_folder, world_database
from dphrl.demo.world import Problem
from dphrl.metrics.frontier_limit import distance_to_limit
from dphrl.metrics.pass_at_k import pass_at_k
from dphrl.progress import shown
from dphrl.stages.demo.parallel_jobs import gather, worker_pool
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.presample.presample import presample
from dphrl.stages.train.train import train

N, K = 64, 8
RESAMPLES = 4000
TABLES = {"in_domain": IN_DOMAIN, "cross_domain": CROSS_DOMAIN}
TASKS = (*TABLES, "arithmetic")
Setting = Mapping[str, Any]
"""Sections of a config over those of the demo; `anchor` decides which base run a setting reads."""

ALL = {"prompts": "all"}
CORRECT = {"source": "correct"}
DISTINCT = {"source": "correct", "presamples": 32, "threshold": 24, "full_counts": True, "per_prompt": 8}
"""Up to 8 different right solutions of every prompt, each an anchor of equal weight."""
NEAR_DISTINCT = {"presamples": 32, "threshold": 24, "full_counts": True, "per_prompt": 8}


def dph(eta: float, divergence: str = "forward_kl", **objective: Any) -> dict[str, Any]:
    return {"method": "dph", "objective": {"divergence": divergence, "eta": eta, **objective}}


def falling(eta: float) -> dict[str, Any]:
    return dph(eta, eta_schedule="linear")


def drift(target: float) -> dict[str, Any]:
    return dph(0.2, eta_schedule="target", drift_target=target)


def rkl(beta: float, estimator: str) -> dict[str, Any]:
    return {"method": "rkl", "objective": {"beta": beta, "kl_estimator": estimator}}


GRPO: dict[str, Any] = {"method": "grpo"}
SETTINGS: dict[str, Setting] = {
    "grpo": GRPO,
    "grpo half rate": {**GRPO, "train": {"learning_rate": 5e-4}},
    "grpo cosine": {**GRPO, "train": {"lr_schedule": "cosine"}},
    "grpo clip-higher": {**GRPO, "train": {"clip_high": 0.28}},
    "grpo maxrl": {**GRPO, "train": {"advantage": "maxrl"}},
    "grpo passk": {**GRPO, "train": {"advantage": "passk"}},
    "grpo pkpo": {**GRPO, "train": {"advantage": "pkpo"}},
    "grpo unlikeliness": {**GRPO, "train": {"advantage": "unlikeliness"}},
    "dapo": {"method": "dapo"},
    "rkl k2 0.1": rkl(0.1, "k2"),
    "rkl k2 0.3": rkl(0.3, "k2"),
    "rkl k3 0.1": rkl(0.1, "k3"),
    # Anchors of near-perfect prompts, RL on the others: the paper.
    "f 0.05": dph(0.05),
    "f 0.2": dph(0.2),
    "f 0.5": dph(0.5),
    "js 0.5": dph(0.5, "js"),
    "alpha 0.2": dph(0.2, "alpha"),
    "f 0.2 clip 0.2": {**dph(0.2), "train": {"clip_high": 0.2}},
    "f 0.2 falls": falling(0.2),
    "f 0.5 falls": falling(0.5),
    "f drift 0.02": drift(0.02),
    "f drift 0.05": drift(0.05),
    "f 0.2 topk": {**dph(0.2, anchor_estimator="topk"), "anchor": {"topk": 16}},
    "f 0.2 keep": {**dph(0.2), "anchor": {"also": [{"task": "demo:arithmetic", "prompts": 120}]}},
    "f 0.2 maxrl": {**dph(0.2), "train": {"advantage": "maxrl"}},
    "f 0.2 passk": {**dph(0.2), "train": {"advantage": "passk"}},
    "f 0.2 distinct": {**dph(0.2), "anchor": NEAR_DISTINCT},
    # The paper's anchors, RL on all prompts.
    "all f 0.05": {**dph(0.05), "train": ALL},
    "all f 0.2": {**dph(0.2), "train": ALL},
    "all js 0.5": {**dph(0.5, "js"), "train": ALL},
    # Right draws of every prompt as anchors, RL on all.
    "correct f 0.05": {**dph(0.05), "anchor": CORRECT, "train": ALL},
    "correct f 0.2": {**dph(0.2), "anchor": CORRECT, "train": ALL},
    "correct f 0.5": {**dph(0.5), "anchor": CORRECT, "train": ALL},
    "correct f 0.2 maxrl": {**dph(0.2), "anchor": CORRECT, "train": {**ALL, "advantage": "maxrl"}},
    # One anchor a distinct solution.
    "distinct f 0.05": {**dph(0.05), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.2": {**dph(0.2), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.5": {**dph(0.5), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.2 half": {**dph(0.2, anchor_ratio=0.5), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.2 falls": {**falling(0.2), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.1 passk": {**dph(0.1), "anchor": DISTINCT, "train": {**ALL, "advantage": "passk"}},
    "distinct js 0.5": {**dph(0.5, "js"), "anchor": DISTINCT, "train": ALL},
    "distinct f 0.2 filter": {**dph(0.2), "anchor": DISTINCT, "train": {**ALL, "exploration_filter": [0.05, 0.95]}},
}


def built(world: int, folder: Path) -> Path:
    """Assets of a world; built where it is not world 0, which ships."""
    if world == 0:
        return ASSETS
    if not (folder / "MANIFEST.json").exists():
        build(folder, seed=world)
    return folder


def problems_of(assets: Path, task: str, split: str) -> list[Problem]:
    lines = (assets / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [p for line in lines if (p := Problem(**json.loads(line))).task == task and p.split == split]


def data_of(assets: Path, task: str, split: str, folder: Path) -> dict[str, Any]:
    """A task of any world as a file of rows; the same for world 0, so that solutions are counted alike."""
    sql = task in TABLES
    rows = [{"id": p.id, "prompt": p.prompt, "gold": p.gold} for p in problems_of(assets, task, split)]
    if sql:
        rows = [{**row, "db": str(world_database(assets).resolve())} for row in rows]
    path = folder / f"{task}-{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = {"verifier": "sql", "verifier_args": {"keep_distinct": True}} if sql else {"verifier": "exact"}
    return {"data": str(path), "template": "{prompt}", **judged}


def config_of(out: Path, assets: Path, seed: int, setting: Setting, name: str = "") -> Config:
    """The config of one run; without a name, of the base run whose anchors it reads."""
    anchor = {"presamples": 8, "threshold": 6, "batch_size": 64, **setting.get("anchor", {})}
    base = out / f"base-{digest(anchor)}-s{seed}"
    trained = {"steps": 60, "prompts_per_step": 8, "group_size": 8, "updates": 2, "learning_rate": 1e-3}
    values: dict[str, Any] = {
        "out": str(out / f"{name.replace(' ', '_')}-s{seed}" if name else base),
        "base_run": str(base) if name else None,
        "seed": seed,
        "threads": 1,
        "model": {"path": str(model_folder(assets)), "device": "cpu"},
        "task": data_of(assets, "in_domain", "train", out / "data"),
        "eval_tasks": {task: data_of(assets, task, "eval", out / "data") for task in TASKS},
        "sampling": {"max_new_tokens": 40, "temperature": 1.0, "batch_size": 512},
        "anchor": anchor,
        "train": {**trained, "lr_schedule": "linear", "save_every": 20},
        "eval": {"n": N, "resamples": 100},
    }
    if name:
        values["train"] |= setting.get("train", {})
        values |= {key: setting[key] for key in ("method", "objective") if key in setting}
    return build_config(values)


def digest(anchor: Mapping[str, Any]) -> str:
    short = {"presamples": "", "per_prompt": "x", "source": "-", "topk": "-top", "also": "-keep"}
    parts = [f"{sign}{'' if key == 'also' else anchor[key]}" for key, sign in short.items() if key in anchor]
    return "".join(parts)


def run_all(configs: Mapping[tuple[str, int], Config], bases: Sequence[Config], jobs: int) -> None:
    """What is missing: base runs, then trainings and their draws, side by side."""
    with shown() as progress, worker_pool(jobs, progress) as submit:
        gather([submit(stage, presample, config) for config in bases])
        gather([submit(stage, partial(evaluate, models=("base",)), config) for config in bases])
        gather([submit(trained_and_drawn, config) for config in configs.values()])


def stage(function: Any, config: Config, *, progress: Any) -> None:
    run = Path(config.out).name
    function(config, base_dir=Path(), progress=lambda task, *more, **notes: progress(f"{run}: {task}", *more, **notes))


def trained_and_drawn(config: Config, *, progress: Any) -> None:
    if (Path(config.out) / "eval" / "final" / "summary.json").exists():
        return
    stage(train, config, progress=progress)
    stage(partial(evaluate, models=("final",)), config, progress=progress)


def scores(run: Path, model: str, task: str) -> NDArray[np.float64]:
    """(prompts, 3): mean@64, Pass@8 and distinct solutions of each prompt, rows in the order of ids."""
    table = pq.read_table(run / "eval" / model / f"{task}.parquet").to_pylist()
    right: dict[str, list[str]] = {}
    for row in table:
        if row["draw"] >= 0:
            solutions = right.setdefault(row["prompt_id"], [])
            if row["correct"]:
                solutions.append(canonical(row["text"]))
    counts_P = np.array([len(right[i]) for i in sorted(right)])
    passed_P = pass_at_k(np.full_like(counts_P, N), counts_P, [K])[:, 0]
    return np.stack([counts_P / N, passed_P, [len(set(right[i])) for i in sorted(right)]], axis=1)


def resampled(scores_SPM: NDArray[np.float64], other_SPM: NDArray[np.float64]) -> list[list[float]]:
    """Mean difference of each metric, with its 95 % interval over prompts and seeds, resampled together."""
    gap_SPM = scores_SPM - other_SPM
    rng = np.random.default_rng(0)
    seeds, prompts, _ = gap_SPM.shape
    means = np.empty((RESAMPLES, gap_SPM.shape[2]))
    for i in range(RESAMPLES):
        chosen = gap_SPM[rng.integers(seeds, size=seeds)].mean(axis=0)
        means[i] = chosen[rng.integers(prompts, size=prompts)].mean(axis=0)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return [[float(x) for x in row] for row in zip(gap_SPM.mean(axis=(0, 1)), low, high, strict=True)]


def measured(configs: Mapping[tuple[str, int], Config], borders: Mapping[str, Any]) -> dict[str, Any]:
    """Setting -> task -> level and differences of mean@64, Pass@8, distinct solutions."""
    names = list(dict.fromkeys(name for name, _ in configs))
    seeds = sorted({seed for _, seed in configs})
    found: dict[str, Any] = {}
    for task in TASKS:
        of = {name: np.stack([scores(Path(configs[name, s].out), "final", task) for s in seeds]) for name in names}
        of["base"] = np.stack([scores(Path(configs["grpo", s].base_run or ""), "base", task) for s in seeds])
        for name, scores_SPM in of.items():
            level = scores_SPM.mean(axis=(0, 1))
            entry = {"level": level.tolist()}
            entry |= {f"over {other}": resampled(scores_SPM, of[other]) for other in ("grpo", "base") if other != name}
            if task in borders:
                entry["distance"] = distance_to_limit((level[0], level[1]), borders[task])
            found.setdefault(name, {})[task] = entry
    return found


def table(found: Mapping[str, Any]) -> str:
    """Markdown, % and points, sorted by distance to the limit in domain."""

    def gap(entry: Mapping[str, Any], other: str, metric: int) -> str:
        if f"over {other}" not in entry:
            return "–"
        value, low, high = (100 * x for x in entry[f"over {other}"][metric])
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"

    head = (
        "| setting | distance to the limit | mean@64 | P@8 | distinct | mean@64 over GRPO | P@8 over base "
        "| cross mean@64 | cross P@8 | arithmetic mean@64 |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for name, tasks in sorted(found.items(), key=lambda item: item[1]["in_domain"]["distance"]):
        inside, cross = tasks["in_domain"], tasks["cross_domain"]
        mean, passed, distinct = inside["level"]
        cells = [name, f"{100 * inside['distance']:.1f}", f"{100 * mean:.1f}", f"{100 * passed:.1f}", f"{distinct:.1f}"]
        cells += [gap(inside, "grpo", 0), gap(inside, "base", 1)]
        cells += [f"{100 * x:.1f}" for x in (*cross["level"][:2], tasks["arithmetic"]["level"][0])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(found: Mapping[str, Any], border: Sequence[tuple[float, float]], path: Path) -> None:
    """Pass@8 against mean@64 in domain, %, a point a setting, beside what is possible."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    families = {
        "grpo": ("GRPO and its advantages, DAPO", "#d55e00", "s"),
        "rkl": ("reverse KL on fresh draws", "#6b7280", "^"),
        "f": ("anchors of near-perfect prompts, RL on the others", "#2171b5", "o"),
        "all": ("the same anchors, RL on all prompts", "#6baed6", "v"),
        "correct": ("anchors of right draws, RL on all prompts", "#009e73", "D"),
        "distinct": ("one anchor a distinct solution, RL on all prompts", "#004d40", "P"),
        "base": ("base", "#000000", "X"),
    }
    family_of = {"dapo": "grpo", "js": "f", "alpha": "f"}
    figure, axes = pyplot.subplots(figsize=(7.5, 5.2), layout="constrained")
    axes.plot(*(100 * np.array(border).T), color="#000000", lw=1.2, label="limit: rules known, golds not")
    for name, (label, colour, marker) in families.items():
        of = {setting: family_of.get(first := setting.split()[0], first) for setting in found}
        points = [found[setting]["in_domain"]["level"][:2] for setting in found if of[setting] == name]
        if points:
            x, y = 100 * np.array(points).T
            axes.scatter(x, y, c=colour, marker=marker, s=34, label=label, alpha=0.9)
    axes.set(xlabel="mean@64, %", ylabel="Pass@8, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", type=int, default=0, help="seed of the demo's world [0, which ships]")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of the trainings")
    parser.add_argument("--settings", default="", help="of SETTINGS, with commas [all]; grpo is always there")
    parser.add_argument("--out", type=Path, default=Path("runs/best/0"))
    parser.add_argument("--assets", type=Path, help="folder of a built world [OUT/world]")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    options = parser.parse_args()
    wanted = [name for name in options.settings.split(",") if name] or list(SETTINGS)
    unknown = [name for name in wanted if name not in SETTINGS]
    if unknown:
        sys.exit(f"--settings: {unknown} are not settings; there are: {', '.join(SETTINGS)}")
    assets = built(options.world, options.assets or options.out / "world")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    names = list(dict.fromkeys(["grpo", *wanted]))
    configs = {(name, s): config_of(options.out, assets, s, SETTINGS[name], name) for name in names for s in seeds}
    bases = {c.out: c for name in names for s in seeds if (c := config_of(options.out, assets, s, SETTINGS[name]))}
    run_all(configs, list(bases.values()), options.jobs)
    connection = open_database(world_database(assets))
    borders = {
        task: limit([*chances_of(connection, tables, problems_of(assets, task, "eval")).values()], k=K)
        for task, tables in TABLES.items()
    }
    found = measured(configs, borders)
    (options.out / "table.md").write_text(table(found), encoding="utf-8")
    picture(found, borders["in_domain"], options.out / "frontier.png")
    print(json.dumps({"world": options.world, "seeds": seeds, "limit": borders, "settings": found}))


if __name__ == "__main__":
    main()
