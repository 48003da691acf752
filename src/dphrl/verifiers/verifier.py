"""The record of a verifier, and what all verifiers share: reading an item, and turning a status into a verdict."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dphrl.errors import VerifierError
from dphrl.types import NO_REWARD, Item, Status, Verdict

Arguments = Mapping[str, Any]
"""Keyword arguments of a verifier, by name: `task.verifier_args`."""


def text_style(completion: str) -> str:
    """The completion with all white space written as single spaces."""
    return " ".join(completion.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Everything that is known of one verifier; each module in `registry.VERIFIERS` holds one as `VERIFIER`."""

    name: str
    judge: Callable[..., list[Verdict]]
    """(items, **arguments) -> one verdict for each item, in order. Its keyword-only parameters are the arguments that
    `task.verifier_args` may hold."""
    rules: int = 1
    """Number of its rules, raised when they judge a completion otherwise than before: verdicts of other rules are not
    stored among each other (`stages/presample/draw_origin.py`)."""
    columns: tuple[str, ...] = ()
    """Columns that every item needs beside `completion`; "db" names a SQLite database."""
    optional: tuple[str, ...] = ()
    """Columns that it reads where an item has them."""
    solution: Callable[[str], str] = text_style
    """Completion -> canonical form: two right completions with the same form count as one solution."""
    answer: Callable[[str], str | None] | None = None
    """Completion -> the answer that majority voting counts, None where the completion has none. The whole field is None
    where answers cannot be compared as texts."""
    read_gold: Callable[[Any], object] = str
    """Value of the gold column -> the answer in it."""
    answer_form: str = "%s"
    """How a completion gives an answer; %s stands for the answer."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the keyword arguments of `judge`."""
        parameters = inspect.signature(self.judge).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)

    def gold_completion(self, gold: Any) -> str:
        """A completion that gives the gold answer, so that the verifier can be asked about the gold itself."""
        return self.answer_form % (self.read_gold(gold),)


def verdict(status: Status, detail: str = "") -> Verdict:
    """Verdict of a status.

    Args:
        status: what happened.
        detail: why, in words; may be empty.
    Returns:
        Reward 1.0 for `correct`, None for statuses that say nothing about the completion, else 0.0.
    """
    correct = status == "correct"
    return Verdict(correct, None if status in NO_REWARD else float(correct), status, detail)


def column(verifier: str, item: Item, name: str) -> Any:
    """The value of an item that a verifier cannot do without.

    Raises:
        VerifierError: the item lacks it.
    """
    if name not in item:
        raise VerifierError(
            f"{verifier}: item {item.get('id')!r} has no {name!r}; it has {', '.join(sorted(map(str, item)))}; "
            f"rename the column of the data, or in a config name it in task.columns, e.g. {{{name}: COLUMN}}"
        )
    return item[name]


def completion_of(verifier: str, item: Item) -> str:
    """The completion of an item.

    Raises:
        VerifierError: there is none, or it is no text.
    """
    text = column(verifier, item, "completion")
    if not isinstance(text, str):
        raise VerifierError(
            f"{verifier}: item {item.get('id')!r} has a completion of type {type(text).__name__}, not text"
        )
    return text
