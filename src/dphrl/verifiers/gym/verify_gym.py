"""Verifier for prompts of reasoning-gym: the generator that made a prompt scores the answer.

The package is imported in worker processes only, since some scorers evaluate the answer or burn time on it. What a
worker needs to know of a prompt stands in its columns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from dphrl.errors import VerifierError
from dphrl.types import Item, Verdict
from dphrl.verifiers.math.final_answer import last_box
from dphrl.verifiers.verifier import Verifier, column, completion_of, verdict
from dphrl.verifiers.workers.job import Reply
from dphrl.verifiers.workers.pool import pool_of

INSTALL = "pip install 'dphrl[gym]'"
GYM_WORKER = "dphrl.verifiers.gym.gym_worker"
SCORE = "score "
"""Begins the detail of a reply that carries a score."""


def verify_gym(items: Sequence[Item], *, deadline_s: float = 5.0, workers: int | None = None) -> list[Verdict]:
    """Score each completion's answer with the generator that made its prompt, in a worker process.

    Args:
        items: with `completion`, and as the prompts of `tasks.reasoning_gym` have them `gym` (the generator's name),
            `entry` and maybe `gym_settings`.
        deadline_s: CPU seconds the scorer may take for one answer, > 0.
        workers: most processes at work, >= 1; None = one a core.
    Returns:
        One verdict per item: correct (score 1.0) or wrong, with the score as reward; no_answer, timeout, memory; or
        verifier_error without reward where the scorer raises.
    Raises:
        VerifierError: a key is missing, an argument is out of range, or the package is not installed.
    """
    if deadline_s <= 0 or (workers is not None and workers < 1):
        raise VerifierError(f"gym: deadline_s={deadline_s} must be above 0, workers={workers} at least 1")
    if importlib.util.find_spec("reasoning_gym") is None:
        raise VerifierError(f"gym: reasoning-gym is not installed; {INSTALL}")
    answers = [tagged_answer(completion_of("gym", item)) for item in items]
    requests = [
        [column("gym", item, "gym"), item.get("gym_settings") or {}, column("gym", item, "entry"), answer]
        for item, answer in zip(items, answers, strict=True)
    ]
    asked = [index for index, answer in enumerate(answers) if answer]
    replies = pool_of(GYM_WORKER).run([requests[i] for i in asked], {}, cpu_s=deadline_s, workers=workers)
    reply_of = dict(zip(asked, replies, strict=True))
    return [_verdict(reply_of.get(index, ("no_answer", "an empty answer"))) for index in range(len(items))]


def tagged_answer(completion: str) -> str:
    """The answer of a completion: within its last <answer>...</answer>, else in its last \\boxed{}, else all of it.

    Linear in the length of the completion.
    """
    end = completion.rfind("</answer>")
    start = completion.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return completion[start + len("<answer>") : end].strip()
    box = last_box(completion)
    return (completion if box is None else box).strip()


def _verdict(reply: Reply) -> Verdict:
    status, detail = reply
    if not detail.startswith(SCORE):
        return verdict(status, detail)
    return Verdict(status == "correct", float(detail.removeprefix(SCORE)), status, detail)


VERIFIER = Verifier(
    name="gym",
    judge=verify_gym,
    columns=("gym", "entry"),
    optional=("gym_settings",),
    answer_form="<answer>%s</answer>",
)
