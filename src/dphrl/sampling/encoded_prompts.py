"""Prompts of a stage as token ids: loaded, encoded, and rid of those that the model's context cannot hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, listed
from dphrl.models.policy import Policy
from dphrl.progress import Progress
from dphrl.tasks import load_task
from dphrl.types import Task


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """The prompts of one task, in its order; every id is in exactly one of the two mappings."""

    task: Task
    encoded: Mapping[str, tuple[int, ...]]
    """Prompt id -> token ids."""
    dropped: Mapping[str, str]
    """Prompt id -> why it cannot be drawn for."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, in the order of the task."""
        return tuple(p.id for p in self.task.prompts)


def task_for_policy(label: str, cfg: TaskConfig, policy: Policy, *, base_dir: Path) -> Task:
    """The task, its prompts measured by the policy's own tokenizer; every stage must load it so, to see the same ones.

    Raises:
        DphrlError: as `load_task`.
    """
    return load_task(label, cfg, base_dir=base_dir, count_tokens=lambda p: len(policy.encode(p)))


def encode_prompts(task: Task, policy: Policy, config: Config, progress: Progress) -> EncodedPrompts:
    """Encode the prompts; those that leave no room for a completion are set aside by id, never cut, and shown.

    Raises:
        DataError: none is left.
    """
    encoded = {p.id: tuple(policy.encode(p)) for p in task.prompts}
    room = config.sampling.max_new_tokens
    dropped = {
        i: f"too long: {len(encoded[i])} prompt tokens + sampling.max_new_tokens={room} are more than the model's "
        f"context of {policy.context}"
        for i in too_long(policy, encoded, room)
    }
    if len(dropped) == len(encoded):
        raise DataError(
            f"task {task.name!r}: none of its {len(encoded)} prompts is left; {listed(dropped)}: "
            f"{next(iter(dropped.values()))}; shorten them or lower sampling.max_new_tokens"
        )
    lines = [*task.notes, *([f"{len(dropped)} too long, dropped: {listed(dropped)}"] if dropped else [])]
    if lines:
        progress(f"prompts of {task.name}", len(encoded), len(encoded), "; ".join(lines))
    return EncodedPrompts(task, {i: ids for i, ids in encoded.items() if i not in dropped}, dropped)


def too_long(policy: Policy, encoded: Mapping[str, Sequence[int]], max_new: int) -> tuple[str, ...]:
    """Ids of the prompts that leave no room for `max_new` tokens in the model's context; none may be cut silently.

    Args:
        encoded: prompt id -> token ids.
        max_new: longest completion (tokens).
    """
    context = policy.context
    return () if context is None else tuple(i for i, ids in encoded.items() if len(ids) + max_new > context)


def pick_prompts(task: Task, limit: int, seed: int) -> Task:
    """The task with at most `limit` of its prompts, in its order.

    They are picked by a hash of each id and the seed: a higher limit keeps those of a lower one.
    """
    rank = {p.id: hashlib.blake2b(f"{seed}\x00{p.id}".encode(), digest_size=8).digest() for p in task.prompts}
    picked = set(sorted(rank, key=lambda prompt_id: rank[prompt_id])[:limit])
    return replace(task, prompts=tuple(p for p in task.prompts if p.id in picked))
