"""What is kept of an optimiser step whose loss or gradient was not finite: its batches, and a line for the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dphrl.errors import listed
from dphrl.files import write_json
from dphrl.types import Anchor

BAD_STEPS = "bad-steps"
"""Folder in a trainer's output that keeps the batches of bad steps."""
NAMED = 8
"""Prompts and anchors that the line about a bad step names; its file names all."""

PromptIds = tuple[int, ...]
"""The tokens of a prompt."""
NamePrompts = Callable[[frozenset[PromptIds]], Mapping[PromptIds, Sequence[str]]]
"""Tokens of a prompt -> ids of the prompts that have these tokens."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The input of one forward and backward pass of a process."""

    tensors: Mapping[str, Tensor]
    """With prompt_ids and prompt_mask."""
    anchors: tuple[Anchor, ...]

    def prompts(self) -> list[PromptIds]:
        """The tokens of each row's prompt, without padding."""
        rows = zip(self.tensors["prompt_ids"].tolist(), self.tensors["prompt_mask"].tolist(), strict=True)
        return [tuple(t for t, seen in zip(ids, mask, strict=True) if seen) for ids, mask in rows]


@dataclass(frozen=True, slots=True)
class BadMicroBatch:
    """A micro-batch of a bad step."""

    loss: float
    prompts: tuple[str, ...]
    """Ids, sorted."""
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True)
class BadShare:
    """One process's part of a bad step."""

    rank: int
    file: str
    """File with the tensors of this part, in the same folder as the step's JSON file."""
    micro_batches: tuple[BadMicroBatch, ...]


@dataclass(frozen=True, slots=True)
class BadStep:
    """A step that was left out, over all processes."""

    step: int
    """Optimiser step, counted from 1 as in metrics.jsonl."""
    grad_norm: float
    """Over all processes, before clipping."""
    in_a_row: int
    """Bad steps that end with this one (count)."""
    ranks: tuple[BadShare, ...]

    def write(self, folder: Path) -> None:
        """The content of bad-steps/step-N.json. Numbers that may be nan are text, since JSON has no nan."""
        ranks = [
            {
                "rank": share.rank,
                "file": share.file,
                "micro_batches": [
                    {"loss": repr(m.loss), "prompts": m.prompts, "anchors": [_entry(a) for a in m.anchors]}
                    for m in share.micro_batches
                ],
            }
            for share in self.ranks
        ]
        facts = {"step": self.step, "grad_norm": repr(self.grad_norm), "in_a_row": self.in_a_row, "ranks": ranks}
        write_json(folder / f"step-{self.step}.json", facts)

    def line(self, folder: Path) -> str:
        """One line for the screen. It names the micro-batches whose loss is not finite, or else all."""
        micro = [m for share in self.ranks for m in share.micro_batches]
        guilty = [m for m in micro if repr(m.loss) in ("nan", "inf", "-inf")] or micro
        anchors = sorted({f"{a.task}/{a.prompt_id}/{a.draw}" for m in guilty for a in m.anchors})
        beside = f"; anchors {listed(anchors, NAMED)}" if anchors else ""
        losses = ", ".join(sorted({repr(m.loss) for m in guilty}))
        return (
            f"step {self.step} is left out: loss {losses}, gradient norm {self.grad_norm!r}; prompts "
            f"{listed(sorted({i for m in guilty for i in m.prompts}), NAMED)}{beside}; kept in "
            f"{folder / f'step-{self.step}.json'}"
        )


def prompt_names(
    rows: Iterable[Mapping[str, Any]], tokens_of: Callable[[Any], Sequence[int]], wanted: frozenset[PromptIds]
) -> dict[PromptIds, list[str]]:
    """The prompts of a dataset that have these tokens; a row without `prompt_id` is named by its number."""
    names: dict[PromptIds, list[str]] = {tokens: [] for tokens in wanted}
    for number, row in enumerate(rows):
        tokens = tuple(tokens_of(row["prompt"]))
        if tokens in names:
            names[tokens].append(str(row.get("prompt_id", number)))
    return names


def keep_share(
    folder: Path, step: int, rank: int, losses: Sequence[float], batches: Sequence[MicroBatch], names: NamePrompts
) -> BadShare:
    """Write step-N-rank-R.safetensors: this process's batches and the state of its random numbers."""
    tensors = {f"micro-{m}/{name}": x for m, batch in enumerate(batches) for name, x in batch.tensors.items()}
    tensors["rng_state"] = torch.random.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    file = f"step-{step}-rank-{rank}.safetensors"
    save_file({name: x.detach().cpu().clone() for name, x in tensors.items()}, folder / file)
    prompts = [batch.prompts() for batch in batches]
    ids = names(frozenset(tokens for rows in prompts for tokens in rows))
    micro_batches = tuple(
        BadMicroBatch(loss, tuple(sorted({i for tokens in rows for i in ids[tokens]})), batch.anchors)
        for loss, rows, batch in zip(losses, prompts, batches, strict=True)
    )
    return BadShare(rank, file, micro_batches)


def _entry(anchor: Anchor) -> dict[str, object]:
    names = ("task", "prompt_id", "draw", "prompt_ids", "completion_ids", "ref_logps")
    return {name: getattr(anchor, name) for name in names}
