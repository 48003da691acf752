"""The verifiers by name. To add one: a module that holds its record, and its line in `VERIFIERS`."""

from __future__ import annotations

import functools
import importlib

from dphrl.errors import VerifierError, nearest
from dphrl.types import VerifyFn
from dphrl.verifiers.user_function import user_verifier
from dphrl.verifiers.verifier import Arguments, Verifier

VERIFIERS: dict[str, str] = {
    "math": "dphrl.verifiers.math.verify_math",
    "sql": "dphrl.verifiers.sql.verify_sql",
    "exact": "dphrl.verifiers.exact",
    "gym": "dphrl.verifiers.gym.verify_gym",
}
"""Name -> module whose `VERIFIER` is the record; it is imported when the verifier is first asked for. What is slow to
import (math-verify, sqlglot, reasoning-gym) belongs into worker modules or functions, not at the head of this one."""


def verifier_of(spec: str) -> Verifier:
    """The record of a verifier.

    Args:
        spec: a key of `VERIFIERS`, or "module:function", a reward function with TRL's signature.
    Raises:
        VerifierError: an unknown verifier, or a function that cannot be imported.
    """
    if ":" in spec:
        return user_verifier(spec)
    if spec not in VERIFIERS:
        raise VerifierError(
            f"verifier {spec!r} is not one of {', '.join(VERIFIERS)}{nearest(spec, VERIFIERS)}; "
            "your own is named module:function"
        )
    record: Verifier = importlib.import_module(VERIFIERS[spec]).VERIFIER
    return record


def rules_of(spec: str) -> str | None:
    """Verifier and number of its rules ("math 3"); None for first rules, and where no config can name the verifier."""
    rules = verifier_of(spec).rules if spec else 1
    return f"{spec} {rules}" if rules > 1 else None


def load_verifier(spec: str, args: Arguments) -> VerifyFn:
    """The verifier a task names, with its arguments.

    Args:
        spec: see `verifier_of`.
        args: keyword arguments of the verifier (see its docstring); for a reward function only `correct_at`, the least
            reward of a correct completion (default 1.0).
    Returns:
        Items -> verdicts in the same order.
    Raises:
        VerifierError: an unknown verifier or argument, or a function that cannot be imported.
    """
    return with_arguments(verifier_of(spec), args)


def with_arguments(verifier: Verifier, args: Arguments) -> VerifyFn:
    """The verifier's `judge` with its keyword arguments.

    Raises:
        VerifierError: an unknown argument.
    """
    allowed = verifier.arguments
    for name in args:
        if name not in allowed:
            raise VerifierError(
                f"verifier {verifier.name!r} has no argument {name!r}{nearest(name, allowed)}; "
                f"task.verifier_args may hold {', '.join(allowed) or 'nothing'} here"
            )
    return functools.partial(verifier.judge, **args)
