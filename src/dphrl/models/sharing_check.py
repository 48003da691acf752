"""Whether a model's log-probabilities stay what they are when a prompt is read once for several completions.

Rotary or learned positions, windows, soft caps, grouped heads and mixtures of experts are read along paths; a state
that runs over all tokens (linear attention, Mamba), a choice of keys among all tokens, or dropout is not. No list of
models says so: the config names kinds of layers, and two short rows are scored both ways. Neither is enough alone: a
state of an untrained model may change less than rounding, a choice among 2048 keys changes nothing in short rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dphrl.models.logit_rule import LogitRule
from dphrl.models.packed_rows import pack_rows
from dphrl.models.positions import follows_longest_row, takes_positions
from dphrl.models.shared_attention import own_attention, share_attention, unshare_attention
from dphrl.models.token_head import Answer, Read, head_is_sharded, read_states

PROMPT, COMPLETIONS = 8, (4, 3)
"""Tokens of the rows that are compared."""
READ_ALONG_PATHS = {"attention", "full_attention", "sliding_attention"}
"""Kinds of layers in a config of transformers whose attention is told by a mask what it sees. Not `chunked_attention`:
Llama 4, which alone has it, scales queries by their place in what it is given, from the 8192nd on."""
OF_ONE_TOKEN = {"moe", "mlp", "dense", "sparse"}
"""Kinds of layers that see one token alone."""

Reader = Callable[..., tuple[Answer, ...]]
"""`token_head.read_states` of one model."""


def prepare_sharing(model: Any) -> str | None:
    """Exchange the attention of a causal LM of transformers; why not, where that cannot be done."""
    name = type(model).__name__
    if head_is_sharded():
        return "ZeRO-3 holds the head's weight, which is whole only within its own forward"
    if model.base_model is model or not takes_positions(model.base_model):
        return f"{name} cannot be given positions"
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
    others = sorted(set(layers) - READ_ALONG_PATHS - OF_ONE_TOKEN)
    if others:
        return f"{name} has layers ({', '.join(others)}) that look at all tokens before them, whatever a mask says"
    if follows_longest_row(model.config.get_text_config()):
        return f"{name}'s rotary frequencies follow the longest row of a forward (dynamic, longrope)"
    if model._is_stateful:
        return f"{name} keeps a state that runs over all tokens"
    try:
        share_attention(model)
    except ValueError as error:
        return f"{name}: {error}"
    return None


def can_share(model: Any, rule: LogitRule, dtype: torch.dtype) -> bool:
    """Whether a loaded, unwrapped model can be given packed sequences; its attention is exchanged if so.

    Args:
        dtype: what it computes in, as `why_unshared`.
    """
    if prepare_sharing(model) is not None:
        return False
    vocabulary = model.config.get_text_config().vocab_size
    why = why_unshared(partial(read_states, model, rule), model, vocabulary, rule.temperature, dtype)
    if why is not None:
        unshare_attention(model)
    return why is None


@torch.no_grad()
def why_unshared(read: Reader, model: Any, vocabulary: int, temperature: float, dtype: torch.dtype) -> str | None:
    """Why prompts cannot be shared, by comparing two rows with a common prompt, shared and alone; None if they can.

    Args:
        read: reads packed sequences. model: gives logits; wrapped or not, in the mode in which it will be used.
        vocabulary: tokens it knows (count).
        temperature: divides the logits.
        dtype: what it computes in, which says how much is rounding.
    """
    device = next(model.parameters()).device
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):  # dropout draws: a run that goes on looks again
            before = _random_states(device)
            apart, largest = _apart(read, model, vocabulary, temperature)
            drawn = not all(map(torch.equal, before, _random_states(device)))
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        return f"its forward does not take a packed sequence ({type(error).__name__}: {error})"
    # OPT asks a random number whether it passes over a layer, at layerdrop 0 too.
    if drawn and getattr(model.config.get_text_config(), "layerdrop", None) != 0:
        return "its forward draws random numbers: dropout acts, or noise of its own"
    allowed = 1e-4 + torch.finfo(dtype).eps / 2 * largest
    if apart <= allowed:
        return None
    return (
        f"log-probabilities would change by {apart:.2g} nats (rounding explains {allowed:.1g}): tokens see others than "
        "those of their own row"
    )


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _apart(read: Reader, model: Any, vocabulary: int, temperature: float) -> tuple[float, float]:
    """Mean difference of the log-probabilities of the two rows, and the largest of their sizes (nats)."""
    device = next(model.parameters()).device
    tokens = np.arange(3, 3 + PROMPT + sum(COMPLETIONS)) * 7919 % vocabulary
    prompt = tokens[:PROMPT]
    completions = np.split(tokens[PROMPT:], np.cumsum(COMPLETIONS)[:-1])
    packed = pack_rows([prompt] * len(completions), completions, min_saved=1, device=device)
    ((logps_M1, _),) = read(reads=(Read(packed.state_M, packed.target_M[:, None]),), packed=packed)
    shared_BT = packed.to_rows(logps_M1[:, 0])
    with own_attention(model):
        alone = [_alone(model, prompt, completion, temperature, device) for completion in completions]
    alone_BT = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
    apart = (shared_BT.cpu() - alone_BT.cpu()).abs().sum() / sum(COMPLETIONS)
    return float(apart), float(alone_BT.abs().max())


def _alone(model: Any, prompt: Any, completion: Any, temperature: float, device: torch.device) -> Tensor:
    ids_1L = torch.from_numpy(np.concatenate([prompt, completion])[None]).to(device)
    logits_LV = model(input_ids=ids_1L, attention_mask=torch.ones_like(ids_1L), use_cache=False).logits[0].float()
    logps_TV = (logits_LV[len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    logps_T: Tensor = logps_TV.gather(1, ids_1L[0, len(prompt) :, None].to(logps_TV.device))[:, 0]
    return logps_T
