"""All stages of one run, in order; each is skipped where its output is there."""

from __future__ import annotations

from pathlib import Path

from dphrl.config import ANCHOR_METHODS, Config
from dphrl.progress import Progress, silent
from dphrl.stages.evaluate import evaluate
from dphrl.stages.presample import presample
from dphrl.stages.report import report
from dphrl.stages.rundir import RunDir
from dphrl.stages.train import train


def run(config: Config, *, base_dir: Path, progress: Progress = silent) -> RunDir:
    """Pre-sample, train, evaluate base and trained model, write the report."""
    if config.base_run is None and needs_presamples(config):
        presample(config, base_dir=base_dir, progress=progress)
    train(config, base_dir=base_dir, progress=progress)
    finished = evaluate(config, base_dir=base_dir, progress=progress)
    report([finished.root])
    return finished


def needs_presamples(config: Config) -> bool:
    """Whether training needs the sets or the anchors of stage 1."""
    choosy = config.train.prompts == "exploration" or config.train.exploration_filter is not None
    return config.method in ANCHOR_METHODS or choosy
