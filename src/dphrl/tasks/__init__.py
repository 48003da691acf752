"""A task = prompts + verifier + what makes two correct completions the same solution.

Any file or data set becomes one through `TaskConfig`; nothing needs to be programmed for it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dphrl.config import TaskConfig
from dphrl.errors import ConfigError, DataError, nearest
from dphrl.tasks.rows import Row, find_path, read_rows
from dphrl.tasks.schema import schema_text
from dphrl.tasks.template import Template, parse_template
from dphrl.types import Message, Prompt, Task
from dphrl.verifiers import load_verifier
from dphrl.verifiers.sql import DB_SUFFIXES, database_path
from dphrl.verifiers.sql_text import canonical_sql, extract_sql

__all__ = ["load_task"]

DEMO_PREFIX = "demo:"
NEEDED: dict[str, tuple[str, ...]] = {"math": ("gold",), "exact": ("gold",), "sql": ("gold", "db")}
"""Verifier -> fields it cannot do without; a function of the user's own needs none that we know of."""


def sql_solution(completion: str) -> str:
    """The completion's query but for space, comments, and letter case outside quotes."""
    return canonical_sql(extract_sql(completion))


def text_solution(completion: str) -> str:
    """The completion but for the amount of space."""
    return " ".join(completion.split())


SOLUTIONS: dict[str, Callable[[str], str]] = {"sql": sql_solution}
"""Verifier -> canonical form of a solution, where it is not `text_solution`."""


def load_task(name: str, cfg: TaskConfig, *, base_dir: Path) -> Task:
    """Load the prompts of a task and its verifier.

    Fields (id, gold, db, and every {field} of the template) are taken from the column that `cfg.columns` names, else
    from the column of the same name. Without ids, a row is called by its number in the file: row-0000017. The template
    of a task with databases may use {schema} (`schema.schema_text`). A null becomes the empty text. The verifier sees
    every column of the row and every mapped field.

    Args:
        name: what the task is called in reports.
        cfg: see `TaskConfig`; "demo:NAME" brings its own prompts and verifier, of which `split`, `offset` and `limit`
            choose.
        base_dir: folder of the config file; relative paths are looked up there first, then where the command runs.
    Returns:
        At least one prompt; ids are unique.
    Raises:
        DataError: a file or column that is missing, bad JSON, doubled ids, no row left.
        ConfigError: a template that is none, a system message without chat, settings that a demo task cannot follow.
        VerifierError: an unknown verifier or argument.
    """
    if cfg.data.startswith(DEMO_PREFIX):
        return _demo_task(name, cfg)
    if cfg.system is not None and not cfg.chat:
        raise ConfigError(f"task {name!r}: task.system needs task.chat: true (or put the text into task.template)")
    args = _verifier_args(cfg, base_dir)
    verify = load_verifier(cfg.verifier, args)
    template = parse_template(_template_text(cfg, base_dir))
    rows = list(enumerate(read_rows(cfg.data, subset=cfg.subset, split=cfg.split, base_dir=base_dir)))
    chosen = rows[cfg.offset :][: cfg.limit]
    if not chosen:
        raise DataError(f"task {name!r}: task.offset={cfg.offset} leaves none of the {len(rows)} rows of {cfg.data!r}")
    prompts = tuple(_prompt(number, row, cfg, template, args.get("db_dir"), base_dir) for number, row in chosen)
    _check_ids(name, prompts)
    return Task(name, prompts, verify, SOLUTIONS.get(cfg.verifier, text_solution))


def _demo_task(name: str, cfg: TaskConfig) -> Task:
    from dphrl.demo.tasks import load_demo_task

    default = TaskConfig()
    for setting in ("subset", "columns", "template", "template_file", "chat", "system", "verifier_args"):
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


def _template_text(cfg: TaskConfig, base_dir: Path) -> str:
    if cfg.template_file is None:
        return cfg.template
    return find_path(cfg.template_file, base_dir, "task.template_file").read_text(encoding="utf-8")


def _prompt(number: int, row: Row, cfg: TaskConfig, template: Template, db_dir: str | None, base_dir: Path) -> Prompt:
    """One row as a prompt; `number` is its place in the file, from 0."""
    makes_schema = "schema" in template.fields and "schema" not in row and "schema" not in cfg.columns
    fields = {*cfg.columns, *NEEDED.get(cfg.verifier, ()), *template.fields} - ({"schema"} if makes_schema else set())
    columns = row | {field: _cell(row, number, field, cfg) for field in sorted(fields)}
    key = columns.get("id", f"row-{number:07d}")
    if key is None:
        raise DataError(f"row {number} of {cfg.data!r} has a null id")
    if makes_schema or cfg.verifier == "sql":
        database = _database(_cell(row, number, "db", cfg), db_dir, base_dir)
        columns["db"] = str(database)
        if makes_schema:
            columns["schema"] = schema_text(database)
    text = template.fill({field: _text(columns[field]) for field in template.fields})
    return Prompt(str(key), _messages(cfg.system, text) if cfg.chat else text, columns)


def _cell(row: Row, number: int, field: str, cfg: TaskConfig) -> Any:
    column = cfg.columns.get(field, field)
    if column not in row:
        raise DataError(
            f"row {number} of {cfg.data!r} has no column {column!r} for field {field!r}{nearest(column, row)}; "
            f"it has {', '.join(row)}; name the right one in task.columns.{field}"
        )
    return row[column]


def _database(db: Any, db_dir: str | None, base_dir: Path) -> Path:
    """The database of a row, which must be there: a missing one would make every verdict a `gold_error`."""
    if db_dir is None and str(db).endswith(DB_SUFFIXES):
        return find_path(str(db), base_dir, "db")
    path = database_path(db, db_dir)
    if not path.is_file():
        raise DataError(f"database {path} of db={db!r} does not exist; check task.verifier_args.db_dir")
    return path


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _messages(system: str | None, text: str) -> tuple[Message, ...]:
    messages = () if system is None else ({"role": "system", "content": system},)
    return (*messages, {"role": "user", "content": text})


def _check_ids(name: str, prompts: Sequence[Prompt]) -> None:
    doubled = [key for key, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if doubled:
        raise DataError(
            f"task {name!r}: {len(doubled)} ids are not unique, first {', '.join(doubled[:3])}; everything joins by "
            "id, so mend them, or map task.columns.id to another column"
        )
