"""Other tools' samples: every shape, what is refused and how, and the report they become.

The lines of verl, prime-rl and TRL are what verl 0.9.1, verifiers 0.4.0 and 0.1.12 and TRL 1.16 wrote, shortened by
what is not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dphrl.cli.main import main
from dphrl.errors import ConfigError, DataError, DphrlError, RunDirError
from dphrl.files import read_json
from dphrl.runs.eval_dir import Model, read_evaldir, write_evaldir
from dphrl.runs.samples import read_samples
from dphrl.stages.import_samples.import_samples import import_samples
from dphrl.stages.import_samples.sample import Scale
from dphrl.stages.import_samples.sample_files import Reading, Source, parse_source

VERL = {
    "input": "user\n1+1?\nassistant\n",
    "output": "2",
    "gts": "2",
    "score": 1.0,
    "step": 0,
    "acc": True,
    "uid": "a_0_0",
}
ROLLOUT = {
    "example_id": 7,
    "task": "default",
    "prompt": [{"role": "user", "content": "1+1?"}],
    "completion": [{"role": "assistant", "content": "2"}],
    "answer": "2",
    "reward": 1.0,
    "error": None,
    "is_completed": True,
    "is_truncated": False,
    "metrics": {},
}
TRACE = {
    "version": 1,
    "task": {"type": "Sum", "data": {"idx": 3, "id": None, "prompt": "1+1?", "answer": "2"}, "key": None, "hash": None},
    "nodes": [
        {"parent": None, "message": {"role": "user", "content": "1+1?"}, "sampled": False},
        {"parent": 0, "message": {"role": "assistant", "content": "2", "tool_calls": None}, "sampled": True},
    ],
    "calls": [{"node": 1, "finish_reason": "stop", "error": None}],
    "rewards": {"exact": {"score": 1.0, "weight": 0.5}, "format": {"score": 1.0, "weight": 0.5}},
    "ok": True,
    "is_completed": True,
    "stop_condition": "agent_completed",
    "errors": [],
    "env_name": "sums",
}
TRL = {"step": 1, "prompt": "reverse h a a :", "completion": "a a h", "right": 1.0, "advantage": 0.0}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Objects as a file of JSON lines."""

    def lines(name: str, *rows: Any) -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    return lines


def taken(path: Path, out: Path, *, scale: Scale = Scale(), **more: Any) -> Any:  # noqa: B008
    """The directory of one file."""
    return import_samples([Source(path)], out, reading=Reading(scale), resamples=100, **more)[0]


def drawn(where: Any, model: str, task: str = "samples") -> list[tuple[str, int, str, bool]]:
    """(prompt, draw, text, right) of every sample, in order."""
    found = read_samples(where.samples(model, task))
    return [(c.prompt_id, c.draw, c.text, c.verdict is not None and c.verdict.correct) for c in found]


def test_lines_with_one_and_with_several_completions_say_the_same(write: Write, tmp_path: Path) -> None:
    """Draws are numbered in order of appearance; the numbers of the summary are those of the verdicts."""
    one = write("one.jsonl", *({"prompt_id": p, "completion": t, "correct": t == "a"} for p in (1, 2) for t in "ab"))
    many = write(
        "many.jsonl",
        {"prompt_id": 1, "completions": ["a", "b"], "correct": [True, False]},
        {"prompt_id": 2, "completions": ["a", "b"], "score": [1, 0.0]},
    )
    found = [taken(path, tmp_path / path.stem) for path in (one, many)]
    expected = [("1", 0, "a", True), ("1", 1, "b", False), ("2", 0, "a", True), ("2", 1, "b", False)]
    assert drawn(found[0], "one") == drawn(found[1], "many") == expected
    (row,) = json.loads(found[0].summary("one").read_text())["rows"]
    assert (row["n"], row["prompts"], row["mean_at_n"], row["pass_at_k"]["2"]["value"]) == (2, 2, 0.5, 1.0)
    assert [row[key] for key in ("greedy", "keep", "no_answer", "truncated", "length", "contaminated")] == [None] * 6


def test_everything_that_a_line_may_say(write: Write, tmp_path: Path) -> None:
    """Models, methods, seeds, tasks, greedy completions, ends, golds."""
    rows = [
        {
            "model": model,
            "method": "GRPO",
            "seed": seed,
            "task": "my/task",
            "prompt_id": "p",
            "completion": f"{model} {greedy}",
            "correct": not greedy,
            "greedy": greedy,
            "finish_reason": "length" if greedy else "stop",
            "prompt": "why?",
            "gold": 42,
        }
        for model, seed in (("g/1", 1), ("g/2", 2))
        for greedy in (False, True)
    ]
    where = taken(write("all.jsonl", *rows), tmp_path / "out")
    assert where.models == (Model("g-1", method="GRPO", seed=1), Model("g-2", method="GRPO", seed=2))
    assert where.tasks == ("my-task",)
    assert drawn(where, "g-2", "my-task") == [("p", -1, "g/2 True", False), ("p", 0, "g/2 False", True)]
    assert read_json(where.root / "prompts" / "my-task.jsonl") == {
        "id": "p",
        "prompt": "why?",
        "gold": "42",
    }
    (row,) = json.loads(where.summary("g-1").read_text())["rows"]
    assert (row["greedy"], row["truncated"]["value"]) == (0.0, 0.0)


def test_seeds_of_one_method_are_models_of_their_own(write: Write, tmp_path: Path) -> None:
    """By the line's `seed`, or by NAME@SEED=FILE."""
    rows = [{"method": "grpo", "seed": s, "prompt_id": 1, "completion": "x", "correct": True} for s in (1, 2)]
    where = taken(write("seeds.jsonl", *rows), tmp_path / "out")
    assert [(m.name, m.method, m.seed) for m in where.models] == [("grpo-s1", "grpo", 1), ("grpo-s2", "grpo", 2)]
    bare = write("bare.jsonl", {"prompt_id": 1, "completion": "x", "correct": True})
    named, _ = import_samples(
        [parse_source(f"dph@3={bare}"), parse_source(str(bare))], tmp_path / "named", resamples=100
    )
    assert [(m.name, m.method, m.seed) for m in named.models] == [("dph-s3", "dph", 3), ("bare", "bare", 0)]


def test_the_base_is_measured_first_and_the_others_against_it(write: Write, tmp_path: Path) -> None:
    """keep: of the prompts the base solves, here one of two; whatever the order of the files."""
    base, late = (
        write(
            f"{name}.jsonl", *({"prompt_id": i, "completion": "x", "correct": right} for i, right in enumerate(rights))
        )
        for name, rights in (("base", (True, True, False)), ("late", (True, False, True)))
    )
    where, _ = import_samples([Source(late), Source(base)], tmp_path / "out", base="base", resamples=100)
    assert [(m.name, m.base) for m in where.models] == [("base", True), ("late", False)]
    (row,) = json.loads(where.summary("late").read_text())["rows"]
    assert (row["keep"], row["explore"]) == (0.5, 1.0)


def test_verl_dumps(write: Write, tmp_path: Path) -> None:
    """`acc` says what is right, as in verl itself; the prompt is its text; one file a step."""
    wrong = {**VERL, "output": "3", "score": -1.0, "acc": False, "uid": "a_1_0"}
    steps = [write(f"{step}.jsonl", *({**row, "step": step} for row in (VERL, wrong))) for step in (0, 100)]
    named = [Source(steps[0], "base"), Source(steps[1], "grpo")]
    where, _ = import_samples(named, tmp_path / "out", base="base", resamples=100)
    (one, right), (other, wrong_one) = [(draw[0], draw[2:]) for draw in drawn(where, "grpo")]
    assert one == other
    assert (right, wrong_one) == (("2", True), ("3", False))
    with pytest.raises(DataError, match=r"100\.jsonl line 1 is of step 100, and .*0\.jsonl line 1 of step 0"):
        import_samples([Source(path, "grpo") for path in steps], tmp_path / "mixed")
    old = {key: VERL[key] for key in ("input", "output", "score", "step")}  # before `gts`, `acc` and `uid`
    assert drawn(taken(write("old.jsonl", old), tmp_path / "old"), "old")[0][2:] == ("2", True)
    with pytest.raises(DataError, match=r"line 1: uid='a_0_1' is a further output"):
        taken(write("turns.jsonl", {**VERL, "uid": "a_0_1"}), tmp_path / "turns")


def test_prime_rl_rollouts(write: Write, tmp_path: Path) -> None:
    """Those before version 1 of `verifiers`; one that failed was not judged."""
    cut = {**ROLLOUT, "is_truncated": True, "reward": 0.0}
    failed = {**ROLLOUT, "reward": 0.0, "error": {"error": "InfraError"}}
    where = taken(write("eval_rollouts.jsonl", ROLLOUT, cut, failed), tmp_path / "out")
    found = read_samples(where.samples("eval_rollouts", "default"))
    statuses = [(c.prompt_id, c.text, c.finish_reason, c.verdict and c.verdict.status) for c in found]
    assert statuses == [
        ("7", "2", "stop", "correct"),
        ("7", "2", "length", "wrong"),
        ("7", "2", "stop", "verifier_error"),
    ]


def test_prime_rl_traces(write: Write, tmp_path: Path) -> None:
    """The reward is the weighted sum; --reward takes one of them; branches and other versions are refused."""
    half = {**TRACE, "rewards": {**TRACE["rewards"], "exact": {"score": 0.0, "weight": 0.5}}}  # type: ignore[dict-item]
    path = write("traces.jsonl", TRACE, half)
    with pytest.raises(DataError, match=r"line 2: 0\.5 is neither 0 nor 1; .*--threshold"):
        taken(path, tmp_path / "none")
    found = [taken(path, tmp_path / str(i), scale=s) for i, s in enumerate((Scale(None, 0.5), Scale(None, 1.0)))]
    assert [[c[3] for c in drawn(where, "traces", "sums")] for where in found] == [[True, True], [True, False]]
    one = taken(path, tmp_path / "exact", scale=Scale("exact", 0.5))
    assert drawn(one, "traces", "sums") == [("3", 0, "2", True), ("3", 1, "2", False)]
    for change, why in (({"version": 2}, "version 2"), ({"nodes": [*TRACE["nodes"], TRACE["nodes"][1]]}, "branches")):  # type: ignore[has-type, index, misc]
        with pytest.raises(DataError, match=why):
            taken(write("odd.jsonl", {**TRACE, **change}), tmp_path / "odd")


def test_trl_completions(tmp_path: Path) -> None:
    """A Parquet file; chats too. Of several reward functions one must be named."""
    chat = [{"role": "user", "content": "reverse h a a :"}]
    said = [{"role": "assistant", "content": "a a h"}]
    for name, rows in {
        "text": [TRL, {**TRL, "right": 0.0}],
        "chat": [{**TRL, "prompt": chat, "completion": said}],
        "two": [{**TRL, "form": 0.3}],
        "null": [{**TRL, "right": float("nan")}, TRL],
    }.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    found = drawn(taken(tmp_path / "text.parquet", tmp_path / "a"), "text")
    assert [c[2:] for c in found] == [("a a h", True), ("a a h", False)]
    assert drawn(taken(tmp_path / "chat.parquet", tmp_path / "b"), "chat")[0][2:] == ("a a h", True)
    with pytest.raises(DataError, match="row 1: has the numbers right, form; say which"):
        taken(tmp_path / "two.parquet", tmp_path / "c")
    assert drawn(taken(tmp_path / "two.parquet", tmp_path / "c", scale=Scale("form", 0.2)), "two")[0][3] is True
    (row,) = json.loads(taken(tmp_path / "null.parquet", tmp_path / "d").summary("null").read_text())["rows"]
    assert (row["unjudged"], row["mean_at_n"]) == (1, 1.0)


LINE = {"prompt_id": 1, "completion": "x", "correct": True}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"a": 1}, r"is of no shape that is known. It has: a \(number\)\. .* --columns '{prompt_id: \?"),
        ({**LINE, "correct": "yes"}, r"'yes' is no verdict; write true, false"),
        ({**LINE, "correct": 0.4}, r"0\.4 is neither 0 nor 1"),
        ({**LINE, "correct": [True]}, r"correct has 1 values for 1 completions"),
        ({"prompt_id": 1, "completion": "x"}, r"has no correct, reward or score"),
        ({"prompt_id": 1, "completions": ["x"], "correct": True}, r"correct=True stands beside a list"),
        ({"prompt_id": 1, "completions": ["x", "y"], "correct": [True]}, r"correct has 1 values for 2"),
        ({"prompt_id": 1, "completions": "x", "correct": [True]}, r"completions is str"),
        ({**LINE, "prompt_id": None}, r"the id of the prompt is None"),
        ({**LINE, "completion": 3}, r"'3' is neither a text nor a list"),
        ({**LINE, "greedy": "no"}, r"greedy='no' is neither"),
        ({**LINE, "seed": -1}, r"seed=-1 is no whole number"),
        ({**LINE, "finish_reason": "eos"}, r"finish_reason='eos' is not stop"),
        ({**LINE, "model": 3}, r"model=3 is no name"),
        ({**LINE, "task": "../.."}, r"'\.\./\.\.' is no name"),
        ({**TRACE, "nodes": [3]}, r"has the names of a shape that can be read, but not its contents \(AttributeError"),
        ([1], r"is a JSON list"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_nothing_is_written(
    row: Any, why: str, write: Write, tmp_path: Path
) -> None:
    """The second line of a file whose first is right."""
    first = TRACE if isinstance(row, dict) and "nodes" in row else LINE
    with pytest.raises(DataError, match=rf"bad\.jsonl line 2:? {why}"):
        taken(write("bad.jsonl", first, row), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]


def test_other_failures_leave_nothing(write: Write, tmp_path: Path) -> None:
    """Files, bases, greedy completions, prompts that differ from the base's."""
    good = write("good.jsonl", LINE, {**LINE, "prompt_id": 2})
    other = write("other.jsonl", {**LINE, "prompt_id": 3})
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt_id": 1,\n')
    empty = write("empty.jsonl")
    bare = write("greedy.jsonl", LINE, {**LINE, "greedy": True}, {**LINE, "prompt_id": 2})
    twice = write("twice.jsonl", LINE, *[{**LINE, "greedy": True}] * 2)
    before = sorted(p.name for p in tmp_path.iterdir())
    cases: list[tuple[list[Path], str | None, type[DphrlError], str]] = [
        ([tmp_path / "gone.jsonl"], None, DataError, "is no file"),
        ([broken], None, DataError, r"broken\.jsonl line 1 is no JSON"),
        ([empty], None, DataError, "the files hold no line"),
        ([good], "god", ConfigError, "--base 'god' is none of the models; did you mean 'good'"),
        ([good, other], "good", DataError, "other prompts|different prompts|prompts"),
        ([bare], None, DataError, "1 prompts have a greedy completion or sampled ones, but not both, e.g. '2'"),
        ([twice], None, DataError, r"line 3: prompt '1' has a second greedy completion; the first is at .* line 2"),
    ]
    for paths, base, error, why in cases:
        with pytest.raises(error, match=why):
            import_samples([Source(path) for path in paths], tmp_path / "out", base=base, resamples=100)
        assert sorted(p.name for p in tmp_path.iterdir()) == before, paths


def test_the_fewest_completions_of_a_prompt_count(write: Write, tmp_path: Path) -> None:
    """Three completions of one prompt, one of the other: two are left out; with --n 3 two are not judged."""
    path = write("few.jsonl", LINE, LINE, LINE, {**LINE, "prompt_id": 2})
    where, notes = import_samples([Source(path)], tmp_path / "out", resamples=100)
    (row,) = json.loads(where.summary("few").read_text())["rows"]
    assert (row["n"], row["unjudged"], row["mean_at_n"]) == (1, 0, 1.0)
    assert notes[0].startswith("few on samples: n = 1, the fewest of any prompt (prompts: 1 with 1, 1 with 3). 2 compl")
    where, notes = import_samples([Source(path)], tmp_path / "out", n=3, resamples=100)
    (row,) = json.loads(where.summary("few").read_text())["rows"]
    assert (row["n"], row["unjudged"], row["mean_at_n"]) == (3, 2, 1.0)
    assert notes[0].startswith("few on samples: 1 of 2 prompts have fewer than 3 completions (2: 1); the missing")


def test_only_what_was_made_so_is_replaced(write: Write, tmp_path: Path) -> None:
    """The same command twice gives the new numbers; another directory is left as it is."""
    taken(write("a.jsonl", LINE), tmp_path / "out")
    where = taken(write("b.jsonl", LINE), tmp_path / "out")
    assert [m.name for m in where.models] == ["b"]
    assert not (where.root / "eval" / "a").exists()
    write_evaldir(tmp_path / "other", [Model("m")], made={"by": "dphrl eval"})
    for folder in (tmp_path / "other", tmp_path):
        with pytest.raises(RunDirError, match="was not made by `dphrl import`"):
            taken(tmp_path / "b.jsonl", folder)


def test_hostile_text_is_kept_as_text(write: Write, tmp_path: Path) -> None:
    """Lone surrogates, which UTF-8 cannot hold, become question marks; the rest stays."""
    text = "a\ud800b\x00<script>alert(1)</script>\u202e"
    where = taken(
        write("odd.jsonl", {**LINE, "completion": text, "prompt": text, "prompt_id": "\ud800"}), tmp_path / "o"
    )
    assert drawn(where, "odd") == [("?", 0, text.replace("\ud800", "?"), True)]


@pytest.mark.slow
def test_the_command_writes_a_report(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dphrl import` from files to page; its flags are refused where they mean nothing."""
    rows = [
        {"prompt_id": i, "completions": ["x", "y"], "score": [0.9, i / 10], "prompt": f"why {i}?"} for i in range(10)
    ]
    base, tuned = write("b.jsonl", *rows), write("t.jsonl", *rows)
    out = tmp_path / "out"
    files = [f"base={base}", f"grpo={tuned}", "--out", str(out)]
    assert main(["import", *files, "--base", "base"]) == 2
    assert "is neither 0 nor 1" in capsys.readouterr().err
    assert main(["import", *files, "--base", "base", "--threshold", "0.5"]) == 0
    assert capsys.readouterr().out.strip().endswith("index.html")
    assert "why 7?" in (out / "report" / "index.html").read_text(encoding="utf-8")
    summary = json.loads((out / "report" / "summary.json").read_text())
    assert {row["method"]: row["mean_at_n"] for row in summary["rows"]} == {"base": 0.75, "grpo": 0.75}
    assert read_evaldir(out).made["threshold"] == 0.5
    for wrong, why in (
        (["report", str(out), "--threshold", "0.5"], "--threshold is an option of `dphrl import`"),
        (["import", *files, "--threshold", "nan"], "--threshold nan is no finite number"),
        (["import", *files[:-2]], "Missing option '--out'"),
        (["import", *files, "--no-drift"], "No such option '--no-drift'"),
        (["report", "--samples", *files], "`dphrl import FILE... --out DIR` reads"),
    ):
        assert main(wrong) == 2
        assert why in capsys.readouterr().err
