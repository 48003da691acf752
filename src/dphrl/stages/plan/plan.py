"""`dphrl run --dry-run`: what a run would do and cost, from its settings and files alone.

No model is loaded, nothing is written. The counts follow from the settings; tokens, hours and memory are estimates of
`stages/plan/cost.py` (docs/decisions/0017-cost-model.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.config.root import ANCHOR_METHODS, Config
from dphrl.engines.trl.settings import trainer_settings
from dphrl.errors import ConfigError, DataError
from dphrl.progress import Progress, silent
from dphrl.sampling.backends import BACKENDS, missing_modules
from dphrl.stages.evaluate.evaluate import MODELS
from dphrl.stages.plan import cost
from dphrl.stages.plan.cost import Memory, Shape, Tokens
from dphrl.stages.plan.preflight import Found, TaskFacts, look
from dphrl.stages.presample.keep_sets import rules_of
from dphrl.stages.run import needs_presamples

DEFAULT_GPUS = 8
BILLION = Shape(parameters=10**9, layers=0, hidden=0, kv_heads=0, head_dim=0)
"""Stands for a model whose config is not here: what grows with the parameters alone is told for a billion of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What one stage does."""

    draws: int
    """Completions; before training those of the first wave, which every prompt gets."""
    most_draws: int
    typical: Tokens
    most: Tokens
    hours: float | None
    """At the typical tokens; None where no GPU draws or trains."""
    most_hours: float | None
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The sizes of training beside its costs."""

    stage: StagePlan
    optimiser_steps: int
    completions_per_step: int
    micro: int
    anchors_per_step: int
    """0 for a method without anchors."""
    prompts: int | None
    """Prompts to train on, at most: the exploration set is known after pre-sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `dphrl run` would do with a config."""

    config: Config
    gpus: int
    found: Found
    presample: StagePlan | None
    """None: not needed, or a base run has it."""
    training: TrainingPlan
    evaluation: StagePlan
    memory: dict[str, Memory] | None
    """Layout -> bytes; None without a model's config or a GPU."""
    unknown: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The model's, or a billion parameters where it is not known."""
        return self.found.shape or BILLION


def plan(config: Config, *, base_dir: Path, gpus: int = DEFAULT_GPUS, progress: Progress = silent) -> Plan:
    """Look at everything that a run needs, and work out what it does.

    Args:
        base_dir: folder of the config file.
        gpus: that train, >= 1; with model.device=cpu one process trains.
    Raises:
        ConfigError: no GPU. DataError: something is not there or does not fit; the text lists all of it.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    gpus = 1 if config.model.device == "cpu" else gpus
    found = look(config, base_dir, progress)
    problems = list(found.problems)
    try:
        settings = trainer_settings(config, Path(config.out, "train"), processes=gpus)
    except ConfigError as error:
        problems.append(f"train on {gpus} processes (--gpus N for another number): {error}")
    prompts = found.task.prompts if found.task else None
    if prompts is not None and prompts < config.train.prompts_per_step:
        problems.append(
            f"task: {prompts} prompts are fewer than train.prompts_per_step={config.train.prompts_per_step}; lower "
            "it, or give more prompts"
        )
    if problems:
        lines = "\n".join(f"- {problem}" for problem in problems)
        raise DataError(f"the run cannot start; {len(problems)} to mend:\n{lines}")
    shape = found.shape or BILLION
    training = _training(config, found, shape, gpus, settings)
    return Plan(
        config=config,
        gpus=gpus,
        found=found,
        presample=_presample(config, found, shape),
        training=training,
        evaluation=_evaluation(config, found, shape),
        memory=_memory(config, found, gpus, training.micro),
        unknown=(*found.unknown, *_unknown(config, found)),
    )


def _presample(config: Config, found: Found, shape: Shape) -> StagePlan | None:
    if config.base_run is not None or not needs_presamples(config):
        return None
    rules = rules_of(config.anchor)
    tasks = [f for f in (found.task, *found.keep) if f and f.prompts]
    several = rules.per_prompt if rules.source == "near_perfect" else 1
    per_prompt = rules.presamples + (several if rules.debias else 0)
    longest = config.sampling.max_new_tokens

    def tokens(draws: float, length: float, anchors: float) -> Tokens:
        read = sum((f.prompts or 0) * (f.mean or 0) for f in tasks)
        count = sum(f.prompts or 0 for f in tasks)
        return Tokens(read=read, drawn=count * draws * length, scored=anchors * (read + count * length))

    return _drawing(
        config,
        shape,
        draws=sum((f.prompts or 0) * rules.first for f in tasks),
        most_draws=sum((f.prompts or 0) * per_prompt for f in tasks),
        typical=tokens((rules.first + per_prompt) / 2, longest * cost.TYPICAL_SHARE, rules.per_prompt / 2),
        most=tokens(per_prompt, longest, rules.per_prompt),
    )


def _evaluation(config: Config, found: Found, shape: Shape) -> StagePlan:
    models = len(MODELS) if config.eval.base and config.base_run is None else 1
    rounds = models * (config.eval.n + 1)  # and the greedy one
    draws = rounds * sum(f.prompts or 0 for f in found.eval)
    read = models * sum((f.prompts or 0) * (f.mean or 0) for f in found.eval)
    longest = config.sampling.max_new_tokens
    return _drawing(
        config,
        shape,
        draws=draws,
        most_draws=draws,
        typical=Tokens(read=read, drawn=draws * longest * cost.TYPICAL_SHARE),
        most=Tokens(read=read, drawn=draws * longest),
    )


def _drawing(config: Config, shape: Shape, *, draws: int, most_draws: int, typical: Tokens, most: Tokens) -> StagePlan:
    """A stage that draws in one process, and scores there: not more GPUs than share one model work on it."""
    backend = config.sampling.backend
    gpus = config.sampling.of_backend("tensor_parallel") if backend == "vllm" else 1

    def hours(tokens: Tokens) -> float | None:
        if config.model.device == "cpu":
            return None
        scoring = cost.training_hours(shape, Tokens(scored=tokens.scored), checkpointing=False, gpus=1)
        return cost.drawing_hours(shape, tokens, backend, gpus) + scoring

    return StagePlan(
        draws=draws,
        most_draws=most_draws,
        typical=typical,
        most=most,
        hours=hours(typical),
        most_hours=hours(most),
        gpus=gpus,
    )


def _training(config: Config, found: Found, shape: Shape, gpus: int, settings: dict[str, Any]) -> TrainingPlan:
    train = config.train
    steps = train.steps * train.updates
    a_step = train.prompts_per_step * train.group_size // train.updates
    anchors = int(settings["anchors_per_step"]) if config.method in ANCHOR_METHODS else 0
    engine = "vllm" if train.trl.get("use_vllm") else "transformers"
    completions = steps * a_step
    rounds = 1 + train.max_resample if config.method == "dapo" else 1
    prompt = (found.task.mean or 0.0) if found.task else 0.0
    forwards = (train.updates > 1 or engine == "vllm") + config.loads_reference

    def tokens(length: float, drawn_rounds: int) -> Tokens:
        sequence = prompt + length
        readers = completions / train.group_size if engine == "vllm" else completions  # its cache serves the group
        return Tokens(
            read=drawn_rounds * readers * prompt,
            drawn=drawn_rounds * completions * length,
            scored=forwards * completions * sequence,
            trained=(completions + steps * anchors) * sequence,
        )

    def hours(tokens: Tokens) -> float | None:
        if config.model.device == "cpu":
            return None
        again = train.gradient_checkpointing
        return cost.drawing_hours(shape, tokens, engine, gpus) + cost.training_hours(
            shape, tokens, checkpointing=again, gpus=gpus
        )

    longest = config.sampling.max_new_tokens
    typical, most = tokens(longest * cost.TYPICAL_SHARE, 1), tokens(longest, rounds)
    return TrainingPlan(
        stage=StagePlan(
            draws=completions,
            most_draws=completions * rounds,
            typical=typical,
            most=most,
            hours=hours(typical),
            most_hours=hours(most),
            gpus=gpus,
        ),
        optimiser_steps=steps,
        completions_per_step=a_step,
        micro=settings["per_device_train_batch_size"],
        anchors_per_step=anchors,
        prompts=found.task.prompts if found.task else None,
    )


def _memory(config: Config, found: Found, gpus: int, micro: int) -> dict[str, Memory] | None:
    if found.shape is None or config.model.device == "cpu":
        return None
    longest = (found.task.longest or 0) if found.task else 0
    sequence = longest + config.sampling.max_new_tokens
    return {
        name: cost.memory(found.shape, config, name, gpus=gpus, sequence=sequence, micro=micro) for name in cost.LAYOUTS
    }


def _unknown(config: Config, found: Found) -> list[str]:
    lines = []
    wanted = {"sampling.backend": config.sampling.backend} | (
        {"train.trl.use_vllm": "vllm"} if config.train.trl.get("use_vllm") else {}
    )
    for setting, name in wanted.items():
        if missing_modules(name):
            lacks = " and ".join(missing_modules(name))
            lines.append(f"whether {setting} works: this machine lacks {lacks}; {BACKENDS[name].install}")
    if config.model.device == "cpu":
        lines.append("hours and memory: model.device=cpu; the cost model knows GPUs only")
    if found.shape is not None:
        needed = cost.checkpoint_bytes(found.shape, config)
        free = shutil.disk_usage(_existing(Path(config.out))).free
        if needed > free:
            lines.append(
                f"whether {config.out} has room: checkpoints and the final model take up to "
                f"{needed / cost.GIB:,.0f} GiB, {free / cost.GIB:,.0f} GiB are free"
            )
    return lines


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def facts_of(found: Found) -> Sequence[TaskFacts]:
    """All tasks, in the order they are used in."""
    return [f for f in (found.task, *found.keep, *found.eval) if f is not None]
