"""Settings: types and ranges, YAML and back, overrides, errors that help, help that is complete."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphrl.config.describe import described_settings
from dphrl.config.load import build_config, load_config, to_yaml
from dphrl.config.overrides import parse_overrides, with_overrides
from dphrl.config.root import Config
from dphrl.config.sources import AnchorConfig
from dphrl.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_yaml_round_trip_keeps_every_setting() -> None:
    config = build_config(
        {
            "out": "runs/x",
            "seed": 7,
            "method": "rkl",
            "eval_tasks": {"a": {"data": "x.jsonl", "columns": {"gold": "answer"}}},
            "train": {"learning_rate": 3e-4, "trl": {"num_iterations": 2}},
        }
    )
    assert build_config(yaml.safe_load(to_yaml(config))) == config


def test_numbers_written_as_yaml_reads_them_as_text_are_numbers() -> None:
    """YAML 1.1 reads 3e-4 as a text."""
    assert build_config(yaml.safe_load("train: {learning_rate: 3e-4}")).train.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"trian": {}}, ["unknown setting 'trian'", "'train'"]),
        ({"train": {"step": 3}}, ["unknown setting 'train.step'", "'steps'"]),
        ({"eval_tasks": {"a": {"dta": "x"}}}, ["eval_tasks.a.dta", "'data'"]),
        ({"anchor": {"threshold": 9}}, ["anchor.threshold=9", "1..presamples=8"]),
        ({"anchor": {"threshold": 0}}, ["anchor.threshold=0", "greater than or equal to 1"]),
        ({"anchor": {"presamples": 0}}, ["anchor.presamples=0"]),
        ({"anchor": {"threshold": "many"}}, ["anchor.threshold='many'", "integer"]),
        ({"method": "grp"}, ["method='grp'", "'grpo', 'dapo', 'rkl', 'dph' or 'replay'"]),
        ({"sampling": {"temperature": 0}}, ["sampling.temperature=0", "greater than 0"]),
        ({"objective": {"alpha": 1}}, ["objective.alpha=1", "less than 1"]),
        ({"eval": {"n": 0}}, ["eval.n=0"]),
        ({"train": {"updates": 3}}, ["train.updates=3", "64"]),
        ({"eval_tasks": 3}, ["eval_tasks=3"]),
        ({"eval_tasks": {"a/b": {"data": "x"}}}, ["eval_tasks", "'a/b'", "letter or digit first"]),
        ({"eval_tasks": {"..": {"data": "x"}}}, ["'..'"]),
        ({"eval_tasks": {"": {"data": "x"}}}, ["''"]),
        ({"eval_tasks": {"x" * 200: {"data": "x"}}}, ["128 at most"]),
        ({"seed": 2**32}, ["seed=4294967296", "less than"]),
        ({"threads": 10**9}, ["threads=1000000000", "less than or equal to 4096"]),
        ({"train": {"learning_rate": float("inf")}}, ["train.learning_rate=inf", "finite"]),
        ({"train": {"clip_high": float("inf")}}, ["train.clip_high=inf", "finite"]),
        ({"train": {"exploration_filter": [0, float("nan")]}}, ["train.exploration_filter", "finite"]),
        ({"train": {"trl": {"adam_beta2": float("nan")}}}, ["train.trl.adam_beta2=nan", "finite"]),
        ({"task": {"verifier_args": {"timeout": [float("inf")]}}}, ["task.verifier_args.timeout=inf", "finite"]),
        ({"objective": {"eta": float("inf")}}, ["objective.eta=inf", "finite"]),
        ({"objective": {"eta": float("nan")}}, ["objective.eta=nan"]),
        ({"sampling": {"backend": "openai", "base_url": "http://x", "timeout_s": float("inf")}}, ["timeout_s=inf"]),
    ],
)
def test_bad_settings_say_what_came_and_what_is_allowed(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(values)
    for part in parts:
        assert part in str(caught.value)


def test_a_key_with_nothing_behind_it_is_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "model: {chat_template_args: }\nanchor: {also: }\nsampling: {stop_tokens: }\ntrain: {trl: }\neval:\n"
        "task: {columns: , verifier_args: }\neval_tasks:\nobjective:\n"
    )
    assert load_config(file) == Config()
    file.write_text("train: {steps: }\n")
    with pytest.raises(ConfigError, match=r"train\.steps=None must be a valid integer"):
        load_config(file)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"sede": 1, "train": {"stpes": 1}})
    assert "'seed'" in str(caught.value) and "'steps'" in str(caught.value)


def test_ranges_hold_from_python_too() -> None:
    with pytest.raises(ValueError, match="threshold=9"):
        AnchorConfig(threshold=9)


def test_overrides_reach_nested_settings_and_keep_texts_as_they_are() -> None:
    overrides = parse_overrides(["--train.steps", "3", "--model.path=123", "--eval_tasks.a.data", "7", "--seed", "1"])
    values = with_overrides({"train": {"updates": 1}}, overrides)
    assert values == {
        "train": {"updates": 1, "steps": 3},
        "model": {"path": "123"},
        "eval_tasks": {"a": {"data": "7"}},
        "seed": 1,
    }


@pytest.mark.parametrize("arguments", [["train.steps", "3"], ["--train.steps"], ["--"]])
def test_malformed_overrides_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_overrides(arguments)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_files_that_are_no_settings_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path)


def test_missing_config_says_where_examples_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recipes"):
        load_config(tmp_path / "none.yaml")


def test_a_model_folder_beside_the_config_is_found(tmp_path: Path) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    path = tmp_path / "c.yaml"
    path.write_text("model: {path: models/m}\n")
    assert load_config(path, base_dir=tmp_path).model.path == str(tmp_path / "models" / "m")


def test_help_names_every_setting_with_a_text() -> None:
    listed = {s.key: s for s in described_settings()}
    assert all(s.help for s in listed.values())
    sections = [f.name for f in dataclasses.fields(Config)]
    assert {key.split(".")[0] for key in listed} == set(sections)
    assert listed["anchor.threshold"].range == ">= 1"
    assert listed["objective.log_u_cap"].unit == "nats"
    assert listed["train.steps"].default == "60"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_loads(path: Path) -> None:
    assert load_config(path, base_dir=path.parent).out
