"""What the numbers of a policy are kept and computed in: the one table behind `model.dtype`.

A bfloat16 weight of 0.02 has neighbours 0.0001 away: an update of 1e-6 is rounded away. So weights that are trained are
float32 ones, whatever they are multiplied in (docs/decisions/0054-precision.md).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """Of one loaded model; torch's names of types."""

    weights: str
    autocast: str | None = None
    """What products are rounded to where `torch.autocast` says it; None = a forward runs in the weights' own type."""

    def __str__(self) -> str:
        """How manifests name it; anchors of another name have other log-probabilities, by rounding."""
        if self.autocast == self.weights:  # as older versions trained all weights, and trained adapters beside them
            return self.weights
        if self.autocast is None:
            return self.weights if self.weights == "float32" else f"{self.weights} without autocast"
        return f"{self.weights} computed in {self.autocast}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtype:
    """What a value of `model.dtype` means."""

    stored: str
    """Of the final model, of evaluation, and of vLLM: what nothing trains any more."""
    trained: Precision
    """Of a policy all of whose weights are trained, and of its anchors."""
    adapted: Precision
    """Of a policy that stays as it is beside a trained adapter, and of its anchors; the adapter is float32."""

    @property
    def drawn(self) -> Precision:
        """Of a policy that is only drawn from."""
        return Precision(self.stored)


DTYPES: dict[str, Dtype] = {
    "float32": Dtype(stored="float32", trained=Precision("float32"), adapted=Precision("float32")),
    "bfloat16": Dtype(
        stored="bfloat16", trained=Precision("float32", "bfloat16"), adapted=Precision("bfloat16", "bfloat16")
    ),
    "pure_bfloat16": Dtype(stored="bfloat16", trained=Precision("bfloat16"), adapted=Precision("bfloat16")),
    "float16": Dtype(stored="float16", trained=Precision("float16"), adapted=Precision("float16")),
}
