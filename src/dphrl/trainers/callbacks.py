"""What happens beside training: metrics to a file, progress to the screen, a stop at a generation's end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dphrl.progress import Progress


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """One JSON object a log step, appended by the main process; nan becomes null."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        row = {"step": state.global_step, **{k: _plain(v) for k, v in logs.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """Generations done, with the last logged reward."""

    def __init__(self, progress: Progress, label: str, updates: int) -> None:
        self._progress, self._label, self._updates = progress, label, updates
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._updates == 0:
            self._show(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and logs.get("reward") is not None:
            self._note = f"reward {logs['reward']:.3f}"

    def _show(self, state: Any) -> None:
        if state.is_world_process_zero:
            done, total = state.global_step // self._updates, state.max_steps // self._updates
            self._progress(self._label, done, total, self._note)


class StopAtGeneration(TrainerCallback):  # type: ignore[misc]
    """Once `asked` says so, saves a checkpoint and stops at the end of the running generation."""

    def __init__(self, asked: Callable[[], bool], updates: int) -> None:
        self._asked, self._updates = asked, updates

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._asked() and state.global_step % self._updates == 0:
            control.should_save = True
            control.should_training_stop = True


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
