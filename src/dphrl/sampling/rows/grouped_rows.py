"""Decoding the completions of a prompt side by side: its keys and values are kept once for all of them.

A decoding step is one forward of [groups, width] tokens: the last token of each completion of a group, as if they were
neighbours in one sequence. A mask lets each see the prompt and itself, positions are those of a completion alone. So a
prompt is read once, and at every step its keys are read once a group, not once a completion.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation import GenerateDecoderOnlyOutput

from dphrl.models.positions import row_positions, takes_positions
from dphrl.models.shared_attention import INNER, PREFIX

CACHE = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
"""What models take and give back keys and values as: transformers 5.24 has renamed it."""

COPIED = {DynamicLayer, DynamicSlidingWindowLayer}
"""Layers of a cache that hold keys and values alone, so that choosing rows copies all there is."""

SPARE_KEYS = 1024
"""A completion's attention passes over the keys of its neighbours in the group: up to so many of them are worth it."""

Pick = Callable[[Tensor, Tensor, int], Tensor]
"""(logits, numbers of their rows, position from 0) -> the token that each row draws there."""


def can_group(model: Any) -> bool:
    """Whether a model's attention is what masks and positions say it is, and nothing else passes from token to token.

    Args:
        model: a causal LM of transformers, or a PEFT model around one.
    """
    base = _base(model)
    config = _text_config(model)
    windows = {getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers}
    return (
        has_keys_and_values_alone(model)
        and bool(base._supports_attention_backend)  # transformers' sign that attention goes by its interface alone
        and config._attn_implementation.removeprefix(PREFIX) in INNER  # others take no mask of one's own
        and takes_positions(base.base_model)
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}
        and getattr(config, "attention_chunk_size", None) is None
        and len(windows - {None}) <= 1
    )


def has_keys_and_values_alone(model: Any) -> bool:
    """Whether keys and values are all that a model keeps of a text, so that they can be given to several continuations.

    Args:
        model: as in `can_group`.
    """
    layers = {type(layer) for layer in DynamicCache(config=_text_config(model)).layers}
    return not _base(model)._is_stateful and layers <= COPIED


@dataclass(slots=True)
class GroupedRows:
    """Completions under way, in groups of up to `width` of the same prompt; `draw` gives them.

    Args:
        model: one that `can_group`, in eval mode.
        prompts: token ids of each row's prompt, without padding; rows of one prompt need not be neighbours.
        most: completions have at most so many tokens.
        stop_ids: tokens that end one. pad_id: a token of the vocabulary.
        goes_on: whether a step is needed by any process, from whether this one needs it; a collective where the model's
            weights lie on several processes, which must make the same forwards.
    """

    model: Any
    prompts: Sequence[tuple[int, ...]]
    most: int
    stop_ids: Sequence[int]
    pad_id: int
    goes_on: Callable[[bool], bool] = lambda mine: mine

    def draw(self, pick: Pick) -> Int64[Tensor, "rows most"]:
        """The drawn tokens of each row, padded behind its end."""
        device = self.model.device
        places = {prompt: n for n, prompt in enumerate(dict.fromkeys(self.prompts))}
        slots, prompt_of = _groups([places[p] for p in self.prompts], self._width(self.prompts))
        slot_GW, group_prompts = slots.to(device), torch.tensor(prompt_of, device=device)
        logits_PV, cache, mask_PL = self._read(list(places))
        cache.batch_select_indices(group_prompts)
        logits_GWV = logits_PV[group_prompts, None].expand(-1, slot_GW.shape[1], -1)
        mask_GL = mask_PL[group_prompts]
        drawn_RT = torch.full((len(self.prompts), self.most), self.pad_id, device=device)
        stops, alive_GW = torch.tensor(list(self.stop_ids), device=device), slot_GW >= 0
        for step in range(self.most):
            at = alive_GW.nonzero(as_tuple=True)
            rows = slot_GW[at]
            if len(rows):
                drawn_RT[rows, step] = pick(logits_GWV[at].float(), rows, step)
            alive_GW[at] = torch.isin(drawn_RT[rows, step], stops, invert=True)
            if step + 1 == self.most or not self.goes_on(bool(alive_GW.any())):
                break
            kept = _still_needed(alive_GW)
            if kept is not None:  # groups that have ended leave
                cache.batch_select_indices(kept)
                slot_GW, alive_GW, mask_GL = slot_GW[kept], alive_GW[kept], mask_GL[kept]
            tokens_GW = drawn_RT[slot_GW.clamp(min=0), step]
            logits_GWV = self._step(tokens_GW, mask_GL, step, cache)
        return drawn_RT

    def _width(self, prompts: Sequence[tuple[int, ...]]) -> int:
        """Wide groups read the prompt's keys seldom, but attention passes over the neighbours' keys too."""
        return max(1, max(SPARE_KEYS, *map(len, prompts)) // self.most)

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Each prompt once: logits behind its last token, all keys and values, and the mask of the padding."""
        longest = max(len(p) for p in prompts)
        ids = [[self.pad_id] * (longest - len(p)) + list(p) for p in prompts]
        mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        mask_PL = torch.tensor(mask, device=self.model.device)
        cache = DynamicCache()  # without the config: windows are the masks' business, keys outside stay
        logits_PLV = self._forward(
            torch.tensor(ids, device=self.model.device),
            attention_mask=mask_PL,
            position_ids=row_positions(mask_PL),
            cache=cache,
            **({"logits_to_keep": 1} if "logits_to_keep" in _arguments(self.model) else {}),
        )
        return logits_PLV[:, -1], cache, mask_PL.bool()

    def _step(
        self, tokens_GW: Tensor, mask_GL: Bool[Tensor, "groups length"], step: int, cache: DynamicCache
    ) -> Tensor:
        """Logits behind each completion's token number `step` (from 0)."""
        width = tokens_GW.shape[1]
        length_G1 = mask_GL.sum(1, keepdim=True)
        position_G1 = length_G1 + step
        own_WK = torch.eye(width, dtype=torch.bool, device=mask_GL.device).repeat(1, step + 1)
        sees_GWK = torch.cat([mask_GL[:, None].expand(-1, width, -1), own_WK[None].expand(len(mask_GL), -1, -1)], dim=2)
        own_position_GK = length_G1 + torch.arange(step + 1, device=mask_GL.device).repeat_interleave(width)
        distance_GK = position_G1 - torch.cat([row_positions(mask_GL), own_position_GK], dim=1)
        return self._forward(
            tokens_GW,
            attention_mask=self._masks(sees_GWK, distance_GK),
            position_ids=position_G1.expand(-1, width),
            cache=cache,
        )

    def _masks(self, sees_GWK: Tensor, distance_GK: Tensor) -> Any:
        """The additive mask of [groups, 1, width, keys], one for each kind of layer where there are two."""
        least = torch.finfo(self.model.dtype).min

        def additive(visible: Tensor) -> Tensor:
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=visible.device)
            return mask.masked_fill_(~visible, least)[:, None]

        windows = [
            getattr(layer, "sliding_window", None) for layer in DynamicCache(config=_text_config(self.model)).layers
        ]
        window = max((w for w in windows if w is not None), default=None)
        if window is None:
            return additive(sees_GWK)
        near = additive(sees_GWK & (distance_GK < window)[:, None])
        return near if None not in windows else {"sliding_attention": near, "full_attention": additive(sees_GWK)}

    def _forward(self, ids: Tensor, *, cache: DynamicCache, **kwargs: Any) -> Tensor:
        if hasattr(_text_config(self.model), "output_router_logits"):
            kwargs["output_router_logits"] = False  # the balancing loss takes no mask over a cache
        logits: Tensor = self.model(input_ids=ids, use_cache=True, **{CACHE: cache}, **kwargs).logits
        return logits


def _groups(prompt_of_row: Sequence[int], width: int) -> tuple[Int64[Tensor, "groups width"], list[int]]:
    """Rows of the same prompt in groups of at most `width`, as even as possible; -1 where a group is not full.

    Returns:
        Numbers of the rows, and each group's prompt.
    """
    rows_of: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompt_of_row):
        rows_of.setdefault(prompt, []).append(row)
    groups, prompts = [], []
    for prompt, rows in rows_of.items():
        count = -(-len(rows) // width)
        groups += [rows[n::count] for n in range(count)]
        prompts += [prompt] * count
    widest = max(len(g) for g in groups)
    return torch.tensor([g + [-1] * (widest - len(g)) for g in groups]), prompts


def _still_needed(alive_GW: Bool[Tensor, "groups width"]) -> Int64[Tensor, left] | None:
    """Numbers of the groups under way once they are half of all or fewer, at least one; None before."""
    alive_G = alive_GW.any(1)
    if 2 * int(alive_G.sum()) > len(alive_G) or len(alive_G) == 1:
        return None
    return (
        alive_G.nonzero().flatten() if bool(alive_G.any()) else torch.zeros(1, dtype=torch.long, device=alive_G.device)
    )


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _text_config(model: Any) -> Any:
    return _base(model).config.get_text_config(decoder=True)


def _arguments(model: Any) -> Any:
    return inspect.signature(_base(model).forward).parameters
