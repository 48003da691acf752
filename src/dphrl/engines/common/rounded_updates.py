"""What training loses whose weights are 16-bit ones: updates that are smaller than the distance to the next number."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def unmovable_share(parameters: Iterable[Tensor], step: float) -> float:
    """Share of trained 16-bit weights that an update of `step` leaves as they are, of all trained weights.

    Args:
        parameters: of a model; sharded ones count with their own part.
        step: size of an update; AdamW's is about the learning rate, > 0.
    Returns:
        In [0, 1]; 0 where no trained weight has 16 bits.
    """
    trained = [p.to_local() if hasattr(p, "to_local") else p for p in parameters if p.requires_grad]
    stuck = sum(_unmovable(p, step) for p in trained)
    return float(stuck) / max(1, sum(p.numel() for p in trained))


def _unmovable(weight: Tensor, step: float) -> Tensor | int:
    if weight.element_size() != 2:
        return 0
    part = weight.detach()
    return ((part + step == part) & (part - step == part)).sum()


def loss_of_precision(parameters: Iterable[Tensor], learning_rate: float) -> str | None:
    """In words, with the remedy; None where every update counts."""
    share = unmovable_share(parameters, learning_rate)
    if share == 0:
        return None
    return (
        f"{share:.1%} of the trained weights cannot move by the learning rate {learning_rate:g}: in 16 bits their "
        "neighbours are further away, and the update is rounded off; use model.dtype=bfloat16 (from Python: load the "
        "model in float32 and set bf16=True), which trains float32 weights and computes in bfloat16"
    )
