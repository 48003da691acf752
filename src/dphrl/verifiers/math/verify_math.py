"""Verifier for mathematics: a completion is right when its final answer has the value of the gold answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dphrl.errors import VerifierError
from dphrl.types import Item, Verdict
from dphrl.verifiers.math.echo import is_echo, prompt_text
from dphrl.verifiers.math.final_answer import extract_answer, extract_gold
from dphrl.verifiers.math.math_style import math_style
from dphrl.verifiers.math.plain_text import plain_row, same_numbers, same_text
from dphrl.verifiers.math.voting import counted
from dphrl.verifiers.verifier import Verifier, column, completion_of, verdict
from dphrl.verifiers.workers.job import Reply
from dphrl.verifiers.workers.pool import pool_of

MATH_WORKER = "dphrl.verifiers.math.math_worker"
MAX_ANSWER = 2_000
"""Characters of the longest answer that is compared other than as text."""
ECHOED = "an expression of the question, where a simpler one was asked for"
GROWN_BYTES = 32 << 20
"""What a worker's memory may grow by before it is replaced: what sympy and the golds held parsed need."""
_COSTLY = frozenset({"timeout", "memory"})

Pair = tuple[str, str | None]
"""Gold answer and answer; no answer asks whether the gold answer alone can be handled."""


def verify_math(
    items: Sequence[Item], *, deadline_s: float = 5.0, workers: int | None = None, echo: bool = True
) -> list[Verdict]:
    """Compare each completion's final answer with its gold answer.

    Equal text, plain numbers and rows of them (as exact fractions) are decided here; the rest in worker processes that
    are killed at the deadline: math-verify reads both answers, and their values are compared exactly. Nothing a
    completion says is ever evaluated as code. docs/decisions/0009-math-comparison.md says what counts as equal.

    Args:
        items: with `completion` (see `final_answer.extract_answer` for its final answer) and `gold` (the answer, or a
            solution that ends in "#### ANSWER" or holds \\boxed{ANSWER}).
        deadline_s: CPU seconds one comparison may take, > 0.
        echo: whether an answer copied out of the item's `prompt` is wrong where the gold answer is another form.
        workers: most processes at work, >= 1; None = one a core, divided among the ranks of this machine.
    Returns:
        One verdict per item: correct, wrong, no_answer, timeout, memory, or gold_error without reward (there is no gold
        answer, or it alone takes too long or too much memory, or more than 2,000 characters).
    Raises:
        VerifierError: an item lacks a key, an argument is out of range, or no worker can start.
    """
    if not 0 < deadline_s < math.inf:
        raise VerifierError(f"math: deadline_s={deadline_s} must be a number above 0 (CPU seconds)")
    if workers is not None and workers < 1:
        raise VerifierError(f"math: workers={workers} must be at least 1, or None for one a core")
    golds: dict[object, str] = {}
    pairs = [
        (_gold(column("math", item, "gold"), golds), extract_answer(completion_of("math", item))) for item in items
    ]
    replies = {pair: _decide(*pair) for pair in dict.fromkeys(pairs)}
    unclear: list[Pair] = [pair for pair, reply in replies.items() if reply is None]
    pool = pool_of(MATH_WORKER)
    ran = pool.run(unclear, {}, cpu_s=deadline_s, workers=workers, grown_bytes=GROWN_BYTES)
    judged = dict(zip(unclear, ran, strict=True))
    bad = _bad_golds(judged, deadline_s, workers)
    final = [replies[pair] or bad.get(pair[0]) or judged[pair] for pair in pairs]
    if echo:
        final = [_but_echoes(*entry) for entry in zip(final, pairs, items, strict=True)]
    return [verdict(*reply) for reply in final]


def math_answer(completion: str) -> str | None:
    """The final answer, plain numbers by value, the rest by their text; None where there is none.

    Units and idle marks are left out, as the verifier does. Nothing is evaluated: 2x and x+x are two answers.
    """
    answer = extract_answer(completion)
    return counted(answer) if answer else None


def _gold(value: object, known: dict[object, str]) -> str:
    """The answer in a gold column; a batch asks for the same one again and again."""
    if not isinstance(value, str):
        return extract_gold(value)
    if value not in known:
        known[value] = extract_gold(value)
    return known[value]


def _decide(gold: str, answer: str) -> Reply | None:
    """The verdict where plain comparison settles it, else None."""
    if not gold:
        return "gold_error", "the gold column holds no answer"
    if not answer:
        return "no_answer", "no final answer in the completion"
    if same_text(gold, answer):
        return "correct", ""
    if len(gold) > MAX_ANSWER:
        return "gold_error", f"a gold answer of {len(gold)} characters; at most {MAX_ANSWER} are compared"
    if len(answer) > MAX_ANSWER:
        return "wrong", f"an answer of {len(answer)} characters; at most {MAX_ANSWER} are compared"
    equal = same_numbers(gold, answer)
    if equal is not None:
        return ("correct", "") if equal else ("wrong", f"{answer[:40]} is not {gold[:40]}")
    row, other = plain_row(gold), plain_row(answer)
    if row is None or other is None or row[0] != other[0]:
        return None
    return ("correct", "") if row == other else ("wrong", f"{answer[:40]} is not {gold[:40]}")


def _but_echoes(reply: Reply, pair: tuple[str, str], item: Item) -> Reply:
    """The reply; wrong where a right answer only repeats the question."""
    if reply[0] != "correct" or not item.get("prompt") or same_text(*pair):
        return reply
    return ("wrong", ECHOED) if is_echo(*pair, prompt_text(item["prompt"])) else reply


def _bad_golds(judged: Mapping[Pair, Reply], deadline_s: float, workers: int | None) -> dict[str, Reply]:
    """Gold answers that take too long or too much memory by themselves, so that no completion is blamed for them."""
    suspects = list(dict.fromkeys(gold for (gold, _), (status, _) in judged.items() if status in _COSTLY))
    alone = pool_of(MATH_WORKER).run(
        [(gold, None) for gold in suspects], {}, cpu_s=deadline_s, workers=workers, adapt=False
    )
    return {
        gold: ("gold_error", f"the gold answer alone: {status}: {detail}")
        for gold, (status, detail) in zip(suspects, alone, strict=True)
        if status in _COSTLY
    }


VERIFIER = Verifier(
    name="math",
    rules=3,
    judge=verify_math,
    columns=("gold",),
    optional=("prompt",),
    solution=math_style,
    answer=math_answer,
    read_gold=extract_gold,
    answer_form=r"\boxed{%s}",
)
