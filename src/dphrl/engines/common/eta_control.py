"""The weight eta of the anchor penalty at each optimiser step, carried through a run and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dphrl.errors import ConfigError
from dphrl.method.eta import controlled_eta, scheduled_eta


@dataclass(frozen=True, slots=True)
class EtaSettings:
    """`config.objective` says meaning, unit and range; they are checked where settings are."""

    eta: float
    schedule: str = "constant"
    end: float | None = None
    drift_target: float | None = None
    bounds: Sequence[float] | None = None

    @classmethod
    def of(cls, args: Any) -> EtaSettings:
        """Read from a trainer's arguments; without a weight (method without anchors) it is 0."""
        if args.eta is None:
            return cls(0.0)
        return cls(args.eta, args.eta_schedule, args.eta_end, args.drift_target, args.eta_bounds)


class EtaCourse:
    """Follows a schedule, or the drift that is measured (schedule `target`)."""

    def __init__(self, settings: EtaSettings) -> None:
        self._settings = settings
        self.now = float(settings.eta)
        """Eta of the running optimiser step. It stays until the next step begins, so that the log line can name it."""
        self.next = self.now
        """Eta of the step after that, with the schedule `target`. A checkpoint holds this value."""

    def begin(self, step: int, saved: float | None) -> None:
        """Start a training, or go on behind `step` steps with the `next` that their checkpoint holds.

        Raises:
            ConfigError: the checkpoint holds none, and the schedule cannot do without.
        """
        self.now = self.next = float(self._settings.eta)
        if step and self._settings.schedule == "target":
            if saved is None:
                raise ConfigError(
                    f"the checkpoint of step {step} holds no eta, so it was not trained with "
                    "objective.eta_schedule=target; resume with its own settings, or start anew"
                )
            self.now = self.next = saved

    def begin_step(self, step: int, steps: int) -> None:
        """Set `now` for an optimiser step (from 0) of `steps`."""
        s = self._settings
        if s.schedule == "target":
            self.now = self.next
        else:
            self.now = scheduled_eta(s.schedule, s.eta, s.end or 0.0, step=step, steps=steps)

    def end_step(self, drift: Callable[[], float]) -> None:
        """Set `next` from the drift of the step that ends (nats a token). Only `target` asks for it."""
        s = self._settings
        if s.schedule == "target":
            assert s.drift_target is not None
            low, high = s.bounds or (s.eta / 100, s.eta * 100)
            self.next = controlled_eta(self.now, drift(), target=s.drift_target, low=low, high=high)
