"""Loss of models on plain text, a skill that is not trained. One line of JSON a model.

Run: python recipes/spider-smollm2/text_loss.py --text ../shared/data/gsm8k/test.jsonl --model MODEL MODEL ...

`nats` is the mean over the texts' tokens of -log p; `over_first` the mean difference to the first model, with its 95 %
bootstrap interval over texts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.inference_mode()
def nats(folder: Path, texts: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of -log p and number of predicted tokens of each text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sums, counts = [], []
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt").input_ids
        counts.append(tokens.shape[1] - 1)
        sums.append(model(tokens, labels=tokens).loss.item() * counts[-1])
    return np.array(sums), np.array(counts, dtype=np.float64)


def main(text: Path, models: list[Path], limit: int) -> None:
    texts = [json.loads(line)["question"] for line in text.read_text(encoding="utf-8").splitlines()[:limit]]
    rng = np.random.default_rng(0)
    first = None
    for folder in models:
        sums, counts = nats(folder, texts)
        first = sums if first is None else first
        chosen = rng.integers(len(texts), size=(2000, len(texts)))
        gaps = (sums - first)[chosen].sum(1) / counts[chosen].sum(1)
        over = [(sums - first).sum() / counts.sum(), *np.quantile(gaps, (0.025, 0.975))]
        row = {"model": str(folder), "texts": len(texts), "nats": round(float(sums.sum() / counts.sum()), 4)}
        print(json.dumps({**row, "over_first": [round(float(x), 4) for x in over]}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="lines of JSON with a column `question`")
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.text, arguments.model, arguments.limit)
