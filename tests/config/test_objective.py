"""Settings of a method, and what happens to one that the method does not read, from YAML, command line and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from dphrl.config.describe import described_settings
from dphrl.config.load import build_config, load_config, read_stored_config, to_dict, to_yaml, write_stored_config
from dphrl.config.objective import (
    ANCHOR_METHODS,
    DEFINED,
    FRESH,
    OBJECTIVES,
    AnchoredObjective,
    DapoObjective,
    DphObjective,
)
from dphrl.config.overrides import parse_overrides, with_overrides
from dphrl.config.root import Config
from dphrl.config.train import TrainConfig
from dphrl.errors import ConfigError, RunDirError

FOREIGN: list[tuple[str, str]] = [
    ("--method grpo --objective.eta 0.5", "objective.eta is read by methods dph and replay, but method is grpo"),
    ("--method dapo --objective.eta 0.5", "objective.eta is read by methods dph and replay, but method is dapo"),
    ("--method rkl --objective.eta 0.5", "objective.eta is read by methods dph and replay, but method is rkl"),
    ("--method grpo --objective.beta 0.5", "objective.beta is read by method rkl, but method is grpo"),
    (
        "--method dph --objective.beta 0.5",
        "objective.beta is read by method rkl, but method is dph; leave it out, or use method rkl",
    ),
    ("--method dph --objective.kl_estimator k2", "objective.kl_estimator is read by method rkl"),
    ("--method rkl --objective.divergence js", "objective.divergence is read by method dph"),
    ("--method replay --objective.divergence js", "objective.divergence is read by method dph, but method is replay"),
    (
        "--method dph --objective.divergence forward_kl --objective.alpha 0.9",
        "objective.alpha is read with objective.divergence=alpha, but it is forward_kl; leave alpha out or change",
    ),
    ("--method grpo --objective.max_resample 9", "objective.max_resample is read by method dapo"),
    ("--method grpo --train.max_resample 9", "max_resample belongs to another section: objective.max_resample"),
    ("--method grpo --objective.anchors_per_step 9", "objective.anchors_per_step is read by methods dph and replay"),
    ("--method grpo --objective.eta_schedule linear --objective.eta_end 0", "objective.eta_end is read by"),
    ("--method replay --objective.log_u_cap 2", "objective.log_u_cap is read by method dph"),
    ("--method grpo --objective.anchor_forward merged", "objective.anchor_forward is read by methods dph and replay"),
    ("--method grpo --train.advantage group --train.pass_k 4", "train.pass_k is read with train.advantage=passk or"),
    ("--train.rank_penalty 0.25", "train.rank_penalty is read with train.advantage=unlikeliness, but it is group"),
    ("--objective.drift_target 0.1", "objective.drift_target is read with objective.eta_schedule=target"),
    (
        "--objective.form definition --objective.log_u_cap 5",
        "log_u_cap is read with objective.form=generator",
    ),
    ("--train.eta 0.1", "unknown setting 'train.eta'; eta belongs to another section: objective.eta"),
    ("--learning_rate 0.1", "belongs to another section: train.learning_rate"),
]


@pytest.mark.parametrize(("arguments", "part"), FOREIGN)
def test_a_setting_that_nothing_reads_is_refused_by_name(arguments: str, part: str, tmp_path: Path) -> None:
    """On the command line over a file of another method, and written out in a file."""
    path = tmp_path / "c.yaml"
    path.write_text("method: dph\nobjective: {eta: 0.05, anchors_per_step: 4}\n")
    overrides = parse_overrides(arguments.split())
    with pytest.raises(ConfigError, match=part.replace(".", r"\.")):
        load_config(path, overrides)
    path.write_text(yaml.safe_dump(with_overrides({}, overrides)))
    with pytest.raises(ConfigError, match=part.replace(".", r"\.")):
        load_config(path)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"eta": -1}, "objective.eta=-1 must be greater than or equal to 0"),
        ({"method": "grpo", "eta": 0.1}, "objective.eta is read by methods dph and replay, but method is grpo"),
        ({"method": "grpo", "eta": 0.05}, "objective.eta is read by"),
        ({"method": "rkl", "max_resample": 3}, "objective.max_resample is read by method dapo"),
        ({"pass_k": 4}, "train.pass_k is read with train.advantage=passk or pkpo, but it is group"),
        ({"advantage": "passk", "pass_k": 9}, "pass_k=9 needs 2 <= pass_k <= group_size=8"),
        ({"alpha": 0.5}, "objective.alpha is read with objective.divergence=alpha"),
        ({"share_prompts": "yes"}, "train.share_prompts='yes' must be 'auto', 'on' or 'off'"),
        ({"max_bad_steps": 0}, "train.max_bad_steps=0 must be greater than or equal to 1"),
    ],
)
def test_the_trainer_s_own_record_refuses_the_same(given: dict[str, Any], part: str, tmp_path: Path) -> None:
    from dphrl import DPHConfig

    with pytest.raises(ConfigError, match=part.replace(".", r"\.")):
        DPHConfig(output_dir=str(tmp_path), use_cpu=True, **given)


def test_the_trainer_s_own_record_has_the_same_defaults(tmp_path: Path) -> None:
    from dphrl import DPHConfig

    for method, cls in OBJECTIVES.items():
        args = DPHConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, method=method)
        told = {name: value for name, value in vars(cls()).items() if name != "anchors_per_step"}
        assert {name: getattr(args, name) for name in told} == told
        assert (args.anchors_per_step is None) == (method not in ANCHOR_METHODS)
        foreign = {"eta", "beta", "kl_estimator", "divergence"} - {*told, "beta"}
        assert all(getattr(args, name) is None for name in foreign)
    js = DPHConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, divergence="js")
    assert (js.eta, js.alpha, js.beta, js.anchors_per_step) == (0.2, None, 0.0, 1)


def test_a_method_on_the_command_line_takes_its_file_s_settings_along(tmp_path: Path) -> None:
    """A recipe serves every method: what the file says for its own method is not the other one's."""
    path = tmp_path / "c.yaml"
    path.write_text("objective: {divergence: alpha, alpha: 0.2, eta: 0.1}\ntrain: {advantage: pkpo, pass_k: 3}\n")
    rkl = load_config(path, {"method": "rkl", "objective.beta": "0.01"})
    assert to_dict(rkl)["objective"] == {"beta": 0.01, "kl_estimator": "k3"}
    js = load_config(path, {"objective.divergence": "js", "train.advantage": "maxrl"})
    assert isinstance(js.objective, DphObjective) and (js.objective.alpha, js.objective.eta) == (None, 0.1)
    assert js.train.pass_k is None
    path.write_text("train: {pass_k: 3}\n")
    with pytest.raises(ConfigError, match=r"train\.pass_k is read with"):
        load_config(path, {"method": "grpo"})


@pytest.mark.parametrize("word", ["auto", "on", "off"])
def test_the_words_on_and_off_stay_words_whatever_yaml_makes_of_them(word: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"train: {{share_prompts: {word}}}\n")
    config = load_config(path)
    assert config.train.share_prompts == word == load_config(path, {"train.share_prompts": word}).train.share_prompts
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_settings_that_an_earlier_version_stored_for_every_method_are_read(tmp_path: Path) -> None:
    old = {"method": "grpo", "objective": {"eta": 0.2, "alpha": 0.5, "beta": 0.1, "log_u_cap": 5.0, "eta_end": None}}
    old |= {"out": "", "eval": {}}  # as every stored config has them
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**old, "train": {"max_resample": 3, "pass_k": None}}))
    assert read_stored_config(path) == build_config({"method": "grpo"})
    with pytest.raises(ConfigError, match="is read by"):
        load_config(path)
    (tmp_path / "versions.json").write_text("{}")  # now it is a run's, and messages name it as --config
    assert load_config(path) == build_config({"method": "grpo"})
    path.write_text(yaml.safe_dump({**old, "method": "dapo", "train": {"max_resample": 7}}))
    dapo = read_stored_config(path).objective
    assert isinstance(dapo, DapoObjective) and dapo.max_resample == 7


@pytest.mark.parametrize("method", OBJECTIVES)
def test_what_is_stored_is_read_back(method: str) -> None:
    config = build_config({"method": method, "train": {"advantage": "passk"}})
    assert build_config(yaml.safe_load(to_yaml(config))) == config and config.train.pass_k == 4


def test_default_weights_are_those_of_a_real_model() -> None:
    """docs/choosing.md: 0.01 to 0.05 at learning rate 1e-6, for js 0.05 to 0.2."""
    told = {d: DphObjective(divergence=d).eta for d in get_args(get_type_hints(DphObjective)["divergence"])}
    assert told == {d: 0.2 if d == "js" else 0.05 for d in told}
    assert TrainConfig().learning_rate == 1e-6
    assert {s.key: s for s in described_settings()}["objective.eta"].default == "0.05, with divergence=js 0.2"


def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("method: dph\ntrain:\n  steps: 2\n  steps: 3\n")
    with pytest.raises(ConfigError, match="'steps' stands in line 3 and again in line 4"):
        load_config(path)
    path.write_text("task: &t {name: gsm8k, limit: 3}\neval_tasks:\n  a: {<<: *t, limit: 4}\n  b: {<<: *t}\n")
    config = load_config(path)
    assert (config.eval_tasks["a"].limit, config.eval_tasks["b"].limit) == (4, 3)


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train:\nobjective:\neval_tasks:\n")
    assert load_config(path) == Config()


def test_names_agree_with_the_tables_of_the_method() -> None:
    """The settings may not import torch: help answers at once."""
    from dphrl.method.advantages import ADVANTAGES
    from dphrl.method.definition_form import DEFINITIONS
    from dphrl.method.divergences import GENERATORS
    from dphrl.method.eta import SCHEDULES

    def choices(cls: type, name: str) -> set[str]:
        return set(get_args(get_type_hints(cls)[name]))

    assert choices(DphObjective, "divergence") == set(GENERATORS)
    assert choices(TrainConfig, "advantage") == set(ADVANTAGES)
    assert choices(AnchoredObjective, "eta_schedule") == {*SCHEDULES, "target"}
    assert set(DEFINED) == set(DEFINITIONS) and set(FRESH) == {n for n, d in DEFINITIONS.items() if d.fresh is not None}
    assert {m for m, cls in OBJECTIVES.items() if issubclass(cls, AnchoredObjective)} == set(ANCHOR_METHODS)
    assert set(get_args(get_type_hints(Config)["method"])) == set(OBJECTIVES)


def test_help_says_for_which_methods_a_setting_is() -> None:
    told = {s.key: s for s in described_settings()}
    assert told["objective.beta"].methods == ("rkl",) and told["objective.eta"].methods == ("dph", "replay")
    assert told["train.steps"].methods == () and told["train.steps"].section == "train"
    assert {"out", "method", "model.path", "objective.eta", "train.steps", "eval.n"} <= {
        k for k in told if told[k].common
    }


def test_a_stored_config_may_be_given_another_out_and_nothing_else(tmp_path: Path) -> None:
    """A run that is copied gets its new name; any other change is damage, or takes the checksum out."""
    path = tmp_path / "config.yaml"
    write_stored_config(path, build_config({"out": "runs/first", "seed": 3}))
    stored = path.read_text()
    path.write_text(stored.replace("out: runs/first", "out: runs/second"))
    assert read_stored_config(path) == build_config({"out": "runs/second", "seed": 3})
    changed = stored.replace("seed: 3", "seed: 2")
    path.write_text(changed)
    with pytest.raises(RunDirError, match="has the checksum"):
        read_stored_config(path)
    path.write_text(changed.partition("\n")[2])
    assert read_stored_config(path) == build_config({"out": "runs/first", "seed": 2})
