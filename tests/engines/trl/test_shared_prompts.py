"""`share_prompts`: on is off, in scores, loss, gradient and logged numbers, whatever else is set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch
from torch import Tensor

from dphrl import DPHConfig
from dphrl.demo.task import load_demo_task
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.errors import ConfigError
from dphrl.models.policy import load_policy
from dphrl.types import Anchor

gradient = cases.gradient

RELATIVE = 1e-5
"""Of a loss, and of a gradient to its norm, in float32."""
DPH: dict[str, Any] = {"method": "dph", "divergence": "js", "eta": 0.4}
RKL: dict[str, Any] = {"method": "rkl", "beta": 0.3, "kl_estimator": "k2"}

OPTIONS: dict[str, dict[str, Any]] = {
    **{f"loss {t}": {**DPH, "loss_type": t} for t in ("grpo", "dr_grpo", "dapo", "bnpo", "sapo", "vespo")},
    "loss cispo": {**DPH, "loss_type": "cispo", "epsilon_high": 5.0},
    "loss luspo": {**DPH, "loss_type": "luspo", "importance_sampling_level": "sequence"},
    "ratios of sequences": {**DPH, "importance_sampling_level": "sequence"},
    "two iterations": {"method": "grpo", "num_iterations": 2},
    "one step a generation": {**DPH, "steps_per_generation": 2},
    "entropy bonus": {"method": "grpo", "entropy_coef": 0.1},
    "adaptive entropy": {"method": "grpo", "use_adaptive_entropy": True, "entropy_coef": 0.1},
    "tokens of high entropy": {"method": "grpo", "top_entropy_quantile": 0.4},
    "truncated ones masked": {**DPH, "mask_truncated_completions": True},
    "off-policy ones masked": {"method": "grpo", "off_policy_mask_threshold": 0.01},
    "two-sided clipping": {"method": "grpo", "delta": 1.5},
    **{f"rkl {k}": {**RKL, "kl_estimator": k} for k in ("k3", "k3_corrected", "k2", "k1_reward")},
    "rkl with an adapter": {**RKL, "lora": True},
    "definition js": {**DPH, "form": "definition"},
    "definition reverse_kl": {**DPH, "form": "definition", "divergence": "reverse_kl"},
    "replay": {"method": "replay", "eta": 0.4},
    "top-K": {**DPH, "anchor_estimator": "topk"},
    "anchors separate": {**DPH, "anchor_forward": "separate"},
    "anchors merged": {**DPH, "anchor_forward": "merged"},
    "no anchor in a micro-batch": {**DPH, "anchors_per_step": 1, "anchors": 0},
    "anchors only measured": {**DPH, "eta": 0.0},
    "unlikeliness": {**DPH, "advantage": "unlikeliness"},
    "dapo": {"method": "dapo", "max_resample": 1},
    "an adapter": {**DPH, "lora": True},
    "reentrant checkpoints": {**DPH, "use_reentrant": True},
    "non-reentrant checkpoints": {**DPH, "use_reentrant": False},
    "an adapter with reentrant checkpoints": {**DPH, "use_reentrant": True, "lora": True},
    "tokens of tools masked": {**DPH, "tool_mask": True},
    "one row of old scores at a time": {**RKL, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
                                        "steps_per_generation": 16},
}  # fmt: skip
QUICK = ("loss dapo", "loss luspo", "tokens of high entropy", "truncated ones masked", "rkl k1_reward", "top-K")
"""The others run with the slow tests."""


class Fixed(cases.Unchecked):
    """Completion k of a prompt is its gold answer without the first k tokens; of every third the end is cut off."""

    answers: dict[tuple[int, ...], list[int]]
    told: list[str]

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, None]:
        drawn = [self.answers[tuple(ids)][i % cases.GROUP :] for i, ids in enumerate(prompt_ids)]
        return [ids[:-1] if i % 3 == 0 else ids for i, ids in enumerate(drawn)], None


def fixed_answers(policy: Any) -> dict[tuple[int, ...], list[int]]:
    return {
        tuple(policy.encode(p)): [*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]]
        for p in load_demo_task("in_domain").prompts[:32]
    }


def far_anchors(answers: dict[tuple[int, ...], list[int]]) -> list[Anchor]:
    """Anchors on either side of u = 1; the first is a completion of the generation, too."""
    return [
        Anchor(
            str(n), prompt, tuple(gold), tuple(-0.1 - 0.4 * (k % 4) for k in range(len(gold))),
            topk_ids=tuple((token, (token + 1) % 200, (token + 7) % 200) for token in gold),
            topk_logps=((-0.7, -1.6, -2.9),) * len(gold),
        )
        for n, (prompt, gold) in enumerate(answers.items())
    ]  # fmt: skip


def build(folder: Path, share: str, *, lora: bool = False, use_reentrant: bool | None = None, **changes: Any) -> Fixed:
    policy = load_policy(cases.CONFIG)
    answers = fixed_answers(policy)
    adapter = None
    if lora:
        peft = pytest.importorskip("peft")
        adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    if use_reentrant is not None:
        changes |= {
            "activation_checkpointing": True,
            "activation_checkpointing_kwargs": {"use_reentrant": use_reentrant},
        }
    trainer = Fixed(
        model=cases.moved_model(),
        reward_funcs=cases.by_length,
        args=DPHConfig(**cases.settings(folder, **changes, share_prompts=share, max_completion_length=60)),
        train_dataset=cases.dataset(),
        processing_class=policy.tokenizer,
        anchors=far_anchors(answers) if changes["method"] in ("dph", "replay") else None,
        encode=policy.encode,
        peft_config=adapter,
    )
    if trainer.ref_model is not None:
        trainer.ref_model.load_state_dict(policy.model.state_dict())
    trainer.answers, trainer.told = answers, []
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    move(trainer.model, seed=1)
    return trainer


def move(model: Any, seed: int) -> None:
    """By the same noise for the same seed; adapters start at zero."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=noise))


def generation(trainer: Fixed) -> dict[str, Any]:
    return trainer._generate_and_score_completions(
        [trainer.train_dataset[i] for i in range(4) for _ in range(cases.GROUP)]
    )


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= RELATIVE * expected.norm())


def step(trainer: Fixed, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, list[float]]]:
    """Loss, gradient, and what was logged of it."""
    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(inputs))
    loss.backward()
    logged = {name: list(map(float, values)) for name, values in trainer._metrics["train"].items()}
    if trainer._anchors is not None and inputs["anchors"].anchors:
        logged |= {name: [value] for name, value in trainer._anchors.take_metrics().items()}
    return loss.detach(), gradient(trainer.model), logged


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS]
)
def test_on_is_off(name: str, tmp_path: Path) -> None:
    """On the same completions: what is scored for a generation, then a step on a policy that has moved."""
    changes = dict(OPTIONS[name])
    count, tools = changes.pop("anchors", 8), changes.pop("tool_mask", False)
    off, on = (build(tmp_path / share, share, **changes) for share in ("off", "on"))
    batches = [generation(trainer) for trainer in (off, on)]
    mask = batches[0]["completion_mask"]
    for key, expected in batches[0].items():
        found = batches[1][key]
        if not isinstance(expected, Tensor):
            assert found == expected
        elif expected.is_floating_point() and expected.dim() == 2:
            assert close(found * mask, expected * mask), key
        else:
            assert close(found.double(), expected.double()), key
    inputs = dict(batches[0])
    if off._anchors is not None:
        chosen: Sequence[Anchor] = off._anchors._anchors[:count]
        inputs["anchors"] = AnchorBatch(tuple(chosen), sum(len(a.completion_ids) for a in chosen) or 100)
    if tools:
        inputs["tool_mask"] = torch.arange(mask.shape[1]).remainder(3).clamp(max=1).expand_as(mask)
    for trainer in (off, on):
        move(trainer.model, seed=2)
    expected, found = step(off, inputs), step(on, inputs)
    assert on.scorer.sharing.active and not off.scorer.sharing.active
    assert expected[1].norm() > 0.01
    assert close(found[0], expected[0]) and close(found[1], expected[1])
    assert found[2].keys() == expected[2].keys()
    for metric, values in expected[2].items():
        assert found[2][metric] == pytest.approx(values, rel=1e-4, abs=1e-6), metric


# -- where prompts are not shared -------------------------------------------------------------------------------------


def unshared(folder: Path, share: str, **changes: Any) -> Fixed:
    """A trainer whose model tells by its numbers alone, in the first look, that prompts cannot be shared."""
    trainer = build(folder, share, **changes)

    def leak(module: Any, args: Any, output: Tensor) -> Tensor:
        return output + 0.01 * output.cumsum(1)

    trainer.model.model.layers[0].register_forward_hook(leak)
    trainer.report_note = trainer.told.append
    return trainer


def test_rows_are_padded_where_the_model_sees_them_all(tmp_path: Path) -> None:
    """Found before anything is drawn; fewer anchors than micro-batches go along in the padded forward, whose gradient
    is that of share_prompts='off'."""
    records = []
    for share in ("auto", "off"):
        trainer = unshared(tmp_path / share, share, **DPH, anchors_per_step=1)
        recorder = cases.Recorder(trainer)
        torch.manual_seed(1)
        trainer.train()
        assert not trainer.scorer.sharing.active
        assert trainer.model.config._attn_implementation == "sdpa"
        records.append(recorder)
        assert [len(batch["anchors"].anchors) for batch in recorder.inputs] == [1, 0, 1, 0]
    told = records[0].trainer.told
    assert len(told) == 1 and "each completion reads its own prompt" in told[0] and "tokens see others" in told[0]
    assert records[1].trainer.told == []
    for found, expected in zip(records[0].gradients, records[1].gradients, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("share", "changes", "part"),
    [
        ("on", DPH, r"share_prompts='on' .* cannot be: log-probabilities would change .*; use auto or off"),
        (
            "auto",
            {**DPH, "anchor_estimator": "topk", "anchors_per_step": 1},
            "needs a forward of its own where",
        ),
    ],
)
def test_what_cannot_be_without_sharing_is_refused_before_anything_is_drawn(
    share: str, changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    trainer = unshared(tmp_path, share, **changes)
    trainer.answers = {}  # a draw would raise
    with pytest.raises(ConfigError, match=part):
        trainer.train()


@pytest.mark.parametrize("share", ["auto", "on"])
def test_images_are_read_by_trl(share: str, tmp_path: Path) -> None:
    """They stand beside the token ids of a forward."""
    trainer = build(tmp_path, share, method="grpo")
    beside = {"pixel_values": torch.zeros(1), "compute_entropy": True}
    if share == "on":
        with pytest.raises(ConfigError, match="completions come with more than text; use auto or off"):
            trainer.scorer.shares(trainer.model, 1.0, beside)
    else:
        assert not trainer.scorer.shares(trainer.model, 1.0, beside) and not trainer.scorer.sharing.active
        assert "more than text" in trainer.notes[0]
