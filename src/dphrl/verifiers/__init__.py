"""Verdicts on completions. A verifier that fails says so (`gold_error`, `verifier_error`, no reward): never a silent 0.

To add one: a function (prompts, completions) -> verdicts, one entry in `VERIFIERS`, one table of hand-made verdicts in
the tests. Nothing here imports torch; what may be hostile runs in a worker process (`worker.py`).
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dphrl.errors import VerifierError, nearest
from dphrl.types import STATUSES, Message, Task, Verdict, VerifyFn
from dphrl.verifiers.custom import from_reward_function, load_reward_function
from dphrl.verifiers.exact import exact_verify
from dphrl.verifiers.math import math_verify
from dphrl.verifiers.sql import sql_verify

__all__ = ["VERIFIERS", "load_verifier", "reward_function"]

VERIFIERS: dict[str, Callable[..., list[Verdict]]] = {"math": math_verify, "sql": sql_verify, "exact": exact_verify}


def load_verifier(spec: str, args: Mapping[str, Any]) -> VerifyFn:
    """The verifier a task names.

    Args:
        spec: a key of `VERIFIERS`, or "module:function", a reward function with TRL's signature.
        args: keyword arguments of the verifier (see its docstring); for a reward function only `correct_at`, the least
            reward of a correct completion (default 1.0).
    Returns:
        (prompts, completions) -> verdicts in the same order.
    Raises:
        VerifierError: an unknown verifier or argument, or a function that cannot be imported.
    """
    if ":" in spec:
        _check_arguments(spec, from_reward_function, args)
        return from_reward_function(load_reward_function(spec), spec, **args)
    if spec not in VERIFIERS:
        raise VerifierError(
            f"verifier {spec!r} is not one of {', '.join(VERIFIERS)}{nearest(spec, VERIFIERS)}; "
            "your own is named module:function"
        )
    verify = VERIFIERS[spec]
    _check_arguments(spec, verify, args)
    return functools.partial(verify, **args)


def reward_function(task: Task) -> Callable[..., list[float | None]]:
    """A reward function for TRL that asks the task's verifier, joining prompts by id.

    Args:
        task: its prompts' ids must stand in the column `prompt_id` of the trainer's dataset.
    Returns:
        `verifier(completions=..., prompt_id=..., log_metric=None, **others)` -> rewards, None where the verifier could
        not judge. With `log_metric` it reports the share in 0..1 of every status, at every call, so that all ranks
        report the same names: verifier/status/correct, ...
    Raises (the function returned):
        VerifierError: no `prompt_id`, an id the task does not hold, or a wrong number of verdicts.
    """
    prompts = {prompt.id: prompt for prompt in task.prompts}

    def verifier(
        *,
        completions: Sequence[str | Sequence[Message]],
        prompt_id: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_others: Any,
    ) -> list[float | None]:
        if prompt_id is None:
            raise VerifierError(f"task {task.name!r}: the trainer's dataset has no column prompt_id to join by")
        unknown = [key for key in prompt_id if key not in prompts]
        if unknown:
            raise VerifierError(f"task {task.name!r} has no prompt {unknown[0]!r} ({len(unknown)} unknown ids)")
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        verdicts = task.verify([prompts[key] for key in prompt_id], texts)
        if len(verdicts) != len(texts):
            raise VerifierError(f"task {task.name!r}: {len(verdicts)} verdicts for {len(texts)} completions")
        if log_metric is not None:
            counts = Counter(verdict.status for verdict in verdicts)
            for status in STATUSES:
                log_metric(f"verifier/status/{status}", counts[status] / max(len(verdicts), 1))
        return [verdict.reward for verdict in verdicts]

    return verifier


def _check_arguments(spec: str, function: Callable[..., Any], args: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in args:
        if name not in allowed:
            raise VerifierError(
                f"verifier {spec!r} has no argument {name!r}{nearest(name, allowed)}; "
                f"task.verifier_args may hold {', '.join(allowed) or 'nothing'} here"
            )
