"""The anchors' part of the loss: which anchors a micro-batch has, their penalty, and what was measured on them.

L_pef is a sum over the anchors of an optimiser step, divided by their tokens; how the step is split changes nothing.
Axes: B batch, T time, N completion tokens, K likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dphrl.anchors import anchor_lengths, mean_prompt_length, prompt_numbers
from dphrl.config.objective import ANCHOR_METHODS
from dphrl.engines.common.forward.padded_rows import PaddedRows
from dphrl.engines.common.processes import Processes
from dphrl.errors import AnchorError, ConfigError, EmptyAnchorStore
from dphrl.method.anchor_order import AnchorOrder, share, share_bundles, together_by_length
from dphrl.method.anchor_stats import AnchorStats
from dphrl.method.definition_form import definition
from dphrl.method.divergences import GeneratorFn, generator
from dphrl.method.penalties import anchor_nll, anchor_penalty, topk_penalty
from dphrl.models.scoring import pad_sequences
from dphrl.models.token_head import check_topk
from dphrl.types import Anchor

CHECKED_ANCHORS = 64
"""Anchors whose log-probabilities are compared before the first step, at most."""
LOG_U_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest mean |log u| of the untrained policy on its own anchors (nats), by the precision of its forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSettings:
    """The settings that the term reads. `config.objective` gives the meaning, unit and range of each."""

    method: str
    """dph or replay; replay reads no divergence, form or estimator."""
    per_step: int
    seed: int
    per_prompt: int | None = None
    divergence: str = ""
    alpha: float = 0.5
    log_u_cap: float = 5.0
    form: str = "generator"
    estimator: str = "sampled"

    @classmethod
    def of(cls, args: Any) -> AnchorSettings:
        """Read from a trainer's arguments; those that the method does not read may be None."""
        if args.method == "replay":
            return cls(
                method=args.method,
                per_step=args.anchors_per_step,
                seed=args.seed,
                per_prompt=args.anchors_per_prompt,
            )
        bounds = {"alpha": args.alpha, "log_u_cap": args.log_u_cap}  # None where the divergence or form has none
        return cls(
            method=args.method,
            per_step=args.anchors_per_step,
            seed=args.seed,
            per_prompt=args.anchors_per_prompt,
            divergence=args.divergence,
            form=args.form,
            estimator=args.anchor_estimator,
            **{name: value for name, value in bounds.items() if value is not None},
        )


@dataclass(frozen=True, slots=True)
class AnchorBatch:
    """The anchors of one micro-batch on one process."""

    anchors: tuple[Anchor, ...]
    step_tokens: int
    """Anchor tokens of the whole optimiser step over micro-batches and processes: what the penalty is divided by."""


@dataclass(frozen=True, slots=True)
class AnchorRows:
    """Anchors of a forward pass."""

    anchors: tuple[Anchor, ...]
    mask_BT: Tensor
    """True on completion tokens."""
    ref_logp_BT: Tensor
    pad_id: int

    def padded(self) -> PaddedRows:
        """Their tokens, padded as the rollouts are."""
        prompts, completions = [a.prompt_ids for a in self.anchors], [a.completion_ids for a in self.anchors]
        ids, mask, completion_mask = pad_sequences(prompts, completions, self.pad_id, self.mask_BT.device)
        return PaddedRows(ids, mask, completion_mask.shape[1])


@dataclass(frozen=True, slots=True)
class AnchorLogps:
    """The log-probabilities that a forward pass gives to anchors (nats)."""

    logp_BT: Tensor
    logp_NK: Tensor | None = None
    """Of the likeliest tokens at each completion token, with estimator `topk`."""
    ref_logp_NK: Tensor | None = None


AnchorForward = Callable[[AnchorRows], AnchorLogps]


class AnchorTerm:
    """Chooses anchors by step, weighs their log-probabilities and keeps the statistics of the next log line.

    Args:
        anchors: scored by the initial policy; read when a step needs them.
        pad_id: token that pads rows; it is masked.
    Raises:
        EmptyAnchorStore: no anchor. AnchorError: estimator `topk` on anchors without their likeliest tokens.
    """

    def __init__(
        self, anchors: Sequence[Anchor] | None, settings: AnchorSettings, processes: Processes, pad_id: int
    ) -> None:
        if not anchors:
            raise EmptyAnchorStore(f"method {settings.method} needs anchors; run `dphrl presample` or use method grpo")
        if settings.estimator == "topk":
            check_topk(anchors)
        self.settings = settings
        self.stats: list[AnchorStats] = []
        """Statistics of each micro-batch since the last log line."""
        self._anchors, self._lengths = anchors, anchor_lengths(anchors)
        self._order, self._prompts = anchor_order(anchors, self._lengths, settings)
        self._processes, self._pad_id = processes, pad_id
        self._micro = (-1, -1)  # (optimiser step, micro-batch in it)
        self._penalty = _penalty(settings)

    def begin(self) -> None:
        """Start a training: another may have ended in the middle of this one's first optimiser step."""
        self._micro = (-1, -1)
        self.stats.clear()

    def next_batch(self, step: int, micros: int, *, bundled: bool = False) -> AnchorBatch:
        """The anchors of the next micro-batch of an optimiser step (from 0) that has `micros` on each process."""
        self._micro = (step, self._micro[1] + 1 if self._micro[0] == step else 0)
        return self.batch(step, self._micro[1], micros, bundled=bundled)

    def at_once(self, micros: int) -> bool:
        """Whether every micro-batch of every process has an anchor, in a step of `micros` on each."""
        return self.settings.per_step >= micros * self._processes.count

    def batch(self, step: int, micro: int, micros: int, *, bundled: bool = False) -> AnchorBatch:
        """The anchors of a micro-batch (from 0) of an optimiser step on this process; they follow from the seed.

        Args:
            bundled: anchors of one prompt stay in one micro-batch, and another may have none.
        """
        indices = self._order.step(step, self.settings.per_step)
        place = {"micro": micro, "micros": micros, "rank": self._processes.rank, "ranks": self._processes.count}
        if bundled and self._prompts is not None:
            own = share_bundles(indices, self._prompts[indices], **place)
        else:
            own = share(indices, **place)
        return AnchorBatch(tuple(self._anchors[int(i)] for i in own), int(self._lengths[indices].sum()))

    def rows(self, anchors: Sequence[Anchor]) -> AnchorRows:
        """The anchors as tensors; at least one."""
        device = self._processes.device
        logps = [torch.tensor(a.ref_logps, device=device) for a in anchors]
        lengths = torch.tensor([len(a.completion_ids) for a in anchors], device=device)
        ref_logp_BT = pad_sequence(logps, batch_first=True)
        mask_BT = torch.arange(ref_logp_BT.shape[1], device=device) < lengths[:, None]
        return AnchorRows(tuple(anchors), mask_BT, ref_logp_BT, self._pad_id)

    def pulls(self, eta: float) -> bool:
        """Whether anchors have a gradient. Without one (eta = 0, or no half on them) they are only measured."""
        s = self.settings
        return eta != 0 and not (s.form == "definition" and definition(s.divergence).anchors is None)

    def penalty(self, batch: AnchorBatch, forward: AnchorForward, eta: float) -> Tensor:
        """This micro-batch's share of the penalty, times the number of processes, whose gradients are averaged."""
        if not batch.anchors:
            self.stats.append(AnchorStats.none(self._processes.device))
            return torch.zeros((), device=self._processes.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.pulls(eta)):
            penalty, stats = self._measure(batch, forward)
        self.stats.append(stats)
        return penalty * self._processes.count

    def mean_abs_log_u(self, forward: AnchorForward, batch_size: int, most: int = CHECKED_ANCHORS) -> float:
        """Mean |log u| (nats) of up to `most` anchors, spread over the whole store: keep sets stand behind the task."""
        count = min(most, len(self._anchors))
        anchors = [self._anchors[int(i)] for i in np.linspace(0, len(self._anchors) - 1, count).round()]
        parts = [tuple(anchors[i : i + batch_size]) for i in range(0, count, batch_size)]
        with torch.no_grad():
            stats = [self._measure(AnchorBatch(p, sum(len(a.completion_ids) for a in p)), forward)[1] for p in parts]
        return float(reduce(add, stats).metrics()["anchor/log_u_abs_mean"])

    def step_drift(self) -> float:
        """`anchor/forward_kl` of the optimiser step that has just ended, over all processes (nats a token)."""
        return self._gathered(self.stats[-(self._micro[1] + 1) :])["anchor/forward_kl"]

    def take_metrics(self) -> dict[str, float]:
        """Metrics over all processes since the last call; empty where nothing was measured."""
        stats, self.stats = self.stats, []
        return self._gathered(stats) if stats else {}

    def _measure(self, batch: AnchorBatch, forward: AnchorForward) -> tuple[Tensor, AnchorStats]:
        rows = self.rows(batch.anchors)
        logps = forward(rows)
        penalty = self._penalty(logps, rows, batch.step_tokens)
        stats = AnchorStats.measure(logps.logp_BT, rows.ref_logp_BT, rows.mask_BT, penalty, batch.step_tokens)
        return penalty, stats

    def _gathered(self, stats: Sequence[AnchorStats]) -> dict[str, float]:
        rows = self._processes.gather(torch.stack([record.pack() for record in stats]))
        return {name: value.item() for name, value in AnchorStats.unpack(rows).metrics().items()}


def anchor_term(args: Any, anchors: Sequence[Anchor] | None, processes: Processes, pad_id: int) -> AnchorTerm | None:
    """The term that a trainer's arguments ask for; None for a method without anchors.

    Raises:
        ConfigError: anchors for a method that has no use for them. As `AnchorTerm`.
    """
    if args.method in ANCHOR_METHODS:
        return AnchorTerm(anchors, AnchorSettings.of(args), processes, pad_id)
    if anchors:
        raise ConfigError(f"method {args.method} has no use for anchors; leave them out or use method dph")
    return None


def anchor_order(
    anchors: Sequence[Anchor], lengths: Integer[np.ndarray, " anchors"], settings: AnchorSettings
) -> tuple[AnchorOrder, Integer[np.ndarray, " anchors"] | None]:
    """The stream of anchors, and the number of each one's prompt where several of a prompt follow one another."""
    together = settings.per_prompt or together_by_length(mean_prompt_length(anchors), float(lengths.mean()))
    prompts = prompt_numbers(anchors) if together > 1 else None
    return AnchorOrder(len(anchors), settings.seed, prompts, together), prompts


def check_reference(log_u_abs_mean: float, precision: str, again: Callable[[], float]) -> None:
    """Refuse anchors that the untrained policy does not give the stored log-probabilities.

    Args:
        log_u_abs_mean: mean |log u| of the untrained policy on them (nats).
        precision: of its forward, e.g. bfloat16.
        again: measures it once more.
    Raises:
        AnchorError: it is more than rounding explains.
    """
    tolerance = LOG_U_TOLERANCE.get(precision, LOG_U_TOLERANCE["float32"])
    if log_u_abs_mean <= tolerance:
        return
    found = f"before the first step the anchors' mean |log u| is {log_u_abs_mean:.2g} nats, more than {tolerance}"
    if math.isfinite(log_u_abs_mean) and (second := again()) != log_u_abs_mean:
        raise AnchorError(
            f"{found}, and {second:.2g} when the same anchors are read again: in training the model's forward draws "
            "random numbers. Dropout acts that could not be turned off, or noise of its own; set every dropout in the "
            "model's config.json to 0"
        )
    raise AnchorError(
        f"{found}: they are of another model, or were scored with other settings or another padding rule; train the "
        "model that they were drawn from, or pre-sample again on this machine"
    )


def _penalty(settings: AnchorSettings) -> Callable[[AnchorLogps, AnchorRows, int], Tensor]:
    """(log-probabilities, rows, anchor tokens of the step) -> the micro-batch's share of the penalty."""
    if settings.method == "dph" and settings.estimator == "topk":
        f = _generator(settings)
        return lambda logps, rows, tokens: topk_penalty(*_likeliest(logps), f, tokens)
    sampled = sampled_penalty(settings)
    return lambda logps, rows, tokens: sampled(logps.logp_BT, rows.ref_logp_BT, rows.mask_BT, tokens)


def sampled_penalty(settings: AnchorSettings) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
    """The penalty at the anchors' own tokens.

    Returns:
        (logp_BT, ref_logp_BT, mask_BT, anchor tokens of the step) -> the micro-batch's share, nats an anchor token.
    """
    if settings.method == "replay":
        return lambda logp_BT, ref_logp_BT, mask_BT, tokens: anchor_nll(logp_BT, mask_BT, tokens)
    f = _generator(settings)
    return lambda logp_BT, ref_logp_BT, mask_BT, tokens: anchor_penalty(logp_BT, ref_logp_BT, mask_BT, f, tokens)


def _generator(settings: AnchorSettings) -> GeneratorFn:
    if settings.form == "definition":
        return definition(settings.divergence).anchors or torch.zeros_like
    return generator(settings.divergence, alpha=settings.alpha, log_u_cap=settings.log_u_cap)


def _likeliest(logps: AnchorLogps) -> tuple[Tensor, Tensor]:
    assert logps.logp_NK is not None and logps.ref_logp_NK is not None
    return logps.logp_NK, logps.ref_logp_NK
