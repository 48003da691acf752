"""Evaluation of a run: its initial policy and its trained model on the tasks of `eval_tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.models.fingerprint import weights_digest
from dphrl.models.policy import load_policy
from dphrl.progress import Progress, silent
from dphrl.report.model_card import write_model_card
from dphrl.runs.run_dir import RunDir, base_of, open_run
from dphrl.runs.training_start import read_training_start
from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.evaluate.measure_checkpoints import measure_checkpoints
from dphrl.stages.evaluate.measure_model import MeasuredBase, Subject, load_eval_tasks, measure_model
from dphrl.stages.evaluate.run_harness import HarnessRequest, HarnessTarget, run_harness
from dphrl.stages.evaluate.seen_prompts import contamination_check
from dphrl.stages.presample.draw_origin import ORIGIN, drawing_weights
from dphrl.stages.presample.presample import TASK

MODELS = ("base", "final")


def evaluate(
    config: Config,
    *,
    base_dir: Path = Path(),
    models: Sequence[str] = MODELS,
    harness: HarnessRequest | None = None,
    progress: Progress = silent,
) -> RunDir:
    """Make RUN/eval/MODEL for the initial policy (`base`), the trained one (`final`) and those in between
    (`checkpoints`, on a few prompts); finished tasks are kept.

    Args:
        base_dir: folder that relative paths of the config refer to.
        models: some of base, final and checkpoints.
        harness: tasks of lm-evaluation-harness to run too.
    Raises:
        ConfigError: no eval_tasks. RunDirError: no trained model or checkpoint, or a base_run without the base's
            samples.
    """
    run = open_run(config)
    if not config.eval_tasks:
        raise ConfigError("eval_tasks is empty; name at least one task to measure")
    initial = load_policy(config, trained=False)  # no weights are read
    tasks = load_eval_tasks(config, initial, base_dir)
    base = base_of(config, run)
    if "final" in models and not run.is_trained:
        raise RunDirError(f"{run.root} holds no trained model; run `dphrl train`, or measure the base: --model base")
    measures_base = config.eval.base and base == run
    if tuple(models) == ("base",) and not measures_base:
        raise ConfigError("the base is not measured here: eval.base is false, or base_run names the run that holds it")
    check = contamination_check(config, initial, base_dir=base_dir, progress=progress)
    if "base" in models and measures_base:
        subject = Subject(config, run.eval("base"), initial, tasks, None, check)
        if subject.has_work:
            check_initial_weights(config, run)
        measure_model(subject, progress)
    if "final" in models:
        remedy = f"run `dphrl eval --model base` in {base.root} first"
        reference = MeasuredBase(initial, base.eval("base"), remedy) if config.eval.base else None
        final = load_policy(config, str(run.final), trained=False)
        measure_model(Subject(config, run.eval("final"), final, tasks, reference, check), progress)
        compared = compare_runs([run.root], run.root / "report", baseline="base", resamples=config.eval.resamples)
        write_model_card(run, config, compared)
    if "checkpoints" in models:
        measure_checkpoints(config, run, tasks, progress)
    if harness is not None:
        run_harness(harness, config, harness_targets(config, models), progress)
    return run


def check_initial_weights(config: Config, run: RunDir) -> None:
    """Refuse a model that is not the one that the run drew from or trained: it would be measured as its base.

    It is read once more for it, as training reads it.

    Raises:
        RunDirError: the weights differ.
    """
    draws = run.draws(TASK)
    known = [(draws / ORIGIN, drawing_weights(draws))] if (draws / ORIGIN).exists() else []
    if run.started.exists():
        known.append((run.started, read_training_start(run.started).policy.get("weights")))
    if not known:
        return
    trained = load_policy(config)  # a bfloat16 model is drawn from in other numbers than it is trained in
    now = weights_digest(trained.model)
    trained.release()
    for file, weights in known:
        if weights != now:
            raise RunDirError(
                f"the weights of {config.model.path} (digest {now}) are not those that the run began with ({file}: "
                f"{weights}), so they are not its base; put the model back, or give another --out"
            )


def harness_targets(config: Config, models: Sequence[str]) -> list[HarnessTarget]:
    """The base, where it is measured at all, and the trained model of a run.

    Args:
        models: base and final, or one of them.
    """
    run = RunDir(Path(config.out))
    targets = []
    if "base" in models and config.eval.base:
        targets.append(HarnessTarget(base_of(config, run).eval("base"), config.model.path))
    if "final" in models:
        targets.append(HarnessTarget(run.eval("final"), str(run.final)))
    return targets
