"""Verdicts of drawn completions, from a verifier that may fail for a while: retried, then recorded, never as wrong."""

from __future__ import annotations

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

    An exception in the verifier: the batch is tried again after each of PAUSES, then one completion at a time, so that
    only those at fault are recorded as `verifier_error`. A verdict `verifier_error` is asked for TRIES times.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._prompts = {p.id: p for p in task.prompts}
        self._ever_worked = False

    def __call__(self, completions: Sequence[Completion]) -> list[Completion]:
        """The completions with their verdicts, in order.

        Raises:
            VerifierError: it failed on every completion of every try before it ever judged one, so it is broken.
            DphrlError: as the verifier says.
        """
        items = [item_of(self._prompts[c.prompt_id], c.text) for c in completions]
        verdicts = self._verdicts(items)
        for _ in range(TRIES - 1):
            again = [i for i, v in enumerate(verdicts) if v.status == "verifier_error"]
            if not again:
                break
            for i, verdict in zip(again, self._verdicts([items[i] for i in again]), strict=True):
                verdicts[i] = verdict
        return [
            Completion(c.prompt_id, c.draw, c.token_ids, c.text, c.finish_reason, v)
            for c, v in zip(completions, verdicts, strict=True)
        ]

    def _verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        for pause in PAUSES:
            time.sleep(pause)
            try:
                return self._asked(items)
            except DphrlError:
                raise
            except Exception:  # whatever a verifier may raise; what is left after the tries is recorded
                continue
        return self._one_by_one(items)

    def _one_by_one(self, items: Sequence[Item]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        failure: Exception | None = None
        for item in items:
            try:
                verdicts += self._asked([item])
            except DphrlError:
                raise
            except Exception as error:  # as above
                failure = error
                verdicts.append(Verdict(False, None, "verifier_error", f"{type(error).__name__}: {error}"[:500]))
        if failure is not None and not self._ever_worked:
            raise VerifierError(
                f"the verifier of task {self._task.name!r} raised on each of {len(items)} completions, in "
                f"{len(PAUSES) + 1} tries, last {type(failure).__name__}: {failure}; mend it and run again"
            ) from failure
        return verdicts

    def _asked(self, items: Sequence[Item]) -> list[Verdict]:
        verdicts = list(self._task.verify(items))
        self._ever_worked = self._ever_worked or bool(items)
        return verdicts
