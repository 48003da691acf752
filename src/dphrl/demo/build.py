"""Rebuild the demo world from a seed: `python -m dphrl.demo.build --out DIR --seed 0`.

Writes DIR/world.sqlite, DIR/prompts.jsonl, DIR/chances.json, DIR/model/ and DIR/MANIFEST.json in one to two minutes on
one CPU thread. The world is built to show diversity collapse; `world.py` says how.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from dphrl.demo.database import open_database, write_database
from dphrl.demo.limit import chances_of
from dphrl.demo.measure_base import measure_base
from dphrl.demo.task import chances_file, model_folder, world_database
from dphrl.demo.tokenizer import MAX_LENGTH, build_tokenizer
from dphrl.demo.world import TABLES_OF, Problem, draw_sft_example, make_problems

SFT_STEPS = 900
SFT_BATCH = 64
"""Examples of each training step (count); every example is drawn afresh."""
SFT_LEARNING_RATE = 4e-3
SFT_WARM_UP = 50
"""Steps over which the learning rate rises (count); a cosine to zero follows."""
HIDDEN, MLP = 96, 256
"""Widths of the model. In single runs at 64 and 192, 60 generations of GRPO narrowed it less."""
INITIAL_STD = 0.05
"""Standard deviation of the initial weights (0.02 with a rate of 6e-3 gave a similar base)."""
IGNORED = -100
"""Label of a token that carries no loss."""
MANIFEST = "MANIFEST.json"


def build_world(out: Path, *, seed: int) -> list[Problem]:
    """Write the database and the prompts; each part has its own stream, so changing one leaves the others alone."""
    out.mkdir(parents=True, exist_ok=True)
    write_database(world_database(out), rng=random.Random(f"{seed}-database"))
    connection = open_database(world_database(out))
    try:
        problems = make_problems(connection, rng=random.Random(f"{seed}-problems"))
    finally:
        connection.close()
    lines = [json.dumps(asdict(problem)) + "\n" for problem in problems]
    (out / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return problems


def write_chances(out: Path, problems: Sequence[Problem]) -> None:
    """Write how likely each answer to an SQL prompt is its gold, from which the limit of the frontier follows."""
    connection = open_database(world_database(out))
    try:
        of_task = [
            chances_of(connection, tables, [p for p in problems if p.task == task])
            for task, tables in TABLES_OF.items()
        ]
    finally:
        connection.close()
    lines = [f"{json.dumps(i)}: {json.dumps([c.gold, c.answers])}" for each in of_task for i, c in each.items()]
    chances_file(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def new_model(tokenizer: Any) -> Any:
    """A randomly initialised Llama of about 240 thousand parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=MLP,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=INITIAL_STD,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def train_base(model: Any, tokenizer: Any, *, rng: random.Random, steps: int = SFT_STEPS) -> None:
    """Teach the base every reading and style of the world, in place; the loss is on the completion only."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=SFT_LEARNING_RATE, weight_decay=0.01)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, SFT_WARM_UP, steps)
    model.train()
    for _ in range(steps):
        input_ids, labels = _batch([draw_sft_example(rng=rng) for _ in range(SFT_BATCH)], tokenizer)
        loss = model(input_ids=input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def write_manifest(out: Path, *, seed: int, seconds: float, base: dict[str, dict[str, float]]) -> None:
    """Record how the assets came to be, what the base measures, and the digest of every file."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in (MANIFEST, "README.md"))
    manifest = {
        "about": "Demo world of dphrl, built to show diversity collapse: several readings, a hidden convention, "
        "a base trained on all readings with some queries corrupted. Not a benchmark.",
        "command": f"python -m dphrl.demo.build --out DIR --seed {seed}",
        "seed": seed,
        "seconds": round(seconds),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sqlite": sqlite3.sqlite_version,
        },
        "base": base,
        "sha256": {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def build(out: Path, *, seed: int) -> dict[str, dict[str, float]]:
    """Build everything under `out`, on one thread so that one machine gives the same weights each time."""
    started = time.monotonic()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    write_chances(out, build_world(out, seed=seed))
    tokenizer = build_tokenizer()
    model = new_model(tokenizer)
    train_base(model, tokenizer, rng=random.Random(f"{seed}-sft"))
    model.save_pretrained(model_folder(out))
    tokenizer.save_pretrained(model_folder(out))
    _readable_by_all(model_folder(out))
    base = measure_base(model, tokenizer, assets=out, seed=seed)
    write_manifest(out, seed=seed, seconds=time.monotonic() - started, base=base)
    return base


def _main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the rebuild."""
    parser = argparse.ArgumentParser(prog="python -m dphrl.demo.build", description="Rebuild the demo world.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of the base model (default 0)")
    options = parser.parse_args(arguments)
    print(json.dumps(build(options.out, seed=options.seed), indent=2))


def _readable_by_all(folder: Path) -> None:
    """safetensors writes files that only their owner may read; shipped ones are for every user of an installation."""
    for path in folder.iterdir():
        path.chmod(0o644)


def _batch(examples: Sequence[tuple[str, str]], tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels. No attention mask is needed: under causal attention nothing sees later padding."""
    prompts = tokenizer([prompt for prompt, _ in examples]).input_ids
    completions = tokenizer([completion for _, completion in examples]).input_ids
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True)) + 1
    input_ids = torch.full((len(examples), width), tokenizer.pad_token_id)
    labels = torch.full((len(examples), width), IGNORED)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids = torch.tensor([*prompt, *completion, tokenizer.eos_token_id])
        input_ids[row, : len(ids)] = ids
        labels[row, len(prompt) : len(ids)] = ids[len(prompt) :]
    return input_ids, labels


if __name__ == "__main__":
    _main()
