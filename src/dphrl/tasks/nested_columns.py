"""Columns within columns: a row's values by dotted names, and chat messages in whatever form a file has them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dphrl.errors import DataError
from dphrl.types import Message

DEPTH = 3
"""Levels of names that errors list: extra_info.columns.db."""


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a member of one: "reward_model.ground_truth".

    A column whose own name has dots comes first. A column may hold its members as a mapping or as the JSON text of one.

    Raises:
        KeyError: there is none.
    """
    if name in row:
        return row[name]
    for place, sign in enumerate(name):
        inner = members(row.get(name[:place])) if sign == "." else None
        if inner is not None:
            try:
                return value_at(inner, name[place + 1 :])
            except KeyError:
                continue
    raise KeyError(name)


def names_of(row: Mapping[str, Any], depth: int = DEPTH) -> Iterator[str]:
    """Every name that `value_at` knows, down to `depth` levels: each column, then its members."""
    for name, value in row.items():
        yield name
        inner = members(value) if depth > 1 else None
        if inner:
            yield from (f"{name}.{member}" for member in names_of(inner, depth - 1))


def members(value: Any) -> Mapping[str, Any] | None:
    """The members of a mapping, or of the JSON text of one; None of anything else."""
    if isinstance(value, str) and value.startswith("{"):
        value = _parsed(value)
    return value if isinstance(value, Mapping) else None


def as_messages(value: Any, where: str) -> tuple[Message, ...] | None:
    """Chat messages in a column: a list or array of {role, content}, their JSON text, or {role: [...], content: [...]}.

    Members that are null are left out, as a Parquet file has them where other messages of it hold more.

    Args:
        value: of the column.
        where: what errors call it, e.g. "row 3, column 'prompt'".
    Returns:
        At least one message; None where the value is something else.
    Raises:
        DataError: messages without role or content, or with anything but texts (images, tool calls).
    """
    listed = _listed(value)
    if not listed or not all(isinstance(one, Mapping) and "role" in one for one in listed):
        return None
    return tuple(_message(one, where) for one in listed)


def _message(given: Mapping[str, Any], where: str) -> Message:
    message = {key: value for key, value in given.items() if value is not None}
    if "content" not in message:
        raise DataError(f"{where}: a message of {message.get('role')!r} has no content; write the text there")
    for key, value in message.items():
        if not isinstance(value, str):
            raise DataError(
                f"{where}: {key!r} of a message is a {type(value).__name__}; dphrl trains on texts alone, so leave "
                "such rows (images, parts, tool calls) out"
            )
    return message


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip()[:1] == "[" else None
    elif isinstance(value, Mapping) and {*value} == {"role", "content"}:
        roles, contents = _listed(value["role"]), _listed(value["content"])
        return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    elif hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else []


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
