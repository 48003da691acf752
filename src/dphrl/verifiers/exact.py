"""Verifier for answers that are the whole completion."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.types import Item, Verdict
from dphrl.verifiers.verifier import Verifier, column, completion_of, verdict


def verify_exact(items: Sequence[Item]) -> list[Verdict]:
    """A completion is right when it equals the gold text, outer space aside.

    Args:
        items: with `completion` and `gold`.
    Returns:
        One verdict per item: correct, wrong, no_answer (nothing but space), or gold_error without reward (no gold).
    Raises:
        VerifierError: an item has no `gold`.
    """
    return [_compare(column("exact", item, "gold"), completion_of("exact", item).strip()) for item in items]


def exact_answer(completion: str) -> str | None:
    """The completion without outer space; None where nothing is left."""
    return completion.strip() or None


def _compare(gold: object, answer: str) -> Verdict:
    if gold is None or not str(gold).strip():
        return verdict("gold_error", "the gold column is empty")
    if not answer:
        return verdict("no_answer", "an empty completion")
    return verdict("correct" if answer == str(gold).strip() else "wrong")


VERIFIER = Verifier(name="exact", judge=verify_exact, columns=("gold",), answer=exact_answer)
