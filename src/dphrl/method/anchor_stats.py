"""What is measured on anchor tokens while training: sums and extremes that add over micro-batches and processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AnchorStats:
    """Sums and extremes over anchor tokens, as 0-dim float32 tensors: records add exactly, where means do not."""

    tokens: Float[Tensor, ""]
    """Anchor tokens (count; exact up to 2^24)."""
    penalty_sum: Float[Tensor, ""]
    """Sum of the penalty's terms (nats)."""
    log_u_sum: Float[Tensor, ""]
    log_u_abs_sum: Float[Tensor, ""]
    log_u_min: Float[Tensor, ""]
    """+inf without tokens."""
    log_u_max: Float[Tensor, ""]
    """-inf without tokens."""

    @classmethod
    def measure(
        cls,
        logp_BT: Float[Tensor, "batch time"],
        ref_logp_BT: Float[Tensor, "batch time"],
        mask_BT: Bool[Tensor, "batch time"],
        penalty: Float[Tensor, ""],
        step_tokens: int | float,
    ) -> AnchorStats:
        """The record of one micro-batch, detached and without a device synchronisation.

        Args:
            logp_BT, ref_logp_BT, mask_BT: as in `anchor_penalty`; an all-False mask gives the neutral record.
            penalty: what `anchor_penalty`, `topk_penalty` or `anchor_nll` returned for them (nats per token).
            step_tokens: the denominator it was called with (count, > 0).
        Returns:
            The record; log_u is not clamped, and a nan among the anchor tokens stays visible as nan.
        """
        with torch.no_grad():
            log_u_BT = torch.where(mask_BT, logp_BT - ref_logp_BT, 0.0).float()
            edge = log_u_BT.new_full((1,), torch.inf)  # amin and amax refuse a batch of no rows
            return cls(
                tokens=mask_BT.sum().float(),
                penalty_sum=penalty.float() * step_tokens,
                log_u_sum=log_u_BT.sum(),
                log_u_abs_sum=log_u_BT.abs().sum(),
                log_u_min=torch.cat([torch.where(mask_BT, log_u_BT, torch.inf).flatten(), edge]).amin(),
                log_u_max=torch.cat([torch.where(mask_BT, log_u_BT, -torch.inf).flatten(), -edge]).amax(),
            )

    @classmethod
    def none(cls, device: torch.device) -> AnchorStats:
        """The neutral record, of a micro-batch without anchors."""
        empty = torch.zeros((0, 0), device=device)
        return cls.measure(empty, empty, empty.bool(), torch.zeros((), device=device), 0)

    def __add__(self, other: AnchorStats) -> AnchorStats:
        """The record of both sets of tokens together."""
        return AnchorStats.unpack(torch.stack([self.pack(), other.pack()]))

    def pack(self) -> Float[Tensor, " fields"]:
        """The six fields in order, as one tensor that processes can gather."""
        return torch.stack(
            [self.tokens, self.penalty_sum, self.log_u_sum, self.log_u_abs_sum, self.log_u_min, self.log_u_max]
        )

    @classmethod
    def unpack(cls, rows: Float[Tensor, "records fields"]) -> AnchorStats:
        """The merged record of `pack`ed ones, one a row, such as `accelerator.gather(stats.pack()[None])`."""
        tokens, penalty_sum, log_u_sum, log_u_abs_sum = rows[:, :4].sum(0)
        return cls(tokens, penalty_sum, log_u_sum, log_u_abs_sum, rows[:, 4].amin(), rows[:, 5].amax())

    def metrics(self) -> dict[str, Float[Tensor, ""]]:
        """What to log once every micro-batch and process is merged; 0-dim tensors, in nats.

        Returns:
            `anchor/penalty`: mean of the penalty's terms. `anchor/forward_kl`: mean of -log_u (k1), an estimate of
            KL(pi_ref || pi_theta) whatever the generator, of either sign. `anchor/log_u_min`, `anchor/log_u_max`,
            `anchor/log_u_abs_mean`: extremes and mean size of log_u = logp - ref_logp, unclamped.
        Raises:
            ValueError: no anchor token was measured. Reads one number from the device.
        """
        if self.tokens == 0:
            raise ValueError(
                "0 anchor tokens were measured; merge the records of all micro-batches and processes first, and give "
                "every optimiser step at least one anchor with a completion token"
            )
        return {
            "anchor/penalty": self.penalty_sum / self.tokens,
            "anchor/forward_kl": -self.log_u_sum / self.tokens,
            "anchor/log_u_min": self.log_u_min,
            "anchor/log_u_max": self.log_u_max,
            "anchor/log_u_abs_mean": self.log_u_abs_sum / self.tokens,
        }
