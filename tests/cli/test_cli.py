"""The command line: quick to answer, plain in its refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dphrl.cli.main import main

HEAVY = ("torch", "transformers", "trl", "numpy", "pyarrow", "pydantic", "matplotlib", "vl_convert", "datasets")


@pytest.mark.parametrize("arguments", ["--help", "--version", "demo --help"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    code = (
        "import sys; from dphrl.cli.main import main\n"
        f"try: main({arguments.split()!r})\n"
        "except SystemExit as e: assert e.code == 0\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("heavy: []\n")


def test_help_of_a_stage_lists_its_settings_without_torch() -> None:
    code = (
        "import sys; from dphrl.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "anchor.threshold" in result.stdout and "nats" in result.stdout and "default 0.2" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train"], "--config FILE is missing"),
        (["train", "--config", "/none.yaml"], "does not exist"),
        (["demo", "--methods", "base,grop"], "did you mean 'grpo'"),
        (["demo", "--seeds", "0"], "at least 1"),
        (["demo", "--n", "4"], "at least 8"),
        (["demo", "--sweep", "--eta", "0.3"], "leave out"),
        (["demo", "--sweep", "--methods", "grpo"], "leave out"),
        (["report"], "no run is named"),
        (["report", "--config", "/none.yaml"], "does not exist"),
        (["report", "/none"], "/none"),
        (["compare", "/none", "--out", "/tmp/never"], "/none"),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_message(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dphrl: ") and part in captured.err and not captured.out


@pytest.mark.parametrize(
    "arguments",
    [[], ["tarin"], ["demo", "--quick", "--sweep"], ["doctor", "--what"], ["report", "x", "--train.steps", "3"]],
)
def test_unknown_words_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_unknown_settings_name_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("out: x\n")
    assert main(["train", "--config", str(path), "--train.stesp", "3"]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err


def test_doctor_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "torch 2." in said and "demo model: found" in said
