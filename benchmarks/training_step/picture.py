"""How the ratio to TRL's step grows with the group's size and with the prompt's length."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training_step.steps import Shape, completions_of, generation, seconds, trainer_of
from training_step.world import SIZES, TASKS, World, fixed_lengths, words, write_model

GROUPS = (2, 4, 8, 16, 32)
PROMPTS = (50, 100, 200, 400, 800)
COMPLETIONS = 32
"""Of a generation, which is one optimiser step; what TRL does with them does not depend on how they are grouped."""
TRL_SPLITS = 4
"""TRL's micro-batches, so that 32 rows of 840 tokens do not need 20 GB; ours is one."""


def lines_of(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """{"cells": prompt's length -> G -> median over rounds of TRL's time / ours}."""
    torch.set_num_threads(given.threads)
    size, gpu = SIZES[given.size], given.device == "cuda"
    lengths = [length // 8 for length in PROMPTS] if given.quick else list(PROMPTS)
    task = replace(TASKS["sql"], completion=(5, 5)) if given.quick else TASKS["sql"]
    tokenizer = words(size.vocabulary)
    write_model(folder / "model", size, tokenizer)
    shapes = {
        group: Shape(group=group, groups=COMPLETIONS // group, updates=1, trl_splits=TRL_SPLITS, gpu=gpu)
        for group in GROUPS
    }
    worlds = {n: World(size, task, tokenizer, tuple(fixed_lengths(n, COMPLETIONS, size)), False) for n in lengths}
    any_world = worlds[lengths[0]]
    trainers = {group: trainer_of("grpo", any_world, folder, shape) for group, shape in shapes.items()}
    base = trainer_of("trl", any_world, folder, shapes[max(GROUPS)])
    order = 1 if given.threads == 1 and not gpu else 0
    found: dict[int, dict[int, list[float]]] = {n: {group: [] for group in GROUPS} for n in lengths}
    variants = [(0, base), *trainers.items()]
    for number in range(given.rounds + 1):
        for n in lengths if number else lengths[:1]:  # the first one warms up
            world, spent = worlds[n], {}
            first = number % len(variants)
            for group, trainer in variants[first:] + variants[:first]:
                trainer.completions = completions_of(world, shapes[2], number)
                prompts = world.prompts[: shapes[group or max(GROUPS)].prompts]
                spent[group] = seconds(partial(generation, trainer, prompts), gpu=gpu)[order]
            if number:
                for group in GROUPS:
                    found[n][group].append(spent[0] / spent[group])
    return {"cells": {n: {g: round(float(np.median(v)), 3) for g, v in row.items()} for n, row in found.items()}}


def draw(cells: dict[str, dict[str, float]], path: Path) -> None:
    """A line a prompt length over G; TRL's step is the line at 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.8), layout="constrained")
    blues = ("#c6dbef", "#9ecae1", "#6baed6", "#2171b5", "#08306b")
    for color, (length, row) in zip(blues, cells.items(), strict=True):
        groups, values = list(map(int, row)), list(row.values())
        axes.plot(groups, values, marker="o", color=color, label=length)
        axes.annotate(f"{values[-1]:.1f}", (groups[-1], values[-1]), (7, 0), textcoords="offset points", va="center")
    axes.axhline(1, color="#6b7280", linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xlim(1.8, 42)
    axes.set(xlabel="completions of a prompt (G)", ylabel="TRL's step / ours, time", ylim=(0, None))
    axes.set_xticks(GROUPS, list(map(str, GROUPS)))
    axes.legend(title="tokens of the prompt", loc="upper left", reverse=True)
    figure.savefig(path, dpi=120)
