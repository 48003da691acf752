"""The tasks that are ready to use: what each fills in where the user says nothing.

To add one: an entry in `READY`, a line in docs/tasks.md, its number of rows in tests/tasks/test_ready.py. A family of
tasks that make their own prompts is a module with a `FAMILY`, and its line in `FAMILIES`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, nearest
from dphrl.tasks.benchmark_rows import BIRD, SPIDER, boxed_answer, load_folder, with_context, with_knowledge
from dphrl.tasks.read_rows import Row
from dphrl.tasks.record import ReadyTask, TaskFamily

BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
_SQL_PROMPT = """\
Task overview: you are a data science expert. Below are a database schema and a question in natural language.
Understand the schema and write a valid SQL query that answers the question.

Database engine: SQLite

Database schema:
{{schema}}

{knowledge}Question:
{{question}}

Instructions:
- Return only what the question asks for: no further column, nothing left out.
- Think step by step about how to get there, then give the query in one code block:
```sql
-- your query
```"""
SQL = _SQL_PROMPT.format(knowledge="")
SQL_WITH_KNOWLEDGE = _SQL_PROMPT.format(knowledge="{knowledge}")

ANY_FILE = "jsonl"
"""The task that fills in nothing, and takes any file."""
_PROBLEM = {"question": ("problem", "question"), "gold": ("answer",), "id": ("unique_id", "id", "idx")}


def _mathematics(what: str, data: str, **settings: Any) -> ReadyTask:
    """A task of the math verifier: a data set that `datasets` knows, or a file with the same columns."""
    defaults = {"split": "test", "template": BOXED, "fields": _PROBLEM}
    return ReadyTask(what=what, data=data, origin=f"{data}, or a file", **{**defaults, **settings})


READY: dict[str, ReadyTask] = {
    "jsonl": ReadyTask(
        what="any file or data set: columns, template and verifier as you set them",
        origin="the file or `datasets` name in task.data",
        chat=False,
    ),
    "gsm8k": _mathematics(
        "grade-school word problems (7,473 train, 1,319 test)", "openai/gsm8k", subset="main", split="train"
    ),
    "math500": _mathematics("500 problems of MATH, five levels", "HuggingFaceH4/MATH-500"),
    # train is the only split that it has
    "aime24": _mathematics("AIME 2024, 30 problems with integer answers", "HuggingFaceH4/aime_2024", split="train"),
    "amc23": _mathematics("AMC 2023, 40 problems with integer answers", "math-ai/amc23"),
    "olympiadbench": _mathematics(
        "olympiad problems in English, text only (675)",
        "math-ai/olympiadbench",
        fields=_PROBLEM | {"gold": ("final_answer",)},
        derive=with_context,
    ),
    "minerva_math": _mathematics(
        "university physics, chemistry, mathematics (272)", "math-ai/minervamath", derive=boxed_answer
    ),
    "college_math": _mathematics("college textbook exercises (2,818)", "di-zhang-fdu/College_Math_Test"),
    "spider": ReadyTask(
        what="Spider 1.0: questions about 166 SQLite databases",
        origin="its folder, in task.data",
        template=SQL,
        verifier="sql",
        verifier_args={"mode": "spider"},
        fields={"gold": ("query",), "db": ("db_id",)},
        source=load_folder(SPIDER),
    ),
    "bird": ReadyTask(
        what="BIRD: questions with external knowledge about large SQLite databases",
        origin="its folder, in task.data",
        template=SQL_WITH_KNOWLEDGE,
        verifier="sql",
        verifier_args={"mode": "bird"},
        fields={"gold": ("SQL",), "db": ("db_id",), "id": ("question_id",)},
        source=load_folder(BIRD),
        derive=with_knowledge,
        descriptions=True,
    ),
}
"""Name -> task."""

FAMILIES: dict[str, str] = {"reasoning_gym": "dphrl.tasks.reasoning_gym", "demo": "dphrl.demo.task"}
"""PREFIX of a name PREFIX:MEMBER -> module that holds the family; imported when one of its tasks is asked for."""


def ready_task(name: str) -> ReadyTask:
    """The ready task of a name.

    Raises:
        ConfigError: there is none. DataError: a family has no such member.
    """
    prefix, colon, member = name.partition(":")
    if colon and prefix in FAMILIES:
        return _family(prefix).task(member)
    if name not in READY:
        known = [known for known, _ in all_ready_tasks()]
        raise ConfigError(
            f"task.name={name!r} is not one of {', '.join(known)}{nearest(name, known)}; "
            "`dphrl tasks` lists them, and jsonl takes any data of your own"
        )
    return READY[name]


def all_ready_tasks() -> Iterator[tuple[str, ReadyTask]]:
    """Name and record of every ready task, the members of the families last."""
    yield from READY.items()
    for prefix in FAMILIES:
        family = _family(prefix)
        yield from ((f"{prefix}:{member}", family.task(member)) for member in family.members)


def _family(prefix: str) -> TaskFamily:
    family: TaskFamily = importlib.import_module(FAMILIES[prefix]).FAMILY
    return family


def resolved(cfg: TaskConfig) -> TaskConfig:
    """The settings with everything that the user did not write filled in by the ready task.

    Empty text and null mean "not written"; none of these settings has a use for them. What belongs together goes
    together: the task's subset only with its own data, its verifier_args only with its own verifier.

    Returns:
        Settings that say all, but for `columns`: those need the first row (`columns_of`). Filling them in again
        changes nothing.
    Raises:
        ConfigError: an unknown `name`, or a setting that this task does not let the user set.
    """
    ready = ready_task(cfg.name)
    if ":" in cfg.data and cfg.data.partition(":")[0] in FAMILIES:
        raise ConfigError(f"task.data={cfg.data} is a task itself; take out task.name or task.data")
    if ready.fixed:
        _check_fixed(cfg, ready)
        cfg = TaskConfig(name=cfg.name, split=cfg.split, offset=cfg.offset, limit=cfg.limit)
    own_verifier = cfg.verifier in ("", ready.verifier)
    return dataclasses.replace(
        cfg,
        data=cfg.data or ready.data,
        subset=cfg.subset if cfg.subset or cfg.data not in ("", ready.data) else ready.subset,
        split=cfg.split or ready.split,
        template=cfg.template or ready.template,
        chat=ready.chat if cfg.chat is None else cfg.chat,
        verifier=cfg.verifier or ready.verifier,
        verifier_args={**(ready.verifier_args if own_verifier else {}), **cfg.verifier_args},
    )


def _check_fixed(cfg: TaskConfig, ready: ReadyTask) -> None:
    """Refuse what would change the prompts or the verifier; the defaults, written out, change nothing."""
    for setting in dataclasses.fields(TaskConfig):
        unset, value = getattr(TaskConfig(), setting.name), getattr(cfg, setting.name)
        of_task = getattr(ready, setting.name, unset)
        harmless = (unset, getattr(READY["jsonl"], setting.name, unset), of_task)
        if setting.name not in ("name", "split", "offset", "limit") and value not in harmless:
            raise ConfigError(
                f"task.name={cfg.name} brings its own prompts and verifier; name another task, or take out "
                f"task.{setting.name}"
            )


def columns_of(cfg: TaskConfig, ready: ReadyTask, row: Row) -> dict[str, str]:
    """Field -> column: the user's, else the first of the ready task's that the row has.

    A field that no column holds keeps the first name, which the error about it then says, but for the id, which not
    every file has.
    """
    columns = {
        name: next((column for column in candidates if column in row), candidates[0])
        for name, candidates in ready.fields.items()
        if name != "id" or any(column in row for column in candidates)
    }
    return columns | cfg.columns
