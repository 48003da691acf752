"""The `transformers` backend: batched `generate`, bucketed by length, each prompt read once, seeded per completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation import GenerateDecoderOnlyOutput

from dphrl.config.sources import SamplingConfig
from dphrl.models.policy import Policy
from dphrl.sampling.base import Request
from dphrl.sampling.decoding import decoded_completions
from dphrl.sampling.uniform import row_key, uniforms
from dphrl.types import GREEDY_DRAW, Completion

_COPIED = {DynamicLayer, DynamicSlidingWindowLayer}
"""Layers of a cache that hold keys and values alone, so that choosing rows copies all there is."""

CACHE = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
"""What `generate` takes and gives back keys and values as: transformers 5.24 has renamed it."""


def inverse_cdf(
    logits_BV: Float[Tensor, "batch vocab"], uniform_B: Float64[Tensor, batch], temperature: float, top_p: float
) -> Int64[Tensor, batch]:
    """The token at which the cumulative distribution first exceeds the uniform number, in the order of token ids.

    Args:
        logits_BV: unscaled logits; -inf forbids a token.
        uniform_B: numbers in [0, 1).
        temperature: > 0, divides the logits.
        top_p: in (0, 1]; below 1 only the smallest set of likeliest tokens with at least this mass is kept.
    Returns:
        Token ids, distributed as softmax(logits / temperature) when the numbers are uniform. Sums run in float64, so
        the rounding of another batch size flips a draw only when it lies within about 1e-7 of a boundary.
    """
    probs_BV = torch.softmax(logits_BV.double() / temperature, dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        sorted_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
        probs_BV = torch.zeros_like(probs_BV).scatter(-1, order_BV, sorted_BV)
    cdf_BV = probs_BV.cumsum(dim=-1)
    target_B1 = uniform_B.unsqueeze(-1) * cdf_BV[:, -1:]  # the total mass: 1 up to rounding, less under top_p
    token_B = torch.searchsorted(cdf_BV, target_B1, right=True).squeeze(-1)
    last_B = (probs_BV > 0).long().cumsum(-1).argmax(-1)  # rounding must not reach past the last possible token
    return torch.minimum(token_B, last_B)


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token possible in each row: the one that the row's uniform number picks."""

    def __init__(self, keys: Sequence[int], greedy: Sequence[bool], prompt_length: int, config: SamplingConfig) -> None:
        self.keys = np.asarray(keys, dtype=np.uint64)
        self.greedy = torch.tensor(greedy)
        self.prompt_length = prompt_length
        self.config = config

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        position = input_ids.shape[1] - self.prompt_length
        uniform = torch.from_numpy(uniforms(self.keys, position)).to(scores.device)
        token = inverse_cdf(scores, uniform, self.config.temperature, self.config.top_p)
        token = torch.where(self.greedy.to(scores.device), scores.argmax(dim=-1), token)
        return torch.full_like(scores, -torch.inf).scatter(1, token.unsqueeze(1), 0.0)


class TransformersSampler:
    """Draws with the policy itself; the same (seed, prompt id, draw) gives the same tokens in any batch."""

    def __init__(self, policy: Policy, config: SamplingConfig, seed: int) -> None:
        self.policy = policy
        self.config = config
        self.seed = seed
        self._shares = True  # until the model shows that it keeps a state that cannot be copied to other rows
        self._generation = GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=list(policy.stop_ids),
            pad_token_id=policy.tokenizer.pad_token_id,
            bos_token_id=policy.tokenizer.bos_token_id,
            disable_compile=True,
        )

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Batches of similar prompt length, the longest first (a batch that does not fit in memory fails at once)."""
        ordered = sorted(requests, key=lambda r: (-len(r.prompt_ids), r.prompt_id, r.draw))
        for start in range(0, len(ordered), self.config.batch_size):
            yield self._batch(ordered[start : start + self.config.batch_size])

    def close(self) -> None:
        """Nothing to give back: the model is the policy's."""

    def _batch(self, requests: Sequence[Request]) -> list[Completion]:
        tokenizer, model = self.policy.tokenizer, self.policy.model
        padded = tokenizer.pad(
            {"input_ids": [list(r.prompt_ids) for r in requests]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        length = padded["input_ids"].shape[1]
        keys = [row_key(self.seed, r.prompt_id, r.draw) for r in requests]
        pick = _Draw(keys, [r.draw == GREEDY_DRAW for r in requests], length, self.config)
        # Not inference_mode: there autocast forgets, and would cast every weight again for each token.
        with self.policy.autocast(), torch.no_grad():
            prefix = self._prefix(requests, padded["input_ids"], padded["attention_mask"])
            output = model.generate(
                input_ids=padded["input_ids"],
                attention_mask=padded["attention_mask"],
                generation_config=self._generation,
                logits_processor=LogitsProcessorList([pick]),
                **({} if prefix is None else {CACHE: prefix}),
            )
        return decoded_completions(self.policy, requests, output[:, length:].tolist())

    def _prefix(
        self, requests: Sequence[Request], ids_BT: Int64[Tensor, "batch time"], mask_BT: Int64[Tensor, "batch time"]
    ) -> Cache | None:
        """Keys and values of all prompt tokens but the last, each distinct prompt read once and copied to its draws.

        Returns:
            None where nothing is shared (no prompt twice, a prompt of one token), or where the model keeps another
            kind of state (linear attention): then `generate` reads every row itself.
        """
        first: dict[tuple[int, ...], int] = {}
        for i, r in enumerate(requests):
            first.setdefault(r.prompt_ids, i)
        if not self._shares or len(first) == len(requests) or ids_BT.shape[1] < 2:
            return None
        rows = torch.tensor(list(first.values()), device=ids_BT.device)
        # `generate` knows what each model's forward wants; the one token that it draws is thrown away.
        output = self.policy.model.generate(
            input_ids=ids_BT[rows, :-1],
            attention_mask=mask_BT[rows, :-1],
            generation_config=self._generation,
            max_new_tokens=1,
            return_dict_in_generate=True,
        )
        cache = output[CACHE]
        if not {type(layer) for layer in cache.layers} <= _COPIED:
            self._shares = False
            return None
        place = {prompt: n for n, prompt in enumerate(first)}
        cache.batch_select_indices(torch.tensor([place[r.prompt_ids] for r in requests], device=ids_BT.device))
        return cache
