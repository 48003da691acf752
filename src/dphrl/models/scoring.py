"""Reference log-probabilities: one forward through the same body, head, padding and precision that the trainer uses.

The body runs on padded batches; its states at completion tokens alone go on to the head, a few positions at a time, so
that no [batch, length, vocabulary] tensor exists. Axes: B batch, L length, T time, N completion tokens of a batch,
H hidden, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from dphrl.errors import DataError, ModelError

TokenIds = Sequence[int]

MAX_BATCH_TOKENS = 16_384
"""Padded tokens in one forward, unless one completion alone has more: bounds the body's memory."""
HEAD_POSITIONS = {"cpu": 128, "cuda": 512}
"""Positions that go through the head at once: on a CPU their logits stay near its cache, on a GPU the head's weight is
read seldom enough. 512 x 152,000 logits in float32 are 300 MB."""
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


@dataclass(frozen=True, slots=True)
class _Rows:
    """Scores of the N completion tokens of one batch, one completion after the other."""

    logp_N: Tensor
    topk_ids_NK: Tensor | None = None
    topk_logp_NK: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LogitRule:
    """How logits come from the output embedding: softcap * tanh(scale * (h W + b) / softcap) / temperature."""

    scale: float
    softcap: float | None
    temperature: float

    @classmethod
    def of(cls, forward: Callable[..., Any]) -> LogitRule:
        """What TRL worked out from the model's config when it made `forward`, its fused head; the one reading of it."""
        read = inspect.getclosurevars(forward).nonlocals
        return cls(read["logit_scale"], read["final_logit_softcapping"], read["temperature"])


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
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Scored]:
    """log pi(token | prompt, earlier tokens) of every completion token, joined to the order given.

    Args:
        model: a causal LM of transformers in eval mode; it is not changed.
        prompts, completions: token ids, pairwise; none is empty.
        pad_id: any token id; padding is masked.
        temperature: divides the logits, as in training; > 0.
        batch_size: completions in one forward at most, fewer when padded they have more than MAX_BATCH_TOKENS tokens.
        topk: likeliest tokens to keep at each position, at most the vocabulary's size; 0 keeps none.
        on_progress: called with the number of completions done.
    Returns:
        One record each. They are Python numbers, about 1 kB a token at topk=16: score and store in parts.
    Raises:
        DataError: an empty prompt or completion. ModelError: a model whose logits the trainer's head cannot give.
        ValueError: the model is in train mode, where dropout would act.
    """
    if not prompts:
        return []
    _check_input(model, prompts, completions)
    head = _Head(model, temperature)
    _check_head(model, head, [*prompts[0], *completions[0]][:CHECKED_TOKENS], topk)
    found: list[Scored | None] = [None] * len(prompts)
    done = 0
    for rows in batches([len(p) for p in prompts], [len(c) for c in completions], batch_size):
        chosen = [completions[i] for i in rows]
        scored = _score_batch(model, head, [prompts[i] for i in rows], chosen, pad_id, topk)
        for i, record in zip(rows, _records(scored, [len(c) for c in chosen]), strict=True):
            found[i] = record
        done += len(rows)
        on_progress(done)
    return [record for record in found if record is not None]


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


def _score_batch(
    model: Any, head: _Head, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], pad_id: int, topk: int
) -> _Rows:
    input_ids_BL, attention_mask_BL, completion_mask_BT = pad_sequences(prompts, completions, pad_id, model.device)
    time = completion_mask_BT.shape[1]
    mask_BT = completion_mask_BT.bool()
    with _trainer_precision(model):
        # The state before a token predicts it.
        hidden_NH = _body(model, input_ids_BL, attention_mask_BL)[:, -time - 1 : -1][mask_BT]
        targets_N = input_ids_BL[:, -time:][mask_BT]
        return head.score(hidden_NH, targets_N, topk)


def _records(rows: _Rows, lengths: Sequence[int]) -> Iterator[Scored]:
    logps = iter(rows.logp_N.tolist())
    ids = iter(() if rows.topk_ids_NK is None else rows.topk_ids_NK.tolist())
    topk_logps = iter(() if rows.topk_logp_NK is None else rows.topk_logp_NK.tolist())
    for n in lengths:
        yield Scored(
            tuple(islice(logps, n)), tuple(map(tuple, islice(ids, n))), tuple(map(tuple, islice(topk_logps, n)))
        )


def _trainer_precision(model: Any) -> torch.autocast:
    """The trainer runs bfloat16 models under autocast (`bf16` in `trainers.settings`), and no others."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16)


def _body(model: Any, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Float[Tensor, "batch length hidden"]:
    """Last hidden states, each row's positions counted from its first token.

    Rotary models see only distances; for learned positions, counting from the left edge would let padding change the
    policy.
    """
    extra = {}
    if "position_ids" in inspect.signature(model.base_model.forward).parameters:
        extra["position_ids"] = (attention_mask_BL.cumsum(1) - 1).clamp(min=0)
    output = model.base_model(input_ids=input_ids_BL, attention_mask=attention_mask_BL, use_cache=False, **extra)
    states: Tensor = output.last_hidden_state
    return states


class _Head:
    """The trainer's fused head, fed with states that the body has made already.

    TRL patches whatever has these four attributes; patching this object instead of the model leaves the model as it is,
    and only completion tokens reach the head, on every device, in chunks of our size.
    """

    def __init__(self, model: Any, temperature: float) -> None:
        from trl.trainer.utils import add_fused_lm_head

        self.config = model.config
        self.get_output_embeddings = model.get_output_embeddings
        output = model.get_output_embeddings()
        if output is None or model.base_model is model:
            raise ModelError(
                f"{type(model).__name__} has no body and output embedding of its own, which scoring and training need; "
                "use a causal language model of transformers"
            )
        self.temperature = temperature
        self.vocabulary = int(output.weight.shape[0])
        self.positions = HEAD_POSITIONS.get(output.weight.device.type, HEAD_POSITIONS["cuda"])
        add_fused_lm_head(self, temperature=temperature)
        self.rule = LogitRule.of(self.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Replaced by TRL."""
        raise NotImplementedError

    def base_model(self, hidden_1NH: Tensor, **_: Any) -> SimpleNamespace:
        """The body, as far as TRL's forward can tell."""
        return SimpleNamespace(last_hidden_state=hidden_1NH)

    def score(self, hidden_NH: Tensor, targets_N: Tensor, topk: int) -> _Rows:
        """Log-probabilities of the targets in float32, and of the `topk` likeliest tokens if that is not 0."""
        k = min(topk, self.vocabulary)
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(hidden_NH), self.positions):
            chunk = slice(start, start + self.positions)
            h, t = hidden_NH[chunk], targets_N[chunk]
            parts.append(self.likeliest(h, t, k) if k else self.fused(h, t))
        return _Rows(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def fused(self, hidden_NH: Tensor, targets_N: Tensor) -> tuple[Tensor]:
        """TRL's own kernel."""
        output = self.forward(
            hidden_NH[None],
            shift_labels=targets_N[None],
            fused_lm_head=True,
            output_router_logits=False,  # a mixture's balancing loss needs the body
        )
        return (output.log_probs[0].float(),)

    def likeliest(self, hidden_NH: Tensor, targets_N: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same from the chunk's logits, which the likeliest tokens need anyway: one product instead of two."""
        output = self.get_output_embeddings()
        logits_NV = F.linear(hidden_NH.to(output.weight.device), output.weight, output.bias).float()
        rule = self.rule
        if rule.scale != 1.0:
            logits_NV.mul_(rule.scale)
        if rule.softcap is not None:
            logits_NV.div_(rule.softcap).tanh_().mul_(rule.softcap)
        if rule.temperature != 1.0:
            logits_NV.div_(rule.temperature)
        log_z_N1 = logits_NV.logsumexp(-1, keepdim=True)
        targets_N1 = targets_N.to(logits_NV.device)[:, None]
        top_NK, ids_NK = logits_NV.topk(k)
        return (logits_NV.gather(1, targets_N1) - log_z_N1)[:, 0], ids_NK, top_NK - log_z_N1


def _check_head(model: Any, head: _Head, ids: TokenIds, topk: int) -> None:
    """Refuse a model whose own logits are not those of the trainer's head.

    Raises:
        ModelError: they are further apart than rounding explains.
    """
    input_ids_BL = torch.tensor([list(ids)], device=model.device)
    mask_BL = torch.ones_like(input_ids_BL)
    with _trainer_precision(model):
        logits_NV = model(input_ids=input_ids_BL, attention_mask=mask_BL, use_cache=False).logits[0, :-1].float()
        targets_N = input_ids_BL[0, 1:]
        found_N = head.score(_body(model, input_ids_BL, mask_BL)[0, :-1], targets_N, topk).logp_N
    logits_NV = logits_NV / head.temperature
    expected_N = logits_NV.log_softmax(-1).gather(1, targets_N.to(logits_NV.device)[:, None])[:, 0]
    apart = float((expected_N - found_N.to(expected_N.device)).abs().mean())
    allowed = 1e-4 + 2 * torch.finfo(model.dtype).eps * float(logits_NV.abs().max())
    if not apart <= allowed:
        raise ModelError(
            f"the head that TRL's trainer gives {type(model).__name__} is {apart:.2g} nats away from the model's own "
            f"log-probabilities (rounding explains {allowed:.1g}), so another policy would be trained than the one "
            "that is sampled; use a model whose logits are its output embedding times the last state"
        )
