"""Spider and BIRD from folders as their authors lay them out, schema prompts with descriptions, bounded prompts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import DphrlError
from dphrl.tasks import load_task
from dphrl.tasks.schema_text import schema_text
from dphrl.types import Prompt, Task, item_of
from dphrl.verifiers.registry import verifier_of

TABLE = """
CREATE TABLE "school list"(cdscode TEXT PRIMARY KEY, charter INTEGER, note TEXT);
INSERT INTO "school list" VALUES ('c1', 1, 'a'), ('c2', 0, 'b'), ('c3', 1, 'c');
"""
DESCRIPTION = """\
original_column_name,column_name,column_description,data_format,value_description
CDSCode,,CDSCode,text,
 charter ,Charter School,,integer,"0: no charter
1: charter"
note,,%s,text,
"""
BIRD_ROWS = [
    {
        "question_id": 7,
        "db_id": "schools",
        "question": "How many charter schools?",
        "evidence": "charter refers to charter = 1",
        "SQL": 'SELECT count(*) FROM "school list" WHERE charter = 1',
        "difficulty": "simple",
    },
    {"question_id": 9, "db_id": "schools", "question": "Which?", "evidence": "", "SQL": "SELECT 1, 2"},
]


def database(path: Path, script: str = TABLE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def bird(tmp_path: Path) -> Path:
    """BIRD's two archives unpacked beside each other; the description file is Latin-1."""
    train = [{key: value for key, value in row.items() if key != "question_id"} for row in BIRD_ROWS]
    write(tmp_path / "train" / "train.json", train)
    write(tmp_path / "dev_20240627" / "dev.json", BIRD_ROWS)
    for folder in ("train/train_databases", "dev_20240627/dev_databases"):
        database(tmp_path / folder / "schools" / "schools.sqlite")
        descriptions = tmp_path / folder / "schools" / "database_description"
        descriptions.mkdir()
        (descriptions / "School List.csv").write_bytes((DESCRIPTION % ("Señor " + "x" * 200)).encode("latin-1"))
    return tmp_path


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    """Spider's folder, train in two files."""
    row = {"db_id": "schools", "question": "How many?", "query": 'SELECT count(*) FROM "school list"'}
    write(tmp_path / "train_spider.json", [row])
    write(tmp_path / "train_others.json", [row, row])
    write(tmp_path / "dev.json", [{**row, "question": "How many in dev?"}])
    database(tmp_path / "database" / "schools" / "schools.sqlite")
    return tmp_path


def text_of(task: Task, number: int = 0) -> str:
    """What the user message of a prompt says."""
    (message,) = task.prompts[number].prompt
    return str(message["content"])  # type: ignore[index]


def statuses(task: Task, *queries: str) -> list[str]:
    """What the verifier says of a query for each prompt."""
    return [v.status for v in task.verify([item_of(p, q) for p, q in zip(task.prompts, queries, strict=True)])]


def test_bird(bird: Path) -> None:
    task = load_task("t", TaskConfig(name="bird", data=str(bird), split="dev"), base_dir=Path())
    assert [prompt.id for prompt in task.prompts] == ["7", "9"]
    assert text_of(task) == (
        "Task overview: you are a data science expert. "
        "Below are a database schema and a question in natural language.\n"
        "Understand the schema and write a valid SQL query that answers the question.\n\n"
        "Database engine: SQLite\n\n"
        "Database schema:\n"
        'CREATE TABLE "school list" (\n'
        "    cdscode TEXT, -- example: ['c1', 'c2']\n"
        "    charter INTEGER, -- Charter School: 0: no charter; 1: charter; example: [1, 0]\n"
        f"    note TEXT, -- Señor {'x' * 154}...; example: ['a', 'b']\n"
        "    PRIMARY KEY (cdscode)\n"
        ");\n\n"
        "External knowledge:\ncharter refers to charter = 1\n\n"
        "Question:\nHow many charter schools?\n\n"
        "Instructions:\n"
        "- Return only what the question asks for: no further column, nothing left out.\n"
        "- Think step by step about how to get there, then give the query in one code block:\n"
        "```sql\n-- your query\n```"
    )
    assert "External knowledge" not in text_of(task, 1) and ");\n\nQuestion:\nWhich?" in text_of(task, 1)
    assert (
        statuses(task, *(verifier_of("sql").gold_completion(p.columns["gold"]) for p in task.prompts))
        == ["correct"] * 2
    )
    assert statuses(task, "SELECT 2", "SELECT 2, 1") == ["correct", "wrong"], "columns by position"


@pytest.mark.parametrize("folder", [".", "train"])
def test_bird_train_has_no_ids(bird: Path, folder: str) -> None:
    task = load_task("t", TaskConfig(name="bird", data=folder), base_dir=bird)
    assert [prompt.id for prompt in task.prompts] == ["row-0000000", "row-0000001"]
    assert "train_databases" in str(task.prompts[0].columns["db"])


def test_spider(spider: Path) -> None:
    train = load_task("t", TaskConfig(name="spider", data=str(spider)), base_dir=Path())
    assert [prompt.id for prompt in train.prompts] == ["row-0000000", "row-0000001", "row-0000002"]
    dev = load_task("t", TaskConfig(name="spider", data=str(spider), split="dev"), base_dir=Path())
    assert len(dev.prompts) == 1 and "How many in dev?" in text_of(dev)
    assert "example: ['c1', 'c2']" in text_of(dev) and "knowledge" not in text_of(dev)
    assert statuses(dev, "SELECT DISTINCT 3") == ["correct"], "DISTINCT is taken out"
    (spider / "train_others.json").unlink()
    assert len(load_task("t", TaskConfig(name="spider", data=str(spider)), base_dir=Path()).prompts) == 1


def test_files_of_lines_stand_in(spider: Path) -> None:
    rows = json.loads((spider / "dev.json").read_text())
    (spider / "dev.json").unlink()
    write(spider / "dev.jsonl", rows * 4)
    assert len(load_task("t", TaskConfig(name="spider", data=".", split="dev"), base_dir=spider).prompts) == 4


def test_databases_may_lie_elsewhere(spider: Path) -> None:
    (spider / "database").rename(spider / "moved")
    settings = {"data": ".", "split": "dev", "verifier_args": {"db_dir": "moved"}}
    task = load_task("t", TaskConfig(name="spider", **settings), base_dir=spider)  # type: ignore[arg-type]
    assert "moved" in str(task.prompts[0].columns["db"])
    assert statuses(task, "SELECT 3") == ["correct"]


def test_another_verifier_still_sees_the_schema(spider: Path) -> None:
    task = load_task("t", TaskConfig(name="spider", data=".", split="dev", verifier="exact"), base_dir=spider)
    assert "CREATE TABLE" in text_of(task)
    assert statuses(task, 'SELECT count(*) FROM "school list"') == ["correct"]


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (
            lambda f: None,
            {"data": ""},
            "spider needs task.data: the folder that holds train_spider.json, database, dev",
        ),
        (lambda f: None, {"data": "none"}, "'none' does not exist"),
        (lambda f: None, {"data": "dev.json"}, "is a file; .*task.name jsonl"),
        (lambda f: None, {"split": "dve"}, "is not one of train, dev; did you mean 'dev'"),
        (lambda f: (f / "train_spider.json").unlink(), {}, "none of train_spider.json, train_spider.jsonl"),
        (lambda f: (f / "database").rename(f / "x"), {}, "none of database; .*task.verifier_args.db_dir"),
        (lambda f: (f / "database" / "schools" / "schools.sqlite").unlink(), {}, "schools.sqlite .*does not exist"),
        (lambda f: write(f / "train_spider.json", []), {}, "holds no row"),
    ],
)
def test_folders_that_lack_something(
    spider: Path, damage: Callable[[Path], object], settings: dict[str, Any], message: str
) -> None:
    damage(spider)
    with pytest.raises(DphrlError, match=message):
        load_task("t", TaskConfig(name="spider", **{"data": ".", **settings}), base_dir=spider)


def test_descriptions_are_left_out_where_nobody_asks(bird: Path) -> None:
    db = bird / "train" / "train_databases" / "schools" / "schools.sqlite"
    assert "Charter School" in schema_text(db, descriptions=True)
    assert "Charter School" not in schema_text(db)
    assert "-- Charter School: 0: no charter; 1: charter\n" in schema_text(db, examples=0, descriptions=True)
    assert "--" not in schema_text(db, examples=0)


# The bound on a prompt's tokens


def characters(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.prompt)  # type: ignore[index]


def bounded(bird: Path, bound: int, **settings: Any) -> Task:
    cfg = TaskConfig(name="bird", data=str(bird), split="dev", limit=1, prompt_tokens=bound, **settings)
    return load_task("t", cfg, base_dir=Path(), count_tokens=characters)


def test_a_prompt_loses_examples_then_descriptions(bird: Path) -> None:
    """Each length is one more than fits, so that the next step is taken, and no further one."""
    whole = text_of(bounded(bird, 10**6))
    assert bounded(bird, len(whole)).notes == ()
    one = bounded(bird, len(whole) - 1)
    assert one.notes == (f"1 of 1 prompts: 1 example value a column instead of 2 to fit {len(whole) - 1:,} tokens",)
    assert "example: [1]" in text_of(one) and "['c1']" in text_of(one)
    none = bounded(bird, len(text_of(one)) - 1)
    assert none.notes == (f"1 of 1 prompts: example values dropped to fit {len(text_of(one)) - 1:,} tokens",)
    assert "example" not in text_of(none) and "Charter School" in text_of(none)
    bare = bounded(bird, len(text_of(none)) - 1)
    assert "example values and descriptions of columns dropped" in bare.notes[0] and len(bare.notes) == 1
    assert "--" not in text_of(bare).split("Question:")[0]
    hopeless = bounded(bird, len(text_of(bare)) - 1)
    assert text_of(hopeless) == text_of(bare), "as short as it can be"
    assert [note.split(" tokens")[0] for note in hopeless.notes][1:] == [
        f"1 of 1 prompts do not fit {len(text_of(bare)) - 1:,}"
    ]
    assert hopeless.notes[1].endswith("however short: 7")


def test_the_schema_column_says_what_the_prompt_says(bird: Path) -> None:
    task = bounded(bird, 900)
    assert task.notes and str(task.prompts[0].columns["schema"]) in text_of(task)


def test_only_what_a_database_has_is_said_to_be_dropped(spider: Path) -> None:
    """Spider has no descriptions, and an empty table has no examples."""
    cfg = TaskConfig(name="spider", data=str(spider), split="dev", prompt_tokens=1)
    assert [note.split(":")[1] for note in load_task("t", cfg, base_dir=Path()).notes][:1] == [
        " example values dropped to fit 1 tokens (estimated"
    ]
    database(spider / "database" / "empty" / "empty.sqlite", "CREATE TABLE t(a)")
    write(spider / "dev.json", [{"db_id": "empty", "question": "q", "query": "SELECT 1"}])
    (note,) = load_task("t", cfg, base_dir=Path()).notes
    assert "1 of 1 prompts do not fit" in note


def test_a_schema_of_the_users_own_is_not_touched(spider: Path) -> None:
    write(spider / "rows.jsonl", [{"question": "q", "gold": "1", "schema": "CREATE TABLE x"}])
    cfg = TaskConfig(data="rows.jsonl", template="{schema} {question}", prompt_tokens=1)
    task = load_task("t", cfg, base_dir=spider)
    assert task.prompts[0].prompt == "CREATE TABLE x q"
    assert [note.split(",")[0] for note in task.notes] == ["1 of 1 prompts do not fit 1 tokens"]
