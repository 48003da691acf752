"""Frozen records that travel between the stages. No file, no tensor, no dependency: see docs/architecture.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

Status = Literal[
    "correct", "wrong", "no_answer", "invalid", "blocked", "timeout", "memory", "gold_error", "verifier_error"
]
"""What happened when a completion was verified. Only `gold_error` and `verifier_error` say nothing about the
completion: they carry no reward (None), so they are counted and never train the policy."""

STATUSES: tuple[Status, ...] = Status.__args__  # type: ignore[attr-defined]
NO_REWARD: frozenset[Status] = frozenset({"gold_error", "verifier_error"})

FinishReason = Literal["stop", "length"]
"""`stop`: the policy ended the completion itself; `length`: it was cut at the token limit."""

Message = Mapping[str, str]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}."""


MetricsRow = Mapping[str, float | None]
"""One line of metrics.jsonl: "step", counted in optimiser steps, and every metric; None where it was not finite."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One problem: what the policy sees, and what the verifier needs."""

    id: str
    """Unique in its task; everything joins by it."""
    prompt: str | tuple[Message, ...]
    """Plain text, or chat messages that go through the model's own chat template."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Columns the verifier sees (`gold`, `db`, ...)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion."""

    correct: bool
    reward: float | None
    """What training sees; None = could not be judged (no gradient), never a silent 0."""
    status: Status
    detail: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status={self.status!r} is not one of {', '.join(STATUSES)}")
        if (self.reward is None) != (self.status in NO_REWARD):
            raise ValueError(f"status={self.status!r} with reward={self.reward!r}: only {sorted(NO_REWARD)} have none")


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion drawn for a prompt; `draw` counts from 0, and GREEDY_DRAW marks the greedy one."""

    prompt_id: str
    draw: int
    token_ids: tuple[int, ...]
    """With the end token, when the policy wrote one."""
    text: str
    """Decoded, special tokens left out."""
    finish_reason: FinishReason
    verdict: Verdict | None = None


GREEDY_DRAW = -1


@dataclass(frozen=True, slots=True)
class Partition:
    """Every prompt id lands in exactly one of the three sets (PAPER.md, stage 1)."""

    near_perfect: tuple[str, ...]
    exploration: tuple[str, ...]
    dropped: Mapping[str, str]
    """Prompt id -> why it is in neither set."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A verified completion of the reference policy with its per-token log-probabilities (nats)."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    ref_logps: tuple[float, ...]
    task: str = "task"
    """Which task the prompt is of; ids are unique within one."""
    draw: int = 0
    """Which draw of the prompt it was; (task, prompt_id, draw) names an anchor."""
    topk_ids: tuple[tuple[int, ...], ...] = ()
    """Likeliest tokens at each position, descending; empty when they are not stored."""
    topk_logps: tuple[tuple[float, ...], ...] = ()
    """Their log-probabilities (nats)."""

    def __post_init__(self) -> None:
        if not self.completion_ids or len(self.completion_ids) != len(self.ref_logps):
            raise ValueError(
                f"anchor of prompt {self.prompt_id!r} has {len(self.completion_ids)} completion tokens and "
                f"{len(self.ref_logps)} log-probabilities; both must be the same positive number"
            )


Item = Mapping[str, Any]
"""One completion to judge: `completion` (text), what its verifier needs (`gold`, `db`, ...), and where it is known
`prompt` and `id`, which errors name. One line of `dphrl verify --file` is the same object."""

VerifyFn = Callable[[Sequence[Item]], list[Verdict]]
"""Items -> one verdict each, in order."""


def item_of(prompt: Prompt, completion: str, token_ids: Sequence[int] | None = None) -> Item:
    """The item that asks for the verdict on a completion of a prompt; like TRL, it takes the names `prompt`,
    `completion` and, where token ids are known, `completion_ids` for itself where the prompt has columns of these
    names."""
    drawn = {} if token_ids is None else {"completion_ids": list(token_ids)}
    return {"id": prompt.id, **prompt.columns, "prompt": prompt.prompt, "completion": completion, **drawn}


@dataclass(frozen=True, slots=True)
class FrontierLimit:
    """The best pairs (mean@n, Pass@k) that a policy can have on some prompts, as far as the task itself says."""

    k: int
    """Draws of Pass@k."""
    what: str
    """Whose limit it is, in words that end the sentence 'The limit: ...'."""
    points: tuple[tuple[float, float], ...]
    """(mean@n, Pass@k) in 0..1, from the highest Pass@k to the highest mean@n."""


LimitOfPrompts = Callable[[Sequence[str], int], FrontierLimit | None]
"""(ids of prompts, k >= 2) -> what can be reached on them; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts, the verifier that judges completions, and the function that names a correct completion's solution."""

    name: str
    prompts: tuple[Prompt, ...]
    verify: VerifyFn
    solution: Callable[[str], str]
    """Completion text -> canonical form; two correct completions with the same form count as one solution."""
    answer: Callable[[str], str | None] | None = None
    """Completion text -> the answer that majority voting counts; None = answers cannot be compared as texts."""
    verifier: str = ""
    """What `verify` is called in a config: sql, module:function, ...; empty where a config cannot name it."""
    verifier_args: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments; `db_dir` is absolute."""
    notes: tuple[str, ...] = ()
    """What the user should know of the prompts, in short lines: what was dropped to keep to `task.prompt_tokens`."""
    frontier_limit: LimitOfPrompts | None = None
    """What can be reached on its prompts; None = nobody knows."""


RARELY_THERE: Mapping[str, bool] = {"rarely_there": True}
"""Metadata of a field that `as_json` leaves out while it is None."""


def as_json(value: Any) -> Any:
    """Records as plain JSON values: fields by name, mappings with texts as keys, sequences as lists, NaN as None.

    A field with RARELY_THERE as its metadata is left out while it is None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        items = [(f, getattr(value, f.name)) for f in fields(value)]
        return {f.name: as_json(x) for f, x in items if x is not None or f.metadata != RARELY_THERE}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
