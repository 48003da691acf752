"""Sample files: damage is named, solutions and answers are kept, some columns or prompts are read alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dphrl.errors import RunDirError
from dphrl.runs import samples
from dphrl.runs.samples import SampleFiles
from dphrl.types import Completion
from dphrl.verifiers.verifier import verdict


def test_a_damaged_shard_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "completions-00000.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunDirError, match=r"completions-00000.parquet cannot be read.*delete it and run again"):
        SampleFiles(tmp_path).read()


def test_evaluations_store_solutions_and_answers_and_older_files_are_read(tmp_path: Path) -> None:
    """A solution of right completions only, an answer where there is one; the completions are the same without."""
    verdicts = [verdict("correct"), verdict("wrong"), verdict("no_answer")]
    drawn = [Completion("p", d, (1,), t, "stop", v) for d, (t, v) in enumerate(zip("ABC", verdicts, strict=True))]
    new, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    samples.write_samples(new, drawn, solution=str.lower, answer=lambda text: None if text == "C" else f"={text}")
    samples.write_samples(old, drawn)
    table = pq.read_table(new)
    assert table["solution"].to_pylist() == ["a", None, None] and table["answer"].to_pylist() == ["=A", "=B", None]
    assert samples.read_samples(new) == samples.read_samples(old) == drawn
    assert pq.read_schema(old).names == samples.SCHEMA.names, "shards hold neither"


def test_some_columns_or_prompts_are_read_alone(tmp_path: Path) -> None:
    drawn = [Completion(f"p{i}", d, (1, i), f"T{i}", "stop", verdict("correct")) for i in range(3) for d in range(2)]
    path = tmp_path / "completions-00000.parquet"
    samples.write_samples(path, drawn, solution=str.lower)
    light = samples.read_samples(path, without=samples.HEAVY)
    assert [(c.prompt_id, c.draw, c.token_ids, c.text, c.verdict) for c in light] == [
        (c.prompt_id, c.draw, (), "", c.verdict) for c in drawn
    ]
    assert samples.read_samples(path, prompt_ids={"p1"}) == drawn[2:4]
    assert list(SampleFiles(tmp_path).take([("p2", 1), ("p9", 0)])) == [drawn[5]]
    forms = samples.read_forms(path)
    assert forms.solution is not None and forms.solution("T1") == "t1" and forms.solution("other") == "other"
    assert forms.answer is None


def test_a_column_that_lacks_or_a_verdict_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    samples.write_samples(path, [Completion("p", 0, (1,), "x", "stop", verdict("correct"))])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("reward"), path)
    with pytest.raises(RunDirError, match="lacks the columns reward; evaluate again"):
        samples.read_samples(path, remedy="evaluate again")
    pq.write_table(table.set_column(7, "status", [["odd"]]), path)
    with pytest.raises(RunDirError, match=r"holds a verdict that cannot be: status='odd'.*evaluate again"):
        samples.read_samples(path, remedy="evaluate again")
