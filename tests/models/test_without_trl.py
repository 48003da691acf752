"""Scoring and the top-K head where TRL cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules["trl"] = None  # importing it fails from here on

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from dphrl.models.scoring import score
from dphrl.models.topk_head import add_topk_head

sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "final_logit_softcapping": 2.0}
model = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads)).eval()
(scored,) = score(model, [[3, 4]], [[5, 6]], pad_id=0, temperature=0.8, batch_size=1, topk=2)
add_topk_head(model, 0.8)
mask = torch.tensor([[True, True]])
ids = torch.tensor(scored.topk_ids)
rows = {"input_ids": torch.tensor([[3, 4, 5, 6]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
found = model(**rows, completion_mask=mask, topk_ids=ids)
want = torch.cat([torch.tensor(scored.logps)[:, None], torch.tensor(scored.topk_logps)], 1)
assert torch.allclose(found, want, atol=1e-5), (found, want)
"""


@pytest.mark.slow
def test_scoring_and_the_top_k_head_need_no_trl() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
