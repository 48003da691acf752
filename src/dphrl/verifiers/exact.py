"""Verifier for answers that are the whole completion."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.errors import VerifierError
from dphrl.types import Prompt, Verdict
from dphrl.verifiers.verdicts import verdict


def exact_verify(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
    """A completion is right when it equals the gold text, outer space aside.

    Args:
        prompts: with column `gold`.
        completions: texts.
    Returns:
        One verdict per pair: correct, wrong, no_answer (nothing but space), or gold_error without reward (no gold).
    Raises:
        VerifierError: a prompt has no column `gold`.
    """
    return [_compare(prompt, text.strip()) for prompt, text in zip(prompts, completions, strict=True)]


def _compare(prompt: Prompt, answer: str) -> Verdict:
    if "gold" not in prompt.columns:
        raise VerifierError(
            f"exact: prompt {prompt.id!r} has no column 'gold'; it has {sorted(prompt.columns)}; "
            "name the column of the file in task.columns, e.g. {gold: answer}"
        )
    gold = prompt.columns["gold"]
    if gold is None or not str(gold).strip():
        return verdict("gold_error", "the gold column is empty")
    if not answer:
        return verdict("no_answer", "an empty completion")
    return verdict("correct" if answer == str(gold).strip() else "wrong")
