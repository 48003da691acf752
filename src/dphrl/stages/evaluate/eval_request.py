"""`dphrl eval --model A --model B --tasks ...`: what the words of the command line ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.config.load import build_config, load_config, to_dict
from dphrl.config.overrides import with_overrides
from dphrl.config.root import Config
from dphrl.config.sources import KeepSetConfig, TaskConfig
from dphrl.errors import ConfigError, nearest
from dphrl.runs.eval_dir import NAME, NAMED_PATH, Model, is_evaldir, read_evaldir
from dphrl.tasks.ready import ready_task

DRIFT_DRAWS = 4
"""eval.drift where --drift asks for it without a number."""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One evaluation without a run."""

    config: Config
    models: tuple[Model, ...]
    base_dir: Path
    """Folder of the config file, where relative paths are looked up first."""


def eval_request(
    models: Sequence[str],
    *,
    tasks: str | None = None,
    base: str | None = None,
    config: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> EvalRequest:
    """Models, tasks and settings of the command line together.

    Args:
        models: PATH, NAME=PATH or NAME@SEED=PATH, at least one.
        tasks: names of ready tasks, with commas; None = the eval_tasks of the config.
        base: name of the base; None = the directory's own, else the first model.
        config: YAML file of settings, the config of a run for instance; None = the defaults.
        overrides: "dotted.key" -> text; they come last.
    Raises:
        ConfigError: an unknown task or base, two models of one name, or a setting that `load_config` refuses.
    """
    values: dict[str, Any] = {} if config is None else to_dict(load_config(config, base_dir=config.parent))
    if tasks is not None:
        values["eval_tasks"] = _tasks(tasks)
    if config is not None and "out" not in (overrides or {}):
        values["out"] = ""  # a run's own directory is never this one's
    built = build_config(with_overrides(values, overrides or {}))
    base_dir = Path() if config is None else config.parent
    return EvalRequest(built, _with_base([parse_model(text) for text in models], base, built.out), base_dir)


def parse_model(text: str) -> Model:
    """'grpo@1=runs/grpo-s1/train/final' -> name grpo-s1, method grpo, seed 1. Without NAME= the last part of the path
    is the name; of a run's RUN/train/final, RUN.

    Raises:
        ConfigError: the path has no such part; names the remedy.
    """
    named = NAMED_PATH.fullmatch(text)
    if named is not None:
        name, seed = named["name"], named["seed"]
        folder = name if seed is None else f"{name}-s{int(seed)}"
        return Model(folder, named["path"], name, int(seed or 0))
    parts = Path(text).parts
    last = parts[-3] if parts[-2:] == ("train", "final") and len(parts) > 2 else (parts or ("",))[-1]
    if not NAME.fullmatch(last):
        raise ConfigError(f"--model {text!r} gives no name; write NAME={text}")
    return Model(last, text, last)


def _with_base(models: Sequence[Model], base: str | None, out: str) -> tuple[Model, ...]:
    names = [model.name for model in models]
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if doubled:
        raise ConfigError(f"--model: two models are called {doubled[0]!r}; give each its own name: NAME=PATH")
    old = read_evaldir(Path(out)).base if out and is_evaldir(Path(out)) else None
    known = list(dict.fromkeys([*names, *([] if old is None else [old.name])]))
    if base is not None and base not in known:
        raise ConfigError(f"--base {base!r} is none of the models{nearest(base, known)}; there are: {', '.join(known)}")
    chosen = base or (names[0] if old is None else old.name)
    return tuple(Model(m.name, m.path, m.method, m.seed, m.name == chosen) for m in models)


def _tasks(text: str) -> dict[str, dict[str, str]]:
    """'gsm8k,demo:arithmetic' -> {"gsm8k": {"name": "gsm8k"}, "arithmetic": {"name": "demo:arithmetic", ...}}."""
    tasks: dict[str, dict[str, str]] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        split = ready_task(word).eval_split  # refuses an unknown one
        label = KeepSetConfig(task=TaskConfig(name=word)).label  # the one rule for what a task is called
        if label in tasks:
            raise ConfigError(f"--tasks: {label!r} comes twice; name each task once")
        tasks[label] = {"name": word, "split": split} if split else {"name": word}
    if not tasks:
        raise ConfigError("--tasks is empty; name at least one, e.g. --tasks gsm8k,math500")
    return tasks
