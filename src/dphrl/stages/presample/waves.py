"""Drawing in waves: each makes the draws that are needed whatever their verdicts, until all prompts are settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dphrl.errors import RunDirError
from dphrl.method.partition import Rules, wanted
from dphrl.method.verdict_counts import by_draw
from dphrl.progress import Progress
from dphrl.runs.draw_and_store import MeanReward, Speed, draw_and_store
from dphrl.runs.samples import HEAVY, SampleFiles
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.sampling.judge import Judge
from dphrl.types import Completion

Outcomes = dict[str, dict[int, Completion]]
"""Prompt id -> draw -> completion without tokens and text."""


@dataclass(frozen=True, slots=True)
class Presamples:
    """All draws of one task."""

    prompts: EncodedPrompts
    outcomes: Outcomes
    files: SampleFiles


def draw_in_waves(
    prompts: EncodedPrompts, rules: Rules, sampler: Sampler, files: SampleFiles, progress: Progress, label: str
) -> tuple[Outcomes, Speed]:
    """Make every draw that the sets and anchors need and the files do not hold.

    Args:
        prompts: those to draw for.
        rules: say which draws are needed, `partition.wanted`.
        files: where the draws go; draws of other prompts in them are left alone.
    Returns:
        All draws on disk of these prompts, and what drawing the new ones cost.
    Raises:
        DphrlError: the sampler or the verifier failed for good; what was drawn is stored.
    """
    stored = by_draw(files.read(without=HEAVY))
    outcomes: Outcomes = {i: stored.get(i, {}) for i in prompts.encoded}
    judge, speed = Judge(prompts.task), Speed()
    shown = _WaveProgress(progress, label, outcomes, rules)
    waiting = draws_to_make(outcomes, rules)
    shown.settle(waiting)
    while waiting:
        requests = [Request(i, d, prompts.encoded[i]) for i, draws in waiting.items() for d in draws]

        def keep(batch: list[Completion]) -> None:
            for c in batch:
                outcomes[c.prompt_id][c.draw] = replace(c, token_ids=(), text="")
            shown.add(batch)

        speed += draw_and_store(requests, sampler, judge, files, keep)
        waiting = {i: more for i in waiting if (more := wanted(outcomes[i], rules))}
        shown.settle(waiting)
    return outcomes, speed


def draws_to_make(outcomes: Mapping[str, Mapping[int, Completion]], rules: Rules) -> dict[str, tuple[int, ...]]:
    """Prompt id -> the draws to make next, of the prompts that still need some."""
    return {i: more for i, drawn in outcomes.items() if (more := wanted(drawn, rules))}


def require_complete(outcomes: Mapping[str, Mapping[int, Completion]], rules: Rules, where: str, remedy: str) -> None:
    """Nothing may be missing where nothing can be drawn.

    Raises:
        RunDirError: draws are missing; the first three are named.
    """
    lacking = draws_to_make(outcomes, rules)
    if lacking:
        first = ", ".join(f"({i!r}, draw {draws[0]})" for i, draws in list(lacking.items())[:3])
        raise RunDirError(f"{where}: draws of {len(lacking)} prompts are missing, first {first}; {remedy}")


class _WaveProgress:
    """One progress bar for all waves. A settled prompt counts as fully drawn, so the bar never goes back."""

    def __init__(self, progress: Progress, label: str, outcomes: Outcomes, rules: Rules) -> None:
        self._progress, self._label, self._outcomes, self._rules = progress, label, outcomes, rules
        self._whole = rules.presamples + 1
        self._done, self._drawn = 0, 0
        self._reward, self._note = MeanReward(), ""

    def settle(self, waiting: Mapping[str, tuple[int, ...]]) -> None:
        """Count again, between waves."""
        self._done = self._whole * (len(self._outcomes) - len(waiting))
        self._done += sum(self._share(d) for i in waiting for d in self._outcomes[i])
        self._say()

    def add(self, batch: list[Completion]) -> None:
        self._done += sum(self._share(c.draw) for c in batch)
        self._drawn += len(batch)
        self._note = self._reward.add(batch)
        self._say()

    def _share(self, draw: int) -> int:
        return int(draw < self._rules.presamples)

    def _say(self) -> None:
        note = f"{self._note}, {self._drawn} drawn" if self._drawn else ""
        self._progress(self._label, self._done, self._whole * len(self._outcomes), note)
