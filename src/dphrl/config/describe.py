"""The settings in words, for `--help`: section, meaning, unit, range, default and for which methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml

from dphrl.config.objective import OBJECTIVES, Method, methods_that_read
from dphrl.config.root import Config
from dphrl.config.setting import About, ByChoice, annotated


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting in words."""

    key: str
    """As it is given on the command line, e.g. train.steps; settings of a task stand once, under `task`."""
    section: str
    """Its section in the YAML file, e.g. train; empty for those outside of any."""
    common: bool
    """Whether most runs set it; `--help` shows these first."""
    methods: tuple[Method, ...]
    """Methods that read it; empty = all of them."""
    type: str
    unit: str
    range: str
    default: str
    help: str


def described_settings() -> Iterator[Setting]:
    """Every setting, in the order of `Config`; those of `objective` once, whichever methods read them."""
    return _of_section(Config, "")


def _of_section(cls: type, section: str) -> Iterator[Setting]:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name, kind, metadata in annotated(cls):
        key = f"{section}.{name}" if section else name
        if key == "objective":
            yield from _of_objective()
        elif dataclasses.is_dataclass(kind):
            yield from _of_section(kind, key)  # type: ignore[arg-type]
        else:
            about = next(item for item in metadata if isinstance(item, About))
            by = next((item for item in metadata if isinstance(item, ByChoice)), None)
            yield Setting(
                key=key,
                section=section,
                common=about.common,
                methods=(),
                type=_type_text(kind),
                unit=about.unit,
                range=_range_text(kind, metadata),
                default=_default_text(fields[name]) if by is None else _default_by(by),
                help=about.text if by is None else f"{_only_with(by)}{about.text}",
            )


def _of_objective() -> Iterator[Setting]:
    told: dict[str, Setting] = {}
    for cls in (OBJECTIVES[Config.method], *OBJECTIVES.values()):  # the method that is the default comes first
        for setting in _of_section(cls, "objective"):
            told.setdefault(setting.key, setting)
    for key, setting in told.items():
        yield dataclasses.replace(setting, methods=methods_that_read(key.partition(".")[2]))


def _only_with(by: ByChoice) -> str:
    """'eta_schedule=linear or cosine: ', where the setting is foreign beside other values."""
    return "" if by.reads(None) else f"{by.choice}={' or '.join(by.defaults)}: "


def _default_by(by: ByChoice) -> str:
    """'0.05, with divergence=js 0.2', or the one default there is."""
    if not by.reads(None):
        return ", ".join(dict.fromkeys(_yaml_text(value) for value in by.defaults.values()))
    others = [f"with {by.choice}={chosen} {_yaml_text(value)}" for chosen, value in by.defaults.items()]
    return ", ".join([_yaml_text(by.default(None)), *others])


def _type_text(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join("null" if part is NoneType else _type_text(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return "str"
    if arguments := get_args(kind):
        return f"{get_origin(kind).__name__}[{', '.join(map(_type_text, arguments))}]"
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _range_text(kind: Any, metadata: tuple[Any, ...]) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(str(value) for value in get_args(kind))
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


def _default_text(field: dataclasses.Field[Any]) -> str:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return _yaml_text(default)


def _yaml_text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
