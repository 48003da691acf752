"""Full disks and disks that cannot be written: status 2, the file, what to do; what was stored before is whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import SafetensorError

from dphrl.cli.main import main
from dphrl.errors import RunDirError
from dphrl.runs.lock import disk_errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "", "a/b.json"), "a/b.json could not be written: No space left"),
        (OSError(errno.EROFS, "", "a"), "could not be written: Read-only file system"),
        (OSError(errno.EACCES, "", "a"), "could not be read or written: Permission denied"),
        (
            SafetensorError("Error while serializing: I/O error: No space left (os error 28)"),
            "run could not be written",
        ),
        (OSError("[Errno 28] Error writing bytes to file"), "run could not be written"),
        (
            RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/3: file write failed"),
            "No space",
        ),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(error: Exception, words: str) -> None:
    with pytest.raises(RunDirError, match=words) as raised, disk_errors(Path("run")):
        raise error
    assert "Make room or mend the rights of run" in str(raised.value)


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, ""), RuntimeError("shapes (os error 2)"), ValueError("28")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), disk_errors(Path("run")):
        raise error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted here by nobody, or not by this user")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remounted(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_every_stage_on_a_full_and_on_a_read_only_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(disk)
    values: dict[str, Any] = {
        "out": "r",
        "method": "dph",
        "threads": 1,
        "model": {"path": "demo"},
        "task": {"data": "demo:in_domain", "limit": 24},
        "eval_tasks": {"t": {"data": "demo:in_domain", "split": "eval", "limit": 2}},
        "sampling": {"max_new_tokens": 24},
        "anchor": {"presamples": 2, "threshold": 1},
        "objective": {"anchors_per_step": 4},
        "train": {"steps": 1, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-3, "save_every": 1},
        "eval": {"n": 2, "resamples": 100},
    }
    Path("c.yaml").write_text(yaml.safe_dump(values))

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2, arguments
        said = capsys.readouterr().err
        assert "Traceback" not in said and "dphrl: " in said
        return said

    stuffing = Path("stuffing")
    stages = (["presample"], ["train"], ["eval"])
    for stage in stages:
        arguments = [*stage, "--config", "c.yaml"]
        room = shutil.disk_usage(disk).free
        stuffing.write_bytes(b"x" * max(0, room - (4096 if stage != ["train"] else 1_500_000)))
        assert "No space left" in refused(*arguments)
        stuffing.unlink()
        assert main(arguments) == 0
    Path("s.jsonl").write_text('{"prompt_id": "a", "completion": "4", "correct": true}\n')
    others = (
        ["report", "r"],
        ["compare", "r", "--out", "k"],
        ["import", "s.jsonl", "--out", "e"],
        ["export", "verl", "c.yaml", "--out", "v"],
    )
    whole = contents(Path("r"))
    remounted(disk, "ro")
    try:
        for arguments in (*([*stage, "--config", "c.yaml"] for stage in stages), *others):
            assert "Read-only" in refused(*arguments), arguments
    finally:
        remounted(disk, "rw")
    assert contents(Path("r")) == whole
    assert main(["report", "r"]) == 0
