"""How a setting is written: its meaning, unit and range stand beside it, and so does the choice that it depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, get_type_hints

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", validate_default=False, allow_inf_nan=False)

FILE_NAME = r"[^\W_][\w.-]{0,127}"
"""A name that becomes a file's or folder's, in any script: of a keep set, an eval task, a model that is measured."""

FOLLOWS: Any = None
"""Default of a setting whose real default `ByChoice` gives."""

_FOREIGN = object()


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """Meaning and unit of a setting, as `--help` prints them."""

    text: str
    unit: str = ""
    common: bool = False
    """Whether `--help` shows it first."""


@dataclasses.dataclass(frozen=True, slots=True)
class ByChoice:
    """A setting whose default depends on a choice in the same section, or that only some choices read.

    Args:
        choice: name of the setting that chooses, e.g. eta_schedule.
        defaults: value of the choice -> default of this setting; None where it must be given or is worked out later.
        otherwise: default beside every other value of the choice; without it the setting is foreign there, and an
            error where it is given.
    """

    choice: str
    defaults: Mapping[str, Any]
    otherwise: Any = _FOREIGN

    def reads(self, chosen: str | None) -> bool:
        """Whether the setting has a meaning beside this value of the choice."""
        return chosen in self.defaults or self.otherwise is not _FOREIGN

    def default(self, chosen: str | None) -> Any:
        """The setting's default beside this value of the choice."""
        return self.defaults.get(chosen or "", self.otherwise)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Section:
    """Settings that belong together. Once made, a section holds the defaults that follow from its choices, and None
    for settings that its choices do not read."""

    section: ClassVar[str] = ""
    """Its name in the YAML file."""

    @model_validator(mode="after")
    def _follow_choices(self) -> Section:
        for name, by in choices_of(type(self)):  # type: ignore[arg-type]
            chosen, given = getattr(self, by.choice, None), getattr(self, name)
            if not by.reads(chosen) and given is not None:
                raise ValueError(
                    f"{self.section}.{name} is read with {self.section}.{by.choice}={' or '.join(by.defaults)}, but it "
                    f"is {chosen}; leave {name} out or change {by.choice}"
                )
            if by.reads(chosen) and given is None:
                object.__setattr__(self, name, by.default(chosen))
        return self


def empty_mapping(value: Any) -> Any:
    """A key of a YAML file with nothing behind it is a mapping of nothing, where a mapping is wanted."""
    return {} if value is None else value


def empty_list(value: Any) -> Any:
    """As `empty_mapping`, where a list is wanted."""
    return [] if value is None else value


@cache
def choices_of(cls: type) -> tuple[tuple[str, ByChoice], ...]:
    """(setting, what it depends on) for each setting of a section that depends on a choice."""
    return tuple(
        (name, item) for name, _, metadata in annotated(cls) for item in metadata if isinstance(item, ByChoice)
    )


def annotated(cls: type) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """(name, type, metadata) of every setting of a section."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        yield field.name, getattr(hint, "__origin__", hint), tuple(getattr(hint, "__metadata__", ()))
