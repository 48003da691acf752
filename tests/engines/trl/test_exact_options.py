"""Options of TRL beside ours: what is honoured is exact, what cannot be is refused by name before the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch
from torch import Tensor
from trl import GRPOConfig

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.engines.trl.refused_options import ACTS_ONLY_WITH, CHOICES, CLASHES, SET_BY_THE_STAGE, TOKEN_MEAN_LOSSES
from dphrl.errors import ConfigError
from dphrl.models.policy import load_policy
from dphrl.types import Anchor

reference, gradient, anchors = cases.reference, cases.gradient, cases.anchors
ETA = {"T": cases.TEMPERATURE, "eta": 0.4, "f": "forward_kl", "cap": 5.0}
LEVELS = {"luspo": ("sequence",), "vespo": ("token",)}
QUICK = (("dapo", "token"), ("grpo", "sequence"), ("bnpo", "token"), ("vespo", "token"))
"""The others run with the slow tests."""
COMBINATIONS = [
    (t, level) if (t, level) in QUICK else pytest.param(t, level, marks=pytest.mark.slow)
    for t in CHOICES["loss_type"]
    for level in LEVELS.get(t, ("token", "sequence"))
]

Built = Callable[..., DPHTrainer]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any = None, **changes: Any) -> DPHTrainer:
        policy = load_policy(cases.CONFIG)
        trainer = cases.Unchecked(
            model=cases.moved_model(),
            reward_funcs=cases.by_length,
            args=DPHConfig(**cases.settings(tmp_path, **changes)),
            train_dataset=cases.dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    return make


def generation(trainer: DPHTrainer) -> dict[str, Any]:
    """Four groups on the policy as it stands; afterwards it is moved, so that ratios are not 1."""
    torch.manual_seed(0)
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(cases.GROUP)]
    batch = trainer._generate_and_score_completions(rows)
    noise = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=noise))
    return batch


def gradient_of(trainer: DPHTrainer, inputs: dict[str, Any]) -> Tensor:
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, inputs).backward()
    return gradient(trainer.model)


@pytest.mark.parametrize(("loss_type", "level"), COMBINATIONS)
def test_beside_every_loss_of_trl_the_anchors_add_the_stated_gradient(
    loss_type: str, level: str, build: Built, anchors: tuple[Anchor, ...]
) -> None:
    """Whatever TRL divides its loss by, ours is eta * sum f(u) / N."""
    clip = {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    trainer = build(anchors, method="dph", eta=0.4, loss_type=loss_type, importance_sampling_level=level, **clip)
    batch = generation(trainer)
    alone = gradient_of(trainer, batch)
    chosen = anchors[:8]
    both = gradient_of(trainer, {**batch, "anchors": AnchorBatch(chosen, sum(len(a.completion_ids) for a in chosen))})
    trainer.model.zero_grad()
    reference.anchor_loss(trainer.model, chosen, ETA).backward()
    expected = gradient(trainer.model)
    assert alone.norm() > 0
    assert (both - alone - expected).norm() < 5e-5 * (expected.norm() + alone.norm())


@pytest.mark.parametrize("loss_type", TOKEN_MEAN_LOSSES)
def test_k2_has_the_denominator_of_the_loss_beside_it(loss_type: str, build: Built) -> None:
    """With the same term, k3 of TRL and k2 of ours would weigh the same; here both are the token-mean of a step."""
    clip = {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    trainer = build(method="rkl", beta=0.3, kl_estimator="k2", loss_type=loss_type, **clip)
    batch = generation(trainer)
    batch["advantages"] = torch.zeros_like(batch["advantages"])
    found = gradient_of(trainer, batch)
    trainer.model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for p, pm, c, cm, ref in zip(
        *(batch[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "ref_per_token_logps")),
        strict=True,
    ):
        ids, mask = c[cm.bool()].tolist(), cm.bool()
        logp = reference.logps(trainer.model, p[pm.bool()].tolist(), ids, cases.TEMPERATURE)
        total = total + ((logp - ref[mask]) ** 2 / 2).sum()
    # One of the four micro-batches of a generation, given the whole of it.
    (0.3 * total / (batch["completion_mask"].sum() / 4)).backward()
    expected = gradient(trainer.model)
    assert (found - expected).norm() < 5e-5 * expected.norm()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss_type": "dappo"}, "did you mean 'dapo'"),
    ({"importance_sampling_level": "token_seq"}, "token, sequence"),
    ({"scale_rewards": "std"}, "group, batch, none"),
    ({"multi_objective_aggregation": "sum"}, "sum_then_normalize"),
    ({"loss_type": "vespo", "importance_sampling_level": "sequence"}, "vespo weighs whole sequences"),
    ({"loss_type": "luspo"}, "ratios of sequences"),
    ({"loss_type": "cispo"}, "caps the ratio itself"),
    ({"loss_type": "cispo", "epsilon_high": 5.0, "delta": 4.0}, "delta=4.0 acts only with"),
    ({"sapo_temperature_neg": 2.0}, "acts only with loss_type=sapo"),
    ({"vespo_k_pos": 1.0}, "acts only with loss_type=vespo"),
    ({"entropy_target": 0.5}, "acts only with use_adaptive_entropy"),
    ({"sync_ref_model": True}, "acts only with method rkl"),
    ({"method": "rkl", "beta": 0.1, "sync_ref_model": True, "save_strategy": "steps"}, "hold no reference model"),
    ({"label_smoothing_factor": 0.1}, "another trainer"),
    ({"vllm_mode": "server"}, "acts only with use_vllm"),
    ({"method": "rkl", "beta": 0.1, "ref_model_sync_steps": 3}, "acts only with sync_ref_model"),
    ({"method": "rkl", "beta": 0.1, "kl_estimator": "k2", "loss_type": "grpo"}, "token-mean over the optimiser step"),
    (
        {"method": "rkl", "beta": 0.1, "kl_estimator": "k3_corrected", "importance_sampling_level": "sequence"},
        "no longer has the reverse-KL gradient",
    ),
    ({"method": "rkl", "beta": 0.1, "use_bias_correction_kl": True}, "kl_estimator says it"),
    ({"method": "dph", "disable_dropout": False}, "scored without dropout"),
    ({"method": "dph", "neftune_noise_alpha": 5.0}, "scored without noise"),
    ({"method": "replay", "cast_lm_head_to_fp32": True}, "scored by the head as it is"),
    ({"bf16": True, "use_transformers_continuous_batching": True}, "TRL casts the weights that are trained"),
    ({"bf16": True, "use_transformers_paged": True}, "TRL casts the weights that are trained"),
    ({"method": "dph", "restore_callback_states_from_checkpoint": True}, "a second controller of eta"),
    ({"advantage": "maxrl", "scale_rewards": False}, "scale_rewards at group"),
    ({"advantage": "maxrl", "multi_objective_aggregation": "normalize_then_sum"}, "several rewards"),
    ({"method": "dapo", "scale_rewards": "batch"}, "deviation would be that of other groups"),
    ({"method": "dapo", "multi_objective_aggregation": "normalize_then_sum"}, "weighted sum of rewards"),
]


@pytest.mark.parametrize(("changes", "part"), REFUSED)
def test_options_that_could_not_be_honoured_are_refused(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=part) as raised:
        DPHConfig(**cases.settings(tmp_path, **{"method": "grpo", **changes}))
    assert any(name in str(raised.value) for name in changes)


def test_every_clash_and_option_of_the_tables_is_one_of_trl_or_ours() -> None:
    """A misspelt name would never be refused; and each clash has a case above."""
    names = {f.name for f in fields(DPHConfig)}
    tables = {*CHOICES, *ACTS_ONLY_WITH, *(name for clash in CLASHES for name in clash.options)}
    assert tables <= names
    trl = {f.name for f in fields(GRPOConfig)}
    assert set(SET_BY_THE_STAGE) - trl <= {"activation_checkpointing", "gradient_checkpointing"}  # one is the other's
    whys = [part for _, part in REFUSED]
    assert all(any(part in clash.why for part in whys) for clash in CLASHES)


def test_defaults_are_refused_nowhere(tmp_path: Path) -> None:
    """Each option at the value that TRL gives it, said aloud."""
    given = {
        f.name: f.default
        for f in fields(GRPOConfig)
        if f.name in ACTS_ONLY_WITH and f.default is not MISSING and f.name != "use_bias_correction_kl"
    }
    assert DPHConfig(**cases.settings(tmp_path, method="grpo", **given)).disable_dropout is False
    assert DPHConfig(**cases.settings(tmp_path, method="dph")).disable_dropout is True


@pytest.mark.parametrize("key", SET_BY_THE_STAGE)
def test_keys_that_the_stage_decides_are_refused_in_a_config(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train\.trl\.{key} .*(use |leave it out|lower )"):
        trainer_settings(build_config({"train": {"trl": {key: 1}}}), tmp_path)
