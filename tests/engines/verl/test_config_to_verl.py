"""A config on verl: the paper's recipe in numbers worked by hand, every setting in one table, refusals by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dphrl.config.describe import described_settings
from dphrl.config.load import build_config, load_config
from dphrl.config.root import Config
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.engines.verl.carried import places_of
from dphrl.engines.verl.cluster import Cluster
from dphrl.engines.verl.config_to_verl import Places, Translation, verl_settings
from dphrl.engines.verl.prompt_ids import TEXT_TEMPLATE
from dphrl.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes"
PLACES = Places(data=Path("/run/verl"), anchors=Path("/run/anchors"), out=Path("/run/verl"), model="org/model")
ACTOR, MODEL, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "model", "rollout"))
SMALL: dict[str, Any] = {
    "out": "/run",
    "model": {"path": "org/model", "dtype": "bfloat16"},
    "task": {"data": "x.jsonl", "chat": True},
    "train": {"prompts_per_step": 8, "group_size": 8, "updates": 2},
}


def config(**sections: Any) -> Config:
    """A small config; a section's settings are laid over those of SMALL."""
    laid = {k: {**SMALL.get(k, {}), **v} if isinstance(v, dict) else v for k, v in sections.items()}
    return build_config({**SMALL, **laid})


def translated(settings: Config, **cluster: Any) -> Translation:
    return verl_settings(settings, Cluster(**cluster), PLACES)


def test_the_papers_recipe_is_the_same_batches_and_steps() -> None:
    """128 prompts x 16 completions a generation in 2 optimiser steps of 64 x 16 = 1,024 completions, 368 generations;
    128 anchors an optimiser step, 8 on each of 16 GPUs; a checkpoint every 80 generations."""
    found = translated(load_config(RECIPES / "llama31-8b-bird.yaml"), nodes=2)
    assert (
        found.settings.items()
        >= {
            "data.train_batch_size": 128,
            f"{ROLLOUT}.n": 16,
            f"{ACTOR}.ppo_mini_batch_size": 64,
            "trainer.total_training_steps": 368,
            "trainer.save_freq": 80,
            "trainer.n_gpus_per_node": 8,
            "trainer.nnodes": 2,
            "data.max_prompt_length": 12_000,  # task.prompt_tokens; 16,096 - 4,096 leaves as many
            "data.max_response_length": 4_096,
            f"{ACTOR}.ppo_max_token_len_per_gpu": 16_384,  # a row has 16,096 tokens at most
            f"{ACTOR}.clip_ratio_low": 0.2,
            f"{ACTOR}.clip_ratio_high": 0.28,
            f"{ACTOR}.optim.lr": 1e-6,
            f"{ACTOR}.optim.weight_decay": 0.01,
            f"{ACTOR}.fsdp_config.model_dtype": "fp32",
            f"{ROLLOUT}.dtype": "bfloat16",
            f"{ROLLOUT}.gpu_memory_utilization": 0.6,
            "trainer.v1.trainer_mode": "dph",
            "+dph.anchors": "/run/anchors",
            "+dph.anchors_per_step": 128,
            "+dph.eta": 0.05,
            "+dph.divergence": "forward_kl",
            "trainer.test_freq": 368,
        }.items()
    )
    assert len(found.settings["data.val_files"]) == 7


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("method", ["grpo", "dapo", "rkl", "dph", "replay"])
def test_a_recipe_has_the_steps_that_trl_would_make(recipe: Path, method: str) -> None:
    """Completions and anchors of an optimiser step, and the number of steps, as TRL's engine has on as many GPUs."""
    gpus = 4 if "smollm2" in recipe.stem else 8
    settings = load_config(recipe, {"method": method, "sampling.stop_tokens": "[]"})
    here = trainer_settings(settings, Path("out"), processes=gpus)
    there = translated(settings, gpus=gpus).settings
    rows = there[f"{ACTOR}.ppo_mini_batch_size"] * there[f"{ROLLOUT}.n"]
    assert rows == here["per_device_train_batch_size"] * here["gradient_accumulation_steps"] * gpus
    updates = there["data.train_batch_size"] // there[f"{ACTOR}.ppo_mini_batch_size"]
    assert there["trainer.total_training_steps"] * updates == here["max_steps"]
    assert there["trainer.save_freq"] * updates == here["save_steps"]
    assert there.get("+dph.anchors_per_step", 0) == (here["anchors_per_step"] or 0)
    for name, same in (
        (f"{ACTOR}.clip_ratio_low", "epsilon"),
        (f"{ACTOR}.clip_ratio_high", "epsilon_high"),
        (f"{ACTOR}.optim.lr", "learning_rate"),
        (f"{ACTOR}.optim.clip_grad", "max_grad_norm"),
        (f"{ACTOR}.optim.weight_decay", "weight_decay"),
    ):
        assert there[name] == here[same]


def test_every_setting_stands_in_one_table() -> None:
    """A new setting must be put into one of them."""
    places = {setting.key: places_of(setting.key) for setting in described_settings()}
    assert {key: where for key, where in places.items() if len(where) != 1} == {}
    assert {where for (where,) in places.values()} == {"TRANSLATED", "ELSEWHERE", "NOT_CARRIED", "REFUSED"}


def test_the_tables_name_no_setting_that_is_gone() -> None:
    from dphrl.engines.verl import carried

    known = {setting.key for setting in described_settings()}
    elsewhere = [name for names in carried.ELSEWHERE.values() for name in names]
    assert {*carried.TRANSLATED, *elsewhere, *carried.NOT_CARRIED, *carried.REFUSED} <= known


def test_what_is_translated_changes_the_command() -> None:
    """A setting of TRANSLATED that is changed, alone or with what it goes with, changes verl's settings."""
    from dphrl.engines.verl.carried import TRANSLATED

    others: dict[str, dict[str, Any]] = {
        "out": {"out": "/other/name"},
        "seed": {"seed": 1},
        "method": {"method": "grpo", "objective": {}},
        "base_run": {"base_run": "/base", "eval_tasks": {"a": {"data": "a.jsonl", "chat": True}}},
        "eval_tasks": {"eval_tasks": {"a": {"data": "a.jsonl", "chat": True}}},
        "task.chat": {"task": {"chat": False}, "eval_tasks": {"a": {"data": "a.jsonl"}}},  # the eval task's kind too
        "task.prompt_tokens": {"task": {"prompt_tokens": 100}},
        "eval.n": {"eval": {"n": 3}},
        "eval.base": {"eval": {"base": False}, "eval_tasks": {"a": {"data": "a.jsonl", "chat": True}}},
        "model.path": {"model": {"path": "org/model"}},  # given with the places
        "model.dtype": {"model": {"dtype": "float32"}},
        "model.trust_remote_code": {"model": {"trust_remote_code": True}},
        "model.chat_template_args": {"model": {"chat_template_args": {"enable_thinking": False}}},
        "lora.r": {"lora": {"r": 8}},
        "lora.alpha": {"lora": {"r": 8, "alpha": 3}},
        "lora.target_modules": {"lora": {"r": 8, "target_modules": ["q_proj"]}},
        "sampling.temperature": {"sampling": {"temperature": 0.5}},
        "sampling.top_p": {"sampling": {"top_p": 0.5}},
        "sampling.max_new_tokens": {"sampling": {"max_new_tokens": 5}},
        "objective.max_resample": {"method": "dapo", "objective": {"max_resample": 0}},
        "objective.beta": {"method": "rkl", "objective": {"beta": 0.3}},
        "objective.kl_estimator": {"method": "rkl", "objective": {"kl_estimator": "k2"}},
        "objective.eta": {"objective": {"eta": 0.3}},
        "objective.eta_schedule": {"objective": {"eta_schedule": "cosine"}},
        "objective.eta_end": {"objective": {"eta_schedule": "cosine", "eta_end": 0.01}},
        "objective.drift_target": {"objective": {"eta_schedule": "target", "drift_target": 0.07}},
        "objective.eta_bounds": {
            "objective": {"eta_schedule": "target", "drift_target": 0.05, "eta_bounds": [0.01, 2.0]}
        },
        "objective.anchors_per_step": {"objective": {"anchors_per_step": 64}},
        "objective.anchor_ratio": {"objective": {"anchor_ratio": 2.0}},
        "objective.anchors_per_prompt": {"objective": {"anchors_per_prompt": 3}},
        "objective.divergence": {"objective": {"divergence": "js"}},
        "objective.alpha": {"objective": {"divergence": "alpha", "alpha": 0.3}},
        "objective.form": {"objective": {"form": "definition"}},
        "objective.log_u_cap": {"objective": {"log_u_cap": 2.0}},
        "train.group_size": {"train": {"group_size": 16}},
        "train.steps": {"train": {"steps": 7}},
        "train.prompts_per_step": {"train": {"prompts_per_step": 16}},
        "train.updates": {"train": {"updates": 1}},
        "train.learning_rate": {"train": {"learning_rate": 1e-3}},
        "train.lr_schedule": {"train": {"lr_schedule": "cosine"}},
        "train.warmup_steps": {"train": {"warmup_steps": 10}},
        "train.weight_decay": {"train": {"weight_decay": 0.2}},
        "train.max_grad_norm": {"train": {"max_grad_norm": 0.2}},
        "train.clip_low": {"train": {"clip_low": 0.1}},
        "train.clip_high": {"train": {"clip_high": 0.5}},
        "train.save_every": {"train": {"save_every": 7}},
        "train.gradient_checkpointing": {"train": {"gradient_checkpointing": True}},
        "train.trl": {"train": {"trl": {"loss_type": "grpo"}}},
    }
    assert others.keys() == TRANSLATED
    plain = translated(config()).settings
    same = [key for key, given in others.items() if translated(config(**given)).settings == plain]
    assert same == ["model.path"]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"train": {"advantage": "maxrl"}}, "train.advantage='maxrl': verl has dphrl's advantage=group alone"),
        ({"train": {"prompts_per_step": 9}}, "prompts_per_step=9 does not divide over train.updates=2"),
        ({"train": {"lr_schedule": "linear"}}, "constant and cosine"),
        ({"train": {"trl": {"loss_type": "cispo"}}}, "loss_type='cispo' has no counterpart"),
        ({"train": {"trl": {"scale_rewards": "batch"}}}, "scale_rewards='batch' has no counterpart"),
        ({"train": {"trl": {"num_iteration": 2}}}, "train.trl.num_iteration=2 has no counterpart"),
        ({"train": {"trl": {"report_to": "wandbb"}}}, "did you mean 'wandb'"),
        (
            {"train": {"trl": {"vllm_tensor_parallel_size": 3}}},
            "does not divide the 8 GPUs of a node; the nearest that",
        ),
        ({"train": {"trl": {"vllm_max_model_length": 256}}}, "leaves no room for a prompt"),
        ({"model": {"device": "cpu"}}, "model.device='cpu': verl trains on GPUs"),
        ({"model": {"revision": "main"}}, "model.revision='main'"),
        ({"model": {"dtype": "float16"}}, "not trained"),
        ({"sampling": {"stop_tokens": ["x"]}}, "sampling.stop_tokens=['x']"),
        ({"objective": {"anchor_forward": "separate"}}, "objective.anchor_forward='separate'"),
        ({"objective": {"divergence": "js", "form": "definition"}}, "use form=generator"),
        ({"method": "rkl", "objective": {"kl_estimator": "k3_corrected"}}, "use k2, or k3"),
        ({"method": "rkl", "objective": {"kl_estimator": "k1_reward"}}, "divides a KL in the reward"),
        ({"method": "grpo", "lora": {"r": 4, "dropout": 0.1}}, "lora.dropout=0.1"),
    ],
)
def test_what_verl_cannot_do_is_refused_by_name(given: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        translated(config(**given))
    assert part in str(refused.value)


def test_all_that_is_refused_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)model.revision.*sampling.stop_tokens.*train.advantage"):
        translated(
            config(model={"revision": "r"}, sampling={"stop_tokens": ["x"]}, train={"advantage": "maxrl"}), nodes=1
        )


def test_batches_that_do_not_divide_name_the_nearest_that_do() -> None:
    """4 prompts x 8 = 32 completions an optimiser step over 24 GPUs: 24 divides 3 prompts x 8, so 6 or 12 a generation;
    32 divides over 16 and 32 GPUs."""
    with pytest.raises(ConfigError, match=r"the 32 completions .* over 24 GPUs; .*: 6 or 12; .* GPUs: 16 or 32"):
        translated(config(), nodes=3)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"gpus": 0}, "--gpus 0 must be at least 1"),
        ({"nodes": -1}, "--nodes -1 must be at least 1"),
        ({"mode": "async"}, "--mode async is not one of sync, colocate_async, separate_async"),
        ({"engine": "hf"}, "--rollout hf is not one of vllm, sglang"),
        ({"mode": "separate_async"}, "needs at least 1"),
        ({"rollout_nodes": 1}, "belong to separate_async"),
    ],
)
def test_a_cluster_that_is_none(given: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Cluster(**given)


def test_anchors_are_rounded_up_to_the_gpus_and_it_is_said() -> None:
    """An eighth of 32 completions is 4 anchors; 8 GPUs want 8."""
    found = translated(config())
    assert found.settings["+dph.anchors_per_step"] == 8
    assert "8 anchors an optimiser step instead of 4, to divide over 8 GPUs" in found.differs
    assert translated(config(), gpus=4).settings["+dph.anchors_per_step"] == 4


def test_a_learning_rate_moves_once_a_generation() -> None:
    """10 optimiser steps of warm-up are 5 generations of two; with drawing elsewhere verl counts optimiser steps."""
    warm = config(train={"warmup_steps": 9, "lr_schedule": "cosine"})
    together = translated(warm)
    assert together.settings[f"{ACTOR}.optim.lr_warmup_steps"] == 5
    assert any("moves once a generation, for 2 optimiser steps" in line for line in together.differs)
    apart = translated(warm, mode="separate_async", rollout_nodes=1)
    assert apart.settings[f"{ACTOR}.optim.lr_warmup_steps"] == 9
    assert apart.settings["trainer.v1.separate_async.parameter_sync_step"] == 2
    assert apart.settings["trainer.v1.trainer_mode"] == "dph_separate_async"
    assert not any("moves once" in line for line in apart.differs)


def test_eta_moves_once_a_generation() -> None:
    course = config(objective={"eta_schedule": "linear"})
    line = "eta moves once a generation, for 2 optimiser steps at once"
    assert line in translated(course).differs
    assert line not in translated(course, mode="separate_async", rollout_nodes=1).differs
    assert line not in translated(config()).differs


def test_methods() -> None:
    grpo = translated(config(method="grpo")).settings
    assert grpo["trainer.v1.trainer_mode"] == "sync" and not any("dph" in key for key in grpo)
    assert grpo[f"{ACTOR}.clip_ratio_high"] == 0.2
    dapo = translated(config(method="dapo")).settings
    assert dapo["algorithm.filter_groups.enable"] is True and dapo[f"{ACTOR}.clip_ratio_high"] == 0.28
    assert (
        "algorithm.filter_groups.enable"
        not in translated(config(method="dapo", objective={"max_resample": 0})).settings
    )
    rkl = translated(config(method="rkl", objective={"beta": 0.01})).settings
    assert (rkl[f"{ACTOR}.kl_loss_coef"], rkl[f"{ACTOR}.kl_loss_type"]) == (0.01, "low_var_kl")
    replay = translated(config(method="replay", base_run="/base")).settings
    assert replay["+dph.method"] == "replay" and "+dph.divergence" not in replay


def test_texts_go_to_the_model_as_they_are() -> None:
    raw = verl_settings(config(task={"chat": False}), Cluster(), PLACES, template=TEXT_TEMPLATE)
    assert raw.settings[f"{MODEL}.custom_chat_template"] == TEXT_TEMPLATE
    assert f"{MODEL}.custom_chat_template" not in translated(config()).settings


def test_a_task_of_another_chat_is_left_to_eval() -> None:
    found = translated(config(eval_tasks={"raw": {"data": "a.jsonl"}, "chat": {"data": "b.jsonl", "chat": True}}))
    assert found.settings["data.val_files"] == ["/run/verl/chat.parquet"]
    assert any(line.startswith("not validated there: raw") for line in found.differs)


@pytest.mark.parametrize(
    ("mode", "clip", "level", "threshold"),
    [
        ("token_truncate", {}, "token", 3.0),
        ("sequence_truncate", {"vllm_importance_sampling_clip_max": 2.0}, "sequence", 2.0),
        ("sequence_mask", {}, "sequence", "1e-12_3.0"),
        ("token_mask", {"vllm_importance_sampling_clip_min": 0.5}, "token", "0.5_3.0"),
    ],
)
def test_weights_for_the_engine_that_draws(mode: str, clip: dict[str, float], level: str, threshold: Any) -> None:
    trl = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": mode, **clip}
    settings = translated(config(train={"trl": {"use_vllm": True, **trl}})).settings
    assert settings["algorithm.rollout_correction.rollout_is"] == level
    assert settings["algorithm.rollout_correction.rollout_is_threshold"] == threshold


def test_what_changes_no_result_is_said() -> None:
    found = translated(config(threads=2, train={"micro_batch": 4, "trl": {"vllm_mode": "server"}}))
    assert [line.partition("=")[0] for line in found.left_out] == [
        "threads",
        "train.micro_batch",
        "train.trl.vllm_mode",
    ]
