"""The verdict of a comparison: a line for each method and task, sorted by what was lost, and one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dphrl.metrics.verdict import WIDE, Change, Verdict, by_loss, over_tasks, warnings_of
from dphrl.report.comparison import BaseChange, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name

BASE = Entry("base")
NAMED = 3
"""Methods that the sentence names; where there are more, see `_named`."""
HELD = ("kept its ", "shows no clear change of ")
"""What is said of an interval that holds 0, where it is narrow and where it is wide."""
SAID_SHARE = 0.05
"""Share of the different solutions that the sentence mentions from here on."""

SHARES = (
    (0.95, "nearly all"),
    (0.82, "nine tenths"),
    (0.71, "three quarters"),
    (0.58, "two thirds"),
    (0.42, "half"),
    (0.29, "a third"),
    (0.225, "a quarter"),
    (0.15, "a fifth"),
    (0.0, "a tenth"),
)
"""A share, from here on -> as people say it."""


@dataclass(frozen=True, slots=True)
class VerdictGroup:
    """The lines of one task, or of the mean over all."""

    title: str
    mean: str
    """'mean@64'; 'mean@n' where tasks differ."""
    passed: str
    """'Pass@32'; 'Pass@k' where tasks differ."""
    lines: tuple[Verdict, ...]
    """Most lost first."""

    @property
    def prompts(self) -> int:
        """Behind its lines (count)."""
        return max(line.prompts for line in self.lines)


def entry_of(line: Verdict) -> Entry:
    """The entry that a line is of."""
    return Entry(line.method, line.setting)


def verdict_groups(view: View) -> list[VerdictGroup]:
    """The mean over tasks first where there are several, of the methods that were measured on all; then each task, in
    the order of what its first line lost. Empty where no base was measured."""
    of_tasks = [[line for entry in view.entries if (line := _line(view, entry, d))] for d in view.datasets]
    measured = [by_loss(lines) for lines in of_tasks if lines]
    first_by_task = {lines[0].task: lines for lines in measured}
    groups = [_group(first_by_task[first.task]) for first in by_loss(lines[0] for lines in measured)]
    if len(measured) > 1:
        by_entry = [[line for lines in measured for line in lines if entry_of(line) == e] for e in view.entries]
        whole = [over_tasks(lines) for lines in by_entry if len(lines) == len(measured)]
        groups = [_group(by_loss(whole), f"mean of {len(measured)} tasks"), *groups] if whole else groups
    return groups


def verdict_sentence(groups: Sequence[VerdictGroup]) -> str:
    """What a person would say: the named methods, most lost first, and what was hit hardest.

    '' where no base was measured.
    """
    if not groups:
        return ""
    first = groups[0]
    named = _named(first)
    said = [_said(line, first, in_full=i == 0) for i, line in enumerate(named)]
    others = len(first.lines) - len(named)
    scope = f"Over {len(groups) - 1} tasks" if first.lines[0].task is None else f"On {first.title}"
    between = f" {others} more {'lies' if others == 1 else 'lie'} between them in what was lost." if others else ""
    return f"{scope}: {'; '.join(said)}.{between}{_hardest(groups)}"


def _line(view: View, entry: Entry, dataset: str) -> Verdict | None:
    """One line; None for the base, and where no difference to it is known."""
    n, k = view.n(dataset), view.k(dataset)
    if entry == BASE or view.base_change(entry, dataset, "mean_at_n") is None:
        return None
    before, after = (view.get(e, dataset, "distinct_correct") for e in (BASE, entry))
    ways, keep = _change(view.base_change(entry, dataset, "distinct_correct")), view.get(entry, dataset, "keep")
    summaries = view.summaries(entry, dataset)
    line = Verdict(
        method=entry.method,
        setting=entry.setting,
        task=dataset,
        n=n,
        k=k,
        prompts=min(summary.prompts for summary in summaries),
        mean=_change(view.base_change(entry, dataset, "mean_at_n")),
        passed=_change(view.base_change(entry, dataset, f"pass@{k}")),
        distinct=ways.over(before.mean) if ways is not None and before is not None and before.mean > 0 else None,
        distinct_before=None if before is None else before.mean,
        distinct_after=None if after is None else after.mean,
        kept=None if keep is None else Change(keep.mean, keep.low, keep.high),
    )
    level = view.get(BASE, dataset, f"pass@{k}")
    solved = [s.retention.base_solved for s in summaries if s.retention is not None]
    found = warnings_of(
        line, base_passed=None if level is None else level.mean, base_solved=min(solved) if solved else None
    )
    return replace(line, warnings=found)


def _change(change: BaseChange | None) -> Change | None:
    return None if change is None else Change(change.value, change.low, change.high)


def _group(lines: list[Verdict], title: str = "") -> VerdictGroup:
    first = lines[0]
    mean, passed = (f"{name}{kind if x is None else x}" for name, kind, x in _names(first))
    return VerdictGroup(title or dataset_name(first.task or ""), mean, passed, tuple(lines))


def _names(line: Verdict) -> tuple[tuple[str, str, int | None], ...]:
    return ("mean@", "n", line.n), ("Pass@", "k", line.k)


def _named(group: VerdictGroup) -> list[Verdict]:
    """All methods up to NAMED; of more, the one that lost most, the one that lost least, and the one with the highest
    gain of mean@n: whatever they are called."""
    lines = group.lines
    if len(lines) <= NAMED:
        return list(lines)
    gained = max(lines, key=lambda line: -1.0 if line.mean is None else line.mean.value)  # the first of equals
    chosen = (lines[0], lines[-1], gained)
    return [line for line in lines if line in chosen]


def _said(line: Verdict, group: VerdictGroup, *, in_full: bool) -> str:
    """'GRPO gained 15 points of mean@64 and gave up 13 of Pass@8 and three quarters of its different solutions'."""
    clauses = [*_of_mean(line.mean, group.mean, in_full), _of_reach(line, group.passed, in_full)]
    for verb in HELD:
        if len(clauses) == 2 and all(clause.startswith(verb) for clause in clauses):
            clauses[1] = clauses[1].removeprefix(verb)
    return f"{entry_of(line).name} {' and '.join(clauses)}"


def _of_mean(change: Change | None, name: str, in_full: bool) -> Iterator[str]:
    sign = None if change is None else change.sign
    if change is None or sign is None:
        return
    points = _points(change.value)
    if sign == 0:
        yield _held(change, name)
    else:
        yield f"{'gained' if sign > 0 else 'lost'} {points}{f' points of {name}' if in_full else ''}"


def _of_reach(line: Verdict, name: str, in_full: bool) -> str:
    """What became of Pass@k and of the different solutions."""
    passed, ways = line.passed, line.distinct
    lost_ways = ways is not None and ways.sign == -1 and ways.value <= -SAID_SHARE
    share = f"{share_text(-ways.value)} of its different solutions" if ways is not None and lost_ways else ""
    if passed is None or passed.sign is None:
        return f"gave up {share}" if share else f"has no known {name}"
    points = f"{_points(passed.value)}{f' of {name}' if in_full else ''}"
    if passed.sign < 0:
        return f"gave up {points}{f' and {share}' if share else ''}"
    verb = f"added {points}" if passed.sign > 0 else _held(passed, name)
    return f"{verb} but gave up {share}" if share else verb


def _held(change: Change, name: str) -> str:
    """Of an interval that holds 0: where it is wide, nobody knows whether anything was kept."""
    assert change.low is not None and change.high is not None
    return f"{HELD[change.high - change.low > WIDE]}{name}"


def share_text(share: float) -> str:
    """0.74 -> 'three quarters'."""
    return next(text for start, text in SHARES if share >= start)


def _points(change: float) -> str:
    """0.147 -> '15'; below one point with a decimal."""
    points = abs(100 * change)
    return f"{points:.0f}" if points >= 0.95 else f"{points:.1f}"


def _hardest(groups: Sequence[VerdictGroup]) -> str:
    """' Hit hardest: in-domain, where GRPO gained 15 points of mean@64 and gave up 21 of Pass@8.'; '' with one task, or
    where nothing was lost."""
    if groups[0].lines[0].task is not None:
        return ""
    worst = groups[1]
    line = worst.lines[0]
    if line.reach not in ("collapsed", "narrowed"):
        return ""
    return f" Hit hardest: {worst.title}, where {_said(line, worst, in_full=True)}."
