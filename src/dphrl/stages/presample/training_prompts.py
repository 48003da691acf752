"""Which prompts are trained on: the sets that `train.prompts` means, less those that a filter leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dphrl.config.load import to_dict
from dphrl.config.objective import ANCHOR_METHODS
from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.method.difficulty import Difficulty, in_band, mean_reward
from dphrl.progress import Progress, silent
from dphrl.runs.run_dir import RunDir, Sections, changed_settings
from dphrl.stages.presample.partition_file import TaskSets, read_partition
from dphrl.types import Task


def partition_settings(config: Config) -> Sections:
    """The settings that partition and anchors depend on beside the draws; they are kept in partition.json."""
    anchor = {key: value for key, value in to_dict(config)["anchor"].items() if key != "batch_size"}
    return {"anchor": anchor, "exploration_filter": config.train.exploration_filter}


def needs_presamples(config: Config) -> bool:
    """Whether training needs the sets or the anchors of stage 1."""
    choosy = config.train.prompts == "exploration" or config.train.exploration_filter is not None
    return config.method in ANCHOR_METHODS or choosy


def check_filter(config: Config) -> None:
    """A filter on solve rates needs all presamples: early stopping ends at the first draws that settle the set.

    Raises:
        ConfigError: they are not all drawn.
    """
    if config.train.exploration_filter is not None and not config.anchor.full_counts:
        raise ConfigError(
            f"train.exploration_filter={config.train.exploration_filter} needs anchor.full_counts: true, since a "
            "prompt whose drawing stopped early has no solve rate to compare; set it (draws made already are kept)"
        )


def training_ids(config: Config, task: Task, base: RunDir, progress: Progress = silent) -> tuple[str, ...]:
    """Ids of the prompts that are trained on: all that were not dropped, or the exploration set alone, less those that
    `train.exploration_filter` leaves out (shown with the reward before and after).

    Raises:
        ConfigError: a filter without full counts.
        RunDirError: a set or filter is wanted and the task was not pre-sampled, with other settings, or other prompts.
    """
    check_filter(config)
    ids = tuple(p.id for p in task.prompts)
    band = config.train.exploration_filter
    if _wanted_sets(config) == "all" and band is None and not base.partition.exists():
        return ids
    partition = read_partition(base)
    changed = changed_settings(partition.settings, partition_settings(config), ["anchor"])
    if changed:
        raise RunDirError(
            f"{base.partition} was made with other settings:\n" + "\n".join(changed) + "\nrun `dphrl presample` again: "
            "it keeps the draws there are and adds what is missing"
        )
    known = {*partition.near_perfect, *partition.exploration, *partition.dropped}
    if known != set(ids):
        raise RunDirError(
            f"{base.partition} partitions {len(known)} prompts, the task has {len(ids)} "
            f"({len(known ^ set(ids))} ids differ); run `dphrl presample` for this task in another --out"
        )
    kept = unfiltered_ids(config, partition)
    if band is not None:
        before = len(kept)
        kept, line = filtered_ids(partition.counts, kept, band)
        progress("filter prompts", before, before, line)
    allowed = set(kept)
    return tuple(i for i in ids if i in allowed)


def unfiltered_ids(config: Config, sets: TaskSets) -> tuple[str, ...]:
    """Ids that `train.prompts` means, before the filter."""
    return sets.exploration if _wanted_sets(config) == "exploration" else (*sets.near_perfect, *sets.exploration)


def filtered_ids(
    counts: Mapping[str, Difficulty], ids: Iterable[str], band: Sequence[float]
) -> tuple[tuple[str, ...], str]:
    """The prompts whose share of right presamples lies in the band, and a line that says what that changes.

    Args:
        counts: how hard each prompt is.
        ids: prompts that would be trained on without the filter.
        band: `train.exploration_filter`.
    """
    before = tuple(ids)
    kept = tuple(i for i in before if i in counts and in_band(counts[i], band))
    low, high = band
    return kept, (
        f"solve rate in [{low:g}, {high:g}]: {len(kept)} of {len(before)} prompts, mean presample reward "
        f"{_number(mean_reward(counts, kept))} (without the filter {_number(mean_reward(counts, before))})"
    )


def _wanted_sets(config: Config) -> str:
    if config.train.prompts != "auto":
        return config.train.prompts
    return "exploration" if config.method in ANCHOR_METHODS else "all"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
