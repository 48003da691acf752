"""Going on with a training: from which checkpoint, and whether it is still the training that was begun."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dphrl.config.load import flat, to_dict
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.files import read_json, write_json, write_text
from dphrl.models.policy import Policy, fingerprint
from dphrl.progress import Progress
from dphrl.runs.run_dir import ALLOW, FREE_KEYS, TRAINED_FROM, RunDir, is_fixed
from dphrl.types import Anchor, Prompt


def last_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step; one that was torn by a kill does not count."""
    from dphrl.engines.trl.trainer import CHECKPOINT_DONE

    whole = [p for p in folder.glob("checkpoint-*") if (p / CHECKPOINT_DONE).exists()]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Optimiser steps done in it; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def clean(run: RunDir, checkpoint: Path | None) -> None:
    """Drop torn checkpoints, which would count among those that are kept, and lines of steps that are trained again."""
    from dphrl.engines.trl.trainer import CHECKPOINT_DONE

    run.train.mkdir(parents=True, exist_ok=True)
    for folder in run.train.glob("checkpoint-*"):
        if not (folder / CHECKPOINT_DONE).exists():
            shutil.rmtree(folder)
    for path in (run.metrics, run.warnings):
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _until(line, step_of(checkpoint))))


def _until(line: str, step: int) -> bool:
    """Whether a line of JSON is whole and of a step that stays."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except ValueError:  # empty, or cut off by a kill
        return False


def begun_with(
    config: Config, policy: Policy, base: RunDir, prompts: Sequence[Prompt], anchors: Sequence[Anchor] | None
) -> dict[str, Any]:
    """What a training follows from, beside the number of ranks: settings, weights, prompts and anchors.

    To be called while the policy is as it was loaded: an adapter renames its weights.
    """
    stored = None if anchors is None else read_json(base.anchors / "manifest.json")
    policy_is = fingerprint(policy, config) if stored is None else stored["fingerprint"]  # compared when it was opened
    return {
        "settings": {name: to_dict(config)[name] for name in TRAINED_FROM},
        "policy": policy_is,
        "prompts": {"count": len(prompts), "digest": _digest(prompts)},
        "anchors": None if stored is None else {"count": stored["anchors"], "digest": stored["digest"]},
    }


def check_unchanged(
    run: RunDir, now: Mapping[str, Any], checkpoint: Path | None, *, allow: bool, write: bool, progress: Progress
) -> None:
    """Compare with RUN/train/started.json, and write it.

    Args:
        now: of `begun_with`, and the ranks.
        checkpoint: to go on from; without one the training begins anew, whatever stood there.
        allow: go on all the same; the changes are written to RUN/train/changes.jsonl.
        write: whether this process writes.
    Raises:
        RunDirError: something changed that was not allowed to, or that no checkpoint survives; each by name.
    """
    plain: dict[str, Any] = json.loads(json.dumps(now))
    if checkpoint is not None and run.started.exists():
        changed = changes(read_json(run.started), plain)
        fixed = {key: values for key, values in changed.items() if is_fixed(key)}
        if fixed or (changed and not allow):
            remedy = "give another --out, or what it was begun with"
            raise RunDirError(
                f"{checkpoint} was trained with other settings, data or processes"
                + (", which no checkpoint survives" if fixed else "")
                + ":\n"
                + "\n".join(f"  {key}: there {old!r}, now {new!r}" for key, (old, new) in (fixed or changed).items())
                + f"\n{remedy}"
                + ("" if fixed else ALLOW)
            )
        if changed and write:
            _record(run, changed, step_of(checkpoint))
            progress("changed", len(changed), len(changed), f"{', '.join(changed)}; see {run.changes}")
    if write:
        write_json(run.started, plain)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Setting, fingerprint or count -> (old, new), of those that differ and matter."""
    mine, theirs = (
        {k.removeprefix("settings."): v for k, v in flat(values).items() if v not in ({}, None)}
        for values in (new, old)
    )
    keys = [k for k in sorted({*mine, *theirs}) if k not in FREE_KEYS and mine.get(k) != theirs.get(k)]
    return {key: (theirs.get(key), mine.get(key)) for key in keys}


def _record(run: RunDir, changed: Mapping[str, tuple[Any, Any]], step: int) -> None:
    line = {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "changes": {key: {"old": old, "new": new} for key, (old, new) in changed.items()},
    }
    with run.changes.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _digest(prompts: Sequence[Prompt]) -> str:
    """Of ids, texts and columns in their order; first 32 hex digits."""
    digest = hashlib.sha256()
    for p in prompts:
        prompt = p.prompt if isinstance(p.prompt, str) else [dict(m) for m in p.prompt]
        digest.update(json.dumps([p.id, prompt, dict(p.columns)], sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:32]
