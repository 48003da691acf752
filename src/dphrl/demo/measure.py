"""How good the base is: mean@n, pass@k and distinct solutions of the demo's eval sets, for the manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from dphrl.demo.tasks import DEMO_TASKS, load_demo_task
from dphrl.demo.tokenizer import MAX_LENGTH
from dphrl.types import Task

DRAWS = 64
"""Completions drawn for each prompt (count)."""
PASS_AT = (1, 8, 16, 64)
MAX_NEW_TOKENS = 40


def measure(model: Any, tokenizer: Any, *, assets: Path, seed: int) -> dict[str, dict[str, float]]:
    """Sample every eval set at temperature 1 and verify it: {task: {"mean@64", "pass@8", ..., "distinct_correct"}}."""
    torch.manual_seed(seed)
    return {name: _measure_task(model, tokenizer, load_demo_task(name, "eval", assets=assets)) for name in DEMO_TASKS}


def sample(model: Any, tokenizer: Any, texts: list[str], *, draws: int = DRAWS) -> list[list[str]]:
    """Draw `draws` completions of each prompt text from the whole distribution at temperature 1."""
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        ids = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=draws,
            max_new_tokens=min(MAX_NEW_TOKENS, MAX_LENGTH - batch.input_ids.shape[1]),
        )
    decoded: list[str] = tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return [decoded[start : start + draws] for start in range(0, len(decoded), draws)]


def pass_at_k(correct: int, k: int, n: int) -> float:
    """Chance that k of n completions, `correct` of them right, hold a right one; 1 <= k <= n (arXiv:2107.03374)."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def _measure_task(model: Any, tokenizer: Any, task: Task) -> dict[str, float]:
    texts = sample(model, tokenizer, [str(prompt.prompt) for prompt in task.prompts])
    prompts = [prompt for prompt in task.prompts for _ in range(DRAWS)]
    verdicts = task.verify(prompts, [text for drawn in texts for text in drawn])
    solutions: dict[str, list[str]] = {prompt.id: [] for prompt in task.prompts}
    for prompt, text, verdict in zip(prompts, (t for drawn in texts for t in drawn), verdicts, strict=True):
        if verdict.correct:
            solutions[prompt.id].append(task.solution(text))
    counts = [len(found) for found in solutions.values()]
    table = {f"pass@{k}": sum(pass_at_k(count, k, DRAWS) for count in counts) / len(counts) for k in PASS_AT}
    table[f"mean@{DRAWS}"] = table.pop("pass@1")
    table["distinct_correct"] = sum(len(set(found)) for found in solutions.values()) / len(counts)
    return {name: round(value, 4) for name, value in table.items()}
