"""Rows of the Parquet files that verl trains and validates on: written from prompts, and read for a verifier.

A row of ours is {data_source, prompt: [{role, content}], ability, reward_model: {style, ground_truth}, extra_info:
{index, id, split, task, chat, verifier, verifier_args, columns}}. The last two are JSON text, so that files of
different tasks have one schema and verl can join them. Pure: records in, records out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dphrl.errors import DataError, VerifierError
from dphrl.types import Item, Message, Prompt, Task
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.verifier import Arguments

ExtraInfo = Mapping[str, Any]
"""The member `extra_info` of a row, as verl hands it to a reward function."""


@dataclass(frozen=True, slots=True)
class RowVerifier:
    """Who judges a row, as the row itself says it."""

    spec: str
    """As `task.verifier`: math, sql, exact, gym, or module:function."""
    args: Arguments


def verl_row(prompt: Prompt, task: Task, *, source: str, split: str, index: int) -> dict[str, Any]:
    """One prompt as a row for verl, with all that the task's verifier needs.

    Args:
        prompt: of the task; a text becomes one message of the user, and `extra_info.chat` says that it was a text.
        source: what the task is called: `data_source`, by which verl groups its validation metrics.
        split: train or eval.
        index: place of the row in its file, from 0.
    Returns:
        Plain JSON values.
    Raises:
        DataError: a message with more than role and content, or a column that JSON cannot hold.
    """
    chat = not isinstance(prompt.prompt, str)
    columns = _read_columns(prompt, task.verifier)
    columns_text = _json(columns, f"prompt {prompt.id!r}")
    return {
        "data_source": source,
        "prompt": _messages(prompt),
        "ability": task.verifier,
        "reward_model": {"style": "rule", "ground_truth": _gold_text(columns.get("gold"))},
        "extra_info": {
            "index": index,
            "id": prompt.id,
            "split": split,
            "task": source,
            "chat": chat,
            "verifier": task.verifier,
            "verifier_args": _json(dict(task.verifier_args), "task.verifier_args"),
            "columns": columns_text,
        },
    }


def row_verifier(extra_info: ExtraInfo | None) -> RowVerifier | None:
    """The verifier that a row names; None for a row that we did not write.

    Raises:
        VerifierError: `verifier_args` is no JSON object.
    """
    if not extra_info or not extra_info.get("verifier"):
        return None
    args = extra_info.get("verifier_args") or "{}"
    return RowVerifier(str(extra_info["verifier"]), _object(args, extra_info, "verifier_args"))


def row_columns(extra_info: ExtraInfo | None, ground_truth: Any) -> dict[str, Any]:
    """What a verifier sees of a row beside id and completion.

    Args:
        extra_info: the row's; None where it has none.
        ground_truth: `reward_model.ground_truth` of the row.
    Returns:
        Of a row of ours the columns that it was written with; of any other the members of `extra_info`, and `gold`.
    Raises:
        VerifierError: `columns` is no JSON object, or its gold is not the ground truth.
    """
    info = extra_info or {}
    if info.get("columns") is None or row_verifier(info) is None:
        return {**info, "gold": ground_truth}
    columns = _object(info["columns"], info, "columns")
    if "gold" in columns and _gold_text(columns["gold"]) != ground_truth:
        raise VerifierError(
            f"row {info.get('id')!r}: reward_model.ground_truth is {ground_truth!r}, and gold in extra_info.columns, "
            f"which is judged by, is {columns['gold']!r}; export the file again, or change both"
        )
    return columns


def verifier_item(extra_info: ExtraInfo | None, ground_truth: Any, completion: str) -> Item:
    """The item that asks a verifier about a completion of a row; see `row_columns`."""
    return {"id": (extra_info or {}).get("id"), **row_columns(extra_info, ground_truth), "completion": completion}


def _read_columns(prompt: Prompt, spec: str) -> dict[str, Any]:
    """The columns that a verifier reads, and the gold; a user's function gets all of them, and the prompt."""
    if ":" in spec:
        return {**prompt.columns, "prompt": prompt.prompt}
    verifier = verifier_of(spec)
    where_there = (name for name in ("gold", *verifier.optional) if name in prompt.columns)
    return {name: prompt.columns[name] for name in dict.fromkeys((*verifier.columns, *where_there))}


def _messages(prompt: Prompt) -> list[Message]:
    if isinstance(prompt.prompt, str):
        return [{"role": "user", "content": prompt.prompt}]
    for message in prompt.prompt:
        more = sorted(set(message) - {"role", "content"})
        if more:
            raise DataError(f"prompt {prompt.id!r} has a message with {more[0]!r}; verl's rows hold role and content")
    return [{"role": message["role"], "content": message["content"]} for message in prompt.prompt]


def _gold_text(gold: Any) -> str:
    """What stands in reward_model.ground_truth, which verl shows: one type in all files."""
    if isinstance(gold, str):
        return gold
    return "" if gold is None else _json(gold, "gold")


def _json(value: Any, whose: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{whose} cannot be written as JSON ({error}); write such a column as text in the data, or leave it out"
        ) from None


def _object(text: Any, info: ExtraInfo, member: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        value = error
    if not isinstance(value, dict):
        raise VerifierError(
            f"row {info.get('id')!r}: extra_info.{member}={text!r} is not the JSON text of an object; "
            "`dphrl export verl` writes such rows"
        )
    return value
