"""Prompt by prompt: how often the base and a trained model solve each, as spots of a scatter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dphrl.report.comparison import Entry
from dphrl.types import GREEDY_DRAW, NO_REWARD

Mark = Literal["lost", "found", "narrowed", "other"]

NARROWED = 0.5
"""A prompt that is still solved, less than this share of how often the base solves it, is marked as narrowed."""
GRID = 16
"""Steps of a rate from 0 to 1: prompts of the same two rates are one spot, which bounds a chart."""
CHARTS = 16
"""Most charts on the page."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Prompts that are solved about equally often by the base, and by the trained model."""

    before: float
    """Share of the base's judged draws that is right, in 0..1."""
    after: float
    mark: Mark
    prompts: int
    ids: tuple[str, ...]
    """Those whose samples are on the page."""


@dataclass(frozen=True, slots=True)
class PromptSpots:
    """All prompts of one method on one task."""

    entry: Entry
    dataset: str
    spots: tuple[Spot, ...]

    def count(self, mark: Mark) -> int:
        """Prompts with this mark."""
        return sum(spot.prompts for spot in self.spots if spot.mark == mark)


def prompt_spots(
    entry: Entry,
    dataset: str,
    base: Mapping[str, Mapping[int, str]],
    trained: Mapping[str, Mapping[int, str]],
    shown: Collection[str],
) -> PromptSpots:
    """The spots of one method on one task, in a fixed order.

    Args:
        base, trained: prompt id -> draw -> status; prompts without a judged draw on both sides are left out.
        shown: ids of prompts whose samples are on the page.
    """
    ids: dict[tuple[float, float, Mark], list[str]] = defaultdict(list)
    for i in sorted(base.keys() & trained.keys()):
        before, after = _rate(base[i].items()), _rate(trained[i].items())
        if before is not None and after is not None:
            ids[_on_grid(before), _on_grid(after), mark_of(before, after)].append(i)
    spots = (Spot(*key, len(of_spot), tuple(i for i in of_spot if i in shown)) for key, of_spot in sorted(ids.items()))
    return PromptSpots(entry, dataset, tuple(spots))


def most_lost(spots: Iterable[PromptSpots]) -> list[PromptSpots]:
    """At most CHARTS of them: those that lost most prompts, in the order given."""
    everything = list(spots)
    chosen = sorted(range(len(everything)), key=lambda i: -everything[i].count("lost"))[:CHARTS]
    return [everything[i] for i in sorted(chosen)]


def mark_of(before: float, after: float) -> Mark:
    """What became of a prompt, by the shares of right draws of base and trained model."""
    if before > 0.0 and after == 0.0:
        return "lost"
    if before == 0.0 and after > 0.0:
        return "found"
    return "narrowed" if after < NARROWED * before else "other"


def _rate(draws: Iterable[tuple[int, str]]) -> float | None:
    """Share of right ones among the sampled, judged draws; None where there are none."""
    judged = [status == "correct" for draw, status in draws if draw != GREEDY_DRAW and status not in NO_REWARD]
    return sum(judged) / len(judged) if judged else None


def _on_grid(rate: float) -> float:
    """The nearest step; 0 and 1 are kept for never and always."""
    if rate in (0.0, 1.0):
        return rate
    return min(max(round(rate * GRID), 1), GRID - 1) / GRID
