"""Every setting, once: meaning, unit, range and default stand beside each other, and `--help` prints them from here.

Types and ranges are checked by pydantic when a config is built, from Python or from YAML alike; reading YAML, dotted
overrides and the texts of errors live in `config_io`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", validate_default=False)

Method = Literal["grpo", "dapo", "rkl", "dph", "replay"]


def _help(text: str, unit: str = "") -> Any:
    return Field(description=text, json_schema_extra={"unit": unit} if unit else None)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The initial policy."""

    path: Annotated[str, _help("Folder or name of a Hugging Face causal LM; `demo` is the shipped tiny model")] = ""
    revision: Annotated[str | None, _help("Revision of a named model")] = None
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], _help("Precision of the weights")] = "float32"
    pad_token: Annotated[str | None, _help("Padding token for a tokenizer without one, e.g. its end token")] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], _help("Where the model runs")] = "auto"
    trust_remote_code: Annotated[bool, _help("Run code that comes with the model; only for models you trust")] = False
    chat_template_args: Annotated[dict[str, Any], _help("Arguments of the chat template (e.g. enable_thinking)")] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TaskConfig:
    """Prompts and how completions are judged."""

    data: Annotated[str, _help("A .jsonl, .json or .parquet file, a `datasets` name, or demo:NAME")] = ""
    subset: Annotated[str | None, _help("Configuration of a `datasets` name")] = None
    split: Annotated[str, _help("Split of a `datasets` name or of a demo task")] = "train"
    columns: Annotated[dict[str, str], _help("Field used here -> column of the file, e.g. {gold: answer, id: idx}")] = (
        field(default_factory=dict)
    )
    template: Annotated[str, _help("Text of a prompt; {field} is filled from the row")] = "{question}"
    template_file: Annotated[str | None, _help("File that holds the template instead (beside the config)")] = None
    chat: Annotated[bool, _help("Send the prompt as a chat message through the model's own chat template")] = False
    system: Annotated[str | None, _help("System message; needs chat")] = None
    verifier: Annotated[str, _help("math, sql, exact, or module:function with TRL's reward signature")] = "math"
    verifier_args: Annotated[dict[str, Any], _help("Arguments of the verifier, e.g. {db_dir: ../databases}")] = field(
        default_factory=dict
    )
    offset: Annotated[int, Field(ge=0), _help("Rows skipped at the start", "rows")] = 0
    limit: Annotated[int | None, Field(ge=1), _help("Rows used after the offset; null = all", "rows")] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SamplingConfig:
    """How completions are drawn, in every stage."""

    temperature: Annotated[float, Field(gt=0, le=10), _help("Divides the logits")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), _help("Nucleus; below 1 the anchors are not draws of the policy")] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1), _help("Longest completion", "tokens")] = 256
    stop_tokens: Annotated[list[str], _help("Texts of one token each that end a completion besides the end token")] = (
        field(default_factory=list)
    )
    batch_size: Annotated[int, Field(ge=1), _help("Completions drawn at once", "completions")] = 64


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AnchorConfig:
    """Stage 1: pre-sampling, partition, anchors."""

    presamples: Annotated[int, Field(ge=1), _help("Completions drawn per prompt before training", "count")] = 8
    threshold: Annotated[int, Field(ge=1), _help("Correct ones that make a prompt near-perfect: 1..presamples")] = 6
    debias: Annotated[
        bool, _help("Draw one more completion per near-perfect prompt; only if right it is the anchor")
    ] = True
    failed_debias: Annotated[
        Literal["exploration", "drop"], _help("Where a near-perfect prompt goes whose extra draw is wrong")
    ] = "exploration"
    batch_size: Annotated[int, Field(ge=1), _help("Anchors scored at once", "completions")] = 32

    @model_validator(mode="after")
    def _threshold_in_range(self) -> AnchorConfig:
        if self.threshold > self.presamples:
            raise ValueError(
                f"anchor.threshold={self.threshold} must be in 1..presamples={self.presamples}; "
                "lower it or draw more presamples"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ObjectiveConfig:
    """What holds the policy near the initial one."""

    divergence: Annotated[
        Literal["forward_kl", "js", "alpha", "reverse_kl", "jeffreys", "squared_hellinger"],
        _help("Generator function of the anchor penalty (dph)"),
    ] = "forward_kl"
    alpha: Annotated[float, Field(gt=0, lt=1), _help("Order of the alpha-divergence")] = 0.5
    eta: Annotated[float, Field(ge=0), _help("Weight of the anchor penalty (dph, replay); 0 = TRL to the bit")] = 0.2
    log_u_cap: Annotated[
        float, Field(gt=0, le=80), _help("Beyond it the generator goes on along its tangent", "nats")
    ] = 5.0
    anchors_per_step: Annotated[int, Field(ge=1), _help("Anchors beside each optimiser step", "completions")] = 32
    beta: Annotated[float, Field(ge=0), _help("Weight of the KL to the initial policy (rkl)")] = 0.1
    kl_estimator: Annotated[
        Literal["k3", "k3_corrected", "k2", "k1_reward"],
        _help(
            "rkl: k3 in the loss (released code; forward-KL gradient), k3_corrected (times the ratio, TRL now), "
            "k2 in the loss, or k1 as a reward (all three: the reverse-KL gradient)"
        ),
    ] = "k3"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Stage 2: online training. One step = one generation of completions, then `updates` optimiser steps on it."""

    steps: Annotated[int, Field(ge=1), _help("Generations", "count")] = 60
    prompts: Annotated[
        Literal["auto", "exploration", "all"],
        _help("Prompts trained on; auto: exploration for dph and replay, else all"),
    ] = "auto"
    prompts_per_step: Annotated[int, Field(ge=1), _help("Prompts of a generation", "prompts")] = 8
    group_size: Annotated[int, Field(ge=2), _help("Completions of each prompt", "completions")] = 8
    updates: Annotated[int, Field(ge=1), _help("Optimiser steps of a generation; from 2 on PPO clipping acts")] = 2
    micro_batch: Annotated[int, Field(ge=1), _help("Completions in one forward on one process", "completions")] = 32
    learning_rate: Annotated[float, Field(gt=0), _help("Peak learning rate of AdamW")] = 1e-6
    lr_schedule: Annotated[Literal["constant", "linear", "cosine"], _help("Course of the learning rate")] = "constant"
    warmup_steps: Annotated[int, Field(ge=0), _help("Optimiser steps of warm-up", "count")] = 0
    weight_decay: Annotated[float, Field(ge=0), _help("Weight decay of AdamW")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0), _help("Gradient norm is clipped to it")] = 1.0
    clip_low: Annotated[float, Field(gt=0, lt=1), _help("PPO clip below 1")] = 0.2
    clip_high: Annotated[
        float | None, Field(gt=0), _help("PPO clip above 1; null = clip-higher 0.28, but 0.2 for grpo as published")
    ] = None
    advantage: Annotated[
        Literal["group", "maxrl"],
        _help("Reward centred in its group, divided by its deviation (group) or mean (maxrl)"),
    ] = "group"
    max_resample: Annotated[int, Field(ge=0), _help("dapo: rounds that replace groups without spread", "count")] = 3
    save_every: Annotated[int, Field(ge=1), _help("Generations between checkpoints", "count")] = 50
    log_every: Annotated[int, Field(ge=1), _help("Optimiser steps between lines of metrics.jsonl", "count")] = 2
    gradient_checkpointing: Annotated[bool, _help("Less memory, more time")] = False
    trl: Annotated[dict[str, Any], _help("Further settings of TRL's GRPOConfig, by their own names")] = field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainConfig:
        total = self.prompts_per_step * self.group_size
        if total % self.updates:
            raise ValueError(
                f"train.updates={self.updates} must divide prompts_per_step*group_size={total} completions"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvalConfig:
    """What is measured after training."""

    n: Annotated[int, Field(ge=1), _help("Completions drawn per prompt", "count")] = 16
    resamples: Annotated[int, Field(ge=100), _help("Bootstrap resamples over prompts", "count")] = 10_000
    base: Annotated[bool, _help("Measure the initial policy too; keep and explore need it")] = True


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Config:
    """One run: a model, a task, a method."""

    out: Annotated[str, _help("Run directory; everything the run makes lies in it")] = ""
    seed: Annotated[int, Field(ge=0), _help("Seed of every draw and shuffle")] = 0
    method: Annotated[Method, _help("grpo, dapo, rkl, dph, or replay (plain NLL on anchors, the control)")] = "dph"
    base_run: Annotated[
        str | None, _help("Another run whose presamples, anchors and base evaluation are used: same model, task, seed")
    ] = None
    threads: Annotated[int | None, Field(ge=1), _help("CPU threads of torch; null = torch's own choice", "count")] = (
        None
    )
    model: Annotated[ModelConfig, _help("The initial policy")] = field(default_factory=ModelConfig)
    task: Annotated[TaskConfig, _help("What is trained")] = field(default_factory=TaskConfig)
    eval_tasks: Annotated[dict[str, TaskConfig], _help("What is measured, by name")] = field(default_factory=dict)
    sampling: Annotated[SamplingConfig, _help("How completions are drawn")] = field(default_factory=SamplingConfig)
    anchor: Annotated[AnchorConfig, _help("Stage 1")] = field(default_factory=AnchorConfig)
    objective: Annotated[ObjectiveConfig, _help("What holds the policy")] = field(default_factory=ObjectiveConfig)
    train: Annotated[TrainConfig, _help("Stage 2")] = field(default_factory=TrainConfig)
    eval: Annotated[EvalConfig, _help("What is measured")] = field(default_factory=EvalConfig)
