"""Options of `train.trl`: what TRL, transformers or a setting of ours would refuse later is refused at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.engines.trl.tried_options import OVERRIDES, try_options
from dphrl.errors import ConfigError


def tried(demo_values: dict[str, Any], options: dict[str, Any], *, alone: bool = True) -> dict[str, Any]:
    """The settings of a training with these options, once they are tried."""
    demo_values["train"]["trl"] = options
    config = build_config(demo_values)
    settings = trainer_settings(config, Path(config.out, "train"))
    try_options(config, settings, alone=alone)
    return settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim": "adamz"}, r"optim='adamz'.*adamz is not a valid"),
        ({"optim": "adamw_8bit"}, r"optim='adamw_8bit'.*bitsandbytes"),
        ({"adam_beta2": "high"}, r"adam_beta2='high' must be a valid number"),
        ({"adam_beta2": 5}, r"adam_beta2=5.*Invalid beta"),
        ({"dataloader_num_workers": -1}, r"dataloader_num_workers=-1 must be at least 0"),
        ({"dataloader_prefetch_factor": 2}, r"dataloader_prefetch_factor=2.*num_workers"),
        ({"deepspeed": "no.json"}, r"deepspeed='no.json'"),
        ({"fsdp": "full_shard"}, r"fsdp divides the weights"),
        ({"report_to": 3}, r"report_to=3 must be"),
        ({"min_p": 5}, r"min_p=5.0 must be at least 0 and at most 1"),
        ({"repetition_penalty": 0}, r"repetition_penalty=0: .*must be above 0"),
        ({"cache_implementation": "x"}, r"cache_implementation='x'"),
        ({"reward_weights": [1, 2]}, r"reward_weights=\[1.0, 2.0\] has 2 weights"),
        ({"torch_compile": True, "torch_compile_backend": "nope"}, r"torch_compile_backend='nope'.*no such backend"),
        ({"log_level": "loud"}, r"log_level='loud'"),
        ({"accelerator_config": {"x": 1}}, r"accelerator_config=\{'x': 1\}"),
        ({"lr_scheduler_kwargs": {"x": 1}}, r"lr_scheduler_kwargs=\{'x': 1\}.*takes no x"),
        ({"gradient_checkpointing_kwargs": {"use_reentrent": True}}, r".*did you mean 'use_reentrant'"),
        ({"generation_kwargs": [1]}, r"generation_kwargs=\[1\] must be"),
        ({"generation_kwargs": "x"}, r"generation_kwargs='x' must be a mapping"),
        ({"generation_kwargs": {"top_kk": 3}}, r"generation_kwargs.top_kk is unknown; did you mean 'top_k'"),
        ({"generation_kwargs": {"min_p": 5}}, r"generation_kwargs.min_p=5 must be"),
        ({"generation_kwargs": {"repetition_penalty": 0}}, r"generation_kwargs=.*repetition_penalty=0 must be above 0"),
        ({"model_init_kwargs": {"x": 1}}, r"model_init_kwargs is set by dphrl itself"),
        *(({"generation_kwargs": {key: 1}}, rf"generation_kwargs.{key} would override") for key in OVERRIDES),
    ],
)
def test_a_wrong_option_is_refused_by_name(demo_values: dict[str, Any], options: dict[str, Any], message: str) -> None:
    before = dict(os.environ)
    with pytest.raises(ConfigError, match=rf"train\.trl\.{message}"):
        tried(demo_values, options)
    assert dict(os.environ) == before


def test_right_options_are_taken_and_numbers_that_yaml_reads_as_texts_are_numbers(demo_values: dict[str, Any]) -> None:
    options = yaml.safe_load("{adam_epsilon: 1e-8, optim: sgd, report_to: none, scale_rewards: none, top_k: 5}")
    settings = tried(demo_values, {**options, "generation_kwargs": {"top_k": 5}})
    assert settings["adam_epsilon"] == 1e-8 and settings["optim"] == "sgd" and settings["top_k"] == 5
    tried(demo_values, {"fsdp": "full_shard"}, alone=False)


@pytest.mark.parametrize("command", ["plan", "run", "presample", "train"])
def test_every_command_refuses_it_before_anything_is_drawn(
    demo_values: dict[str, Any], command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_values["train"]["trl"] = {"optim": "adamz"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(demo_values))
    assert main([command, "--config", str(tmp_path / "c.yaml")]) == 2
    assert "train.trl.optim='adamz'" in capsys.readouterr().err
    assert not Path(demo_values["out"], "presample").exists()
