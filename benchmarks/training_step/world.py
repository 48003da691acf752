"""Random models, and prompts, completions and anchors of the lengths that real tasks have."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dphrl.anchors.writer import StoreWriter
from dphrl.config.sources import TaskConfig
from dphrl.tasks.load import load_task
from dphrl.types import Anchor

PAD, END = 0, 1
MADE = {"weights": "random"}
"""What the store of anchors says of its model."""
NEAR_PERFECT = 512
"""Prompts that anchors are drawn for, at most."""
SPIDER_TOKENS = (300, 500)
"""Prompts of Spider that are used: a mean of about 400 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A random Llama. The head has about the share of the work that Qwen2.5-0.5B's has, a quarter to a third."""

    vocabulary: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool


SIZES: dict[str, Size] = {
    "tiny": Size(vocabulary=512, hidden=64, mlp=192, layers=2, heads=4, kv_heads=2, tied=True),
    "35m": Size(vocabulary=16_384, hidden=512, mlp=1408, layers=6, heads=8, kv_heads=4, tied=False),
    "0.5b": Size(vocabulary=151_936, hidden=896, mlp=4864, layers=24, heads=14, kv_heads=2, tied=True),
}


@dataclass(frozen=True, slots=True)
class Task:
    """Where prompts come from, and how long completions are."""

    name: str
    completion: tuple[int, int]
    """Tokens of a completion, uniform between both ends."""
    quantiles: tuple[int, ...]
    """Tokens of its prompts at 0, 10, 25, 50, 75, 90 and 100 %, for where its data are missing."""


TASKS = {
    "sql": Task("sql", (40, 40), (300, 324, 348, 386, 432, 468, 500)),
    "math": Task("math", (50, 400), (27, 49, 56, 67, 81, 98, 228)),
}


@dataclass(frozen=True, slots=True)
class World:
    """One task's prompts under one tokenizer."""

    size: Size
    task: Task
    tokenizer: PreTrainedTokenizerFast
    prompts: tuple[str, ...]
    """In an order drawn once. Training takes them from the front, anchors are of those at the end."""
    real: bool
    """False: random words of the lengths of the task's own prompts."""

    def ids(self, prompt: str) -> list[int]:
        return list(self.tokenizer(prompt)["input_ids"])

    def completions(self, count: int, rng: random.Random) -> list[list[int]]:
        """Random tokens of the task's lengths; the last one is the end token."""
        lengths = [rng.randint(*self.task.completion) for _ in range(count)]
        return [[*(rng.randrange(2, self.size.vocabulary) for _ in range(n - 1)), END] for n in lengths]


def real_texts(name: str, data: Path) -> list[str]:
    """Prompts of Spider or GSM8K as `dphrl` renders them; [] where the data are missing."""
    folder, row = {
        "sql": ("spider", TaskConfig(name="spider", data=str(data / "spider"), split="train")),
        "math": ("gsm8k", TaskConfig(name="gsm8k", data=str(data / "gsm8k/train.jsonl"))),
    }[name]
    if not (data / folder).is_dir():
        return []
    prompts = [p.prompt for p in load_task(name, row, base_dir=data).prompts]
    return [p if isinstance(p, str) else "\n".join(message["content"] for message in p) for p in prompts]


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def byte_pairs(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, learned from the prompts themselves."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return wrapped(tokenizer)


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    known = {"<pad>": PAD, "<end>": END} | {f"w{i}": i for i in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(tokenizer)


def random_text(length: int, vocabulary: int, rng: random.Random) -> str:
    return " ".join(f"w{rng.randrange(2, vocabulary)}" for _ in range(length))


def world_of(name: str, size: Size, data: Path, *, short: int = 1) -> World:
    """A task's prompts, real where `data` has them. `short` divides all lengths, and makes the prompts random."""
    rng, task = random.Random(0), TASKS[name]
    texts = real_texts(name, data) if short == 1 else []
    if texts:
        tokenizer = byte_pairs(texts, size.vocabulary)
        low, high = SPIDER_TOKENS if name == "sql" else (1, 10**6)
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        kept = [text for text, length in zip(texts, lengths, strict=True) if low <= length <= high]
        rng.shuffle(kept)
        return World(size, task, tokenizer, tuple(kept), True)
    low, high = (max(2, length // short) for length in task.completion)
    at = np.interp(np.random.default_rng(0).random(2 * NEAR_PERFECT), (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), task.quantiles)
    made = [random_text(max(2, round(length / short)), size.vocabulary, rng) for length in at]
    return World(size, Task(name, (low, high), task.quantiles), words(size.vocabulary), tuple(made), False)


def write_model(folder: Path, size: Size, tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=size.tied,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_store(folder: Path, world: World, each: int) -> None:
    """So many anchors of each near-perfect prompt; their log-probabilities are a random model's, -ln V."""
    writer, rng = StoreWriter(folder, MADE, {}), random.Random(1)
    for number, prompt in enumerate(world.prompts[-min(NEAR_PERFECT, len(world.prompts) // 2) :]):
        ids = tuple(world.ids(prompt))
        drawn = [tuple(c) for c in world.completions(each, rng)]
        logp = -math.log(world.size.vocabulary)
        writer.add([Anchor(f"p{number}", ids, c, (logp,) * len(c), "task", i) for i, c in enumerate(drawn)])
    writer.seal()


def prompts_of_rounds(prompts: Sequence[str], each: int) -> Callable[[int], list[str]]:
    """Round number -> its prompts, from the front half."""
    front = prompts[: len(prompts) // 2]

    def of(number: int) -> list[str]:
        return [front[(number * each + i) % len(front)] for i in range(each)]

    return of


def fixed_lengths(length: int, count: int, size: Size) -> Iterator[str]:
    """Random prompts of one length."""
    rng = random.Random(length)
    return (random_text(length, size.vocabulary, rng) for _ in range(count))
