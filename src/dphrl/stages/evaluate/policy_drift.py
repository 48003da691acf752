"""`--drift`: entropy of a model and its KL to and from the base, from one more forward of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dphrl.config.root import Config
from dphrl.errors import ModelError
from dphrl.metrics.kl import BaseDrift, Pair, drift_from_base
from dphrl.models.policy import Policy
from dphrl.progress import Progress
from dphrl.types import Completion

Logps = list[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one task."""

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


def measure(
    config: Config, model: Policy, base: Policy | None, tasks: Sequence[Drawn], progress: Progress
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
    mine = [_chosen(t.own, t.encoded, config.eval.drift) for t in tasks]
    theirs = [_chosen(t.base or (), t.encoded, config.eval.drift) for t in tasks]
    own_sides = _scored(config, model, tasks, mine, theirs, progress)
    base_sides = own_sides if base is None else _scored(config, base, tasks, mine, theirs, progress)
    found = {}
    for t, m, b, (own_m, own_b), (base_m, base_b) in zip(tasks, mine, theirs, own_sides, base_sides, strict=True):
        found[t.task] = drift_from_base(
            _pairs(m, own_m, base_m),
            None if base is None else _pairs(b, base_b, own_b),
            draws=config.eval.drift,
            rng=np.random.default_rng(config.seed),
            resamples=config.eval.resamples,
        )
    return found


def _chosen(completions: Sequence[Completion], encoded: Mapping[str, Any], draws: int) -> list[Completion]:
    return [c for c in completions if 0 <= c.draw < draws and c.prompt_id in encoded and c.token_ids]


def _scored(
    config: Config,
    policy: Policy,
    tasks: Sequence[Drawn],
    mine: Sequence[Sequence[Completion]],
    theirs: Sequence[Sequence[Completion]],
    progress: Progress,
) -> list[tuple[Logps, Logps]]:
    """Log-probabilities of both sides' tokens by one model, task by task."""
    from dphrl.models.scoring import score

    found = []
    for task, own, other in zip(tasks, mine, theirs, strict=True):
        both = [*own, *other]
        label, total = f"drift {task.task}: {policy.source}", len(both)
        scored = score(
            policy.model,
            [task.encoded[c.prompt_id] for c in both],
            [c.token_ids for c in both],
            pad_id=policy.tokenizer.pad_token_id,
            temperature=config.sampling.temperature,
            batch_size=config.anchor.batch_size,
            on_progress=lambda done, label=label, total=total: progress(label, done, total),  # type: ignore[misc]
        )
        logps = [s.logps for s in scored]
        found.append((logps[: len(own)], logps[len(own) :]))
    policy.release()
    return found


def _pairs(completions: Sequence[Completion], drawn: Logps, other: Logps) -> dict[str, list[Pair]]:
    pairs: dict[str, list[Pair]] = {}
    for completion, by_drawn, by_other in zip(completions, drawn, other, strict=True):
        pairs.setdefault(completion.prompt_id, []).append((by_drawn, by_other))
    return pairs
