"""What happens beside training, as transformers calls it: metrics to a file, progress and warnings to the screen, the
first check, eta of each step, the guard of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from dphrl.engines.common.eta_control import EtaCourse
from dphrl.engines.common.rounded_updates import loss_of_precision
from dphrl.engines.common.step_guard import StepGuard
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
    """Calls `check` once the weights lie as they will train: under ZeRO-3 no forward is possible before.

    A training that goes on from a checkpoint is not checked, since its weights have moved.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check: Callable[[], None] | None = check

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check, self._check = self._check, None
        if check is not None and state.global_step == 0:
            check()


class LossOfPrecision(TrainerCallback):  # type: ignore[misc]
    """Tells what 16-bit weights lose at this learning rate, where they lose something; by the main process."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if args.deepspeed_plugin is not None:  # it keeps float32 weights beside them
            return
        text = loss_of_precision(model.parameters(), args.learning_rate)
        if text is not None and state.is_world_process_zero:
            self._report(text)


class BeforeTraining(TrainerCallback):  # type: ignore[misc]
    """Calls `look` whenever training begins or goes on, once the weights lie as they will train."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look()


class Notes(TrainerCallback):  # type: ignore[misc]
    """Tells what was noted, once, when training begins and at the end of each step; by the main process.

    Args:
        notes: emptied when it is told.
        tell: called with each note.
    """

    def __init__(self, notes: list[str], tell: Callable[[str], None]) -> None:
        self._notes, self._tell = notes, tell

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        notes, self._notes[:] = list(self._notes), []
        for note in notes if state.is_world_process_zero else []:
            self._tell(note)

    on_step_end = on_train_begin


class EtaControl(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Moves an `EtaCourse` along; checkpoints hold its next eta under the name of this class.

    Args:
        drift: forward-KL of the anchors of the step that ends (nats a token), the same number on every process.
    """

    def __init__(self, course: EtaCourse, drift: Callable[[], float]) -> None:
        self._course, self._drift = course, drift

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        saved = state.stateful_callbacks.get(name)
        self._course.begin(state.global_step, float(saved["attributes"]["eta"]) if saved else None)
        state.stateful_callbacks.setdefault(name, self.state())  # saving writes only what is there

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._course.begin_step(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._course.end_step(self._drift)

    def state(self) -> dict[str, dict[str, float]]:
        """What a checkpoint holds: the eta of the step after it."""
        return {"args": {}, "attributes": {"eta": self._course.next}}


class GuardSteps(TrainerCallback):  # type: ignore[misc]
    """Lets `judge` decide whether the optimiser acts, and ends the training when the guard says so.

    Args:
        judge: optimiser step (from 1) -> whether its gradients must be dropped.
    """

    def __init__(self, guard: StepGuard, judge: Callable[[int], bool]) -> None:
        self._guard, self._judge = guard, judge

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._guard.begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if self._judge(state.global_step + 1):
            model.zero_grad(set_to_none=True)  # an optimiser passes over parameters without a gradient

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self._guard.check_weights(state.global_step + 1, model.parameters())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._guard.ends_training:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._guard.raise_failure()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
