"""The weight eta of the anchor penalty over training: a schedule, or a controller that holds a drift.

Drift is the anchors' forward-KL, metric `anchor/forward_kl`, in nats a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable

GAIN = 0.1
"""Largest change of ln eta in one optimiser step: a factor of 1.1, or of e in ten steps."""

Share = Callable[[float], float]
"""Part of training done, 0..1 -> part of the way from the first eta to the last, 0..1."""

SCHEDULES: dict[str, Share] = {
    "constant": lambda done: 0.0,
    "linear": lambda done: done,
    "cosine": lambda done: (1 - math.cos(math.pi * done)) / 2,
}
"""`objective.eta_schedule` -> its course; `target` has none, it follows what is measured."""


def scheduled_eta(schedule: str, start: float, end: float, *, step: int, steps: int) -> float:
    """eta of one optimiser step: `start` at the first, `end` at the last.

    Args:
        schedule: a key of SCHEDULES.
        start, end: no unit, >= 0; a constant schedule reads `start` alone.
        step: optimiser step, from 0.
        steps: optimiser steps of the whole training (count, >= 1).
    Returns:
        A weight between start and end; exactly `start` for a constant schedule.
    Raises:
        Nothing; names are checked where settings are.
    """
    part = SCHEDULES[schedule](min(step / max(steps - 1, 1), 1.0))
    return start * (1 - part) + end * part


def controlled_eta(eta: float, drift: float, *, target: float, low: float, high: float) -> float:
    """eta of the next optimiser step, from the drift measured in this one: ln eta += GAIN * clip(drift/target - 1).

    The error is clipped to -1..1, so one noisy measurement moves eta by a factor of 1.1 at most; noise averages out
    over steps. At drift = target nothing moves.

    Args:
        eta: weight of this step, > 0.
        drift: forward-KL of the step's anchors (nats a token), of either sign; nan leaves eta where it is.
        target: what it should be (nats a token, > 0).
        low, high: bounds of eta, 0 < low <= high.
    Returns:
        A weight in [low, high].
    Raises:
        Nothing.
    Source: the adaptive KL controller of Ziegler et al., "Fine-Tuning Language Models from Human Preferences",
        arXiv:1909.08593, in ln eta and with a wider clip.
    """
    if math.isnan(drift):
        return eta
    error = min(max(drift / target - 1, -1.0), 1.0)
    return min(max(eta * math.exp(GAIN * error), low), high)
