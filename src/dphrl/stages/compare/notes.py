"""What makes the numbers of a comparison hard to compare, in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from dphrl.stages.compare.compared_runs import ComparedRun
from dphrl.stages.compare.evaluations import Evaluation, SeedGroup
from dphrl.tasks.contamination import contamination_note

DRAWN_BY = ("temperature", "top_p", "max_new_tokens")
"""Settings of sampling that make the draws of two evaluations unlike."""


def sampling_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """One sentence for each setting of sampling that differs between the runs. Samples of other tools do not say it."""
    known = [run for run in runs if run.evaldir is None or run.evaldir.measured_with]
    sentences = []
    for name in DRAWN_BY:
        by_value: dict[float, ComparedRun] = {}
        for run in known:
            by_value.setdefault(getattr(run.config.sampling, name), run)
        if len(by_value) > 1:
            sides = "; ".join(f"{value:g} in {run.path}" for value, run in by_value.items())
            sentences.append(f"sampling.{name} differs ({sides}); such draws measure the setting as well as the model.")
    return sentences


def same_base(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations of a base say the same of every prompt."""
    names = [name for name in one.scores.names if name in other.scores.names]
    if one.scores.ids != other.scores.ids or one.summary.n != other.summary.n:
        return False
    return np.array_equal(one.scores.only(names).values_PM, other.scores.only(names).values_PM, equal_nan=True)


def base_note(one: Evaluation, other: Evaluation) -> str:
    """A sentence on two runs whose keep and explore refer to different draws of the base."""
    return (
        f"{one.dataset}: the bases of {one.run} and {other.run} differ (mean@n {one.summary.mean_at_n:.4f} and "
        f"{other.summary.mean_at_n:.4f}, n={one.summary.n} and n={other.summary.n}); keep and explore of each refer to "
        "its own, and differences to the base to the first."
    )


def notes(groups: Sequence[SeedGroup], absent: str | None) -> list[str]:
    """What makes the numbers hard to compare, one sentence each.

    Args:
        groups: all of them.
        absent: the baseline that was asked for and is not there; None where it is.
    """
    sentences = (
        [f"No run is the baseline {absent!r}, so no differences are shown."] if absent not in (None, "base") else []
    )
    datasets = list(dict.fromkeys(g.dataset for g in groups))
    names = list(dict.fromkeys(g.name for g in groups))
    for dataset in datasets:
        measured = [g for g in groups if g.dataset == dataset]
        sentences += _dataset_notes(dataset, measured)
        lacking = [name for name in names if name not in {g.name for g in measured}]
        if lacking:
            sentences.append(f"{dataset}: not measured for {', '.join(lacking)}.")
    trained = [name for name in names if name != "base"]  # of the base, whose seed is of its draws alone, one is enough
    seeds = {g.name: ", ".join(str(e.seed) for e in g.seeds) for g in reversed(groups)}
    if len({seeds[name] for name in trained}) > 1:
        sentences.append(f"Seeds differ: {'; '.join(f'{name}: {seeds[name]}' for name in trained)}.")
    if "base" not in names:
        sentences.append(
            "No evaluation of the base was found, so differences to it are not shown; set eval.base and evaluate again."
        )
    return sentences


def _dataset_notes(dataset: str, groups: Sequence[SeedGroup]) -> list[str]:
    sentences = []
    draws = {e.summary.n: e for g in groups for e in g.seeds}
    if len(draws) > 1:
        sides = "; ".join(f"n={n} in {draws[n].run}" for n in sorted(draws))
        sentences.append(f"{dataset}: n differs ({sides}); keep, explore and distinct correct grow with n.")
    for one, other in combinations([g.seeds[0] for g in groups], 2):
        if one.scores.ids != other.scores.ids:
            sentences.append(f"{dataset}: {one.run} and {other.run} were evaluated on different prompts.")
            break
    rules = {e.summary.verifier_rules or "earlier or unknown": e for g in groups for e in g.seeds}
    if len(rules) > 1:
        sides = "; ".join(f"{name} in {rules[name].run}" for name in sorted(rules))
        sentences.append(f"{dataset}: the verifier's rules differ ({sides}); so some differences are the rules'.")
    unjudged = {g.name: sum(e.summary.unjudged or 0 for e in g.seeds) for g in groups}
    if any(unjudged.values()):
        counts = "; ".join(f"{name}: {count}" for name, count in unjudged.items() if count)
        sentences.append(
            f"{dataset}: some completions could not be judged and count as neither right nor wrong ({counts})."
        )
    return [*sentences, *_seen_in_training(dataset, groups)]


def _seen_in_training(dataset: str, groups: Sequence[SeedGroup]) -> list[str]:
    """One sentence for all methods whose training saw the same prompts."""
    seen: dict[str, list[str]] = {}
    for group in groups:
        note = contamination_note(dataset, group.seeds[0].summary.contaminated, "the training of {}")
        if note and group.entry.method != "base":
            seen.setdefault(note, []).append(group.name)
    return [f"{note.replace('{}', ', '.join(names), 1)}." for note, names in seen.items()]
