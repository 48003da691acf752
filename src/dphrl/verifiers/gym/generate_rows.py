"""The process that makes prompts of reasoning-gym: a request (JSON) on stdin, an answer (JSON) on stdout.

Run with PYTHONHASHSEED=0 by `tasks.gym`: with another, some generators make other prompts of the same seed.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import sys
from typing import Any


def make_rows(request: dict[str, Any]) -> dict[str, Any]:
    """Make the rows of a request.

    Args:
        request: name, settings, seed, size.
    Returns:
        {"rows": [{"question", "gold", "entry"}]}; or what is wrong: {"unknown": all generators}, {"bad_settings": why,
        "allowed": names}, {"failed": why, "row": number}.
    """
    from reasoning_gym.factory import DATASETS, create_dataset

    name = request["name"]
    if name not in DATASETS:
        return {"unknown": sorted(DATASETS)}
    try:
        dataset = create_dataset(name, seed=request["seed"], size=request["size"], **request["settings"])
    except (TypeError, ValueError, AssertionError) as error:
        allowed = [f.name for f in dataclasses.fields(DATASETS[name][1]) if f.name not in ("seed", "size")]
        return {"bad_settings": f"{type(error).__name__}: {error}", "allowed": allowed}
    rows: list[dict[str, str]] = []
    for index in range(request["size"]):
        try:
            rows.append(_row(dataset[index]))
        except Exception as error:  # a generator may raise anything; the parent says at which row
            return {"failed": f"{type(error).__name__}: {error}", "row": index}
    return {"rows": rows}


def _row(entry: dict[str, Any]) -> dict[str, str]:
    """A row of texts; `entry` is what the scorer reads, as a Python literal: JSON would turn tuples into lists."""
    kept = {key: value for key, value in entry["metadata"].items() if _is_literal(value)}
    answer = str(entry["answer"])
    full = {"question": entry["question"], "answer": answer, "metadata": kept}
    return {"question": entry["question"], "gold": answer, "entry": repr(full)}


def _is_literal(value: Any) -> bool:
    """Whether the value can be written down; objects cannot, and no scorer that we allow reads one."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _main() -> None:
    """Answer the request on stdin."""
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some generators print
    with os.fdopen(replies, "w", encoding="utf-8") as file:
        json.dump(make_rows(json.load(sys.stdin)), file)


if __name__ == "__main__":
    _main()
