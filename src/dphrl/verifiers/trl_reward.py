"""Verifiers as reward functions for TRL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dphrl.errors import VerifierError
from dphrl.types import STATUSES, Item, Message, Task, VerifyFn, item_of
from dphrl.verifiers.registry import load_verifier
from dphrl.verifiers.workers.pool import spent_so_far

RewardFn = Callable[..., list[float | None]]
LogMetric = Callable[[str, float], None]
Completions = Sequence[str | Sequence[Message]]

_NOT_COLUMNS = frozenset({"prompts", "completions"})
"""What TRL passes under other names than an item has."""


def reward_function(spec: str, **args: Any) -> RewardFn:
    """A verifier as a reward function for TRL, with arguments of its own: `reward_function("sql", mode="bird")`.

    Args:
        spec, args: see `load_verifier`.
    Returns:
        See `reward_from`; TRL's logs call it SPEC_reward.
    Raises:
        VerifierError: an unknown verifier or argument.
    """
    return reward_from(load_verifier(spec, args), f"{spec}_reward")


def reward_from(verify: VerifyFn, name: str) -> RewardFn:
    """A reward function that needs no task: what the verifier needs stands in the columns of the trainer's dataset.

    Args:
        verify: the verifier.
        name: what TRL calls the function in its logs.
    Returns:
        `reward(completions=..., gold=..., log_metric=None, **columns)` -> one reward per completion, None where the
        verifier could not judge. TRL's `prompts` are the items' `prompt`. With `log_metric` it reports the share in
        0..1 of every status, at every call, so that all ranks report the same names: verifier/status/correct, ...; and
        verifier/timeout_share, the share of the workers' CPU time that went into completions that were given up.
    Raises (the function returned):
        VerifierError: a column the verifier needs is missing.
    """

    def reward(*, completions: Completions, log_metric: LogMetric | None = None, **columns: Any) -> list[float | None]:
        texts = _texts(completions)
        if "prompts" in columns:
            columns.setdefault("prompt", columns["prompts"])
        lists = {key: values for key, values in columns.items() if _is_column(key, values, len(texts))}
        items: list[Item] = [
            {**{key: values[index] for key, values in lists.items()}, "completion": text}
            for index, text in enumerate(texts)
        ]
        return _rewards(verify, items, name, log_metric)

    reward.__name__ = name
    return reward


def task_reward(task: Task) -> RewardFn:
    """A reward function that asks the task's verifier, joining prompts by id.

    Args:
        task: its prompts' ids must stand in the column `prompt_id` of the trainer's dataset.
    Returns:
        As `reward_from`, called `verifier`.
    Raises (the function returned):
        VerifierError: no `prompt_id`, an id the task does not hold, or a wrong number of verdicts.
    """
    prompts = {prompt.id: prompt for prompt in task.prompts}

    def verifier(
        *,
        completions: Completions,
        completion_ids: Sequence[Sequence[int]] | None = None,
        prompt_id: Sequence[str] | None = None,
        log_metric: LogMetric | None = None,
        **_others: Any,
    ) -> list[float | None]:
        if prompt_id is None:
            raise VerifierError(f"task {task.name!r}: the trainer's dataset has no column prompt_id to join by")
        unknown = [key for key in prompt_id if key not in prompts]
        if unknown:
            raise VerifierError(f"task {task.name!r} has no prompt {unknown[0]!r} ({len(unknown)} unknown ids)")
        ids: Sequence[Sequence[int] | None] = completion_ids or [None] * len(prompt_id)
        drawn = zip(prompt_id, _texts(completions), ids, strict=True)
        items = [item_of(prompts[key], text, of_text) for key, text, of_text in drawn]
        return _rewards(task.verify, items, task.name, log_metric)

    return verifier


def _rewards(verify: VerifyFn, items: list[Item], name: str, log_metric: LogMetric | None) -> list[float | None]:
    before = spent_so_far()
    verdicts = verify(items)
    if len(verdicts) != len(items):
        raise VerifierError(f"{name!r}: {len(verdicts)} verdicts for {len(items)} completions")
    if log_metric is not None:
        counts = Counter(verdict.status for verdict in verdicts)
        for status in STATUSES:
            log_metric(f"verifier/status/{status}", counts[status] / max(len(verdicts), 1))
        log_metric("verifier/timeout_share", (spent_so_far() - before).timeout_share)
    return [verdict.reward for verdict in verdicts]


def _texts(completions: Completions) -> list[str]:
    return [text if isinstance(text, str) else text[-1]["content"] for text in completions]


def _is_column(key: str, values: object, length: int) -> bool:
    return key not in _NOT_COLUMNS and isinstance(values, list | tuple) and len(values) == length


sql_reward = reward_function("sql")
"""Reward function for TRL: 1.0, 0.0 or None; its dataset has columns `gold` (SQL), `db` (a path), optional `mode`."""
math_reward = reward_function("math")
"""Reward function for TRL: 1.0, 0.0 or None; its dataset has a column `gold` (the answer)."""
