"""Run and evaluation directories as a comparison sees them: what they ran or measured, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dphrl.config.load import read_stored_config
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.report.comparison import Entry
from dphrl.report.setting_names import config_label, setting_names
from dphrl.runs.eval_dir import EvalDir, is_evaldir, read_evaldir


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run directory and what it ran, or an evaluation directory."""

    path: Path
    config: Config
    """Of an evaluation directory: how it was measured; nothing else in it has a meaning."""
    evaldir: EvalDir | None = None
    """Its models, where it is an evaluation directory."""
    setting: str = ""
    """What tells it from the other runs of its label, seeds aside; '' when nothing does."""

    @property
    def entry(self) -> Entry:
        """The line of the tables that its trained model belongs to."""
        return Entry(self.label, self.setting)

    @property
    def label(self) -> str:
        """grpo, dapo, rkl, replay, dph_f, ...; the name of an evaluation directory."""
        return config_label(self.config) if self.evaldir is None else self.path.resolve().name

    @property
    def base_only(self) -> bool:
        """Whether only the initial policy was measured, as in a folder that other runs name as their `base_run`."""
        folder = self.path / "eval"
        if self.evaldir is not None:
            return False
        return (folder / "base" / "summary.json").is_file() and not (folder / "final" / "summary.json").is_file()

    @property
    def trained(self) -> bool:
        """Whether it is a run whose trained model takes part."""
        return self.evaldir is None and not self.base_only

    @property
    def base_folder(self) -> Path | None:
        """Where the evaluation of the base lies: in the directory itself or in its `base_run`; None when nowhere."""
        if self.evaldir is not None:
            return None if self.evaldir.base is None else self.evaldir.folder(self.evaldir.base.name)
        places = [self.path]
        if self.config.base_run is not None:
            named = Path(self.config.base_run)
            places += [named, self.path.parent / named, self.path.parent / named.name]  # as it was, or moved together
        return next((p / "eval" / "base" for p in places if (p / "eval" / "base" / "summary.json").is_file()), None)

    @property
    def evaluate_again(self) -> str:
        """What to do where its evaluation is missing or damaged."""
        if self.evaldir is None:
            return f"run `dphrl eval --config {self.path / 'config.yaml'}`"
        return f"run the `dphrl eval --model ... --out {self.path}` that made it again"


def open_compared_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """Read what each run directory ran, or evaluation directory measured, and name what tells them apart.

    Raises:
        RunDirError: neither of the two.
        ConfigError: a config cannot be read.
    """
    runs = [_open(path) for path in paths]
    settings = setting_names([run.config if run.trained else None for run in runs])
    return [replace(run, setting=setting) for run, setting in zip(runs, settings, strict=True)]


def _open(path: Path) -> ComparedRun:
    if is_evaldir(path):
        evaldir = read_evaldir(path)
        return ComparedRun(path, replace(evaldir.measured_with or Config(), out=str(path)), evaldir)
    if not (path / "config.yaml").is_file():
        raise RunDirError(
            f"{path} is no run directory (it has no config.yaml) and no evaluation directory (no evaluation.json); "
            f"make one with `dphrl run --config FILE --out {path}`, or with `dphrl eval --model NAME --tasks NAME`"
        )
    return ComparedRun(path, read_stored_config(path / "config.yaml"))
