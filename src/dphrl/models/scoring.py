"""Reference log-probabilities: one forward through the body, head and precision that trainers use.

The body reads the distinct tokens of a batch, each prompt once, or padded rows where the model cannot; its states at
completion tokens alone go on to the head, a few positions at a time, so that no [batch, length, vocabulary] tensor
exists. Axes: B batch, L length, T time, N completion tokens of a batch, H hidden, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dphrl.errors import DataError, ModelError
from dphrl.models.autocast import computed_type, computing_in
from dphrl.models.logit_rule import HEAD_POSITIONS, LogitRule
from dphrl.models.packed_rows import pack_rows
from dphrl.models.positions import row_positions, takes_positions
from dphrl.models.sharing_check import can_share
from dphrl.models.token_head import body_states

TokenIds = Sequence[int]

MAX_BATCH_TOKENS = 16_384
"""Tokens in one forward, padding included, unless one completion alone has more: bounds the body's memory."""
OTHER_CAPS = ("logits_soft_cap", "output_logit_soft_cap")
"""How RecurrentGemma and xLSTM name the cap that others call final_logit_softcapping."""
CHECKED_TOKENS = 8
"""Tokens of the first row on which the head is compared with the model's own."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the reference policy says of one completion; all log-probabilities in nats, at the temperature."""

    logps: tuple[float, ...]
    """Of each completion token."""
    topk_ids: tuple[tuple[int, ...], ...] = ()
    """Likeliest tokens at each completion token, descending; () when not asked for."""
    topk_logps: tuple[tuple[float, ...], ...] = ()
    """Their log-probabilities: rows of the `ref_logp_TK` that `divergences.topk_divergence` takes."""


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
    topk: int = 0,
    autocast: str | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Scored]:
    """log pi(token | prompt, earlier tokens) of every completion token, joined to the order given.

    Args:
        model: a causal LM of transformers in eval mode; its attention learns to read packed sequences, nothing else.
        prompts, completions: token ids, pairwise; none is empty.
        pad_id: any token id; padding is masked.
        temperature: divides the logits, as in training; > 0.
        batch_size: completions in one forward at most, fewer when padded they have more than MAX_BATCH_TOKENS tokens.
        topk: likeliest tokens to keep at each position, at most the vocabulary's size; 0 keeps none.
        autocast: what products are rounded to, as in training (`Precision.autocast`); None = the weights' own type.
        on_progress: called with the number of completions done.
    Returns:
        One record each. They are Python numbers, about 1 kB a token at topk=16: score and store in parts.
    Raises:
        DataError: an empty prompt or completion. ModelError: a model whose logits do not follow the rule in its config.
        ValueError: the model is in train mode, where dropout would act.
    """
    if not prompts:
        return []
    _check_input(model, prompts, completions)
    head = _Head.of(model, temperature)
    _check_head(model, head, [*prompts[0], *completions[0]][:CHECKED_TOKENS], autocast)
    with computing_in(model, autocast):
        shared = can_share(model, head.rule, computed_type(model, autocast))
    scored: list[Scored | None] = [None] * len(prompts)
    done = 0
    for rows in (
        shared_batches(prompts, [len(c) for c in completions], batch_size)
        if shared
        else batches([len(p) for p in prompts], [len(c) for c in completions], batch_size)
    ):
        own = [prompts[i] for i in rows], [completions[i] for i in rows]
        with computing_in(model, autocast):
            batch = _score_packed(model, head, *own, topk) if shared else _score_padded(model, head, *own, pad_id, topk)
        for i, record in zip(rows, batch, strict=True):
            scored[i] = record
        done += len(rows)
        on_progress(done)
    return [record for record in scored if record is not None]


def _check_input(model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]) -> None:
    if model.training:
        raise ValueError("the model is in train mode, where dropout acts; call model.eval() before scoring")
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if not len(prompt) or not len(completion):
            raise DataError(
                f"completion {i} to be scored has {len(prompt)} prompt and {len(completion)} completion tokens; "
                "both need at least one: leave it out"
            )


def batches(prompt_lengths: Sequence[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers of each batch: rows of similar prompt and completion length, the longest completions first.

    Prompts and completions are padded apart, so sorting by the sum of both is not enough: strips of similar completion
    length are sorted by prompt length, every other one backwards, so that neighbours across strips are similar too.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    strips = max(1, round(1.5 * math.sqrt(len(order) / batch_size)))
    cuts = [s * len(order) // strips for s in range(strips + 1)]
    batch: list[int] = []
    width = time = 0
    for s in range(strips):
        for i in sorted(order[cuts[s] : cuts[s + 1]], key=lambda i: prompt_lengths[i], reverse=s % 2 == 0):
            width, time = max(width, prompt_lengths[i]), max(time, lengths[i])
            if batch and (len(batch) == batch_size or (len(batch) + 1) * (width + time) > MAX_BATCH_TOKENS):
                yield batch
                batch, width, time = [], prompt_lengths[i], lengths[i]
            batch.append(i)
    yield batch


def shared_batches(prompts: Sequence[TokenIds], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers of each batch: rows whose prompts begin alike together, so that what they share is read once."""
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    batch: list[int] = []
    tokens = 0
    for i in order:
        new = lengths[i] + (len(prompts[i]) if not batch or prompts[batch[-1]] != prompts[i] else 0)
        if batch and (len(batch) == batch_size or tokens + new > MAX_BATCH_TOKENS):
            yield batch
            batch, tokens, new = [], 0, lengths[i] + len(prompts[i])
        batch.append(i)
        tokens += new
    yield batch


def _score_packed(
    model: Any, head: _Head, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], topk: int
) -> list[Scored]:
    rows = [[np.array(ids) for ids in part] for part in (prompts, completions)]
    packed = pack_rows(*rows, device=model.device)
    hidden_NH = body_states(model, packed)[0, packed.state_M]
    columns = [column.cpu() for column in head.score(hidden_NH, packed.target_M, topk)]
    places = packed.scored_BT.cpu()
    records = []
    for places_T, completion in zip(places, completions, strict=True):
        logp_T, *likeliest = (column[places_T[: len(completion)]] for column in columns)
        records.append(Scored(tuple(logp_T.tolist()), *map(_as_tuples, likeliest)))
    return records


def _score_padded(
    model: Any, head: _Head, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], pad_id: int, topk: int
) -> list[Scored]:
    input_ids_BL, attention_mask_BL, completion_mask_BT = pad_sequences(prompts, completions, pad_id, model.device)
    time = completion_mask_BT.shape[1]
    mask_BT = completion_mask_BT.bool()
    # The state before a token predicts it.
    hidden_NH = _body(model, input_ids_BL, attention_mask_BL)[:, -time - 1 : -1][mask_BT]
    columns = head.score(hidden_NH, input_ids_BL[:, -time:][mask_BT], topk)
    lengths = [len(completion) for completion in completions]
    rows = zip(*(torch.split(column.cpu(), lengths) for column in columns), strict=True)
    return [Scored(tuple(logp_T.tolist()), *map(_as_tuples, likeliest)) for logp_T, *likeliest in rows]


def _as_tuples(entries_TK: Tensor) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, entries_TK.tolist()))


def _body(model: Any, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Float[Tensor, "batch length hidden"]:
    """Last hidden states, each row's positions counted from its first token.

    Rotary models see only distances; for learned positions, counting from the left edge would let padding change the
    policy.
    """
    body = model.base_model
    extra = {"position_ids": row_positions(attention_mask_BL)} if takes_positions(body) else {}
    output = body(input_ids=input_ids_BL, attention_mask=attention_mask_BL, use_cache=False, **extra)
    states: Tensor = output.last_hidden_state
    return states


@dataclass(frozen=True, slots=True)
class _Head:
    """A model's output embedding and the rule of its logits."""

    embedding: Any
    rule: LogitRule

    @classmethod
    def of(cls, model: Any, temperature: float) -> _Head:
        """The head of a causal LM.

        Raises:
            ModelError: it has no body or no output embedding of its own, or a cap on its logits that training would
                leave out.
        """
        embedding = model.get_output_embeddings()
        if embedding is None or model.base_model is model:
            raise ModelError(
                f"{type(model).__name__} has no body and output embedding of its own, which scoring and training need; "
                "use a causal language model of transformers"
            )
        caps = [name for name in OTHER_CAPS if getattr(model.config.get_text_config(), name, None) is not None]
        if caps:
            raise ModelError(
                f"{type(model).__name__} caps its logits by {caps[0]} of its config, and training knows "
                "final_logit_softcapping alone, so another policy would be trained than the one that is sampled; use "
                "another model"
            )
        return cls(embedding, LogitRule.of(model.config, temperature))

    def score(self, hidden_NH: Tensor, targets_N: Tensor, topk: int) -> tuple[Tensor, ...]:
        """(logp_N,) of the targets in float32, or (logp_N, topk_ids_NK, topk_logp_NK) where `topk` is not 0."""
        size = HEAD_POSITIONS.get(self.embedding.weight.device.type, HEAD_POSITIONS["cuda"])
        parts = [
            self.chunk(hidden_NH[start : start + size], targets_N[start : start + size], topk)
            for start in range(0, len(hidden_NH), size)
        ]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def chunk(self, hidden_NH: Tensor, targets_N: Tensor, topk: int) -> tuple[Tensor, ...]:
        """The same for positions whose logits exist at once."""
        weight = self.embedding.weight
        logits_NV = self.rule.logits(hidden_NH.to(weight.device), weight, self.embedding.bias)
        log_z_N1 = logits_NV.logsumexp(-1, keepdim=True)
        logp_N = (logits_NV.gather(1, targets_N.to(weight.device)[:, None]) - log_z_N1)[:, 0]
        if not topk:
            return (logp_N,)
        top_NK, ids_NK = logits_NV.topk(min(topk, weight.shape[0]))
        return logp_N, ids_NK, top_NK - log_z_N1


def _check_head(model: Any, head: _Head, ids: TokenIds, autocast: str | None) -> None:
    """Refuse a model whose own logits do not follow the rule that was read from its config.

    Raises:
        ModelError: they are further apart than rounding explains.
    """
    input_ids_BL = torch.tensor([list(ids)], device=model.device)
    mask_BL = torch.ones_like(input_ids_BL)
    with computing_in(model, autocast):
        logits_NV = model(input_ids=input_ids_BL, attention_mask=mask_BL, use_cache=False).logits[0, :-1].float()
        targets_N = input_ids_BL[0, 1:]
        scored_N = head.score(_body(model, input_ids_BL, mask_BL)[0, :-1], targets_N, 0)[0]
    logits_NV = logits_NV / head.rule.temperature
    own_N = logits_NV.log_softmax(-1).gather(1, targets_N.to(logits_NV.device)[:, None])[:, 0]
    apart = float((own_N - scored_N.to(own_N.device)).abs().mean())
    allowed = 1e-4 + 2 * torch.finfo(computed_type(model, autocast)).eps * float(logits_NV.abs().max())
    if not apart <= allowed:
        raise ModelError(
            f"scoring {type(model).__name__} by its output embedding and the rule in its config (scale "
            f"{head.rule.scale:g}, soft cap {head.rule.softcap}) is {apart:.2g} nats away from its own "
            f"log-probabilities (rounding explains {allowed:.1g}), so another policy would be trained than the one "
            "that is sampled; use a model whose logits are its output embedding times the last state"
        )
