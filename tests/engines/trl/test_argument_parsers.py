"""`DPHConfig` on a command line: the parsers of transformers and TRL read our settings beside TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser
from trl import TrlParser

from dphrl import DPHConfig
from dphrl.config.describe import described_settings
from dphrl.config.train import TRAINER_SETTINGS
from dphrl.errors import ConfigError

OURS = [
    setting
    for setting in described_settings()
    if setting.section == "objective" or setting.key in {f"train.{name}" for name in TRAINER_SETTINGS}
]


@pytest.fixture(params=[HfArgumentParser, TrlParser])
def parser(request: pytest.FixtureRequest) -> HfArgumentParser:
    made: HfArgumentParser = request.param(DPHConfig)
    return made


def parsed(parser: HfArgumentParser, out: Path, words: str) -> Any:
    arguments = ["--output_dir", str(out), "--use_cpu", "true", "--bf16", "false", *words.split()]
    return parser.parse_args_into_dataclasses(args=arguments)[0]


def test_every_setting_of_ours_is_an_option_with_its_meaning(parser: HfArgumentParser) -> None:
    said = " ".join(parser.format_help().split())
    options = {option: action for action in parser._actions for option in action.option_strings}
    assert len(OURS) > 15
    for setting in OURS:
        action = options[f"--{setting.key.rpartition('.')[2]}"]
        assert setting.help in str(action.help)
        assert list(action.choices or []) == (setting.range.split(" | ") if " | " in setting.range else [])
    assert "Weight of the anchor penalty" in said


def test_options_reach_the_config_with_their_types(parser: HfArgumentParser, tmp_path: Path) -> None:
    words = "--divergence js --eta_schedule target --drift_target 0.1 --eta_bounds 0.01 0.4 --anchors_per_step 4"
    config = parsed(parser, tmp_path, f"{words} --advantage passk --pass_k 2 --learning_rate 1e-4")
    assert (config.method, config.divergence, config.advantage, config.pass_k) == ("dph", "js", "passk", 2)
    assert (config.eta, config.drift_target, config.eta_bounds) == (0.2, 0.1, [0.01, 0.4])
    assert (config.anchors_per_step, config.learning_rate) == (4, 1e-4)


def test_an_option_that_the_method_does_not_read_is_refused(parser: HfArgumentParser, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="eta"):
        parsed(parser, tmp_path, "--method grpo --eta 0.2")


def test_a_value_that_is_no_choice_is_refused(
    parser: HfArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(parser, tmp_path, "--divergence forward")
    assert "forward_kl" in capsys.readouterr().err
