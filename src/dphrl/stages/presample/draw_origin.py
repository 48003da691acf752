"""drawn.json: which policy and prompts the draws of a task are of. Draws of another origin are never added to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import RunDirError
from dphrl.files import damage_refused, read_json, write_json
from dphrl.runs.run_dir import Sections, changed_settings
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.verifiers.registry import rules_of

ORIGIN = "drawn.json"


def task_origin(fingerprint: Mapping[str, str], prompts: EncodedPrompts) -> Sections:
    """Whose the draws of the task are: the policy that makes them, and the prompts as it reads them."""
    digest = hashlib.sha256()
    for prompt_id, ids in prompts.encoded.items():
        digest.update(json.dumps([prompt_id, ids]).encode())
    return {"fingerprint": dict(fingerprint), "prompts": digest.hexdigest()[:32], **_judged_by(prompts)}


def keep_set_origin(task: TaskConfig, prompts: EncodedPrompts) -> Sections:
    """Whose the draws of a keep set are; the policy is that of the task."""
    return {"task": asdict(task), **_judged_by(prompts)}


def _judged_by(prompts: EncodedPrompts) -> Sections:
    """The rules of the verifier; its first ones are not said, nor those of one that a config cannot name."""
    rules = rules_of(prompts.task.verifier)
    return {"verifier_rules": rules} if rules else {}


def claim_draws(folder: Path, origin: Sections, remedy: str) -> None:
    """Say whose draws a folder holds before the first is stored.

    Raises:
        RunDirError: the folder holds draws of another origin.
    """
    if not (folder / ORIGIN).exists():
        write_json(folder / ORIGIN, origin)
    changed = differing_origin(folder, origin)
    if changed:
        raise RunDirError(f"{folder} holds draws of another origin:\n" + "\n".join(changed) + f"\n{remedy}")


def differing_origin(folder: Path, origin: Sections) -> Iterable[str]:
    """One line for each part of the origin that differs.

    Raises:
        RunDirError: drawn.json is damaged.
    """
    with _damage_refused(folder):
        return changed_settings(dict(read_json(folder / ORIGIN)), origin, origin)


def drawing_weights(folder: Path) -> str | None:
    """Digest of the weights that made the draws of the task; None where there are no draws, or it is not said.

    Raises:
        RunDirError: drawn.json is damaged.
    """
    if not (folder / ORIGIN).exists():
        return None
    with _damage_refused(folder):
        weights: str | None = read_json(folder / ORIGIN)["fingerprint"].get("weights")
        return weights


def _damage_refused(folder: Path) -> Any:
    return damage_refused(folder / ORIGIN, "give another --out: whose the draws beside it are is not known")
