"""`dphrl demo`: methods compared on the embedded world, a run directory for each method and seed, side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.config.load import build_config, to_dict
from dphrl.config.root import Config
from dphrl.engines.trl import check_installed
from dphrl.errors import ConfigError, nearest
from dphrl.progress import Progress, shown

if TYPE_CHECKING:
    from dphrl.report.comparison import Comparison

EVAL_TASKS = ("in_domain", "cross_domain", "arithmetic", "reversal")
Overrides = dict[str, dict[str, Any] | Any]

METHODS: dict[str, Overrides] = {
    "base": {},
    "grpo": {"method": "grpo"},
    "dapo": {"method": "dapo"},
    "rkl": {"method": "rkl", "objective": {"kl_estimator": "k2", "beta": 0.1}},
    "dph_f": {"method": "dph", "objective": {"divergence": "forward_kl", "eta": 0.2}},
    "dph_js": {"method": "dph", "objective": {"divergence": "js", "eta": 0.5}},
    "dph_alpha": {"method": "dph", "objective": {"divergence": "alpha", "alpha": 0.5, "eta": 0.2}},
    "replay": {"method": "replay", "objective": {"eta": 0.2}},
}
"""Label -> settings of the method. `rkl` is k2, the true reverse-KL gradient (PAPER.md, "What RKL really is")."""

DEFAULT_METHODS = ("base", "grpo", "rkl", "dph_f", "dph_js")
SWEEP_ETAS = (0.05, 0.2, 0.5)
SWEEP_BETAS = (0.02, 0.1, 0.5)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the command line asks for."""

    variants: dict[str, Overrides]
    """Folder name -> settings over the demo's defaults; `base` is measured, not trained."""
    seeds: int
    steps: int
    n: int
    out: Path
    jobs: int
    limit: int | None
    """Prompts of each evaluation; None = all."""

    @classmethod
    def of(
        cls,
        *,
        methods: Sequence[str] | None = None,
        seeds: int | None = None,
        steps: int | None = None,
        n: int | None = None,
        eta: float | None = None,
        out: Path | None = None,
        jobs: int | None = None,
        quick: bool = False,
        sweep: bool = False,
    ) -> DemoSettings:
        """Fill in the defaults of the ordinary, the quick and the sweep run.

        Raises:
            ConfigError: an unknown method, a number out of range, or a sweep told which methods or eta.
        """
        if quick and sweep:
            raise ConfigError("--quick and --sweep exclude each other; give one of them")
        if sweep and (methods is not None or eta is not None):
            raise ConfigError("--sweep has its own methods and weights; leave out --methods and --eta")
        methods = DEFAULT_METHODS if methods is None else methods
        for method in methods:
            if method not in METHODS:
                raise ConfigError(f"--methods: {method!r} is not one of {', '.join(METHODS)}{nearest(method, METHODS)}")
        if not methods:
            raise ConfigError(f"--methods is empty; name some of {', '.join(METHODS)}")
        variants = _sweep_variants() if sweep else {m: _with_eta(METHODS[m], eta) for m in methods}
        settings = cls(
            variants={"base": {}} | variants,
            seeds=_given(seeds, 3 if sweep else 1),
            steps=_given(steps, 4 if quick else 120 if sweep else 60),
            n=_given(n, 8 if quick else 64),
            out=out or Path("runs") / ("quick" if quick else "sweep" if sweep else "demo"),
            jobs=_given(jobs, os.cpu_count() or 1),
            limit=12 if quick else None,
        )
        if settings.seeds < 1 or settings.steps < 1 or settings.n < 8 or settings.jobs < 1:
            raise ConfigError("--seeds, --steps and --jobs must be at least 1, and --n at least 8 (Pass@8 is shown)")
        return settings


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def demo(settings: DemoSettings, *, as_json: bool = False) -> Comparison:
    """Run what is missing, compare, write the page, print the tables, or with `as_json` one line of JSON.

    Returns:
        The comparison, as in `compare/summary.json`.
    """
    from dphrl.report.terminal import show
    from dphrl.stages.compare.compare import compare
    from dphrl.stages.report.write_report import report

    if len(settings.variants) > 1:  # the base is measured, not trained
        check_installed()
    began = time.monotonic()
    with shown() as progress:
        runs = _run_all(settings, progress)
    compared = [path for path in runs if path.name.rpartition("-")[0] != "base"] or runs
    baseline = "grpo" if "grpo" in settings.variants else "base"
    comparison = compare(compared, settings.out / "compare", baseline=baseline)
    page = report(compared, settings.out / "report", comparison=comparison)
    show(comparison, as_json=as_json)
    if not as_json:
        print(f"{time.monotonic() - began:.0f} s. Page: {page}\nNumbers: {settings.out / 'compare' / 'summary.json'}")
    return comparison


def demo_config(settings: DemoSettings, variant: str, seed: int) -> Config:
    """The config of one run of the demo."""
    base = settings.out / f"base-s{seed}"
    overrides = dict(settings.variants[variant])
    values: dict[str, Any] = {
        "out": str(settings.out / f"{variant}-s{seed}"),
        "seed": seed,
        "threads": 1,
        "base_run": None if variant == "base" else str(base),
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:in_domain", "split": "train"},
        "eval_tasks": {name: {"data": f"demo:{name}", "split": "eval", "limit": settings.limit} for name in EVAL_TASKS},
        "sampling": {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 512},
        "anchor": {"presamples": 8, "threshold": 6, "batch_size": 64},
        "train": {"steps": settings.steps, "learning_rate": 1e-3, "lr_schedule": "linear", "save_every": 20},
        "eval": {"n": settings.n},
    }
    for section, value in overrides.items():
        values[section] = {**values.get(section, {}), **value} if isinstance(value, dict) else value
    return build_config(values)


MAX_NEW_TOKENS = 40


def _sweep_variants() -> dict[str, Overrides]:
    """The frontier: each divergence over eta, both estimators of reverse KL over beta, GRPO, MaxRL with and without."""
    dph = {"dph_f": "forward_kl", "dph_js": "js", "dph_alpha": "alpha"}
    variants: dict[str, Overrides] = {
        "grpo": METHODS["grpo"],
        "dph_f-eta0": _objective("dph", divergence="forward_kl", eta=0.0),  # the same for every divergence
        "grpo-maxrl": {"method": "grpo", "train": {"advantage": "maxrl"}},
        "dph_f-eta0.2-maxrl": {**METHODS["dph_f"], "train": {"advantage": "maxrl"}},
    }
    for eta in SWEEP_ETAS:
        variants |= {f"{label}-eta{eta}": _objective("dph", divergence=f, eta=eta) for label, f in dph.items()}
    for beta in SWEEP_BETAS:
        variants |= {f"rkl-{e}-beta{beta}": _objective("rkl", kl_estimator=e, beta=beta) for e in ("k2", "k3")}
    return variants


def _objective(method: str, **objective: Any) -> Overrides:
    return {"method": method, "objective": objective}


def _with_eta(overrides: Overrides, eta: float | None) -> Overrides:
    if eta is None or overrides.get("method") not in ("dph", "replay"):
        return overrides
    return {**overrides, "objective": {**overrides["objective"], "eta": eta}}


def _run_all(settings: DemoSettings, progress: Progress) -> list[Path]:
    """Stage 1 and the base's evaluation first, since every method reads them; then the methods, side by side."""
    from dphrl.stages.demo.jobs import gather, worker_pool

    seeds = range(settings.seeds)
    configs = {(v, s): demo_config(settings, v, s) for v in settings.variants for s in seeds}
    with worker_pool(settings.jobs, progress) as submit:
        gather([submit(_presample, to_dict(configs["base", s])) for s in seeds])
        base = [submit(_measure_base, to_dict(configs["base", s])) for s in seeds]
        trained = [submit(_train, to_dict(c)) for (variant, _), c in configs.items() if variant != "base"]
        gather([*base, *trained])
        gather([submit(_measure, to_dict(c)) for (variant, _), c in configs.items() if variant != "base"])
    return [Path(c.out) for c in configs.values()]


def _presample(values: dict[str, Any], progress: Progress) -> None:
    from dphrl.stages.presample.presample import presample

    config = build_config(values)
    presample(config, base_dir=Path(), progress=_named(config, progress))


def _measure_base(values: dict[str, Any], progress: Progress) -> None:
    from dphrl.stages.evaluate.evaluate import evaluate

    config = build_config(values)
    evaluate(config, base_dir=Path(), models=("base",), progress=_named(config, progress))


def _train(values: dict[str, Any], progress: Progress) -> None:
    from dphrl.stages.train.train import train

    config = build_config(values)
    train(config, base_dir=Path(), progress=_named(config, progress))


def _measure(values: dict[str, Any], progress: Progress) -> None:
    from dphrl.stages.evaluate.evaluate import evaluate

    config = build_config(values)
    evaluate(config, base_dir=Path(), models=("final",), progress=_named(config, progress))


def _named(config: Config, progress: Progress) -> Progress:
    """Bars of several runs need the run's name."""
    run = Path(config.out).name

    def named(task: str, done: int, total: int, note: str = "") -> None:
        progress(f"{run}: {task}", done, total, note)

    return named
