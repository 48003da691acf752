"""Damage to the files of a run: each reader gives what was written, or one error that names the file and a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dphrl.config.load import build_config, read_stored_config, to_yaml
from dphrl.errors import RunDirError
from dphrl.method.collapse import TrainingWarning
from dphrl.method.difficulty import Difficulty
from dphrl.runs import training_log as log
from dphrl.runs.eval_dir import Model, read_evaldir, write_evaldir
from dphrl.runs.harness_results import HarnessResults, HarnessRow, read_harness_results, write_harness_results
from dphrl.runs.run_dir import RunDir
from dphrl.runs.samples import read_samples, write_samples
from dphrl.runs.summary_file import read_summaries, store_evaluation
from dphrl.runs.training_start import Digested, TrainingStart, read_training_start, write_training_start
from dphrl.stages.presample.partition_file import FilterEffect, PartitionFile, TaskSets, read_partition, write_partition
from dphrl.types import Completion
from dphrl.verifiers.verifier import verdict

COMPLETIONS = [
    Completion(f"p{i}", d, (1, 300, d + 2), f"text {i} {d}", "stop", verdict("correct" if i else "wrong"))
    for i in range(3)
    for d in (-1, 0, 1)
]
SETS = TaskSets(
    near_perfect=("a",),
    exploration=("b",),
    dropped={"c": "too long"},
    counts={"a": Difficulty(2, 2, 2, 0.3, 0.9, 1.0), "b": Difficulty(2, 0, 0, 0.0, 1.0, None)},
    statuses={"correct": 2},
    reward={"all": 1.0, "near_perfect": None},
)


def _partition(folder: Path) -> Path:
    (folder / "presample").mkdir()
    sets = {name: getattr(SETS, name) for name in SETS.__slots__}
    effect = FilterEffect(band=(0.1, 0.9), kept=1, of=2)
    made = PartitionFile(
        **sets, threshold=2, presamples=3, debias=True, also={"k": SETS}, settings={"seed": 0}, filter=effect
    )
    write_partition(RunDir(folder), made)
    return RunDir(folder).partition


def _summary(folder: Path) -> Path:
    store_evaluation(
        folder, "t", COMPLETIONS, base=COMPLETIONS, solution=str, answer=str, resamples=100, seed=0, facts={"odd": [1]}
    )
    return folder / "summary.json"


def _started(folder: Path) -> Path:
    write_training_start(
        folder / "s.json",
        TrainingStart(
            settings={"train": {"steps": 3}, "seed": 1},
            policy={"w": "x"},
            prompts=Digested(1, "p"),
            anchors=Digested(2, "a"),
            ranks=1,
        ),
    )
    return folder / "s.json"


def _metrics(folder: Path) -> Path:
    for step in (2, 4):
        log.append_metrics(folder / "m.jsonl", {"step": step, "loss": 0.5, "kl": None})
    return folder / "m.jsonl"


def _warnings(folder: Path) -> Path:
    for step in (2, 4):
        log.append_warning(folder / "w.jsonl", TrainingWarning(step, "loss", 0.1, 0.2, "low"))
    return folder / "w.jsonl"


def _changes(folder: Path) -> Path:
    log.append_change(folder / "c.jsonl", log.TrainingChange(4, "2026", {"train.steps": (3, None)}))
    return folder / "c.jsonl"


def _config(folder: Path) -> Path:
    (folder / "config.yaml").write_text(to_yaml(build_config({"out": "x", "eval_tasks": {"t": {"data": "d.jsonl"}}})))
    return folder / "config.yaml"


def _evaldir(folder: Path) -> Path:
    write_evaldir(folder, [Model("a", "p", "m", 1, True)], ["t"], {"by": "x"})
    return folder / "evaluation.json"


def _harness(folder: Path) -> Path:
    row = HarnessRow(
        asked="a",
        task="t",
        metric="acc",
        filter="none",
        value=0.5,
        stderr=None,
        n=3,
        shots=None,
        higher_is_better=True,
        version=1,
    )
    write_harness_results(folder, HarnessResults({"limit": 3}, (row,)))
    return folder / "lm-eval.json"


def _samples(folder: Path) -> Path:
    write_samples(folder / "t.parquet", COMPLETIONS, solution=str, answer=str)
    return folder / "t.parquet"


FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "partition": (_partition, lambda path: read_partition(RunDir(path.parents[1]))),
    "summary": (_summary, read_summaries),
    "started": (_started, read_training_start),
    "metrics": (_metrics, log.read_metrics),
    "metrics kept": (_metrics, lambda path: log.keep_until(path, 4)),
    "warnings": (_warnings, log.read_warnings),
    "changes": (_changes, log.read_changes),
    "config": (_config, read_stored_config),
    "evaluation": (_evaldir, lambda path: read_evaldir(path.parent)),
    "lm-eval": (_harness, lambda path: read_harness_results(path.parent)),
    "samples": (_samples, read_samples),
    "some samples": (_samples, lambda path: read_samples(path, without=["token_ids"], prompt_ids=["p1"])),
}
"""What is read -> its writer, which gives the path, and its reader."""


def damages(content: bytes) -> Iterator[bytes]:
    """Empty, cut, other things than were there, flipped bits, and each value in turn as one of another type."""
    yield from (b"", b"\0" * len(content), b"null", b"3", b'"x"', b"[]", b"{}", b"[3]", b'{"step": ', b"[" * 100_000)
    yield from (content[:cut] for cut in range(1, len(content), max(1, len(content) // 12)))
    for place in range(0, len(content), max(1, len(content) // 60)):
        for bit in (1, 16, 128):
            yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    for number, value in enumerate(values := as_json(content)):
        for odd in other_types(value):
            yield b"\n".join(json.dumps(odd if i == number else v).encode() for i, v in enumerate(values))


def as_json(content: bytes) -> list[Any]:
    """The values of a file of JSON, or of JSON lines; none where it is neither."""
    for texts in ([content], content.splitlines()):
        try:
            return [json.loads(text) for text in texts]
        except ValueError:
            pass
    return []


def other_types(value: Any) -> Iterator[Any]:
    """The value with each part of it in turn replaced by each of some that do not belong there, or taken out."""
    yield from (None, "x", -1, 0.5, [], {}, ["x"], {"x": 1}, True)
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: odd} for odd in other_types(part))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from ([*value[:i], odd, *value[i + 1 :]] for odd in other_types(part))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.slow)])
def test_damage_is_one_error_that_names_the_file(name: str, every: int, tmp_path: Path) -> None:
    write, read = FILES[name]
    path = write(tmp_path)
    content = path.read_bytes()
    whole = read(path)
    refused = 0
    for damaged in islice(damages(content), 0, None, every):
        path.write_bytes(damaged)
        try:
            found = read(path)
        except RunDirError as error:
            refused += 1
            assert str(path) in str(error) and "; " in str(error)
        else:
            assert "samples" not in name or found == whole, "its pages have checksums"
    assert refused > 20 / every
    path.unlink()
    path.mkdir()
    with pytest.raises(RunDirError, match=path.name):
        read(path)
