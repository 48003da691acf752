"""The trainer draws by our sampler as `share_prompts` says, in both precisions, and TRL sees what it drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch
from datasets import Dataset
from transformers import GenerationMixin
from trl import GRPOTrainer

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.errors import ConfigError
from dphrl.models.policy import load_policy

OWN = GRPOTrainer._generate_single_turn


def built(folder: Path, prompts: Any = None, **changes: Any) -> DPHTrainer:
    policy = load_policy(cases.CONFIG)
    settings = cases.settings(folder, **{"method": "grpo", "share_prompts": "auto", **changes})
    return DPHTrainer(
        model=policy.model,
        reward_funcs=cases.by_length,
        args=DPHConfig(**settings),
        train_dataset=cases.dataset() if prompts is None else Dataset.from_list([{"prompt": p} for p in prompts]),
        processing_class=policy.tokenizer,
        encode=policy.encode,
    )


def rows_of(trainer: DPHTrainer, prompts: int = 4) -> list[Any]:
    return [trainer.train_dataset[i] for i in range(prompts) for _ in range(cases.GROUP)]


def completions(batch: dict[str, Any]) -> list[list[int]]:
    pairs = zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def test_a_generation_is_what_our_sampler_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop token is in the completion, TRL counts it as ended, and no generator of torch was asked."""
    trainer = built(tmp_path)
    monkeypatch.setattr(GenerationMixin, "generate", None)
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", None)
    trainer.model.train()
    found = []
    for seed in (0, 1):
        trainer._rollouts._step = -1  # as the first generation of the step
        torch.manual_seed(seed)
        found.append(completions(trainer._generate_and_score_completions(rows_of(trainer))))
    assert trainer.model.training and found[0] == found[1] and len({tuple(ids) for ids in found[0]}) > 8
    prompts, *_ = trainer._tokenize_prompts([row["prompt"] for row in rows_of(trainer)])
    trainer._rollouts._step = -1
    with torch.no_grad():
        assert trainer._rollouts.draw(trainer.model, prompts, step=0) == found[0]
    ended = [ids[-1] in trainer.eos_token_ids for ids in found[0]]
    assert any(ended) and not any(set(ids[:-1]) & set(trainer.eos_token_ids) for ids in found[0])
    clipped = trainer._metrics["train"]["completions/clipped_ratio"][0]
    assert clipped == pytest.approx(1 - sum(ended) / len(ended))


def test_evaluation_draws_other_numbers_and_the_same_again(tmp_path: Path) -> None:
    trainer = built(tmp_path)
    trainer.model.train()
    training = completions(trainer._generate_and_score_completions(rows_of(trainer)))
    trainer.model.eval()
    one, two = (completions(trainer._generate_and_score_completions(rows_of(trainer))) for _ in range(2))
    assert one == two != training and not trainer.model.training


def test_a_prompt_that_stands_twice_is_drawn_anew(tmp_path: Path) -> None:
    text = cases.dataset()[0]["prompt"]
    trainer = built(tmp_path, [text] * 4)
    trainer.model.train()
    drawn = completions(trainer._generate_and_score_completions(rows_of(trainer)))
    assert len({tuple(ids) for ids in drawn}) > cases.GROUP


def test_off_and_options_of_trl_are_drawn_by_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return OWN(self, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", counted)
    told: list[str] = []
    for changes in ({"share_prompts": "off"}, {"top_k": 5}, {"generation_kwargs": {"num_beams": 2}}):
        trainer = built(tmp_path, max_steps=1, **changes)
        trainer.report_note = told.append
        trainer.train()
    assert len(calls) == 3 and len(told) == 2
    assert "top_k=5" in told[0] and "generation_kwargs.num_beams=2" in told[1]


def test_from_python_a_warning_says_it_once(tmp_path: Path) -> None:
    trainer = built(tmp_path, min_p=0.1, max_steps=2)
    with pytest.warns(UserWarning, match="min_p=0.1 needs TRL's own drawing") as told:
        trainer.train()
    assert len([w for w in told if "min_p" in str(w.message)]) == 1


def test_on_refuses_them_by_name_before_a_model_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"share_prompts='on' .*top_k=5"):
        DPHConfig(**cases.settings(tmp_path, method="grpo", share_prompts="on", top_k=5))
    config = build_config({"train": {"share_prompts": "on", "trl": {"repetition_penalty": 1.1}}})
    with pytest.raises(ConfigError, match=r"train\.share_prompts.*repetition_penalty=1\.1"):
        trainer_settings(config, tmp_path)


def test_draws_are_made_in_the_trainer_s_precision(tmp_path: Path) -> None:
    """float32 weights, bfloat16 products: the same numbers pick nearly the same tokens."""
    seen: set[torch.dtype] = set()
    found = []
    for bf16 in (False, True):
        trainer = built(tmp_path, bf16=bf16)
        layer = trainer.model.model.layers[0].self_attn.q_proj
        hook = layer.register_forward_hook(lambda m, i, output: seen.add(output.dtype))
        trainer.model.train()
        with torch.no_grad():
            drawn = trainer._generate([r["prompt"] for r in rows_of(trainer)])[1]
        hook.remove()
        found.append(drawn)
    assert seen == {torch.float32, torch.bfloat16}
    same = [one == two for one, two in zip(*found, strict=True)]
    assert sum(same) / len(same) > 0.5
