"""Rollouts of training by our own sampler: a prompt is read once for its group, and every draw can be told in advance.

A draw is a function of (seed, optimiser step, prompt, number of the draw) and the weights. Neither the number of the
processes, nor what a batch holds, nor how often a run was interrupted changes it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dphrl.engines.common.processes import Processes
from dphrl.errors import ConfigError
from dphrl.sampling.rows.row_drawer import Decoding, RowDrawer, sharing_obstacle
from dphrl.sampling.uniform import row_key

Options = Mapping[str, Any]
"""Options by their names."""

MOST_ROWS = 256
"""Completions that one process draws at a time: what bounds the memory of their keys and values."""

_READ = ("temperature", "top_p", "max_new_tokens")
"""Generation options that our sampler has."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {"top_k": (None, 0), "min_p": (None, 0), "repetition_penalty": (None, 1)}
"""Others of TRL's -> values with which they do nothing; None does nothing in every option."""
_REFUSED = "share_prompts='on' (train.share_prompts) cannot be: {}; or use auto or off"


def option_of_trl(options: Options) -> str | None:
    """The first option that only TRL's own drawing honours, e.g. 'top_k=50'; None = our sampler draws the same.

    Args:
        options: those of a `DPHConfig`, by their names; one that is not there does nothing.
    """
    if options.get("max_completion_length", 0) is None:
        return "max_completion_length=None"
    for name in ("top_k", "min_p", "repetition_penalty", "cache_implementation"):
        value = options.get(name)
        if value not in _NEUTRAL.get(name, (None,)):
            return f"{name}={value!r}"
    for name, value in (options.get("generation_kwargs") or {}).items():
        if name not in _READ and value not in _NEUTRAL.get(name, (None,)):
            return f"generation_kwargs.{name}={value!r}"
    return None


def has_engine_of_its_own(options: Options) -> bool:
    """Whether the user has chosen vLLM or continuous batching to draw; both share prompts by themselves."""
    return bool(options.get("use_vllm") or options.get("use_transformers_continuous_batching"))


def check_sharing(options: Options) -> None:
    """Refuse an option of drawing that share_prompts='on' rules out.

    Args:
        options: as in `option_of_trl`.
    Raises:
        ConfigError: by name.
    """
    if options.get("share_prompts") == "on" and not has_engine_of_its_own(options):
        option = option_of_trl(options)
        if option is not None:
            raise ConfigError(_REFUSED.format(_rules_out(option)))


def _rules_out(option: str) -> str:
    return f"{option} needs TRL's own drawing; leave it out"


@dataclass(slots=True)
class Rollouts:
    """Draws the completions of a generation, on all processes at once.

    Args:
        decoding: how tokens are drawn.
        seed: of the run.
        processes: those that train.
        sharded: whether the weights lie on several processes, which then must make the same forwards.
    """

    decoding: Decoding
    seed: int
    processes: Processes
    sharded: bool = False
    _drawer: RowDrawer = field(init=False)
    _step: int = field(init=False, default=-1)
    _nth: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._drawer = RowDrawer(self.decoding, self._anyone if self.sharded else None)

    def draw(
        self, model: Any, prompts: Sequence[Sequence[int]], *, step: int, training: bool = True
    ) -> list[list[int]]:
        """Token ids of a completion for each prompt of this process, up to and with its stop token; a collective.

        Args:
            model: the policy; it is read in eval mode, without dropout, and left in its own mode.
            prompts: their token ids, as often as completions are wanted of them.
            step: optimiser steps done. Several generations of one step (dapo's further rounds) differ; those of an
                evaluation, which is not `training`, are the same whenever it is made at that step.
        """
        place = f"{step}/{self._of_step(step)}" if training else f"{step}/eval"
        numbers, most = self._numbered(prompts)
        keys = [row_key(self.seed, f"{place}/{_digest(p)}", n) for p, n in zip(prompts, numbers, strict=True)]
        by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i])))
        drawn: dict[int, list[int]] = {}
        with _in_eval_mode(model):
            for batch in np.array_split(np.asarray(by_length, dtype=np.int64), -(-most // MOST_ROWS)):
                rows = batch.tolist()
                found = self._drawer.draw(model, [tuple(prompts[i]) for i in rows], [keys[i] for i in rows])
                drawn |= {i: list(ids) for i, ids in zip(rows, found, strict=True)}
        return [drawn[i] for i in range(len(prompts))]

    def _of_step(self, step: int) -> int:
        """Number of this generation among those of its optimiser step, from 0."""
        self._nth = self._nth + 1 if step == self._step else 0
        self._step = step
        return self._nth

    def _numbered(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], int]:
        """How often each prompt has stood before, on this process or one of lower rank; and the most prompts of one."""
        mine = [(self.processes.rank, _digest(p)) for p in prompts]
        everywhere = self.processes.gather_objects(mine)
        seen = Counter(digest for rank, digest in everywhere if rank < self.processes.rank)
        numbers = []
        for _, digest in mine:
            numbers.append(seen[digest])
            seen[digest] += 1
        return numbers, max(Counter(rank for rank, _ in everywhere).values())

    def _anyone(self, mine: bool) -> bool:
        return bool(self.processes.gather(torch.tensor([mine], device=self.processes.device)).any())


def rollouts(
    args: Any,
    model: Any,
    options: Options,
    processes: Processes,
    *,
    sharded: bool,
    tools: bool,
    tell: Callable[[str], None],
) -> Rollouts | None:
    """What draws, as `share_prompts` says; None = TRL.

    Args:
        args: a `DPHConfig`.
        options: TRL's generation options, all of them; empty where an engine of its own draws.
        tools: whether completions call tools, which answer in between.
        tell: called where `auto` finds that rollouts read a prompt once for each completion, with the reason.
    Raises:
        ConfigError: `on`, but it cannot be.
    """
    if args.share_prompts == "off" or has_engine_of_its_own(vars(args)):
        return None
    option = "tools" if tools else option_of_trl(vars(args))
    obstacle = sharing_obstacle(model, sharded=sharded) if option is None else _rules_out(option)
    if obstacle is not None:
        if args.share_prompts == "on":
            raise ConfigError(_REFUSED.format(obstacle))
        tell(f"rollouts read a prompt once for each completion: {obstacle}")
    if option is not None:
        return None
    names = ("max_new_tokens", "temperature", "top_p", "eos_token_id", "pad_token_id", "bos_token_id")
    most, temperature, top_p, stop_ids, pad_id, bos_id = (options[name] for name in names)
    decoding = Decoding(most, temperature, top_p, tuple(stop_ids), pad_id, bos_id)
    return Rollouts(decoding, args.seed, processes, sharded)


def _digest(prompt: Sequence[int]) -> str:
    return hashlib.blake2b(np.asarray(prompt, dtype="<i8").tobytes(), digest_size=16).hexdigest()


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
