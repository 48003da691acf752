"""Verifier for mathematics: a completion is right when its final answer has the value of the gold answer."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.errors import VerifierError
from dphrl.types import Item, Verdict
from dphrl.verifiers.math_text import extract_answer, extract_gold, number, same_text
from dphrl.verifiers.pool import Reply, pool_of
from dphrl.verifiers.verdicts import column, completion_of, verdict

MAX_ANSWER = 2_000
"""Characters of the longest answer that is handed to a parser."""
WALL_FACTOR = 20.0
"""Wall-clock seconds allowed for each CPU second of the deadline."""


def verify_batch(items: Sequence[Item], *, deadline_s: float = 5.0, workers: int | None = None) -> list[Verdict]:
    """Compare each completion's final answer with its gold answer.

    Equal text or equal plain numbers (exact fractions; commas, "$" and "%" say nothing) are decided here; the rest goes
    to math-verify in a worker process that is killed at the deadline. Nothing a completion says is ever evaluated.

    Args:
        prompts: with column `gold`: the answer, or a solution that ends in "#### ANSWER" or holds \\boxed{ANSWER}.
        completions: texts; see `math_text.extract_answer` for what counts as the final answer.
        deadline_s: CPU seconds math-verify may take for one comparison, > 0.
    Returns:
        One verdict per pair: correct, wrong, no_answer, timeout, memory, or gold_error without reward (the gold holds
        no answer).
    Raises:
        VerifierError: a prompt has no column `gold`, the deadline is out of range, or the worker cannot start.
    """
    if deadline_s <= 0:
        raise VerifierError(f"math: deadline_s={deadline_s} must be above 0 (CPU seconds)")
    pairs = [
        (extract_gold(column("math", item, "gold")), extract_answer(completion_of("math", item))) for item in items
    ]
    replies = {pair: _decide(*pair) for pair in dict.fromkeys(pairs)}
    unclear = [pair for pair, reply in replies.items() if reply is None]
    if unclear:
        judged = pool_of("math").run(unclear, {}, cpu_s=deadline_s, workers=workers)
        replies.update(zip(unclear, judged, strict=True))
    return [verdict(*reply) for pair in pairs if (reply := replies[pair]) is not None]


def _decide(gold: str, answer: str) -> Reply | None:
    """The verdict where plain comparison settles it, else None."""
    if not gold:
        return "gold_error", "the gold column holds no answer"
    if not answer:
        return "no_answer", "no final answer in the completion"
    if same_text(gold, answer):
        return "correct", ""
    left, right = number(gold), number(answer)
    if left is not None and right is not None:
        return ("correct", "") if left == right else ("wrong", f"{answer[:40]} is not {gold[:40]}")
    if len(answer) > MAX_ANSWER:
        return "wrong", f"an answer of {len(answer)} characters; at most {MAX_ANSWER} are compared"
    return None
