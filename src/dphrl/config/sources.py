"""Settings of what comes before training: model, tasks, sampling, anchors. `dphrl.config.root` has the others."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from dphrl.config.setting import FILE_NAME, STRICT, About, empty_list, empty_mapping

_TASK_OF_FAMILY = re.compile(r"[a-z_]+:\w+")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The initial policy."""

    path: Annotated[
        str, About("Folder or name of a Hugging Face causal LM; `demo` is the shipped tiny model", common=True)
    ] = ""
    revision: Annotated[str | None, About("Revision of a named model")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "pure_bfloat16", "float16"],
        About("bfloat16: trained in float32, computed and stored in 16 bits; pure_bfloat16 loses small updates"),
    ] = "float32"
    pad_token: Annotated[str | None, About("Padding token for a tokenizer without one, e.g. its end token")] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], About("Where the model runs")] = "auto"
    trust_remote_code: Annotated[bool, About("Run code that comes with the model; only for models you trust")] = False
    chat_template_args: Annotated[
        dict[str, Any],
        BeforeValidator(empty_mapping),
        About("Arguments of the chat template (e.g. enable_thinking)"),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoraConfig:
    """An adapter that is trained instead of the weights (PEFT); off unless `r` is given. Needs `dphrl[lora]`."""

    r: Annotated[int | None, Field(ge=1), About("Rank of the adapter; null = all weights are trained")] = None
    alpha: Annotated[int | None, Field(ge=1), About("The adapter counts alpha / r; null = 2 r")] = None
    dropout: Annotated[
        float, Field(ge=0, lt=1), About("Share of the adapter's inputs dropped in training; 0 beside anchors")
    ] = 0.0
    target_modules: Annotated[
        list[str] | None, About("Layers that get one, by the ends of their names; null = all linear ones but the head")
    ] = None

    @property
    def scale(self) -> int:
        """alpha, or its default."""
        return 2 * (self.r or 0) if self.alpha is None else self.alpha

    @model_validator(mode="after")
    def _off_is_off(self) -> LoraConfig:
        given = [n for n in ("alpha", "target_modules") if getattr(self, n) is not None]
        given += ["dropout"] if self.dropout else []
        if self.r is None and given:
            raise ValueError(
                f"lora.{given[0]} is of an adapter, and lora.r is null: there is none; give lora.r, e.g. 16"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskConfig:
    """Prompts and how completions are judged. What is empty or null stays as the ready task `name` has it."""

    name: Annotated[
        str, About("A ready task, which fills in what is not set here (see `dphrl tasks`); jsonl: none", common=True)
    ] = "jsonl"
    data: Annotated[
        str, About("A .jsonl, .json or .parquet file, a folder (spider, bird), `datasets` name", common=True)
    ] = ""
    subset: Annotated[str | None, About("Configuration of a `datasets` name")] = None
    split: Annotated[str, About("Split, where the data has several (a file has none); empty = the task's own")] = ""
    columns: Annotated[
        dict[str, str],
        BeforeValidator(empty_mapping),
        About("Field used here -> column of the file, e.g. {gold: answer, id: idx}"),
    ] = field(default_factory=dict)
    template: Annotated[str, About("Text of a prompt; {field} is filled from the row; jsonl: {question}")] = ""
    template_file: Annotated[str | None, About("File that holds the template instead (beside the config)")] = None
    chat: Annotated[bool | None, About("Send the prompt through the model's own chat template; jsonl: false")] = None
    system: Annotated[str | None, About("System message; needs chat")] = None
    verifier: Annotated[str, About("math, sql, exact, or module:function with TRL's reward signature; jsonl: math")] = (
        ""
    )
    verifier_args: Annotated[
        dict[str, Any], BeforeValidator(empty_mapping), About("Arguments of the verifier, e.g. {db_dir: ../databases}")
    ] = field(default_factory=dict)
    offset: Annotated[int, Field(ge=0), About("Rows skipped at the start", "rows")] = 0
    limit: Annotated[int | None, Field(ge=1), About("Rows used after the offset; null = all", "rows")] = None
    prompt_tokens: Annotated[
        int | None, Field(ge=1), About("A longer prompt loses parts of its {schema}; null = no bound", "tokens")
    ] = None

    def __post_init__(self) -> None:
        """`data: PREFIX:NAME` is another way to write `name: PREFIX:NAME`, a task that makes its own prompts."""
        if self.name == "jsonl" and _TASK_OF_FAMILY.fullmatch(self.data):
            object.__setattr__(self, "name", self.data)
            object.__setattr__(self, "data", "")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplingConfig:
    """How completions are drawn, in every stage."""

    temperature: Annotated[float, Field(gt=0, le=10), About("Divides the logits")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), About("Nucleus; below 1 the anchors are not draws of the policy")] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1), About("Longest completion", "tokens", common=True)] = 256
    stop_tokens: Annotated[
        list[str],
        BeforeValidator(empty_list),
        About("Texts of one token each that end a completion besides the end token"),
    ] = field(default_factory=list)
    batch_size: Annotated[int, Field(ge=1), About("Completions drawn at once", "completions")] = 64
    backend: Annotated[
        Literal["transformers", "vllm", "openai"], About("What draws: in this process, vLLM's engine, or a server")
    ] = "transformers"
    tensor_parallel: Annotated[int | None, Field(ge=1), About("vllm: GPUs that share one model; null = 1", "GPUs")] = (
        None
    )
    gpu_memory_utilization: Annotated[
        float | None, Field(gt=0, le=1), About("vllm: share of a GPU's memory that it takes; null = 0.9")
    ] = None
    base_url: Annotated[
        str | None,
        Field(pattern=r"^https?://"),
        About("openai: address up to and with /v1, e.g. http://127.0.0.1:8000/v1"),
    ] = None
    api_key_env: Annotated[
        str | None, About("openai: environment variable that holds the key; null = no key is sent")
    ] = None
    served_model: Annotated[
        str | None, About("openai: the initial policy's name at the server; null = the only model there")
    ] = None
    served_final: Annotated[
        str | None,
        About("openai: the trained model's name at the server, for eval; null = it cannot be drawn from"),
    ] = None
    concurrency: Annotated[int | None, Field(ge=1), About("openai: requests in flight; null = 64", "requests")] = None
    timeout_s: Annotated[float | None, Field(gt=0), About("openai: longest wait for one answer; null = 600", "s")] = (
        None
    )
    retries: Annotated[
        int | None,
        Field(ge=0),
        About("openai: tries after the first, up to 30 s apart; null = 20 (about 8 minutes)"),
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
    """A keep set may name a ready task instead of writing a mapping."""
    return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KeepSetConfig:
    """Prompts of another task whose anchors are rehearsed too."""

    task: Annotated[TaskConfig, BeforeValidator(_named_task), About("A ready task, or a mapping as `task`")]
    prompts: Annotated[int, Field(ge=1), About("Prompts taken at most, chosen by the seed", "prompts")] = 500
    name: Annotated[
        str,
        Field(pattern=rf"^{FILE_NAME}$|^$"),
        About("What its anchors and files are called; empty = the task's own name"),
    ] = ""

    @property
    def label(self) -> str:
        """The name, or the last part of what the task is read from: demo:arithmetic -> arithmetic."""
        source = self.task.data or self.task.name
        last = source.rstrip("/").rpartition("/")[2].rpartition(":")[2]
        return self.name or re.sub(r"[^A-Za-z0-9._-]", "-", last.rpartition(".")[0] or last)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnchorConfig:
    """Stage 1: pre-sampling, partition, anchors."""

    presamples: Annotated[
        int, Field(ge=1), About("Completions drawn per prompt before training, at most", "count", common=True)
    ] = 8
    threshold: Annotated[
        int, Field(ge=1), About("Correct ones that make a prompt near-perfect: 1..presamples", common=True)
    ] = 6
    full_counts: Annotated[
        bool,
        About("Draw all presamples, also where fewer settle a prompt's set (solve rates; the sets are the same)"),
    ] = False
    debias: Annotated[
        bool, About("Draw one more completion per near-perfect prompt; only if right it stays near-perfect")
    ] = True
    failed_debias: Annotated[
        Literal["exploration", "drop"], About("Where a near-perfect prompt goes whose extra draw is wrong")
    ] = "exploration"
    source: Annotated[
        Literal["near_perfect", "correct"],
        About("Anchors: of near-perfect prompts (the paper), or right presamples of any prompt"),
    ] = "near_perfect"
    per_prompt: Annotated[int, Field(ge=1), About("Distinct anchors of a prompt at most", "completions")] = 1
    also: Annotated[
        list[KeepSetConfig],
        BeforeValidator(empty_list),
        About("Keep sets, e.g. [{task: demo:arithmetic, prompts: 500}]"),
    ] = field(default_factory=list)
    topk: Annotated[int, Field(ge=0), About("Likeliest tokens stored at each anchor token; 0 = none", "tokens")] = 0
    batch_size: Annotated[int, Field(ge=1), About("Anchors scored at once", "completions")] = 32

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
