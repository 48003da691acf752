"""What majority voting compares: the final answer of a completion, by the task's verifier."""

from __future__ import annotations

from dphrl.config.sources import TaskConfig
from dphrl.demo.task import TEXT_TASKS
from dphrl.metrics import Answer
from dphrl.tasks import DEMO_PREFIX, resolved
from dphrl.verifiers.math.extract import extract_answer
from dphrl.verifiers.math.normal import reading
from dphrl.verifiers.math.plain import number

LONGEST = 1_000
"""Characters of the longest answer that is normalised; a longer one is compared as it stands."""


def math_answer(completion: str) -> str | None:
    """The final answer, plain numbers by value, the rest by their text; None where there is none.

    Units and idle marks are left out, as the verifier does. Nothing is evaluated: 2x and x+x are two answers.
    """
    answer = extract_answer(completion)
    if not answer or len(answer) > LONGEST:
        return answer or None
    found = reading(answer)
    if found.words:
        return found.words
    value = number(found.latex)
    text = "".join(found.latex.split()) if value is None else str(value)
    return f"{text}{'%' if found.percent else ''}{f'_{found.base}' if found.base else ''}"


def exact_answer(completion: str) -> str | None:
    """The completion without outer space; None where nothing is left."""
    return completion.strip() or None


ANSWERS: dict[str, Answer] = {"math": math_answer, "exact": exact_answer}
"""Verifier -> what is compared. Two SQL queries are equal by their rows alone, so `sql` has none; nor has a verifier of
the user's own."""


def answer_of(cfg: TaskConfig) -> Answer | None:
    """What majority voting compares on a task; None where answers cannot be compared.

    Raises:
        ConfigError: an unknown ready task.
    """
    if cfg.data.startswith(DEMO_PREFIX):
        return exact_answer if cfg.data.removeprefix(DEMO_PREFIX) in TEXT_TASKS else None
    return ANSWERS.get(resolved(cfg).verifier)
