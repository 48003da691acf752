"""Verified completions by prompt and draw, and what their verdicts count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dphrl.errors import DataError, listed
from dphrl.types import Completion

Draws = Mapping[str, Mapping[int, Completion]]
"""Prompt id -> draw -> the completion."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the verifier said of one prompt's draws; 0 <= successes <= judged <= drawn."""

    drawn: int
    judged: int
    """Draws with a reward; the others (`gold_error`, `verifier_error`) are neither right nor wrong."""
    successes: int


def is_judged(completion: Completion) -> bool:
    """Whether the verifier could judge it: a verdict without a reward says nothing about the completion."""
    return completion.verdict is not None and completion.verdict.reward is not None


def is_right(completion: Completion) -> bool:
    """Whether the verifier judged it and found it correct."""
    return completion.verdict is not None and completion.verdict.reward is not None and completion.verdict.correct


def is_anchor(completion: Completion) -> bool:
    """Whether it may be an anchor: right, and ended by the policy itself."""
    return is_right(completion) and completion.finish_reason == "stop"


def by_draw(completions: Iterable[Completion]) -> dict[str, dict[int, Completion]]:
    """Join verified completions by prompt id and draw.

    Args:
        completions: in any order; each (prompt_id, draw) at most once, each with a verdict.
    Returns:
        Prompt id -> draw -> completion, prompts in order of first appearance.
    Raises:
        DataError: a doubled (prompt_id, draw), or a completion without a verdict; the first three are named.
    """
    draws: dict[str, dict[int, Completion]] = {}
    doubled: list[str] = []
    unverified: list[str] = []
    for completion in completions:
        drawn = draws.setdefault(completion.prompt_id, {})
        if completion.draw in drawn:
            doubled.append(draw_label(completion.prompt_id, completion.draw))
        if completion.verdict is None:
            unverified.append(draw_label(completion.prompt_id, completion.draw))
        drawn[completion.draw] = completion
    refuse(doubled, "completions come twice; each (prompt_id, draw) may come once")
    refuse(unverified, "completions have no verdict; verify them first")
    return draws


def count(completions: Iterable[Completion], *, n: int) -> dict[str, Counts]:
    """Successes and judged draws of every prompt among its draws 0 .. n-1; other draws are left out.

    Args:
        completions: verified, in any order.
        n: draws per prompt, >= 1 (the samples of an evaluation).
    Returns:
        Prompt id -> counts with `drawn == n`, prompts in order of first appearance.
    Raises:
        DataError: doubled or unverified completions, or a prompt that lacks one of its draws.
    """
    draws = by_draw(completions)
    missing = [draw_label(i, draw) for i, drawn in draws.items() for draw in range(n) if draw not in drawn]
    refuse(missing, f"completions are missing; every prompt needs draws 0..{n - 1}")
    return {prompt_id: tally(drawn, n) for prompt_id, drawn in draws.items()}


def tally(drawn: Mapping[int, Completion], n: int) -> Counts:
    """What the verifier said of draws 0 .. n-1 of one prompt, all of which must be there."""
    first = [drawn[draw] for draw in range(n)]
    return Counts(drawn=n, judged=sum(map(is_judged, first)), successes=sum(map(is_right, first)))


def draw_label(prompt_id: str, draw: int) -> str:
    return f"({prompt_id!r}, draw {draw})"


def refuse(labels: Sequence[str], complaint: str) -> None:
    """Raise a DataError that names the first three offenders; nothing when there are none."""
    if labels:
        raise DataError(f"{len(labels)} {complaint}: {listed(labels)}")
