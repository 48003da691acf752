"""From draws to the content of partition.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from dphrl.config.root import Config
from dphrl.config.sources import AnchorConfig
from dphrl.method.difficulty import difficulty, mean_reward
from dphrl.method.partition import Rules, Selection, extra_draws, looked_at
from dphrl.progress import Progress
from dphrl.runs.samples import count_statuses
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.partition_file import FilterEffect, PartitionFile, TaskSets
from dphrl.stages.presample.training_prompts import filtered_ids, partition_settings, unfiltered_ids
from dphrl.stages.presample.waves import Presamples


def rules_of(anchor: AnchorConfig) -> Rules:
    """The settings that sets and anchors follow from."""
    return Rules(**{field.name: getattr(anchor, field.name) for field in fields(Rules)})


def make_partition(
    config: Config, drawn: Sequence[Presamples], selections: Sequence[Selection], progress: Progress
) -> PartitionFile:
    """All of partition.json: the task's own sets, and those of the keep sets.

    Args:
        drawn: of the task, then of each keep set.
        selections: of each, in the same order.
    """
    rules = rules_of(config.anchor)
    sets = [_task_sets(d, s, rules) for d, s in zip(drawn, selections, strict=True)]
    task, band = sets[0], config.train.exploration_filter
    reward, effect = dict(task.reward), None
    if band is not None:
        ids = unfiltered_ids(config, task)
        kept, line = filtered_ids(task.counts, ids, band)
        effect = FilterEffect(band=tuple(band), kept=len(kept), of=len(ids))
        reward |= {"unfiltered": mean_reward(task.counts, ids), "filtered": mean_reward(task.counts, kept)}
        progress("filter prompts", len(ids), len(ids), line)
    return PartitionFile(
        near_perfect=task.near_perfect,
        exploration=task.exploration,
        dropped=task.dropped,
        counts=task.counts,
        statuses=task.statuses,
        reward=reward,
        threshold=rules.threshold,
        presamples=rules.presamples,
        debias=rules.debias,
        also={d.prompts.task.name: one for d, one in zip(drawn[1:], sets[1:], strict=True)},
        settings=partition_settings(config),
        filter=effect,
    )


def _task_sets(drawn: Presamples, selection: Selection, rules: Rules) -> TaskSets:
    prompts, outcomes, sets = drawn.prompts, drawn.outcomes, selection.partition
    counts = {i: difficulty(outcomes[i], rules) for i in prompts.encoded}
    read = (c for i in prompts.encoded for c in (*looked_at(outcomes[i], rules), *extra_draws(outcomes[i], rules)))
    return TaskSets(
        near_perfect=sets.near_perfect,
        exploration=sets.exploration,
        dropped=_in_order(prompts, {**sets.dropped, **prompts.dropped}),
        counts=counts,
        statuses=count_statuses(read),
        reward={
            "all": mean_reward(counts, counts),
            "near_perfect": mean_reward(counts, sets.near_perfect),
            "exploration": mean_reward(counts, sets.exploration),
        },
    )


def _in_order(prompts: EncodedPrompts, why: Mapping[str, str]) -> dict[str, str]:
    return {i: why[i] for i in prompts.ids if i in why}
