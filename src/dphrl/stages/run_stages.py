"""All stages of one run, in order. A stage is skipped if its output exists."""

from __future__ import annotations

from pathlib import Path

from dphrl.config.root import Config
from dphrl.engines.trl import check_installed
from dphrl.errors import ConfigError
from dphrl.progress import Progress, silent
from dphrl.runs.run_dir import RunDir, open_run
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.plan.plan import plan_run
from dphrl.stages.presample.presample import presample
from dphrl.stages.presample.training_prompts import needs_presamples
from dphrl.stages.report.write_report import write_report
from dphrl.stages.train.train import train


def run_stages(
    config: Config, *, base_dir: Path = Path(), progress: Progress = silent, allow_change: bool = False
) -> RunDir:
    """Pre-sample, train, evaluate base and trained model, write the report.

    Args:
        base_dir: folder that relative paths of the config refer to.
        allow_change: see `train`.
    Raises:
        ConfigError: TRL is not installed. DataError: what `dphrl plan` refuses; both before anything is drawn.
        DphrlError: see the stages.
    """
    begun = open_run(config, allow_change=allow_change)  # before stage 1 compares the config with that of the training
    if not config.eval_tasks:
        raise ConfigError("eval_tasks is empty, so there is nothing to measure; name at least one task")
    if not begun.is_trained:
        check_installed()
        plan_run(config, base_dir=base_dir, gpus=1, progress=progress)  # or it would end after hours of drawing
    if config.base_run is None and needs_presamples(config):
        presample(config, base_dir=base_dir, progress=progress)
    train(config, base_dir=base_dir, progress=progress, allow_change=allow_change)
    finished = evaluate(config, base_dir=base_dir, progress=progress)
    write_report([finished.root], base_dir=base_dir, progress=progress)
    return finished
