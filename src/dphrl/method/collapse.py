"""Signs that a policy collapses, read from the lines of metrics.jsonl: what to look at, from where on, what to do.

The limits are our choice. On the demo world (docs/demo.md; 3 seeds, 60 and 120 generations) plain GRPO, which loses its
Pass@k there, ends with 0.16 to 0.31 of its first entropy and 0.82 to 0.90 of its groups without spread; DPH-RL and
reverse KL, which keep theirs, never go below 0.55 or above 0.70. Anchors that nothing holds drift to 0.25 nats a token,
those of DPH-RL to 0.09. That entropy falls and groups go flat as diversity does: arXiv:2505.22617, arXiv:2503.14476.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dphrl.types import MetricsRow

WINDOW = 5
"""Log lines that are averaged, so that one odd generation warns of nothing."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One row of SIGNS."""

    metric: str
    side: Literal["below", "above"]
    limit: float
    relative: bool
    """Whether the limit is a share of the mean over the first WINDOW lines."""
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class TrainingWarning:
    """A sign of collapse, or a step that was left out; a line of RUN/train/warnings.jsonl."""

    step: int
    metric: str
    value: float | None
    """Mean of the metric over the last lines; None for a step that was left out."""
    limit: float | None
    text: str


SIGNS: tuple[Sign, ...] = (
    Sign(
        "entropy",
        "below",
        1 / 3,
        True,
        "the policy writes ever fewer different completions",
        "raise objective.eta (dph) or objective.beta (rkl), train with fewer steps or a lower train.learning_rate",
    ),
    Sign(
        "anchor/forward_kl",
        "above",
        0.2,
        False,
        "the policy forgets its anchors (nats a token)",
        "raise objective.eta, or hold the drift with objective.eta_schedule=target and objective.drift_target",
    ),
    Sign(
        "frac_reward_zero_std",
        "above",
        0.8,
        False,
        "most groups have equal rewards and teach nothing",
        "train on harder prompts (train.exploration_filter), raise train.group_size, or use method dapo; stop if all "
        "are solved",
    ),
    Sign(
        "completions/clipped_ratio",
        "above",
        0.25,
        False,
        "many completions are cut off before their end",
        "raise sampling.max_new_tokens, or look at completions that do not end",
    ),
)
"""Metric -> when it is a sign of collapse, in the order in which they are told."""


def warnings_of(rows: Sequence[MetricsRow]) -> tuple[TrainingWarning, ...]:
    """The signs that hold at the end of these lines; only the first and last WINDOW of them are read.

    Args:
        rows: lines of metrics.jsonl from the first on; missing metrics and null are passed over.
    Returns:
        One record for each sign whose mean over the last WINDOW lines lies beyond its limit; none before WINDOW lines.
    Raises:
        Nothing.
    """
    found = []
    for sign in SIGNS:
        first, last = _mean(rows[:WINDOW], sign.metric), _mean(rows[-WINDOW:], sign.metric)
        if len(rows) < WINDOW or first is None or last is None:
            continue
        limit = sign.limit * first if sign.relative else sign.limit
        if last < limit if sign.side == "below" else last > limit:
            text = f"{sign.metric} is {last:.3g}, {sign.side} {limit:.3g}: {sign.text}; {sign.advice}"
            found.append(TrainingWarning(int(rows[-1]["step"] or 0), sign.metric, last, limit, text))
    return tuple(found)


def _mean(rows: Iterable[MetricsRow], metric: str) -> float | None:
    values = [value for row in rows if (value := row.get(metric)) is not None]
    return sum(values) / len(values) if values else None
