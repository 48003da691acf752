"""Every setting, once: meaning, unit, range and default stand beside each other, and `--help` prints them from here.

Types and ranges are checked by pydantic when a config is built, from Python or from YAML alike; reading YAML, dotted
overrides and the texts of errors live in `config_io`.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from dphrl.config_checks import check_advantage, check_anchors, check_eta

_STRICT = ConfigDict(extra="forbid", validate_default=False)

Method = Literal["grpo", "dapo", "rkl", "dph", "replay"]
ANCHOR_METHODS: tuple[Method, ...] = ("dph", "replay")


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
    """Prompts and how completions are judged. What is empty or null stays as the ready task `name` has it."""

    name: Annotated[
        str, _help("A ready task, which fills in what is not set here (see `dphrl tasks`); jsonl: none")
    ] = "jsonl"
    data: Annotated[
        str, _help("A .jsonl, .json or .parquet file, a folder (spider, bird), `datasets` name, demo:NAME")
    ] = ""
    subset: Annotated[str | None, _help("Configuration of a `datasets` name")] = None
    split: Annotated[str, _help("Split, where the data has several (a file has none); empty = the task's own")] = ""
    columns: Annotated[dict[str, str], _help("Field used here -> column of the file, e.g. {gold: answer, id: idx}")] = (
        field(default_factory=dict)
    )
    template: Annotated[str, _help("Text of a prompt; {field} is filled from the row; jsonl: {question}")] = ""
    template_file: Annotated[str | None, _help("File that holds the template instead (beside the config)")] = None
    chat: Annotated[bool | None, _help("Send the prompt through the model's own chat template; jsonl: false")] = None
    system: Annotated[str | None, _help("System message; needs chat")] = None
    verifier: Annotated[str, _help("math, sql, exact, or module:function with TRL's reward signature; jsonl: math")] = (
        ""
    )
    verifier_args: Annotated[dict[str, Any], _help("Arguments of the verifier, e.g. {db_dir: ../databases}")] = field(
        default_factory=dict
    )
    offset: Annotated[int, Field(ge=0), _help("Rows skipped at the start", "rows")] = 0
    limit: Annotated[int | None, Field(ge=1), _help("Rows used after the offset; null = all", "rows")] = None
    prompt_tokens: Annotated[
        int | None, Field(ge=1), _help("A longer prompt loses parts of its {schema}; null = no bound", "tokens")
    ] = None


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
    backend: Annotated[
        Literal["transformers", "vllm", "openai"], _help("What draws: in this process, vLLM's engine, or a server")
    ] = "transformers"
    tensor_parallel: Annotated[int | None, Field(ge=1), _help("vllm: GPUs that share one model; null = 1", "GPUs")] = (
        None
    )
    gpu_memory_utilization: Annotated[
        float | None, Field(gt=0, le=1), _help("vllm: share of a GPU's memory that it takes; null = 0.9")
    ] = None
    base_url: Annotated[
        str | None,
        Field(pattern=r"^https?://"),
        _help("openai: address up to and with /v1, e.g. http://127.0.0.1:8000/v1"),
    ] = None
    api_key_env: Annotated[
        str | None, _help("openai: environment variable that holds the key; null = no key is sent")
    ] = None
    served_model: Annotated[
        str | None, _help("openai: the initial policy's name at the server; null = the only model there")
    ] = None
    served_final: Annotated[
        str | None, _help("openai: the trained model's name at the server, for eval; null = it cannot be drawn from")
    ] = None
    concurrency: Annotated[int | None, Field(ge=1), _help("openai: requests in flight; null = 64", "requests")] = None
    timeout_s: Annotated[float | None, Field(gt=0), _help("openai: longest wait for one answer; null = 600", "s")] = (
        None
    )
    retries: Annotated[
        int | None, Field(ge=0), _help("openai: tries after the first, up to 30 s apart; null = 20 (about 8 minutes)")
    ] = None

    @model_validator(mode="after")
    def _of_this_backend(self) -> SamplingConfig:
        for backend, defaults in BACKEND_SETTINGS.items():
            foreign = [name for name in defaults if backend != self.backend and getattr(self, name) is not None]
            if foreign:
                raise ValueError(
                    f"sampling.{foreign[0]} is a setting of sampling.backend={backend}, but the backend is "
                    f"{self.backend}; leave it out or set sampling.backend={backend}"
                )
        if self.backend == "openai" and self.base_url is None:
            raise ValueError(
                "sampling.backend=openai needs sampling.base_url, e.g. http://127.0.0.1:8000/v1 of a `vllm serve`"
            )
        return self

    def of_backend(self, name: str) -> Any:
        """A setting of the chosen backend, or its default where it is null."""
        value = getattr(self, name)
        return BACKEND_SETTINGS[self.backend][name] if value is None else value


BACKEND_SETTINGS: dict[str, dict[str, Any]] = {
    "vllm": {"tensor_parallel": 1, "gpu_memory_utilization": 0.9},
    "openai": {
        "base_url": None,
        "api_key_env": None,
        "served_model": None,
        "served_final": None,
        "concurrency": 64,
        "timeout_s": 600.0,
        "retries": 20,
    },
}
"""Settings that one sampling backend alone reads, with what null means; set for another backend they are an error."""


def _named_task(value: Any) -> Any:
    """A keep set may name a ready task, or demo:NAME, instead of writing a mapping."""
    if not isinstance(value, str):
        return value
    return {"data": value} if value.startswith("demo:") else {"name": value}


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class KeepSetConfig:
    """Prompts of another task whose anchors are rehearsed too."""

    task: Annotated[TaskConfig, BeforeValidator(_named_task), _help("A ready task, demo:NAME, or a mapping as `task`")]
    prompts: Annotated[int, Field(ge=1), _help("Prompts taken at most, chosen by the seed", "prompts")] = 500
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$|^$"),
        _help("What its anchors and files are called; empty = the task's own name"),
    ] = ""

    @property
    def label(self) -> str:
        """The name, or the last part of what the task is read from: demo:arithmetic -> arithmetic."""
        source = self.task.data or self.task.name
        last = source.rstrip("/").rpartition("/")[2].rpartition(":")[2]
        return self.name or re.sub(r"[^A-Za-z0-9._-]", "-", last.rpartition(".")[0] or last)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AnchorConfig:
    """Stage 1: pre-sampling, partition, anchors."""

    presamples: Annotated[int, Field(ge=1), _help("Completions drawn per prompt before training, at most", "count")] = 8
    threshold: Annotated[int, Field(ge=1), _help("Correct ones that make a prompt near-perfect: 1..presamples")] = 6
    full_counts: Annotated[
        bool, _help("Draw all presamples, also where fewer settle a prompt's set (solve rates; the sets are the same)")
    ] = False
    debias: Annotated[
        bool, _help("Draw one more completion per near-perfect prompt; only if right it stays near-perfect")
    ] = True
    failed_debias: Annotated[
        Literal["exploration", "drop"], _help("Where a near-perfect prompt goes whose extra draw is wrong")
    ] = "exploration"
    source: Annotated[
        Literal["near_perfect", "correct"],
        _help("Anchors: of near-perfect prompts (the paper), or right presamples of any prompt"),
    ] = "near_perfect"
    per_prompt: Annotated[int, Field(ge=1), _help("Distinct anchors of a prompt at most", "completions")] = 1
    also: Annotated[list[KeepSetConfig], _help("Keep sets, e.g. [{task: demo:arithmetic, prompts: 500}]")] = field(
        default_factory=list
    )
    topk: Annotated[int, Field(ge=0), _help("Likeliest tokens stored at each anchor token; 0 = none", "tokens")] = 0
    batch_size: Annotated[int, Field(ge=1), _help("Anchors scored at once", "completions")] = 32

    @model_validator(mode="after")
    def _threshold_in_range(self) -> AnchorConfig:
        if self.threshold > self.presamples:
            raise ValueError(
                f"anchor.threshold={self.threshold} must be in 1..presamples={self.presamples}; "
                "lower it or draw more presamples"
            )
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> AnchorConfig:
        labels = ["task", *(keep.label for keep in self.also)]
        doubled = [label for label in dict.fromkeys(labels) if not label or labels.count(label) > 1]
        if doubled:
            raise ValueError(
                f"anchor.also: the keep sets' names must differ, from each other and from 'task'; {doubled[0]!r} comes "
                f"{labels.count(doubled[0])} times; give each its own name: [{{task: ..., name: NAME}}]"
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
    eta_schedule: Annotated[
        Literal["constant", "linear", "cosine", "target"],
        _help("Course of eta: from eta to eta_end over training, or whatever holds the drift at drift_target"),
    ] = "constant"
    eta_end: Annotated[float | None, Field(ge=0), _help("linear, cosine: eta of the last optimiser step; null = 0")] = (
        None
    )
    drift_target: Annotated[
        float | None, Field(gt=0), _help("target: forward-KL of the anchors to be held, e.g. 0.05", "nats per token")
    ] = None
    eta_bounds: Annotated[
        list[float] | None, _help("target: [low, high] of eta, 0 < low <= eta <= high; null = [eta/100, 100 eta]")
    ] = None
    log_u_cap: Annotated[
        float, Field(gt=0, le=80), _help("Beyond it the generator goes on along its tangent", "nats")
    ] = 5.0
    anchor_estimator: Annotated[
        Literal["sampled", "topk"],
        _help("dph: divergence at the anchors' own tokens, or over the vocabulary from anchor.topk stored entries"),
    ] = "sampled"
    anchors_per_step: Annotated[
        int | None, Field(ge=1), _help("Anchors beside each optimiser step; null = 32, or by anchor_ratio", "anchors")
    ] = None
    anchor_ratio: Annotated[
        float | None,
        Field(gt=0),
        _help("Instead of anchors_per_step: anchors of an optimiser step for each of its completions, rounded"),
    ] = None
    beta: Annotated[float, Field(ge=0), _help("Weight of the KL to the initial policy (rkl)")] = 0.1
    kl_estimator: Annotated[
        Literal["k3", "k3_corrected", "k2", "k1_reward"],
        _help(
            "rkl: k3 in the loss (released code; forward-KL gradient), k3_corrected (times the ratio, TRL now), "
            "k2 in the loss, or k1 as a reward (all three: the reverse-KL gradient)"
        ),
    ] = "k3"

    @model_validator(mode="after")
    def _parts_agree(self) -> ObjectiveConfig:
        check_anchors(self)
        check_eta(self)
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Stage 2: online training. One step = one generation of completions, then `updates` optimiser steps on it."""

    steps: Annotated[int, Field(ge=1), _help("Generations", "count")] = 60
    prompts: Annotated[
        Literal["auto", "exploration", "all"],
        _help("Prompts trained on; auto: exploration for dph and replay, else all"),
    ] = "auto"
    exploration_filter: Annotated[
        list[float] | None,
        _help(
            "Train only on prompts whose share of right presamples is in [low, high], 0..1; needs anchor.full_counts"
        ),
    ] = None
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
        Literal["group", "maxrl", "passk", "pkpo", "unlikeliness"],
        _help(
            "Reward centred in its group, over its deviation (group) or mean (maxrl); baselines: pass@k training "
            "(passk: rewards 0 and 1; pkpo: any), or less reward for likely right completions (unlikeliness)"
        ),
    ] = "group"
    pass_k: Annotated[
        int | None, Field(ge=2), _help("passk, pkpo: the k of pass@k, up to group_size; null = 4", "completions")
    ] = None
    rank_penalty: Annotated[
        float | None, Field(ge=0, le=1), _help("unlikeliness: share of reward the likeliest loses; null = 0.25")
    ] = None
    max_resample: Annotated[int, Field(ge=0), _help("dapo: rounds that replace groups without spread", "count")] = 3
    save_every: Annotated[int, Field(ge=1), _help("Generations between checkpoints", "count")] = 50
    log_every: Annotated[int, Field(ge=1), _help("Optimiser steps between lines of metrics.jsonl", "count")] = 2
    gradient_checkpointing: Annotated[bool, _help("Less memory, more time")] = False
    trl: Annotated[dict[str, Any], _help("Further settings of TRL's GRPOConfig, by their own names")] = field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _band_in_order(self) -> TrainConfig:
        band = self.exploration_filter
        if band is not None and not (len(band) == 2 and 0 <= band[0] <= band[1] <= 1):
            raise ValueError(
                f"train.exploration_filter={band} must be [low, high], shares of right presamples with "
                "0 <= low <= high <= 1; e.g. [0.01, 1] drops the prompts that were never solved"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_this_advantage(self) -> TrainConfig:
        check_advantage(self, self.group_size)
        return self

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

    @model_validator(mode="after")
    def _topk_is_stored(self) -> Config:
        if self.method == "dph" and self.objective.anchor_estimator == "topk" and self.anchor.topk == 0:
            raise ValueError(
                "objective.anchor_estimator=topk reads the likeliest tokens that pre-sampling stores, and anchor.topk=0"
                " stores none; set anchor.topk, e.g. 16"
            )
        return self
