"""partition.json: what is written is read again, and a damaged file is refused with the remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dphrl.errors import RunDirError
from dphrl.files import read_json, write_json
from dphrl.method.difficulty import Difficulty
from dphrl.runs.run_dir import RunDir
from dphrl.stages.presample.partition_file import FilterEffect, PartitionFile, TaskSets, read_partition, write_partition

KEEP_SET = TaskSets(
    near_perfect=("k",),
    exploration=(),
    dropped={},
    counts={"k": Difficulty(2, 2, 2, 0.3, 0.99, 1.0)},
    statuses={"correct": 2},
    reward={"all": 1.0, "near_perfect": 1.0, "exploration": None},
)
PARTITION = PartitionFile(
    near_perfect=("a",),
    exploration=("b", "c"),
    dropped={"d": "too long"},
    counts={"a": Difficulty(3, 3, 3, 0.4, 0.99, 1.0), "b": Difficulty(3, 0, 0, 0.025, 0.975, None)},
    statuses={"correct": 3, "verifier_error": 3},
    reward={"all": 1.0, "near_perfect": 1.0, "exploration": None},
    threshold=3,
    presamples=4,
    debias=True,
    also={"keep": KEEP_SET},
    settings={"anchor": {"threshold": 3}, "exploration_filter": None},
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for partition in (PARTITION, replace(PARTITION, filter=FilterEffect(band=(0.1, 0.9), kept=1, of=2))):
        write_partition(run, partition)
        assert read_partition(run) == partition
        assert ("filter" in read_json(run.partition)) == (partition.filter is not None)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(RunDirError, match="holds no partition; run `dphrl presample`"):
        read_partition(run)
    write_partition(run, PARTITION)
    content = read_json(run.partition)
    for damage in ({"counts": {"a": {"odd": 1}}}, {"also": 3}, {"near_perfect": None}):
        write_json(run.partition, {**content, **damage})
        with pytest.raises(RunDirError, match=r"partition.json is damaged .*: the draws are kept"):
            read_partition(run)
    run.partition.write_text("{")
    with pytest.raises(RunDirError, match=r"partition.json is damaged .*delete it and run `dphrl presample` again"):
        read_partition(run)
