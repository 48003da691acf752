"""How a model's logits come from its last state: output embedding, bias, logit scale, soft cap and temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HEAD_POSITIONS = {"cpu": 128, "cuda": 512}
"""Positions that go through the head at once: on a CPU their logits stay near its cache, on a GPU the head's weight is
read seldom enough. 512 x 152,000 logits in float32 are 300 MB."""


@dataclass(frozen=True, slots=True)
class LogitRule:
    """softcap * tanh(scale * (h W + b) / softcap) / temperature, in float32 behind the product."""

    scale: float = 1.0
    softcap: float | None = None
    """Bound of the logits before the temperature; None = unbounded."""
    temperature: float = 1.0

    @classmethod
    def of(cls, config: Any, temperature: float) -> LogitRule:
        """The rule that a model's config states, under the names that transformers' models read.

        Gemma, NanoChat and others read `final_logit_softcapping`; Cohere reads `logit_scale`, Muse `output_multiplier`,
        Falcon-H1 `lm_head_multiplier`. Granite and MiniCPM3 divide by `logits_scaling`, HyperCLOVA X multiplies by it.
        A model whose rule stands elsewhere is found by `scoring`, which compares with the model's own logits.

        Args:
            config: of a causal LM of transformers.
            temperature: divides the logits, > 0.
        """
        text = config.get_text_config()
        names = ("logit_scale", "output_multiplier", "lm_head_multiplier")
        scale = next((value for name in names if (value := getattr(text, name, None)) is not None), None)
        scaling = getattr(text, "logits_scaling", None)
        if scale is None and scaling is not None:
            scale = scaling if text.model_type == "hyperclovax" else 1 / scaling
        return cls(1.0 if scale is None else scale, getattr(text, "final_logit_softcapping", None), temperature)

    def logits(
        self,
        hidden_NH: Float[Tensor, "tokens hidden"],
        weight_VH: Float[Tensor, "vocabulary hidden"],
        bias_V: Float[Tensor, " vocabulary"] | None = None,
    ) -> Float[Tensor, "tokens vocabulary"]:
        """Logits in float32; the product itself is rounded as the model's precision or autocast says.

        The order of operations is that of TRL's fused head, so that anchors are scored as they are trained.
        """
        product_NV = F.linear(hidden_NH, weight_VH)
        logits_NV = (product_NV if bias_V is None else product_NV + bias_V.to(product_NV.dtype)).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return logits_NV if self.temperature == 1.0 else logits_NV * (1 / self.temperature)
