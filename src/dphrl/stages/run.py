"""All stages of one run, in order; each is skipped where its output is there."""

from __future__ import annotations

from pathlib import Path

from dphrl.config.root import ANCHOR_METHODS, Config
from dphrl.engines.trl import check_installed
from dphrl.progress import Progress, silent
from dphrl.runs.run_dir import RunDir, open_run
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.presample.presample import presample
from dphrl.stages.report.write_report import write_report
from dphrl.stages.train.train import train


def run(config: Config, *, base_dir: Path, progress: Progress = silent, allow_change: bool = False) -> RunDir:
    """Pre-sample, train, evaluate base and trained model, write the report.

    Args:
        allow_change: see `train`.
    """
    begun = open_run(config, allow_change=allow_change)  # before stage 1 compares the config with that of the training
    if not (begun.final / "config.json").exists():
        check_installed()
    if config.base_run is None and needs_presamples(config):
        presample(config, base_dir=base_dir, progress=progress)
    train(config, base_dir=base_dir, progress=progress, allow_change=allow_change)
    finished = evaluate(config, base_dir=base_dir, progress=progress)
    write_report([finished.root], base_dir=base_dir, progress=progress)
    return finished


def needs_presamples(config: Config) -> bool:
    """Whether training needs the sets or the anchors of stage 1."""
    choosy = config.train.prompts == "exploration" or config.train.exploration_filter is not None
    return config.method in ANCHOR_METHODS or choosy
