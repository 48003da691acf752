"""A run's settings, whole: a model, a task, a method; and what is measured.

Every setting stands once in `dphrl.config`, with its meaning, unit, range and default, and `--help` prints them from
there. Types and ranges are checked by pydantic when a config is built, from Python or from YAML alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, field, fields
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from dphrl.config.objective import ANCHOR_METHODS, OBJECTIVES, DphObjective, GrpoObjective, Method, Objective
from dphrl.config.precision import DTYPES, Precision
from dphrl.config.setting import FILE_NAME, STRICT, About
from dphrl.config.sources import AnchorConfig, LoraConfig, ModelConfig, SamplingConfig, TaskConfig
from dphrl.config.train import CLIP_HIGHER, TrainConfig

SEEDS = 2**32 - 2**16
"""numpy's seeds end at 2^32, and each process of a training adds its own number to the seed."""
MOST_THREADS = 4096
"""More than any machine has; OpenMP ends the process where it cannot make so many."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalConfig:
    """What is measured after training."""

    n: Annotated[int, Field(ge=1), About("Completions drawn per prompt", "count", common=True)] = 16
    resamples: Annotated[int, Field(ge=100), About("Bootstrap resamples over prompts", "count")] = 10_000
    base: Annotated[bool, About("Measure the initial policy too; keep and explore need it")] = True
    drift: Annotated[
        int,
        Field(ge=0),
        About("Draws of each prompt whose entropy and KL to the base are measured, by a forward of both; 0 = none"),
    ] = 0

    @model_validator(mode="after")
    def _drift_is_drawn(self) -> EvalConfig:
        if self.drift > self.n:
            raise ValueError(
                f"eval.drift={self.drift} draws cannot be scored of eval.n={self.n}; lower eval.drift or draw more"
            )
        return self


class _Given(NamedTuple):
    """The section `objective` as it was given, and the method that says of which class it is."""

    method: str
    objective: Any


def _objective_of(given: _Given) -> Any:
    cls = OBJECTIVES.get(str(given.method))  # type: ignore[call-overload]
    if cls is None:
        return GrpoObjective()  # never seen: the method itself is refused
    if isinstance(given.objective, Mapping):
        return TypeAdapter(cls).validate_python(given.objective)  # its errors become errors of the whole config
    if not isinstance(given.objective, cls):
        raise ValueError(
            f"objective={given.objective!r} is no objective of method {given.method}; give a mapping of its settings, "
            f"or {cls.__name__}(...)"
        )
    return given.objective


def _infinite(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """(dotted key, value) of each number in `value`, nested, that is infinite or none."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _infinite(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _infinite(each, key)
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """One run: a model, a task, a method."""

    out: Annotated[str, About("Run directory; everything the run makes lies in it", common=True)] = ""
    seed: Annotated[int, Field(ge=0, lt=SEEDS), About("Seed of every draw and shuffle", common=True)] = 0
    method: Annotated[
        Method, About("grpo, dapo, rkl, dph, or replay (plain NLL on anchors, the control)", common=True)
    ] = "dph"
    base_run: Annotated[
        str | None,
        About("Another run whose presamples, anchors and base evaluation are used: same model, task, seed"),
    ] = None
    threads: Annotated[
        int | None, Field(ge=1, le=MOST_THREADS), About("CPU threads of torch; null = torch's own choice", "count")
    ] = None
    model: Annotated[ModelConfig, About("The initial policy")] = field(default_factory=ModelConfig)
    lora: Annotated[LoraConfig, About("An adapter instead of all weights")] = field(default_factory=LoraConfig)
    task: Annotated[TaskConfig, About("What is trained")] = field(default_factory=TaskConfig)
    eval_tasks: Annotated[dict[str, TaskConfig], About("What is measured: name -> settings as of `task`")] = field(
        default_factory=dict
    )
    sampling: Annotated[SamplingConfig, About("How completions are drawn")] = field(default_factory=SamplingConfig)
    anchor: Annotated[AnchorConfig, About("Stage 1")] = field(default_factory=AnchorConfig)
    objective: Annotated[
        Objective, BeforeValidator(_objective_of), About("What holds the policy near the initial one")
    ] = field(default_factory=DphObjective)
    train: Annotated[TrainConfig, About("Stage 2")] = field(default_factory=TrainConfig)
    eval: Annotated[EvalConfig, About("What is measured")] = field(default_factory=EvalConfig)

    @property
    def trained_precision(self) -> Precision:
        """Of the policy as it is trained, and as its anchors are scored; with `lora.r` it is frozen."""
        dtype = DTYPES[self.model.dtype]
        return dtype.trained if self.lora.r is None else dtype.adapted

    @property
    def stored_dtype(self) -> str:
        """Type of the weights that are drawn from, evaluated and written; torch's name."""
        return DTYPES[self.model.dtype].stored

    @property
    def clip_high(self) -> float:
        """How far above 1 PPO clips the ratio: as it is given, or the method's own."""
        return self.train.clip_high or (self.train.clip_low if self.method == "grpo" else CLIP_HIGHER)

    @model_validator(mode="before")
    @classmethod
    def _objective_knows_the_method(cls, given: Any) -> Any:
        values = given.kwargs or {} if isinstance(given, ArgsKwargs) else given
        if not isinstance(values, Mapping):
            return given
        empty = [f.name for f in fields(cls) if f.default is MISSING and values.get(f.name) is None]
        kept = {key: value for key, value in values.items() if key not in empty}  # an empty section is its defaults
        return {**kept, "objective": _Given(values.get("method", "dph"), kept.get("objective", {}))}

    @model_validator(mode="after")
    def _tasks_are_file_names(self) -> Config:
        odd = [name for name in self.eval_tasks if not re.fullmatch(FILE_NAME, name)]
        if odd:
            raise ValueError(
                f"eval_tasks: the name {odd[0]!r} names a file; use letters, digits, '.', '_' and '-', 128 at most, "
                "a letter or digit first"
            )
        return self

    @model_validator(mode="after")
    def _numbers_are_finite(self) -> Config:
        """In the mappings of other programs' settings too; those of our own say so themselves."""
        odd = next(_infinite(asdict(self), ""), None)
        if odd:
            raise ValueError(f"{odd[0]}={odd[1]} is no finite number; give one, or leave the setting out")
        return self

    @model_validator(mode="after")
    def _no_dropout_beside_anchors(self) -> Config:
        if self.method in ANCHOR_METHODS and self.lora.dropout:
            raise ValueError(
                f"lora.dropout={self.lora.dropout} and method {self.method}: anchors were scored without dropout, with "
                "it u differs from 1 for the unchanged policy; leave lora.dropout at 0"
            )
        return self

    @model_validator(mode="after")
    def _topk_is_stored(self) -> Config:
        topk = isinstance(self.objective, DphObjective) and self.objective.anchor_estimator == "topk"
        if topk and self.anchor.topk == 0:
            raise ValueError(
                "objective.anchor_estimator=topk reads the likeliest tokens that pre-sampling stores, and anchor.topk=0"
                " stores none; set anchor.topk, e.g. 16"
            )
        return self
