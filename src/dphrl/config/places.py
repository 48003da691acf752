"""Which record of settings a place in the YAML file has, and which settings the choices made there do not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_type_hints

from dphrl.config.objective import OBJECTIVES, methods_that_read
from dphrl.config.root import Config
from dphrl.config.setting import choices_of


def class_at(names: Sequence[Any], method: str = "dph") -> type | None:
    """The record that a dotted path of sections leads to; None where there is none.

    Args:
        names: e.g. [], ["train"], ["eval_tasks", "gsm8k"].
        method: says of which class `objective` is.
    """
    cls: type | None = Config
    rest = [str(name) for name in names]
    while rest and cls is not None:
        name = rest.pop(0)
        kind = OBJECTIVES.get(method) if name == "objective" else get_type_hints(cls).get(name)  # type: ignore[call-overload]
        if rest and not dataclasses.is_dataclass(kind) and get_args(kind):
            kind = get_args(kind)[-1]  # dict[str, TaskConfig]: the next name is the user's own
            rest.pop(0)
        cls = kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None
    return cls


def foreign_settings(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The given settings that the choices made do not read, which `build_config` refuses.

    Args:
        values: nested, as read from YAML.
    Yields:
        (section, setting, the choice that decides), e.g. ("train", "pass_k", "train.advantage").
    """
    method = str(values.get("method", "dph"))
    for section, given in values.items():
        cls = class_at([section], method)
        if cls is None or not isinstance(given, Mapping):
            continue
        own = {f.name for f in dataclasses.fields(cls)}
        if section == "objective":
            yield from ((section, name, "method") for name in given if name not in own and methods_that_read(name))
        for name, by in choices_of(cls):
            chosen = given.get(by.choice, getattr(cls, by.choice, None))
            if given.get(name) is not None and not by.reads(chosen):
                yield section, name, f"{section}.{by.choice}"


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which sections can be changed."""
    return {key: copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}
