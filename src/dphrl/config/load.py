"""Config <-> YAML, `--dotted.key value` overrides, the text of `--help`, and errors that name the nearest key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import annotated_types
import yaml
from pydantic import TypeAdapter, ValidationError

from dphrl.config.root import Config
from dphrl.errors import ConfigError, nearest


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One line of `--help`."""

    key: str
    type: str
    unit: str
    range: str
    default: str
    help: str


def build_config(values: Mapping[str, Any]) -> Config:
    """Check `values` (nested, as read from YAML) against every setting's type and range.

    Raises:
        ConfigError: an unknown key (names the nearest), a wrong type, a value out of range; all of them at once.
    """
    try:
        return TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(dict(e)) for e in error.errors())) from None


def load_config(path: Path | str, overrides: Mapping[str, str] | None = None, base_dir: Path = Path()) -> Config:
    """Read a YAML file and lay `--dotted.key value` overrides over it.

    `model.path` and `base_run` are looked up in `base_dir` (the config's folder) first, then where the command runs.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or holds what `build_config` refuses.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist; `dphrl recipes` lists examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not valid YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} holds a {type(values).__name__}; it must be a mapping of settings")
    return _located(build_config(with_overrides(values, overrides or {})), base_dir)


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
    """A copy of `values` with each dotted key set; values are read as YAML unless the setting is a text."""
    merged = _copied(values)
    for dotted, raw in overrides.items():
        *parents, leaf = dotted.split(".")
        node = merged
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--{dotted}: {name!r} is a single value and has no {leaf!r}")
            node = child
        try:
            node[leaf] = raw if _is_text(dotted) else yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{dotted} {raw!r} is not valid YAML: {error}") from None
    return merged


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dict, every setting resolved."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """Every setting resolved; `load_config` of it gives the same config."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=120)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'steps': 3}} -> {'train.steps': 3}; empty mappings stay values."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def settings(cls: type = Config, prefix: str = "") -> Iterator[Setting]:
    """Every setting in the order of `Config`, nested ones with dotted keys; task settings once, under `task`."""
    hints = get_type_hints(cls, include_extras=True)
    for f in dataclasses.fields(cls):
        base, *metadata = get_args(hints[f.name])
        key = f"{prefix}{f.name}"
        if dataclasses.is_dataclass(base):
            yield from settings(base, f"{key}.")  # type: ignore[arg-type]
            continue
        info = _field_info(metadata)
        yield Setting(key, _type_text(base), info["unit"], _range_text(base, metadata), _default_text(f), info["help"])


def _located(config: Config, base_dir: Path) -> Config:
    def beside(path: str) -> str:
        return str(base_dir / path) if path and (base_dir / path).is_dir() else path

    model = dataclasses.replace(config.model, path=beside(config.model.path))
    return dataclasses.replace(config, model=model, base_run=config.base_run and beside(config.base_run))


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _class_at(parents: Sequence[Any]) -> type | None:
    """The dataclass that a dotted path of sections leads to; `eval_tasks.NAME` is a task."""
    cls: type = Config
    names = list(parents)
    while names:
        hints = get_type_hints(cls)
        kind = hints.get(str(names.pop(0)))
        if kind is not None and not dataclasses.is_dataclass(kind) and get_args(kind) and names:
            kind = get_args(kind)[-1]  # dict[str, TaskConfig]: the next name is the user's own
            names.pop(0)
        if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
            return None
        cls = kind
    return cls


def _is_text(dotted: str) -> bool:
    *parents, leaf = dotted.split(".")
    cls = _class_at(parents)
    return cls is not None and get_type_hints(cls).get(leaf) is str


def _explain(error: dict[str, Any]) -> str:
    *parents, leaf = error["loc"] or ("",)
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        cls = _class_at(parents)
        names = [f.name for f in dataclasses.fields(cls)] if cls else []
        return f"unknown setting {key!r}{nearest(str(leaf), names)}; allowed here: {', '.join(names)}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = str(error["msg"]).replace("Input should be", "must be").replace("Input must be", "must be")
    return f"{key}={error['input']!r} {message[0].lower()}{message[1:]}"


def _field_info(metadata: Sequence[Any]) -> dict[str, str]:
    text, unit = "", ""
    for item in metadata:
        if getattr(item, "description", None):
            text = item.description
            extra = getattr(item, "json_schema_extra", None)
            unit = (extra or {}).get("unit", "")
    return {"help": text, "unit": unit}


def _type_text(kind: Any) -> str:
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind).replace("typing.", "").replace("dphrl.config.root.", "")


def _range_text(kind: Any, metadata: Sequence[Any]) -> str:
    if str(kind).startswith("typing.Literal"):
        return " | ".join(str(a) for a in get_args(kind))
    low = high = ""
    for constraint in (c for item in metadata for c in getattr(item, "metadata", ())):
        match constraint:
            case annotated_types.Ge(ge=value):
                low = f">= {value}"
            case annotated_types.Gt(gt=value):
                low = f"> {value}"
            case annotated_types.Le(le=value):
                high = f"<= {value}"
            case annotated_types.Lt(lt=value):
                high = f"< {value}"
    return " and ".join(part for part in (low, high) if part)


def _default_text(f: dataclasses.Field[Any]) -> str:
    default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
    return yaml.safe_dump(default, default_flow_style=True).removesuffix("\n...\n").strip()
