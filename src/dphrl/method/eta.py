"""The weight eta of the anchor penalty over training: a schedule, or a controller that holds a drift.

Drift is the anchors' forward-KL, metric `anchor/forward_kl`, in nats a token. The rules are pure; `EtaControl` carries
their one number through a run and its checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from dphrl.errors import ConfigError

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


class EtaControl(TrainerCallback, ExportableState):  # type: ignore[misc]
    """The eta of each optimiser step; what the controller has found is saved in each checkpoint's trainer state.

    Args:
        settings: of `DPHConfig`: eta, eta_schedule, eta_end, drift_target, eta_bounds; checked already.
        drift: called once at the end of each optimiser step by `target`; the same number on every rank.
    """

    def __init__(self, settings: Any, drift: Callable[[], float]) -> None:
        self._settings, self._drift = settings, drift
        self._next = float(settings.eta)
        self.eta = self._next
        """Of the running optimiser step; stays after its end, so that its log line can name it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._next = self.eta = float(self._settings.eta)
        if state.global_step and self._settings.eta_schedule == "target":
            saved = state.stateful_callbacks.get(type(self).__name__)
            if not saved:
                raise ConfigError(
                    f"the checkpoint of step {state.global_step} holds no eta, so it was not trained with "
                    "objective.eta_schedule=target; resume with its own settings, or start anew"
                )
            self._next = self.eta = float(saved["attributes"]["eta"])
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # saving writes only what is there

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        s = self._settings
        if s.eta_schedule == "target":
            self.eta = self._next
        else:
            end = s.eta_end or 0.0
            self.eta = scheduled_eta(s.eta_schedule, s.eta, end, step=state.global_step, steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        s = self._settings
        if s.eta_schedule == "target":
            low, high = s.eta_bounds or (s.eta / 100, s.eta * 100)
            self._next = controlled_eta(self.eta, self._drift(), target=s.drift_target, low=low, high=high)

    def state(self) -> dict[str, dict[str, float]]:
        """What a checkpoint holds: the eta of the step after it."""
        return {"args": {}, "attributes": {"eta": self._next}}
