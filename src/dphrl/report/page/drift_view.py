"""The anchor drift view: anchors whose tokens are coloured by their log-ratio, the most forgotten first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from dphrl.report.comparison import Entry
from dphrl.report.page.cut_text import cut

ANCHORS_SHOWN = 6
"""Anchors shown of each entry (count)."""
TOKENS_SHOWN = 200
"""Tokens shown of each anchor, around its lowest log-ratio (count)."""
WORST = 3
"""Tokens named below an anchor (count)."""
STEPS = (0.1, 0.5, 1.0, 2.0)
"""Limits of |log_u| in nats between the shades: below the first a token has none."""
TOKEN_ROOM, PROMPT_ROOM = 120, 700
"""Most bytes of a token and of a prompt."""


@dataclass(frozen=True, slots=True)
class DriftedAnchor:
    """One anchor and what the trained policy says of its tokens."""

    task: str
    prompt_id: str
    draw: int
    prompt: str
    """Its end, where the question stands."""
    tokens: tuple[str, ...]
    """What each token adds to the text."""
    log_u: tuple[float, ...]
    """ln pi_theta - ln pi_ref of each token, in nats."""


@dataclass(frozen=True, slots=True)
class AnchorDrift:
    """Some anchors of a run under its trained policy: the content of drift.json."""

    key: Mapping[str, object]
    """What the numbers depend on."""
    store: int
    """Anchors of the run."""
    complete: bool
    """Whether all anchors that are looked at are there."""
    rows: tuple[DriftedAnchor, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an anchor."""

    text: str
    log_u: float
    shade: str
    """`down1` .. `down4` where the policy gives it less than the reference, `up1` .. `up4`, '' where about the same."""


@dataclass(frozen=True, slots=True)
class AnchorView:
    """One anchor as the page shows it."""

    task: str
    prompt_id: str
    prompt: str
    mean: float
    """Mean log_u, nats a token."""
    lowest: float
    tokens: tuple[Token, ...]
    lowest_tokens: tuple[Token, ...]
    """At most WORST of those with the lowest log_u: colours say nothing to a screen reader."""
    left_out: int
    """Tokens that are not shown."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """The anchors of one entry."""

    name: str
    measured: int
    store: int
    mean: float
    """Over all measured tokens, nats."""
    forgotten: float
    """Share of measured anchors with a token at least e^2 times less likely, in %."""
    anchors: tuple[AnchorView, ...]


def drift_views(drifts: Mapping[Entry, AnchorDrift]) -> list[DriftView]:
    """Every entry's anchors, those with the lowest mean log_u first."""
    return [_view(entry, drift) for entry, drift in drifts.items() if drift.rows]


def _view(entry: Entry, drift: AnchorDrift) -> DriftView:
    anchors = sorted(drift.rows, key=lambda anchor: fmean(anchor.log_u))
    lost = sum(min(anchor.log_u) < -STEPS[-1] for anchor in anchors)
    return DriftView(
        entry.name,
        len(anchors),
        drift.store,
        fmean(value for anchor in anchors for value in anchor.log_u),
        100 * lost / len(anchors),
        tuple(_anchor(anchor) for anchor in anchors[:ANCHORS_SHOWN]),
    )


def _anchor(anchor: DriftedAnchor) -> AnchorView:
    log_u = anchor.log_u
    worst = log_u.index(min(log_u))
    start = max(0, min(worst - TOKENS_SHOWN // 2, len(log_u) - TOKENS_SHOWN))
    shown = slice(start, start + TOKENS_SHOWN)
    tokens = tuple(
        Token(cut(text, TOKEN_ROOM)[0], value, shade(value))
        for text, value in zip(anchor.tokens[shown], log_u[shown], strict=True)
    )
    prompt, _ = cut(anchor.prompt, PROMPT_ROOM, keep_end=True)
    named = tuple(t for t in sorted(tokens, key=lambda t: t.log_u)[:WORST] if t.shade.startswith("down"))
    left_out = len(log_u) - len(tokens)
    return AnchorView(anchor.task, anchor.prompt_id, prompt, fmean(log_u), min(log_u), tokens, named, left_out)


def shade(log_u: float) -> str:
    """Which of the shades a token has."""
    steps = sum(abs(log_u) >= step for step in STEPS)
    return f"{'down' if log_u < 0 else 'up'}{steps}" if steps else ""
