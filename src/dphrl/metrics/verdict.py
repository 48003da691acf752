"""The verdict on a trained model: what it gained and lost against its base, as words that follow from intervals.

Two questions are answered apart. Accuracy: is the average completion right more often (mean@n)? Reach: are as many
prompts still solved in k draws (Pass@k), in as many different ways?
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from dphrl.errors import DataError

Reach = Literal["collapsed", "narrowed", "kept", "unknown"]
Accuracy = Literal["gained", "unchanged", "lost", "unknown"]
REACHES: tuple[Reach, ...] = ("collapsed", "narrowed", "kept", "unknown")
"""From the largest loss to the smallest."""

NARROWED = 0.005
"""Pass@k, or share of the different solutions, lost for sure, from which on reach has narrowed: a little more than
nothing, for with many prompts even a hundredth of a point is a sure loss."""
COLLAPSED_PASS = 0.05
"""Pass@k lost for sure, from which on reach has collapsed: the whole interval lies below minus this."""
COLLAPSED_SHARE = 0.5
"""Share of the different solutions lost for sure, from which on it has, too."""
WIDE = 0.10
"""An interval that spans more is warned of: so many points up or down could be chance."""
FEW = 30
"""Prompts below which a number is warned of."""
ALL_SOLVED = 0.995
"""Pass@k of the base from which on it solves as good as all prompts; below one minus this, as good as none."""
EXACT = 1e-9
"""What rounding may leave of a difference of 0."""


@dataclass(frozen=True, slots=True)
class Change:
    """A number with its 95 % interval over prompts; the ends are None where they are not known."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int | None:
        """1 where the interval lies above 0, -1 below, 0 where it holds 0; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return (self.low > EXACT) - (self.high < -EXACT)

    def over(self, unit: float) -> Change:
        """The same in another unit, > 0, that is taken as exact."""
        return Change(
            self.value / unit,
            None if self.low is None else self.low / unit,
            None if self.high is None else self.high / unit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One method on one task, or the mean of it over all tasks, against the base."""

    method: str
    setting: str
    task: str | None
    """None: the mean over tasks, each of the same weight."""
    n: int | None
    """Draws a prompt; None where tasks differ."""
    k: int | None
    """Of Pass@k; None where tasks differ."""
    prompts: int
    mean: Change | None
    """Change of mean@n, in -1..1; paired over prompts, as all changes are."""
    passed: Change | None
    """Change of Pass@k, in -1..1."""
    distinct: Change | None
    """Change of the number of different right solutions of a prompt, as a share of the base's: -1 = all are gone."""
    distinct_before: float | None
    """Different right solutions of a prompt, base (count)."""
    distinct_after: float | None
    kept: Change | None
    """Of the prompts that the base solved in n draws, the share that is still solved; in 0..1, no change."""
    warnings: tuple[str, ...] = ()
    """What makes the line unsafe, a few words each."""

    @property
    def reach(self) -> Reach:
        """See `reach_word`."""
        return reach_word(self.passed, self.distinct)

    @property
    def accuracy(self) -> Accuracy:
        """See `accuracy_word`."""
        return accuracy_word(self.mean)


def accuracy_word(mean: Change | None) -> Accuracy:
    """`gained` where the interval of the change of mean@n lies above 0, `lost` below, `unchanged` where it holds 0."""
    words: dict[int | None, Accuracy] = {1: "gained", -1: "lost", 0: "unchanged", None: "unknown"}
    return words[None if mean is None else mean.sign]


def reach_word(passed: Change | None, distinct: Change | None) -> Reach:
    """What became of the reach, by what was lost for sure.

    Args:
        passed: change of Pass@k, in -1..1.
        distinct: change of the different solutions, as a share of the base's.
    Returns:
        `collapsed`: the interval of Pass@k lies below -COLLAPSED_PASS, or that of the different solutions below
        -COLLAPSED_SHARE. `narrowed`: one of the two lies below -NARROWED. `kept`: neither does. `unknown`: Pass@k has
        no interval.
    """
    if passed is None or passed.high is None:
        return "unknown"
    ways = math.inf if distinct is None or distinct.high is None else distinct.high
    if passed.high < -COLLAPSED_PASS or ways < -COLLAPSED_SHARE:
        return "collapsed"
    return "narrowed" if min(passed.high, ways) < -NARROWED else "kept"


def by_loss(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Sorted by what was lost, most first: the word, then Pass@k, different solutions, mean@n; last the names, so that
    the order of what is given does not matter."""

    def lost(verdict: Verdict) -> tuple[int | float | str, ...]:
        changes = (verdict.passed, verdict.distinct, verdict.mean)
        values = (math.inf if change is None else round(change.value, 9) for change in changes)
        return (REACHES.index(verdict.reach), *values, verdict.method, verdict.setting, verdict.task or "")

    return sorted(verdicts, key=lost)


def over_tasks(verdicts: Sequence[Verdict]) -> Verdict:
    """The mean of one method over its tasks, with its interval.

    Tasks have prompts of their own, so that their errors are independent: the distance of an end of the interval from
    the mean is the root of the sum of squares of the tasks' distances, over the number of tasks.

    Args:
        verdicts: of one method, one a task, at least one.
    Source: Zou and Donner, Statistics in Medicine 27, 2008 (method of variance estimates recovery).
    """
    names = {(v.method, v.setting) for v in verdicts}
    if len(names) != 1 or len({v.task for v in verdicts}) != len(verdicts):
        raise DataError(f"a mean over tasks is of one method, each task once; these are of {sorted(names)}")
    first, same = verdicts[0], len(verdicts) == 1
    ns, ks = {v.n for v in verdicts}, {v.k for v in verdicts}
    joined = replace(
        first,
        task=None,
        n=first.n if len(ns) == 1 else None,
        k=first.k if len(ks) == 1 else None,
        prompts=sum(v.prompts for v in verdicts),
        mean=_mean([v.mean for v in verdicts]),
        passed=_mean([v.passed for v in verdicts]),
        distinct=_mean([v.distinct for v in verdicts]),
        distinct_before=first.distinct_before if same else None,  # counts of unlike tasks have no common unit
        distinct_after=first.distinct_after if same else None,
        kept=_mean([v.kept for v in verdicts]),
        warnings=(),
    )
    return replace(joined, warnings=tuple(_wide(joined.mean, joined.passed)))


def warnings_of(verdict: Verdict, *, base_passed: float | None, base_solved: int | None) -> tuple[str, ...]:
    """What makes one line of a task unsafe, a few words each.

    Args:
        base_passed: Pass@k of the base, in 0..1; None where it is not known.
        base_solved: prompts that `kept` rests on (count); None where that is not known.
    """
    found = []
    if base_passed is not None and base_passed >= ALL_SOLVED:
        found.append("base solves all")
    if base_passed is not None and base_passed <= 1 - ALL_SOLVED:
        found.append("base solves none")
    if verdict.prompts < FEW:
        found.append(f"only {verdict.prompts} prompts")
    found += _wide(verdict.mean, verdict.passed)
    if base_solved is not None and base_solved < min(FEW, verdict.prompts):
        found.append(f"kept rests on {base_solved}")
    return tuple(found)


def _wide(*changes: Change | None) -> list[str]:
    """A warning where an interval spans more than WIDE."""
    spans = [c.high - c.low for c in changes if c is not None and c.low is not None and c.high is not None]
    return [f"few prompts: ±{50 * max(spans):.0f}"] if max(spans, default=0.0) > WIDE else []


def _mean(changes: Sequence[Change | None]) -> Change | None:
    known = [change for change in changes if change is not None]
    if len(known) != len(changes):
        return None
    value = fmean(change.value for change in known)
    below = [change.value - change.low for change in known if change.low is not None]
    above = [change.high - change.value for change in known if change.high is not None]
    if len(below) != len(known) or len(above) != len(known):
        return Change(value)
    count = len(known)
    return Change(value, value - math.hypot(*below) / count, value + math.hypot(*above) / count)
