"""What must hold before verl trains with anchors: refusals, and whether the anchors are of the model that it loads."""

from __future__ import annotations

from typing import Any

from dphrl.anchors import AnchorStore
from dphrl.anchors.manifest import check_fingerprint
from dphrl.config.load import build_config
from dphrl.engines.common.anchor_term import LOG_U_TOLERANCE
from dphrl.engines.verl.prompt_ids import text_template
from dphrl.errors import AnchorError, ConfigError
from dphrl.models.fingerprint import template_digest, tokenizer_digest, weights_digest
from dphrl.models.policy import load_policy, load_tokenizer

FLOAT32 = ("fp32", "float32", "float", "32")
"""verl's words for it."""


def check_settings(config: Any) -> None:
    """Refuse what does not go together with anchors, before anything is started.

    Args:
        config: verl's, whole.
    Raises:
        ConfigError: names the setting and what to do.
    """
    actor = config.actor_rollout_ref.actor
    if (config.get("distillation") or {}).get("enabled", False):
        raise ConfigError("trainer_mode=dph does not go together with distillation: set distillation.enabled=False")
    if actor.get("shuffle", False):
        raise ConfigError(
            "actor_rollout_ref.actor.shuffle=True would leave some mini-batches without anchors; set it to False"
        )
    engine = actor.get(str(actor.strategy)) or {}
    replay = (engine.get("router_replay") or {}).get("mode", "disabled")
    if replay != "disabled":
        raise ConfigError(
            f"router replay (mode={replay}) gives each token the experts of its rollout, and anchors have none; set "
            f"actor_rollout_ref.actor.{actor.strategy}.router_replay.mode=disabled"
        )
    by_width = actor.get("loss_agg_mode") == "seq-mean-token-sum-norm" and actor.get("loss_scale_factor") is None
    if by_width and actor.use_dynamic_bsz:
        raise ConfigError(
            "loss_agg_mode=seq-mean-token-sum-norm divides by the longest row of a micro-batch, which with "
            "use_dynamic_bsz=True may be an anchor; set actor_rollout_ref.actor.loss_scale_factor, e.g. to "
            "data.max_response_length"
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if correction.get("bypass_mode", False) or actor.policy_loss.get("loss_mode") == "bypass_mode":
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode=True needs a token of a rollout in each micro-batch, and some "
            "hold anchors alone; set it to False: verl then computes the old log-probabilities itself"
        )
    if actor.get("use_prefix_grouper", False):
        raise ConfigError(
            "actor_rollout_ref.actor.use_prefix_grouper=True groups rows by the prompt of their rollouts, and anchors "
            "are of other prompts; set it to False"
        )


def check_policy(config: Any, tokenizer: Any, processor: Any, store: AnchorStore, *, weights: bool) -> None:
    """Compare the model that verl trains with the one that drew and scored the anchors.

    Args:
        config: verl's, whole.
        tokenizer, processor: as verl loaded them.
        weights: read the model's weights on this machine, and compare them too.
    Raises:
        ConfigError: a multimodal model. AnchorError: another temperature, tokenizer, chat template or other weights;
            names both sides and the remedy.
    """
    if processor is not None:
        raise ConfigError(
            "trainer_mode=dph trains text models: this model comes with a processor of images or sound, whose rows "
            "have other positions than anchors"
        )
    model, stored = config.actor_rollout_ref.model, store.manifest.fingerprint
    arguments = dict(config.data.get("apply_chat_template_kwargs") or {})
    path = local_path(model.path)
    ours = {"temperature": repr(float(config.actor_rollout_ref.rollout.temperature))}
    settings = build_config(_model_settings(str(local_path(model.get("tokenizer_path") or model.path)), stored))
    own = load_tokenizer(settings.model)
    ours["tokenizer"] = tokenizer_digest(own)
    as_it_is = tokenizer.chat_template == text_template(own)  # prompts are texts, to which no template is applied
    ours["chat_template"] = template_digest(own.chat_template if as_it_is else tokenizer.chat_template, arguments)
    if weights:
        policy = load_policy(build_config(_model_settings(str(path), stored)))
        ours["weights"] = weights_digest(policy.model)
        policy.release()
    try:
        check_fingerprint(store.folder, {name: stored.get(name, "") for name in ours}, ours, "verl's model")
    except AnchorError as error:
        raise AnchorError(f"{error}\n(verl trains {model.path})") from None


def check_first_log_u(mean_abs: float, precision: str, *, rescored: bool) -> None:
    """Refuse anchors to which verl's forward gives other log-probabilities than rounding explains.

    Args:
        mean_abs: mean |log u| before the first step (nats a token).
        precision: of verl's forward, float32 or bfloat16.
        rescored: the scores are verl's own.
    Raises:
        AnchorError: it is more.
    """
    tolerance = LOG_U_TOLERANCE[precision]
    if mean_abs <= tolerance:
        return
    remedy = (
        "verl's forward does not repeat itself: look for dropout, or for kernels that differ between its training and "
        "its scoring"
        if rescored
        else "they are of another model, or verl computes in a way that differs this much: train the model that they "
        "were drawn from, or have verl score them again with +dph.rescore=true"
    )
    raise AnchorError(
        f"before the first step the anchors' mean |log u| in verl's forward is {mean_abs:.2g} nats, more than "
        f"{tolerance}: {remedy}"
    )


def forward_precision(actor: Any) -> str:
    """float32 or bfloat16: what verl's actor multiplies in.

    Args:
        actor: verl's `actor_rollout_ref.actor`.
    """
    engine = actor.get("fsdp_config") or {}
    if not str(actor.strategy).startswith("fsdp"):
        return "bfloat16"
    mixed = engine.get("mixed_precision") or {}
    return "float32" if str(mixed.get("param_dtype", "bf16")) in FLOAT32 else "bfloat16"


def local_path(path: str) -> str:
    """The folder of a model, copied to this machine first where it lies in a remote store, as verl does."""
    from verl.utils.fs import copy_to_local

    return str(copy_to_local(path))


def _model_settings(path: str, stored: Any) -> dict[str, Any]:
    """The settings with which the weights have the type that the anchors' digest was made from."""
    weights = str(stored.get("dtype", "float32")).split()[0]
    dtype = {"bfloat16": "pure_bfloat16"}.get(weights, weights)
    return {"model": {"path": path, "dtype": dtype, "device": "cpu"}}
