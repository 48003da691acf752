"""What pydantic refuses, in words: what came, what is allowed, where a setting belongs and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dphrl.config.describe import described_settings
from dphrl.config.objective import methods_that_read
from dphrl.config.places import class_at
from dphrl.errors import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def explain(error: ErrorDetails, values: Mapping[str, Any], section: str = "") -> str:
    """One error of a config.

    Args:
        error: of pydantic's `ValidationError.errors()`.
        values: the config that was refused, nested.
        section: the only section that was built; empty = the whole.
    """
    key = ".".join(str(part) for part in (section, *error["loc"]) if part != "")
    if error["type"] == "unexpected_keyword_argument":
        return _unknown(key, str(values.get("method", "dph")))
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"].replace("Input should be", "must be").replace("Input must be", "must be")
    return f"{key}={error['input']!r} {message[0].lower()}{message[1:]}"


def _unknown(key: str, method: str) -> str:
    section, _, name = key.rpartition(".")
    readers = methods_that_read(name) if section == "objective" else ()
    if readers:
        several = f"methods {', '.join(readers[:-1])} and {readers[-1]}" if len(readers) > 1 else f"method {readers[0]}"
        return f"{key} is read by {several}, but method is {method}; leave it out, or use method {' or '.join(readers)}"
    elsewhere = [s.key for s in described_settings() if s.key.rpartition(".")[2] == name]
    if elsewhere:
        return f"unknown setting {key!r}; {name} belongs to another section: {' or '.join(elsewhere)}"
    cls = class_at(section.split(".") if section else [], method)
    names = [f.name for f in dataclasses.fields(cls)] if cls else []
    allowed = ", ".join(names) or f"nothing, method {method} has no settings of its own"
    return f"unknown setting {key!r}{nearest(name, names)}; allowed here: {allowed}"
