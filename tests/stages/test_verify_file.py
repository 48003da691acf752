"""`dphrl verify`: JSON lines in, verdicts out; whole or not at all, and plain in its refusals."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.cli.main import main
from dphrl.errors import ConfigError
from dphrl.stages import verify_file as stage
from dphrl.stages.verify_file import _Ids, verifier_arguments, verify_file
from dphrl.types import STATUSES
from dphrl.verifiers.registry import verifier_of

SOURCE = Path(__file__).parents[2] / "src"
EXACT = {"completion": "a", "gold": "a"}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def lines(name: str, *rows: object) -> str:
    Path(name).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return name


def written(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


class Heard:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        self.calls.append((done, total))


def module(name: str, text: str) -> None:
    Path(f"{name}.py").write_text(text)


def test_verdicts_in_the_order_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids of all kinds, an empty line, text that is no UTF-8 and no end of the last line; wrong is no failure."""
    rows = [
        {"id": "b", **EXACT},
        {**EXACT, "completion": "\ud800"},
        {"id": 10, "completion": "", "gold": "x", "more": {"kept": [1]}},
        {"id": "1", "completion": "x\u2028", "gold": None},
    ]
    Path("in.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    assert main(["verify", "--task", "exact", "--file", "in.jsonl", "--out", "out.jsonl"]) == 0
    assert written("out.jsonl") == [
        {"id": "b", "correct": True, "reward": 1.0, "status": "correct", "detail": ""},
        {"id": 3, "correct": False, "reward": 0.0, "status": "wrong", "detail": ""},
        {"id": 10, "correct": False, "reward": 0.0, "status": "no_answer", "detail": "an empty completion"},
        {"id": "1", "correct": False, "reward": None, "status": "gold_error", "detail": "the gold column is empty"},
    ]
    *counts, rate, where = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in counts] == [
        [status, "1", "25.0"] for status in ("correct", "wrong", "no_answer", "gold_error")
    ]
    assert counts[-1].endswith("first: id '1': the gold column is empty")
    assert rate.startswith("4 completions in ") and rate.endswith(" completions/s") and where == "verdicts: out.jsonl"


def test_sql_with_its_database_and_mode() -> None:
    """The mode of a line comes before --arg's; a path is taken from here or from db_dir, not from the file's folder."""
    Path("dbs").mkdir()
    Path("pairs").mkdir()
    with closing(sqlite3.connect("dbs/shop.sqlite")) as connection:
        connection.executescript("CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2)")
    row = {"gold": "SELECT a, b FROM t", "completion": "```sql\nSELECT b, a FROM t\n```"}
    name = lines("pairs/in.jsonl", row | {"db": "shop.sqlite"}, row | {"db": "shop.sqlite", "mode": "spider"})
    summary = verify_file("sql", name, arguments=["mode=bird", "db_dir=dbs"])
    assert summary.statuses == {"wrong": 1, "correct": 1}
    lines("pairs/in.jsonl", row | {"db": "dbs/shop.sqlite"})
    assert verify_file("sql", name).statuses == {"correct": 1}
    lines("dbs/in.jsonl", row | {"db": "shop.sqlite"})
    summary = verify_file("sql", "dbs/in.jsonl")
    assert summary.statuses == {"gold_error": 1} and "shop.sqlite" in summary.unjudged["gold_error"]


def test_a_function_gets_all_keys_as_columns_whatever_the_first_line_has() -> None:
    module(
        "columns_of_tests",
        "def reward(completions, prompts, gold, hint, id, **others):\n"
        "    assert not others and prompts == ['q', [{'role': 'user', 'content': 'q'}]], (prompts, others)\n"
        "    assert completions == ['1', [{'role': 'assistant', 'content': '2'}]] and id == [1, 'z'], completions\n"
        "    return [1.0 if h == g else 0.5 for h, g in zip(hint, gold)]\n",
    )
    chat = [{"role": "user", "content": "q"}]
    rows = [{"completion": "1", "gold": 1, "prompt": "q"}, {"id": "z", "completion": "2", "hint": 5, "prompt": chat}]
    name = lines("in.jsonl", *rows)
    out = Path("out.jsonl")
    verify_file("columns_of_tests:reward", name, arguments=["correct_at=0.5"], out=out)
    assert [(row["id"], row["correct"], row["reward"]) for row in written("out.jsonl")] == [
        (1, True, 0.5),
        ("z", True, 0.5),
    ]


def test_a_function_that_ends_the_program_is_at_fault_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """SystemExit would end a run with status 0; a null prompt is an empty one."""
    module(
        "exits_of_tests",
        "import sys\n"
        "def reward(completions, prompts, **others):\n"
        "    assert set(prompts) == {''}\n"
        "    return [sys.exit(0) if text == 'exit' else 1.0 for text in completions]\n",
    )
    name = lines("in.jsonl", {"completion": "a", "prompt": None}, {"completion": "exit"}, {"completion": "b"})
    summary = verify_file("exits_of_tests:reward", name)
    assert summary.statuses == {"correct": 2, "verifier_error": 1}
    assert summary.unjudged == {"verifier_error": "id 2: SystemExit: 0"}
    module("exits_at_once_of_tests", "import sys\nsys.exit(0)\n")
    assert main(["verify", "--task", "exits_at_once_of_tests:f", "--file", name]) == 2
    assert "cannot import 'exits_at_once_of_tests' (SystemExit: 0)" in capsys.readouterr().err


@pytest.mark.parametrize("result", ["float('nan')", "10 ** 400", "'1'", "1j"])
def test_a_result_that_is_no_finite_number(result: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"number_of_tests_{abs(hash(result))}"
    module(name, f"def reward(completions, **others):\n    return [{result}] * len(completions)\n")
    assert main(["verify", "--task", f"{name}:reward", "--file", lines("in.jsonl", EXACT)]) == 2
    assert "must be a finite number" in capsys.readouterr().err


def test_standard_input_and_python_m_without_anything_heavy() -> None:
    """Plain text, and no torch; a stream that can be read once says how much it has read."""
    code = (
        "import sys; from dphrl.cli.main import main\n"
        "status = main(['verify', '--task', 'sql', '--file', '-', '--arg', 'mode=bird'])\n"
        "assert not [m for m in ('torch', 'transformers', 'trl', 'pyarrow', 'datasets') if m in sys.modules]\n"
        "sys.exit(status)"
    )
    with closing(sqlite3.connect("e.sqlite")) as connection:
        connection.execute("CREATE TABLE t(a)")
    given = json.dumps({"completion": "SELECT 1", "gold": "SELECT 1", "db": "e.sqlite"})
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for command in (["-c", code], ["-m", "dphrl", "verify", "--task", "sql", "--file", "-"]):
        result = subprocess.run(
            [sys.executable, *command], input=given, capture_output=True, text=True, env=environment, check=True
        )
        assert result.stdout.split()[:2] == ["correct", "1"] and "\x1b" not in result.stdout + result.stderr
        assert result.stderr.splitlines()[0] == "verify: 0/1 read so far"
        assert "verify: 1/1" in result.stderr.splitlines()[1]


def test_batches_do_not_change_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 x 50 = 50 x 1, by lines and by bytes; progress knows the total from the first."""
    name = lines("in.jsonl", *({"completion": str(i % 3), "gold": str(i % 2)} for i in range(50)))
    outputs, told = [], []
    for limit, value in (("BATCH_LINES", 50), ("BATCH_LINES", 1), ("BATCH_BYTES", 1), ("BATCH_LINES", 7)):
        heard = Heard()
        with monkeypatch.context() as patch:
            patch.setattr(stage, limit, value)
            verify_file("exact", name, out=Path("out.jsonl"), progress=heard)
        outputs.append(written("out.jsonl"))
        told.append(heard.calls)
    assert len(outputs[0]) == 50 and all(output == outputs[0] for output in outputs)
    assert told[0] == [(0, 50), (50, 50)] and told[3] == [*((n, 50) for n in range(0, 50, 7)), (50, 50)]
    assert len(told[1]) == len(told[2]) == 51


def out_of_reach(name: str) -> Callable[[], list[str]]:
    return lambda: ["--task", "exact", "--file", lines("in.jsonl", EXACT), "--out", name]


def file_of(*rows: object, task: str = "exact") -> Callable[[], list[str]]:
    return lambda: ["--task", task, "--file", lines("in.jsonl", *rows), "--out", "out.jsonl"]


def argument(task: str, *words: str) -> Callable[[], list[str]]:
    return lambda: [*file_of(EXACT, task=task)(), *(part for word in words for part in ("--arg", word))]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (lambda: ["--task", "exact", "--file", "none.jsonl"], "none.jsonl does not exist"),
        (lambda: ["--task", "exact", "--file", "."], "cannot be read"),
        (file_of(), "in.jsonl holds no line"),
        (file_of("", " "), "in.jsonl holds no line"),
        (file_of(EXACT, "{'a': 1}"), "in.jsonl line 2 is not valid JSON: Expecting property name"),
        (file_of(EXACT, "", '{"a": 1'), "in.jsonl line 3 is not valid JSON"),
        (file_of("[" * 100_000), "in.jsonl line 1 is not valid JSON: maximum recursion"),
        (file_of('{"completion": "", "gold": %s}' % ("9" * 5000)), "in.jsonl line 1 is not valid JSON: Exceeds"),
        (file_of("[1]"), "line 1 holds a list; each line must be an object"),
        (file_of({"completions": "a"}), "has no 'completion'; did you mean 'completions'?; it has 'completions'"),
        (file_of({}), "it has nothing"),
        (file_of(EXACT, {"completion": None}), "line 2 has a completion of type NoneType"),
        (file_of({"id": None, **EXACT}), "id of type NoneType; it must be text or a whole number"),
        (file_of({"id": True, **EXACT}), "id of type bool"),
        (file_of({"id": 1.5, **EXACT}), "id of type float"),
        (file_of({"id": "x", **EXACT}, {"id": "x", **EXACT}), "line 2: id 'x' came before"),
        (file_of({"id": 2, **EXACT}, EXACT), "line 2: id 2 came before"),
        (file_of({"id": "2", **EXACT}, EXACT), "line 2: id 2 came before"),
        (file_of({"completion": "a"}), "has no 'gold'"),
        (file_of(EXACT, task="exat"), "did you mean 'exact'"),
        (file_of(EXACT, task="no_such_module:f"), "cannot import 'no_such_module'"),
        (file_of({"prompt": 5, **EXACT}, task="json:dumps"), "has a prompt of type int"),
        (argument("sql", "dbdir=x"), "did you mean 'db_dir'"),
        (argument("sql", "db_dir=/none"), "'/none' is no folder"),
        (argument("sql", "mode"), "--arg 'mode' is no NAME=VALUE"),
        (argument("sql", "mode=brid"), "--arg mode='brid' does not fit verifier 'sql': it must be 'spider' or 'bird'"),
        (argument("sql", "mode=bird", "mode=bird"), "given twice"),
        (argument("math", "deadline_s=soon"), "--arg deadline_s='soon' does not fit"),
        (argument("math", "deadline_s=.inf"), "finite number"),
        (argument("math", "deadline_s=[1"), "--arg deadline_s='[1' does not fit"),
        (argument("math", "deadline_s=-1"), "deadline_s=-1"),
        (argument("json:dumps", "correct_at=x"), "--arg correct_at='x' does not fit"),
        (argument("json:dumps", "name=x"), "no argument 'name'"),
        (out_of_reach("folder/out.jsonl"), "of --out does not exist"),
        (out_of_reach("."), "is no regular file"),
        (out_of_reach("/dev/null"), "is no regular file"),
        (out_of_reach("./in.jsonl"), "is the file the completions come from"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_status_2_and_writes_nothing(
    arguments: Callable[[], list[str]], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments()
    before = sorted(Path().iterdir())
    assert main(["verify", *given]) == 2
    captured = capsys.readouterr()
    *told, message = [text for text in captured.err.split("dphrl: ") if text]
    assert part in message and not captured.out and all(line.startswith("verify: 0/") for line in told)
    assert sorted(path for path in Path().iterdir() if path.name != "__pycache__") == before


def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_bytes(b'{"completion": "a", "gold": "a"}\n{"completion": "\xff"}\n')
    assert main(["verify", "--task", "exact", "--file", "in.jsonl"]) == 2
    assert "in.jsonl line 2 is not valid JSON: 'utf-8' codec" in capsys.readouterr().err


def test_a_line_at_fault_late_in_a_stream_leaves_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe is judged as it comes, so there were verdicts when the bad line came; an older file stays as it was."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(stage, "BATCH_LINES", 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(5 * (json.dumps(EXACT).encode() + b"\n") + b"[]\n")))
    Path("out.jsonl").write_text("old")
    assert main(["verify", "--task", "exact", "--file", "-", "--out", "out.jsonl"]) == 2
    assert "standard input line 6 holds a list" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [("out.jsonl", "old")]


def test_a_closed_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["verify", "--task", "exact", "--file", "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = lines("in.jsonl", EXACT)
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: opened(Path("/dev/full") if path.suffix == ".tmp" else path, *a, **k)
    )
    assert main(["verify", "--task", "exact", "--file", name, "--out", "out.jsonl"]) == 2
    assert "out.jsonl cannot be written: [Errno 28]" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGUSR1, 138, "ended by SIGUSR1"),
    ],
)
def test_a_signal_ends_it_with_one_line_and_leaves_nothing(number: int, status: int, words: str) -> None:
    """The verifier says when it is at the second batch, and then waits for the signal."""
    module(
        "waits_of_tests",
        "import signal\n"
        "def reward(completions, **others):\n"
        "    if 'wait' in completions:\n"
        "        print('waiting', flush=True)\n"
        "        signal.pause()\n"
        "    return [1.0] * len(completions)\n",
    )
    lines("in.jsonl", *[EXACT] * stage.BATCH_LINES, {"completion": "wait"})
    names = ["--task", "waits_of_tests:reward", "--file", "in.jsonl", "--out", "out.jsonl"]
    with subprocess.Popen(
        [sys.executable, "-m", "dphrl", "verify", *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        assert any(path.suffix == ".tmp" for path in Path().iterdir())
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out) == (status, "")
    assert err.splitlines()[-1] == f"dphrl: {words}; nothing was written" and "Traceback" not in err
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "waits_of_tests.py"]


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_counted(status: str) -> None:
    summary = stage.Summary({status: 3, "correct": 1} if status != "correct" else {status: 3}, {}, 2.0)
    assert summary.text().splitlines()[0].split()[:2] == [status, "3"]
    assert summary.text().endswith(
        "completions in 2.00 s, " + ("1.5" if status == "correct" else "2") + " completions/s"
    )


def test_what_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    module("bad_of_tests", "def reward(completions, **others):\n    raise ValueError(completions)\n")
    lines("in.jsonl", {"id": "\x1b[2J", "completion": "ok"}, {"completion": "\x1b[2J\ud800" + "x" * 1000})
    module(
        "bad_of_tests",
        "def reward(completions, **others):\n"
        "    if any(len(text) > 2 for text in completions): raise ValueError(completions[-1])\n"
        "    return [1.0] * len(completions)\n",
    )
    assert main(["verify", "--task", "bad_of_tests:reward", "--file", "in.jsonl"]) == 0
    said = capsys.readouterr().out
    assert r"first: id 2: ValueError: \x1b[2J\ud800xxx" in said and said.isascii() and "\x1b" not in said
    assert max(map(len, said.splitlines())) < 300


@pytest.mark.parametrize(
    ("task", "word", "value"),
    [
        ("sql", "db_dir=2024", "2024"),
        ("sql", "db_dir=null", None),
        ("sql", "gold_cache=yes", "yes"),
        ("sql", "gold_cache=[a", "[a"),
        ("sql", "keep_distinct=true", True),
        ("sql", "max_rows=10", 10),
        ("sql", "deadline_s=1e-1", 0.1),
        ("math", "workers=null", None),
        ("json:loads", "correct_at=1", 1.0),
        ("sql", "unknown=[1, 2]", [1, 2]),
    ],
)
def test_values_of_arguments(task: str, word: str, value: object) -> None:
    """YAML, and the text itself where a text is wanted; an unknown name is `with_arguments`' to refuse."""
    assert verifier_arguments(verifier_of(task), [word]) == {word.split("=")[0]: value}


def test_a_value_may_hold_an_equals_sign() -> None:
    assert verifier_arguments(verifier_of("sql"), ["db_dir=a=b"]) == {"db_dir": "a=b"}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        verifier_arguments(verifier_of("sql"), ["=b"])


IDS = st.one_of(st.integers(0, 8).map(str), st.sampled_from(["", "a", "01", "+1", "-1", "²", "1" * 30, "1_0"]))


@given(st.lists(IDS, max_size=30))
@settings(max_examples=300, deadline=None)
def test_ids_are_a_set(keys: list[str]) -> None:
    ids, known = _Ids(), set[str]()
    for key in keys:
        assert ids.add(key) == (key not in known)
        known.add(key)


def test_numbered_ids_take_no_memory() -> None:
    ids = _Ids()
    assert all(ids.add(str(number)) for number in range(5, 1000))
    assert not ids._others and not ids.add("5") and not ids.add("999") and ids.add("1000") and ids.add("4")
