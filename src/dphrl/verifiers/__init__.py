"""Verdicts on completions. A verifier that fails says so (`gold_error`, `verifier_error`, no reward): never a silent 0.

    from dphrl.verifiers import math_reward, sql_reward             # reward functions for TRL
    from dphrl.verifiers import load_verifier
    verdicts = load_verifier("sql", {"mode": "bird"})([{"completion": ..., "gold": ..., "db": "shop.sqlite"}])

To add one: a function items -> verdicts, one entry in `VERIFIERS`, one table of hand-made verdicts in the tests.
Nothing here imports torch; what may be hostile runs in worker processes (`pool.py`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dphrl.errors import VerifierError, nearest
from dphrl.types import Verdict, VerifyFn
from dphrl.verifiers import exact
from dphrl.verifiers.custom import from_reward_function, load_reward_function
from dphrl.verifiers.math import verifier as math_verifier
from dphrl.verifiers.reward_function import RewardFn, reward_from, task_reward
from dphrl.verifiers.sql import verifier as sql_verifier

__all__ = ["VERIFIERS", "load_verifier", "math_reward", "reward_function", "sql_reward", "task_reward"]

VERIFIERS: dict[str, Callable[..., list[Verdict]]] = {
    "math": math_verifier.verify_batch,
    "sql": sql_verifier.verify_batch,
    "exact": exact.verify_batch,
}


def load_verifier(spec: str, args: Mapping[str, Any]) -> VerifyFn:
    """The verifier a task names.

    Args:
        spec: a key of `VERIFIERS`, or "module:function", a reward function with TRL's signature.
        args: keyword arguments of the verifier (see its docstring); for a reward function only `correct_at`, the least
            reward of a correct completion (default 1.0).
    Returns:
        Items -> verdicts in the same order.
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


def reward_function(spec: str, **args: Any) -> RewardFn:
    """A verifier as a reward function for TRL, with arguments of its own: `reward_function("sql", mode="bird")`.

    Args:
        spec, args: see `load_verifier`.
    Returns:
        See `rewards.reward_from`; TRL's logs call it SPEC_reward.
    Raises:
        VerifierError: an unknown verifier or argument.
    """
    return reward_from(load_verifier(spec, args), f"{spec}_reward")


def _check_arguments(spec: str, function: Callable[..., Any], args: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in args:
        if name not in allowed:
            raise VerifierError(
                f"verifier {spec!r} has no argument {name!r}{nearest(name, allowed)}; "
                f"task.verifier_args may hold {', '.join(allowed) or 'nothing'} here"
            )


sql_reward = reward_function("sql")
"""Reward function for TRL: 1.0, 0.0 or None; its dataset has columns `gold` (SQL), `db` (a path), optional `mode`."""
math_reward = reward_function("math")
"""Reward function for TRL: 1.0, 0.0 or None; its dataset has a column `gold` (the answer)."""
