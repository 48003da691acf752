"""Tasks from files: columns, templates, ids, schema prompts, and errors that name what is wrong."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError, DphrlError
from dphrl.tasks import load_task
from dphrl.tasks.prompt_template import parse_template
from dphrl.tasks.ready import FAMILIES, all_ready_tasks
from dphrl.tasks.schema_text import schema_text
from dphrl.types import Task, Verdict, item_of

ROWS = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}", "nr": f"q{i}"} for i in range(5)]


def as_jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def judged(task: Task, completions: Sequence[str]) -> list[Verdict]:
    """Verdicts on one completion of each of the first prompts."""
    return task.verify([item_of(p, text) for p, text in zip(task.prompts, completions, strict=False)])


def as_json(path: Path, rows: Sequence[Any]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def as_parquet(path: Path, rows: Sequence[Any]) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), path)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Task]:
    """Load a task from rows; settings as keyword arguments."""

    def load(rows: Sequence[Any] = ROWS, *, columns: dict[str, str] | None = None, **settings: Any) -> Task:
        as_jsonl(tmp_path / "rows.jsonl", rows)
        columns = {"gold": "answer"} if columns is None else columns
        return load_task("t", TaskConfig(data="rows.jsonl", columns=columns, **settings), base_dir=tmp_path)

    return load


@pytest.mark.parametrize(("suffix", "write"), [("jsonl", as_jsonl), ("json", as_json), ("parquet", as_parquet)])
def test_files(tmp_path: Path, suffix: str, write: Callable[[Path, Sequence[Any]], None]) -> None:
    write(tmp_path / f"rows.{suffix}", ROWS)
    task = load_task("t", TaskConfig(data=f"rows.{suffix}", columns={"gold": "answer"}), base_dir=tmp_path)
    assert [prompt.id for prompt in task.prompts] == [f"row-{i:07d}" for i in range(5)]
    assert task.prompts[1].prompt == "What is 1 + 1?"
    assert task.prompts[1].columns == {**ROWS[1], "gold": "#### 2"}
    assert judged(task, ["The answer is 2."] * 5)[1].correct


def test_paths_are_looked_up_beside_the_config_then_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    cfg = TaskConfig(data="rows.jsonl", columns={"gold": "answer"})
    monkeypatch.chdir(tmp_path)
    as_jsonl(tmp_path / "rows.jsonl", ROWS[:1])
    assert len(load_task("t", cfg, base_dir=tmp_path / "recipes").prompts) == 1
    as_jsonl(tmp_path / "recipes" / "rows.jsonl", ROWS[:2])
    assert len(load_task("t", cfg, base_dir=tmp_path / "recipes").prompts) == 2


def test_offset_and_limit_keep_the_numbers_of_the_rows(load: Callable[..., Task]) -> None:
    assert [prompt.id for prompt in load(offset=1, limit=2).prompts] == ["row-0000001", "row-0000002"]
    assert [prompt.id for prompt in load(offset=4, limit=9).prompts] == ["row-0000004"]


def test_ids_from_a_column(load: Callable[..., Task]) -> None:
    assert [p.id for p in load(columns={"gold": "answer", "id": "nr"}, limit=2).prompts] == ["q0", "q1"]
    assert [p.id for p in load([{**ROWS[0], "id": 17}]).prompts] == ["17"]


def test_chat_and_templates(load: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{{Q}}: {question} {hint}\n")
    rows = [{**ROWS[0], "hint": None}, {**ROWS[1], "hint": "{question.x}"}]
    prompts = load(rows, template_file="prompt.txt", chat=True, system="Add.").prompts
    assert prompts[0].prompt == (
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "{Q}: What is 0 + 0? \n"},
    )
    assert prompts[1].prompt[1]["content"] == "{Q}: What is 1 + 1? {question.x}\n"  # type: ignore[index]
    assert load(rows, chat=True).prompts[0].prompt == ({"role": "user", "content": "What is 0 + 0?"},)


@pytest.mark.parametrize("text", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0.__class__}", "a } b", "{ a", "{{a}"])
def test_templates_take_names_only(text: str) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        parse_template("first\n" + text)


def test_a_template_may_be_plain() -> None:
    assert parse_template("no field").fill({}) == "no field"
    assert parse_template("{a}{b c}{a}").fill({"a": "1", "b c": "{a}"}) == "1{a}1"


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "holds no row"),
        (ROWS, {"offset": 5}, "leaves none of the 5 rows"),
        (ROWS, {"template": "{questio}"}, "did you mean 'question'.*question, answer, nr"),
        (ROWS, {"columns": {"gold": "anwser"}}, "did you mean 'answer'"),
        (ROWS, {"columns": {}}, "no column 'gold'"),
        ([*ROWS, {"answer": "1"}], {}, "row 5 .*no column 'question'"),
        ([{**row, "id": i // 2} for i, row in enumerate(ROWS * 2)], {}, "5 ids are not unique, first 0, 1, 2;"),
        ([{**ROWS[0], "id": None}], {}, "row 0 .*null id"),
        ([[1]], {}, "line 1 holds a list"),
        (ROWS, {"system": "Add."}, "needs task.chat"),
        (ROWS, {"template_file": "none.txt"}, "none.txt' does not exist"),
        (ROWS, {"template_file": "none.txt", "template": "{question}"}, "take one out"),
        (ROWS, {"name": "jsnl"}, "task.name='jsnl' is not one of jsonl, .*did you mean 'jsonl'"),
        (ROWS, {"verifier": "mathh"}, "did you mean 'math'"),
        (ROWS, {"verifier_args": {"deadline": 1}}, "did you mean 'deadline_s'"),
    ],
)
def test_errors_name_what_is_wrong(
    load: Callable[..., Task], rows: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DphrlError, match=message):
        load(rows, **settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not valid JSON"),
        ("rows.jsonl", b'{"a": "\xff"}\n', "cannot be read"),
        ("rows.json", b'{"a": 1}', "must hold a list"),
        ("rows.json", b"[", "not valid JSON"),
        ("rows.json", b"[" * 100_000, "nested too deeply"),
        ("rows.parquet", b"no", "no readable Parquet"),
        ("rows.csv", b"a,b", "must be a .jsonl, .json, .parquet file"),
        (None, b"", "does not exist; looked for"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str | None, content: bytes, message: str) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_task("t", TaskConfig(data=name or "rows.jsonl"), base_dir=tmp_path)


def test_a_datasets_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, *, split: str) -> Any:
        asked.append((name, subset, split))
        if name == "none":
            raise ConnectionError("offline")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    cfg = TaskConfig(data="openai/gsm8k", subset="main", split="test", columns={"gold": "answer"})
    assert len(load_task("t", cfg, base_dir=tmp_path).prompts) == 5
    assert asked == [("openai/gsm8k", "main", "test")]
    with pytest.raises(DataError, match=r"ConnectionError: offline.*\.jsonl"):
        load_task("t", TaskConfig(data="none"), base_dir=tmp_path)


def test_a_demo_task(tmp_path: Path) -> None:
    whole = load_task("mine", TaskConfig(data="demo:in_domain"), base_dir=tmp_path)
    part = load_task("mine", TaskConfig(data="demo:in_domain", offset=2, limit=3), base_dir=tmp_path)
    assert (part.name, part.prompts) == ("mine", whole.prompts[2:5])
    with pytest.raises(ConfigError, match="take out task"):
        load_task("mine", TaskConfig(data="demo:in_domain", system="x"), base_dir=tmp_path)
    with pytest.raises(DataError, match="leaves none"):
        load_task("mine", TaskConfig(data="demo:in_domain", offset=10**6), base_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"take out task\.name"):
        load_task("mine", TaskConfig(name="gsm8k", data="demo:in_domain"), base_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"take out task\.verifier$"):
        load_task("mine", TaskConfig(data="demo:in_domain", verifier="exact"), base_dir=tmp_path)
    assert TaskConfig(data="demo:in_domain") == TaskConfig(name="demo:in_domain")
    settings = TaskConfig(data="demo:in_domain", template="{question}", chat=False, verifier="math", split="train")
    assert load_task("mine", settings, base_dir=tmp_path).prompts == whole.prompts


def test_solutions_of_text(load: Callable[..., Task]) -> None:
    assert load().solution("a  b\n c ") == "a b c"


def test_solutions_of_sql(sql_folder: Path) -> None:
    solution = load_sql(sql_folder).solution
    assert solution("So ```sql\nSELECT  A from T;\n```") == solution("select a FROM t")


# Databases


@pytest.fixture
def sql_folder(tmp_path: Path) -> Path:
    """shop.sqlite twice, as a database by name and as a path, and rows that ask about it."""
    for path in (tmp_path / "dbs" / "shop" / "shop.sqlite", tmp_path / "plain.sqlite"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                """
                CREATE TABLE item(id INTEGER PRIMARY KEY, "unit price" REAL, name TEXT, photo BLOB);
                INSERT INTO item VALUES
                    (1, 2.5, 'tea', x'00'), (2, NULL, 'long ' || hex(zeroblob(100)), NULL), (3, 4, 'x', NULL);
                CREATE TABLE sale(item INTEGER REFERENCES item(id), day TEXT, PRIMARY KEY (item, day));
                """
            )
    as_jsonl(
        tmp_path / "rows.jsonl", [{"question": "How many?", "query": "SELECT count(*) FROM item", "db_id": "shop"}]
    )
    return tmp_path


def load_sql(folder: Path, **settings: Any) -> Task:
    values = {"columns": {"gold": "query", "db": "db_id"}, "verifier_args": {"db_dir": "dbs"}} | settings
    return load_task("sql", TaskConfig(data="rows.jsonl", verifier="sql", **values), base_dir=folder)


def test_a_prompt_with_its_schema(sql_folder: Path) -> None:
    task = load_sql(sql_folder, template="{schema}\n{question}")
    assert task.prompts[0].prompt == (
        "CREATE TABLE item (\n"
        "    id INTEGER, -- example: [1, 2]\n"
        '    "unit price" REAL, -- example: [2.5, 4.0]\n'
        f"    name TEXT, -- example: ['tea', 'long {'0' * 35}...']\n"
        "    photo BLOB,\n"
        "    PRIMARY KEY (id)\n"
        ");\n\n"
        "CREATE TABLE sale (\n"
        "    item INTEGER,\n"
        "    day TEXT,\n"
        "    PRIMARY KEY (item, day),\n"
        "    FOREIGN KEY (item) REFERENCES item (id)\n"
        ");\n"
        "How many?"
    )
    assert [v.status for v in judged(task, ["SELECT 3"])] == ["correct"]


def test_a_database_by_path_and_a_mode_of_its_own(sql_folder: Path) -> None:
    row = {"question": "q", "gold": "SELECT id, name FROM item", "db": "plain.sqlite", "mode": "bird"}
    as_jsonl(sql_folder / "rows.jsonl", [row])
    task = load_sql(sql_folder, columns={}, verifier_args={})
    assert task.prompts[0].columns["db"] == str(sql_folder / "plain.sqlite")
    assert [v.status for v in judged(task, ["SELECT name, id FROM item"])] == ["wrong"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"verifier_args": {}}, "verifier_args.db_dir"),
        ({"verifier_args": {"db_dir": "nowhere"}}, "nowhere' does not exist"),
        ({"columns": {"gold": "query"}}, "no column 'db' .*did you mean 'db_id'"),
        ({"columns": {"gold": "query", "db": "question"}}, "does not exist; check"),
    ],
)
def test_databases_that_are_not_there(sql_folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DphrlError, match=message):
        load_sql(sql_folder, **settings)


def test_schema_of_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    (tmp_path / "empty.sqlite").touch()
    for name, message in {"text": "cannot be read", "empty": "no table", "none": "does not exist"}.items():
        with pytest.raises(DataError, match=message):
            schema_text(tmp_path / f"{name}.sqlite")


def test_spider_prompts_load_with_their_schemas(shared_data: Path) -> None:
    task = load_task(
        "spider",
        TaskConfig(
            data="dev.jsonl",
            columns={"gold": "query", "db": "db_id"},
            template="{schema}\n\n{question}",
            chat=True,
            verifier="sql",
            verifier_args={"db_dir": "database", "mode": "spider"},
        ),
        base_dir=shared_data / "spider",
    )
    assert len(task.prompts) == 972
    assert all("CREATE TABLE" in prompt.prompt[0]["content"] for prompt in task.prompts)  # type: ignore[index]
    golds = [f"```sql\n{prompt.columns['gold']}\n```" for prompt in task.prompts[:50]]
    assert all(verdict.correct for verdict in judged(task, golds))


def test_gsm8k_prompts_load(shared_data: Path) -> None:
    cfg = TaskConfig(data="test.jsonl", columns={"gold": "answer"}, limit=100)
    task = load_task("gsm8k", cfg, base_dir=shared_data / "gsm8k")
    assert all(v.correct for v in judged(task, [p.columns["gold"] for p in task.prompts]))


def test_a_family_of_tasks_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "family_of_tests.py").write_text(
        "from dphrl.tasks.record import ReadyTask, TaskFamily\n"
        "from dphrl.tasks.read_rows import Loaded\n"
        "def rows(cfg, base_dir):\n"
        "    return Loaded([{'question': f'{cfg.name} {cfg.split} {n}', 'gold': str(n)} for n in range(3)])\n"
        "def task(name):\n"
        "    return ReadyTask(what=name, origin='here', chat=False, verifier='exact', source=rows, fixed=True)\n"
        "FAMILY = TaskFamily(task=task, members=('a', 'b'))\n"
    )
    monkeypatch.setitem(FAMILIES, "mine", "family_of_tests")
    task = load_task("t", TaskConfig(name="mine:a", split="x", offset=1), base_dir=tmp_path)
    assert [p.prompt for p in task.prompts] == ["mine:a x 1", "mine:a x 2"]
    assert {"mine:a", "mine:b"} <= dict(all_ready_tasks()).keys()
    with pytest.raises(ConfigError, match=r"mine:a brings its own prompts .*take out task\.columns"):
        load_task("t", TaskConfig(name="mine:a", columns={"gold": "x"}), base_dir=tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'demo:in_domain'"):
        load_task("t", TaskConfig(name="demos:in_domain"), base_dir=tmp_path)
