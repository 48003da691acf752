"""The pure part of dynamic sampling: fresh groups take the place of flat ones in padded batches."""

from __future__ import annotations

import torch

from dphrl.engines.common.dynamic_sampling import merge_generations, put_rows


def test_merged_generations_are_padded_on_the_right_sides() -> None:
    old = {
        "prompt_ids": torch.tensor([[1, 2], [3, 4]]),
        "completion_ids": torch.tensor([[5], [6]]),
        "n": torch.tensor(2),
    }
    new = {"prompt_ids": torch.tensor([[9, 8, 7]]), "completion_ids": torch.tensor([[1, 2]]), "n": torch.tensor(1)}
    merged = merge_generations(old, new, 0, lambda a, b: put_rows([(1, 0)], 1, a, b))
    assert merged["prompt_ids"].tolist() == [[0, 1, 2], [9, 8, 7]]
    assert merged["completion_ids"].tolist() == [[5, 0], [1, 2]]
    assert merged["n"] == 2
