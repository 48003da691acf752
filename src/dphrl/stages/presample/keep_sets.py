"""partition.json: the sets of a run, how hard each prompt is, and what they were made with; which prompts train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dphrl.config.load import to_dict
from dphrl.config.root import ANCHOR_METHODS, Config
from dphrl.config.sources import AnchorConfig
from dphrl.errors import ConfigError, RunDirError
from dphrl.files import read_json
from dphrl.method.difficulty import Difficulty, difficulty, in_band, mean_reward
from dphrl.method.partition import Rules, Selection, extra_draws, looked_at
from dphrl.progress import Progress, silent
from dphrl.runs.run_dir import RunDir, changed_settings
from dphrl.runs.samples import count_statuses
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.waves import Outcomes
from dphrl.types import Partition, Task


def rules_of(anchor: AnchorConfig) -> Rules:
    """The settings that sets and anchors follow from."""
    return Rules(
        threshold=anchor.threshold,
        presamples=anchor.presamples,
        debias=anchor.debias,
        failed_debias=anchor.failed_debias,
        source=anchor.source,
        per_prompt=anchor.per_prompt,
        full_counts=anchor.full_counts,
    )


def made_with(config: Config) -> dict[str, Any]:
    """The settings that partition and anchors depend on beside the draws; they are kept in partition.json."""
    anchor = {key: value for key, value in to_dict(config)["anchor"].items() if key != "batch_size"}
    return {"anchor": anchor, "exploration_filter": config.train.exploration_filter}


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


def partition_content(prompts: EncodedPrompts, selection: Selection, found: Outcomes, rules: Rules) -> dict[str, Any]:
    """What partition.json says of one task; `reward` holds means over prompts, see `difficulty`."""
    ids = prompts.encoded
    dropped = {i: why for i, why in ((i, _why(i, prompts, selection)) for i in prompts.ids) if why}
    partition = Partition(selection.partition.near_perfect, selection.partition.exploration, dropped)
    counts = {i: difficulty(found[i], rules) for i in ids}
    read = (c for i in ids for c in (*looked_at(found[i], rules), *extra_draws(found[i], rules)))
    return {
        "near_perfect": partition.near_perfect,
        "exploration": partition.exploration,
        "dropped": dict(partition.dropped),
        "counts": counts,
        "statuses": count_statuses(read),
        "reward": {
            "all": mean_reward(counts, counts),
            "near_perfect": mean_reward(counts, partition.near_perfect),
            "exploration": mean_reward(counts, partition.exploration),
        },
    }


def filtered(content: Mapping[str, Any], ids: Iterable[str], band: Sequence[float]) -> tuple[tuple[str, ...], str]:
    """The prompts whose share of right presamples lies in the band, and a line that says what that changes.

    Args:
        content: of partition.json.
        ids: prompts that would be trained on without the filter.
        band: `train.exploration_filter`.
    """
    counts: Mapping[str, Difficulty] = content["counts"]
    before = tuple(ids)
    kept = tuple(i for i in before if i in counts and in_band(counts[i], band))
    low, high = band
    return kept, (
        f"solve rate in [{low:g}, {high:g}]: {len(kept)} of {len(before)} prompts, mean presample reward "
        f"{_number(mean_reward(counts, kept))} (without the filter {_number(mean_reward(counts, before))})"
    )


def read_partition(run: RunDir) -> dict[str, Any]:
    """partition.json of a run.

    Raises:
        RunDirError: it has not been pre-sampled.
    """
    if not run.partition.exists():
        raise RunDirError(f"{run.root} holds no partition; run `dphrl presample` with this config first")
    content: dict[str, Any] = read_json(run.partition)
    return content


def training_ids(config: Config, task: Task, base: RunDir, progress: Progress = silent) -> tuple[str, ...]:
    """Ids of the prompts that are trained on: all that were not dropped, or the exploration set alone, less those that
    `train.exploration_filter` leaves out (shown with the reward before and after).

    Raises:
        ConfigError: a filter without full counts.
        RunDirError: a set or filter is wanted and the task was not pre-sampled, with other settings, or other prompts.
    """
    check_filter(config)
    wanted = _wanted(config)
    ids = tuple(p.id for p in task.prompts)
    band = config.train.exploration_filter
    if wanted == "all" and band is None and not base.partition.exists():
        return ids
    partition = read_partition(base)
    _require_current(base, partition, config)
    known = {*partition["near_perfect"], *partition["exploration"], *partition["dropped"]}
    if known != set(ids):
        raise RunDirError(
            f"{base.partition} partitions {len(known)} prompts, the task has {len(ids)} "
            f"({len(known ^ set(ids))} ids differ); run `dphrl presample` for this task in another --out"
        )
    chosen = trained_on(config, partition)
    allowed = set(chosen)
    if band is not None:
        kept, line = filtered(partition, chosen, band)
        progress("filter prompts", len(chosen), len(chosen), line)
        allowed = set(kept)
    return tuple(i for i in ids if i in allowed)


def trained_on(config: Config, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids that `train.prompts` means, before the filter."""
    near = () if _wanted(config) == "exploration" else content["near_perfect"]
    return (*near, *content["exploration"])


def _wanted(config: Config) -> str:
    if config.train.prompts != "auto":
        return config.train.prompts
    return "exploration" if config.method in ANCHOR_METHODS else "all"


def _require_current(base: RunDir, partition: Mapping[str, Any], config: Config) -> None:
    """Sets of other settings would train another run than the config says."""
    changed = changed_settings(partition.get("settings", {}), made_with(config), ["anchor"])
    if changed:
        raise RunDirError(
            f"{base.partition} was made with other settings:\n" + "\n".join(changed) + "\nrun `dphrl presample` again: "
            "it keeps the draws there are and adds what is missing"
        )


def _why(prompt_id: str, prompts: EncodedPrompts, selection: Selection) -> str:
    return prompts.dropped.get(prompt_id, "") or selection.partition.dropped.get(prompt_id, "")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
