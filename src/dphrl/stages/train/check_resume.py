"""Going on with a training: whether it is still the training that was begun, and what is dropped before it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dphrl.anchors.manifest import read_manifest
from dphrl.config.load import flat, stored_config, to_dict
from dphrl.config.root import Config
from dphrl.engines.common.processes import Processes
from dphrl.errors import RunDirError
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import Policy
from dphrl.progress import Progress, silent
from dphrl.runs.checkpoints import (
    all_damaged,
    checkpoint_step,
    damage,
    marked_checkpoints,
    put_aside,
    remove_torn_checkpoints,
)
from dphrl.runs.run_dir import ALLOW, FREE_KEYS, TRAINED_FROM, RunDir, is_fixed
from dphrl.runs.training_log import TrainingChange, append_change, keep_until
from dphrl.runs.training_start import Digested, TrainingStart, read_training_start, write_training_start
from dphrl.types import Anchor, Prompt


@dataclass(frozen=True, slots=True)
class Found:
    """Where a training goes on: the last checkpoint whose files are as they were written, and those behind it."""

    checkpoint: Path | None = None
    damaged: Mapping[Path, str] = field(default_factory=dict)
    """Damaged checkpoint of a higher step -> what is wrong with it."""


def find_checkpoint(folder: Path, processes: Processes) -> Found:
    """Every process must call it: each reads a share of the files, and all find the same.

    Raises:
        RunDirError: there are checkpoints, and all of them are damaged; names the files.
    """
    damaged: dict[Path, str] = {}
    for checkpoint in marked_checkpoints(folder):
        harm = processes.gather_objects(damage(checkpoint, rank=processes.rank, count=processes.count))
        if not harm:
            return Found(checkpoint, damaged)
        damaged[checkpoint] = "; ".join(dict.fromkeys(harm))
    if damaged:
        raise all_damaged(list(damaged.values()))
    return Found()


def prepare_to_go_on(run: RunDir, found: Found, progress: Progress = silent) -> None:
    """Put damaged checkpoints aside and say so; remove torn ones, and lines of steps that are trained again."""
    run.train.mkdir(parents=True, exist_ok=True)
    checkpoint = found.checkpoint
    for path, harm in found.damaged.items():
        where = put_aside(path)
        progress("warning", 0, 0, f"{harm}: damaged, so it is {where.name} now, and {checkpoint} is gone on from")
    remove_torn_checkpoints(run.train)
    for path in (run.metrics, run.warnings):
        keep_until(path, checkpoint_step(checkpoint))


def training_start(
    config: Config,
    policy: Policy,
    base: RunDir,
    prompts: Sequence[Prompt],
    anchors: Sequence[Anchor] | None,
    *,
    ranks: int,
) -> TrainingStart:
    """Everything that determines a training: settings, weights, prompts, anchors and the number of processes.

    To be called while the policy is as it was loaded: an adapter renames its weights.
    """
    manifest = None if anchors is None else read_manifest(base.anchors)
    values = to_dict(config)
    start = TrainingStart(
        settings={section: values[section] for section in TRAINED_FROM},
        policy=fingerprint(policy, config) if manifest is None else manifest.fingerprint,  # compared when it was opened
        prompts=Digested(len(prompts), _digest(prompts)),
        anchors=None if manifest is None else Digested(manifest.anchors, manifest.digest),
        ranks=ranks,
    )
    return start.as_read()


def check_unchanged(
    run: RunDir, now: TrainingStart, checkpoint: Path | None, *, allow: bool, write: bool, progress: Progress
) -> None:
    """Compare with RUN/train/started.json, and write it.

    Args:
        now: of `training_start`.
        checkpoint: to go on from; without one the training begins anew, whatever stood there.
        allow: go on all the same; the changes are written to RUN/train/changes.jsonl.
        write: whether this process writes.
    Raises:
        RunDirError: something changed that was not allowed to, or that no checkpoint survives; each by name.
    """
    if checkpoint is not None and run.started.exists():
        changed = changes_between(_as_stored_now(read_training_start(run.started)), now)
        fixed = {key: values for key, values in changed.items() if is_fixed(key)}
        if fixed or (changed and not allow):
            raise RunDirError(
                f"{checkpoint} was trained with other settings, data or processes"
                + (", which no checkpoint survives" if fixed else "")
                + ":\n"
                + "\n".join(f"  {key}: there {old!r}, now {new!r}" for key, (old, new) in (fixed or changed).items())
                + "\ngive another --out, or what it was begun with"
                + ("" if fixed else ALLOW)
            )
        if changed and write:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            append_change(run.changes, TrainingChange(checkpoint_step(checkpoint), at, changed))
            progress("changed", len(changed), len(changed), f"{', '.join(changed)}; see {run.changes}")
    if write:
        write_training_start(run.started, now)


def changes_between(old: TrainingStart, new: TrainingStart) -> dict[str, tuple[Any, Any]]:
    """Setting, fingerprint or count -> (old, new), of those that differ and matter."""
    before, after = _facts(old), _facts(new)
    keys = [key for key in sorted({*before, *after}) if key not in FREE_KEYS and before.get(key) != after.get(key)]
    return {key: (before.get(key), after.get(key)) for key in keys}


def _as_stored_now(start: TrainingStart) -> TrainingStart:
    """What an earlier dphrl wrote, with the settings that are stored today."""
    values = to_dict(stored_config(start.settings))
    return replace(start, settings={section: values[section] for section in TRAINED_FROM})


def _facts(start: TrainingStart) -> dict[str, object]:
    """Dotted key -> value, without those that are empty; settings under their own names."""
    facts = flat(asdict(start))
    return {key.removeprefix("settings."): value for key, value in facts.items() if value not in ({}, None)}


def _digest(prompts: Sequence[Prompt]) -> str:
    """Digest of ids, texts and columns in their order; its first 32 hex digits."""
    digest = hashlib.sha256()
    for p in prompts:
        prompt = p.prompt if isinstance(p.prompt, str) else [dict(m) for m in p.prompt]
        digest.update(json.dumps([p.id, prompt, dict(p.columns)], sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:32]
