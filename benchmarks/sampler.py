"""Our draws (one hashed uniform number a token) beside plain `generate(do_sample=True)` on the shipped model.

Both draw 2,048 completions in batches of 256, three times in turn. Then long prompts: 8 of 256 tokens, 8 draws of 16
tokens each, on a random model of 4M parameters, where we read each prompt once. One JSON line: tokens per second,
ours over plain.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.models.policy import Policy, load_policy
from dphrl.sampling.base import Request
from dphrl.sampling.transformers_sampler import TransformersSampler

BATCH = 256


def config(max_new_tokens: int):
    sampling = {"max_new_tokens": max_new_tokens, "batch_size": BATCH}
    return build_config({"model": {"path": "demo", "device": "cpu"}, "threads": 1, "sampling": sampling})


def ours(policy: Policy, requests: list[Request], most: int) -> int:
    sampler = TransformersSampler(policy, config(most).sampling, 0)
    return sum(len(c.token_ids) for batch in sampler.draw(requests) for c in batch)


def plain(policy: Policy, requests: list[Request], most: int) -> int:
    tokens = 0
    ordered = sorted(requests, key=lambda r: -len(r.prompt_ids))
    for start in range(0, len(ordered), BATCH):
        rows = {"input_ids": [list(r.prompt_ids) for r in ordered[start : start + BATCH]]}
        batch = policy.tokenizer.pad(rows, return_tensors="pt")
        with torch.inference_mode():
            output = policy.model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=most)
        drawn = output[:, batch["input_ids"].shape[1] :]
        tokens += int((drawn != policy.tokenizer.pad_token_id).sum())
    return tokens


def compare(policy: Policy, requests: list[Request], most: int) -> dict[str, float]:
    """Best tokens per second of three runs in turn."""
    ways: dict[str, Callable[[Policy, list[Request], int], int]] = {"ours": ours, "plain": plain}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, draw in ways.items():
            began = time.perf_counter()
            rates[name].append(draw(policy, requests, most) / (time.perf_counter() - began))
    return {name: max(values) for name, values in rates.items()}


def larger(policy: Policy) -> Policy:
    """A random model that reads 256 tokens at a cost; its context is 1,024."""
    torch.manual_seed(0)
    size = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
    shape = LlamaConfig(**size, vocab_size=len(policy.tokenizer), max_position_embeddings=1024, pad_token_id=0)
    model = LlamaForCausalLM(shape).eval()
    model.generation_config.eos_token_id = list(policy.stop_ids)
    return dataclasses.replace(policy, context=1024, load=lambda: model)


demo = load_policy(config(40))
prompts = load_demo_task("in_domain").prompts[:256]
short = compare(demo, [Request(p.id, draw, tuple(demo.encode(p))) for p in prompts for draw in range(8)], 40)
words = torch.randint(4, len(demo.tokenizer), (8, 256), generator=torch.Generator().manual_seed(0)).tolist()
long = compare(
    larger(demo), [Request(str(i), draw, tuple(row)) for i, row in enumerate(words) for draw in range(8)], 16
)
print(
    json.dumps(
        {
            "ours_over_plain": round(short["ours"] / short["plain"], 3),
            **{k: round(v) for k, v in short.items()},
            "long_prompts_ours_over_plain": round(long["ours"] / long["plain"], 3),
            **{f"long_prompts_{k}": round(v) for k, v in long.items()},
        }
    )
)
