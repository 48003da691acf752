"""The fingerprint of a policy, which ties anchors and draws to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dphrl.config.root import Config
from dphrl.models.policy import Policy


def fingerprint(policy: Policy, config: Config) -> dict[str, str]:
    """What anchors depend on, each part as a short text: weights, tokenizer, chat template, dtype, temperature.

    Two policies with the same fingerprint give the same reference log-probabilities to the same tokens.
    """
    return {
        "weights": weights_digest(policy.model),
        "tokenizer": tokenizer_digest(policy.tokenizer),
        "chat_template": template_digest(policy.tokenizer.chat_template, policy.chat_template_args),
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


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over all that turns text into tokens; first 32 hex digits."""
    vocabulary = (
        tokenizer.backend_tokenizer.to_str()
        if getattr(tokenizer, "backend_tokenizer", None) is not None
        else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    )
    return _digest(_without_runtime_state(vocabulary))


def template_digest(template: str | None, arguments: Mapping[str, Any]) -> str:
    """SHA-256 over a chat template and what it is called with; first 32 hex digits."""
    return _digest(f"{template}{json.dumps(dict(arguments), sort_keys=True)}")


def _without_runtime_state(vocabulary: str) -> str:
    """A tokenizer's JSON keeps the padding and truncation of its last call, which say nothing of the tokens."""
    try:
        content = json.loads(vocabulary)
    except json.JSONDecodeError:
        return vocabulary
    return json.dumps({k: v for k, v in content.items() if k not in ("padding", "truncation")}, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
