"""Which prompts of an evaluation a run also trains on: its task's, and those of the keep sets that it rehearses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

from dphrl.config.objective import ANCHOR_METHODS
from dphrl.config.root import Config
from dphrl.errors import DphrlError
from dphrl.metrics.summary import SeenInTraining
from dphrl.models.policy import Policy
from dphrl.progress import Progress
from dphrl.sampling.encoded_prompts import pick_prompts, task_for_policy
from dphrl.tasks.contamination import contaminated, contamination_note
from dphrl.types import Prompt, Task


def contamination_check(
    config: Config, policy: Policy, *, base_dir: Path, progress: Progress
) -> Callable[[Task], SeenInTraining | None]:
    """A function that counts and shows a task's prompts that also stand in the run's training.

    The training prompts are read once, when the first task is checked; where they cannot be read here any more, that is
    shown, and nothing is known.
    """

    @cache
    def trained() -> tuple[Prompt, ...] | None:
        try:
            return _trained(config, policy, base_dir)
        except DphrlError as error:
            progress("contamination", 0, 1, f"not known: the training prompts cannot be read ({error})")
            return None

    def check(task: Task) -> SeenInTraining | None:
        prompts = trained()
        if prompts is None:
            return None
        matches = contaminated(task.prompts, prompts)
        seen = SeenInTraining(
            prompts=len(matches),
            exact=sum(match.exact for match in matches),
            ids={match.prompt_id: match.trained_id for match in matches},
        )
        if matches:
            progress(
                f"contamination of {task.name}", len(matches), len(task.prompts), contamination_note(task.name, seen)
            )
        return seen

    return check


def _trained(config: Config, policy: Policy, base_dir: Path) -> tuple[Prompt, ...]:
    """Every prompt that training can see; those of a keep set are called LABEL:ID."""
    trained = list(task_for_policy("task", config.task, policy, base_dir=base_dir).prompts)
    for keep in config.anchor.also if config.method in ANCHOR_METHODS else ():
        task = task_for_policy(keep.label, keep.task, policy, base_dir=base_dir)
        picked = pick_prompts(task, keep.prompts, config.seed).prompts
        trained += [dataclasses.replace(p, id=f"{keep.label}:{p.id}") for p in picked]
    return tuple(trained)
