"""Which weights an update leaves as they are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from dphrl.engines.common.rounded_updates import loss_of_precision, unmovable_share


def test_a_weight_moves_where_a_step_is_more_than_half_the_way_to_its_neighbour() -> None:
    """bfloat16 has 8 bits: between 1 and 2 its numbers are 2^-7 apart, and below 1 half as far."""
    weights = Parameter(torch.tensor([1.5, -1.5, 0.75, 2.0**-20], dtype=torch.bfloat16))
    assert unmovable_share([weights], 2.0**-7) == 0
    assert unmovable_share([weights], 0.9 * 2.0**-8) == 0.5
    assert unmovable_share([weights], 0.9 * 2.0**-9) == 0.75
    assert unmovable_share([weights], 2.0**-40) == 1


def test_only_trained_weights_of_16_bits_lose_something() -> None:
    half, whole = (Parameter(torch.ones(6, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    frozen = Parameter(torch.ones(100, dtype=torch.bfloat16), requires_grad=False)
    assert unmovable_share([half, frozen], 1e-6) == 1
    assert unmovable_share([half, whole, frozen], 1e-6) == 0.5
    assert unmovable_share([whole, frozen], 1e-6) == 0 and loss_of_precision([whole, frozen], 1e-6) is None
    assert unmovable_share([], 1e-6) == 0


def test_the_words_name_the_share_the_step_and_the_remedy() -> None:
    text = loss_of_precision([Parameter(torch.ones(4, dtype=torch.bfloat16))], 1e-6)
    assert text is not None and text.startswith("100.0% of the trained weights cannot move by the learning rate 1e-06")
    assert "use model.dtype=bfloat16" in text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_share_is_that_of_a_step_of_adamw(dtype: torch.dtype) -> None:
    """The first step of AdamW without decay is the learning rate, whatever the gradient."""
    torch.manual_seed(0)
    weights = Parameter((0.02 * torch.randn(20_000)).to(dtype))
    before = weights.detach().clone()
    expected = unmovable_share([weights], 1e-5)
    weights.grad = torch.randn(20_000).to(dtype) + 3 * torch.sign(torch.randn(20_000)).to(dtype)
    torch.optim.AdamW([weights], lr=1e-5, weight_decay=0.0).step()
    assert 0.1 < expected < 0.95
    assert float((weights == before).float().mean()) == pytest.approx(expected, abs=0.02)
