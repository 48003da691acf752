"""Settings of runs as tables name them: what tells runs of one method apart, and what a method leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dphrl.config.load import flat, to_dict
from dphrl.config.objective import ANCHOR_METHODS, DphObjective
from dphrl.config.root import Config
from dphrl.report.labels import dph_label
from dphrl.runs.run_dir import FREE_KEYS

USED = ("train.", "sampling.", "lora.", "objective.")
"""Sections that make a difference to a training; `anchor.` does to one with anchors."""

SPEED_ONLY = frozenset(
    {f"train.{x}" for x in ("micro_batch", "save_every", "log_every", "gradient_checkpointing")}
    | {"objective.anchor_forward"}
    | {key for key in FREE_KEYS if key.startswith(("sampling.", "anchor."))}
)

NAMED_FIRST: dict[str, str] = {
    "train.advantage": "{}",
    "objective.alpha": "alpha={:g}",
    "objective.eta": "eta={:g}",
    "objective.beta": "beta={:g}",
    "objective.kl_estimator": "{}",
}
"""Settings that a sweep names first, in this order; all others follow as name=value where they differ."""


def config_label(config: Config) -> str:
    """grpo, dapo, rkl, replay, dph_f, ...: the label of a run with this config."""
    objective = config.objective
    return dph_label(objective.divergence) if isinstance(objective, DphObjective) else config.method


def setting_names(configs: Sequence[Config | None]) -> list[str]:
    """What tells each run from the others of its label, seeds aside: '' when nothing does, else e.g. 'beta=0.1 k2'.

    Args:
        configs: of the runs; None where nothing was trained, which has no setting.
    """
    by_label: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        if config is not None:
            by_label.setdefault(config_label(config), []).append(index)
    values = [{} if config is None else flat(to_dict(config)) for config in configs]
    names = [""] * len(configs)
    for name, places in by_label.items():
        keys = {key for i in places for key in _used(values[i]) if key not in SPEED_ONLY}
        varied = {key for key in keys if len({repr(values[i].get(key)) for i in places}) > 1}
        if varied:
            alpha = name == "dph_alpha" and "objective.alpha" in varied
            for i in places:
                names[i] = _setting(values[i], keys, varied, alpha=alpha)
    return names


def main_setting(config: Config) -> str:
    """What its method's published form leaves open, e.g. 'beta=0.1 k2', 'eta=0.2'; '' for grpo and dapo."""
    values = flat(to_dict(config))
    return _setting(values, _used(values), set(), alpha=config_label(config) == "dph_alpha")


def _used(values: Mapping[str, object]) -> set[str]:
    """Settings that make a difference to a training with these; those of `objective` are its method's own."""
    used = (*USED, "anchor.") if values["method"] in ANCHOR_METHODS else USED
    return {key for key in values if key.startswith(used)}


def _setting(values: Mapping[str, object], keys: Iterable[str], varied: set[str], *, alpha: bool) -> str:
    hidden = {"objective.alpha"} if not alpha else set()
    if values["train.advantage"] == "group":
        hidden.add("train.advantage")
    used = set(keys) - hidden
    parts = [form.format(values[key]) for key, form in NAMED_FIRST.items() if key in used and values[key] is not None]
    rest = sorted(varied - NAMED_FIRST.keys())
    return " ".join([*parts, *(f"{key.rpartition('.')[2]}={values.get(key)}" for key in rest)])
