"""Rows become prompts: fields, template, {schema}, chat messages, and the bound on a prompt's tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, listed, nearest
from dphrl.tasks.nested_columns import as_messages, names_of, value_at
from dphrl.tasks.prompt_template import Template
from dphrl.tasks.read_rows import Row, find_path
from dphrl.tasks.schema_text import schema_text
from dphrl.tasks.verl_rows import SENSES, UnfoldedRow, single_text
from dphrl.types import Message, Prompt
from dphrl.verifiers.sql.database_file import DB_SUFFIXES, database_path
from dphrl.verifiers.verifier import Verifier

CountTokens = Callable[[Prompt], int]
Content = str | tuple[Message, ...]
"""What a prompt is: a text, or chat messages."""
CHARACTERS_PER_TOKEN = 3
"""Of the estimate, where no tokenizer is at hand; English and SQL have more."""
SHOWN_IDS = 20
TEXT_GOLDS = ("math", "exact", "sql")
"""Verifiers whose gold is a text or a number."""


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
    one_text: bool = False
    """Whether chat messages in the data are to be read as a text, since the user writes chat: false."""

    def render(self, number: int, row: UnfoldedRow) -> Rendered:
        """One row as a prompt; `number` is its place in the data, from 0."""
        columns, database = self._columns(number, row)
        key = columns.get("id", f"row-{number:07d}")
        if key is None:
            raise DataError(f"row {number} of {self.cfg.data!r} has a null id")
        self._check_gold(number, columns)
        messages = self._given_messages(number, columns, row)
        if messages is not None:
            return Rendered(Prompt(str(key), messages, columns), "", self._fits(messages))
        lost = ""
        if database is None:
            text = self._fill(columns)
        else:
            text, lost = self._with_schema(columns, database)
        content = self._content(text)
        return Rendered(Prompt(str(key), content, columns), lost, self._fits(content))

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

    def _check_gold(self, number: int, columns: Row) -> None:
        """An object is no gold for a verifier that reads texts.

        Raises:
            DataError: names its members.
        """
        gold = columns.get("gold")
        if self.cfg.verifier in TEXT_GOLDS and isinstance(gold, Mapping):
            column = self.cfg.columns.get("gold", "gold")
            raise DataError(
                f"row {number} of {self.cfg.data!r}, column {column!r}: the gold is an object with "
                f"{', '.join(map(str, gold)) or 'no members'}; name one of them, e.g. "
                f"task.columns.gold={column}.{next(iter(gold), 'MEMBER')}"
            )

    def _given_messages(self, number: int, columns: Row, row: UnfoldedRow) -> Content | None:
        """The prompt of a row that holds it as chat messages, with the task's system message; None where it does not.

        Raises:
            DataError: images; a system message in both; text beside the messages; or see `as_messages`, `single_text`.
        """
        for field in dict.fromkeys(self.template.fields):
            where = f"row {number} of {self.cfg.data!r}, column {self.cfg.columns.get(field, field)!r}"
            value = columns.get(field)  # {schema} is not there yet
            messages = as_messages(value, where) if self._alone or not isinstance(value, str) else None
            if messages is None:
                continue
            if not self._alone:
                raise DataError(f"{where} holds chat messages; a template can only be all of them: '{{{field}}}'")
            for sense in SENSES:
                if row.named.get(sense):
                    raise DataError(
                        f"{where} has {sense} beside it; dphrl trains on texts alone, so leave such rows out"
                    )
            if self.one_text:
                return single_text(messages, where)
            return self._with_system(messages, where)
        return None

    @property
    def _alone(self) -> bool:
        """Whether the template is one field and nothing else."""
        return self.template.texts == ("", "")

    def _with_system(self, messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
        if self.cfg.system is None:
            return messages
        if any(message["role"] == "system" for message in messages):
            raise DataError(f"{where} holds a system message, and task.system is set too; take one out")
        return ({"role": "system", "content": self.cfg.system}, *messages)

    def _columns(self, number: int, row: UnfoldedRow) -> tuple[Row, Path | None]:
        """What the verifier sees, which gains a `schema` if the template asks for one; its database in that case."""
        cfg = self.cfg
        makes_schema = "schema" in self.template.fields and "schema" not in row.named and "schema" not in cfg.columns
        needed = {*cfg.columns, *self.verifier.columns, *self.template.fields}
        fields = needed - ({"schema"} if makes_schema else set())
        columns = row.seen | {name: self._cell(row, number, name) for name in sorted(fields)}
        if not makes_schema and "db" not in self.verifier.columns:
            return columns, None
        database = self._database(self._cell(row, number, "db"))
        columns["db"] = str(database)
        return columns, database if makes_schema else None

    def _cell(self, row: UnfoldedRow, number: int, name: str) -> Any:
        column = self.cfg.columns.get(name, name)
        try:
            return value_at(row.named, column)
        except KeyError:
            there = list(names_of(row.named))
            raise DataError(
                f"row {number} of {self.cfg.data!r} has no column {column!r} for field {name!r}"
                f"{nearest(column, there)}; it has {', '.join(there)}; name the right one in task.columns.{name}"
            ) from None

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
            if self._fits(self._content(text)):
                break
        return text, lost

    def _fill(self, columns: Row) -> str:
        return self.template.fill({name: self._shown(columns, name) for name in self.template.fields})

    def _shown(self, columns: Row, name: str) -> str:
        """A field's text; a list or an object has none that could be meant."""
        value = columns[name]
        if isinstance(value, list | tuple | Mapping):
            members = [one for one in names_of({name: value}, 2) if one != name]
            raise DataError(
                f"field {name!r} of the template holds {'an object' if members else 'a list'} ({str(value)[:60]}), "
                "which is no text; "
                + (
                    f"name a member in task.columns.{name}, e.g. {members[0]}"
                    if members
                    else "name a column of texts, or of chat messages as the whole template"
                )
            )
        return "" if value is None else str(value)

    def _fits(self, content: Content) -> bool:
        if self.cfg.prompt_tokens is None:
            return True
        count = self.count_tokens or estimated_tokens
        return count(Prompt("", content)) <= self.cfg.prompt_tokens

    def _content(self, text: str) -> Content:
        return _messages(self.cfg.system, text) if self.cfg.chat else text


def estimated_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt where no tokenizer is at hand."""
    texts = [prompt.prompt] if isinstance(prompt.prompt, str) else [message["content"] for message in prompt.prompt]
    return math.ceil(sum(map(len, texts)) / CHARACTERS_PER_TOKEN)


def _messages(system: str | None, text: str) -> tuple[Message, ...]:
    messages: Sequence[Message] = () if system is None else ({"role": "system", "content": system},)
    return (*messages, {"role": "user", "content": text})
