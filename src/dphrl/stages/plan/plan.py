"""`dphrl plan`: everything that would stop a run later is refused now; else what the run would do, in numbers.

No model is loaded and nothing is written. The numbers follow from the settings and the files;
docs/decisions/0017-plan.md says why there are no more.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from dphrl.config.objective import DapoObjective
from dphrl.config.root import Config
from dphrl.engines.trl import INSTALL, missing_packages
from dphrl.engines.trl.config_to_trl import anchors_per_step, trainer_settings
from dphrl.engines.trl.tried_options import try_options
from dphrl.errors import ConfigError, DataError
from dphrl.progress import Progress, silent
from dphrl.sampling.backends import BACKENDS, missing_modules
from dphrl.stages.plan.checks import Checklist, TaskChecks, TaskSize, check_model, check_run_dir
from dphrl.stages.presample.make_partition import rules_of
from dphrl.stages.presample.training_prompts import check_filter, needs_presamples

DEFAULT_GPUS = 8
GIB = 2**30
TYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINED_NUMBERS = 4
"""Of a trained parameter: weight, gradient and AdamW's two moments, each in the type of the weight."""
CHECKPOINT_NUMBERS = 2 * 3
"""Of a trained parameter in the two checkpoints that are kept: weight and AdamW's moments."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run: what `dphrl run` would do with a config."""

    config: Config
    gpus: int
    task: TaskSize
    keep_sets: tuple[TaskSize, ...]
    measured: tuple[TaskSize, ...]
    """The tasks of the evaluation."""
    parameters: int | None
    """Of the model; None where its config is not on this machine."""
    micro_batch: int | None
    """Completions in one forward on one process; None where TRL is not installed."""
    unknown: tuple[str, ...]
    """What cannot be determined on this machine, in words."""

    @property
    def presample_draws(self) -> tuple[int, int] | None:
        """Draws of the first wave, which every prompt gets, and the most there can be; None where none are made."""
        if self.config.base_run is not None or not needs_presamples(self.config):
            return None
        rules = rules_of(self.config.anchor)
        prompts = _prompts((self.task, *self.keep_sets))
        debiasing = rules.per_prompt if rules.source == "near_perfect" else 1
        return prompts * rules.first, prompts * (rules.presamples + (debiasing if rules.debias else 0))

    @property
    def anchors_per_step(self) -> int:
        """Anchors beside each optimiser step; 0 for a method without anchors."""
        return anchors_per_step(self.config)

    @property
    def completions(self) -> tuple[int, int]:
        """Completions of training, without resampling and with every round of it."""
        train, objective = self.config.train, self.config.objective
        count = train.steps * train.prompts_per_step * train.group_size
        return count, count * (1 + objective.max_resample if isinstance(objective, DapoObjective) else 1)

    @property
    def measures_base(self) -> bool:
        """Whether the initial policy is measured too."""
        return self.config.eval.base and self.config.base_run is None

    @property
    def evaluation_draws(self) -> int:
        """Draws of all models, the greedy ones among them."""
        return (1 + self.measures_base) * (self.config.eval.n + 1) * _prompts(self.measured)

    @property
    def training_bytes(self) -> int | None:
        """Weights, gradients, AdamW and a reference model, over all GPUs; activations come on top.

        With an adapter the reference is the model without it.
        """
        if self.parameters is None or self.config.model.device == "cpu":
            return None
        whole = TRAINED_NUMBERS + self.config.objective.loads_reference
        numbers = 1 if self.config.lora.r is not None else whole
        return self.parameters * numbers * self._weight_bytes

    @property
    def copied_bytes(self) -> int:
        """The weights as a forward computes with them, on each GPU, where they are of another type; 0 where not."""
        precision = self.config.trained_precision
        if self.training_bytes is None or self.parameters is None or precision.autocast in (None, precision.weights):
            return 0
        return self.parameters * TYPE_BYTES[precision.autocast or ""]

    @property
    def disk_bytes(self) -> int | None:
        """Checkpoints and the final model."""
        if self.parameters is None:
            return None
        checkpoints = 0 if self.config.lora.r is not None else CHECKPOINT_NUMBERS * self._weight_bytes
        return self.parameters * (checkpoints + TYPE_BYTES[self.config.stored_dtype])

    @property
    def _weight_bytes(self) -> int:
        """Of a weight while it is trained, or frozen beside an adapter."""
        return TYPE_BYTES[self.config.trained_precision.weights]


def plan_run(config: Config, *, base_dir: Path, gpus: int = DEFAULT_GPUS, progress: Progress = silent) -> Plan:
    """Look at everything that a run needs, and work out what it does.

    Args:
        base_dir: folder of the config file.
        gpus: GPUs that train, >= 1; with model.device=cpu one process trains.
    Raises:
        ConfigError: no GPU. DataError: something is missing or does not fit; the text lists all of it.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    gpus = 1 if config.model.device == "cpu" else gpus
    checklist = Checklist()
    checklist.attempt("out", lambda: check_run_dir(config, checklist.unknown))
    checklist.attempt("train.exploration_filter", lambda: check_filter(config))
    policy, parameters = check_model(config, checklist)
    checks = TaskChecks(config, base_dir, policy, progress, checklist)
    task = checks.size("task", config.task)
    keep_sets = [checks.size(f"anchor.also {k.label}", k.task, k.prompts) for k in config.anchor.also]
    measured = [checks.size(f"eval_tasks.{name}", cfg) for name, cfg in config.eval_tasks.items()]
    if not config.eval_tasks:
        checklist.problems.append("eval_tasks is empty, so there is nothing to measure; name at least one task")
    micro_batch = _micro_batch(config, gpus, checklist)
    _check_group_of_prompts(config, task, checklist)
    _check_backends(config, checklist)
    if checklist.problems or task is None:
        lines = "\n".join(f"- {problem}" for problem in checklist.problems)
        raise DataError(f"the run cannot start; {len(checklist.problems)} to mend:\n{lines}")
    plan = Plan(
        config=config,
        gpus=gpus,
        task=task,
        keep_sets=tuple(size for size in keep_sets if size),
        measured=tuple(size for size in measured if size),
        parameters=parameters,
        micro_batch=micro_batch,
        unknown=tuple(checklist.unknown),
    )
    return dataclasses.replace(plan, unknown=(*plan.unknown, *_lacking_room(plan)))


def _micro_batch(config: Config, gpus: int, checklist: Checklist) -> int | None:
    """Makes the trainer's own settings: only they know whether batches divide and whether train.trl is right."""
    if missing := missing_packages():
        checklist.unknown.append(f"whether training can start: {' and '.join(missing)} not installed; {INSTALL}")
        return None
    what = "train on one process" if gpus == 1 else f"train on {gpus} processes (--gpus N for another number)"
    settings = checklist.attempt(what, lambda: trainer_settings(config, Path(config.out, "train"), processes=gpus))
    if settings is None:
        return None
    checklist.attempt("train", lambda: try_options(config, settings, alone=gpus == 1))
    return int(settings["per_device_train_batch_size"])


def _check_group_of_prompts(config: Config, task: TaskSize | None, checklist: Checklist) -> None:
    wanted = config.train.prompts_per_step
    if task is not None and task.prompts is not None and task.prompts < wanted:
        checklist.problems.append(
            f"task: {task.prompts} prompts are fewer than train.prompts_per_step={wanted}; lower it, or give more "
            "prompts"
        )


def _check_backends(config: Config, checklist: Checklist) -> None:
    """Notes on what this machine lacks. It is not refused, since the run may be meant for another machine."""
    backends = {"sampling.backend": config.sampling.backend}
    if config.train.trl.get("use_vllm"):
        backends["train.trl.use_vllm"] = "vllm"
    for setting, name in backends.items():
        if lacking := missing_modules(name):
            checklist.unknown.append(
                f"whether {setting} works: this machine lacks {' and '.join(lacking)}; {BACKENDS[name].install}"
            )


def _lacking_room(plan: Plan) -> list[str]:
    """A line where the disk is too small."""
    needed, out = plan.disk_bytes, Path(plan.config.out).absolute()
    free = shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free
    if needed is None or needed <= free:
        return []
    return [f"whether {plan.config.out} has room: {gib(needed)} are needed, {gib(free)} are free"]


def _prompts(sizes: tuple[TaskSize, ...]) -> int:
    return sum(size.prompts or 0 for size in sizes)


def gib(number: float) -> str:
    """'1.5 GiB'."""
    return f"{number / GIB:,.1f} GiB"
