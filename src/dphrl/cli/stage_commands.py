"""`dphrl demo`, `run`, `plan`, `presample`, `merge`, `train` and `eval`: what makes a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
from click import option

from dphrl.cli.settings_command import PATH, SettingsCommand, config_file, read_config
from dphrl.errors import ConfigError
from dphrl.stages.demo.demo_options import OPTIONS, DemoSettings

if TYPE_CHECKING:
    from dphrl.config.root import Config
    from dphrl.progress import Progress
    from dphrl.runs.run_dir import RunDir
    from dphrl.stages.evaluate.run_harness import HarnessRequest

JSON = option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON instead of tables.")
ALLOW_CHANGE = option("--allow-change", is_flag=True, help="Go on with a training though settings or data changed.")
Overrides = dict[str, str]

RUN_MODELS = ("base", "final", "both", "checkpoints")
"""What --model of `eval` names in a run; any other word is a model itself."""


class _Stage(Protocol):
    def __call__(self, config: Config, *, base_dir: Path, progress: Progress) -> RunDir: ...


def _demo_options(function: Callable[..., None]) -> Callable[..., None]:
    for name, each in reversed(OPTIONS.items()):
        kind = PATH if each.kind is Path else each.kind
        function = option(f"--{name}", type=kind, help=each.help_text)(function)
    return function


@click.command()
@_demo_options
@option("--quick", is_flag=True, help="A smoke run of every stage, at most a minute.")
@option("--sweep", is_flag=True, help="Many weights of each method: the frontier figure.")
@JSON
def demo(as_json: bool, **options: Any) -> None:
    """Compare methods on a small built-in world, on this machine.

    The world holds text-to-SQL questions with several right readings. It was built to show diversity collapse.
    """
    from dphrl.stages.demo.demo import run_demo

    run_demo(DemoSettings.of(**options), as_json=as_json)


@click.command(cls=SettingsCommand)
@config_file
@ALLOW_CHANGE
@JSON
def run(config: Path | None, overrides: Overrides, allow_change: bool, as_json: bool) -> None:
    """Pre-sample, train, measure and report."""
    from dphrl.stages.run_stages import run_stages as stage

    _end("run", _run("run", partial(stage, allow_change=allow_change), config, overrides), as_json)


@click.command(cls=SettingsCommand)
@config_file
@option("--gpus", type=int, help="GPUs that train, >= 1 [8].")
def plan(config: Path | None, overrides: Overrides, **gpus: int | None) -> None:
    """Check settings, data and model files of a run, and print what it would do.

    No weights are loaded and nothing is written.
    """
    from dphrl.progress import shown
    from dphrl.stages.plan.plan import plan_run as stage
    from dphrl.stages.plan.plan_text import plan_text

    settings, base_dir = read_config(config, overrides)
    given = {name: number for name, number in gpus.items() if number is not None}
    with shown() as progress:
        planned = stage(settings, base_dir=base_dir, progress=progress, **given)
    click.echo(plan_text(planned))


@click.command("verl-command", cls=SettingsCommand)
@config_file
@option("--gpus", type=int, help="GPUs of a node, >= 1 [8].")
@option("--nodes", type=int, help="Nodes that train, >= 1 [1].")
@option("--mode", help="verl's trainer mode: sync, colocate_async or separate_async [sync].")
@option("--rollout-nodes", type=int, help="separate_async: nodes that draw alone, >= 1.")
@option("--rollout", "engine", help="What draws: vllm or sglang [vllm].")
@option("--data", type=PATH, help="Folder that `dphrl export verl` writes [RUN/verl].")
def verl_command(config: Path | None, overrides: Overrides, data: Path | None, **cluster: Any) -> None:
    """Print the command that trains on verl as a config says, with batch sizes translated.

    Nothing is run and verl need not be installed. What cannot be translated is refused by name.
    """
    from dphrl.engines.verl.cluster import Cluster
    from dphrl.stages.verl_command import verl_command as stage

    settings, _ = read_config(config, overrides)
    given = {name: value for name, value in cluster.items() if value is not None}
    assert config is not None
    click.echo(stage(settings, Cluster(**given), file=config, overrides=overrides, data=data))


@click.command(cls=SettingsCommand)
@config_file
@option("--shard", metavar="i/N", help="Draw for a share of the prompts only; `dphrl merge` joins the shares.")
def presample(config: Path | None, overrides: Overrides, shard: str | None) -> None:
    """Draw from the initial policy, verify, split the prompts, make the anchors."""
    from dphrl.stages.presample.presample import presample as stage
    from dphrl.stages.presample.prompt_share import parse_share

    share = None if shard is None else parse_share(shard)
    _end("presample", _run("presample", partial(stage, shard=share), config, overrides))


@click.command()
@click.argument("runs", metavar="SHARD_RUN...", nargs=-1, required=True, type=PATH)
@option("--out", type=PATH, required=True, help="The new run directory.")
@option("--config", type=PATH, help="Its folder is where relative paths begin [as the shares had it].")
def merge(runs: tuple[Path, ...], out: Path, config: Path | None) -> None:
    """Join the runs of `dphrl presample --shard i/N` into one."""
    from dphrl.progress import shown
    from dphrl.stages.presample.merge_shares import merge_shares as stage

    with shown() as progress:
        joined = stage(list(runs), out, base_dir=None if config is None else config.parent, progress=progress)
    _end("merge", joined.root)


@click.command(cls=SettingsCommand)
@config_file
@ALLOW_CHANGE
def train(config: Path | None, overrides: Overrides, allow_change: bool) -> None:
    """Train the policy on the prompts and anchors."""
    from dphrl.stages.train.train import train as stage

    _end("train", _run("train", partial(stage, allow_change=allow_change), config, overrides))


def _run(name: str, stage: _Stage, config: Path | None, overrides: Overrides) -> Path:
    """A stage on the settings of a file; the run directory."""
    from dphrl.progress import shown
    from dphrl.stages.train.launch import check_alone

    if name != "train":
        check_alone(name)
    settings, base_dir = read_config(config, overrides)
    with shown() as progress:
        return stage(settings, base_dir=base_dir, progress=progress).root


def _end(name: str, root: Path, as_json: bool | None = None) -> None:
    """The last lines of a stage; as_json=None: it measured nothing, so there are no tables."""
    if as_json is not None:
        from dphrl.report.terminal import show_comparison
        from dphrl.stages.compare.compare import compare_runs

        show_comparison(compare_runs([root], root / "report", baseline="base"), as_json=as_json)
    if not as_json:
        page = root / "report" / "index.html"
        if as_json is not None:
            click.echo(f"Page: {page}" if page.is_file() else f"Page: `dphrl report {root}` makes it")
        click.echo(f"{name}: done, see {root}")


@click.command("eval", cls=SettingsCommand)
@config_file
@option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Of a run: base, final, both [both], or checkpoints, those of its training on 32 prompts a "
    "task. Without a run: NAME=PATH, a folder or name (the name may be left out; "
    "NAME@SEED=PATH for one of several training seeds). May be repeated.",
)
@option("--tasks", help="With --model PATH: ready tasks and demo:NAME, e.g. gsm8k,math500.")
@option("--base", metavar="NAME", help="With --model PATH: the model that keep and explore refer to [the first].")
@option("--n", type=int, help="Completions drawn per prompt, as --eval.n.")
@option("--drift", is_flag=True, help="Measure entropy and KL to the base too, on 4 draws a prompt (eval.drift).")
@option("--lm-eval", metavar="TASKS", help="Run tasks of lm-evaluation-harness too (pip install 'dphrl[lm-eval]').")
@option(
    "--lm-eval-arg",
    "lm_eval_args",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of lm_eval.simple_evaluate, e.g. limit=100 or apply_chat_template=true, or include_path=FOLDER "
    "of your own YAML tasks. May be repeated.",
)
@JSON
def evaluate(
    config: Path | None,
    overrides: Overrides,
    models: tuple[str, ...],
    tasks: str | None,
    base: str | None,
    n: int | None,
    drift: bool,
    lm_eval: str | None,
    lm_eval_args: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sample from models; measure Pass@k with intervals, and what is kept and newly found."""
    own = [word for word in models if word not in RUN_MODELS]
    if own and len(own) < len(models):
        named = next(word for word in models if word in RUN_MODELS)
        raise ConfigError(
            f"--model {named} names a model of a run, and the others are models themselves; give its folder, e.g. "
            f"--model {named}=RUN/train/final"
        )
    for name, value in (("--tasks", tasks), ("--base", base)):
        if value is not None and not own:
            raise ConfigError(f"{name} needs models: --model NAME=PATH; a run says what it measures (eval_tasks)")
    settings = overrides | _as_settings(overrides, n, drift)
    harness = _harness(lm_eval, lm_eval_args)
    if own:
        root = _evaluate_models(own, tasks, base, config, settings, harness)
    else:
        root = _run("eval", partial(_evaluate_run, frozenset(models), harness), config, settings)
    _end("eval", root, None if set(models) == {"checkpoints"} else as_json)


def _as_settings(overrides: Overrides, n: int | None, drift: bool) -> Overrides:
    """--n and --drift of `eval` as the settings that they are."""
    from dphrl.stages.evaluate.eval_request import DRIFT_DRAWS

    options = {"eval.n": n, "eval.drift": DRIFT_DRAWS if drift else None}
    for key, value in options.items():
        if value is not None and key in overrides:
            raise ConfigError(f"--{key.removeprefix('eval.')} and --{key} say the same thing; give one of them")
    return {key: str(value) for key, value in options.items() if value is not None}


def _harness(tasks: str | None, arguments: tuple[str, ...]) -> HarnessRequest | None:
    """What --lm-eval asks for, checked before anything is drawn."""
    if tasks is None:
        if arguments:
            raise ConfigError("--lm-eval-arg is of lm-evaluation-harness; add --lm-eval TASKS, or take it out")
        return None
    from dphrl.stages.evaluate.run_harness import harness_request

    return harness_request(tasks, arguments)


def _evaluate_run(
    words: frozenset[str], harness: HarnessRequest | None, config: Config, *, base_dir: Path, progress: Progress
) -> RunDir:
    from dphrl.stages.evaluate.evaluate import MODELS
    from dphrl.stages.evaluate.evaluate import evaluate as stage

    both = not words or "both" in words
    models = [name for name in (*MODELS, "checkpoints") if name in words or (both and name in MODELS)]
    return stage(config, base_dir=base_dir, models=models, harness=harness, progress=progress)


def _evaluate_models(
    words: list[str],
    tasks: str | None,
    base: str | None,
    config: Path | None,
    overrides: Overrides,
    harness: HarnessRequest | None,
) -> Path:
    """Models without a run: an evaluation directory."""
    from dphrl.progress import shown
    from dphrl.stages.evaluate.eval_request import eval_request
    from dphrl.stages.evaluate.evaluate_models import evaluate_models

    request = eval_request(words, tasks=tasks, base=base, config=config, overrides=overrides)
    with shown() as progress:
        directory = evaluate_models(
            request.config, request.models, base_dir=request.base_dir, harness=harness, progress=progress
        )
    return directory.root
