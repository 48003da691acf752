"""The fingerprint of a policy."""

from __future__ import annotations

import torch

from dphrl.config.load import build_config
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import load_policy


def test_the_fingerprint_follows_weights_tokenizer_and_temperature() -> None:
    config = build_config({"model": {"path": "demo", "device": "cpu"}})
    policy = load_policy(config)
    first = fingerprint(policy, config)
    policy.tokenizer(["a b", "a"], padding=True)  # a call leaves padding state in the tokenizer
    assert fingerprint(load_policy(config), config) == first == fingerprint(policy, config)
    warmer = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"temperature": 0.5}})
    assert fingerprint(policy, warmer)["temperature"] != first["temperature"]
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1e-3
    assert fingerprint(policy, config)["weights"] != first["weights"]
