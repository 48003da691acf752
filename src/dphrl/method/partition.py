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

from dphrl.errors import DataError, EmptyAnchorStore, listed
from dphrl.types import Completion, Partition

Draws = Mapping[str, Mapping[int, Completion]]
"""Prompt id -> draw -> the completion."""

FailedDebias = Literal["exploration", "drop"]
"""Where a prompt goes whose debiasing draw gives no anchor."""

Source = Literal["near_perfect", "correct"]
"""Whose completions become anchors: those of near-perfect prompts (the paper), or right draws of any prompt."""

Place = Literal["near_perfect", "exploration", "gold_error"]
"""What the presamples of a prompt settle; `gold_error`: its data is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the sets and the anchors follow from; see `config_sources.AnchorConfig` for the meaning of each."""

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
class Counts:
    """What the verifier said of one prompt's draws; 0 <= successes <= judged <= drawn."""

    drawn: int
    judged: int
    """Draws with a reward; the others (`gold_error`, `verifier_error`) are neither right nor wrong."""
    successes: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the draws of a prompt, read in order, settle its set."""

    place: Place | None
    """None: not settled by the draws there are; with all presamples there, it cannot be."""
    counts: Counts
    """Of draws 0 .. drawn-1; the last of them settled the set, where one did."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The final sets, and the completions that may become anchors."""

    partition: Partition
    candidates: Mapping[str, tuple[Completion, ...]]
    """Prompt id -> right, finished completions, at least one, in the order they are to be taken; prompts in the order
    given. Source near_perfect: the ids of `partition.near_perfect`."""


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
        n: draws per prompt, >= 1 (the samples of an evaluation).
    Returns:
        Prompt id -> counts with `drawn == n`, prompts in order of first appearance.
    Raises:
        DataError: doubled or unverified completions, or a prompt that lacks one of its draws.
    """
    draws = by_draw(completions)
    missing = [_label(i, draw) for i, mine in draws.items() for draw in range(n) if draw not in mine]
    _refuse(missing, f"completions are missing; every prompt needs draws 0..{n - 1}")
    return {prompt_id: tally(mine, n) for prompt_id, mine in draws.items()}


def tally(mine: Mapping[int, Completion], n: int) -> Counts:
    """What the verifier said of draws 0 .. n-1 of one prompt, all of which must be there."""
    first = [mine[draw] for draw in range(n)]
    return Counts(drawn=n, judged=sum(map(is_judged, first)), successes=sum(map(is_right, first)))


def standing(mine: Mapping[int, Completion], rules: Rules) -> Standing:
    """Read the presamples of one prompt in order, up to the draw that settles its set.

    What comes first settles it: `threshold` right draws (near-perfect), presamples - threshold + 1 wrong ones (so that
    the threshold is out of reach: exploration), or a `gold_error`. A draw that could not be judged otherwise is neither
    right nor wrong.

    Args:
        mine: draw -> verified completion; reading ends where a draw is missing.
        rules: threshold and presamples.
    Returns:
        The set if it is settled, and the counts of the draws read.
    """
    judged = successes = 0
    for draw in range(rules.presamples):
        completion = mine.get(draw)
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


def wanted(mine: Mapping[int, Completion], rules: Rules) -> tuple[int, ...]:
    """The draws of one prompt to make next; ask again when they are there, until there are none.

    Args:
        mine: draw -> verified completion, what is there already.
        rules: with `full_counts` all presamples are asked for at once, else as many as any outcome would need.
    Returns:
        Draw numbers, ascending; () once the prompt's set and anchors follow from what is there. Extra draws (number
        `presamples` and up) are asked for only when the set is near-perfect.
    """
    now = standing(mine, rules)
    if rules.full_counts and (missing := tuple(d for d in range(rules.presamples) if d not in mine)):
        return missing
    drawn = now.counts.drawn
    if now.place is None:
        failures = now.counts.judged - now.counts.successes
        needed = min(rules.threshold - now.counts.successes, rules.presamples - rules.threshold + 1 - failures)
        return tuple(d for d in range(drawn, min(drawn + needed, rules.presamples)) if d not in mine)
    if now.place != "near_perfect":
        return ()
    return tuple(d for d in _extra(mine, rules) if d not in mine)


def looked_at(mine: Mapping[int, Completion], rules: Rules) -> tuple[Completion, ...]:
    """The presamples that counts, difficulty and anchors are made of: all with `full_counts`, else those that settled
    the set (further ones, from an earlier threshold, say, are left out: a new run would not have them)."""
    n = rules.presamples if rules.full_counts else standing(mine, rules).counts.drawn
    return tuple(mine[draw] for draw in range(n))


def extra_draws(mine: Mapping[int, Completion], rules: Rules) -> tuple[Completion, ...]:
    """The extra draws that the rules ask for, of those that are there: the debiasing one first."""
    if standing(mine, rules).place != "near_perfect":
        return ()
    return tuple(mine[draw] for draw in _extra(mine, rules) if draw in mine)


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
    for prompt_id, mine in draws.items():
        now = standing(mine, rules)
        if now.place in (None, "gold_error"):
            dropped[prompt_id] = _why_dropped(mine, now, rules)
        elif now.place == "near_perfect":
            found = _near_perfect_candidates(mine, now, rules)
            if found:
                near[prompt_id] = found
            elif rules.debias and (rules.failed_debias == "drop" or not is_judged(mine[rules.presamples])):
                dropped[prompt_id] = _why_no_anchor(mine[rules.presamples])
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


def _extra(mine: Mapping[int, Completion], rules: Rules) -> range:
    """Numbers of the extra draws of a near-perfect prompt, as far as is known now: first the debiasing one, further
    ones only where it gives an anchor and anchors are made of them."""
    if not rules.debias:
        return range(0)
    first = mine.get(rules.presamples)
    several = rules.source == "near_perfect" and first is not None and is_anchor(first)
    return range(rules.presamples, rules.presamples + (rules.per_prompt if several else 1))


def _join(prompt_ids: Sequence[str], completions: Iterable[Completion], rules: Rules) -> Draws:
    """The draws of every prompt, in the order of `prompt_ids`, after every check that `select` promises."""
    times = Counter(prompt_ids)
    _refuse([repr(i) for i in times if times[i] > 1], "prompt ids come twice; make them unique")
    draws = by_draw(completions)
    _refuse([repr(i) for i in draws if i not in times], "prompt ids of completions are unknown")
    _refuse([_label(i, d) for i, mine in draws.items() for d in mine if d < 0], "draws are below 0")
    joined = {prompt_id: draws.get(prompt_id, {}) for prompt_id in prompt_ids}
    missing = [_label(prompt_id, draw) for prompt_id, mine in joined.items() for draw in wanted(mine, rules)]
    _refuse(missing, "completions are missing; draw them first")
    return joined


def _near_perfect_candidates(mine: Mapping[int, Completion], now: Standing, rules: Rules) -> tuple[Completion, ...]:
    if not rules.debias:
        return tuple(mine[draw] for draw in range(now.counts.drawn) if is_anchor(mine[draw]))
    if not is_anchor(mine[rules.presamples]):
        return ()
    return tuple(mine[draw] for draw in _extra(mine, rules) if is_anchor(mine[draw]))


def _correct(draws: Draws, partition: Partition, rules: Rules) -> dict[str, tuple[Completion, ...]]:
    found = {i: tuple(filter(is_anchor, looked_at(m, rules))) for i, m in draws.items() if i not in partition.dropped}
    return {prompt_id: candidates for prompt_id, candidates in found.items() if candidates}


def _assemble(prompt_ids: Sequence[str], near_perfect: Iterable[str], dropped: Mapping[str, str]) -> Partition:
    """Exploration is what remains, so the sets cover the prompts by construction."""
    near = set(near_perfect)
    return Partition(
        near_perfect=tuple(i for i in prompt_ids if i in near),
        exploration=tuple(i for i in prompt_ids if i not in near and i not in dropped),
        dropped={i: dropped[i] for i in prompt_ids if i in dropped},
    )


def _why_dropped(mine: Mapping[int, Completion], now: Standing, rules: Rules) -> str:
    if now.place == "gold_error":
        return _say(mine[now.counts.drawn - 1])
    unjudged = next(mine[draw] for draw in range(now.counts.drawn) if not is_judged(mine[draw]))
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


def _label(prompt_id: str, draw: int) -> str:
    return f"({prompt_id!r}, draw {draw})"


def _refuse(labels: Sequence[str], complaint: str) -> None:
    """Raise a DataError that names the first three offenders; nothing when there are none."""
    if labels:
        raise DataError(f"{len(labels)} {complaint}: {listed(labels)}")
