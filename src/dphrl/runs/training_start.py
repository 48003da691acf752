"""RUN/train/started.json: what a training was begun with, or went on with last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.files import damage_refused, read_json, write_json


@dataclass(frozen=True, slots=True)
class Digested:
    """Something that must be the same when a training goes on."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStart:
    """What a training follows from."""

    settings: Mapping[str, Any]
    """Sections of the config that training depends on, as JSON has them."""
    policy: Mapping[str, str]
    """Fingerprint of the initial policy."""
    prompts: Digested
    """Those that are trained on."""
    anchors: Digested | None
    """Of the store; None for a method without anchors."""
    ranks: int
    """Processes."""


def write_training_start(path: Path, start: TrainingStart) -> None:
    """Write started.json, whole or not at all."""
    write_json(path, asdict(start))


def read_training_start(path: Path) -> TrainingStart:
    """What started.json says.

    Raises:
        RunDirError: it is damaged.
    """
    with damage_refused(path, "delete it to go on without comparing settings and data"):
        return _from_json(read_json(path))


def as_json(start: TrainingStart) -> TrainingStart:
    """The same as it would be read from its file: tuples have become lists."""
    return _from_json(json.loads(json.dumps(asdict(start))))


def _from_json(values: Mapping[str, Any]) -> TrainingStart:
    anchors = values["anchors"]
    return TrainingStart(
        settings=dict(values["settings"]),
        policy=dict(values["policy"]),
        prompts=Digested(**values["prompts"]),
        anchors=None if anchors is None else Digested(**anchors),
        ranks=int(values["ranks"]),
    )
