"""RUN/train/started.json: what a training was begun with, or went on with last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.config.load import stored_config
from dphrl.errors import ConfigError
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.runs.run_dir import Sections


@dataclass(frozen=True, slots=True)
class Digested:
    """Something that must be the same when a training goes on."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStart:
    """Everything that determines a training."""

    settings: Sections
    """Sections of the config that training depends on."""
    policy: Mapping[str, str]
    """Fingerprint of the initial policy."""
    prompts: Digested
    """The prompts that are trained on."""
    anchors: Digested | None
    """The anchors of the store; None for a method without anchors."""
    ranks: int
    """Number of processes."""

    @classmethod
    def from_json(cls, values: Any) -> TrainingStart:
        """The start that started.json holds.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: no such object.
        """
        anchors = values["anchors"]
        return cls(
            settings=dict(values["settings"]),
            policy=dict(values["policy"]),
            prompts=Digested(**values["prompts"]),
            anchors=None if anchors is None else Digested(**anchors),
            ranks=int(values["ranks"]),
        )

    def as_read(self) -> TrainingStart:
        """The record as it would be read from its file: tuples have become lists."""
        return self.from_json(json.loads(json.dumps(asdict(self))))


def write_training_start(path: Path, start: TrainingStart) -> None:
    """Write started.json, whole or not at all."""
    write_json(path, asdict(start))


def read_training_start(path: Path) -> TrainingStart:
    """What started.json says.

    Raises:
        RunDirError: it is damaged.
    """
    with damage_refused(path, "delete it to go on without comparing settings and data"):
        start = checked(TrainingStart.from_json(read_json(path)))
        try:
            stored_config(start.settings)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return start
