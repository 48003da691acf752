"""How good the base is: mean@n, pass@k and distinct solutions of the demo's eval sets, for the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dphrl.demo.task import DEMO_TASKS, load_demo_task
from dphrl.demo.tokenizer import MAX_LENGTH
from dphrl.metrics.pass_at_k import pass_at_k
from dphrl.types import Task, item_of

DRAWS = 64
"""Completions drawn for each prompt (count)."""
PASS_AT = (8, 16, 64)
MAX_NEW_TOKENS = 40


def measure_base(model: Any, tokenizer: Any, *, assets: Path, seed: int) -> dict[str, dict[str, float]]:
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


def _measure_task(model: Any, tokenizer: Any, task: Task) -> dict[str, float]:
    texts = sample(model, tokenizer, [str(prompt.prompt) for prompt in task.prompts])
    prompts = [prompt for prompt in task.prompts for _ in range(DRAWS)]
    flat = [text for drawn in texts for text in drawn]
    verdicts = task.verify([item_of(prompt, text) for prompt, text in zip(prompts, flat, strict=True)])
    solutions: dict[str, list[str]] = {prompt.id: [] for prompt in task.prompts}
    for prompt, text, verdict in zip(prompts, flat, verdicts, strict=True):
        if verdict.correct:
            solutions[prompt.id].append(task.solution(text))
    right_P = np.array([len(forms) for forms in solutions.values()])
    values_K = pass_at_k(np.full_like(right_P, DRAWS), right_P, PASS_AT).mean(axis=0)
    table = {f"mean@{DRAWS}": float(right_P.mean() / DRAWS)}
    table |= {f"pass@{k}": float(value) for k, value in zip(PASS_AT, values_K, strict=True)}
    table["distinct_correct"] = sum(len(set(forms)) for forms in solutions.values()) / len(solutions)
    return {name: round(value, 4) for name, value in table.items()}
