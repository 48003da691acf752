"""`model.dtype`: what a policy is loaded in to be trained and to be drawn from, and what its anchors are tied to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from weight_casts import WeightCasts

from dphrl.anchors.manifest import check_fingerprint
from dphrl.config.load import build_config
from dphrl.config.precision import DTYPES, Precision
from dphrl.config.root import Config
from dphrl.errors import AnchorError
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import Policy, load_policy, save_policy
from dphrl.models.scoring import score
from dphrl.sampling.base import Request
from dphrl.sampling.transformers_sampler import TransformersSampler


def config(dtype: str, **changes: Any) -> Config:
    return build_config({"model": {"path": "demo", "device": "cpu", "dtype": dtype}, **changes})


TRAINED: dict[str, tuple[dict[str, Any], torch.dtype, str | None, str]] = {
    "float32": ({}, torch.float32, None, "float32"),
    "bfloat16": ({}, torch.float32, "bfloat16", "float32 computed in bfloat16"),
    "pure_bfloat16": ({}, torch.bfloat16, None, "bfloat16 without autocast"),
    "adapter": ({"lora": {"r": 4}}, torch.bfloat16, "bfloat16", "bfloat16"),
}
"""Name -> settings, weights, autocast, and what the anchors' manifest calls it. "bfloat16" alone is what older versions
computed: weights of 16 bits under autocast."""


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_policy_is_loaded_in_to_be_trained(name: str) -> None:
    changes, weights, autocast, written = TRAINED[name]
    chosen = config("bfloat16" if name == "adapter" else name, **changes)
    policy = load_policy(chosen)
    assert {p.dtype for p in policy.model.parameters()} == {weights}
    assert policy.precision.autocast == autocast
    assert fingerprint(policy, chosen)["dtype"] == written
    with policy.autocast():
        assert torch.is_autocast_enabled("cpu") == (autocast is not None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_policy_is_loaded_in_to_be_drawn_from(dtype: str) -> None:
    """As the final model is stored, and without a context around it."""
    policy = load_policy(config(dtype), trained=False)
    assert str(policy.model.dtype) == f"torch.{DTYPES[dtype].stored}" == f"torch.{config(dtype).stored_dtype}"
    assert policy.precision == Precision(DTYPES[dtype].stored)


def test_each_precision_has_a_name_of_its_own() -> None:
    """Or anchors of one would count as anchors of another."""
    precisions = {p for dtype in DTYPES.values() for p in (dtype.trained, dtype.adapted)}
    assert len({str(p) for p in precisions}) == len(precisions)


def test_anchors_of_an_older_version_are_not_of_this_compute(tmp_path: Path) -> None:
    """They were scored with 16-bit weights: refused by that, though the weights' bytes differ too."""
    chosen = config("bfloat16")
    now = fingerprint(load_policy(chosen), chosen)
    before = {**now, "dtype": "bfloat16", "weights": "of other bytes"}
    with pytest.raises(
        AnchorError, match=r"(?s)made with another dtype:\n.*'bfloat16', this run 'float32 computed"
    ) as e:
        check_fingerprint(tmp_path, before, now)
    assert "set model.dtype" in str(e.value) and "with this model" not in str(e.value)
    with pytest.raises(AnchorError, match="made with another weights"):
        check_fingerprint(tmp_path, {**now, "weights": "of other bytes"}, now)


def rows(policy: Policy) -> tuple[list[list[int]], list[list[int]]]:
    texts = ["(x1 and x2) or x3", "not x1", "x2"]
    ids = [policy.tokenizer(text)["input_ids"] for text in texts]
    return ids, [i[:2] + ids[0] for i in ids]


def test_float32_weights_are_computed_with_as_16_bit_ones_are() -> None:
    """Within bfloat16's rounding; and not in float32, or the context would do nothing."""
    found = {}
    for dtype in ("float32", "bfloat16", "pure_bfloat16"):
        policy = load_policy(config(dtype))
        scored = score(
            policy.model,
            *rows(policy),
            pad_id=0,
            temperature=1.0,
            batch_size=4,
            autocast=policy.precision.autocast,
        )
        found[dtype] = torch.tensor([x for one in scored for x in one.logps])
    assert 1e-4 < (found["bfloat16"] - found["float32"]).abs().mean() < 0.1
    assert 1e-5 < (found["bfloat16"] - found["pure_bfloat16"]).abs().mean() < 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_drawing_computes_as_training_does(dtype: str) -> None:
    chosen = config(dtype, sampling={"max_new_tokens": 4})
    policy = load_policy(chosen)
    seen: set[torch.dtype] = set()
    policy.model.lm_head.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    prompt = tuple(rows(policy)[0][0])
    sampler = TransformersSampler(policy, chosen.sampling, seed=0)
    list(sampler.draw([Request("a", draw, prompt) for draw in range(2)]))
    assert seen == {getattr(torch, policy.precision.autocast or "float32")}
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}


def test_drawing_casts_each_weight_once_and_not_once_a_token() -> None:
    """Or a forward of one token would read all weights in float32, and write and read them in 16 bits."""
    chosen = config("bfloat16", sampling={"max_new_tokens": 12})
    policy = load_policy(chosen)
    weight = policy.model.model.layers[0].mlp.down_proj.weight
    layers = policy.model.config.num_hidden_layers
    assert sum(p.shape == weight.shape for p in policy.model.parameters()) == layers
    sampler = TransformersSampler(policy, chosen.sampling, seed=0)
    prompt = tuple(rows(policy)[0][0])
    with WeightCasts(weight.shape) as casts:
        (drawn,) = sampler.draw([Request("a", draw, prompt) for draw in range(2)])
    assert max(len(c.token_ids) for c in drawn) > 3 and casts.count == layers


def test_a_model_that_is_stored_in_16_bits_says_so(tmp_path: Path) -> None:
    """vLLM and `from_pretrained` go by config.json, and transformers would write the type of the weights in memory."""
    policy = load_policy(config("bfloat16"))
    tied = policy.model.all_tied_weights_keys
    state = {k: v.to(torch.bfloat16) for k, v in policy.model.state_dict().items() if k not in tied}
    save_policy(policy, policy.model, tmp_path / "final", state)
    assert json.loads((tmp_path / "final/config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    again = load_policy(config("bfloat16"), str(tmp_path / "final"), trained=False).model
    for name, weight in again.named_parameters():
        assert torch.equal(weight, state[name])
