"""The `dph` block of verl's config: what it takes, what it refuses, and how many anchors come of it."""

from __future__ import annotations

from typing import Any

import pytest

from dphrl.engines.verl.settings import VerlSettings
from dphrl.errors import ConfigError


def block(**values: Any) -> VerlSettings:
    return VerlSettings.of({"anchors": "a", **values})


def test_defaults_are_those_of_our_own_trainer() -> None:
    settings = block()
    assert (settings.method, settings.objective.eta, settings.seed, settings.rescore) == ("dph", 0.05, 0, False)
    loss = settings.anchor_settings(8)
    assert (loss.divergence, loss.log_u_cap, loss.form, loss.estimator) == ("forward_kl", 5.0, "generator", "sampled")
    assert block(divergence="js").objective.eta == 0.2  # a default that follows from a choice


@pytest.mark.parametrize("name", ["forward_kl", "js", "alpha", "reverse_kl", "jeffreys", "squared_hellinger"])
def test_every_divergence_is_there(name: str) -> None:
    assert block(divergence=name).anchor_settings(4).divergence == name


def test_replay_reads_no_divergence() -> None:
    assert block(method="replay", eta=0.1).anchor_settings(4).method == "replay"
    with pytest.raises(ConfigError, match=r"dph\.divergence is no setting of method replay; method dph has it"):
        block(method="replay", divergence="js")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"etaa": 1}, r"dph\.etaa is no setting of method dph; did you mean 'eta'"),
        ({"rescor": True}, r"did you mean 'rescore'"),
        ({"eta": -1}, r"dph\.eta=-1 must be greater than or equal to 0"),
        ({"divergence": "kl"}, r"dph\.divergence='kl'"),
        ({"method": "dhp"}, r"dph\.method='dhp' is not one of dph, replay; did you mean 'dph'"),
        ({"method": "grpo"}, r"trainer_mode=sync"),
        ({"anchor_estimator": "topk"}, r"dph\.anchor_estimator does not go together with verl: .*top-K"),
        ({"anchor_forward": "merged"}, r"dph\.anchor_forward does not go together"),
        ({"form": "definition", "divergence": "js"}, r"fresh completions.*use form=generator"),
        ({"rescore": "yes"}, r"dph\.rescore='yes' must be true or false"),
        ({"seed": -1}, r"dph\.seed=-1"),
        ({"eta_schedule": "target"}, r"dph\.eta_schedule=target needs dph\.drift_target"),
        ({"anchor_ratio": 0.5, "anchors_per_step": 4}, r"say the same thing twice"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        block(**values)


def test_anchors_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"needs \+dph\.anchors=FOLDER"):
        VerlSettings.of({})


def test_anchors_are_an_eighth_of_the_completions_rounded_up_to_what_verl_can_deal_out() -> None:
    assert block().anchors_beside(256, 1) == 32
    assert block().anchors_beside(256, 24) == 48
    assert block(anchor_ratio=0.5).anchors_beside(256, 8) == 128
    assert block(anchors_per_step=16).anchors_beside(256, 8) == 16
    with pytest.raises(ConfigError, match="needs a multiple of 8: give 8 or 16"):
        block(anchors_per_step=12).anchors_beside(256, 8)
    with pytest.raises(ConfigError, match="needs a multiple of 8: give 8, or leave it out"):
        block(anchors_per_step=3).anchors_beside(256, 8)


def test_one_anchor_of_a_prompt_a_step_unless_asked_otherwise() -> None:
    assert block().anchor_settings(4).per_prompt == 1
    assert block(anchors_per_prompt=4).anchor_settings(4).per_prompt == 4
