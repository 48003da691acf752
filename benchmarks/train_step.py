"""What a training step costs beside TRL's, in time and in memory. One JSON line.

    python benchmarks/train_step.py                                    35M parameters, float32, one thread of a CPU
    python benchmarks/train_step.py --picture docs/results/train-step.png         the ratio over G and prompts' lengths
    python benchmarks/train_step.py --device cuda --size 0.5b --groups 4 --rounds 20               bfloat16 compute
    python benchmarks/train_step.py --quick                            tiny models and lengths: only whether it runs

A step is everything after drawing: padding, old log-probabilities, rkl's reference, rewards, advantages, forward,
backward, clipping, AdamW and callbacks; two optimiser steps a generation, each one micro-batch of --groups groups. The
baseline is TRL's own GRPOTrainer, which is handed the same prompts and completions, with the same settings (loss_type
dapo, beta 0, no dropout). Models are random Llamas. Prompts are Spider's and GSM8K's from --data, rendered by
`dphrl`'s tasks, in tokens of a byte-level BPE that is learned from them; of Spider those of 300 to 500 tokens, about
400. Without the data they are random words of the same lengths (`real_prompts`: false). Completions are random tokens:
sql 40 each, math 50 to 400. Anchors are of other prompts and number --ratio of the completions.

Every part is a process of its own. In every round each variant runs once on the same generation, another one first in
each; a ratio is the median over rounds of the ratio within a round, and `spread` has its least and its most. A short
generation of each warms up. --threads 1 on a CPU takes the processor's seconds, so that other programs do not
count; else the clock's.

    sql_g16_over_trl, sql_g8_over_trl, math_g8_over_trl     TRL's time / ours (grpo)
    iteration_over_trl    the same of drawing and step together; sql, G = 16, both draw for themselves
    rollout_over_trl      tokens a second of that drawing, ours / TRL's
    memory_over_trl       ours / TRL's; sql, G = 16: weights, AdamW and the most that a generation's steps add to them
                          (torch's own count of its tensors)
    over_bound            ours / a plain loop over as many distinct tokens; sql, G = 8: a causal batch, its rows as long
                          as the sequences on average, through the same body, TRL's head at as many places as there
                          are completion tokens; once without gradients for old log-probabilities, once with; AdamW
    dph_over_grpo, rkl_over_grpo     all ours; sql, G = 8, four groups a step; the store holds --per-prompt anchors of a
                          prompt
    dph_alone_over_grpo   sql, G = 8, one group a step: one anchor beside it, whose prompt nothing else reads
    math_dph_over_grpo    math, G = 8, one group a step
    anchor_tokens, anchor_alone_tokens, math_anchor_tokens     distinct tokens that dph's anchors add / of the rollouts
    bf16_over_fp32        time of our step in float32 / in bfloat16 compute; sql, G = 8
    loader_wait_share     the clock's share of a dph step that reads, pads and makes tensors of its anchors
    memory_X_over_grpo    sql, G = 8
    memory_dph_over_bound     dph's against grpo's and what a plain forward of the anchors keeps for its backward
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_step.picture import draw, lines_of
from training_step.steps import (
    Anchors,
    Shape,
    completions_of,
    generation,
    held,
    peak,
    plain_generation,
    plain_of,
    seconds,
    trainer_of,
)
from training_step.world import SIZES, World, prompts_of_rounds, world_of, write_model, write_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process: a task's generation, and what runs on it."""

    task: str
    group: int
    groups: int = 1
    """Of an optimiser step, times --groups."""
    variants: tuple[str, ...]
    """In every round."""
    memory: tuple[str, ...] = ()
    """Whose memory is measured."""
    draws: bool = False
    """Trainers draw for themselves."""


PARTS = {
    "sql_g16": Part(task="sql", group=16, variants=("trl", "grpo"), memory=("trl", "grpo"), draws=True),
    "sql_g8": Part(
        task="sql",
        group=8,
        variants=("trl", "grpo", "bf16", "dph"),
        memory=("grpo", "dph", "rkl", "replay", "definition"),
    ),
    "anchors": Part(task="sql", group=8, groups=4, variants=("grpo", "dph", "rkl")),
    "math_g8": Part(task="math", group=8, variants=("trl", "grpo", "dph")),
}

Round = dict[str, tuple[float, ...]]
"""Variant -> clock and processor seconds of a generation; of drawing too where it draws, and tokens drawn."""


class Run:
    """One part under way."""

    def __init__(self, part: Part, folder: Path, given: argparse.Namespace) -> None:
        torch.set_num_threads(given.threads)
        self.part, self.gpu = part, given.device == "cuda"
        self.shape = Shape(group=part.group, groups=part.groups * given.groups, ratio=given.ratio, gpu=self.gpu)
        self.world: World = world_of(part.task, SIZES[given.size], given.data, short=8 if given.quick else 1)
        write_model(folder / "model", self.world.size, self.world.tokenizer)
        write_store(folder / "store", self.world, given.per_prompt)
        self.trainers = {v: trainer_of(v, self.world, folder, self.shape) for v in part.variants}
        self.anchors = Anchors(self.world, folder, self.shape, 42)
        self.prompts = prompts_of_rounds(self.world.prompts, self.shape.prompts)
        self.order = 1 if given.threads == 1 and not self.gpu else 0

    def warm_up(self) -> None:
        """A short generation of each variant: AdamW's state is there, and what is made once."""
        for trainer in self.trainers.values():
            trainer.completions = [ids[:4] for ids in completions_of(self.world, self.shape, 0)]
            generation(trainer, [prompt[:40] for prompt in self.prompts(0)])

    def memory(self, folder: Path) -> dict[str, int]:
        """Peak bytes of each variant's generation; and what anchors add to a plain forward."""
        if not self.part.memory:
            return {}
        plain = self.anchors.plain(0)
        found = {"anchors": peak(partial(plain.nll, self.trainers["grpo"]), gpu=self.gpu)[1]}
        for name in self.part.memory:
            trainer = self.trainers.get(name) or trainer_of(name, self.world, folder, self.shape)
            trainer.completions = completions_of(self.world, self.shape, 0)
            before = held(trainer)  # without AdamW's state where this is a trainer's first generation: it adds to it
            found[name] = before + peak(partial(generation, trainer, self.prompts(0)), gpu=self.gpu)[0]
        return found

    def round(self, number: int) -> Round:
        """Another variant first in each."""
        prompts, completions = self.prompts(number), completions_of(self.world, self.shape, number)
        step = number * self.shape.updates
        calls: dict[str, Callable[[], object]] = {}
        for name, trainer in self.trainers.items():
            trainer.completions = None if self.part.draws else completions
            calls[name] = partial(generation, trainer, prompts)
        plain = plain_of(self.world, prompts, completions, self.shape)
        if "trl" in self.trainers:
            calls["plain"] = partial(plain_generation, self.trainers["grpo"], plain)
        if "dph" in self.trainers:
            calls["loader"] = partial(self.anchors.load, step)
        names = list(calls)
        found: Round = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name] = seconds(calls[name], gpu=self.gpu)
            if self.part.draws and name in self.trainers:
                found[f"{name}_drawing"] = (*self.trainers[name].drawing, self.trainers[name].drawn)
        tokens = sum(batch.ids.numel() for batch in plain)
        found["tokens"] = (tokens, sum(batch.scored for batch in plain), self.anchors.tokens(step, prompts))
        return found


def ratios(part: str, rounds: Sequence[Round], order: int) -> dict[str, list[float]]:
    """Key -> its value in each round. `order`: 0 the clock's seconds, 1 the processor's."""

    def over(a: str, b: str) -> list[float]:
        return [r[a][order] / r[b][order] for r in rounds]

    def step(name: str) -> list[float]:
        return [r[name][order] - r[f"{name}_drawing"][order] for r in rounds]

    anchor_tokens = [r["tokens"][2] / r["tokens"][0] for r in rounds]
    if part == "sql_g16":
        speed = {v: [r[f"{v}_drawing"][2] / r[f"{v}_drawing"][order] for r in rounds] for v in ("trl", "grpo")}
        return {
            "sql_g16_over_trl": [a / b for a, b in zip(step("trl"), step("grpo"), strict=True)],
            "rollout_over_trl": [b / a for a, b in zip(speed["trl"], speed["grpo"], strict=True)],
            "iteration_over_trl": over("trl", "grpo"),
            "over_bound_g16": [a / r["plain"][order] for a, r in zip(step("grpo"), rounds, strict=True)],
        }
    if part == "math_g8":
        return {
            "math_g8_over_trl": over("trl", "grpo"),
            "math_over_bound": over("grpo", "plain"),
            "math_dph_over_grpo": over("dph", "grpo"),
            "math_anchor_tokens": anchor_tokens,
        }
    if part == "anchors":
        return {
            "dph_over_grpo": over("dph", "grpo"),
            "rkl_over_grpo": over("rkl", "grpo"),
            "anchor_tokens": anchor_tokens,
            "loader_wait_share": [r["loader"][0] / r["dph"][0] for r in rounds],
        }
    return {
        "sql_g8_over_trl": over("trl", "grpo"),
        "over_bound": over("grpo", "plain"),
        "bf16_over_fp32": over("grpo", "bf16"),
        "dph_alone_over_grpo": over("dph", "grpo"),
        "anchor_alone_tokens": anchor_tokens,
    }


def memory_ratios(part: str, memory: dict[str, int]) -> dict[str, float]:
    if part == "sql_g16":
        return {"memory_over_trl": memory["grpo"] / memory["trl"]}
    if not memory:
        return {}
    return {
        **{f"memory_{v}_over_grpo": memory[v] / memory["grpo"] for v in ("dph", "rkl", "replay", "definition")},
        "memory_dph_over_bound": memory["dph"] / (memory["grpo"] + memory["anchors"]),
    }


def measure(name: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One part: its keys, and under its name the numbers behind them."""
    run = Run(PARTS[name], folder, given)
    run.warm_up()
    memory = run.memory(folder)
    rounds = [run.round(number) for number in range(1, given.rounds + 1)]
    values = ratios(name, rounds, run.order)
    spent = {v: [r[v][run.order] for r in rounds] for v in rounds[0] if v != "tokens"}
    distinct, scored, _ = np.mean([r["tokens"] for r in rounds], axis=0)
    numbers = {
        "seconds": {v: round(float(np.median(values)), 3) for v, values in spent.items()},
        "memory_mb": {v: round(size / 1e6, 1) for v, size in memory.items()},
        "distinct_tokens": round(distinct),
        "completion_tokens": round(scored),
        "prompt_tokens": round((distinct - scored) / run.shape.prompts),
        "real_prompts": run.world.real,
    }
    return {
        **{key: round(float(np.median(v)), 4) for key, v in values.items()},
        **{key: round(v, 4) for key, v in memory_ratios(name, memory).items()},
        "spread": {key: [round(min(v), 4), round(max(v), 4)] for key, v in values.items()},
        "parts": {name: numbers},
        "parameters": sum(p.numel() for p in run.trainers["grpo"].model.parameters()),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="35m", help="default: 35m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--rounds", type=int, default=3, help="measured in each part (default: 3)")
    parser.add_argument("--groups", type=int, default=1, help="of a micro-batch (default: 1)")
    parser.add_argument("--ratio", type=float, default=0.125, help="anchors a completion, > 0 (default: 0.125)")
    parser.add_argument("--per-prompt", type=int, default=4, help="anchors of each of 512 prompts (default: 4)")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data", help="spider, gsm8k")
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated (default: all)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="measure and draw this alone")
    parser.add_argument("--quick", action="store_true", help="tiny, lengths divided by 8, one round")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.size, given.rounds = "tiny", 1
    return given


def parts(names: Sequence[str], threads: int) -> dict[str, Any]:
    """Each in a process of its own; keys of all beside each other."""
    found: dict[str, Any] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name, folder]
            done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        for key, value in json.loads(done.stdout.splitlines()[-1]).items():
            found[key] = found[key] | value if isinstance(value, dict) and key in found else value
    return found


def main() -> None:
    given = arguments()
    if given.one:
        name, folder = given.one
        print(json.dumps(lines_of(Path(folder), given) if given.picture else measure(name, Path(folder), given)))
        return
    if given.picture:
        found = parts(["picture"], given.threads)
        draw(found["cells"], given.picture)
    else:
        found = parts(given.part or list(PARTS), given.threads)
    versions = {name: version(name) for name in ("dphrl", "trl", "transformers", "torch")}
    settings = {name: getattr(given, name) for name in ("size", "device", "threads", "rounds", "groups", "ratio")}
    machine = platform.processor() or platform.machine()
    print(json.dumps({**found, **settings, "machine": machine, "versions": versions}))


if __name__ == "__main__":
    main()
