"""Rows become prompts: fields, template, {schema}, chat messages, and the bound on a prompt's tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, listed, nearest
from dphrl.tasks.prompt_template import Template
from dphrl.tasks.read_rows import Row, find_path
from dphrl.tasks.schema_text import schema_text
from dphrl.types import Message, Prompt
from dphrl.verifiers.sql.database_file import DB_SUFFIXES, database_path
from dphrl.verifiers.verifier import Verifier

CountTokens = Callable[[Prompt], int]
CHARACTERS_PER_TOKEN = 3
"""Of the estimate, where no tokenizer is at hand; English and SQL have more."""
SHOWN_IDS = 20


@dataclass(frozen=True, slots=True)
class Detail:
    """How much {schema} says."""

    examples: int
    descriptions: bool
    lost: str = ""
    """What this leaves out, for the note."""


DETAILS = (
    Detail(2, True),
    Detail(1, True, "1 example value a column instead of 2"),
    Detail(0, True, "example values dropped"),
    Detail(0, False, "example values and descriptions of columns dropped"),
)
"""From long to short: what a prompt loses first comes first."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt, and what the bound on its tokens did to it."""

    prompt: Prompt
    lost: str = ""
    """`lost` of the detail its schema is shown at; empty where nothing is lost."""
    fits: bool = True


@dataclass(frozen=True, slots=True)
class Renderer:
    """What all prompts of a task share."""

    cfg: TaskConfig
    """With the ready task's defaults and columns filled in."""
    template: Template
    verifier: Verifier
    base_dir: Path
    db_dir: str | None
    descriptions: bool
    count_tokens: CountTokens | None

    def render(self, number: int, row: Row) -> Rendered:
        """One row as a prompt; `number` is its place in the data, from 0."""
        columns, database = self._columns(number, row)
        key = columns.get("id", f"row-{number:07d}")
        if key is None:
            raise DataError(f"row {number} of {self.cfg.data!r} has a null id")
        lost = ""
        if database is None:
            text = self._fill(columns)
        else:
            text, lost = self._with_schema(columns, database)
        return Rendered(Prompt(str(key), self._content(text), columns), lost, self._fits(text))

    def notes(self, rendered: Sequence[Rendered]) -> tuple[str, ...]:
        """What the prompts have lost to fit, and which are too long all the same."""
        limit = f"{self.cfg.prompt_tokens:,} tokens" if self.cfg.prompt_tokens else ""
        how = f" (estimated: {CHARACTERS_PER_TOKEN} characters a token)" if self.count_tokens is None else ""
        lost = Counter(one.lost for one in rendered)
        lines = [
            f"{lost[detail.lost]:,} of {len(rendered):,} prompts: {detail.lost} to fit {limit}{how}"
            for detail in DETAILS[1:]
            if lost[detail.lost]
        ]
        too_long = [one.prompt.id for one in rendered if not one.fits]
        if too_long:
            lines.append(
                f"{len(too_long):,} of {len(rendered):,} prompts do not fit {limit}, however short: "
                f"{listed(too_long, SHOWN_IDS)}{how}"
            )
        return tuple(lines)

    def _columns(self, number: int, row: Row) -> tuple[Row, Path | None]:
        """What the verifier sees, which gains a `schema` if the template asks for one; its database in that case."""
        cfg = self.cfg
        makes_schema = "schema" in self.template.fields and "schema" not in row and "schema" not in cfg.columns
        needed = {*cfg.columns, *self.verifier.columns, *self.template.fields}
        fields = needed - ({"schema"} if makes_schema else set())
        columns = row | {name: self._cell(row, number, name) for name in sorted(fields)}
        if not makes_schema and "db" not in self.verifier.columns:
            return columns, None
        database = self._database(self._cell(row, number, "db"))
        columns["db"] = str(database)
        return columns, database if makes_schema else None

    def _cell(self, row: Row, number: int, name: str) -> Any:
        column = self.cfg.columns.get(name, name)
        if column not in row:
            raise DataError(
                f"row {number} of {self.cfg.data!r} has no column {column!r} for field {name!r}{nearest(column, row)}; "
                f"it has {', '.join(row)}; name the right one in task.columns.{name}"
            )
        return row[column]

    def _database(self, db: Any) -> Path:
        """The database of a row, which must be there: a missing one would make every verdict a `gold_error`."""
        if self.db_dir is None and str(db).endswith(DB_SUFFIXES):
            return find_path(str(db), self.base_dir, "db")
        path = database_path(db, self.db_dir)
        if not path.is_file():
            raise DataError(f"database {path} of db={db!r} does not exist; check task.verifier_args.db_dir")
        return path

    def _with_schema(self, columns: Row, database: Path) -> tuple[str, str]:
        """The text with as much of the schema as fits, and what is lost; the column `schema` says the same."""
        text, lost = "", ""
        for detail in DETAILS:
            described = detail.descriptions and self.descriptions
            schema = schema_text(database, examples=detail.examples, descriptions=described)
            if schema == columns.get("schema"):  # this database has nothing of what is left out here
                continue
            columns["schema"] = schema
            text, lost = self._fill(columns), detail.lost
            if self._fits(text):
                break
        return text, lost

    def _fill(self, columns: Row) -> str:
        return self.template.fill({name: _text(columns[name]) for name in self.template.fields})

    def _fits(self, text: str) -> bool:
        if self.cfg.prompt_tokens is None:
            return True
        count = self.count_tokens or estimated_tokens
        return count(Prompt("", self._content(text))) <= self.cfg.prompt_tokens

    def _content(self, text: str) -> str | tuple[Message, ...]:
        return _messages(self.cfg.system, text) if self.cfg.chat else text


def estimated_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt where no tokenizer is at hand."""
    texts = [prompt.prompt] if isinstance(prompt.prompt, str) else [message["content"] for message in prompt.prompt]
    return math.ceil(sum(map(len, texts)) / CHARACTERS_PER_TOKEN)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _messages(system: str | None, text: str) -> tuple[Message, ...]:
    messages: Sequence[Message] = () if system is None else ({"role": "system", "content": system},)
    return (*messages, {"role": "user", "content": text})
