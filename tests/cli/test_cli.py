"""The command line: quick to answer, plain in its refusals, quiet when nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dphrl.cli.main import COMPLETE, MOVED, main
from dphrl.config.describe import described_settings
from dphrl.config.load import load_config

HEAVY = ("torch", "transformers", "trl", "numpy", "pyarrow", "pydantic", "matplotlib", "vl_convert", "datasets", "rich")


def loaded_by(arguments: list[str], modules: tuple[str, ...]) -> tuple[str, str]:
    """What a command prints in a process of its own, and which of `modules` it has imported."""
    code = (
        "import sys; from dphrl.cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"print('loaded:', *[m for m in {modules!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, loaded = result.stdout.rpartition("loaded:")
    return said, loaded.strip()


@pytest.mark.parametrize("arguments", ["--help", "--version", "demo --help", "recipes", "docs"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    assert loaded_by(arguments.split(), HEAVY)[1] == ""


def test_help_of_a_stage_shows_its_settings_without_torch() -> None:
    said, loaded = loaded_by(["train", "--help"], ("torch",))
    assert loaded == ""
    assert "--anchor.threshold" in said and "nats" in said and "default 0.2" in said


@pytest.mark.parametrize("width", [60, 100])
def test_help_is_as_wide_as_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["train", "--help"]) == 0
    longest = max(map(len, capsys.readouterr().out.splitlines()))
    assert width - 10 < longest <= width


@pytest.mark.parametrize("command", ["run", "presample", "train", "eval", "plan"])
def test_the_help_lists_common_settings_first_and_every_setting_once(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    groups: dict[str, list[str]] = {}  # heading -> the settings below it
    for line in capsys.readouterr().out.partition("as --dotted.key VALUE:")[2].splitlines():
        if line.endswith(":") and not line.startswith(" "):
            assert line not in groups, f"{line} is there twice"
            groups[line] = []
        elif line.startswith("  --"):
            groups[list(groups)[-1]].append(line.split()[0].removeprefix("--"))
    wanted: dict[str, list[str]] = {"what most runs set:": []}
    for setting in described_settings():
        title = "what most runs set:" if setting.common else f"{setting.section or 'run'}:"
        wanted.setdefault(title, []).append(setting.key)
    assert list(groups.items()) == list(wanted.items())
    assert {"train.steps", "objective.eta", "model.path"} <= set(groups["what most runs set:"])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train"], "no settings file is named"),
        (["train", "--config", "/none.yaml"], "does not exist; `dphrl recipes` lists examples"),
        (["train", "/none.yaml"], "does not exist"),
        (["train", "/none.yaml", "--config", "/other.yaml"], "both name a settings file"),
        (["train", "/none.yaml", "--train.steps"], "--train.steps needs a value"),
        (["demo", "--methods", "base,grop"], "did you mean 'grpo'"),
        (["demo", "--methods", ""], "--methods is empty"),
        (["demo", "--seeds", "0"], "at least 1"),
        (["demo", "--n", "4"], "at least 8"),
        (["demo", "--sweep", "--eta", "0.3"], "leave out"),
        (["demo", "--sweep", "--methods", "grpo"], "leave out"),
        (["demo", "--quick", "--sweep"], "exclude each other"),
        (["demo", "--seeds", "two"], "'two' is not a valid integer"),
        (["report"], "no run is named"),
        (["report", "--config", "/none.yaml"], "does not exist"),
        (["report", "/none"], "/none"),
        (["compare", "/none", "--out", "/tmp/never"], "/none"),
        (["tarin"], "Did you mean 'train'?"),
        (["doctor", "--what"], "No such option '--what'"),
        (["train", "--confg", "x"], "Did you mean '--config'?"),
        (["run", "x.yaml", "--sede", "3"], "Did you mean '--seed'?"),
        (["report", "x", "--train.steps", "3"], "No such option '--train.steps'"),
        (["recipes", "spider-tiney"], "did you mean 'spider-tiny'"),
        (["docs", "evalution"], "did you mean 'evaluation'"),
        (["anchors", "inspct"], "Did you mean 'inspect'?"),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_message(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dphrl: ") and part in captured.err and not captured.out
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(("command", "option"), MOVED)
def test_an_option_that_has_moved_names_its_command(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "x", option]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and MOVED[command, option] in said


@pytest.mark.parametrize("group", [[], ["anchors"]])
def test_no_command_shows_the_help_and_ends_with_status_2(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group) == 2
    assert capsys.readouterr().err.startswith("Usage: dphrl")


def test_unknown_settings_name_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("out: x\n")
    for words in (["--config", str(path)], [str(path)]):
        assert main(["train", *words, "--train.stesp", "3"]) == 2
        assert "did you mean 'steps'" in capsys.readouterr().err


def test_settings_reach_a_command_before_and_after_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that look like options or files stay values; a task of one's own name is a setting too."""
    path = tmp_path / "c.yaml"
    path.write_text("out: x\n")
    seen = []
    monkeypatch.setattr("dphrl.config.load.load_config", lambda *a: seen.append(a) or load_config(*a))
    monkeypatch.setattr("dphrl.stages.presample.presample.presample", lambda *a, **k: pytest.skip("reached"))
    words = ["--seed=1", str(path), "--train.learning_rate", "-1", "--eval_tasks.mine.limit", "3", "--task.data=a=b"]
    assert main(["plan", *words]) == 2, "the learning rate is refused"
    assert seen[0][1] == {
        "seed": "1",
        "train.learning_rate": "-1",
        "eval_tasks.mine.limit": "3",
        "task.data": "a=b",
    }


def test_doctor_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "torch 2." in said and "demo model: found" in said


def test_doctor_says_whether_a_model_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "demo"]) == 0
    assert capsys.readouterr().out.endswith("verdict: trains\n")
    for path, said in ((tmp_path, "holds no config.json"), (tmp_path / "model.gguf", "does not exist")):
        assert main(["doctor", "--model", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_recipes_and_pages_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    for words, path in (
        (["recipes", "spider-tiny"], "recipes/spider-tiny.yaml"),
        (["recipes", "accelerate/ddp"], "recipes/accelerate/ddp.yaml"),
        (["recipes", "get_smollm2.py"], "recipes/get_smollm2.py"),
        (["docs", "tasks"], "docs/tasks.md"),
    ):
        assert main(words) == 0
        assert capsys.readouterr().out == (root / path).read_text(encoding="utf-8")
    assert main(["recipes"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {path.stem for path in (root / "recipes").glob("*.yaml")} < listed


@pytest.mark.parametrize("arguments", [["train", "--help"], ["docs", "evaluation"], ["tasks"]])
def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dphrl", *arguments]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dphrl tr", {"train"}),
        ("dphrl train --allow", {"--allow-change"}),
        ("dphrl train --objective.e", {f"--{s.key}" for s in described_settings() if s.key.startswith("objective.e")}),
        ("dphrl train --train.steps 3 --model.pa", {"--model.path", "--model.pad_token"}),
    ],
)
def test_a_shell_completes_commands_options_and_settings(words: str, expected: set[str]) -> None:
    number = str(words.count(" "))
    environment = {**os.environ, COMPLETE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": number}
    ended = subprocess.run([sys.executable, "-m", "dphrl"], env=environment, capture_output=True, text=True, check=True)
    assert {line.partition(",")[2] for line in ended.stdout.splitlines()} == expected


def test_the_script_of_completion_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["--completion", shell]) == 0
        assert COMPLETE in capsys.readouterr().out
