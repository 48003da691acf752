"""Tasks from settings: the rows of a data set as prompts, with the verifier that judges their completions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError
from dphrl.tasks.nested_columns import as_messages, value_at
from dphrl.tasks.prompt_template import parse_template
from dphrl.tasks.read_rows import Row, find_path
from dphrl.tasks.ready import ANY_FILE, columns_of, ready_task, resolved
from dphrl.tasks.record import ReadyTask
from dphrl.tasks.render_prompts import CountTokens, Renderer
from dphrl.tasks.verl_rows import UnfoldedRow, unfolded, verifier_of_rows
from dphrl.types import Prompt, Task
from dphrl.verifiers.registry import verifier_of, with_arguments
from dphrl.verifiers.verifier import Arguments


def load_task(name: str, cfg: TaskConfig, *, base_dir: Path, count_tokens: CountTokens | None = None) -> Task:
    """Load the prompts of a task and its verifier.

    What `cfg` does not say, its ready task does. Fields (id, gold, db, and every {field} of the template) are taken
    from the column that `cfg.columns` names, else from the ready task's, else from the column of the same name.
    Without ids, a row is called by its number in the data: row-0000017. The template of a task with databases may use
    {schema} (`schema_text`), which is shortened where `cfg.prompt_tokens` bounds the prompts. A null becomes the empty
    text. A field that is the whole template and holds chat messages is the prompt as it is. Names may have dots
    (`nested_columns`), and rows laid out for verl are taken as they are (`verl_rows`). The verifier sees every column
    of the row and every mapped field.

    Args:
        name: what the task is called in reports.
        cfg: see `TaskConfig`.
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
    return task_from(ready_task(cfg.name), name, cfg, base_dir=base_dir, count_tokens=count_tokens)


def task_from(
    ready: ReadyTask, name: str, cfg: TaskConfig, *, base_dir: Path, count_tokens: CountTokens | None = None
) -> Task:
    """As `load_task`, with the record of the ready task that `cfg` names."""
    if cfg.template and cfg.template_file is not None:
        raise ConfigError(f"task {name!r}: task.template and task.template_file are both set; take one out")
    given, cfg = cfg, resolved(cfg)
    if cfg.system is not None and not cfg.chat:
        raise ConfigError(f"task {name!r}: task.system needs task.chat: true (or put the text into task.template)")
    loaded = ready.source(cfg, base_dir)
    chosen = list(enumerate(loaded.rows))[cfg.offset :][: cfg.limit]
    if not chosen:
        raise DataError(
            f"task {name!r}: task.offset={cfg.offset} leaves none of the {len(loaded.rows)} rows of "
            f"{cfg.data or cfg.name!r}"
        )
    cfg = _judged_as_written(given, cfg, [row for _, row in chosen])
    verifier = verifier_of(cfg.verifier)
    args = _verifier_args(cfg, base_dir)
    own_args = {key: value for key, value in args.items() if not ready.generated or key in verifier.arguments}
    verify = with_arguments(verifier, own_args)
    rows = [(number, _derived(ready, row)) for number, row in chosen]
    first = rows[0][1]
    template = parse_template(_template_text(given, cfg, first, base_dir))
    cfg = dataclasses.replace(cfg, columns=columns_of(cfg, ready, first.named))
    db_dir = args.get("db_dir", loaded.db_dir)
    renderer = Renderer(
        cfg, template, verifier, base_dir, db_dir, ready.descriptions, count_tokens, one_text=given.chat is False
    )
    rendered = [renderer.render(number, row) for number, row in rows]
    prompts = tuple(one.prompt for one in rendered)
    if ready.fixed:  # the user maps none of its columns, so the verifier sees those that it reads
        read = verifier.columns
        prompts = tuple(dataclasses.replace(p, columns={name: p.columns[name] for name in read}) for p in prompts)
    _check_ids(name, prompts)
    _check_kinds(name, prompts)
    return Task(
        name,
        prompts,
        verify,
        solution=ready.solution or verifier.solution,
        answer=verifier.answer,
        verifier=cfg.verifier,
        verifier_args=own_args,
        notes=renderer.notes(rendered),
        frontier_limit=ready.frontier_limit,
    )


def is_chat(cfg: TaskConfig, base_dir: Path) -> bool:
    """Whether the prompts of a task are chat messages: as its settings say, or as its file has them.

    Raises:
        DphrlError: as `load_task`, where the settings leave it to the file.
    """
    if cfg.chat is not None or cfg.name != ANY_FILE:
        return bool(resolved(cfg).chat)
    first = load_task("task", dataclasses.replace(cfg, limit=1), base_dir=base_dir).prompts[0]
    return not isinstance(first.prompt, str)


def _verifier_args(cfg: TaskConfig, base_dir: Path) -> Arguments:
    db_dir = cfg.verifier_args.get("db_dir")
    if "db_dir" not in cfg.verifier_args:
        return cfg.verifier_args
    return cfg.verifier_args | {"db_dir": str(find_path(str(db_dir), base_dir, "task.verifier_args.db_dir"))}


def _template_text(given: TaskConfig, cfg: TaskConfig, first: UnfoldedRow, base_dir: Path) -> str:
    """The user's template, else the task's; where a task of any file has neither, rows may bring whole prompts."""
    if cfg.template_file is not None:
        return find_path(cfg.template_file, base_dir, "task.template_file").read_text(encoding="utf-8")
    own = bool(given.template) or cfg.name != ANY_FILE or "question" in cfg.columns
    return cfg.template if own or not _brings_prompts(first, cfg.columns.get("prompt", "prompt")) else "{prompt}"


def _brings_prompts(first: UnfoldedRow, column: str) -> bool:
    """Whether the rows have whole prompts: for verl, or chat messages and no question."""
    if first.verl:
        return True
    try:
        prompt = value_at(first.named, column)
    except KeyError:
        return False
    return "question" not in first.seen and as_messages(prompt, f"the first row, column {column!r}") is not None


def _judged_as_written(given: TaskConfig, cfg: TaskConfig, rows: Sequence[Row]) -> TaskConfig:
    """The settings with the verifier that the rows of a file for verl name, unless the user names another one."""
    named = verifier_of_rows(rows, given.verifier) if cfg.name == ANY_FILE else None
    if named is None:
        return cfg
    return dataclasses.replace(cfg, verifier=named.spec, verifier_args={**named.args, **cfg.verifier_args})


def _derived(ready: ReadyTask, row: Row) -> UnfoldedRow:
    """The row with what the ready task makes of it."""
    one = unfolded(row)
    seen = ready.derive(one.seen)
    return dataclasses.replace(one, seen=seen, named={**one.named, **seen})


def _check_ids(name: str, prompts: Sequence[Prompt]) -> None:
    doubled = [key for key, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if doubled:
        raise DataError(
            f"task {name!r}: {len(doubled)} ids are not unique, first {', '.join(doubled[:3])}; everything joins by "
            "id, so mend them, or map task.columns.id to another column"
        )


def _check_kinds(name: str, prompts: Sequence[Prompt]) -> None:
    kinds = [type(prompt.prompt) for prompt in prompts]
    if len(set(kinds)) > 1:
        other = prompts[next(i for i, kind in enumerate(kinds) if kind != kinds[0])]
        raise DataError(
            f"task {name!r}: the prompt {prompts[0].id!r} is {_KINDS[kinds[0]]}, and {other.id!r} is "
            f"{_KINDS[type(other.prompt)]}; a task has prompts of one kind"
        )


_KINDS = {str: "a text", tuple: "chat messages"}
