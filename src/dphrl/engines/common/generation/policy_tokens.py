"""Which tokens of a generation the policy wrote: a tool's answers stand in completions, too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def policy_mask(batch: Mapping[str, Tensor]) -> Tensor:
    """1 on completion tokens that the policy wrote, else 0; (rows, completion tokens).

    Args:
        batch: a padded generation or micro-batch of TRL; `tool_mask` is there where a tool, an environment or a rollout
            function wrote tokens, with 0 on those.
    """
    written: Tensor | None = batch.get("tool_mask")
    return batch["completion_mask"] if written is None else batch["completion_mask"] * written
