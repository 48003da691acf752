"""Verifiers of the user: any reward function with TRL's signature becomes a `Verifier`."""

from __future__ import annotations

import importlib
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.errors import VerifierError, nearest
from dphrl.types import Item, Message, Verdict
from dphrl.verifiers.user_call import call
from dphrl.verifiers.verifier import Verifier, completion_of

UserFunction = Callable[..., Any]
"""f(prompts=..., completions=..., **columns) -> one number or None per completion; plain or async, a list, a tensor or
an array."""
LARGEST_REWARD = 3.4028234663852886e38
"""Of float32, in which rewards are trained."""
TIMEOUT_S = 1800.0
"""Seconds that a call of a user's function may take where nothing is said: a batch may be judged by a slow server."""


def user_verifier(spec: str) -> Verifier:
    """The record of "module:function".

    Raises:
        VerifierError: the module cannot be imported, or has no such function.
    """
    return Verifier(name=spec, judge=from_reward_function(load_reward_function(spec), spec))


def load_reward_function(spec: str) -> UserFunction:
    """Import "module:function"; a module file in the current directory is found too.

    Raises:
        VerifierError: the module cannot be imported, or has no such function.
    """
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a stray file never shadows an installed module
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise VerifierError(
            f"verifier {spec!r}: cannot import {module_name!r} ({type(error).__name__}: {error}); "
            f"it must be installed or lie in the current directory {here}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise VerifierError(f"verifier {spec!r}: {module_name!r} has no function {name!r}{nearest(name, names)}")
    return function  # type: ignore[no-any-return]


def from_reward_function(function: UserFunction, name: str) -> Callable[..., list[Verdict]]:
    """A function of items that asks a TRL reward function for its verdicts.

    The function gets keyword arguments only: `prompts`, `completions` (texts; for a chat prompt [{"role": "assistant",
    "content": text}]), `completion_ids` (lists of token ids, where completions were drawn) and every column of the
    items as a list, `id` among them; where an item lacks a column that another of the batch has, there is None. None
    from it = could not judge: `verifier_error`. It may be async, and return a list, a tensor or an array. Folder,
    gradient mode and random numbers are afterwards what they were.

    An exception in it: the completions of the batch are judged one by one, so that only those at fault become
    `verifier_error`, with the exception as detail. If all of them fail before the function has ever judged one, the
    function itself is broken, and that is raised; later, a training run goes on and the statuses show it.

    Args:
        function: the reward function.
        name: what errors call it.
    Returns:
        `verify(items, *, correct_at=1.0, timeout_s=TIMEOUT_S)`; its rewards are the function's own, and `correct_at` is
        the least reward of a correct completion.
    Raises (the function returned):
        VerifierError: a wrong number of results, a result that is neither a number of float32's range nor None, a call
            that did not return in time, or an item whose completion is no text, or whose prompt is neither text nor
            chat messages.
    """
    ever_worked = False

    def verify(items: Sequence[Item], *, correct_at: float = 1.0, timeout_s: float = TIMEOUT_S) -> list[Verdict]:
        nonlocal ever_worked
        if not items:
            return []

        def asked(**columns: Any) -> Any:
            return call(function, columns, name=name, timeout_s=timeout_s)

        results = _results(asked, name, items)
        failures = [result for result in results if isinstance(result, _Failed)]
        if len(failures) == len(results) and not ever_worked:
            raise VerifierError(
                f"verifier {name!r} raised on each of {len(results)} completions, first {failures[0]}; "
                "mend the function, or let it return None for what it cannot judge"
            ) from failures[0].error
        ever_worked = True
        return [_verdict(result, name, correct_at) for result in results]

    return verify


@dataclass(frozen=True, slots=True)
class _Failed:
    """The user's function raised."""

    error: BaseException

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


def _results(function: UserFunction, name: str, items: Sequence[Item]) -> list[float | _Failed | None]:
    """What the function gives for each item; where it raises on several, it is asked about each alone."""
    keys = dict.fromkeys(key for item in items for key in item if key not in ("prompt", "completion"))
    columns = {key: [item.get(key) for item in items] for key in keys}
    prompts = [_prompt(item, name) for item in items]
    texts: list[str | list[Message]] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, (completion_of(name, item) for item in items), strict=True)
    ]
    try:
        returned = function(**{**columns, "prompts": prompts, "completions": texts})
    except VerifierError:  # it took too long
        raise
    except (Exception, SystemExit) as error:  # a user's function may raise anything, and must not end the program
        if len(items) == 1:
            return [_Failed(error)]
        return [result for item in items for result in _results(function, name, [item])]
    rewards = _listed(returned, name)
    if len(rewards) != len(items):
        raise VerifierError(
            f"verifier {name!r} returned {len(rewards)} results for {len(items)} completions; "
            "it must return one number or None for each"
        )
    return rewards


def _listed(returned: Any, name: str) -> list[Any]:
    """The results in order: of a tensor or an array its numbers."""
    plain = returned.tolist() if hasattr(returned, "tolist") else returned
    if isinstance(plain, Mapping | Set | str | bytes) or not isinstance(plain, Iterable):
        raise VerifierError(
            f"verifier {name!r} returned {_shown(returned)}; it must return a list of numbers or None, one for each "
            "completion, in order"
        )
    return [_number(result) for result in plain]


def _number(result: Any) -> Any:
    """The number in a tensor or an array of one; anything else as it is."""
    try:
        return result.item() if hasattr(result, "item") else result
    except (ValueError, RuntimeError):
        return result


def _shown(value: object) -> str:
    text = repr(value)
    return f"a {type(value).__name__}, {text if len(text) <= 80 else text[:80] + '...'}"


def _prompt(item: Item, name: str) -> str | list[Message]:
    prompt = item.get("prompt")
    if prompt is None:
        return ""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list | tuple):
        return list(prompt)
    raise VerifierError(
        f"{name}: item {item.get('id')!r} has a prompt of type {type(prompt).__name__}; it must be text, or a list of "
        "chat messages"
    )


def _verdict(result: object, name: str, correct_at: float) -> Verdict:
    if isinstance(result, _Failed):
        return Verdict(False, None, "verifier_error", str(result)[:500])
    if result is None:
        return Verdict(False, None, "verifier_error", "the function returned None")
    try:
        reward = float(result) if isinstance(result, numbers.Real) else math.nan
    except OverflowError:  # a whole number beyond all floats
        reward = math.inf
    if not abs(reward) <= LARGEST_REWARD:
        raise VerifierError(
            f"verifier {name!r} returned {result!r} for a completion; it must be a finite number of at most "
            f"{LARGEST_REWARD:.1e} (float32), or None for what it cannot judge"
        )
    correct = reward >= correct_at
    return Verdict(correct, reward, "correct" if correct else "wrong")
