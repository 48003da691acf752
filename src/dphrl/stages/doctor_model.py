"""`dphrl doctor --model`: whether a model can be trained, asked of the checks that the stages run, before any draw."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.engines.trl.balancing_loss import balancing_weight
from dphrl.models.policy import Policy, load_policy
from dphrl.stages.model_check import check_before_drawing
from dphrl.types import Prompt

ASKED = "What is 3 + 4?"


def model_text(path: str) -> str:
    """What a model is, a line each, and the verdict; its weights are loaded on the CPU.

    Raises:
        ModelError, ConfigError: it is refused, and why: it cannot be loaded, its tokenizer ends prompts or lacks
            tokens, its logits do not follow its config, or it is not one policy (`stages.model_check`).
    """
    config = build_config({"model": {"path": path, "device": "cpu"}})
    policy = load_policy(config)
    return "\n".join((*_tokenizer(policy), *_model(config, policy)))


def _tokenizer(policy: Policy) -> Iterator[str]:
    tokenizer = policy.tokenizer
    policy.encode(Prompt("doctor", ASKED))
    yield f"end tokens {tokenizer.convert_ids_to_tokens(list(policy.stop_ids))}, padding {tokenizer.pad_token!r}"
    yield "a prompt gets no end token"
    yield f"chat template: {'none; task.chat must be false' if tokenizer.chat_template is None else 'yes'}"


def _model(config: Config, policy: Policy) -> Iterator[str]:
    from dphrl.models.positions import follows_longest_row

    model = policy.model
    text = model.config.get_text_config()
    parameters = sum(weight.numel() for weight in model.parameters())
    yield f"{type(model).__name__}: {parameters:,} parameters, trained in {policy.precision.weights}"
    dropout = sorted(name for name, value in _numbers(text) if "drop" in name and value > 0)
    yield f"dropout: {', '.join(dropout) + '; off beside anchors' if dropout else 'none'}"
    if follows_longest_row(text):
        yield "rotary frequencies follow the longest row"
    yield from _mixture(model)
    check_before_drawing(config, policy)
    why = _unshared(policy)
    yield "verdict: trains" if why is None else f"verdict: trains, with padded rows because {why}"


def _mixture(model: Any) -> Iterator[str]:
    """What `train` does about a mixture of experts: its balancing loss and a router's noise."""
    text = model.config.get_text_config()
    if not hasattr(text, "output_router_logits"):
        return
    weight = balancing_weight(model.config, None)
    yield "mixture of experts: " + (
        f"TRL adds {weight:g} times its balancing loss (train.trl.router_aux_loss_coef), and prompts are not shared"
        if weight
        else "no balancing loss is added (train.trl.router_aux_loss_coef adds one)"
    )
    noise = sorted(name for name, value in _numbers(text) if "jitter" in name and value > 0)
    yield f"noise of the router: {', '.join(noise) + '; off beside anchors' if noise else 'none'}"


def _unshared(policy: Policy) -> str | None:
    """Why prompts are not shared in training; None where they are."""
    from dphrl.models.autocast import computed_type
    from dphrl.models.logit_rule import LogitRule
    from dphrl.models.sharing_check import prepare_sharing, why_unshared
    from dphrl.models.token_head import read_states

    model = policy.model
    if balancing_weight(model.config, None):
        return "the mixture's balancing loss counts a prompt once for each of its completions"
    why = prepare_sharing(model)
    if why is not None:
        return why
    with policy.autocast():
        read = partial(read_states, model, LogitRule.of(model.config, 1.0))
        computed = computed_type(model, policy.precision.autocast)
        return why_unshared(read, model, model.config.get_text_config().vocab_size, 1.0, computed)


def _numbers(config: Any) -> list[tuple[str, float]]:
    return [(name, value) for name, value in config.to_dict().items() if isinstance(value, float)]
