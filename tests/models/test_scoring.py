"""Scoring: the log-probabilities are the model's, the trainer's and the top-K's alike, whatever the batch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import NEEDS_TRL
from tiny_models import CONFIGS, VOCABULARY, plain, rows, tiny
from torch import Tensor

import dphrl.models.scoring
from dphrl.errors import DataError, ModelError
from dphrl.method.divergences import GENERATORS, generator, topk_divergence
from dphrl.models.logit_rule import LogitRule
from dphrl.models.scoring import Scored, pad_sequences, score


def gathered(logp_TV: Tensor, completion: list[int]) -> list[float]:
    return logp_TV.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("topk", [0, 5])
def test_logps_are_those_of_a_plain_forward(name: str, topk: int) -> None:
    model = tiny(name)
    prompts, completions = rows()
    for batch_size in (1, 4):
        found = score(model, prompts, completions, pad_id=0, temperature=0.7, batch_size=batch_size, topk=topk)
        for scored, prompt, completion in zip(found, prompts, completions, strict=True):
            expected = gathered(plain(model, prompt, completion, 0.7), completion)
            assert scored.logps == pytest.approx(expected, abs=3e-5)
        spread = [logp for scored in found for logp in scored.logps]
        assert max(spread) - min(spread) > 1  # a uniform model would pass anything


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "cohere-scale", "gpt2-learned-positions", "phi-bias"])
def test_top_k_is_the_head_of_the_sorted_vocabulary(name: str) -> None:
    model = tiny(name)
    prompts, completions = rows()
    found = score(model, prompts, completions, pad_id=0, temperature=1.3, batch_size=3, topk=4)
    for scored, prompt, completion in zip(found, prompts, completions, strict=True):
        top = plain(model, prompt, completion, 1.3).topk(4)
        assert torch.tensor(scored.topk_ids).tolist() == top.indices.tolist()
        assert torch.allclose(torch.tensor(scored.topk_logps), top.values, atol=3e-5)


PRECISIONS = [(torch.float32, None), (torch.float32, "bfloat16"), (torch.bfloat16, "bfloat16"), (torch.bfloat16, None)]
"""Weights and autocast: every one that `config.precision.DTYPES` trains in."""


@pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS)
@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "granite-scale", "phi-bias"])
def test_asking_for_the_likeliest_tokens_changes_no_score(name: str, dtype: torch.dtype, autocast: str | None) -> None:
    """Both take the same logits."""
    model = tiny(name, dtype)
    prompts, completions = rows(1)
    settings = {"pad_id": 0, "temperature": 0.7, "batch_size": 4, "autocast": autocast}
    fused = score(model, prompts, completions, **settings)
    top = score(model, prompts, completions, **settings, topk=VOCABULARY + 10)
    for a, b in zip(fused, top, strict=True):
        assert b.logps == pytest.approx(a.logps, abs=1e-6)
        assert a.topk_ids == a.topk_logps == ()
        for ids, logps in zip(b.topk_ids, b.topk_logps, strict=True):
            assert sorted(ids) == list(range(VOCABULARY))  # k is at most the vocabulary
            assert list(logps) == sorted(logps, reverse=True)
            assert math.fsum(map(math.exp, logps)) == pytest.approx(1.0, abs=1e-5)


@NEEDS_TRL
@pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_logps_are_those_of_the_trainer(name: str, dtype: torch.dtype, autocast: str | None) -> None:
    """The forward of TRL's trainer on the same padded batch: patched model, under the trainer's autocast."""
    from trl.trainer.utils import add_fused_lm_head

    model = tiny(name, dtype)
    prompts, completions = rows(2, ((4, 3), (4, 9), (4, 6)))
    ours = score(model, prompts, completions, pad_id=0, temperature=0.9, batch_size=3, autocast=autocast)
    add_fused_lm_head(model, temperature=0.9)
    ids, mask, completion_mask = pad_sequences(prompts, completions, 0)
    time = completion_mask.shape[1]
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-time] = -100
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
        theirs = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs[:, -time:]
    for scored, row, completion in zip(ours, theirs.tolist(), completions, strict=True):
        assert scored.logps == pytest.approx(row[: len(completion)], abs=1e-5)


RULES: dict[str, tuple[str, dict[str, Any], float, float | None]] = {
    "llama": ("LlamaConfig", {}, 1.0, None),
    "gemma2": ("Gemma2Config", {}, 1.0, 30.0),
    "gemma3": ("Gemma3Config", {"text_config": {"final_logit_softcapping": 20.0}}, 1.0, 20.0),
    "nanochat": ("NanoChatConfig", {}, 1.0, 15.0),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}, 0.25, None),
    "cohere without a scale": ("CohereConfig", {"logit_scale": None}, 1.0, None),
    "a scale of 0": ("CohereConfig", {"logit_scale": 0.0}, 0.0, None),
    "granite": ("GraniteConfig", {"logits_scaling": 4.0}, 0.25, None),
    "granite mixture": ("GraniteMoeConfig", {"logits_scaling": 2.0}, 0.5, None),
    "minicpm3": ("MiniCPM3Config", {"hidden_size": 2560, "dim_model_base": 640}, 0.25, None),
    "hyperclovax": ("HyperCLOVAXConfig", {"logits_scaling": 4.0}, 4.0, None),
    "falcon-h1": ("FalconH1Config", {"lm_head_multiplier": 0.5}, 0.5, None),
    "muse": ("MuseGlimmerTextConfig", {"output_multiplier": 3.0, "final_logit_softcapping": 10.0}, 3.0, 10.0),
}


@NEEDS_TRL
@pytest.mark.parametrize("name", RULES)
def test_the_rule_of_a_config_is_the_one_that_trl_reads(name: str) -> None:
    from trl.trainer.utils import add_fused_lm_head

    kind, settings, scale, softcap = RULES[name]
    if kind not in dir(transformers):
        pytest.skip(f"transformers {transformers.__version__} has no {kind} yet")
    config = getattr(transformers, kind)(**settings)
    assert LogitRule.of(config, 0.7) == LogitRule(scale, softcap, 0.7)

    class Model:
        def __init__(self) -> None:
            self.config = config

        def forward(self) -> None: ...

    model = Model()
    add_fused_lm_head(model, temperature=0.7)
    trl = inspect.getclosurevars(model.forward).nonlocals
    assert (trl["logit_scale"], trl["final_logit_softcapping"], trl["temperature"]) == (scale, softcap, 0.7)


@pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS)
def test_autocast_acts_where_it_is_asked_for_and_not_elsewhere(dtype: torch.dtype, autocast: str | None) -> None:
    seen: list[bool] = []
    model = tiny("llama", dtype)
    model.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast is None):  # one around it does not count
        score(model, [[3, 4]], [[5]], pad_id=0, temperature=1.0, batch_size=1, autocast=autocast)
    assert set(seen) == {autocast is not None}


@pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS)
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "falcon-alibi"])
def test_rounding_is_no_reason_to_read_a_prompt_twice(
    name: str, dtype: torch.dtype, autocast: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether prompts can be shared is measured in the precision that is computed in, not that of the weights."""
    monkeypatch.setattr(dphrl.models.scoring, "_score_padded", lambda *args: pytest.fail("rows were padded"))
    score(tiny(name, dtype), *rows(), pad_id=0, temperature=0.7, batch_size=4, autocast=autocast)


@pytest.mark.parametrize("topk", [1, 6, VOCABULARY])
@pytest.mark.parametrize("name", GENERATORS)
def test_top_k_goes_into_topk_divergence_and_the_same_model_is_at_distance_0(name: str, topk: int) -> None:
    model = tiny("llama")
    (prompt,), (completion,) = rows(3, ((4, 8),))
    (scored,) = score(model, [prompt], [completion], pad_id=0, temperature=0.7, batch_size=1, topk=topk)
    logp_TK = plain(model, prompt, completion, 0.7).gather(1, torch.tensor(scored.topk_ids))
    ref_logp_TK = torch.tensor(scored.topk_logps)
    found_T = topk_divergence(logp_TK, ref_logp_TK, generator(name))
    assert found_T.shape == (len(completion),)
    assert found_T.abs().max() < 1e-6
    assert (topk_divergence(logp_TK.roll(1, 0), ref_logp_TK, generator(name)) > 1e-3).any()


def test_what_does_not_reach_the_head_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only completion tokens, and never more than a chunk of them."""
    sizes: list[int] = []
    chunk = dphrl.models.scoring._Head.chunk
    monkeypatch.setitem(dphrl.models.scoring.HEAD_POSITIONS, "cpu", 5)
    monkeypatch.setattr(
        dphrl.models.scoring._Head, "chunk", lambda self, h, t, k: sizes.append(len(h)) or chunk(self, h, t, k)
    )
    model = tiny("llama")
    monkeypatch.setattr(dphrl.models.scoring, "_check_head", lambda *args: None)
    prompts, completions = rows()
    whole = score(model, prompts, completions, pad_id=0, temperature=1.0, batch_size=4)
    assert sum(sizes) == sum(map(len, completions)) and max(sizes) == 5
    sizes.clear()
    top = score(model, prompts, completions, pad_id=0, temperature=1.0, batch_size=4, topk=2)
    assert sum(sizes) == sum(map(len, completions)) and max(sizes) == 5
    assert [s.logps for s in top] == [pytest.approx(s.logps, abs=1e-5) for s in whole]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=60), st.integers(1, 9))
def test_batches_cover_every_row_once_within_the_bounds(sizes: list[tuple[int, int]], batch_size: int) -> None:
    prompts, completions = [p for p, _ in sizes], [c for _, c in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dphrl.models.scoring, "MAX_BATCH_TOKENS", 500)
        batches = list(dphrl.models.scoring.batches(prompts, completions, batch_size))
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        padded = len(batch) * (max(prompts[i] for i in batch) + max(completions[i] for i in batch))
        assert 1 <= len(batch) <= batch_size and (padded <= 500 or len(batch) == 1)


def test_batches_hold_similar_rows() -> None:
    """Lengths of many tasks together: sorted by the sum it is 1.66 times the real tokens, by the completion 1.78."""
    rng = np.random.default_rng(0)
    prompts, completions = rng.lognormal(5.7, 1.0, size=(2, 2000)).clip(1).astype(int).tolist()
    padded = sum(
        len(batch) * (max(prompts[i] for i in batch) + max(completions[i] for i in batch))
        for batch in dphrl.models.scoring.batches(prompts, completions, 32)
    )
    assert padded < 1.3 * (sum(prompts) + sum(completions))


def test_progress_counts_completions() -> None:
    seen: list[int] = []
    prompts, completions = rows()
    model = tiny("llama")
    score(model, prompts, completions, pad_id=0, temperature=1.0, batch_size=3, on_progress=seen.append)
    assert seen[-1] == 4 and seen == sorted(set(seen)) and len(seen) >= 2
    assert score(model, [], [], pad_id=0, temperature=1.0, batch_size=3) == []


def test_the_model_is_left_as_it_was() -> None:
    model = tiny("llama")
    prompts, completions = rows()
    before = {k: v for k, v in vars(model).items() if not k.startswith("_")}
    score(model, prompts, completions, pad_id=0, temperature=0.5, batch_size=3, topk=2)
    assert {k: v for k, v in vars(model).items() if not k.startswith("_")} == before
    again = score(model, prompts, completions, pad_id=0, temperature=1.0, batch_size=3)
    expected = gathered(plain(model, prompts[0], completions[0], 1.0), completions[0])
    assert again[0].logps == pytest.approx(expected, abs=3e-5)  # another temperature on the same model


def test_train_mode_and_empty_rows_are_refused() -> None:
    model = tiny("llama")
    arguments: dict[str, Any] = {"pad_id": 0, "temperature": 1.0, "batch_size": 2}
    with pytest.raises(DataError, match="completion 1 to be scored has 0 prompt and 1 completion"):
        score(model, [[3], []], [[4], [5]], **arguments)
    with pytest.raises(DataError, match="1 prompt and 0 completion"):
        score(model, [[3]], [[]], **arguments)
    with pytest.raises(ValueError, match=r"model\.eval"):
        score(model.train(), [[3]], [[4]], **arguments)


@pytest.fixture
def odd_model() -> Iterator[Any]:
    """Its own logits are scaled by something that no config says."""
    model = tiny("llama")
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: output / 3)
    yield model
    handle.remove()


@pytest.mark.parametrize("topk", [0, 3])
def test_logits_that_the_trainer_cannot_give_are_refused(odd_model: Any, topk: int) -> None:
    prompts, completions = rows()
    with pytest.raises(
        ModelError, match=r"scoring LlamaForCausalLM .* nats away(.|\n)*another policy would be trained"
    ):
        score(odd_model, prompts, completions, pad_id=0, temperature=1.0, batch_size=2, topk=topk)


def test_a_model_without_an_output_embedding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(ModelError, match="no body and output embedding"):
        score(model, [[3]], [[4]], pad_id=0, temperature=1.0, batch_size=2)


def test_a_record_without_top_k_is_small() -> None:
    assert Scored((-1.0,)) == Scored((-1.0,), (), ())
