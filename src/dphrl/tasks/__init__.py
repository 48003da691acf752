"""A task = prompts + verifier + what makes two correct completions the same solution.

Ready tasks fill in what a config leaves out (`ready.READY`); any other file or data set becomes a task through
`TaskConfig` alone: nothing needs to be programmed for it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError
from dphrl.tasks import gym
from dphrl.tasks.prompts import CountTokens, Renderer
from dphrl.tasks.ready import READY, columns_of, ready_task, with_defaults
from dphrl.tasks.rows import find_path
from dphrl.tasks.styles import STYLES, text_style
from dphrl.tasks.template import parse_template
from dphrl.types import Prompt, Task, VerifyFn
from dphrl.verifiers import load_verifier

__all__ = ["DEMO_PREFIX", "READY", "load_task", "resolved"]

DEMO_PREFIX = "demo:"


def resolved(cfg: TaskConfig) -> TaskConfig:
    """The settings with what the ready task fills in, `columns` aside; doing it twice changes nothing.

    Raises:
        ConfigError: an unknown `name`.
    """
    return with_defaults(cfg, ready_task(cfg.name))


def load_task(name: str, cfg: TaskConfig, *, base_dir: Path, count_tokens: CountTokens | None = None) -> Task:
    """Load the prompts of a task and its verifier.

    What `cfg` does not say, its ready task does. Fields (id, gold, db, and every {field} of the template) are taken
    from the column that `cfg.columns` names, else from the ready task's, else from the column of the same name.
    Without ids, a row is called by its number in the data: row-0000017. The template of a task with databases may use
    {schema} (`schema.schema_text`), which is shortened where `cfg.prompt_tokens` bounds the prompts. A null becomes
    the empty text. The verifier sees every column of the row and every mapped field.

    Args:
        name: what the task is called in reports.
        cfg: see `TaskConfig`; "demo:NAME" brings its own prompts and verifier, of which `split`, `offset` and `limit`
            choose.
        base_dir: folder of the config file; relative paths are looked up there first, then where the command runs.
        count_tokens: prompt -> its tokens, those of a chat template among them; None = estimated by its characters,
            and the notes say so.
    Returns:
        At least one prompt; ids are unique; `notes` say what was shortened.
    Raises:
        DataError: a file or column that is missing, bad JSON, doubled ids, no row left.
        ConfigError: an unknown ready task, a template that is none, a system message without chat, settings that
            exclude each other or that the task cannot follow.
        VerifierError: an unknown verifier or argument.
    """
    if cfg.data.startswith(DEMO_PREFIX):
        return _demo_task(name, cfg)
    if cfg.template and cfg.template_file is not None:
        raise ConfigError(f"task {name!r}: task.template and task.template_file are both set; take one out")
    ready = ready_task(cfg.name)
    cfg = with_defaults(cfg, ready)
    if cfg.system is not None and not cfg.chat:
        raise ConfigError(f"task {name!r}: task.system needs task.chat: true (or put the text into task.template)")
    args = _verifier_args(cfg, base_dir)
    verify = _verifier(cfg, args)
    template = parse_template(_template_text(cfg, base_dir))
    loaded = ready.source(cfg, base_dir)
    chosen = list(enumerate(map(ready.derive, loaded.rows)))[cfg.offset :][: cfg.limit]
    if not chosen:
        raise DataError(
            f"task {name!r}: task.offset={cfg.offset} leaves none of the {len(loaded.rows)} rows of {cfg.data!r}"
        )
    cfg = dataclasses.replace(cfg, columns=columns_of(cfg, ready, chosen[0][1]))
    db_dir = args.get("db_dir", loaded.db_dir)
    renderer = Renderer(cfg, template, base_dir, db_dir, ready.descriptions, count_tokens)
    rendered = [renderer.render(number, row) for number, row in chosen]
    prompts = tuple(one.prompt for one in rendered)
    _check_ids(name, prompts)
    return Task(name, prompts, verify, STYLES.get(cfg.verifier, text_style), renderer.notes(rendered))


def _demo_task(name: str, cfg: TaskConfig) -> Task:
    from dphrl.demo.task import load_demo_task

    if cfg.name != TaskConfig().name:
        raise ConfigError(f"task {name!r}: {cfg.data} is a task itself; take out task.name or task.data")
    cfg, default = resolved(cfg), resolved(TaskConfig())
    for setting in (
        "subset",
        "columns",
        "template",
        "template_file",
        "chat",
        "system",
        "verifier",
        "verifier_args",
        "prompt_tokens",
    ):
        if getattr(cfg, setting) != getattr(default, setting):
            raise ConfigError(f"task {name!r}: {cfg.data} brings its own prompts and verifier; take out task.{setting}")
    task = load_demo_task(cfg.data.removeprefix(DEMO_PREFIX), split=cfg.split)  # type: ignore[arg-type]  # checked there
    prompts = task.prompts[cfg.offset :][: cfg.limit]
    if not prompts:
        raise DataError(f"task {name!r}: task.offset={cfg.offset} leaves none of the {len(task.prompts)} prompts")
    return dataclasses.replace(task, name=name, prompts=prompts)


def _verifier_args(cfg: TaskConfig, base_dir: Path) -> dict[str, Any]:
    args = dict(cfg.verifier_args)
    if "db_dir" in args:
        args["db_dir"] = str(find_path(str(args["db_dir"]), base_dir, "task.verifier_args.db_dir"))
    return args


def _verifier(cfg: TaskConfig, args: dict[str, Any]) -> VerifyFn:
    return gym.load_verifier(args) if cfg.verifier == gym.VERIFIER else load_verifier(cfg.verifier, args)


def _template_text(cfg: TaskConfig, base_dir: Path) -> str:
    if cfg.template_file is None:
        return cfg.template
    return find_path(cfg.template_file, base_dir, "task.template_file").read_text(encoding="utf-8")


def _check_ids(name: str, prompts: Sequence[Prompt]) -> None:
    doubled = [key for key, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if doubled:
        raise DataError(
            f"task {name!r}: {len(doubled)} ids are not unique, first {', '.join(doubled[:3])}; everything joins by "
            "id, so mend them, or map task.columns.id to another column"
        )
