"""What `dphrl verl-command` prints, laid over verl's own settings by Hydra and checked by verl itself."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from torch.optim.lr_scheduler import LambdaLR
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.torch_functional import get_cosine_schedule_with_warmup
from verl.workers.config import FSDPActorConfig

from dphrl.cli.main import main
from dphrl.config.load import build_config, load_config
from dphrl.config.overrides import parse_overrides
from dphrl.config.root import Config
from dphrl.demo.task import model_folder
from dphrl.engines.verl.cluster import Cluster
from dphrl.engines.verl.config_to_verl import KL_TYPES, NEVER_CLIPS, Places, Translation, verl_settings
from dphrl.engines.verl.hydra_words import override
from dphrl.engines.verl.prompt_ids import TEXT_TEMPLATE
from dphrl.engines.verl.settings import VerlSettings
from dphrl.method.kl_estimators import k2
from dphrl.models.policy import load_policy
from dphrl.types import Prompt

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
TABLE = dict(re.findall(r"^\| ([\w. -]+) \| `(--[^`]+)` \|$", (ROOT / "docs" / "recipes.md").read_text(), re.M))
VARIANTS = {**TABLE, "replay": "--method replay"}
"""Of the page of recipes, and the control."""
CLUSTERS: tuple[dict[str, Any], ...] = (
    {"gpus": 8},
    {"gpus": 8, "nodes": 2},
    {"gpus": 8, "nodes": 2, "mode": "colocate_async", "engine": "sglang"},
    {"gpus": 8, "nodes": 1, "mode": "separate_async", "rollout_nodes": 1},
)
PLACES = Places(data=Path("/my run/data"), anchors=Path("/a=b/anchors"), out=Path('/it"s/verl'), model="org/model")


def composed(found: Translation) -> DictConfig:
    """verl's settings with ours over them; each of ours is there afterwards as it was meant."""
    words = [override(key, value) for key, value in found.settings.items()]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=words)
    OmegaConf.resolve(config)
    for key, value in found.settings.items():
        assert OmegaConf.select(config, key.lstrip("+")) == value, key
    return config


def recipe(name: str, words: str = "") -> Config:
    overrides = {"sampling.stop_tokens": "[]", **parse_overrides(words.split())}
    return load_config(ROOT / "recipes" / f"{name}.yaml", overrides)


def checked_by_verl(found: Translation, cluster: Cluster) -> None:
    config = composed(found)
    validate_config(config, need_reference_policy(config), need_critic(config))
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.algorithm)
    actor, rows = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout.n
    assert actor.ppo_mini_batch_size * rows % cluster.ranks == 0  # TrainingWorker.train_mini_batch
    if cluster.mode == "separate_async":  # PPOTrainerSeparateAsync.__init__
        steps = config.trainer.v1.separate_async.parameter_sync_step
        assert config.data.train_batch_size == steps * actor.ppo_mini_batch_size


@pytest.mark.filterwarnings("ignore:Disabled critic")
@pytest.mark.parametrize("place", range(len(CLUSTERS)))
@pytest.mark.parametrize("name", RECIPES)
def test_verl_takes_every_recipe(name: str, place: int) -> None:
    given = CLUSTERS[place]
    cluster = Cluster(**{**given, "gpus": 4, "nodes": 1} if "smollm2" in name else given)
    checked_by_verl(verl_settings(recipe(name), cluster, PLACES), cluster)


@pytest.mark.filterwarnings("ignore:Disabled critic")
@pytest.mark.parametrize("variant", VARIANTS)
def test_verl_takes_every_method(variant: str) -> None:
    for given in (CLUSTERS[0], CLUSTERS[3]):
        cluster = Cluster(**given)
        checked_by_verl(verl_settings(recipe("qwen25-math-7b-math", VARIANTS[variant]), cluster, PLACES), cluster)


@pytest.mark.filterwarnings("ignore:Disabled critic")
@pytest.mark.parametrize(
    "given",
    [
        {
            "model": {
                "dtype": "pure_bfloat16",
                "trust_remote_code": True,
                "chat_template_args": {"enable_thinking": False},
            }
        },
        {"method": "rkl", "model": {"dtype": "float32"}, "objective": {"kl_estimator": "k2"}},
        {"objective": {"eta_schedule": "target", "drift_target": 0.05, "divergence": "alpha"}},
        {"eval_tasks": {"a.b": {"data": "a.jsonl"}, "c-d": {"data": "a.jsonl"}}},
        {"train": {"trl": {"vllm_importance_sampling_correction": True}}},
        {"train": {"trl": {"loss_type": "dr_grpo", "scale_rewards": "none", "adam_beta2": 0.95, "adam_epsilon": 1e-6}}},
        {"train": {"trl": {"report_to": ["wandb"], "run_name": "7", "top_k": 5, "save_total_limit": 3}}},
        {"train": {"lr_schedule": "cosine", "warmup_steps": 5}},
    ],
)
def test_verl_takes_what_recipes_do_not_use(given: dict[str, Any]) -> None:
    values = {"out": "/run", "task": {"data": "x.jsonl"}, **given}
    checked_by_verl(verl_settings(build_config(values), Cluster(), PLACES), Cluster())


def test_an_adapter_is_where_verl_looks_for_it() -> None:
    values = {"out": "/run", "task": {"data": "x.jsonl"}, "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]}}
    model = composed(verl_settings(build_config(values), Cluster(), PLACES)).actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, list(model.target_modules)) == (8, 16, ["q_proj", "v_proj"])


def test_the_block_is_what_the_plug_in_reads() -> None:
    for variant in ("DPH-F", "DPH-JS", "alpha 0.2", "replay"):
        config = recipe("llama31-8b-bird", VARIANTS[variant])
        block = OmegaConf.to_container(composed(verl_settings(config, Cluster(), PLACES)).dph)
        read = VerlSettings.of(block)
        assert (read.method, read.seed, read.anchors) == (config.method, config.seed, PLACES.anchors)
        assert read.objective == config.objective
        assert read.anchors_beside(1024, 8) == 128


@pytest.mark.slow
def test_the_printed_script_starts_verl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As bash runs it, but for `--cfg job`: verl prints the settings it would train with, and ends."""
    words = ["verl-command", str(ROOT / "recipes" / "llama31-8b-bird.yaml"), "--out", str(tmp_path / "a run")]
    assert main(words) == 0
    script = capsys.readouterr().out.rstrip() + " --cfg job\n"
    shown = f'python() {{ {sys.executable} "$@"; }}\n{script}'
    ended = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True, timeout=300)
    assert (tmp_path / "a run" / "verl").is_dir()
    config = OmegaConf.create(ended.stdout[ended.stdout.index("actor_rollout_ref:") :])
    assert config.data.train_files == str(tmp_path / "a run" / "verl" / "train.parquet")
    assert config.trainer.v1.trainer_mode == "dph" and config.dph.eta == 0.05


def test_a_text_has_the_tokens_that_dphrl_gives_it() -> None:
    """Where verl lays the template: the tokenizer of its model's settings (HFModelConfig), with our prompt."""
    policy = load_policy(build_config({"model": {"path": str(model_folder()), "device": "cpu"}}))
    values = build_config({"out": "/run", "task": {"data": "x.jsonl"}})
    found = verl_settings(values, Cluster(), replace(PLACES, model=str(model_folder())), template=TEXT_TEMPLATE)
    tokenizer = omega_conf_to_dataclass(composed(found).actor_rollout_ref.model).tokenizer
    text = "  Q: two\n\nA:"
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert ids["input_ids"] == policy.encode(Prompt("p", text, {}))


# The same mathematics.


def actor_config(**given: Any) -> FSDPActorConfig:
    return FSDPActorConfig(strategy="fsdp2", rollout_n=2, use_dynamic_bsz=True, **given)


def test_the_loss_is_clipped_ppo_with_a_mean_over_tokens() -> None:
    """verl's third clip would act at the second token, whose ratio is exp(2) = 7.4 > 3 with a negative advantage."""
    logp = torch.tensor([[0.1, 2.0, -0.5], [0.4, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    advantages = torch.tensor([[-1.0], [2.0]]).expand(2, 3)
    actor = actor_config(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=NEVER_CLIPS)
    actor.global_batch_info.update(dp_size=1, batch_num_tokens=4, global_batch_size=2)
    loss, _ = core_algos.compute_policy_loss_vanilla(
        torch.zeros(2, 3), logp, advantages, mask, loss_agg_mode="token-mean", config=actor
    )
    ratio = logp.exp()
    terms = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    torch.testing.assert_close(loss, (terms * mask).sum() / 4)


@pytest.mark.parametrize(
    ("loss_type", "expected"), [("dapo", 18 / 5), ("grpo", (3 / 2 + 15 / 3) / 2), ("dr_grpo", 18 / (2 * 10))]
)
def test_sums_of_the_loss_are_those_of_trl(loss_type: str, expected: float) -> None:
    """Rows of 2 and 3 tokens with losses 1, 2 and 4, 5, 6: over all 5 tokens; mean of the rows' means; over 2 rows of
    10 tokens at most, as TRL's formulas say."""
    values = {"out": "/run", "task": {"data": "x.jsonl"}, "sampling": {"max_new_tokens": 10}}
    config = build_config({**values, "train": {"trl": {"loss_type": loss_type}}})
    actor = composed(verl_settings(config, Cluster(), PLACES)).actor_rollout_ref.actor
    losses, mask = torch.tensor([[1.0, 2, 0], [4, 5, 6]]), torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    found = core_algos.agg_loss(
        losses,
        mask,
        actor.loss_agg_mode,
        batch_num_tokens=5,
        global_batch_size=2,
        loss_scale_factor=actor.loss_scale_factor,
    )
    assert found.item() == pytest.approx(expected)


def test_kl_terms_are_ours() -> None:
    logp, ref = torch.tensor([-1.0, -2.0, -0.3]), torch.tensor([-1.5, -0.5, -0.3])
    torch.testing.assert_close(core_algos.kl_penalty(logp, ref, KL_TYPES["k2"]), k2(logp, ref))
    torch.testing.assert_close(core_algos.kl_penalty(logp, ref, KL_TYPES["k3"]), (ref - logp).exp() - (ref - logp) - 1)


def test_advantages_differ_by_their_epsilon_alone() -> None:
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1])
    mask = torch.ones(8, 1)
    found, _ = core_algos.compute_grpo_outcome_advantage(rewards[:, None].clone(), mask, [0] * 4 + [1] * 4)  # type: ignore[arg-type]
    groups = rewards.view(2, 4)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)
    torch.testing.assert_close(found[:, 0], expected.flatten())


def test_the_cosine_is_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup as of_transformers

    def course(schedule: LambdaLR) -> list[float]:
        (factor,) = schedule.lr_lambdas
        return [factor(step) for step in range(20)]

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    verl = course(get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=4, num_training_steps=20))
    assert verl == pytest.approx(course(of_transformers(optimizer, num_warmup_steps=4, num_training_steps=20)))


@pytest.mark.parametrize(("mode", "kept"), [("sequence_mask", [1.5, 0.0]), ("sequence_truncate", [1.5, 3.0])])
def test_weights_for_the_engine_that_draws(mode: str, kept: list[float]) -> None:
    """Two completions of one token whose ratios are 1.5 and 20; TRL's bound is 3."""
    trl = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": mode}
    config = build_config({"out": "/run", "task": {"data": "x.jsonl"}, "train": {"trl": trl}})
    correction = composed(verl_settings(config, Cluster(), PLACES)).algorithm.rollout_correction
    weights, _ = compute_rollout_correction_weights(
        torch.tensor([[1.5], [20.0]]).log(), torch.ones(2, 1), correction.rollout_is, correction.rollout_is_threshold
    )
    torch.testing.assert_close(weights, torch.tensor(kept)[:, None])
