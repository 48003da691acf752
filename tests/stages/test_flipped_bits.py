"""A bit that flips in a file of a run, where the file still parses if it can: the command that reads it names it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from made_once import made_once

from dphrl.cli.main import main

SETTINGS = {
    "out": "r",
    "method": "dph",
    "threads": 1,
    "model": {"path": "demo", "device": "cpu"},
    "task": {"data": "demo:in_domain", "limit": 24},
    "eval_tasks": {"t": {"data": "demo:in_domain", "split": "eval", "limit": 2}},
    "sampling": {"max_new_tokens": 24},
    "anchor": {"presamples": 2, "threshold": 1},
    "objective": {"anchors_per_step": 64},
    "train": {"steps": 1, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-3},
    "eval": {"n": 2, "resamples": 100},
}
COMMANDS = {
    "presample": ["presample", "--config", "c.yaml"],
    "train": ["train", "--config", "c.yaml"],
    "eval": ["eval", "--config", "c.yaml"],
    "report": ["report", "r"],
}
READERS = {
    "anchors/index.arrow": "go on",
    "anchors/manifest.json": "go on",
    "anchors/part-00000.arrow": "begin",
    "config.yaml": "report",
    "drift.json": "report",
    "eval/base/summary.json": "report",
    "eval/base/t.parquet": "report",
    "eval/final/summary.json": "report",
    "eval/final/t.parquet": "report",
    "presample/completions-00000.parquet": "partition",
    "presample/drawn.json": "partition",
    "presample/partition.json": "go on",
    "train/final/config.json": "train",
    "train/final/dphrl-complete": "train",
    "train/final/generation_config.json": "train",
    "train/final/model.safetensors": "train",
    "train/final/tokenizer.json": "train",
    "train/final/tokenizer_config.json": "train",
    "train/metrics.jsonl": "report",
    "train/started.json": "go on",
    "versions.json": "report",
}
"""File -> the command that reads it; `go on` is a training whose model is not there yet, `begin` one that
has no checkpoint either, `partition` a pre-sampling that has its draws alone."""
UNREAD = re.compile(r"report/.*|.*README\.md|.*/speed\.json|train/warnings\.jsonl|presample/completions-0000[1-9].*")
"""Files that no command reads, or that people read, or that hold nothing, and further shards."""
CHECKPOINTS = re.compile(r"train/checkpoint-\d+/.*")
"""tests/stages/train/test_whole_checkpoints.py damages these."""


def smallest_run(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [main(command) for command in COMMANDS.values()] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "flipped-bits", smallest_run)


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(whole, tmp_path / "c", ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(tmp_path / "c")
    return tmp_path / "c" / "r"


def places(content: bytes) -> list[int]:
    """The last digits of two numbers of a text, whose lowest bit makes another number; of other files, two bytes."""
    if b"\0" in content:
        return [len(content) // 2, len(content) - 30]
    digits = [m.start() for m in re.finditer(rb"(?<![\da-f\\])\d(?![\da-f.])", content)]
    return [digits[len(digits) // 2], digits[-1]] if digits else [len(content) // 2]


@pytest.mark.slow
def test_every_file_has_a_reader_here(whole: Path) -> None:
    names = {path.relative_to(whole / "r").as_posix() for path in (whole / "r").rglob("*") if path.is_file()}
    assert {n for n in names if not UNREAD.fullmatch(n) and not CHECKPOINTS.fullmatch(n)} == set(READERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_refused_by_name(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = READERS[name]
    if reader in ("go on", "begin"):
        for path in (copy / "train").glob("final" if reader == "go on" else "*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        reader = "train"
    if reader == "partition":
        shutil.rmtree(copy / "anchors")
        (copy / "presample/partition.json").unlink()
        reader = "presample"
    path = copy / name
    content = path.read_bytes()
    for place in places(content):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        status = main(COMMANDS[reader])
        said = capsys.readouterr().err
        assert status == 2 and path.name in said and "; " in said and "Traceback" not in said, (place, said)


@pytest.mark.slow
def test_a_file_without_checksums_is_taken_as_it_is(copy: Path) -> None:
    """As earlier versions wrote them."""
    for path in copy.rglob("*.json*"):
        text = path.read_text()
        path.write_text(re.sub(r',\s*"crc32": "[0-9a-f]{8}"(?=\s*}\s*$)', "", text, flags=re.MULTILINE))
        assert path.parent.name == "final" or path.name == "manifest.json" or '"crc32"' not in path.read_text()
    config = copy / "config.yaml"
    config.write_text(config.read_text().partition("\n")[2])
    assert [main(command) for command in COMMANDS.values()] == [0, 0, 0, 0]


@pytest.mark.slow
def test_the_drift_of_a_damaged_model_is_not_measured(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "drift.json").unlink()
    path = copy / "train/final/model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert main(COMMANDS["report"]) == 2
    assert "final/model.safetensors has the checksum" in capsys.readouterr().err
    assert not (copy / "drift.json").exists()
