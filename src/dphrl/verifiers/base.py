"""What all verifiers share: reading an item, and the one place where a status becomes a verdict with its reward."""

from __future__ import annotations

from typing import Any

from dphrl.errors import VerifierError
from dphrl.types import NO_REWARD, Item, Status, Verdict


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
