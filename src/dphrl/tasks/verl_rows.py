"""Rows of the Parquet files that verl trains and validates on: written from prompts, and read for a verifier.

A row of ours is {data_source, prompt: [{role, content}], ability, reward_model: {style, ground_truth}, extra_info:
{index, id, split, task, chat, verifier, verifier_args, columns}}. The last two are JSON text, so that files of
different tasks have one schema and verl can join them. Pure: records in, records out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from dphrl.errors import DataError, VerifierError, listed
from dphrl.tasks.nested_columns import as_messages, members, value_at
from dphrl.tasks.read_rows import Row
from dphrl.types import Item, Message, Prompt, Task
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.verifier import Arguments

ExtraInfo = Mapping[str, Any]
"""The member `extra_info` of a row, as verl hands it to a reward function."""
OWN = ("verifier", "verifier_args", "columns")
"""Members of `extra_info` by which a row of ours is told."""
WRITES = ("gold_cache",)
"""Arguments of verifiers that name a file to write: a row neither carries them nor may it."""
SENSES = ("images", "videos", "audios")
"""Columns of verl's rows that a model of texts cannot see."""


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
            "verifier_args": _json(_lasting(task.verifier_args), "task.verifier_args"),
            "columns": columns_text,
        },
    }


def row_verifier(extra_info: ExtraInfo | None) -> RowVerifier | None:
    """The verifier that a row names; None for a row that we did not write.

    Raises:
        VerifierError: `verifier_args` is no JSON object.
    """
    if not _is_ours(extra_info):
        return None
    return RowVerifier(str(extra_info["verifier"]), _object(extra_info, "verifier_args"))


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
    if not _is_ours(info):
        return {**info, "gold": ground_truth}
    columns = _object(info, "columns")
    if "gold" in columns and _gold_text(columns["gold"]) != ground_truth:
        raise VerifierError(
            f"row {info.get('id')!r}: reward_model.ground_truth is {ground_truth!r}, and gold in extra_info.columns, "
            f"which is judged by, is {columns['gold']!r}; export the file again, or change both"
        )
    return columns


def verifier_item(extra_info: ExtraInfo | None, ground_truth: Any, completion: str) -> Item:
    """The item that asks a verifier about a completion of a row; see `row_columns`."""
    return {"id": (extra_info or {}).get("id"), **row_columns(extra_info, ground_truth), "completion": completion}


@dataclass(frozen=True, slots=True)
class UnfoldedRow:
    """A row of a file, with the members of verl's columns as columns."""

    seen: Row
    """What the verifier sees."""
    named: Row
    """What a name in task.columns or a template may mean; it holds what is seen."""
    verl: bool = False
    """Whether it was laid out for verl."""


def unfolded(row: Row) -> UnfoldedRow:
    """A row of any file; one for verl is told by its `prompt` and `reward_model.ground_truth`.

    A row of ours becomes the columns that it was written from, its id, and its prompt as it was: messages or text. Any
    other of verl's gets the members of `extra_info` and `gold` as columns, where it has none of these names.

    Raises:
        VerifierError: see `row_columns`. DataError: a row of ours that is a text and has several messages.
    """
    try:
        gold = value_at(row, "reward_model.ground_truth")
    except KeyError:
        return UnfoldedRow(row, row)
    if "prompt" not in row:
        return UnfoldedRow(row, row)
    info = members(row.get("extra_info")) or {}
    if row_verifier(info) is None:
        seen = {**row_columns(info, gold), **row}
        return UnfoldedRow(seen, seen, verl=True)
    seen = {"id": info.get("id"), **row_columns(info, gold)}
    seen.pop("prompt", None)  # the message, which may have been edited, says it too
    prompt = single_text(row["prompt"], f"row {info.get('id')!r}") if info.get("chat") is False else row["prompt"]
    return UnfoldedRow(seen, {**row, **seen, "prompt": prompt}, verl=True)


def single_text(value: object, where: str) -> str:
    """The text of messages that stand for a text: one message of the user.

    Raises:
        DataError: there are more, or it is another's.
    """
    messages = as_messages(value, where) or ()
    if [message["role"] for message in messages] != ["user"]:
        roles = ", ".join(message["role"] for message in messages) or "none"
        raise DataError(
            f"{where}: a prompt of messages ({roles}) is to be read as a text, and only one message of the user can; "
            "use a model with a chat template and take out task.chat: false"
        )
    return messages[0]["content"]


def verifier_of_rows(rows: Iterable[Row], chosen: str) -> RowVerifier | None:
    """The verifier that the rows of a file name; None where none does, or the user chose another one.

    Args:
        chosen: `task.verifier` of the user, empty where he names none.
    Raises:
        DataError: they name several. VerifierError: a function of the user's, or an argument that names a file to
            write: a data file must not choose what is run or written.
    """
    named: list[RowVerifier | None] = []
    for row in rows:
        mine = row_verifier(members(row.get("extra_info")))
        if mine not in named:
            named.append(mine)
    if chosen and any(one is None or one.spec != chosen for one in named):
        return None
    if len(named) > 1:
        texts = ["none" if one is None else f"{one.spec} {dict(one.args)}" for one in named]
        raise DataError(
            f"the rows name several verifiers: {listed(texts)}; keep the rows of each in a file of their own"
        )
    if not named or named[0] is None:
        return None
    if ":" in named[0].spec and not chosen:
        raise VerifierError(
            f"the rows were written for the verifier {named[0].spec}, a function of yours, which a data file may not "
            f"choose; set task.verifier: {named[0].spec}"
        )
    for name in WRITES:
        if name in named[0].args:
            raise VerifierError(f"the rows name a file to write ({name}); set task.verifier_args.{name} instead")
    return named[0]


def _read_columns(prompt: Prompt, spec: str) -> dict[str, Any]:
    """The columns that a verifier reads, the prompt among them, and the gold; a user's function gets all of them."""
    given = {**prompt.columns, "prompt": prompt.prompt}
    if ":" in spec:
        return given
    verifier = verifier_of(spec)
    where_there = (name for name in ("gold", *verifier.optional) if name in given)
    return {name: given[name] for name in dict.fromkeys((*verifier.columns, *where_there))}


def _lasting(args: Arguments) -> dict[str, Any]:
    return {name: value for name, value in args.items() if name not in WRITES}


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


def _is_ours(info: ExtraInfo | None) -> TypeGuard[ExtraInfo]:
    return info is not None and all(info.get(name) is not None for name in OWN)


def _object(info: ExtraInfo, member: str) -> dict[str, Any]:
    text = info[member]
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
