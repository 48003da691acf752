"""`dphrl eval --model checkpoints`: how a training went, by a small fixed set of prompts at each of its checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.models.policy import load_policy
from dphrl.progress import Progress
from dphrl.runs.checkpoints import marked_checkpoints
from dphrl.runs.run_dir import RunDir
from dphrl.stages.evaluate.measure_model import Subject, measure_model
from dphrl.types import Task

PROMPTS = 32
"""Most prompts of each task (count): few, since each checkpoint costs `eval.n` draws of each."""


def measure_checkpoints(config: Config, run: RunDir, tasks: Mapping[str, Task], progress: Progress) -> None:
    """Make RUN/eval/checkpoint-STEP for every whole checkpoint; finished tasks are kept.

    Args:
        tasks: what the base and the trained model are measured on; PROMPTS of each are taken, always the same.
    Raises:
        RunDirError: there is no checkpoint, or it holds an adapter alone.
    """
    checkpoints = marked_checkpoints(run.train)[::-1]
    if not checkpoints:
        raise RunDirError(f"{run.train} holds no whole checkpoint; train.save_every says how often one is saved")
    few = {name: few_prompts(task) for name, task in tasks.items()}
    plain = replace(config, eval=replace(config.eval, drift=0))
    for checkpoint in checkpoints:
        if not (checkpoint / "config.json").exists():
            raise RunDirError(
                f"{checkpoint} holds no whole model (no config.json): with lora.r checkpoints are adapters, which "
                "cannot be measured alone; measure the merged model: --model final"
            )
        policy = load_policy(config, str(checkpoint), trained=False)
        measure_model(Subject(plain, run.eval(checkpoint.name), policy, few, None), progress)


def few_prompts(task: Task) -> Task:
    """The task with PROMPTS of its prompts, chosen by a hash of their ids: the same whatever their order is."""
    ids = sorted((p.id for p in task.prompts), key=lambda i: hashlib.blake2b(i.encode(), digest_size=8).digest())
    chosen = frozenset(ids[:PROMPTS])
    return replace(task, prompts=tuple(p for p in task.prompts if p.id in chosen))
