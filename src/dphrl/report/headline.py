"""The verdict: one sentence a dataset on what was kept, gained and lost, with its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from dphrl.report.comparison import Aggregate, Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name
from dphrl.report.number_text import difference_interval_text, interval_text, number_text


def verdict_sentences(view: View) -> dict[str, str]:
    """Dataset -> one sentence on the headline entry, against the base and the baseline.

    Rates are in %, differences in percentage points; brackets hold 95 % intervals over prompts.
    """
    entry = headline(view)
    return {dataset: _sentence(view, dataset, entry) for dataset in view.datasets}


def headline(view: View) -> Entry:
    """The entry that verdicts speak of: the DPH entry with the highest mean@n + Pass@k on the first dataset.

    Without a DPH entry any other trained one, then the baseline, then the base.
    """
    first = view.datasets[0]
    trained = [entry for entry in view.entries if entry.method != "base"]
    others = [entry for entry in trained if entry != view.baseline]
    candidates = [e for e in others if e.method.startswith("dph")] or others or trained or list(view.entries)
    return max(candidates, key=lambda e: _mean(view.get(e, first, "mean_at_n")) + _mean(_pass(view, e, first)))


def headline_choice(view: View) -> str:
    """How the headline entry was chosen, where there was a choice; '' otherwise."""
    entry, first = headline(view), view.datasets[0]
    rivals = [e for e in view.entries if e.method.startswith("dph")]
    if len(rivals) < 2 or entry not in rivals:
        return ""
    return (
        f"{entry.name} is named because, of {len(rivals)} DPH entries, its mean@{view.n(first)} + Pass@{view.k(first)} "
        f"on {dataset_name(first)} is the highest. It was chosen on these same numbers, so look at the others too."
    )


def _sentence(view: View, dataset: str, entry: Entry) -> str:
    clauses = [c for c in (_kept(view, dataset, entry), *_levels(view, dataset, entry)) if c]
    if not clauses:
        return f"{entry.name} was not measured here."
    return f"{entry.name} {'; '.join(clauses)}."


def _kept(view: View, dataset: str, entry: Entry) -> str:
    """'keeps 99.7 % of what the base solved, GRPO 93.2 % (+6.5 points [+3.1, +10.2])'."""
    keep, of_baseline = view.get(entry, dataset, "keep"), view.get(view.baseline, dataset, "keep")
    if keep is None:
        return ""
    said = f"keeps {number_text(keep.mean, 'keep')} % of what the base solved"
    if of_baseline is None or view.baseline is None or view.baseline == entry:
        return f"{said} {interval_text(keep.low, keep.high, 'keep')}".strip()
    return f"{said}, {view.baseline.name} {number_text(of_baseline.mean, 'keep')} % ({_difference(keep)})"


def _levels(view: View, dataset: str, entry: Entry) -> Iterator[str]:
    """'mean@64 76.7 %, +14.5 points against the base, -2.2 points [-3.5, -0.9] against GRPO', and Pass@k likewise."""
    base = Entry("base")
    k, n = view.k(dataset), view.n(dataset)
    for metric, name in (("mean_at_n", f"mean@{n}"), (f"pass@{k}", f"Pass@{k}")):
        level = view.get(entry, dataset, metric)
        if level is None:
            continue
        parts = [f"{name} {number_text(level.mean, metric)} %"]
        before = view.get(base, dataset, metric)
        if before is not None and base not in (entry, view.baseline):
            parts.append(f"{number_text(level.mean - before.mean, metric, signed=True)} points against the base")
        if level.difference is not None and view.baseline is not None:
            against = "the base" if view.baseline == base else view.baseline.name
            gap, clear = _difference(level), level.difference.clear or level.difference.low is None
            parts.append(f"{gap} against {against}" if clear else f"no clear difference from {against} ({gap})")
        yield ", ".join(parts)


def _difference(level: Aggregate) -> str:
    """'+6.5 points [+3.1, +10.2]'."""
    gap = level.difference
    if gap is None:
        return "difference unknown"
    return f"{number_text(gap.value, 'rate', signed=True)} points {difference_interval_text(gap, 'rate')}".strip()


def _pass(view: View, entry: Entry, dataset: str) -> Aggregate | None:
    return view.get(entry, dataset, f"pass@{view.k(dataset)}")


def _mean(level: Aggregate | None) -> float:
    return -1.0 if level is None else level.mean
