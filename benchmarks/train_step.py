"""What a training step of each method costs beside GRPO's, in time and in memory. One JSON line.

    python benchmarks/train_step.py                                          tiny and 30m, 1 and 2 threads, on a CPU
    python benchmarks/train_step.py --size 0.5b --device cuda --rounds 20    bfloat16; sizes: see SIZES

A step is everything after drawing: `DPHTrainer.training_step` on random completions of fixed lengths, with its share
of what a generation costs once (padding, old log-probabilities, rkl's reference, rewards, advantages), clipping, AdamW
and callbacks; two optimiser steps a generation, one micro-batch each. Anchors come from a store of --anchors on disk,
are as long as the completions, and number --ratio of them. Every round runs every variant in turn on the same step; a
ratio is the median over rounds of the ratio within a round, [p10, p90] in `spread`. --threads 1 on a CPU takes the
processor's seconds, so that other programs do not count; else the clock's.

    dph_over_bound      dph / (grpo + the same anchors, padded already, forward and backward as plain NLL)
    dph_over_grpo, rkl_over_grpo, replay_over_grpo, definition_over_grpo
    bound_over_grpo     1 + that NLL / grpo
    loader_wait_share   the clock's share of a dph step that reads, pads and makes tensors of its anchors
    memory_X_over_grpo  weights, AdamW and the most that a step adds to them (torch's own count of its tensors)
    memory_dph_over_bound   dph's against grpo's and what the anchors' forward keeps for its backward
    tokens_per_s        of a dph step: prompts and completions, anchors' too, without padding
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dphrl import DPHConfig, DPHTrainer
from dphrl.anchors import open_store
from dphrl.anchors.writer import StoreWriter
from dphrl.config.objective import ANCHOR_METHODS
from dphrl.method.anchor_order import step_anchors
from dphrl.models.scoring import pad_sequences
from dphrl.types import Anchor

UPDATES = 2
GROUP = 8
PAD, END = 0, 1
OWN = ("prompt", "completion", "batch", "rounds")
"""Numbers of a size that an argument may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A random Llama and its sequences; lengths in tokens, drawn from half the mean to one and a half of it."""

    vocabulary: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    prompt: int
    completion: int
    batch: int
    """Completions of an optimiser step, a multiple of GROUP."""
    rounds: int = 12
    """Generations measured, unless told otherwise."""


SIZES: dict[str, Size] = {
    "tiny": Size(vocabulary=512, hidden=64, mlp=192, layers=2, heads=4, prompt=24, completion=24, batch=32, rounds=40),
    "30m": Size(
        vocabulary=32_000, hidden=384, mlp=1024, layers=6, heads=6, prompt=16, completion=24, batch=8, rounds=8
    ),
    "0.1b": Size(vocabulary=32_000, hidden=768, mlp=2048, layers=12, heads=12, prompt=256, completion=512, batch=32),
    "0.5b": Size(vocabulary=128_000, hidden=1024, mlp=4096, layers=16, heads=16, prompt=256, completion=1024, batch=16),
    "1b": Size(vocabulary=128_000, hidden=2048, mlp=5632, layers=16, heads=32, prompt=256, completion=1024, batch=16),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": {"method": "grpo"},
    "dph": {"method": "dph", "divergence": "forward_kl", "eta": 0.2},
    "rkl": {"method": "rkl", "kl_estimator": "k3", "beta": 0.1},
    "replay": {"method": "replay", "eta": 0.2},
    "definition": {"method": "dph", "form": "definition", "divergence": "js", "eta": 0.2},
}


def write_model(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=2 * (size.prompt + size.completion),
        tie_word_embeddings=size.hidden < 384,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size.vocabulary)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1").save_pretrained(folder)


def sequences(size: Size, mean: int, count: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    for _ in range(count):
        length = rng.randint(mean - mean // 2, mean + mean // 2)
        yield (*(rng.randrange(2, size.vocabulary) for _ in range(length - 1)), END)


def write_store(folder: Path, size: Size, total: int) -> None:
    """Anchors whose reference log-probabilities are a random model's: about -ln of the vocabulary's size."""
    rng = random.Random(1)
    writer = StoreWriter(folder, {"weights": "random"}, {})
    for first in range(0, total, 20_000):
        count = min(20_000, total - first)
        pairs = zip(sequences(size, size.prompt, count, rng), sequences(size, size.completion, count, rng), strict=True)
        writer.add(
            [
                Anchor(f"p{first + i}", p, c, (-math.log(size.vocabulary),) * len(c), "task", 0)
                for i, (p, c) in enumerate(pairs)
            ]
        )
    writer.seal()


def trainer_of(name: str, size: Size, model: Path, store: Path, given: argparse.Namespace) -> DPHTrainer:
    """One variant's trainer, model and AdamW; its completions are the same in every generation."""

    class FixedRollouts(DPHTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
            return list(map(list, sequences(size, size.completion, len(prompt_ids), random.Random(2)))), None

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    settings = dict(VARIANTS[name])
    if settings["method"] in ANCHOR_METHODS:
        settings["anchors_per_step"] = max(1, round(given.ratio * size.batch))
    on_gpu = given.device == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = sequences(size, size.prompt, UPDATES * size.batch // GROUP, random.Random(3))
    texts = [" ".join(f"w{i}" for i in ids) for ids in prompts]
    args = DPHConfig(
        output_dir=str(model / name),
        num_generations=GROUP,
        per_device_train_batch_size=size.batch,
        gradient_accumulation_steps=1,
        steps_per_generation=UPDATES,
        max_completion_length=2 * size.completion,
        learning_rate=1e-6,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        activation_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    trainer = FixedRollouts(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype),
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts for _ in range(GROUP)]),
        processing_class=tokenizer,
        anchors=open_store(store, {"weights": "random"}) if settings["method"] in ANCHOR_METHODS else None,
        encode=lambda prompt: tokenizer(prompt.prompt)["input_ids"],
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    return trainer


def seconds(called: Callable[[], object], *, gpu: bool) -> tuple[float, float]:
    """By the clock and by the processor, until the device has finished too."""
    if gpu:
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    called()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


def generation(trainer: DPHTrainer) -> None:
    """What `Trainer.train` does with one generation, its callbacks included, but for logging and saving."""
    rows, model, callbacks = list(trainer.train_dataset), trainer.model_wrapped, trainer.callback_handler
    told = (trainer.args, trainer.state, trainer.control)
    for _ in range(UPDATES):
        callbacks.on_step_begin(*told)
        trainer.training_step(model, rows, None)
        trainer._get_grad_norm(model, grad_norm=trainer._clip_grad_norm(model))
        callbacks.on_pre_optimizer_step(*told)
        trainer.optimizer.step()
        callbacks.on_optimizer_step(*told)
        model.zero_grad()
        trainer.state.global_step += 1
        callbacks.on_step_end(*told)


class Anchors:
    """The anchors of a generation without a trainer's step: the plain NLL's batches, and the loader's time."""

    def __init__(self, trainer: DPHTrainer) -> None:
        self._trainer, self._store = trainer, trainer._anchors._anchors
        self._indices = partial(step_anchors, len(self._store), trainer.args.anchors_per_step, seed=trainer.args.seed)

    def of(self, step: int) -> list[Any]:
        return [self._store[int(i)] for i in self._indices(step=step)]

    def tensors(self, anchors: list[Any]) -> tuple[Any, ...]:
        """As the trainer makes them."""
        device = self._trainer.accelerator.device
        made = pad_sequences([a.prompt_ids for a in anchors], [a.completion_ids for a in anchors], PAD, device)
        logps = [torch.tensor(a.ref_logps, device=device) for a in anchors]
        return *made, torch.nn.utils.rnn.pad_sequence(logps, batch_first=True)

    def load(self, step: int) -> None:
        """Read and padded as for the steps of one generation."""
        for s in range(step, step + UPDATES):
            self.tensors(self.of(s))

    def tokens(self, step: int) -> int:
        found = [a for s in range(step, step + UPDATES) for a in self.of(s)]
        return sum(len(a.prompt_ids) + len(a.completion_ids) for a in found)

    def nll(self, batch: tuple[Any, ...]) -> Any:
        """Plain NLL through the same model and head."""
        ids, attention, mask, _ = batch
        labels = ids.masked_fill(attention == 0, -100)
        labels[:, : -mask.shape[1]] = -100
        trainer = self._trainer
        with trainer.accelerator.autocast():
            output = trainer.model_wrapped(input_ids=ids, attention_mask=attention, labels=labels, fused_lm_head=True)
        return -(output.log_probs[:, -mask.shape[1] :] * mask).sum() / mask.sum()

    def learn(self, batches: list[tuple[Any, ...]]) -> None:
        """Forward and backward of padded batches; each starts, as a step does, without gradients."""
        for batch in batches:
            self.nll(batch).backward()
            self._trainer.model_wrapped.zero_grad()


def held(trainer: DPHTrainer) -> int:
    """Bytes of weights, of the reference's weights and of AdamW."""
    modules = [m for m in (trainer.model, trainer.ref_model) if m is not None]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    tensors += [t for state in trainer.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def peak(called: Callable[[], object], *, gpu: bool) -> tuple[int, int]:
    """Bytes of tensors beyond those there were: the most while it runs, and what its result still holds at the end."""
    if gpu:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = called()
        torch.cuda.synchronize()
        after, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        del result
        return most - before, after - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = called()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    del result
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    level = most = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    return most, level


def measure(name: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Everything of one size and number of threads: in a process of its own."""
    torch.set_num_threads(given.threads)
    size = replace(SIZES[name], **{k: v for k, v in vars(given).items() if k in OWN and v})
    write_model(folder / "model", size)
    write_store(folder / "store", size, given.anchors)
    trainers = {v: trainer_of(v, size, folder / "model", folder / "store", given) for v in VARIANTS}
    anchors = Anchors(trainers["dph"])
    gpu = given.device == "cuda"
    rounds = [one_round(r, trainers, anchors, gpu=gpu) for r in range(size.rounds + 1)][1:]  # the first one warms up
    order = 1 if given.threads == 1 and not gpu else 0
    return {
        "size": name,
        "threads": given.threads,
        "device": given.device,
        "parameters": sum(p.numel() for p in trainers["dph"].model.parameters()),
        "step_tokens": round(np.median([r["tokens"][0] for r in rounds]) / UPDATES),
        "seconds": "processor" if order else "clock",
        **times(rounds, order),
        **memory(trainers, anchors, gpu=gpu),
    }


def one_round(number: int, trainers: dict[str, DPHTrainer], anchors: Anchors, *, gpu: bool) -> dict[str, Any]:
    """Clock and processor seconds of each variant on one generation, another one first in each round."""
    first = number * UPDATES
    batches = [anchors.tensors(anchors.of(s)) for s in range(first, first + UPDATES)]
    calls: dict[str, Callable[[], object]] = {v: partial(generation, trainer) for v, trainer in trainers.items()}
    calls |= {"nll": partial(anchors.learn, batches), "loader": partial(anchors.load, first)}
    names = list(calls)
    names = names[number % len(names) :] + names[: number % len(names)]
    found: dict[str, Any] = {name: seconds(calls[name], gpu=gpu) for name in names}
    rollouts = trainers["dph"]._buffered_inputs
    drawn = sum(int(b[key].sum()) for b in rollouts for key in ("prompt_mask", "completion_mask"))
    return {**found, "tokens": (drawn + anchors.tokens(first),)}


def times(rounds: list[dict[str, Any]], order: int) -> dict[str, Any]:
    """Ratios within rounds. `order`: 0 the clock's seconds, 1 the processor's."""
    rows = [{name: values[order] for name, values in r.items() if name != "tokens"} for r in rounds]
    ratios = {
        "dph_over_bound": [r["dph"] / (r["grpo"] + r["nll"]) for r in rows],
        "bound_over_grpo": [1 + r["nll"] / r["grpo"] for r in rows],
        **{f"{v}_over_grpo": [r[v] / r["grpo"] for r in rows] for v in VARIANTS if v != "grpo"},
        "loader_wait_share": [r["loader"][0] / r["dph"][0] for r in rounds],
    }
    middle = {name: np.quantile(values, [0.1, 0.5, 0.9]).round(4).tolist() for name, values in ratios.items()}
    return {
        **{name: values[1] for name, values in middle.items()},
        "spread": {name: [values[0], values[2]] for name, values in middle.items()},
        "grpo_step_ms": round(1000 * np.median([r["grpo"] for r in rows]) / UPDATES, 2),
        "tokens_per_s": round(np.median([r["tokens"][0] / r["dph"][0] for r in rounds])),
        "rounds": len(rounds),
    }


def memory(trainers: dict[str, DPHTrainer], anchors: Anchors, *, gpu: bool) -> dict[str, Any]:
    step = trainers["dph"].state.global_step
    peaks = {v: held(trainer) + peak(partial(generation, trainer), gpu=gpu)[0] for v, trainer in trainers.items()}
    batches = [anchors.tensors(anchors.of(s)) for s in range(step, step + UPDATES)]
    kept = max(peak(partial(anchors.nll, batch), gpu=gpu)[1] for batch in batches)
    return {
        **{f"memory_{v}_over_grpo": round(peaks[v] / peaks["grpo"], 4) for v in VARIANTS if v != "grpo"},
        "memory_dph_over_bound": round(peaks["dph"] / (peaks["grpo"] + kept), 4),
        "memory_grpo_mb": round(peaks["grpo"] / 1e6, 1),
        "memory_anchors_mb": round(kept / 1e6, 1),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, action="append", help="may be repeated (default: tiny and 30m)")
    parser.add_argument("--threads", type=int, action="append", help="may be repeated (default: 1 and 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--ratio", type=float, default=0.5, help="anchors a completion, > 0 (default: 0.5)")
    parser.add_argument("--anchors", type=int, default=100_000, help="in the store (default: 100000)")
    for name in OWN:
        parser.add_argument(f"--{name}", type=int, help="instead of the size's own")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    sizes = given.size or ["tiny", "30m"]
    threads = given.threads or ([1, 2] if given.device == "cpu" else [1])
    if given.one:
        name, count, folder = given.one
        given.threads = int(count)
        print(json.dumps(measure(name, Path(folder), given)))
        return
    runs = []
    for name, count in product(sizes, map(str, threads)):
        environment = os.environ | {"OMP_NUM_THREADS": count, "OMP_WAIT_POLICY": "passive"}
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name, count, folder]
            done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    versions = {name: version(name) for name in ("dphrl", "trl", "transformers", "torch")}
    print(json.dumps({"runs": runs, "machine": platform.processor() or platform.machine(), "versions": versions}))


if __name__ == "__main__":
    main()
