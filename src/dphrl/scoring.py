"""Reference log-probabilities: one forward through the same fused head, padding and dtype that the trainer uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TokenIds = Sequence[int]


def pad_sequences(
    prompts: Sequence[TokenIds], completions: Sequence[TokenIds], pad_id: int, device: Any = None
) -> tuple[Int64[Tensor, "batch length"], Int64[Tensor, "batch length"], Int64[Tensor, "batch time"]]:
    """TRL's padding rule: prompts to the left, completions to the right, then joined.

    Returns:
        input_ids and attention_mask [batch, prompt + completion], completion_mask [batch, completion].
    """
    width, time = max(map(len, prompts)), max(map(len, completions))
    ids, mask, completion_mask = [], [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        left, right = width - len(prompt), time - len(completion)
        ids.append([pad_id] * left + [*prompt, *completion] + [pad_id] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
        completion_mask.append([1] * len(completion) + [0] * right)
    return (
        torch.tensor(ids, device=device),
        torch.tensor(mask, device=device),
        torch.tensor(completion_mask, device=device),
    )


@torch.no_grad()
def score(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    *,
    pad_id: int,
    temperature: float,
    batch_size: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[tuple[float, ...]]:
    """log pi(token | prompt, earlier tokens) of every completion token, in nats, joined to the order given.

    Args:
        model: in eval mode; patched by TRL's fused head, so that no [batch, length, vocabulary] tensor exists.
        prompts, completions: token ids, pairwise; no completion is empty.
        temperature: divides the logits, as in training.
        batch_size: completions in one forward; batches hold similar lengths.
        on_progress: called with the number of completions done.
    """
    fused = with_fused_head(model, temperature)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - len(completions[i]))
    logps: list[tuple[float, ...]] = [()] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        logps_BT = _forward(fused, [prompts[i] for i in rows], [completions[i] for i in rows], pad_id)
        for i, row in zip(rows, logps_BT.tolist(), strict=True):
            logps[i] = tuple(row[: len(completions[i])])
        on_progress(min(start + batch_size, len(order)))
    return logps


def with_fused_head(model: Any, temperature: float) -> Any:
    """`model` patched once with the head that TRL's trainer gives it."""
    from trl.trainer.utils import add_fused_lm_head

    if getattr(model, "_dphrl_fused_temperature", None) != temperature:
        add_fused_lm_head(model, temperature=temperature)
        model._dphrl_fused_temperature = temperature
    return model


def _forward(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], pad_id: int
) -> Float[Tensor, "batch time"]:
    input_ids, attention_mask, completion_mask = pad_sequences(prompts, completions, pad_id, model.device)
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    labels[:, : -completion_mask.shape[1]] = -100
    output = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True)
    logps_BT: Tensor = output.log_probs[:, -completion_mask.shape[1] :].float()
    return logps_BT
