"""The `transformers` backend: batches bucketed by length, each prompt read once, seeded per completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from dphrl.config.sources import SamplingConfig
from dphrl.models.policy import Policy
from dphrl.sampling.base import Request
from dphrl.sampling.decoding import decoded_completions
from dphrl.sampling.rows.row_drawer import Decoding, RowDrawer
from dphrl.sampling.uniform import row_key
from dphrl.types import GREEDY_DRAW, Completion


class TransformersSampler:
    """Draws with the policy itself; the same (seed, prompt id, draw) gives the same tokens in any batch."""

    def __init__(self, policy: Policy, config: SamplingConfig, seed: int) -> None:
        self.policy = policy
        self.config = config
        self.seed = seed
        tokenizer = policy.tokenizer
        self._drawer = RowDrawer(
            Decoding(
                config.max_new_tokens,
                config.temperature,
                config.top_p,
                policy.stop_ids,
                tokenizer.pad_token_id,
                tokenizer.bos_token_id,
            )
        )

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Batches of similar prompt length, the longest first (a batch that does not fit in memory fails at once)."""
        ordered = sorted(requests, key=lambda r: (-len(r.prompt_ids), r.prompt_id, r.draw))
        for start in range(0, len(ordered), self.config.batch_size):
            yield self._batch(ordered[start : start + self.config.batch_size])

    def close(self) -> None:
        """Nothing to give back: the model is the policy's."""

    def _batch(self, requests: Sequence[Request]) -> list[Completion]:
        keys = [row_key(self.seed, r.prompt_id, r.draw) for r in requests]
        greedy = [r.draw == GREEDY_DRAW for r in requests]
        # Not inference_mode: there autocast forgets, and would cast every weight again for each token.
        with self.policy.autocast(), torch.no_grad():
            rows = self._drawer.draw(self.policy.model, [r.prompt_ids for r in requests], keys, greedy)
        return decoded_completions(self.policy, requests, rows)
