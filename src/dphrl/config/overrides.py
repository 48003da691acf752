"""`--dotted.key value` over the settings of a file; and YAML in which no key stands twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import yaml

from dphrl.config.places import class_at, copied, foreign_settings
from dphrl.errors import ConfigError


class UniqueKeys(yaml.SafeLoader):
    """YAML in which no key stands twice in one mapping; keys that `<<` brings in may be given anew."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"{name!r} stands in line {lines[name]} and again in line {line}; keep one")
            lines[name] = line
        return node


def parse_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """['--train.steps', '3', '--seed=1'] -> {'train.steps': '3', 'seed': '1'}."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise ConfigError(f"unexpected argument {word!r}; settings are given as --dotted.key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"--{key} needs a value: --{key} VALUE")
            value = rest.pop(0)
        found[key] = value
    return found


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """A copy of `values` with each dotted key set; values are read as YAML unless the setting is a text.

    A choice that is overridden (`method`, `objective.divergence`, `train.advantage`, ...) takes the settings of
    `values` with it that the new choice does not read; one that is overridden itself stays, and is an error later.
    """
    merged = copied(values)
    for dotted, raw in overrides.items():
        *parents, leaf = dotted.split(".")
        node = merged
        for name in parents:
            if node.get(name) is None:
                node[name] = {}
            if not isinstance(node[name], dict):
                raise ConfigError(f"--{dotted}: {name!r} is a single value and has no {leaf!r}")
            node = node[name]
        try:
            node[leaf] = raw if _is_text(parents, leaf) else yaml.load(raw, UniqueKeys)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{dotted} {raw!r} is not valid YAML: {error}") from None
    for section, name, choice in list(foreign_settings(merged)):
        if choice in overrides and f"{section}.{name}" not in overrides:
            del merged[section][name]
    return merged


def _is_text(parents: Sequence[str], leaf: str) -> bool:
    cls = class_at(parents)
    return cls is not None and get_type_hints(cls).get(leaf) is str
