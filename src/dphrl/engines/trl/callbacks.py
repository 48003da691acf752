"""What happens beside training: metrics to a file, progress and warnings to the screen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dphrl.method.collapse import WINDOW, TrainingWarning, warnings_of
from dphrl.progress import Progress
from dphrl.runs.training_log import append_metrics, read_metrics, read_warnings
from dphrl.types import MetricsRow


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """One JSON object a log step, appended by the main process; nan becomes null."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        append_metrics(self._path, {"step": state.global_step, **{k: _plain(v) for k, v in logs.items()}})


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """Generations done, with the mean reward of the last logged ones."""

    def __init__(self, progress: Progress, label: str, updates: int) -> None:
        self._progress, self._label, self._updates = progress, label, updates
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._updates == 0 and not control.should_log:  # a log line is about to bring the reward
            self._show(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and logs.get("reward") is not None:
            self._note = f"reward {logs['reward']:.3f}"
            if state.global_step % self._updates == 0:
                self._show(state)

    def _show(self, state: Any) -> None:
        if state.is_world_process_zero:
            done, total = state.global_step // self._updates, state.max_steps // self._updates
            self._progress(self._label, done, total, self._note)


class CollapseWarnings(TrainerCallback):  # type: ignore[misc]
    """Tells of each sign of `collapse.SIGNS` once a run, however often the run is resumed; by the main process.

    Args:
        metrics, told: metrics.jsonl and warnings.jsonl, without lines of steps that are trained again.
        warn: called with each `TrainingWarning`.
    """

    def __init__(self, metrics: Path, told: Path, warn: Callable[[TrainingWarning], None]) -> None:
        self._metrics, self._told, self._warn = metrics, told, warn
        self._rows: list[MetricsRow] = []
        self._known: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rows = read_metrics(self._metrics)
        self._known = {warning.metric for warning in read_warnings(self._told)}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self._rows.append({"step": state.global_step, **{k: _plain(v) for k, v in logs.items()}})
        if len(self._rows) > 2 * WINDOW:
            del self._rows[WINDOW]  # between the first and the last nothing is read
        for warned in warnings_of(self._rows):
            if warned.metric not in self._known:
                self._known.add(warned.metric)
                self._warn(warned)


class BeforeFirstStep(TrainerCallback):  # type: ignore[misc]
    """Calls `check` once the weights lie as they will train: under ZeRO-3 no forward is possible before."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
