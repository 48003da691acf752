"""Our draws (one hashed uniform number a token) beside plain `generate(do_sample=True)` on the shipped model.

Both draw 2,048 completions in batches of 256, three times in turn. One JSON line: tokens per second, ours over plain.
"""

from __future__ import annotations

import json
import time

import torch

from dphrl.config_io import build_config
from dphrl.demo.tasks import load_demo_task
from dphrl.models import load_policy
from dphrl.sampling import Request
from dphrl.sampling.transformers import TransformersSampler

CONFIG = build_config(
    {"model": {"path": "demo", "device": "cpu"}, "threads": 1, "sampling": {"max_new_tokens": 40, "batch_size": 256}}
)
policy = load_policy(CONFIG)
prompts = load_demo_task("in_domain").prompts[:256]
requests = [Request(p.id, draw, tuple(policy.encode(p))) for p in prompts for draw in range(8)]


def ours() -> int:
    sampler = TransformersSampler(policy, CONFIG.sampling, 0)
    return sum(len(c.token_ids) for batch in sampler.draw(requests) for c in batch)


def plain() -> int:
    tokens = 0
    ordered = sorted(requests, key=lambda r: -len(r.prompt_ids))
    for start in range(0, len(ordered), 256):
        rows = {"input_ids": [list(r.prompt_ids) for r in ordered[start : start + 256]]}
        batch = policy.tokenizer.pad(rows, return_tensors="pt")
        with torch.inference_mode():
            output = policy.model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=40)
        drawn = output[:, batch["input_ids"].shape[1] :]
        tokens += int((drawn != policy.tokenizer.pad_token_id).sum())
    return tokens


rates: dict[str, list[float]] = {"ours": [], "plain": []}
for _ in range(3):
    for name, draw in (("ours", ours), ("plain", plain)):
        began = time.perf_counter()
        rates[name].append(draw() / (time.perf_counter() - began))
best = {name: max(values) for name, values in rates.items()}
print(json.dumps({"ours_over_plain": round(best["ours"] / best["plain"], 3), **{k: round(v) for k, v in best.items()}}))
