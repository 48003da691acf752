"""Tune a language model on gold queries: the recipe's base. Ended early, the same command goes on.

Run: python recipes/spider-smollm2/tune.py --model FOLDER --questions tune.jsonl --out FOLDER

A batch holds questions of one database, whose schema is read once. The loss counts the query and the end token alone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

BATCH = 16
LEARNING_RATE = 2e-4
WARMUP_STEPS = 8
SAVE_EVERY = 10
IGNORED = -100

Row = dict[str, str]


def batches(rows: list[Row], epochs: float) -> list[list[Row]]:
    """All steps' questions, in an order that depends on nothing but the rows and the number of epochs."""
    order = random.Random(0)
    by_schema = defaultdict(list)
    for row in rows:
        by_schema[row["schema"]].append(row)
    steps: list[list[Row]] = []
    for _ in range(math.ceil(epochs)):
        epoch = []
        for questions in by_schema.values():
            order.shuffle(questions)
            epoch += [questions[start : start + BATCH] for start in range(0, len(questions), BATCH)]
        order.shuffle(epoch)
        steps += epoch
    return steps[: round(len(steps) * epochs / math.ceil(epochs))]


def encode(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and labels of what follows the schema, each (rows, longest), padded on the right."""
    end = tokenizer.eos_token_id
    pairs = []
    for row in rows:
        question = tokenizer(row["prompt"].removeprefix(row["schema"]), add_special_tokens=False).input_ids
        pairs.append((question, [*tokenizer(" " + row["gold"], add_special_tokens=False).input_ids, end]))
    longest = max(len(question) + len(gold) for question, gold in pairs)
    tokens = torch.full((len(rows), longest), end)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (question, gold) in enumerate(pairs):
        length = len(question) + len(gold)
        tokens[i, :length] = torch.tensor(question + gold)
        mask[i, :length] = 1
        labels[i, len(question) : length] = torch.tensor(gold)
    return tokens, mask, labels


def loss_of(model: PreTrainedModel, rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Mean cross-entropy of the gold queries' tokens; the schema is read once for all rows."""
    schema = tokenizer(rows[0]["schema"], add_special_tokens=False, return_tensors="pt").input_ids.to(model.device)
    tokens, mask, labels = (each.to(model.device) for each in encode(rows, tokenizer))
    cache = DynamicCache(config=model.config)
    model.model(input_ids=schema, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(rows))
    mask = torch.cat([mask.new_ones((len(rows), schema.shape[1])), mask], dim=1)
    hidden = model.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True).last_hidden_state
    counted = labels[:, 1:] != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][counted]).float(), labels[:, 1:][counted])


def learning_rate(step: int, steps: int) -> float:
    """A short warm-up, then a cosine to a tenth."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def save(state: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write beside, then rename: a killed save leaves the last one whole."""
    state.parent.mkdir(parents=True, exist_ok=True)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(saved, state.with_suffix(".new"))
    state.with_suffix(".new").replace(state)


def main(model_path: Path, questions: Path, out: Path, epochs: float) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    steps = batches([json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()], epochs)
    state, first = out.with_name(out.name + ".state"), 0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    begun, losses = time.monotonic(), []
    for step in range(first, len(steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(steps))
        loss = loss_of(model, steps[step], tokenizer)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % SAVE_EVERY == 0:
            save(state, model, optimizer, step + 1)
            seconds = (time.monotonic() - begun) / (step + 1 - first)
            loss_now = sum(losses[-SAVE_EVERY:]) / len(losses[-SAVE_EVERY:])
            print(f"step {step + 1} of {len(steps)}: loss {loss_now:.3f}, {seconds:.1f} s a step", flush=True)
    model.save_pretrained(out.with_name(out.name + ".new"))
    tokenizer.save_pretrained(out.with_name(out.name + ".new"))
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(out.name + ".new").rename(out)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True, help="a file of questions.py: tune.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0, help="may be a fraction")
    arguments = parser.parse_args()
    main(arguments.model, arguments.questions, arguments.out, arguments.epochs)
