"""Two choices beside the loss: the divergence as defined, with fresh samples; anchors in the rollouts' own forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import exact_cases as cases
import pytest
import torch

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.engines.trl.refused_options import check_forwards, check_ranks
from dphrl.errors import ConfigError
from dphrl.models.policy import load_policy
from dphrl.types import Anchor

anchors = cases.anchors
Built = Callable[..., DPHTrainer]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any, model: Any = None, **changes: Any) -> DPHTrainer:
        policy = load_policy(cases.CONFIG)
        return cases.Unchecked(
            model=model or cases.moved_model(),
            reward_funcs=cases.by_length,
            args=DPHConfig(**cases.settings(tmp_path, method="dph", **changes)),
            train_dataset=cases.dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )

    return make


# -- merged forward ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "how", "forwards"),
    [
        ("off", "auto", [4, 4]),
        ("off", "separate", [4, 4]),
        ("off", "merged", [8]),
        ("on", "auto", [1]),
        ("on", "merged", [1]),
        ("on", "separate", [1, 1]),
    ],
)
def test_anchors_go_along_or_have_a_forward_of_their_own(
    share: str, how: str, forwards: list[int], build: Built, anchors: tuple[Anchor, ...]
) -> None:
    """4 completions and 4 anchors in a micro-batch, as rows or as one packed sequence."""
    trainer = build(anchors, anchor_forward=how, share_prompts=share)
    trainer.current_gradient_accumulation_steps = 2
    trainer.model.train()
    inputs = trainer._prepare_inputs([trainer.train_dataset[i] for i in range(4) for _ in range(cases.GROUP)])
    with torch.no_grad():
        trainer.scorer.shares(trainer.model, trainer.temperature, {})  # it looks at the model once
    rows: list[int] = []
    trainer.model.model.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    trainer.compute_loss(trainer.model, inputs).backward()
    assert rows == forwards
    assert trainer._anchors.stats[-1].tokens == sum(len(a.completion_ids) for a in inputs["anchors"].anchors)


def test_a_mixture_s_balancing_loss_refuses_to_be_merged(build: Built, anchors: tuple[Anchor, ...]) -> None:
    model = cases.moved_model()
    model.config.output_router_logits = True  # all that TRL looks at
    with pytest.raises(ConfigError, match=r"balancing loss.*anchor_forward='separate'"):
        build(anchors, model, anchor_forward="merged", share_prompts="auto", router_aux_loss_coef=0.1)


def test_rows_with_images_refuse_to_be_merged(build: Built, anchors: tuple[Anchor, ...]) -> None:
    trainer = build(anchors, anchor_forward="merged", share_prompts="auto")
    trainer.scorer.add(trainer._anchors.rows(anchors[:2]))
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(ConfigError, match="pixel_values beside it"):
        trainer._get_per_token_logps_and_entropies(trainer.model, ids, ids, 1, pixel_values=torch.zeros(1))


def test_merged_is_the_remedy_for_reentrant_checkpoints_on_several_ranks() -> None:
    """What TRL itself sets for an adapter under ZeRO-3 ends here, too."""
    args = SimpleNamespace(
        method="dph",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": True},
    )
    with pytest.raises(ConfigError, match="anchor_forward='merged'"):
        check_ranks(args, 2, fsdp=False, joint=False)
    check_ranks(args, 1, fsdp=False, joint=False)
    check_ranks(args, 2, fsdp=True, joint=False)
    check_ranks(args, 2, fsdp=False, joint=True)


def test_a_forward_of_anchors_that_some_processes_would_not_make_is_refused() -> None:
    """Each forward is one that processes wait for: one without anchors would leave the others waiting for ever."""
    args = SimpleNamespace(anchors_per_step=3)
    with pytest.raises(ConfigError, match=r"anchors_per_step=3 .* 2 processes .*anchor_forward='merged'"):
        check_forwards(args, 2, joint=False, at_once=False)
    check_forwards(args, 2, joint=True, at_once=False)
    check_forwards(args, 2, joint=False, at_once=True)
    check_forwards(args, 1, joint=False, at_once=False)


# -- definition form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("divergence", "on_fresh"), [("js", True), ("forward_kl", False)])
def test_a_reference_model_is_there_where_a_half_needs_it(
    divergence: str, on_fresh: bool, build: Built, anchors: tuple[Anchor, ...]
) -> None:
    trainer = build(anchors, divergence=divergence, form="definition", max_steps=1)
    assert (trainer.ref_model is not None) == on_fresh
    trainer.train()
    logged = trainer.state.log_history[0]
    assert ("fresh/penalty" in logged) == on_fresh
    assert "kl" not in logged  # TRL's own term stays off
    assert "anchor/penalty" in logged


def test_anchors_of_reverse_kl_as_defined_are_only_measured(build: Built, anchors: tuple[Anchor, ...]) -> None:
    trainer = build(anchors, divergence="reverse_kl", form="definition")
    penalty = trainer._anchor_penalty(trainer.model, AnchorBatch(anchors[:4], 40))
    assert penalty == 0 and not penalty.requires_grad
    assert trainer._anchors.stats[-1].metrics()["anchor/log_u_abs_mean"] > 0


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"form": "definition", "divergence": "alpha"}, "forward_kl, js, reverse_kl, and alpha came"),
    ({"form": "definition", "anchor_estimator": "topk"}, "anchor_estimator=topk came"),
    ({"form": "definition", "log_u_cap": 3.0}, "log_u_cap is read with objective.form=generator, but it is definition"),
]


@pytest.mark.parametrize(("changes", "part"), REFUSED)
def test_what_a_form_cannot_honour_is_refused_in_both_records(
    changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=part):
        DPHConfig(**cases.settings(tmp_path, method="dph", **changes))
    with pytest.raises(ConfigError, match=part):
        build_config({"objective": changes, "anchor": {"topk": 4}})


@pytest.mark.parametrize("method", ["grpo", "replay"])
def test_only_dph_has_a_form(method: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method dph"):
        DPHConfig(**cases.settings(tmp_path, method=method, form="definition"))
    with pytest.raises(ConfigError, match="method dph"):
        build_config({"method": method, "objective": {"form": "definition"}})


def test_both_choices_reach_the_trainer(tmp_path: Path) -> None:
    values = {"objective": {"form": "definition", "divergence": "js", "anchor_forward": "merged"}}
    found = DPHConfig(**trainer_settings(build_config(values), tmp_path) | {"use_cpu": True})
    assert (found.form, found.anchor_forward) == ("definition", "merged")
    with pytest.raises(ConfigError, match=r"objective\.beta is read by method rkl"):
        DPHConfig(**cases.settings(tmp_path, method="dph", form="definition", divergence="js", beta=0.3))
