"""`dphrl doctor --model`: whether a model can be trained, asked of the checks that the stages run, before any draw."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from dphrl.config.load import build_config
from dphrl.models.policy import Policy, load_policy
from dphrl.types import Prompt

ASKED = "What is 3 + 4?"


def model_text(path: str) -> str:
    """What a model is, a line each, and the verdict; its weights are loaded on the CPU.

    Raises:
        ModelError: it is refused, and why: it cannot be loaded, its tokenizer ends prompts or lacks tokens, or its
            logits do not follow its config.
    """
    policy = load_policy(build_config({"model": {"path": path, "device": "cpu"}}))
    return "\n".join((*_tokenizer(policy), *_model(policy)))


def _tokenizer(policy: Policy) -> Iterator[str]:
    tokenizer = policy.tokenizer
    policy.encode(Prompt("doctor", ASKED))
    yield f"end tokens {tokenizer.convert_ids_to_tokens(list(policy.stop_ids))}, padding {tokenizer.pad_token!r}"
    yield "a prompt gets no end token"
    yield f"chat template: {'none; task.chat must be false' if tokenizer.chat_template is None else 'yes'}"


def _model(policy: Policy) -> Iterator[str]:
    from dphrl.models.autocast import computed_type
    from dphrl.models.logit_rule import LogitRule
    from dphrl.models.positions import follows_longest_row
    from dphrl.models.scoring import score
    from dphrl.models.sharing_check import prepare_sharing, why_unshared
    from dphrl.models.token_head import read_states

    model = policy.model
    config = model.config.get_text_config()
    parameters = sum(weight.numel() for weight in model.parameters())
    yield f"{type(model).__name__}: {parameters:,} parameters, trained in {policy.precision.weights}"
    dropout = sorted(name for name, value in _numbers(config) if "drop" in name and value > 0)
    yield f"dropout: {', '.join(dropout) + '; off beside anchors' if dropout else 'none'}"
    if follows_longest_row(config):
        yield "rotary frequencies follow the longest row"
    if hasattr(config, "output_router_logits"):
        yield "mixture of experts: TRL adds its balancing loss, prompts unshared, unless router_aux_loss_coef is 0"
    ids = policy.encode(Prompt("doctor", ASKED))
    autocast = policy.precision.autocast
    score(model, [ids], [ids], pad_id=policy.tokenizer.pad_token_id, temperature=1.0, batch_size=1, autocast=autocast)
    why = prepare_sharing(model)
    if why is None:
        with policy.autocast():
            read = partial(read_states, model, LogitRule.of(model.config, 1.0))
            why = why_unshared(read, model, config.vocab_size, 1.0, computed_type(model, autocast))
    yield "verdict: trains" if why is None else f"verdict: trains, with padded rows because {why}"


def _numbers(config: Any) -> list[tuple[str, float]]:
    return [(name, value) for name, value in config.to_dict().items() if isinstance(value, float)]
