"""Verdicts of drawn completions. Where a verifier fails it is asked again; nothing unjudged is recorded as wrong."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from dphrl.errors import DphrlError, VerifierError
from dphrl.types import Completion, Item, Task, Verdict, item_of

PAUSES = (0.0, 1.0, 5.0)
"""Seconds before each try on a batch; a verifier that asks a server may find it back."""
TRIES = 3
"""Verdicts asked for on one completion before `verifier_error` is recorded."""


class Judge:
    """Gives completions of one task their verdicts.

    Where the verifier raises, the batch is tried again after each of PAUSES, then one completion at a time, so that
    only those at fault are recorded as `verifier_error`. A verdict `verifier_error` is asked for TRIES times.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._prompts = {prompt.id: prompt for prompt in task.prompts}
        self._ever_worked = False

    def __call__(self, completions: Sequence[Completion]) -> list[Completion]:
        """The completions with their verdicts, in order.

        Raises:
            VerifierError: it failed on every completion of every try before it ever judged one, so it is broken.
            DphrlError: as the verifier says.
        """
        items = [item_of(self._prompts[c.prompt_id], c.text, c.token_ids) for c in completions]
        verdicts = self._verdicts(items)
        for _ in range(TRIES - 1):
            unjudged = [i for i, verdict in enumerate(verdicts) if verdict.status == "verifier_error"]
            if not unjudged:
                break
            for i, verdict in zip(unjudged, self._verdicts([items[i] for i in unjudged]), strict=True):
                verdicts[i] = verdict
        return [dataclasses.replace(c, verdict=v) for c, v in zip(completions, verdicts, strict=True)]

    def _verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        for pause in PAUSES:
            time.sleep(pause)
            verdicts = self._ask(items)
            if not isinstance(verdicts, Exception):
                return verdicts
        answers = [self._ask([item]) for item in items]
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures and not self._ever_worked:
            raise VerifierError(
                f"the verifier of task {self._task.name!r} raised on each of {len(items)} completions, in "
                f"{len(PAUSES) + 1} tries, last {_named(failures[-1])}; mend it and run again"
            ) from failures[-1]
        return [_failed(answer) if isinstance(answer, Exception) else answer[0] for answer in answers]

    def _ask(self, items: Sequence[Item]) -> list[Verdict] | Exception:
        """The verdicts, or what the verifier raised; a mistake of the user's ends the run at once."""
        try:
            verdicts = list(self._task.verify(items))
        except DphrlError:
            raise
        except Exception as error:  # a verifier may raise anything
            return error
        self._ever_worked = self._ever_worked or bool(items)
        return verdicts


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _failed(error: Exception) -> Verdict:
    return Verdict(False, None, "verifier_error", _named(error)[:500])
