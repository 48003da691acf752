"""Settings that must agree with each other: checks that `config` and the trainer's own record of settings share.

Each takes any object with the settings as attributes and raises ValueError: what came, what is allowed, what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

ANCHORS_PER_STEP = 32
"""`objective.anchors_per_step` where it and `objective.anchor_ratio` are null, unless `ANCHOR_RATIO` gives more."""
ANCHOR_RATIO = 1 / 8
"""Anchors for each completion of an optimiser step: the share of the paper's script (256 beside 2,048), which did as
well as eight times as many on the demo (docs/results/anchor-ratio.md)."""
DEFINED = ("forward_kl", "js", "reverse_kl")
"""Divergences with a definition form: the keys of `objective.DEFINITIONS`, where torch is not wanted."""
LOG_U_CAP = 5.0
"""Default of `objective.log_u_cap` (nats)."""
PASS_K = 4
"""`train.pass_k` where it is null."""
RANK_PENALTY = 0.25
"""`train.rank_penalty` where it is null; a mild one, our choice."""
ADVANTAGE_SETTINGS: dict[str, tuple[str, ...]] = {
    "passk": ("pass_k",),
    "pkpo": ("pass_k",),
    "unlikeliness": ("rank_penalty",),
}
"""Settings that some advantages alone read; set for another they are an error."""
ETA_SETTINGS: dict[str, tuple[str, ...]] = {
    "linear": ("eta_end",),
    "cosine": ("eta_end",),
    "target": ("drift_target", "eta_bounds"),
}
"""Settings that some eta schedules alone read; set for another they are an error."""


def check_anchors(settings: Any) -> None:
    """Raise where the number of anchors is said twice.

    Raises:
        ValueError: anchors_per_step and anchor_ratio are both given.
    """
    if settings.anchors_per_step is not None and settings.anchor_ratio is not None:
        raise ValueError(
            f"objective.anchors_per_step={settings.anchors_per_step} and objective.anchor_ratio="
            f"{settings.anchor_ratio} say the same thing twice; give one of them and leave the other null"
        )


def check_eta(settings: Any) -> None:
    """Raise where the settings of eta contradict each other; `ObjectiveConfig` and the trainer's own record both ask.

    Raises:
        ValueError: a setting of another schedule, or `target` without its target, outside its bounds or from eta = 0.
    """
    _refuse_foreign(settings, "objective", "eta_schedule", ETA_SETTINGS)
    if settings.eta_schedule != "target":
        return
    if settings.drift_target is None or not settings.drift_target > 0:
        raise ValueError(
            f"objective.eta_schedule=target needs objective.drift_target > 0, the anchors' forward-KL to be held, in "
            f"nats per token; {settings.drift_target} came: say how far the policy may drift, e.g. 0.05"
        )
    bounds = settings.eta_bounds or [settings.eta / 100, settings.eta * 100]
    if not (len(bounds) == 2 and 0 < bounds[0] <= settings.eta <= bounds[1] < math.inf):
        raise ValueError(
            f"objective.eta_schedule=target changes eta by factors, from eta={settings.eta} within {bounds}; it needs "
            "eta_bounds=[low, high] with 0 < low <= eta <= high, e.g. eta 0.2 within [0.01, 5]"
        )


def check_form(settings: Any) -> None:
    """Raise where the form of the divergence, or the anchors' way through the model, contradicts the rest.

    Raises:
        ValueError: a divergence without a definition form, or a setting that the form or the forward does not read.
    """
    if settings.form == "definition":
        if settings.divergence not in DEFINED:
            raise ValueError(
                f"objective.form=definition is there for divergence {', '.join(DEFINED)}, and {settings.divergence} "
                "came; choose one of them, or form=generator"
            )
        if settings.anchor_estimator != "sampled":
            raise ValueError(
                f"objective.form=definition reads the anchors' own tokens alone, and anchor_estimator="
                f"{settings.anchor_estimator} came; use anchor_estimator=sampled, or form=generator"
            )
        if settings.log_u_cap != LOG_U_CAP:
            raise ValueError(
                f"objective.log_u_cap={settings.log_u_cap} bounds generators, and form=definition has no term that "
                "grows with u; leave it out, or use form=generator"
            )
    if settings.anchor_forward == "merged" and settings.anchor_estimator != "sampled":
        raise ValueError(
            f"objective.anchor_forward=merged goes through the head for own tokens alone, and anchor_estimator="
            f"{settings.anchor_estimator} came; use anchor_forward=separate"
        )


def check_advantage(settings: Any, group_size: int) -> None:
    """Raise where the settings of the advantage contradict each other; as `check_eta`.

    Raises:
        ValueError: a setting of another advantage, or a pass@k that a group is too small for.
    """
    _refuse_foreign(settings, "train", "advantage", ADVANTAGE_SETTINGS)
    k = settings.pass_k or PASS_K
    if "pass_k" in ADVANTAGE_SETTINGS.get(settings.advantage, ()) and not 2 <= k <= group_size:
        raise ValueError(
            f"train.advantage={settings.advantage} with pass_k={k} needs 2 <= pass_k <= group_size={group_size}; "
            "change one of them"
        )


def _refuse_foreign(settings: Any, section: str, choice: str, table: Mapping[str, Sequence[str]]) -> None:
    """Refuse a setting that is not null although the choice made does not read it."""
    chosen = getattr(settings, choice)
    for name in {n: None for names in table.values() for n in names}:
        readers = [value for value, names in table.items() if name in names]
        if chosen not in readers and getattr(settings, name) is not None:
            raise ValueError(
                f"{section}.{name} is read with {section}.{choice}={' or '.join(readers)}, but it is {chosen}; leave "
                f"{name} out or change {choice}"
            )
