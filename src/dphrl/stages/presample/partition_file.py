"""RUN/presample/partition.json: the sets of a run, how hard each prompt is, and what they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dphrl.errors import RunDirError
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.method.difficulty import Difficulty
from dphrl.runs.run_dir import RunDir, Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSets:
    """The sets of one task; every prompt is in exactly one of the first three."""

    near_perfect: tuple[str, ...]
    exploration: tuple[str, ...]
    dropped: Mapping[str, str]
    """Prompt id -> why it is in neither set."""
    counts: Mapping[str, Difficulty]
    """Counts of every prompt for which completions were drawn."""
    statuses: Mapping[str, int]
    """How often each status came among the draws that were read."""
    reward: Mapping[str, float | None]
    """Means over prompts, None without any: `all`, `near_perfect`, `exploration`; with a filter also `unfiltered` and
    `filtered`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterEffect:
    """What `train.exploration_filter` leaves of the prompts that would be trained on."""

    band: tuple[float, ...]
    kept: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFile(TaskSets):
    """The sets of the task, and of each keep set."""

    threshold: int
    presamples: int
    debias: bool
    also: Mapping[str, TaskSets]
    """Name of a keep set -> its sets."""
    settings: Sections
    """What the sets were made with; training refuses sets of other settings."""
    filter: FilterEffect | None = None


def write_partition(run: RunDir, partition: PartitionFile) -> None:
    """Write partition.json, whole or not at all."""
    content = asdict(partition)
    if partition.filter is None:
        del content["filter"]
    write_json(run.partition, content)


def read_partition(run: RunDir) -> PartitionFile:
    """partition.json of a run.

    Raises:
        RunDirError: the run has not been pre-sampled, or the file is damaged.
    """
    if not run.partition.exists():
        raise RunDirError(f"{run.root} holds no partition; run `dphrl presample` with this config first")
    with damage_refused(run.partition, "delete it and run `dphrl presample` again: the draws are kept"):
        content = read_json(run.partition)
        effect = content.get("filter")
        made = PartitionFile(
            **_sets(content),
            threshold=content["threshold"],
            presamples=content["presamples"],
            debias=content["debias"],
            also={name: TaskSets(**_sets(sets)) for name, sets in content["also"].items()},
            settings=dict(content["settings"]),
            filter=effect and FilterEffect(band=tuple(effect["band"]), kept=effect["kept"], of=effect["of"]),
        )
        return checked(made)


def _sets(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `TaskSets`."""
    return {
        "near_perfect": tuple(content["near_perfect"]),
        "exploration": tuple(content["exploration"]),
        "dropped": dict(content["dropped"]),
        "counts": {prompt_id: Difficulty(**counts) for prompt_id, counts in content["counts"].items()},
        "statuses": dict(content["statuses"]),
        "reward": dict(content["reward"]),
    }
