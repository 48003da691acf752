"""Scoring and the token head where TRL cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules["trl"] = None  # importing it fails from here on

import numpy as np
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from dphrl.models.scoring import score
from dphrl.models.packed_rows import pack_rows
from dphrl.models.shared_attention import share_attention
from dphrl.models.token_head import Read, add_token_head

sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "final_logit_softcapping": 2.0}
model = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads)).eval()
(scored,) = score(model, [[3, 4]], [[5, 6]], pad_id=0, temperature=0.8, batch_size=1, topk=2)
share_attention(model)
add_token_head(model, 0.8)
packed = pack_rows([np.array([3, 4])], [np.array([5, 6])])
ids = torch.cat([packed.target_M[:, None], torch.tensor(scored.topk_ids)], 1)
((found, entropy),) = model(reads=(Read(packed.state_M, ids),), packed=packed)
want = torch.cat([torch.tensor(scored.logps)[:, None], torch.tensor(scored.topk_logps)], 1)
assert torch.allclose(found, want, atol=1e-5), (found, want)
"""


@pytest.mark.slow
def test_scoring_and_the_token_head_need_no_trl() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
