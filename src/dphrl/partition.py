"""Verdicts of presamples -> near-perfect set, exploration set, dropped prompts, and the completion of each anchor.

Two steps, because the second needs a draw that is only made after the first:

    before = split(prompt_ids, completions, threshold=..., presamples=...)     # draw once more for before.near_perfect
    after = select(prompt_ids, completions + extra, threshold=..., presamples=...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dphrl.errors import DataError, EmptyAnchorStore
from dphrl.types import Completion, Partition

Draws = Mapping[str, Mapping[int, Completion]]
"""Prompt id -> draw -> the completion."""

FailedDebias = Literal["exploration", "drop"]
"""Where a prompt goes whose debiasing draw gives no anchor."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the verifier said of one prompt's draws; 0 <= successes <= judged <= drawn."""

    drawn: int
    judged: int
    """Draws with a reward; the others (`gold_error`, `verifier_error`) are neither right nor wrong."""
    successes: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The final sets, and the completion to score as the anchor of each near-perfect prompt."""

    partition: Partition
    anchors: Mapping[str, Completion]
    """Near-perfect prompt id -> a right, finished completion; the same ids and order as `partition.near_perfect`."""


def is_judged(completion: Completion) -> bool:
    """Whether the verifier could judge it: a verdict without a reward says nothing about the completion."""
    return completion.verdict is not None and completion.verdict.reward is not None


def is_right(completion: Completion) -> bool:
    """Whether the verifier judged it and found it correct."""
    return completion.verdict is not None and completion.verdict.reward is not None and completion.verdict.correct


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
        mine = draws.setdefault(completion.prompt_id, {})
        if completion.draw in mine:
            doubled.append(_label(completion.prompt_id, completion.draw))
        if completion.verdict is None:
            unverified.append(_label(completion.prompt_id, completion.draw))
        mine[completion.draw] = completion
    _refuse(doubled, "completions come twice; each (prompt_id, draw) may come once")
    _refuse(unverified, "completions have no verdict; verify them first")
    return draws


def count(completions: Iterable[Completion], *, n: int) -> dict[str, Counts]:
    """Successes and judged draws of every prompt among its draws 0 .. n-1; other draws are left out.

    Args:
        completions: verified, in any order.
        n: draws per prompt, >= 1 (the presamples of a partition, the samples of an evaluation).
    Returns:
        Prompt id -> counts with `drawn == n`, prompts in order of first appearance.
    Raises:
        DataError: doubled or unverified completions, or a prompt that lacks one of its draws.
    """
    draws = by_draw(completions)
    _require_draws(draws, n)
    return {prompt_id: _tally(mine, n) for prompt_id, mine in draws.items()}


def decide(counts: Counts, *, threshold: int) -> Literal["near_perfect", "exploration"] | None:
    """The set of a prompt, or None while draws without a verdict could still change it.

    Args:
        counts: of the prompt's presamples.
        threshold: right draws that make a prompt near-perfect, 1 .. counts.drawn.
    Returns:
        near_perfect once `threshold` draws are right; exploration once that is out of reach even if every unjudged
        draw were right; None in between. With `drawn` = the draws planned, it is also an exact early-stopping rule.
    """
    if counts.successes >= threshold:
        return "near_perfect"
    unjudged = counts.drawn - counts.judged
    return "exploration" if counts.successes + unjudged < threshold else None


def split(
    prompt_ids: Sequence[str], completions: Iterable[Completion], *, threshold: int, presamples: int
) -> Partition:
    """Split prompts by their presamples alone: `near_perfect` are those to draw once more.

    A verdict without a reward is not a wrong answer. A `gold_error` drops the prompt (its data is at fault); any
    other unjudged draw leaves the count, and drops the prompt only where it could change the set.

    Args:
        prompt_ids: every prompt once; the sets keep this order.
        completions: draws 0 .. presamples-1 of every prompt, verified, in any order. Draw `presamples`, the debiasing
            draw, may be there for any prompt and is not looked at.
        threshold: right draws that make a prompt near-perfect, 1 .. presamples.
        presamples: draws per prompt, >= 1.
    Returns:
        Every id in exactly one set, with a reason for each dropped one.
    Raises:
        DataError: doubled prompt ids; doubled, missing, unknown or unverified completions; the first three are named.
        ValueError: threshold out of range.
    Source: DPH-RL, arXiv:2509.07430, stage 1.
    """
    return _split(prompt_ids, _join(prompt_ids, completions, threshold, presamples), threshold, presamples)


def select(
    prompt_ids: Sequence[str],
    completions: Iterable[Completion],
    *,
    threshold: int,
    presamples: int,
    debias: bool = True,
    failed_debias: FailedDebias = "exploration",
) -> Selection:
    """Split prompts and choose the completion that becomes the anchor of each near-perfect one.

    A prompt was chosen because its presamples were right, so they overstate it. With `debias` one further draw, number
    `presamples`, decides: right and finished it is the anchor; wrong or cut the prompt leaves the near-perfect set;
    unjudged the prompt is dropped, as in `split`. Without `debias` the anchor is the first right, finished presample.

    Args:
        prompt_ids, completions, threshold, presamples: as for `split`; with `debias` every near-perfect prompt of
            `split` has its draw `presamples` (other prompts' are ignored: a stricter threshold needs no new draws).
        debias: whether the extra draw decides.
        failed_debias: where a prompt goes whose extra draw is wrong or cut. Without `debias` a prompt that has no
            finished right presample goes to exploration.
    Returns:
        Every id in exactly one set, in the order given, and an anchor for each near-perfect prompt. Possibly none at
        all: see `require_near_perfect`.
    Raises:
        DataError: as `split`; also a missing debiasing draw.
        ValueError: threshold or failed_debias out of range.
    Source: DPH-RL, arXiv:2509.07430, stage 1.
    """
    if failed_debias not in ("exploration", "drop"):
        raise ValueError(f"failed_debias={failed_debias!r} must be 'exploration' or 'drop'")
    draws = _join(prompt_ids, completions, threshold, presamples)
    before = _split(prompt_ids, draws, threshold, presamples)
    dropped = dict(before.dropped)
    anchors: dict[str, Completion] = {}
    if debias:
        missing = [
            _label(prompt_id, presamples) for prompt_id in before.near_perfect if presamples not in draws[prompt_id]
        ]
        _refuse(missing, "debiasing draws are missing; draw once more for every near-perfect prompt")
    for prompt_id in before.near_perfect:
        mine = draws[prompt_id]
        candidates = [mine[presamples]] if debias else [mine[draw] for draw in range(presamples)]
        anchor = next((c for c in candidates if is_right(c) and c.finish_reason == "stop"), None)
        if anchor is not None:
            anchors[prompt_id] = anchor
        elif debias and (failed_debias == "drop" or not is_judged(mine[presamples])):
            dropped[prompt_id] = _why_no_anchor(mine[presamples])
    return Selection(_assemble(prompt_ids, anchors, dropped), anchors)


def require_near_perfect(partition: Partition, *, threshold: int, presamples: int) -> None:
    """Refuse a partition that leaves nothing to hold the policy; plain GRPO, which needs no anchors, never calls this.

    Raises:
        EmptyAnchorStore: the near-perfect set is empty.
    """
    if not partition.near_perfect:
        raise EmptyAnchorStore(
            f"no near-perfect prompt at threshold={threshold} of presamples={presamples}: "
            f"{len(partition.exploration)} prompts in exploration, {len(partition.dropped)} dropped; "
            "lower anchor.threshold or draw more presamples"
        )


def _join(prompt_ids: Sequence[str], completions: Iterable[Completion], threshold: int, presamples: int) -> Draws:
    """The draws of every prompt, in the order of `prompt_ids`, after every check that `split` promises."""
    if not 1 <= threshold <= presamples:
        raise ValueError(f"threshold={threshold} must be in 1..presamples={presamples}")
    times = Counter(prompt_ids)
    _refuse([repr(i) for i in times if times[i] > 1], "prompt ids come twice; make them unique")
    draws = by_draw(completions)
    _refuse([repr(i) for i in draws if i not in times], "prompt ids of completions are unknown")
    unexpected = [_label(i, draw) for i, mine in draws.items() for draw in mine if not 0 <= draw <= presamples]
    _refuse(unexpected, f"draws are outside 0..{presamples} (presamples, then one debiasing draw)")
    joined = {prompt_id: draws.get(prompt_id, {}) for prompt_id in prompt_ids}
    _require_draws(joined, presamples)
    return joined


def _split(prompt_ids: Sequence[str], draws: Draws, threshold: int, presamples: int) -> Partition:
    near_perfect: set[str] = set()
    dropped: dict[str, str] = {}
    for prompt_id, mine in draws.items():
        first = [mine[draw] for draw in range(presamples)]
        counts = _tally(mine, presamples)
        place = decide(counts, threshold=threshold)
        broken = next((c for c in first if c.verdict is not None and c.verdict.status == "gold_error"), None)
        if broken is not None:
            dropped[prompt_id] = _say(broken)
        elif place is None:
            unjudged = next(c for c in first if not is_judged(c))
            dropped[prompt_id] = (
                f"could not be judged: {counts.successes} right and {counts.drawn - counts.judged} unjudged of "
                f"{presamples} draws, near-perfect from {threshold}; {_say(unjudged)}"
            )
        elif place == "near_perfect":
            near_perfect.add(prompt_id)
    return _assemble(prompt_ids, near_perfect, dropped)


def _assemble(prompt_ids: Sequence[str], near_perfect: Iterable[str], dropped: Mapping[str, str]) -> Partition:
    """Exploration is what remains, so the sets cover the prompts by construction."""
    near = set(near_perfect)
    return Partition(
        near_perfect=tuple(i for i in prompt_ids if i in near),
        exploration=tuple(i for i in prompt_ids if i not in near and i not in dropped),
        dropped={i: dropped[i] for i in prompt_ids if i in dropped},
    )


def _tally(mine: Mapping[int, Completion], n: int) -> Counts:
    first = [mine[draw] for draw in range(n)]
    return Counts(drawn=n, judged=sum(map(is_judged, first)), successes=sum(map(is_right, first)))


def _require_draws(draws: Draws, n: int) -> None:
    missing = [_label(prompt_id, draw) for prompt_id, mine in draws.items() for draw in range(n) if draw not in mine]
    _refuse(missing, f"completions are missing; every prompt needs draws 0..{n - 1}")


def _why_no_anchor(extra: Completion) -> str:
    if not is_judged(extra):
        return f"could not be judged: debiasing draw; {_say(extra)}"
    return "debiasing draw was cut at the token limit" if is_right(extra) else f"debiasing draw failed; {_say(extra)}"


def _say(completion: Completion) -> str:
    verdict = completion.verdict
    return "" if verdict is None else f"{verdict.status}: {verdict.detail}" if verdict.detail else verdict.status


def _label(prompt_id: str, draw: int) -> str:
    return f"({prompt_id!r}, draw {draw})"


def _refuse(labels: Sequence[str], complaint: str) -> None:
    """Raise a DataError that names the first three offenders; nothing when there are none."""
    if labels:
        more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
        raise DataError(f"{len(labels)} {complaint}: {', '.join(labels[:3])}{more}")
