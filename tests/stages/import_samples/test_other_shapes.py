"""Files of other tools in whatever they are written in, and what is said of those that tell too much or too little."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.cli.main import main
from dphrl.errors import DphrlError
from dphrl.progress import silent
from dphrl.runs.summary_file import read_summaries
from dphrl.stages.import_samples.drawn_counts import counted_draws
from dphrl.stages.import_samples.import_samples import import_samples
from dphrl.stages.import_samples.own_lines import parse_columns
from dphrl.stages.import_samples.sample import Sample, Scale
from dphrl.stages.import_samples.sample_files import Reading, Source, parse_source, parse_task, read_source

LINES = [{"prompt_id": p, "completion": t, "correct": t == "4", "prompt": f"{p}?"} for p in "ab" for t in ("4", "5")]
READ = [("a", "4", True), ("a", "5", False), ("b", "4", True), ("b", "5", False)]


def read(path: Path, reading: Reading = Reading()) -> list[tuple[str, str, bool | None]]:  # noqa: B008
    """(prompt, text, verdict) of every sample of a file."""
    return [(p.sample.prompt_id, p.sample.text, p.sample.right) for p in read_source(Source(path), reading, silent)]


def jsonl(rows: list[Any]) -> str:
    """Objects as JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def parquet(rows: list[Any]) -> bytes:
    """Objects as the bytes of a Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), out := io.BytesIO())
    return out.getvalue()


CSV = "prompt_id,completion,correct\na,4,True\na,5,False\nb,4,true\nb,5,0\n"
TABLE = {"columns": ["prompt_id", "completion", "correct"], "data": [[*r] for r in READ]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", jsonl(LINES).replace("\n", "\n\n").encode()),
        ("mark.jsonl", b"\xef\xbb\xbf" + jsonl(LINES).encode()),
        ("a.json", json.dumps(LINES, indent=1).encode()),
        ("a.jsonl.gz", gzip.compress(jsonl(LINES).encode(), mtime=0)),
        ("odd-name", gzip.compress(json.dumps(LINES).encode(), mtime=0)),
        ("a.csv", CSV.encode()),
        ("a.tsv.gz", gzip.compress(CSV.replace(",", "\t").encode(), mtime=0)),
        ("a.parquet", parquet(LINES)),
        ("a.table.json", json.dumps(TABLE).encode()),
    ],
)
def test_what_a_file_is_written_in_changes_nothing(name: str, content: bytes, tmp_path: Path) -> None:
    """JSON lines with blank ones or a mark, arrays, gzip, CSV, Parquet, tables of wandb."""
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == READ


LM_EVAL = {
    "doc_id": 3,
    "doc": {"q": "2+2?"},
    "target": "4",
    "arguments": {"gen_args_0": {"arg_0": "2+2?", "arg_1": {}}},
    "resps": [["4"]],
    "filtered_resps": ["4"],
    "filter": "none",
    "metrics": ["exact_match"],
    "exact_match": 1.0,
}
CHAT = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
TRACE = {
    "version": 1,
    "task": {"data": {"idx": 3, "prompt": "2+2?", "answer": "4"}},
    "agent": {"trainable": True},
    "nodes": [{"message": CHAT[0], "sampled": False}, {"parent": 0, "message": CHAT[1], "sampled": True}],
    "calls": [],
    "rewards": {"exact": {"score": 1.0, "weight": 1.0}},
    "ok": True,
}
EPISODE = {"id": "e", "env": {"id": "sums"}, "task": TRACE["task"], "ok": True, "traces": [TRACE]}
INSPECT = {
    "version": 2,
    "eval": {"task": "sums", "model": "openai/m"},
    "samples": [
        {
            "id": 3,
            "epoch": 1,
            "input": "2+2?",
            "target": "4",
            "output": {"choices": [{"message": CHAT[1], "stop_reason": "stop"}]},
            "scores": {"match": {"value": "C"}},
        }
    ],
}
SKYRL = {
    "input_prompt": "2+2?",
    "output_response": "4",
    "score": [0.0, 1.0],
    "stop_reason": "stop",
    "env_extras": {"reward_model": {"ground_truth": "4"}},
    "data_source": "sums",
}
RLLM = {
    "training_step": 0,
    "task": {"question": "2+2?", "ground_truth": "4"},
    "task_hash": "3",
    "is_correct": True,
    "trajectories": [{"reward": 1.0, "steps": [{"model_response": "4", "chat_completions": CHAT}]}],
}
EVENTS = [
    {"spec": {"eval_name": "sums"}},
    {"event_id": 1, "sample_id": "3", "type": "match", "data": {"correct": True, "expected": "4"}},
    {"event_id": 0, "sample_id": "3", "type": "sampling", "data": {"prompt": CHAT[:1], "sampled": ["4"]}},
]
PAGE = "<p>Correct Answer: 4</p>\n<p>Score: 1.0</p>"
LIGHTEVAL = {
    "doc": {"query": "2+2?", "choices": ["4"], "gold_index": [0], "id": "3", "task_name": "sums"},
    "metric": {"em": 1.0},
    "model_response": {"text": ["4"]},
}
BEFORE = {"full_prompt": "2+2?", "predictions": ["4"], "metrics": {"em": 1.0}, "example": "3", "gold": ["4"]}
STATUS = {"solution": "4", "base_status": "pass", "plus_status": "pass"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples_gsm8k_2026-01-01T00-00-00.000.jsonl", jsonl([LM_EVAL])),
        ("traces.jsonl", jsonl([EPISODE])),
        ("trace.jsonl", jsonl([TRACE])),
        ("log.json", json.dumps(INSPECT)),
        ("skyrl.jsonl", jsonl([SKYRL])),
        ("val_data_step0.jsonl", jsonl([{"content": [CHAT], "rewards": [1.0], "idx": 0}])),
        ("episode_hash3.json", json.dumps(RLLM, indent=2)),
        ("events.jsonl", jsonl(EVENTS)),
        ("allresults.json", json.dumps({"convos": [CHAT], "htmls": [PAGE]})),
        ("details.parquet", parquet([LIGHTEVAL])),
        ("details-old.parquet", parquet([BEFORE])),
        ("eval_results.json", json.dumps({"hash": "x", "eval": {"3": [STATUS]}})),
        ("samples.jsonl_results.jsonl", jsonl([{"task_id": "3", "completion": "4", "passed": True}])),
    ],
)
def test_the_shape_of_each_tool(name: str, content: str | bytes, tmp_path: Path) -> None:
    """One right completion 4 of one prompt, as each tool writes it."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    ((_, text, right),) = read(tmp_path / name)
    assert (text, right) == ("4", True)
    (placed,) = read_source(Source(tmp_path / name), Reading(), silent)
    assert placed.task == {"samples_gsm8k_2026-01-01T00-00-00.000.jsonl": "gsm8k"}.get(name, placed.task)


def test_a_log_of_inspect_ai_is_its_zip(tmp_path: Path) -> None:
    """Read directly; where inspect_ai is installed its own reader would refuse this short one, so it is called so."""
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({k: v for k, v in INSPECT.items() if k != "samples"}))
        archive.writestr("samples/3_epoch_1.json", json.dumps(INSPECT["samples"][0]))  # type: ignore[index]
    assert read(path) == [("3", "4", True)]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{**LM_EVAL, "resps": [["4", "5"]]}], "has 2 responses and one value for them all"),
        ([{**LM_EVAL, "resps": [["-1.0", "True"], ["-2.0", "False"]]}], "compares likelihoods"),
        ([{**EPISODE, "traces": [TRACE, TRACE]}], "traces of 2 trained agents"),
        ([{"convos": [CHAT], "htmls": ["<h3>"]}], "1 conversations of simple-evals and 0 verdicts"),
        ([{"content": ["2+2?4"], "rewards": [1.0], "idx": 0}], "take val_data_stepN"),
        (EVENTS[:2], "sample '3' has 0 samplings and 1 matches"),
        ([{"id": 1, "response": "4", "is_correct": True}], "--columns '{prompt_id: id, completion: response, correct"),
        ([{"prompt": CHAT[:1], "responses": ["4"]}], "completion: responses, correct: .* --verifier math judges"),
        ([LINES[0], {**LINES[0], "prompt": "other?", "gold": "9"}], "the id 'a' stands for two questions"),
    ],
)
def test_what_a_file_does_not_say_is_refused(rows: list[Any], why: str, tmp_path: Path) -> None:
    """With what is missing and what to do."""
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(rows))
    with pytest.raises(DphrlError, match=why):
        import_samples([Source(path)], tmp_path / "out", resamples=10)
    assert not (tmp_path / "out").exists()


def test_what_comes_without_a_verdict_is_judged_where_asked(tmp_path: Path) -> None:
    """Against the gold answer; verdicts that are there stay as they are."""
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": CHAT[:1], "responses": ["4", "The answer is 5.", ""], "reward_model": {"ground_truth": "4"}}]
    path.write_text(jsonl(rows))
    columns = parse_columns("{completion: responses, prompt: prompt, gold: reward_model.ground_truth}")
    reading = Reading(Scale(verifier="math"), columns)
    evaldir, notes = import_samples([Source(path)], tmp_path / "out", reading=reading, resamples=10)
    summary = read_summaries(evaldir.folder("own") / "summary.json")["samples"]
    assert (summary.n, summary.mean_at_n) == (3, pytest.approx(1 / 3))
    assert notes[0] == "3 of 3 completions came without a verdict and were judged by math"
    by_math = Reading(Scale(verifier="math"))
    path.write_text(jsonl([{**LINES[1], "correct": True, "gold": "4"}, {**LINES[0], "correct": None, "gold": "4"}]))
    evaldir, notes = import_samples([Source(path)], tmp_path / "two", reading=by_math, resamples=10)
    summary = read_summaries(evaldir.folder("own") / "summary.json")["samples"]
    assert summary.mean_at_n == 1.0 and notes[0].startswith("1 of 2")
    path.write_text(jsonl([{**LINES[0], "correct": None}]))
    with pytest.raises(DphrlError, match=r"line 1 has neither a verdict nor a gold answer.*--columns"):
        import_samples([Source(path)], tmp_path / "none", reading=by_math, resamples=10)
    with pytest.raises(DphrlError, match=r"maths.*math"):
        import_samples([Source(path)], tmp_path / "none", reading=Reading(Scale(verifier="maths")), resamples=10)


def test_columns_with_dots_and_lists(tmp_path: Path) -> None:
    """A path goes into objects and through lists; a list of texts is several completions."""
    path = tmp_path / "own.jsonl"
    path.write_text(jsonl([{"meta": {"id": 7}, "outs": [{"t": "4", "ok": True}, {"t": "5", "ok": False}]}]))
    columns = parse_columns("{prompt_id: meta.id, completion: outs.t, correct: outs.ok}")
    assert read(path, Reading(columns=columns)) == [("7", "4", True), ("7", "5", False)]
    assert read(path, Reading(columns={**columns, "completion": "outs.1.t", "correct": "outs.1.ok"})) == [
        ("7", "5", False)
    ]
    for text, why in (("{id: x}", "'id' is none of our names"), ("[1]", "is no mapping")):
        with pytest.raises(DphrlError, match=why):
            parse_columns(text)
    with pytest.raises(DphrlError, match=r"no column 'meta.ix' for 'prompt_id'; did you mean 'meta.id'"):
        read(path, Reading(columns={**columns, "prompt_id": "meta.ix"}))


def test_names_in_any_script_and_tasks_by_pattern(tmp_path: Path) -> None:
    """A model of a hub's name, tasks that their prompts tell, and the model called base is the base."""
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(LINES))
    sources = [parse_source(f"base={path}"), parse_source(f"Qwen/Qwen3-0.6B={path}"), parse_source(f"модель={path}")]
    reading = Reading(Scale(), tasks=[parse_task("数学-тест=^a"), parse_task("rest")])
    where, _ = import_samples(sources, tmp_path / "out", reading=reading, resamples=10)
    assert [(m.name, m.base) for m in where.models] == [("base", True), ("Qwen-Qwen3-0.6B", False), ("модель", False)]
    assert where.tasks == ("数学-тест", "rest")


def test_show_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three samples of each file, as they were read."""
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(LINES))
    assert main(["import", str(path), "--show"]) == 0
    assert capsys.readouterr().out.count("read as lines of one's own") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert main(["import", str(path)]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err


COUNTS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("xyz"), min_size=2, max_size=6), min_size=2
)


@given(COUNTS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_order_changes_nothing_and_each_line_what_it_should(texts: dict[str, list[str]], random: Any) -> None:
    """n is the fewest; which draws count does not depend on their order; one line more is one more left out."""
    drawn = {key: [Sample(key, text, text == "x") for text in of] for key, of in texts.items()}
    first = counted_draws("m", drawn, None)
    mixed = {key: random.sample(samples, len(samples)) for key, samples in random.sample([*drawn.items()], len(drawn))}
    second = counted_draws("m", mixed, None)
    assert first.n == second.n == min(map(len, texts.values()))
    for key, samples in first.by_prompt.items():
        assert len(samples) == first.n
        assert sorted(s.text for s in samples) == sorted(s.text for s in second.by_prompt[key])
    key = min(texts, key=lambda one: (-len(texts[one]), one))
    if len(texts[key]) == first.n:  # all are equal: one more line changes no other prompt and is said
        more = counted_draws("m", {**drawn, key: [*drawn[key], Sample(key, "new", False)]}, None)
        assert (more.n, first.notes) == (first.n, ())
        assert {k: v for k, v in more.by_prompt.items() if k != key} == {
            k: v for k, v in first.by_prompt.items() if k != key
        }
        assert "1 completions are left out" in more.notes[0]
        less = counted_draws("m", {**drawn, key: drawn[key][:-1]}, None)
        assert less.n == first.n - 1
        assert f"{len(drawn) - 1} completions are left out" in less.notes[0]
