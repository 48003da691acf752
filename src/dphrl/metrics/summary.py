"""The summary of one model on one task: a row of `eval/MODEL/summary.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dphrl.method.verdict_counts import count, is_judged
from dphrl.metrics.bands import BandScores, scores_by_band
from dphrl.metrics.intervals import RESAMPLES, Interval, Scores, bootstrap, widened
from dphrl.metrics.kl import BaseDrift
from dphrl.metrics.lengths import p90
from dphrl.metrics.pass_at_k import report_ks
from dphrl.metrics.per_prompt import draws_per_prompt, per_prompt, status_counts
from dphrl.metrics.voting import Answer
from dphrl.types import RARELY_THERE, Completion, FrontierLimit, as_json

ONE_NUMBER = ("greedy", "mean_at_n", "keep", "explore", "distinct_correct", "style_entropy")
"""Metrics that a summary gives as one number, their intervals apart."""
AT_K = {"pass_at_k": "pass@{k}", "maj_at_k": "maj@{k}", "keep_at_k": "keep@{k}", "explore_at_k": "explore@{k}"}
"""Field of a summary -> metric of `per_prompt` at each k."""
NO_RATES = frozenset({"distinct_correct", "style_entropy", "tokens"})
"""Metrics that do not lie in 0..1."""


@dataclass(frozen=True, slots=True)
class CompletionLengths:
    """How long the sampled completions of a task are."""

    mean: Interval
    """Tokens, over prompts."""
    p90: float
    """The length that nine in ten completions do not exceed (tokens)."""


@dataclass(frozen=True, slots=True)
class RetentionCounts:
    """Prompts behind keep and explore."""

    base_solved: int
    kept: int
    base_unsolved: int
    explored: int


@dataclass(frozen=True, slots=True)
class SeenInTraining:
    """Prompts of a task that also stand in training."""

    prompts: int
    exact: int
    """Of these, prompts that stand there word for word."""
    ids: Mapping[str, str]
    """Id of the prompt -> id of the training prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """What one evaluation says of one model on one task; docs/evaluation.md has the JSON of it.

    Rates lie in 0..1, intervals are over prompts. None stands where a number has no meaning or is not known. A row of
    an earlier version, which lacks the fields that came later, has None there.
    """

    dataset: str
    model: str | None
    n: int
    """Draws of each prompt."""
    prompts: int
    pass_at_k: Mapping[int, Interval]
    maj_at_k: Mapping[int, Interval] | None
    keep_at_k: Mapping[int, Interval] | None
    explore_at_k: Mapping[int, Interval] | None
    greedy: float | None
    mean_at_n: float | None
    keep: float | None
    explore: float | None
    distinct_correct: float | None
    style_entropy: float | None
    length: CompletionLengths | None
    truncated: Interval | None
    no_answer: Interval | None
    statuses: Mapping[str, int]
    intervals: Mapping[str, Interval | None]
    """Of the metrics of ONE_NUMBER."""
    bands: tuple[BandScores, ...] | None
    retention: RetentionCounts | None
    unjudged: int | None
    """Sampled completions that could not be judged."""
    excluded: Mapping[int, int]
    """k -> prompts with fewer than k judged draws, where there are any."""
    seconds: float | None = None
    tokens_per_second: float | None = None
    too_long: tuple[str, ...] = ()
    """Ids of prompts that the model's context cannot hold."""
    drift: BaseDrift | None = None
    contaminated: SeenInTraining | None = None
    verifier_rules: str | None = field(default=None, metadata=RARELY_THERE)
    """Verifier and number of its rules, where they are not its first ones; None also where that is not known."""
    frontier_limit: FrontierLimit | None = field(default=None, metadata=RARELY_THERE)
    """What can be reached on these prompts, where the task knows."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the row that dphrl does not know."""

    def value(self, metric: str) -> float | None:
        """A metric as `per_prompt` names it ('keep', 'pass@8', 'tokens'), or 'pass@n'; None where it is not known."""
        name, _, k = metric.partition("@")
        if metric == "tokens":
            level: Interval | float | None = None if self.length is None else self.length.mean
        elif k:
            level = (getattr(self, f"{name}_at_k") or {}).get(self.n if k == "n" else int(k))
        else:
            level = getattr(self, name)
        number = level.value if isinstance(level, Interval) else level
        return None if number is None or math.isnan(number) else number

    def to_json(self) -> dict[str, Any]:
        """The row as summary.json holds it."""
        row: dict[str, Any] = as_json(self)
        others: dict[str, Any] = row.pop("others")
        return row | others

    def with_facts(self, facts: Mapping[str, object]) -> TaskSummary:
        """The same with some keys of the row replaced or added: `dataset`, `seconds`, a key of one's own, ..."""
        return TaskSummary.from_json({**self.to_json(), **as_json(facts)})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TaskSummary:
        """The summary of a row of summary.json.

        Raises:
            KeyError, TypeError, ValueError: no such row.
        """

        def optional(name: str, make: Callable[[Any], object]) -> Any:
            return None if row.get(name) is None else make(row[name])

        names = [f.name for f in fields(cls) if f.name != "others"]
        known: dict[str, Any] = {name: row.get(name) for name in names}
        known |= {name: row[name] for name in ("dataset", "n", "prompts")}
        known |= {key: optional(key, _intervals_by_k) for key in AT_K}
        known |= {name: optional(name, Interval.from_json) for name in ("truncated", "no_answer")}
        known |= {
            "pass_at_k": known["pass_at_k"] or {},
            "length": optional("length", lambda x: CompletionLengths(**{**x, "mean": Interval.from_json(x["mean"])})),
            "statuses": row.get("statuses") or {},
            "intervals": {name: Interval.from_json(x) for name, x in (row.get("intervals") or {}).items()},
            "bands": optional("bands", lambda bands: tuple(map(BandScores.from_json, bands))),
            "retention": optional("retention", lambda counts: RetentionCounts(**counts)),
            "excluded": {int(k): prompts for k, prompts in (row.get("excluded") or {}).items()},
            "too_long": tuple(row.get("too_long") or ()),
            "drift": optional("drift", BaseDrift.from_json),
            "contaminated": optional("contaminated", lambda seen: SeenInTraining(**seen)),
            "frontier_limit": optional("frontier_limit", _limit_from_json),
        }
        return cls(**known, others={key: value for key, value in row.items() if key not in names})


def summarise(
    completions: Sequence[Completion],
    *,
    base: Sequence[Completion] | None = None,
    solution: Callable[[str], str],
    answer: Answer | None = None,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    dataset: str = "",
    model: str = "",
) -> TaskSummary:
    """The summary of one evaluation; the caller adds speed, drift and what training has seen.

    Args:
        completions, base, solution, answer: as for `per_prompt`.
        rng, resamples: as for `bootstrap`.
        dataset, model: names that the summary carries.
    Returns:
        Intervals are over prompts; that of a rate has a width also where all prompts agree (`widened`).
    Raises:
        DataError: as `per_prompt`.
        ValueError: resamples out of range.
    """
    n = draws_per_prompt(completions)
    scores = per_prompt(completions, solution=solution, base=base, answer=answer)
    levels = _intervals_of(scores, rng=rng, resamples=resamples)
    at_k = {
        key: {k: levels[m] for k in report_ks(n) if (m := form.format(k=k)) in levels} for key, form in AT_K.items()
    }

    def number(name: str) -> float | None:
        value = levels[name].value if name in levels else math.nan
        return None if math.isnan(value) else value

    return TaskSummary(
        dataset=dataset,
        model=model,
        n=n,
        prompts=len(scores.ids),
        pass_at_k=at_k["pass_at_k"],
        maj_at_k=at_k["maj_at_k"] or None,
        keep_at_k=at_k["keep_at_k"] or None,
        explore_at_k=at_k["explore_at_k"] or None,
        greedy=number("greedy"),
        mean_at_n=number("mean_at_n"),
        keep=number("keep"),
        explore=number("explore"),
        distinct_correct=number("distinct_correct"),
        style_entropy=number("style_entropy"),
        length=None if (longest := p90(completions)) is None else CompletionLengths(levels["tokens"], longest),
        truncated=levels["truncated"],
        no_answer=levels["no_answer"],
        statuses=status_counts(completions),
        intervals={name: levels.get(name) for name in ONE_NUMBER},
        bands=None if base is None else scores_by_band(scores, count(base, n=n), n, rng=rng, resamples=resamples),
        retention=None if base is None else _retention_counts(scores),
        unjudged=sum(not is_judged(c) for c in completions if c.draw >= 0),
        excluded={k: too_few for k in report_ks(n) if (too_few := int(np.isnan(scores.column(f"pass@{k}")).sum()))},
    )


def _intervals_of(scores: Scores, *, rng: np.random.Generator, resamples: int) -> dict[str, Interval]:
    """`bootstrap`, with `widened` intervals of the rates."""
    levels, sizes = bootstrap(scores, rng=rng, resamples=resamples), scores.sizes()
    return {
        name: widened(level, sizes[name]) if name not in NO_RATES and sizes[name] else level
        for name, level in levels.items()
    }


def _intervals_by_k(values: Mapping[str, Mapping[str, float | None]]) -> dict[int, Interval]:
    return {int(k): interval for k, each in values.items() if (interval := Interval.from_json(each)) is not None}


def _limit_from_json(row: Mapping[str, Any]) -> FrontierLimit:
    if not row["points"]:
        raise ValueError("frontier_limit has no points")
    return FrontierLimit(row["k"], row["what"], tuple((float(mean), float(passed)) for mean, passed in row["points"]))


def _retention_counts(scores: Scores) -> RetentionCounts:
    keep_P, explore_P = scores.column("keep"), scores.column("explore")
    return RetentionCounts(
        base_solved=int((~np.isnan(keep_P)).sum()),
        kept=int(np.nansum(keep_P)),
        base_unsolved=int((~np.isnan(explore_P)).sum()),
        explored=int(np.nansum(explore_P)),
    )
