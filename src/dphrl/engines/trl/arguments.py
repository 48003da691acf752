"""Checks of `DPHConfig` that `dphrl.config` makes of its settings, for those who build the trainer themselves."""

from __future__ import annotations

from typing import Any

from dphrl.config.checks import check_advantage, check_eta, check_form
from dphrl.config.root import ANCHOR_METHODS
from dphrl.errors import ConfigError, nearest
from dphrl.method.advantages import ADVANTAGES
from dphrl.method.eta import SCHEDULES

CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("grpo", "dapo", "rkl", "dph", "replay"),
    "kl_estimator": ("k3", "k3_corrected", "k2", "k1_reward"),
    "advantage": tuple(ADVANTAGES),
    "eta_schedule": (*SCHEDULES, "target"),
    "form": ("generator", "definition"),
    "anchor_forward": ("separate", "merged"),
    "anchor_estimator": ("sampled", "topk"),
}


def check_arguments(args: Any) -> None:
    """Refuse what `DPHTrainer` could not honour.

    Args:
        args: a `DPHConfig`.
    Raises:
        ConfigError: an unknown choice, or settings that contradict each other; by name.
    """
    for name, allowed in CHOICES.items():
        value = getattr(args, name)
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    try:
        check_eta(args)
        check_form(args)
        check_advantage(args, args.num_generations)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if args.method != "dph" and args.form == "definition":
        raise ConfigError(f"form='definition' is a form of the divergence of method dph; method {args.method} has none")
    if args.method == "replay" and args.anchor_estimator == "topk":
        raise ConfigError(
            "anchor_estimator='topk' compares with the reference, which method replay does without; use method dph, "
            "or anchor_estimator='sampled'"
        )
    if args.method in ANCHOR_METHODS and args.restore_callback_states_from_checkpoint:
        raise ConfigError(
            "restore_callback_states_from_checkpoint=True would build a second controller of eta; leave it out, a run "
            "resumes with the eta of its checkpoint by itself"
        )
