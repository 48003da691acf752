"""Config <-> YAML: users' files, and those that runs hold."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from dphrl.config.explain import explain
from dphrl.config.objective import OBJECTIVES, Objective
from dphrl.config.overrides import UniqueKeys, with_overrides
from dphrl.config.places import copied, foreign_settings
from dphrl.config.root import Config
from dphrl.config.train import TrainerSettings
from dphrl.errors import ConfigError, RunDirError, nearest
from dphrl.files import write_text

_OUT = re.compile(r"^out: .*\n", re.MULTILINE)
_HEAD = re.compile(r"# ([0-9a-f]{8}) .*?\n", re.ASCII)
"""First line of a run's config.yaml: before the settings, so that a file that was cut off has it too."""


def build_config(values: Mapping[str, Any]) -> Config:
    """Check `values` (nested, as read from YAML) against every setting's type and range.

    Raises:
        ConfigError: an unknown key (names the nearest), a setting that the method does not read, a wrong type, a value
            out of range; all of them at once.
    """
    return _validated(Config, values, values)


def build_objective(method: str, values: Mapping[str, Any]) -> Objective:
    """The settings of the section `objective` alone, checked as `build_config` does.

    Raises:
        ConfigError: as `build_config`; or an unknown method.
    """
    if method not in OBJECTIVES:
        raise ConfigError(f"method={method!r} is not one of {', '.join(OBJECTIVES)}{nearest(str(method), OBJECTIVES)}")
    return _validated(OBJECTIVES[method], values, {"method": method, "objective": values})


def build_trainer_settings(values: Mapping[str, Any]) -> TrainerSettings:
    """Those settings of the section `train` that the trainer reads itself, checked as `build_config` does.

    Raises:
        ConfigError: as `build_config`.
    """
    return _validated(TrainerSettings, values, {"train": values})


def load_config(path: Path | str, overrides: Mapping[str, str] | None = None, base_dir: Path = Path()) -> Config:
    """Read a YAML file and lay `--dotted.key value` overrides over it.

    `model.path` and `base_run` are looked up in `base_dir` (the config's folder) first, then where the command runs.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or holds what `build_config` refuses.
    """
    path = Path(path)
    of_run = path.name == "config.yaml" and path.with_name("versions.json").is_file()
    values = _as_stored_now(_read_yaml(path, stored=True)) if of_run else _read_yaml(path)
    try:
        return _located(build_config(with_overrides(values, overrides or {})), base_dir)
    except RecursionError:
        raise ConfigError(f"config {path} is nested too deeply") from None


def write_stored_config(path: Path, config: Config) -> None:
    """The settings of a run behind their checksum, whole or not at all."""
    text = to_yaml(config)
    head = f"# {_crc_of(text)} is the CRC-32 of what follows but for `out`; take this line out if you change more"
    write_text(path, f"{head}\n{text}")


def read_stored_config(path: Path) -> Config:
    """The settings that a run holds, also of a dphrl that stored settings that the run's method does not read.

    Raises:
        RunDirError: the file cannot be read, or does not hold the settings of a run.
    """
    try:
        values = _read_yaml(path, stored=True)
        if lacking := [name for name in ("out", "eval") if name not in values]:
            raise ConfigError(f"it lacks {', '.join(lacking)}")
        return build_config(_as_stored_now(values))
    except ConfigError as error:
        raise RunDirError(
            f"{path} is damaged, or of another version of dphrl ({error}); copy the settings of the run into it again, "
            "or give another --out"
        ) from None


def stored_config(values: Mapping[str, Any]) -> Config:
    """As `read_stored_config`, of settings that are read already, e.g. from RUN/train/started.json."""
    return build_config(_as_stored_now(values))


_T = TypeVar("_T")


def _validated(cls: type[_T], values: Mapping[str, Any], whole: Mapping[str, Any]) -> _T:
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e, whole, getattr(cls, "section", "")) for e in error.errors())) from None


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


def _crc_of(text: str) -> str:
    """Of a run's settings. Where it lies is left out, so that a copied run may be given its new name."""
    return f"{zlib.crc32(_OUT.sub('', text, count=1).encode()):08x}"


def _read_yaml(path: Path, *, stored: bool = False) -> dict[str, Any]:
    """The mapping that a file holds; one that a run stored must be as it was written, where it has a checksum."""
    try:
        text = path.read_text(encoding="utf-8")
        if stored and (head := _HEAD.match(text)) and head[1] != (found := _crc_of(text[head.end() :])):
            raise ConfigError(
                f"config {path} has the checksum {found}, {head[1]} was written; if the change is yours, take its "
                "first line out"
            )
        values = yaml.load(text, UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist; `dphrl recipes` lists examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ConfigError(f"config {path} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"config {path} is nested too deeply to be read") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"config {path} holds a {type(values).__name__}; it must be a mapping of settings")
    return values or {}


def _as_stored_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier dphrl stored, in today's shape: it stored every setting for every method, at its default."""
    now = copied(values)
    rounds = now["train"].pop("max_resample", None) if isinstance(now.get("train"), dict) else None
    if rounds is not None and isinstance(now.setdefault("objective", {}), dict):
        now["objective"]["max_resample"] = rounds
    for section, name, _ in list(foreign_settings(now)):
        del now[section][name]
    return now


def _located(config: Config, base_dir: Path) -> Config:
    def beside(path: str) -> str:
        return str(base_dir / path) if path and (base_dir / path).is_dir() else path

    model = dataclasses.replace(config.model, path=beside(config.model.path))
    return dataclasses.replace(config, model=model, base_run=config.base_run and beside(config.base_run))
