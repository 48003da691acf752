"""Verdicts of presamples -> near-perfect set, exploration set, dropped prompts, completions that may be anchors.

The draws of a prompt are read in the order of their numbers, and reading stops at the draw that settles its set, even
where later ones are there. So the sets cannot tell a run that stopped early from one that drew everything, and a stage
that draws in waves needs one question: `wanted`, the draws to make next. `select` then gives the sets and candidates.
docs/decisions/0013-early-stopping.md holds the proof that no draw asked for could be spared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dphrl.errors import EmptyAnchorStore
from dphrl.method.verdict_counts import Counts, Draws, by_draw, draw_label, is_anchor, is_judged, is_right, refuse
from dphrl.types import Completion, Partition

FailedDebias = Literal["exploration", "drop"]
"""Where a prompt goes whose debiasing draw gives no anchor."""

Source = Literal["near_perfect", "correct"]
"""Whose completions become anchors: those of near-perfect prompts (the paper), or right draws of any prompt."""

Place = Literal["near_perfect", "exploration", "gold_error"]
"""What the presamples of a prompt settle; `gold_error`: its data is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Settings that determine sets and anchors; see `config.sources.AnchorConfig` for the meaning of each."""

    threshold: int
    """Right draws that make a prompt near-perfect, 1 .. presamples (count)."""
    presamples: int
    """Draws per prompt at most, >= 1 (count); further draws, from this number on, are the extra ones."""
    debias: bool = True
    failed_debias: FailedDebias = "exploration"
    source: Source = "near_perfect"
    per_prompt: int = 1
    """Anchors of one prompt at most, >= 1 (count)."""
    full_counts: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= self.presamples:
            raise ValueError(f"threshold={self.threshold} must be in 1..presamples={self.presamples}")
        if self.failed_debias not in ("exploration", "drop"):
            raise ValueError(f"failed_debias={self.failed_debias!r} must be 'exploration' or 'drop'")
        if self.source not in ("near_perfect", "correct"):
            raise ValueError(f"source={self.source!r} must be 'near_perfect' or 'correct'")
        if self.per_prompt < 1:
            raise ValueError(f"per_prompt={self.per_prompt} must be at least 1")

    @property
    def first(self) -> int:
        """Draws that every prompt gets, since no fewer can settle it."""
        return self.presamples if self.full_counts else min(self.threshold, self.presamples - self.threshold + 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the draws of a prompt, read in order, settle its set."""

    place: Place | None
    """None: the draws so far do not settle the set; once all presamples are drawn, nothing can."""
    counts: Counts
    """Counts over draws 0 .. drawn-1; the last of them settled the set, where one did."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The final sets, and the completions that may become anchors."""

    partition: Partition
    candidates: Mapping[str, tuple[Completion, ...]]
    """Prompt id -> right, finished completions, at least one, in the order they are to be taken; prompts in the order
    given. Source near_perfect: the ids of `partition.near_perfect`."""


def standing(drawn: Mapping[int, Completion], rules: Rules) -> Standing:
    """Read the presamples of one prompt in order, up to the draw that settles its set.

    What comes first settles it: `threshold` right draws (near-perfect), presamples - threshold + 1 wrong ones (so that
    the threshold is out of reach: exploration), or a `gold_error`. A draw that could not be judged otherwise is neither
    right nor wrong.

    Args:
        drawn: draw -> verified completion; reading ends where a draw is missing.
        rules: threshold and presamples.
    Returns:
        The set if it is settled, and the counts of the draws read.
    """
    judged = successes = 0
    for draw in range(rules.presamples):
        completion = drawn.get(draw)
        if completion is None:
            return Standing(None, Counts(draw, judged, successes))
        judged += is_judged(completion)
        successes += is_right(completion)
        counts = Counts(draw + 1, judged, successes)
        if completion.verdict is not None and completion.verdict.status == "gold_error":
            return Standing("gold_error", counts)
        if successes >= rules.threshold:
            return Standing("near_perfect", counts)
        if judged - successes > rules.presamples - rules.threshold:
            return Standing("exploration", counts)
    return Standing(None, Counts(rules.presamples, judged, successes))


def wanted(drawn: Mapping[int, Completion], rules: Rules) -> tuple[int, ...]:
    """The draws of one prompt to make next. Ask again once they are made, until it names none.

    Args:
        drawn: draw -> verified completion, of the draws made so far.
        rules: with `full_counts` all presamples are asked for at once, else as many as any outcome would need.
    Returns:
        Draw numbers, ascending; () once the prompt's set and anchors follow from the draws made. Extra draws (number
        `presamples` and up) are asked for only when the set is near-perfect.
    """
    now = standing(drawn, rules)
    if rules.full_counts and (missing := tuple(d for d in range(rules.presamples) if d not in drawn)):
        return missing
    read = now.counts.drawn
    if now.place is None:
        failures = now.counts.judged - now.counts.successes
        needed = min(rules.threshold - now.counts.successes, rules.presamples - rules.threshold + 1 - failures)
        return tuple(d for d in range(read, min(read + needed, rules.presamples)) if d not in drawn)
    if now.place != "near_perfect":
        return ()
    return tuple(d for d in _extra(drawn, rules) if d not in drawn)


def looked_at(drawn: Mapping[int, Completion], rules: Rules) -> tuple[Completion, ...]:
    """The presamples that counts, difficulty and anchors are made of: all with `full_counts`, else those that settled
    the set (further ones, from an earlier threshold, say, are left out: a new run would not have them)."""
    n = rules.presamples if rules.full_counts else standing(drawn, rules).counts.drawn
    return tuple(drawn[draw] for draw in range(n))


def extra_draws(drawn: Mapping[int, Completion], rules: Rules) -> tuple[Completion, ...]:
    """The extra draws that the rules ask for, as far as they are made: the debiasing one first."""
    if standing(drawn, rules).place != "near_perfect":
        return ()
    return tuple(drawn[draw] for draw in _extra(drawn, rules) if draw in drawn)


def select(prompt_ids: Sequence[str], completions: Iterable[Completion], rules: Rules) -> Selection:
    """Split prompts and name the completions that may become anchors.

    A verdict without a reward is not a wrong answer. A `gold_error` drops the prompt (its data is at fault) unless its
    set was settled before; any other unjudged draw leaves the count, and drops the prompt only where it could change
    the set.

    A prompt was chosen because its presamples were right, so they overstate it. With `debias` one further draw, number
    `presamples`, decides: right and finished it is the anchor; wrong or cut the prompt leaves the near-perfect set;
    unjudged the prompt is dropped. With `per_prompt` > 1 further extra draws follow it. Without `debias` the right,
    finished presamples of a near-perfect prompt are its candidates; it needs one.

    With source `correct` the sets are the same, and the candidates are the right, finished ones of all presamples
    looked at, of every prompt that is not dropped.

    Args:
        prompt_ids: every prompt once; the sets keep this order.
        completions: verified, in any order; every draw that `wanted` asks for.
        rules: see `Rules`.
    Returns:
        Every id in exactly one set, and the candidates. Possibly none at all: see `require_anchors`.
    Raises:
        DataError: doubled prompt ids; doubled, missing, unknown or unverified completions; the first three are named.
    Source: DPH-RL, arXiv:2509.07430, stage 1.
    """
    draws = _join(prompt_ids, completions, rules)
    near: dict[str, tuple[Completion, ...]] = {}
    dropped: dict[str, str] = {}
    for prompt_id, drawn in draws.items():
        now = standing(drawn, rules)
        if now.place in (None, "gold_error"):
            dropped[prompt_id] = _why_dropped(drawn, now, rules)
        elif now.place == "near_perfect":
            candidates = _near_perfect_candidates(drawn, now, rules)
            if candidates:
                near[prompt_id] = candidates
            elif rules.debias and (rules.failed_debias == "drop" or not is_judged(drawn[rules.presamples])):
                dropped[prompt_id] = _why_no_anchor(drawn[rules.presamples])
    partition = _assemble(prompt_ids, near, dropped)
    return Selection(partition, near if rules.source == "near_perfect" else _correct(draws, partition, rules))


def require_anchors(selection: Selection, rules: Rules, where: str = "") -> None:
    """Refuse a selection that leaves nothing to hold the policy; plain GRPO, which needs no anchors, never calls this.

    Raises:
        EmptyAnchorStore: no candidate.
    """
    if selection.candidates:
        return
    partition = selection.partition
    what = "near-perfect prompt" if rules.source == "near_perfect" else "right, finished draw"
    raise EmptyAnchorStore(
        f"{where}no {what} at threshold={rules.threshold} of presamples={rules.presamples}: "
        f"{len(partition.near_perfect)} prompts near-perfect, {len(partition.exploration)} in exploration, "
        f"{len(partition.dropped)} dropped; lower anchor.threshold or draw more presamples"
    )


def _extra(drawn: Mapping[int, Completion], rules: Rules) -> range:
    """Numbers of the extra draws of a near-perfect prompt, as far as is known now: first the debiasing one, further
    ones only where it gives an anchor and anchors are made of them."""
    if not rules.debias:
        return range(0)
    first = drawn.get(rules.presamples)
    several = rules.source == "near_perfect" and first is not None and is_anchor(first)
    return range(rules.presamples, rules.presamples + (rules.per_prompt if several else 1))


def _join(prompt_ids: Sequence[str], completions: Iterable[Completion], rules: Rules) -> Draws:
    """The draws of every prompt, in the order of `prompt_ids`, after every check that `select` promises."""
    times = Counter(prompt_ids)
    refuse([repr(i) for i in times if times[i] > 1], "prompt ids come twice; make them unique")
    draws = by_draw(completions)
    refuse([repr(i) for i in draws if i not in times], "prompt ids of completions are unknown")
    refuse([draw_label(i, d) for i, drawn in draws.items() for d in drawn if d < 0], "draws are below 0")
    joined = {prompt_id: draws.get(prompt_id, {}) for prompt_id in prompt_ids}
    missing = [draw_label(prompt_id, draw) for prompt_id, drawn in joined.items() for draw in wanted(drawn, rules)]
    refuse(missing, "completions are missing; draw them first")
    return joined


def _near_perfect_candidates(drawn: Mapping[int, Completion], now: Standing, rules: Rules) -> tuple[Completion, ...]:
    if not rules.debias:
        return tuple(drawn[draw] for draw in range(now.counts.drawn) if is_anchor(drawn[draw]))
    if not is_anchor(drawn[rules.presamples]):
        return ()
    return tuple(drawn[draw] for draw in _extra(drawn, rules) if is_anchor(drawn[draw]))


def _correct(draws: Draws, partition: Partition, rules: Rules) -> dict[str, tuple[Completion, ...]]:
    kept = {prompt_id: drawn for prompt_id, drawn in draws.items() if prompt_id not in partition.dropped}
    right = {prompt_id: tuple(filter(is_anchor, looked_at(drawn, rules))) for prompt_id, drawn in kept.items()}
    return {prompt_id: candidates for prompt_id, candidates in right.items() if candidates}


def _assemble(prompt_ids: Sequence[str], near_perfect: Iterable[str], dropped: Mapping[str, str]) -> Partition:
    """Exploration is what remains, so the sets cover the prompts by construction."""
    near = set(near_perfect)
    return Partition(
        near_perfect=tuple(i for i in prompt_ids if i in near),
        exploration=tuple(i for i in prompt_ids if i not in near and i not in dropped),
        dropped={i: dropped[i] for i in prompt_ids if i in dropped},
    )


def _why_dropped(drawn: Mapping[int, Completion], now: Standing, rules: Rules) -> str:
    if now.place == "gold_error":
        return _say(drawn[now.counts.drawn - 1])
    unjudged = next(drawn[draw] for draw in range(now.counts.drawn) if not is_judged(drawn[draw]))
    return (
        f"could not be judged: {now.counts.successes} right and {now.counts.drawn - now.counts.judged} unjudged of "
        f"{rules.presamples} draws, near-perfect from {rules.threshold}; {_say(unjudged)}"
    )


def _why_no_anchor(extra: Completion) -> str:
    if not is_judged(extra):
        return f"could not be judged: debiasing draw; {_say(extra)}"
    return "debiasing draw was cut at the token limit" if is_right(extra) else f"debiasing draw failed; {_say(extra)}"


def _say(completion: Completion) -> str:
    verdict = completion.verdict
    return "" if verdict is None else f"{verdict.status}: {verdict.detail}" if verdict.detail else verdict.status
