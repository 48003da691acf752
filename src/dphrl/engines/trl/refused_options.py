"""Which of TRL's options keep their meaning beside ours; one that would lose it is refused by name before the start.

An option that stands in no table here is TRL's own and acts as TRL says. Options whose effect TRL itself defines for
one micro-batch (loss_type bnpo, entropy_coef, top_entropy_quantile, router_aux_loss_coef) depend on how a step is
split; the anchor term beside them does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

from dphrl.config.objective import ANCHOR_METHODS
from dphrl.errors import ConfigError, nearest

TOKEN_MEAN_LOSSES = ("dapo", "cispo", "vespo")
"""`loss_type`s that divide by the tokens of the optimiser step, as our k2 term does."""
CLIPPED_LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")
"""`loss_type`s with PPO's clipped ratio."""

CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "scale_rewards": ("group", "batch", "none"),
}
"""TRL looks at these only at the first loss, after the first generation."""

_EVAL = "training measures nothing; use `dphrl eval`"
_GENERATIONS = "steps, checkpoints and resuming count generations of train.updates optimiser steps; "
SET_BY_THE_STAGE: dict[str, str] = {
    "num_iterations": _GENERATIONS + "use train.updates for more optimiser steps a generation",
    "generation_batch_size": _GENERATIONS + "use train.prompts_per_step and train.group_size",
    "num_train_epochs": _GENERATIONS + "use train.steps",
    "save_strategy": _GENERATIONS + "use train.save_every",
    "save_only_model": "a run resumes from its checkpoints, optimiser included; leave it out",
    "resume_from_checkpoint": "a run resumes by itself from its last whole checkpoint; leave it out",
    "ignore_data_skip": "a run that resumes must see the data that come next; leave it out",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 save a checkpoint anyway (`dphrl docs resuming`); leave it out",
    "logging_strategy": "metrics.jsonl has a line every train.log_every optimiser steps; use that",
    "use_bias_correction_kl": "use objective.kl_estimator: k3 or k3_corrected",
    "activation_checkpointing": "use train.gradient_checkpointing",
    "gradient_checkpointing": "use train.gradient_checkpointing",
    "auto_find_batch_size": "it would break groups and anchors apart; lower train.micro_batch",
    "remove_unused_columns": "the verifier reads the columns; leave it out",
    "do_train": "`dphrl train` trains; leave it out",
    "do_predict": _EVAL,
    "do_eval": _EVAL,
    "eval_strategy": _EVAL,
    "eval_steps": _EVAL,
    "eval_delay": _EVAL,
    "eval_on_start": _EVAL,
    "num_generations_eval": _EVAL,
    "per_device_eval_batch_size": _EVAL,
    "load_best_model_at_end": _EVAL,
    "metric_for_best_model": _EVAL,
    "greater_is_better": _EVAL,
}
"""Keys of `train.trl` that the stage decides itself -> what to do instead."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When options act."""

    text: str
    holds: Callable[[Any], bool]


_SAPO = Condition("loss_type=sapo", lambda a: a.loss_type == "sapo")
_VESPO = Condition("loss_type=vespo", lambda a: a.loss_type == "vespo")
_ADAPTIVE = Condition("use_adaptive_entropy", lambda a: a.use_adaptive_entropy)
_SYNC = Condition("sync_ref_model", lambda a: a.sync_ref_model)
_NEVER = Condition("another trainer", lambda a: False)

ACTS_ONLY_WITH: dict[str, Condition] = {
    "sapo_temperature_neg": _SAPO,
    "sapo_temperature_pos": _SAPO,
    "vespo_k_pos": _VESPO,
    "vespo_lambda_pos": _VESPO,
    "vespo_k_neg": _VESPO,
    "vespo_lambda_neg": _VESPO,
    "delta": Condition("one of loss_type=" + ", ".join(CLIPPED_LOSSES), lambda a: a.loss_type in CLIPPED_LOSSES),
    "entropy_coef_min": _ADAPTIVE,
    "entropy_coef_max": _ADAPTIVE,
    "entropy_coef_delta": _ADAPTIVE,
    "entropy_target": _ADAPTIVE,
    "sync_ref_model": Condition("method rkl, which has a reference model", lambda a: a.method == "rkl"),
    "ref_model_mixup_alpha": _SYNC,
    "ref_model_sync_steps": _SYNC,
    "label_smoothing_factor": _NEVER,
    "train_sampling_strategy": _NEVER,
}
"""Option -> when it acts at all; given a value other than its default at any other time, it is refused."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Options that cannot be honoured together."""

    options: tuple[str, ...]
    why: str
    happens: Callable[[Any], bool]


def _keeps_anchors(a: Any) -> bool:
    return a.method in ANCHOR_METHODS


CLASHES: tuple[Clash, ...] = (
    Clash(
        ("kl_estimator", "loss_type"),
        f"k2 is a token-mean over the optimiser step; use a loss_type that is one: {', '.join(TOKEN_MEAN_LOSSES)}",
        lambda a: a.method == "rkl" and a.kl_estimator == "k2" and a.loss_type not in TOKEN_MEAN_LOSSES,
    ),
    Clash(
        ("kl_estimator", "importance_sampling_level"),
        "times a sequence's ratio k3 no longer has the reverse-KL gradient; use importance_sampling_level=token or k2",
        lambda a: a.method == "rkl" and a.kl_estimator == "k3_corrected" and a.importance_sampling_level == "sequence",
    ),
    Clash(
        ("use_bias_correction_kl", "kl_estimator"),
        "kl_estimator says it: k3_corrected with, everything else without; leave use_bias_correction_kl out",
        lambda a: a.use_bias_correction_kl not in (None, a.kl_estimator == "k3_corrected"),
    ),
    Clash(
        ("loss_type", "importance_sampling_level"),
        "vespo weighs whole sequences by itself and would not read the level; leave it at token",
        lambda a: a.loss_type == "vespo" and a.importance_sampling_level != "token",
    ),
    Clash(
        ("loss_type", "importance_sampling_level"),
        "luspo is defined for ratios of sequences; set importance_sampling_level=sequence",
        lambda a: a.loss_type == "luspo" and a.importance_sampling_level != "sequence",
    ),
    Clash(
        ("loss_type", "epsilon_high"),
        "cispo caps the ratio itself at epsilon_high, so below 1 it only shrinks every step; "
        "give epsilon_high (train.clip_high) above 1, 5 in its paper",
        lambda a: a.loss_type == "cispo" and (a.epsilon if a.epsilon_high is None else a.epsilon_high) < 1,
    ),
    Clash(
        ("advantage", "scale_rewards"),
        "only advantage=group is scaled by a deviation, the others by what defines them; leave scale_rewards at group",
        lambda a: a.advantage != "group" and _scale(a) != "group",
    ),
    Clash(
        ("advantage", "multi_objective_aggregation"),
        "only advantage=group knows several rewards, the others take their weighted sum; use sum_then_normalize",
        lambda a: a.advantage != "group" and a.multi_objective_aggregation != "sum_then_normalize",
    ),
    Clash(
        ("method", "scale_rewards"),
        "dapo replaces groups after rewards were scaled, and a batch's deviation would be that of other groups; use "
        "group or none",
        lambda a: a.method == "dapo" and _scale(a) == "batch",
    ),
    Clash(
        ("method", "multi_objective_aggregation"),
        "dapo looks for groups without spread in the weighted sum of rewards; use sum_then_normalize",
        lambda a: a.method == "dapo" and a.multi_objective_aggregation != "sum_then_normalize",
    ),
    Clash(
        ("method", "disable_dropout"),
        "anchors were scored without dropout, with it u differs from 1 for the unchanged policy; leave it out",
        lambda a: _keeps_anchors(a) and a.disable_dropout is False,
    ),
    Clash(
        ("method", "neftune_noise_alpha"),
        "anchors were scored without noise, with it u differs from 1 for the unchanged policy; leave it out",
        lambda a: _keeps_anchors(a) and bool(a.neftune_noise_alpha),
    ),
    Clash(
        ("sync_ref_model", "save_strategy"),
        "checkpoints hold no reference model, so a training that goes on would measure against the initial one again; "
        "leave sync_ref_model out, or in Python save none (save_strategy=no)",
        lambda a: a.method == "rkl" and a.sync_ref_model and a.save_strategy != "no",
    ),
    Clash(
        ("method", "restore_callback_states_from_checkpoint"),
        "it would build a second controller of eta, and a run resumes with the eta of its checkpoint by itself; leave "
        "it out",
        lambda a: _keeps_anchors(a) and a.restore_callback_states_from_checkpoint,
    ),
    Clash(
        ("bf16", "use_transformers_continuous_batching"),
        "to draw with it TRL casts the weights that are trained to 16 bits, for good; leave it out, or use_vllm",
        lambda a: a.bf16 and (a.use_transformers_continuous_batching or a.use_transformers_paged),
    ),
    Clash(
        ("method", "cast_lm_head_to_fp32"),
        "anchors were scored by the head as it is, with another one u differs from 1; leave it out",
        lambda a: _keeps_anchors(a) and a.cast_lm_head_to_fp32,
    ),
)


def check_options(args: Any) -> None:
    """Refuse what could not be honoured.

    Args:
        args: a `DPHConfig` before TRL has looked at it.
    Raises:
        ConfigError: an unknown choice, an option that would not act, or two that contradict each other; by name.
    """
    for name, allowed in CHOICES.items():
        value = _scale(args) if name == "scale_rewards" else getattr(args, name)
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    for name, condition in _conditions(args):
        if not condition.holds(args):
            raise ConfigError(f"{name}={getattr(args, name)!r} acts only with {condition.text}; leave it out")
    for clash in CLASHES:
        if clash.happens(args):
            given = " and ".join(f"{name}={getattr(args, name)!r}" for name in clash.options)
            raise ConfigError(f"{given} do not go together: {clash.why}")


def check_anchor_forward(args: Any, ranks: int, *, fsdp: bool, joint: bool, at_once: bool, aux_loss: bool) -> None:
    """Refuse what the anchors' forward, of their own or joint, does not go together with.

    Args:
        aux_loss: whether TRL adds a mixture's balancing loss. The rest: as `check_ranks` and `check_forwards`.
    Raises:
        ConfigError: by name.
    """
    check_ranks(args, ranks, fsdp=fsdp, joint=joint)
    check_forwards(args, ranks, joint=joint, at_once=at_once)
    if joint and aux_loss:
        raise ConfigError(
            "anchors in the rollouts' forward (anchor_forward='merged', or fewer anchors than micro-batches) would "
            "come into the mixture's balancing loss (output_router_logits of the model's config), which TRL adds "
            "to its own; use anchor_forward='separate'"
        )


def check_ranks(args: Any, ranks: int, *, fsdp: bool, joint: bool) -> None:
    """Refuse reentrant checkpointing beside anchors under DDP, unless they go along in the rollouts' forward.

    After a forward of their own a reentrant checkpoint marks each parameter ready twice, which torch refuses in the
    middle of the first step. FSDP2 does not count.

    Args:
        args: a `DPHConfig` of a method with anchors, as TRL has left it.
        ranks: processes that train (count).
        fsdp: whether the model is sharded by FSDP2.
        joint: whether anchors go along in the rollouts' forward.
    Raises:
        ConfigError: by name.
    """
    kwargs = args.gradient_checkpointing_kwargs or {}
    twice = not joint and args.gradient_checkpointing and kwargs.get("use_reentrant")
    if ranks > 1 and not fsdp and twice:
        raise ConfigError(
            f"use_reentrant=True of gradient checkpointing cannot train method {args.method} on {ranks} processes "
            "without FSDP2 while anchors have a forward of their own; set anchor_forward='merged' "
            "(objective.anchor_forward), or activation_checkpointing_kwargs={'use_reentrant': False}"
        )


def check_forwards(args: Any, ranks: int, *, joint: bool, at_once: bool) -> None:
    """Refuse a forward of anchors alone that some processes would not make.

    Processes wait for one another in each forward: FSDP2 and ZeRO-3 gather weights, DDP spreads buffers.

    Args:
        ranks: processes that train (count).
        joint: whether anchors go along in the rollouts' forward.
        at_once: whether every micro-batch of every process has an anchor.
    Raises:
        ConfigError: by name.
    """
    if ranks > 1 and not joint and not at_once:
        raise ConfigError(
            f"anchors_per_step={args.anchors_per_step} gives some micro-batches no anchor, and {ranks} processes would "
            "wait for one another in the anchors' own forward; set anchor_forward='merged' (objective.anchor_forward), "
            "or at least one anchor for each micro-batch of each process"
        )


def _conditions(args: Any) -> Iterator[tuple[str, Condition]]:
    """Of the options that were given another value than their default."""
    with_vllm = Condition("use_vllm", lambda a: a.use_vllm)
    for field in fields(args):
        condition = with_vllm if field.name.startswith("vllm_") else ACTS_ONLY_WITH.get(field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if condition is not None and getattr(args, field.name) != default:
            yield field.name, condition


def _scale(args: Any) -> Any:
    """TRL reads True and False as the names they once were."""
    return {True: "group", False: "none"}.get(args.scale_rewards, args.scale_rewards)
