"""The GPUs that verl trains on, and whether a config's batches divide over them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dphrl.config.train import TrainConfig
from dphrl.engines import verl
from dphrl.errors import ConfigError

Mode = Literal["sync", "colocate_async", "separate_async"]
SEPARATE: Mode = "separate_async"
MODES: tuple[Mode, ...] = ("sync", "colocate_async", SEPARATE)
WITH_ANCHORS = dict(zip(MODES, verl.MODES, strict=True))
"""verl's mode -> the one that extends it by anchors."""
ENGINES = ("vllm", "sglang")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where verl runs, and how it draws."""

    gpus: int = 8
    """GPUs of a node (count, >= 1)."""
    nodes: int = 1
    """Nodes that train (count, >= 1)."""
    mode: Mode = "sync"
    """verl's `trainer_mode`: drawing and training in turn, drawing ahead on the same GPUs, or on nodes of its own."""
    rollout_nodes: int = 0
    """Nodes that draw alone (count); >= 1 with the mode separate_async, else 0."""
    engine: str = "vllm"
    """What draws: vllm or sglang."""

    def __post_init__(self) -> None:
        for name, value in (("--gpus", self.gpus), ("--nodes", self.nodes)):
            if value < 1:
                raise ConfigError(f"{name} {value} must be at least 1")
        for name, word, allowed in (("--mode", self.mode, MODES), ("--rollout", self.engine, ENGINES)):
            if word not in allowed:
                raise ConfigError(f"{name} {word} is not one of {', '.join(allowed)}")
        if (self.rollout_nodes > 0) != (self.mode == SEPARATE) or self.rollout_nodes < 0:
            raise ConfigError(
                f"--rollout-nodes {self.rollout_nodes} and --mode {self.mode}: nodes that draw alone belong to "
                f"{SEPARATE}, which needs at least 1"
            )

    @property
    def ranks(self) -> int:
        """Processes that train, a GPU each."""
        return self.gpus * self.nodes

    def steps_a_tick(self, updates: int) -> int:
        """Optimiser steps after which verl moves the learning rate and eta, of a generation with `updates` of them.

        It does so once a call of its actors' update: for a whole generation, or an optimiser step where others draw.
        """
        return 1 if self.mode == SEPARATE else updates

    @property
    def all_nodes(self) -> int:
        return self.nodes + self.rollout_nodes


def check_batches(train: TrainConfig, cluster: Cluster) -> None:
    """Whether verl can make the same optimiser steps.

    Raises:
        ConfigError: an optimiser step is not of whole prompts, or its completions do not divide over the GPUs; says the
            nearest that do.
    """
    prompts, updates, group, ranks = train.prompts_per_step, train.updates, train.group_size, cluster.ranks
    if prompts % updates:
        raise ConfigError(
            f"train.prompts_per_step={prompts} does not divide over train.updates={updates}: on verl an optimiser step "
            f"is of whole prompts; the nearest train.prompts_per_step that does: {_either(prompts, updates)}"
        )
    if prompts // updates * group % ranks:
        unit = updates * ranks // math.gcd(ranks, group)  # prompts of a generation
        fitting = [n for n in range(1, 2 * ranks) if prompts // updates * group % n == 0]
        raise ConfigError(
            f"the {prompts // updates * group:,} completions of an optimiser step do not divide over {ranks} GPUs; the "
            f"nearest train.prompts_per_step that does: {_either(prompts, unit)}; the nearest number of GPUs: "
            f"{_or(sorted(fitting, key=lambda n: abs(n - ranks))[:2])}"
        )


def check_tensor_parallel(size: int, cluster: Cluster) -> None:
    """Raises:
    ConfigError: the engines that draw do not divide over a node's GPUs; says the nearest that do.
    """
    if size < 1 or cluster.gpus % size:
        fitting = [n for n in range(1, cluster.gpus + 1) if cluster.gpus % n == 0]
        raise ConfigError(
            f"train.trl.vllm_tensor_parallel_size={size} does not divide the {cluster.gpus} GPUs of a node; the "
            f"nearest that does: {_or(sorted(fitting, key=lambda n: abs(n - size))[:2])}"
        )


def rounded_up(number: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `number`."""
    return math.ceil(number / unit) * unit


def _either(number: int, unit: int) -> str:
    """The multiples of `unit` on both sides of `number`."""
    low = number // unit * unit
    return _or(n for n in (low, low + unit) if n > 0)


def _or(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
