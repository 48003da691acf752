"""Samples as trainers write them: verl, TRL, verifiers and prime-rl, SkyRL, NeMo-RL, rllm.

docs/other-tools.md names the versions whose files were seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dphrl.errors import DataError, nearest
from dphrl.stages.import_samples.sample import (
    Row,
    Sample,
    Scale,
    hashed,
    id_of,
    name_of,
    number,
    number_of,
    picked,
    plain_text,
    text_of,
    whole,
)
from dphrl.types import FinishReason

TRACE_VERSION = 1
"""Of a trace of `verifiers`; another one may mean other things by the same names."""

CUT = ("max_turns", "max_input_tokens", "max_output_tokens", "max_total_tokens", "compaction_failed")
"""What ends a trace before the model does."""


def read_verl(row: Row, scale: Scale) -> Iterator[Sample]:
    """trainer.validation_data_dir and rollout_data_dir. Where the reward function gives `acc`, verl takes that for
    right or wrong and `score` for what training sees; so does this."""
    part = str(row.get("uid", "")).rpartition("_")[2]
    if "uid" in row and part.isdigit() and part != "0":
        raise DataError(f"uid={row['uid']!r} is a further output of one session; runs of several turns cannot be read")
    name = scale.reward or ("acc" if "acc" in row else "score")
    right, reward = scale.judge(number(row, name))
    yield Sample(
        prompt_id=hashed(row["input"]),
        text=text_of(row["output"]),
        right=right,
        reward=reward,
        task=name_of(row, "data_source"),
        prompt=row["input"],
        gold=plain_text(row.get("gts")),
        step=whole(row, "step"),
    )


def read_trl(row: Row, scale: Scale) -> Iterator[Sample]:
    """completions_STEP.parquet of log_completions; each reward function has a column of its own name."""
    own = {"step", "prompt", "completion", "advantage"}
    rewards = {name: value for name, value in row.items() if name not in own and _is_number(value)}
    right, reward = scale.judge(number(row, scale.reward) if scale.reward else picked(rewards, scale))
    asked = text_of(row["prompt"], role=None)
    text = text_of(row["completion"])
    yield Sample(hashed(asked), text, right, reward, prompt=asked, step=whole(row, "step"))


def _is_number(value: Any) -> bool:
    value = number_of(value) if isinstance(value, str) else value  # as a CSV of the table has it
    return isinstance(value, float | int) and not isinstance(value, bool)


def read_rollout(row: Row, scale: Scale) -> Iterator[Sample]:
    """Rollouts of `verifiers` before its version 1, as prime-rl and vf-eval saved them."""
    right, reward = scale.judge(None if row.get("error") else number(row, scale.reward or "reward"))
    yield Sample(
        prompt_id=id_of(row["example_id"]),
        text=text_of(row["completion"]),
        right=right,
        reward=reward,
        task=name_of(row, "env_name") or name_of(row, "task"),
        finish=None if "is_truncated" not in row else "length" if row["is_truncated"] else "stop",
        prompt=text_of(row["prompt"], role=None),
        gold=plain_text(row.get("answer")),
    )


def traces_of(episode: Row) -> Iterator[Row]:
    """The trace of an episode of `verifiers` 0.4.0: that of the one agent that is trained."""
    traces = episode["traces"]
    trained = [trace for trace in traces if (trace.get("agent") or {}).get("trainable", True)]
    if len(trained) != 1:
        raise DataError(f"is an episode with traces of {len(trained)} trained agents; only those of one can be read")
    env = episode.get("env") or {}
    ok = episode.get("ok", True) and trained[0].get("ok", True)
    yield {"env_name": env.get("id"), **trained[0], "ok": ok}


def read_trace(row: Row, scale: Scale) -> Iterator[Sample]:
    """Traces of `verifiers` 0.4, as prime-rl saves them: a graph of messages, of which the sampled ones are the
    completion; the reward is the weighted sum of the named ones. Nulls may be left out."""
    if row.get("version") != TRACE_VERSION:
        raise DataError(f"is a trace of version {row.get('version')!r}, and only {TRACE_VERSION} can be read")
    parents = [node.get("parent") for node in row["nodes"]]
    if len(parents) != len(set(parents)):
        raise DataError("is a trace with several branches, of which none is the completion; they cannot be read")
    data, said = row["task"]["data"], [node["message"] for node in row["nodes"] if node.get("sampled")]
    named = {n: r and r.get("score") and r["score"] * r.get("weight", 1.0) for n, r in row["rewards"].items()}
    if scale.reward is not None and scale.reward not in named:
        raise DataError(f"has no reward {scale.reward!r}{nearest(scale.reward, named)}; it has {', '.join(named)}")
    known = [value for value in named.values() if value is not None]
    total = named[scale.reward] if scale.reward is not None else sum(known) if known else None
    right, reward = scale.judge(total if row["ok"] else None)
    key = data.get("id") if data.get("id") is not None else data.get("idx")
    yield Sample(
        prompt_id=id_of(row["task"].get("hash") if key is None else key),
        text=text_of(said),
        right=right,
        reward=reward,
        task=name_of(row, "env_name"),
        finish=_trace_end(row),
        prompt=text_of(data.get("prompt"), role=None),
        gold=plain_text(data.get("answer")),
    )


def _trace_end(row: Row) -> FinishReason:
    calls = [call for call in row.get("calls", ()) if call.get("error") is None]
    cut = row.get("stop_condition") in CUT or (calls and calls[-1].get("finish_reason") == "length")
    return "length" if cut else "stop"


def read_skyrl(row: Row, scale: Scale) -> Iterator[Sample]:
    """SkyRL's dumped evaluations; a score is one number, or one for each token, which are summed."""
    score = number(row, scale.reward or "score")
    right, reward = scale.judge(sum(score) if isinstance(score, list) else score)
    extras = row.get("env_extras") or {}
    yield Sample(
        prompt_id=hashed(text_of(row["input_prompt"], role=None)),
        text=text_of(row["output_response"]),
        right=right,
        reward=reward,
        task=name_of(row, "data_source") or name_of(row, "env_class"),
        finish={"stop": "stop", "length": "length"}.get(row.get("stop_reason")),  # type: ignore[arg-type]
        prompt=text_of(row["input_prompt"], role=None),
        gold=plain_text((extras.get("reward_model") or {}).get("ground_truth")),
    )


def read_nemo(row: Row, scale: Scale) -> Iterator[Sample]:
    """val_data_stepN.jsonl of NeMo-RL: a conversation and its reward a line, each perhaps a list of one."""
    talk, score = row["content"], number(row, scale.reward or "rewards")
    if isinstance(score, list):
        (talk,), (score,) = talk, score
    if isinstance(talk, str):
        raise DataError("has prompt and completion as one text, as NeMo-RL's training dumps; take val_data_stepN.jsonl")
    right, reward = scale.judge(score)
    first = next((i for i, message in enumerate(talk) if message["role"] == "assistant"), len(talk))
    asked = text_of(talk[:first], role=None)
    yield Sample(hashed(asked), text_of(talk[first:]), right, reward, prompt=asked)


def read_rllm(row: Row, scale: Scale) -> Iterator[Sample]:
    """An episode of rllm's EpisodeLogger, one file each; `is_correct`, or with --reward the trajectory's `reward`."""
    if len(row["trajectories"]) != 1 or not row["trajectories"][0]["steps"]:
        raise DataError(f"is an episode of {len(row['trajectories'])} trajectories; only those of one can be read")
    trajectory = row["trajectories"][0]
    right, reward = scale.judge(row["is_correct"] if scale.reward is None else number(trajectory, scale.reward))
    task = row["task"]
    asked = task.get("question") or task.get("prompt") if isinstance(task, Mapping) else task
    last = trajectory["steps"][-1]
    yield Sample(
        prompt_id=id_of(row["task_hash"]),
        text=text_of(last.get("model_response") or last.get("chat_completions")),
        right=right,
        reward=reward,
        task=name_of(task, "data_source") if isinstance(task, Mapping) else "",
        prompt=text_of(asked, role=None) if isinstance(asked, str | list) else plain_text(task),
        gold=plain_text(task.get("ground_truth", task.get("answer"))) if isinstance(task, Mapping) else "",
        step=whole(row, "training_step"),
    )
