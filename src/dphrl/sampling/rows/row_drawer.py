"""One batch of completions from a model of transformers: each prompt read once, each row with draws of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from torch import Tensor
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from dphrl.sampling.decoding import until_stop
from dphrl.sampling.rows.grouped_rows import CACHE, GroupedRows, Pick, can_group, has_keys_and_values_alone
from dphrl.sampling.rows.inverse_cdf import inverse_cdf
from dphrl.sampling.uniform import uniforms


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn."""

    max_new_tokens: int
    """Completions have at most so many."""
    temperature: float
    """> 0, divides the logits."""
    top_p: float
    """In (0, 1]; below 1 only the likeliest tokens of this mass are drawn."""
    stop_ids: tuple[int, ...]
    """Tokens that end a completion; it holds the one that did."""
    pad_id: int
    bos_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Pick:
    """The token that each row's uniform number picks, or the likeliest one."""

    keys: UInt64[np.ndarray, rows]
    greedy: Tensor
    decoding: Decoding

    def __call__(
        self, logits_RV: Float[Tensor, "rows vocab"], rows: Int64[Tensor, rows], position: int
    ) -> Int64[Tensor, rows]:
        at = rows.cpu()
        uniform = torch.from_numpy(uniforms(self.keys[at.numpy()], position)).to(logits_RV.device)
        token = inverse_cdf(logits_RV, uniform, self.decoding.temperature, self.decoding.top_p)
        greedy = self.greedy[at].to(logits_RV.device)
        return torch.where(greedy, logits_RV.argmax(dim=-1), token) if bool(self.greedy.any()) else token


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token possible in each row: the one that it draws."""

    def __init__(self, pick: Pick, prompt_length: int) -> None:
        self.pick = pick
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = torch.arange(len(scores), device=scores.device)
        token = self.pick(scores, rows, input_ids.shape[1] - self.prompt_length)
        return torch.full_like(scores, -torch.inf).scatter(1, token.unsqueeze(1), 0.0)


def sharing_obstacle(model: Any, *, sharded: bool = False) -> str | None:
    """Why a prompt cannot be read once for several completions, in words; None = it can.

    Args:
        model: a causal LM of transformers, or a PEFT model around one.
        sharded: whether its weights lie on several processes.
    """
    if can_group(model):
        return None
    if not has_keys_and_values_alone(model):
        return "the model keeps a state that cannot be given to several completions (linear attention or the like)"
    if sharded:
        return "the weights lie on several processes, and this model's attention takes no mask of one's own"
    return None


class RowDrawer:
    """Draws batches of rows; a row's tokens follow from its key, its prompt and the model, whatever stands beside it.

    Args:
        goes_on: where the model's weights lie on several processes: whether any of them needs a further step, from
            whether this one does. They must then draw batches together; None = each process alone.
    """

    def __init__(self, decoding: Decoding, goes_on: Callable[[bool], bool] | None = None) -> None:
        self.decoding = decoding
        self._goes_on = goes_on
        self._generation = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            eos_token_id=list(decoding.stop_ids),
            pad_token_id=decoding.pad_id,
            bos_token_id=decoding.bos_id,
            disable_compile=True,
        )

    def draw(
        self, model: Any, prompts: Sequence[tuple[int, ...]], keys: Sequence[int], greedy: Sequence[bool] | None = None
    ) -> list[tuple[int, ...]]:
        """The completion of each row, up to and with its stop token.

        Args:
            model: a causal LM of transformers, in eval mode.
            prompts: token ids of each row's prompt; equal ones are read once.
            keys: 64 bits of each row, see `uniform.row_key`.
            greedy: rows that take the likeliest tokens instead; None = no row.
        """
        chosen = torch.tensor(greedy if greedy is not None else [False] * len(prompts))
        pick = _Pick(np.asarray(keys, dtype=np.uint64), chosen, self.decoding)
        rows = self.draw_by(model, prompts, pick)
        return [until_stop(row, self.decoding.stop_ids)[0] for row in rows.tolist()]

    def draw_by(self, model: Any, prompts: Sequence[tuple[int, ...]], pick: Pick) -> Int64[Tensor, "rows time"]:
        """The tokens that `pick` takes for each row, padded behind its end."""
        return self._side_by_side(model, prompts, pick) if can_group(model) else self._one_by_one(model, prompts, pick)

    def _side_by_side(self, model: Any, prompts: Sequence[tuple[int, ...]], pick: Pick) -> Int64[Tensor, "rows time"]:
        goes_on = self._goes_on or (lambda mine: mine)
        decoding = self.decoding
        return GroupedRows(model, prompts, decoding.max_new_tokens, decoding.stop_ids, decoding.pad_id, goes_on).draw(
            pick
        )

    def _one_by_one(self, model: Any, prompts: Sequence[tuple[int, ...]], pick: Pick) -> Int64[Tensor, "rows time"]:
        """By transformers' `generate`, a row for each completion; keys and values of the prompt are copied to them."""
        longest = max(len(p) for p in prompts)
        pad = self.decoding.pad_id
        ids_BT = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
        mask_BT = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        prefix = self._prefix(model, prompts, ids_BT, mask_BT)
        output = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            generation_config=self._generation,
            logits_processor=LogitsProcessorList([_Draw(pick, longest)]),
            synced_gpus=self._goes_on is not None,
            **({} if prefix is None else {CACHE: prefix}),
        )
        drawn: Tensor = output[:, longest:]
        return drawn

    def _prefix(
        self,
        model: Any,
        prompts: Sequence[tuple[int, ...]],
        ids_BT: Int64[Tensor, "batch time"],
        mask_BT: Int64[Tensor, "batch time"],
    ) -> Cache | None:
        """Keys and values of all prompt tokens but the last, each distinct prompt read once and copied to its draws.

        Returns:
            None where nothing is shared (no prompt twice, a prompt of one token, processes that must make the same
            forwards), or where the model keeps another kind of state (linear attention): then `generate` reads every
            row itself.
        """
        first: dict[tuple[int, ...], int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(prompt, i)
        if len(first) == len(prompts) or ids_BT.shape[1] < 2 or self._goes_on is not None:
            return None
        if not has_keys_and_values_alone(model):
            return None
        rows = torch.tensor(list(first.values()), device=ids_BT.device)
        # `generate` knows what each model's forward wants; the one token that it draws is thrown away.
        output = model.generate(
            input_ids=ids_BT[rows, :-1],
            attention_mask=mask_BT[rows, :-1],
            generation_config=self._generation,
            max_new_tokens=1,
            return_dict_in_generate=True,
        )
        cache: Cache = output[CACHE]
        place = {prompt: n for n, prompt in enumerate(first)}
        cache.batch_select_indices(torch.tensor([place[p] for p in prompts], device=ids_BT.device))
        return cache
