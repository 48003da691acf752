"""Attention of a packed sequence: each node's tokens see the tokens on their path, whatever the model's attention is.

transformers lets attention and masks be registered by name. Ours hand on to the model's own implementation (`sdpa`,
`eager`), so that windows, soft caps, sinks and grouped heads stay what they are: for a packed sequence they call it
once a block, with queries and keys gathered from the nodes' paths; for any other input they are that implementation.

The packed sequence reaches the attention in the place of the mask, through the arguments of each layer, so that
backward finds it too where layers are computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dphrl.models.packed_rows import AttentionBlock, PackedRows

PREFIX = "dphrl_"
"""Before the name of the implementation that is handed on to."""
INNER = ("sdpa", "eager")

_PACKED: ContextVar[PackedRows | None] = ContextVar("packed", default=None)


@dataclass(frozen=True, slots=True)
class PathMask:
    """What stands in the mask's place: the blocks, and for each the pairs of query and key that see each other."""

    blocks: tuple[AttentionBlock, ...]
    seen: tuple[Tensor | None, ...]
    """[R, 1, Q, K] each; None: plainly causal."""

    def __getitem__(self, part: tuple[slice, ...]) -> PathMask:
        """All of it: Gemma 4 cuts the masks of its last layers to the queries that are asked for, and all are."""
        if any(s not in (slice(None), slice(0, None)) for s in part):
            raise TypeError("of a packed sequence's mask no part can be taken")
        return self


@contextmanager
def packed_attention(packed: PackedRows) -> Iterator[None]:
    """Within it a model's body takes its input for this packed sequence."""
    token = _PACKED.set(packed)
    try:
        yield
    finally:
        _PACKED.reset(token)


def share_attention(model: Any) -> None:
    """Let a model of transformers attend along paths where it is given a packed sequence; else nothing changes.

    Raises:
        ValueError: its attention cannot be exchanged, or is of another kind than `INNER`.
    """
    name = str(model.config.get_text_config()._attn_implementation)
    if name.removeprefix(PREFIX) not in INNER:
        raise ValueError(f"its attention is {name}, not {' or '.join(INNER)}")
    if name.startswith(PREFIX):
        return
    _register(name)
    if not model._can_set_attn_implementation():
        raise ValueError("its attention cannot be exchanged")
    model.set_attn_implementation(PREFIX + name)


def unshare_attention(model: Any) -> None:
    """Give a model its own attention back; nothing happens where it has it.

    Some look at its name: DeepSeek V3.2 would attend densely with one that it does not know.
    """
    name = str(model.config.get_text_config()._attn_implementation)
    if name.startswith(PREFIX):
        model.set_attn_implementation(name.removeprefix(PREFIX))


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Within it a model has its own attention."""
    name = str(model.config.get_text_config()._attn_implementation)
    unshare_attention(model)
    try:
        yield
    finally:
        if name.startswith(PREFIX):
            model.set_attn_implementation(name)


def _register(name: str) -> None:
    if PREFIX + name not in ALL_ATTENTION_FUNCTIONS:
        # Not compiled: each packed sequence has other blocks, for which everything would be compiled anew.
        AttentionInterface.register(PREFIX + name, partial(torch.compiler.disable(_attend), name))  # type: ignore[no-untyped-call]
        AttentionMaskInterface.register(PREFIX + name, partial(torch.compiler.disable(_mask), name))  # type: ignore[no-untyped-call]


def _mask(name: str, *args: Any, **kwargs: Any) -> Any:
    """As the mask functions of transformers; a window or chunk is in `mask_function`, which reads positions."""
    packed = _PACKED.get()
    if packed is None:
        return ALL_MASK_ATTENTION_FUNCTIONS[name](*args, **kwargs)
    sees = kwargs["mask_function"]
    positions = packed.position_ids_1N[0]
    implied = name == "sdpa" and sees is causal_mask_function  # without a mask it is causal by itself
    seen = [None if block.causal and implied else _seen(block, positions, sees) for block in packed.blocks]
    return PathMask(packed.blocks, tuple(seen))


def _seen(block: AttentionBlock, positions: Tensor, sees: Callable[..., Tensor]) -> Tensor:
    zero = positions.new_zeros(())
    query, key = positions[block.query_RQ][:, None, :, None], positions[block.key_RK][:, None, None, :]
    return sees(zero, zero, query, key) & block.seen_RK[:, None, None, :]


def _attend(
    name: str, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """As the attention functions of transformers: query [1, heads, N, size] -> ([1, N, heads, size], weights)."""
    attention = ALL_ATTENTION_FUNCTIONS[name] if name != "eager" else _eager_of(module)
    if not isinstance(attention_mask, PathMask):
        result: tuple[Tensor, Tensor | None] = attention(module, query, key, value, attention_mask, *args, **kwargs)
        return result

    def inner(*states_and_mask: Any) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = attention(module, *states_and_mask, *args, **kwargs)
        return found

    kind = query.device.type
    if name == "sdpa" and torch.is_autocast_enabled(kind):  # it would cast each node's copy; rotary makes them float32
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    states = [x[0].transpose(0, 1) for x in (query, key, value)]
    parts = []
    for block, seen in zip(attention_mask.blocks, attention_mask.seen, strict=True):
        attend = partial(_attend_block, inner, block, seen, name == "eager")
        if torch.is_grad_enabled() and not block.causal:
            # Each node has a copy of its path's keys and values: made again in backward, they are not kept.
            parts.append(checkpoint(attend, *states, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(attend(*states))
    return torch.cat(parts)[None], None


def _attend_block(
    inner: Callable[..., tuple[Tensor, Any]],
    block: AttentionBlock,
    seen: Tensor | None,
    additive: bool,
    query_NHD: Tensor,
    key_NHD: Tensor,
    value_NHD: Tensor,
) -> Tensor:
    query, key, value = (
        states.index_select(0, places.flatten()).view(*places.shape, *states.shape[1:]).transpose(1, 2)
        for states, places in ((query_NHD, block.query_RQ), (key_NHD, block.key_RK), (value_NHD, block.key_RK))
    )
    if additive and seen is not None:
        seen = query.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(query.dtype).min)
    output = inner(query, key, value, seen)[0].flatten(0, 1)
    return output if block.kept is None else output.index_select(0, block.kept)


def _eager_of(module: Any) -> Callable[..., Any]:
    """The eager attention that stands beside a layer's class."""
    for cls in type(module).__mro__:
        found: Callable[..., Any] | None = getattr(sys.modules[cls.__module__], "eager_attention_forward", None)
        if found is not None:
            return found
    raise ValueError(f"no eager attention beside {type(module).__name__}")
