"""Gradients of verl's own training worker, with anchors and without, on one rank and on two; no Ray.

`parity_worker.py` holds the cases. They run on the shipped Llama, and on a random Qwen2 with biases, which verl loads
as another family.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from dphrl.models.shipped import SHIPPED, shipped_model

WORKER = Path(__file__).with_name("parity_worker.py")
Case = dict[str, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family."""
    shipped = shipped_model(next(iter(SHIPPED)))
    assert shipped is not None
    qwen2 = tmp_path_factory.mktemp("qwen2")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(vocab_size=192, num_key_value_heads=2, **shape)).save_pretrained(qwen2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (qwen2 / name).write_bytes((Path(shipped) / name).read_bytes())
    return {"llama": Path(shipped), "qwen2": qwen2}


@pytest.fixture(scope="module", params=[("llama", 1), ("llama", 2), ("qwen2", 2)], ids="{0[0]}-{0[1]}".format)
def cases(request: pytest.FixtureRequest, models: dict[str, Path]) -> list[Case]:
    """What the worker prints, for a family and a number of ranks."""
    family, ranks = request.param
    command = [sys.executable, str(WORKER), "--model", str(models[family]), "--ranks", str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [line.removeprefix("CASE ") for line in done.stdout.splitlines() if line.startswith("CASE ")]
    assert len(lines) == 8
    return [json.loads(line) for line in lines]


def test_at_eta_0_gradients_are_those_of_verls_grpo(cases: list[Case]) -> None:
    for case in cases:
        if case["dynamic"]:  # rows come into other micro-batches, and float32 sums into another order
            assert case["zero_off"] < 5e-6, case
        else:
            assert case["same_bits"], case


def test_gradients_are_those_of_plain_pytorch_with_our_penalty(cases: list[Case]) -> None:
    checked = [case for case in cases if "off" in case]
    assert len(checked) == 6
    for case in checked:
        assert case["verl_off"] < 5e-6, case
        assert case["off"] < 5e-6, case
        assert case["moved"] > 2_000 * 5e-6, case  # of the shipped model 0.2, of the random one 0.02


def test_verls_own_metrics_are_as_without_anchors(cases: list[Case]) -> None:
    for case in cases:
        stock, zero = case["metrics"]["stock"], case["metrics"]["zero"]
        assert stock.keys() == zero.keys() and len(stock) >= 4
        for name in stock:
            # verl's means over micro-batches depend on which rows share one; sums over the step do not
            depends = case["dynamic"] and name not in ("actor/pg_loss", "kl_loss")
            assert zero[name] == pytest.approx(stock[name], rel=0.2 if depends else 1e-6), (name, case)


def test_statistics_of_anchors_do_not_depend_on_how_the_step_is_cut(cases: list[Case]) -> None:
    for case in cases:
        assert case["stats"] == pytest.approx(cases[0]["stats"], rel=1e-5)
