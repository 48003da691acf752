"""Scores of completions agree with a plain forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dphrl.config.load import build_config
from dphrl.models.policy import load_policy
from dphrl.models.scoring import pad_sequences, score


def test_padding_is_trl_s_prompts_left_completions_right() -> None:
    ids, mask, completion = pad_sequences([[1, 2], [3]], [[4], [5, 6]], 0)
    assert ids.tolist() == [[1, 2, 4, 0], [0, 3, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert completion.tolist() == [[1, 0], [1, 1]]


def test_scores_agree_with_a_plain_forward_whatever_the_batch() -> None:
    config = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"temperature": 0.7}})
    policy = load_policy(config)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 60, size=n).tolist() for n in (3, 9, 5, 1)]
    completions = [rng.integers(3, 60, size=n).tolist() for n in (7, 2, 1, 12)]
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + completion])).logits[0] / 0.7
        logps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected.append(logps.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist())
    for batch_size in (1, 3, 4):
        found = score(policy.model, prompts, completions, pad_id=0, temperature=0.7, batch_size=batch_size)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.logps == pytest.approx(theirs, abs=2e-5)
