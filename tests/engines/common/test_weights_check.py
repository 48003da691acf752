"""Weights that were loaded are compared with those that were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dphrl.engines.common.weights_check import check_weights, weight_digests
from dphrl.errors import RunDirError

FOLDER = Path("checkpoint-3")


def test_a_digest_is_of_the_bits_of_each_trained_weight() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    before = weight_digests(model)
    assert before.keys() == {"weight", "bias"} and before == weight_digests(model)
    with torch.no_grad():
        model.weight[1, 2] += 1
        model.weight.copy_(model.weight.flip(0).flip(0))
    assert {name for name, digest in weight_digests(model).items() if digest != before[name]} == {"weight"}
    with torch.no_grad():
        model.bias.fill_(0.0)
        zero = weight_digests(model)["bias"]
        model.bias.fill_(-0.0)
    assert weight_digests(model)["bias"] != zero
    model.weight.requires_grad_(False)
    assert weight_digests(model).keys() == {"bias"}


def test_order_within_a_weight_counts() -> None:
    model = nn.Linear(2, 2, bias=False)
    before = weight_digests(model)
    with torch.no_grad():
        model.weight.copy_(model.weight.flip(0))
    assert weight_digests(model) != before


def test_weights_that_differ_or_lack_are_named() -> None:
    saved = {"a": "1", "b": "2", "c": "3"}
    check_weights(saved, [saved], FOLDER)
    with pytest.raises(RunDirError, match=r"checkpoint-3 was read, but 2 of 3 weights are not .*: b, c;"):
        check_weights({"a": "1", "b": "0"}, [saved], FOLDER)
    with pytest.raises(RunDirError, match=r"but 1 of 3 weights .*: d;"):
        check_weights({**saved, "d": "4"}, [saved], FOLDER)


def test_each_process_compares_its_part_where_they_were_divided_alike() -> None:
    saved = [{"a": "1"}, {"a": "2"}]
    check_weights({"a": "2"}, saved, FOLDER, (1, 2))
    with pytest.raises(RunDirError, match="1 of 1 weights"):
        check_weights({"a": "1"}, saved, FOLDER, (1, 2))
    check_weights({"a": "9"}, saved, FOLDER)  # whole now
    check_weights({"a": "9"}, saved, FOLDER, (2, 4))
    check_weights({"a": "9"}, [], FOLDER)  # none were found out
