"""`--drift`: entropy of a model and its KL to and from the base, from one more forward of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dphrl.config.root import Config
from dphrl.errors import ModelError
from dphrl.metrics.kl import BaseDrift, Pair, drift_from_base
from dphrl.models.policy import Policy
from dphrl.progress import Progress
from dphrl.types import Completion

Logps = list[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class DriftTask:
    """The completions that were drawn for one task."""

    task: str
    encoded: Mapping[str, Sequence[int]]
    """Prompt id -> token ids."""
    own: Sequence[Completion]
    """The model's completions."""
    base: Sequence[Completion] | None
    """The base's; None for the base itself."""


def check_vocabulary(model: Policy, base: Policy) -> None:
    """Refuse two models whose tokens are not the same: a divergence between them would be of nothing.

    Raises:
        ModelError: names both and the remedy.
    """
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise ModelError(
            f"drift compares token by token, and {model.source} and the base {base.source} have different "
            "vocabularies; leave out --drift (eval.drift 0), or measure models of one family"
        )


def measure_drift(
    config: Config, model: Policy, base: Policy | None, tasks: Sequence[DriftTask], progress: Progress
) -> dict[str, BaseDrift]:
    """Score eval.drift draws of every prompt by both models, at the temperature they were drawn at.

    Each model is loaded once and released, so that only one is in memory.

    Args:
        model: the one measured. base: None where it is the base itself.
        tasks: with token ids; of the base's completions those of prompts that `encoded` has.
    Returns:
        Task -> the drift of its completions.
    Raises:
        ModelError: weights that cannot be loaded.
    """
    scored = [
        DriftTask(task.task, task.encoded, _chosen(task, task.own, config), _chosen(task, task.base or (), config))
        for task in tasks
    ]
    by_model = [_logps(config, model, task, progress) for task in scored]
    model.release()
    by_base = by_model
    if base is not None:
        by_base = [_logps(config, base, task, progress) for task in scored]
        base.release()
    drifts = {}
    for task, model_logps, base_logps in zip(scored, by_model, by_base, strict=True):
        drifts[task.task] = drift_from_base(
            _pairs(task.own, model_logps.own, base_logps.own),
            None if base is None else _pairs(task.base or (), base_logps.base, model_logps.base),
            draws=config.eval.drift,
            rng=np.random.default_rng(config.seed),
            resamples=config.eval.resamples,
        )
    return drifts


@dataclass(frozen=True, slots=True)
class _TaskLogps:
    """Log-probabilities of a task's completions by one model: of the measured model's own, and of the base's."""

    own: Logps
    base: Logps


def _chosen(task: DriftTask, completions: Sequence[Completion], config: Config) -> list[Completion]:
    return [c for c in completions if 0 <= c.draw < config.eval.drift and c.prompt_id in task.encoded and c.token_ids]


def _logps(config: Config, policy: Policy, task: DriftTask, progress: Progress) -> _TaskLogps:
    from dphrl.models.scoring import score

    both = [*task.own, *(task.base or ())]
    scores = score(
        policy.model,
        [task.encoded[c.prompt_id] for c in both],
        [c.token_ids for c in both],
        pad_id=policy.tokenizer.pad_token_id,
        temperature=config.sampling.temperature,
        batch_size=config.anchor.batch_size,
        autocast=policy.precision.autocast,
        on_progress=lambda done: progress(f"drift {task.task}: {policy.source}", done, len(both)),
    )
    logps = [each.logps for each in scores]
    return _TaskLogps(logps[: len(task.own)], logps[len(task.own) :])


def _pairs(completions: Sequence[Completion], drawn: Logps, other: Logps) -> dict[str, list[Pair]]:
    pairs: dict[str, list[Pair]] = {}
    for completion, by_drawn, by_other in zip(completions, drawn, other, strict=True):
        pairs.setdefault(completion.prompt_id, []).append((by_drawn, by_other))
    return pairs
