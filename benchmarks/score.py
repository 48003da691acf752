"""Scoring beside a plain forward over the same padded batches, in the same run. One JSON line.

The plain forward is what one writes first: `model(input_ids, attention_mask, logits_to_keep=T + 1)`, that is body and
head at all T padded completion positions of each row, then log_softmax over [B, T, V] and a gather. Scoring is
`dphrl.models.scoring.score` as the stages call it: sorting, padding,
its check of the head and its Python numbers included.

A random Llama of 35M parameters with a vocabulary of 32,000, in float32 on one CPU thread, or bfloat16 on a GPU.
Seconds are the processor's on a CPU, so that other programs on the machine do not count, and the clock's on a GPU.

    over_forward        scoring's tokens a second as a share of the plain forward's (best of the rounds, taken in turn)
    topk_over_forward   the same with the 16 likeliest tokens of each position
    peak_mb             most memory above the model's and the libraries' (ru_maxrss of a forked process; torch's count)
    peak_mb_topk, peak_mb_forward   the same for the other two
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dphrl.models.scoring import batches, pad_sequences, score

GPU = torch.cuda.is_available()
ROWS, BATCH, ROUNDS = (4096, 64, 5) if GPU else (16, 8, 4)
TOPK, TEMPERATURE, VOCABULARY = 16, 0.9, 32_000

torch.set_num_threads(1)
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
    )
).eval()
model = model.to("cuda", torch.bfloat16) if GPU else model
rng = np.random.default_rng(0)
prompts = [rng.integers(VOCABULARY, size=n).tolist() for n in rng.integers(32, 96, size=ROWS)]
completions = [rng.integers(VOCABULARY, size=n).tolist() for n in rng.integers(16, 128, size=ROWS)]


@torch.no_grad()
def forward() -> list[list[float]]:
    logps: list[list[float]] = [[] for _ in prompts]
    for rows in batches([len(p) for p in prompts], [len(c) for c in completions], BATCH):
        input_ids, attention_mask, completion_mask = pad_sequences(
            [prompts[i] for i in rows], [completions[i] for i in rows], 0, model.device
        )
        time_ = completion_mask.shape[1]
        output = model(
            input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=time_ + 1, use_cache=False
        )  # fmt: skip
        logp_BTV = (output.logits[:, :-1].float() / TEMPERATURE).log_softmax(-1)
        logp_BT = logp_BTV.gather(2, input_ids[:, -time_:, None])[..., 0]
        for i, row in zip(rows, logp_BT.tolist(), strict=True):
            logps[i] = row[: len(completions[i])]
    return logps


def scoring(topk: int) -> list[tuple[float, ...]]:
    found = score(model, prompts, completions, pad_id=0, temperature=TEMPERATURE, batch_size=BATCH, topk=topk)
    return [scored.logps for scored in found]


WAYS: dict[str, Callable[[], object]] = {
    "forward": forward,
    "score": lambda: scoring(0),
    "topk": lambda: scoring(TOPK),
}


def peak_mb(name: str) -> float:
    """Memory above what the process holds at the start."""
    if GPU:
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        WAYS[name]()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[name]()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def peak_mb_alone(name: str) -> float:
    """A fresh process each on a CPU: the highest mark of a process never falls."""
    if GPU:
        return peak_mb(name)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(peak_mb, (name,))


def seconds(name: str) -> float:
    clock = time.perf_counter if GPU else time.process_time
    began = clock()
    WAYS[name]()  # ends in Python numbers, so a GPU has finished too
    return clock() - began


for k in (0, 1):  # what libraries load at first use is not counted
    score(model, [[1]], [[2]], pad_id=0, temperature=1.0, batch_size=1, topk=k)
peaks = {name: peak_mb_alone(name) for name in WAYS}
taken = [{name: seconds(name) for name in WAYS} for _ in range(ROUNDS)]
best = {name: min(times[name] for times in taken) for name in WAYS}
tokens = sum(map(len, completions))
print(
    json.dumps(
        {
            "over_forward": round(best["forward"] / best["score"], 3),
            "topk_over_forward": round(best["forward"] / best["topk"], 3),
            "peak_mb": round(peaks["score"]),
            "peak_mb_forward": round(peaks["forward"]),
            "peak_mb_topk": round(peaks["topk"]),
            "tokens_per_s": round(tokens / best["score"]),
            "tokens_per_s_forward": round(tokens / best["forward"]),
            "device": "gpu" if GPU else "cpu",
        }
    )
)
