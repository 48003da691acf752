"""The fingerprint of a policy, which ties anchors and draws to it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dphrl.config.root import Config
from dphrl.models.policy import Policy


def fingerprint(policy: Policy, config: Config) -> dict[str, str]:
    """What anchors depend on, each part as a short text: weights, tokenizer, chat template, dtype, temperature.

    Two policies with the same fingerprint give the same reference log-probabilities to the same tokens.
    """
    tokenizer = policy.tokenizer
    vocabulary = (
        tokenizer.backend_tokenizer.to_str()
        if getattr(tokenizer, "backend_tokenizer", None) is not None
        else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    )
    return {
        "weights": weights_digest(policy.model),
        "tokenizer": _digest(_without_runtime_state(vocabulary)),
        "chat_template": _digest(f"{tokenizer.chat_template}{json.dumps(policy.chat_template_args, sort_keys=True)}"),
        "stop_ids": ",".join(map(str, sorted(policy.stop_ids))),
        "dtype": str(policy.precision),
        "temperature": repr(float(config.sampling.temperature)),
    }


def weights_digest(model: Any) -> str:
    """SHA-256 over names, shapes and bytes of all weights, in the order of their names; first 32 hex digits."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _without_runtime_state(vocabulary: str) -> str:
    """A tokenizer's JSON keeps the padding and truncation of its last call, which say nothing of the tokens."""
    try:
        content = json.loads(vocabulary)
    except json.JSONDecodeError:
        return vocabulary
    return json.dumps({k: v for k, v in content.items() if k not in ("padding", "truncation")}, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
