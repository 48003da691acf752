"""Anchors beside the rollouts: which ones a micro-batch has, their forward, their penalty and what was measured.

Their rows go through the model on their own, or joined to the rollouts' in one forward; the loss is the same.
Axes: B batch, L length, T time, N completion tokens, K likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dphrl.anchors import anchor_lengths
from dphrl.config.root import ANCHOR_METHODS
from dphrl.engines.trl.positions import GivesPositions
from dphrl.engines.trl.refused_options import check_ranks
from dphrl.errors import ConfigError, EmptyAnchorStore
from dphrl.method.anchor_order import share, step_anchors
from dphrl.method.anchor_stats import AnchorStats
from dphrl.method.definition import definition
from dphrl.method.divergences import Generator, generator
from dphrl.method.eta import EtaControl
from dphrl.method.penalties import anchor_nll, anchor_penalty, topk_penalty
from dphrl.models.scoring import pad_sequences
from dphrl.models.topk_head import add_topk_head, check_topk, topk_logps
from dphrl.types import Anchor


@dataclass(frozen=True, slots=True)
class Rows:
    """Padded rows as TRL lays them out: prompts to the left, completions to the right of one edge."""

    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    time: int
    """Width of the completions' part (tokens)."""

    def widened(self, prompt: int, time: int, pad_id: int) -> Rows:
        """The same rows with parts of these widths, none below its own."""
        sides = (prompt - (self.input_ids_BL.shape[1] - self.time), time - self.time)
        return Rows(F.pad(self.input_ids_BL, sides, value=pad_id), F.pad(self.attention_mask_BL, sides), time)


def join_rows(first: Rows, second: Rows, pad_id: int) -> Rows:
    """Rows of both, padded to one another; their completions still begin at one edge."""
    time = max(first.time, second.time)
    prompt = max(rows.input_ids_BL.shape[1] - rows.time for rows in (first, second))
    both = [rows.widened(prompt, time, pad_id) for rows in (first, second)]
    ids, mask = (torch.cat([getattr(rows, name) for rows in both]) for name in ("input_ids_BL", "attention_mask_BL"))
    return Rows(ids, mask, time)


class AnchorForward(GivesPositions):
    """Adds eta * sum f(log u) / N over the step's anchors to TRL's loss."""

    def __init__(self, *args: Any, anchors: Sequence[Anchor] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wants = self.args.method in ANCHOR_METHODS
        if wants and not anchors:
            raise EmptyAnchorStore(f"method {self.args.method} needs anchors; run `dphrl presample` or use method grpo")
        if anchors and not wants:
            raise ConfigError(f"method {self.args.method} has no use for anchors; leave them out or use method dph")
        self._anchors: Sequence[Anchor] = anchors or ()
        self._anchor_lengths = anchor_lengths(self._anchors)
        self._anchor_stats: list[AnchorStats] = []
        self._micro = (-1, -1)  # (optimiser step, micro-batch in it)
        self._joining: Rows | None = None  # anchors that go along with the next forward
        self._joined: Tensor | None = None  # their log-probabilities
        self._penalty = self._anchor_loss() if wants else None
        self._eta = EtaControl(self.args, self._step_drift)
        if wants:
            check_ranks(self.args, int(self.accelerator.num_processes), fsdp=self.is_fsdp_enabled)
            self._check_merged()
            self.add_callback(self._eta)
        if wants and self.args.anchor_estimator == "topk":
            check_topk(self._anchors)
            base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            add_topk_head(base, self.temperature)

    def _check_merged(self) -> None:
        if self.args.anchor_forward == "merged" and self.aux_loss_enabled:
            raise ConfigError(
                "anchor_forward='merged' would put anchors into the mixture's balancing loss (output_router_logits of "
                "the model's config), which TRL adds to its own; use anchor_forward='separate'"
            )

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._anchors and self.model.training:
            inputs = {**inputs, "anchors": self._next_anchors()}  # a copy: TRL reuses its buffered batches
        return inputs

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        anchors = inputs.get("anchors")
        exploration = {k: v for k, v in inputs.items() if k != "anchors"}
        merged = self.args.anchor_forward == "merged" and self._anchors_pull()
        # Separate anchors go first: backward starts with what was computed last, so that the exploration forward, the
        # larger one, has given up its activations before the anchors' gradients are there.
        penalty = None if anchors is None or merged else self._anchor_penalty(model, *anchors)
        if anchors is not None and merged:
            self._joining = self._rows(anchors[0])[0]
        loss: Tensor = super().compute_loss(model, exploration, *args, **kwargs)
        if anchors is not None and merged:
            penalty = self._anchor_penalty(model, *anchors)
        return loss if penalty is None or self._eta.eta == 0 else loss + self._eta.eta * penalty

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """TRL's, with the rows in `_joining` at the end of the batch; what it returns is of the rows it was given."""
        own, anchors, self._joining = Rows(input_ids, attention_mask, logits_to_keep), self._joining, None
        if anchors is None:
            output: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
            return output
        more = [name for name, value in kwargs.items() if isinstance(value, Tensor | list)]
        if more:
            raise ConfigError(
                f"anchor_forward='merged' joins rows of text, and these have {', '.join(more)} beside it; use "
                "anchor_forward='separate'"
            )
        rows = join_rows(own, anchors, self.processing_class.pad_token_id)
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(
            model, rows.input_ids_BL, rows.attention_mask_BL, rows.time, *args, **kwargs
        )
        count = len(input_ids)
        self._joined = logps[count:, : anchors.time]
        entropies = None if entropies is None else entropies[:count, :logits_to_keep]
        return logps[:count, :logits_to_keep], entropies, aux_loss

    def _next_anchors(self) -> tuple[list[Anchor], int]:
        """The anchors of this micro-batch on this rank, and the tokens of all anchors of the optimiser step."""
        step = self.state.global_step
        self._micro = (step, self._micro[1] + 1 if self._micro[0] == step else 0)
        indices = step_anchors(len(self._anchors), self.args.anchors_per_step, seed=self.args.seed, step=step)
        mine = share(
            indices,
            micro=self._micro[1],
            micros=self.current_gradient_accumulation_steps,
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
        )
        return [self._anchors[int(i)] for i in mine], int(self._anchor_lengths[indices].sum())

    def _rows(self, anchors: list[Anchor]) -> tuple[Rows, Tensor]:
        """The anchors' rows, and which positions of their completions hold tokens."""
        input_ids, attention_mask, completion_mask = pad_sequences(
            [a.prompt_ids for a in anchors],
            [a.completion_ids for a in anchors],
            self.processing_class.pad_token_id,
            self.accelerator.device,
        )
        return Rows(input_ids, attention_mask, completion_mask.shape[1]), completion_mask.bool()

    def _anchor_penalty(self, model: Any, anchors: list[Anchor], step_tokens: int) -> Tensor:
        """This rank's share of the penalty; ranks' gradients are averaged afterwards, hence their number."""
        rows, mask_BT = self._rows(anchors)
        ref_logp_BT = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(a.ref_logps, device=mask_BT.device) for a in anchors], batch_first=True
        )
        inputs = {"input_ids": rows.input_ids_BL, "attention_mask": rows.attention_mask_BL}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._anchors_pull()):
            if self.args.anchor_estimator == "topk":
                with self.accelerator.autocast():
                    logp_BT, logp_NK, ref_logp_NK = topk_logps(self._called(model), inputs, mask_BT, anchors)
                penalty = topk_penalty(logp_NK, ref_logp_NK, self._generator(), step_tokens)
            else:
                joined, self._joined = self._joined, None
                if joined is None:
                    joined = super()._get_per_token_logps_and_entropies(model, **inputs, logits_to_keep=rows.time)[0]
                logp_BT = joined
                assert self._penalty is not None
                penalty = self._penalty(logp_BT, ref_logp_BT, mask_BT, step_tokens)
        self._anchor_stats.append(AnchorStats.measure(logp_BT, ref_logp_BT, mask_BT, penalty, step_tokens))
        return penalty * int(self.accelerator.num_processes)

    def initial_log_u(self, most: int = 64) -> float:
        """Mean |log u| (nats) of up to `most` anchors under the policy as it stands; about 0 before the first step.

        They are spread over the whole store, where keep sets stand behind the task's own, and read in train mode, where
        a model that adds noise of its own shows it.
        """
        count = min(most, len(self._anchors))
        anchors = [self._anchors[int(i)] for i in np.linspace(0, len(self._anchors) - 1, count).round()]
        size, training = self.args.per_device_train_batch_size, self.model.training
        self.model.train()
        try:
            with torch.no_grad():
                for start in range(0, len(anchors), size):
                    part = anchors[start : start + size]
                    self._anchor_penalty(self.model, part, sum(len(a.completion_ids) for a in part))
        finally:
            self.model.train(training)
        merged = reduce(add, self._anchor_stats)
        self._anchor_stats.clear()
        return float(merged.metrics()["anchor/log_u_abs_mean"])

    def _anchors_pull(self) -> bool:
        """Whether anchors have a gradient; with eta = 0, or where no half is on them, they are only measured."""
        on_fresh_alone = self.args.form == "definition" and definition(self.args.divergence).anchors is None
        return self._eta.eta != 0 and not on_fresh_alone

    def _anchor_loss(self) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
        if self.args.method == "replay":
            return lambda logp, ref_logp, mask, tokens: anchor_nll(logp, mask, tokens)
        if self.args.form == "definition":
            f = definition(self.args.divergence).anchors or torch.zeros_like
        else:
            f = self._generator()
        return lambda logp, ref_logp, mask, tokens: anchor_penalty(logp, ref_logp, mask, f, tokens)

    def _generator(self) -> Generator:
        return generator(self.args.divergence, alpha=self.args.alpha, log_u_cap=self.args.log_u_cap)

    def _step_drift(self) -> float:
        """anchor/forward_kl of the optimiser step that has just ended, over all ranks (nats a token)."""
        micro_batches = self._micro[1] + 1
        rows = torch.stack([stats.pack() for stats in self._anchor_stats[-micro_batches:]])
        return AnchorStats.unpack(self.accelerator.gather(rows)).metrics()["anchor/forward_kl"].item()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._anchor_stats:
            rows = torch.stack([stats.pack() for stats in self._anchor_stats])
            merged = AnchorStats.unpack(self.accelerator.gather(rows))
            self._anchor_stats.clear()
            logs = {
                **logs,
                "anchor/eta": self._eta.eta,
                **{name: value.item() for name, value in merged.metrics().items()},
            }
        super().log(logs, start_time)
